// y = (x - mean) * factor * weight + bias for rows x [M, K], with factor = 1 / sqrt(variance + EPS);
// mean and factor of each row besides. A workgroup per row. Where HALF all of it is in float16.

alias T = {{ T }};
const K = {{ K }}u;
const LANES = {{ WORKGROUP }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // M, -, -, -
@group(0) @binding(1) var<storage, read> x: array<{{ X }}>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;
@group(0) @binding(3) var<storage, read_write> means: array<{{ MEANS }}>;
@group(0) @binding(4) var<storage, read_write> factors: array<{{ FACTORS }}>;
{% for name, dtype in AFFINE %}
@group(0) @binding({{ loop.index + 4 }}) var<storage, read> {{ name }}: array<{{ dtype }}>;
{% endfor %}

var<workgroup> parts: array<f32, {{ WORKGROUP }}>;

{% include "halves.wgsl" %}

fn joined(lane: u32, part: f32) -> f32 {
  parts[lane] = part;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { parts[lane] = rounded(parts[lane] + parts[lane + half]); }
  }
  workgroupBarrier();
  let total = parts[0];
  workgroupBarrier();
  return total;
}

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let m = min(group.y * groups.x + group.x, p.x - 1u);
  var sum = 0.0;
  for (var k = lane; k < K; k += LANES) { sum = rounded(sum + f32(x[m * K + k])); }
  let mean = rounded(joined(lane, sum) / f32(K));
  var squares = 0.0;
  for (var k = lane; k < K; k += LANES) {
    let apart = rounded(f32(x[m * K + k]) - mean);
    squares = rounded(squares + rounded(apart * apart));
  }
  let variance = rounded(joined(lane, squares) / f32(K));
  let factor = rounded(inverseSqrt(rounded(variance + rounded({{ EPS }}))));
  if (lane == 0u) {
    means[m] = {{ MEANS }}(mean);
    factors[m] = {{ FACTORS }}(factor);
  }
  for (var k = lane; k < K; k += LANES) {
    var value = rounded(rounded(f32(x[m * K + k]) - mean) * factor);
{% for name, dtype in AFFINE %}
    value = rounded(value {{ "*" if name == "weight" else "+" }} f32({{ name }}[k]));
{% endfor %}
    y[m * K + k] = T(value);
  }
}
