// int4 matrix-vector for a GPU: LANES neighbouring lanes share one output channel, so that a
// subgroup reads a row of packed weights as one run of memory. Same operands as linear_rows.wgsl.
//
// QUANTIZED takes the dot product of four int8 at a time (dot4I8Packed): a u32 of weights splits
// into its even and its odd nibbles, which is the order the activations were packed in.

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
{% if QUANTIZED %}
@group(0) @binding(4) var<storage, read> x: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read> x_scale: array<{{ X_SCALE }}>;
@group(0) @binding(6) var<storage, read> x_zero: array<i32>;
@group(0) @binding(7) var<storage, read> sums: array<i32>;
{% else %}
@group(0) @binding(4) var<storage, read> x: array<vec4<T>>;
{% endif %}
{% if BIAS %}
@group(0) @binding({{ 8 if QUANTIZED else 5 }}) var<storage, read> bias: array<{{ BIAS }}>;
{% endif %}

var<workgroup> partial: array<f32, {{ WORKGROUP }}>;

{% if QUANTIZED %}
// sum of q * (nibble - 8) over one word; the zero point is corrected once per group.
fn word_product(word: u32, m: u32, n: u32, j: u32) -> f32 {
  const ONES = 0x01010101u;
  let q = x[m * WORDS + j];
  var total = dot4I8Packed(word & 0x0f0f0f0fu, q.x) + dot4I8Packed((word >> 4u) & 0x0f0f0f0fu, q.y);
  total -= 8 * (dot4I8Packed(q.x, ONES) + dot4I8Packed(q.y, ONES));
  let group = j / PER_GROUP;
  if (j % PER_GROUP == 0u{% if CAPACITY %} && group * ((p.x + 3u) / 4u) + m / 4u < {{ CAPACITY }}u{% endif %}) {
    return f32(total) - f32(x_zero[m]) * f32(sums[group * {{ SUM_STRIDE }}u + n]);
  }
  return f32(total);
}
{% else %}
fn word_product(word: u32, m: u32, n: u32, j: u32) -> f32 {
  let at = (m * WORDS + j) * 2u;
  let low = vec4<f32>((vec4(word) >> vec4(0u, 4u, 8u, 12u)) & vec4(15u)) - 8.0;
  let high = vec4<f32>((vec4(word) >> vec4(16u, 20u, 24u, 28u)) & vec4(15u)) - 8.0;
  return dot(low, vec4<f32>(x[at])) + dot(high, vec4<f32>(x[at + 1u]));
}
{% endif %}

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
    y[m * N + n] = T(partial[id]{% if QUANTIZED %} * f32(x_scale[m]){% endif %}{% if BIAS %} + f32(bias[n]){% endif %});
  }
}
