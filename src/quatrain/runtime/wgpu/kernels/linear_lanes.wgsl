// int4 matrix-vector for a GPU: LANES neighbouring lanes share one output channel, so that a
// subgroup reads a row of packed weights as one run of memory. Same operands as linear_rows.wgsl.

alias T = {{ T }};
const N = {{ N }}u;
const WORDS = {{ K // 8 }}u;  // u32 of eight weights per row
const PER_GROUP = {{ GROUP // 8 }}u;
const LANES = {{ LANES }}u;
const ROWS = {{ WORKGROUP // LANES }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // M, -, -, -
@group(0) @binding(1) var<storage, read> w: array<u32>;
@group(0) @binding(2) var<storage, read> scales: array<{{ W_SCALE }}>;
@group(0) @binding(3) var<storage, read_write> y: array<T>;
@group(0) @binding(4) var<storage, read> x: array<vec4<T>>;
{% if BIAS %}
@group(0) @binding(5) var<storage, read> bias: array<{{ BIAS }}>;
{% endif %}

var<workgroup> partial: array<f32, {{ WORKGROUP }}>;

fn word_product(word: u32, m: u32, n: u32, j: u32) -> f32 {
  let at = (m * WORDS + j) * 2u;
  let low = vec4<f32>((vec4(word) >> vec4(0u, 4u, 8u, 12u)) & vec4(15u)) - 8.0;
  let high = vec4<f32>((vec4(word) >> vec4(16u, 20u, 24u, 28u)) & vec4(15u)) - 8.0;
  return dot(low, vec4<f32>(x[at])) + dot(high, vec4<f32>(x[at + 1u]));
}

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) id: u32) {
  let lane = id % LANES;
  let row = group.x * ROWS + id / LANES;
  let n = min(row, N - 1u);
  let m = group.y;
  var total = 0.0;
  for (var j = lane; j < WORDS; j += LANES) {
    let scale = f32(scales[j / PER_GROUP * {{ SCALE_STRIDE }}u + n]);
    total += scale * word_product(w[n * WORDS + j], m, n, j);
  }
  partial[id] = total;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { partial[id] += partial[id + half]; }
  }
  if (lane == 0u && row < N && m < p.x) {
    y[m * N + n] = T(partial[id]{% if BIAS %} + f32(bias[n]){% endif %});
  }
}
