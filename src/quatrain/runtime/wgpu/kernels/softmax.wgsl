// y = softmax of K elements of x that lie STEP apart, or its logarithm (LOG); a lane per such row.
// Where HALF it is computed in float16, every fourth exponential being summed by one worker.

alias T = {{ T }};
const K = {{ K }}u;
const STEP = {{ STEP }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // rows, -, -, -
@group(0) @binding(1) var<storage, read> x: array<{{ X }}>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;

{% include "halves.wgsl" %}

fn element(i: u32) {
  let first = {{ FIRST }};
  var top = f32(x[first]);
  for (var k = 1u; k < K; k++) { top = max(top, f32(x[first + k * STEP])); }
  var parts = vec4<f32>(0.0);
  for (var k = 0u; k < K; k++) {
    let power = rounded(exp(rounded(f32(x[first + k * STEP]) - top)));
    parts[k % 4u] = rounded(parts[k % 4u] + power);
  }
  let total = rounded(rounded(rounded(parts.x + parts.y) + parts.z) + parts.w);
  for (var k = 0u; k < K; k++) {
    let at = first + k * STEP;
    y[at] = T({% if LOG %}f32(x[at]) - top - log(total){% else %}rounded(exp(rounded(f32(x[at]) - top))) / total{% endif %});
  }
}

{% include "element.wgsl" %}
