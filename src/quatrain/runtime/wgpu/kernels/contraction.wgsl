// y[i] = FACTOR * sum_k a[A + k * A_STEP] * b[B + k * B_STEP] + ADDED * c[AT], accumulated in f32, or
// where HALF in float16; a lane per result.

alias T = {{ T }};

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // elements of y, -, -, -
@group(0) @binding(1) var<storage, read> a: array<{{ A_TYPE }}>;
@group(0) @binding(2) var<storage, read> b: array<{{ B_TYPE }}>;
@group(0) @binding(3) var<storage, read_write> y: array<T>;
{% if C_TYPE %}
@group(0) @binding(4) var<storage, read> c: array<{{ C_TYPE }}>;
{% endif %}

{% include "halves.wgsl" %}

fn element(i: u32) {
  let a_first = {{ A }};
  let b_first = {{ B }};
  var total = 0.0;
  for (var k = 0u; k < {{ K }}u; k++) {
    total = rounded(total + f32(a[a_first + k * {{ A_STEP }}u]) * f32(b[b_first + k * {{ B_STEP }}u]));
  }
  y[i] = T({{ FACTOR }} * total{% if C_TYPE %} + {{ ADDED }} * f32(c[{{ AT }}]){% endif %});
}

{% include "element.wgsl" %}
