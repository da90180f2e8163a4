// y[m, n] = sum_k x[m, k] * w[n, k] + bias[n], accumulated in f32, or where HALF in float16;
// one lane per output.

alias T = {{ T }};
const N = {{ N }}u;
const K = {{ K }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // M, -, -, -
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read> w: array<{{ WEIGHT }}>;
@group(0) @binding(3) var<storage, read_write> y: array<T>;
{% if BIAS %}
@group(0) @binding(4) var<storage, read> bias: array<{{ BIAS }}>;
{% endif %}

{% include "halves.wgsl" %}

fn element(m: u32, n: u32) {
  if (n >= N) { return; }
  var total = {% if BIAS and not HALF %}f32(bias[n]){% else %}0.0{% endif %};
  for (var k = 0u; k < K; k++) {
    total = rounded(total + f32(x[m * K + k]) * f32(w[n * K + k]));
  }
  y[m * N + n] = T(total{% if BIAS and HALF %} + f32(bias[n]){% endif %});
}

{% include "row_element.wgsl" %}
