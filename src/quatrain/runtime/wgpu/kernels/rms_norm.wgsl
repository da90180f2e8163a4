// y[m, k] = x[m, k] / sqrt(mean_k(x[m, k]^2) + EPS) * weight[k]; one workgroup per row of x [M, K].

alias T = {{ T }};
const K = {{ K }}u;
const LANES = {{ WORKGROUP }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // M, -, -, -
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read> weight: array<{{ WEIGHT }}>;
@group(0) @binding(3) var<storage, read_write> y: array<T>;

var<workgroup> squares: array<f32, {{ WORKGROUP }}>;

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let m = min(group.x, p.x - 1u);
  var total = 0.0;
  for (var k = lane; k < K; k += LANES) {
    let value = f32(x[m * K + k]);
    total += value * value;
  }
  squares[lane] = total;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { squares[lane] += squares[lane + half]; }
  }
  workgroupBarrier();
  let factor = inverseSqrt(squares[0] / f32(K) + {{ EPS }});
  for (var k = lane; k < K; k += LANES) {
    y[m * K + k] = T(f32(x[m * K + k]) * factor * f32(weight[k]));
  }
}
