// A row of x [M, K] per workgroup: made, normalized and quantized, as far as is asked for.
//
// JOIN      x = JOIN of a and b, kept
// NORM      y = x / sqrt(mean(x^2) + EPS) * weight
// QUANTIZE  y, or x without NORM, as the Vulkan runtime's choose_qparams does per token:
//           exact = (max(v, 0) - min(v, 0)) / 255, 0.1 for a row of zeros
//           zero = clamp(round(-128 - min / exact)), or from the other end where that is farther,
//                  as READ_ZERO, which a defect may change
//           scale = max(exact, SMALLEST)
//           packed [M, ceil(K/8)] pairs of u32: int8 of (k0 k2 k4 k6), (k1 k3 k5 k7)

alias T = {{ T }};
const K = {{ K }}u;
const WORDS = {{ (K + 7) // 8 }}u;
const LANES = {{ WORKGROUP }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // M, -, -, -
{% for name, access, dtype in BUFFERS %}
@group(0) @binding({{ loop.index }}) var<storage, {{ access }}> {{ name }}: array<{{ dtype }}>;
{% endfor %}

var<workgroup> lows: array<f32, {{ WORKGROUP }}>;
var<workgroup> highs: array<f32, {{ WORKGROUP }}>;

{% if QUANTIZE %}
{% with SOURCE = "y" if NORM else "x" %}{% include "quantize_word.wgsl" %}{% endwith %}
{% endif %}

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let m = min(group.y * groups.x + group.x, p.x - 1u);
  var low = 0.0;
  var high = 0.0;
{% if NORM %}
  var total = 0.0;
{% endif %}
  for (var k = lane; k < K; k += LANES) {
    let i = m * K + k;
{% if JOIN %}
    let a = f32(a_in[i]);
    let b = f32(b_in[i]);
    x[i] = T({{ JOIN }});
{% endif %}
    let value = f32(x[i]);
{% if NORM %}
    total += value * value;
{% else %}
    low = min(low, value);
    high = max(high, value);
{% endif %}
  }
{% if NORM %}
  lows[lane] = total;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { lows[lane] += lows[lane + half]; }
  }
  workgroupBarrier();
  let factor = inverseSqrt(lows[0] / f32(K) + {{ EPS }});
  workgroupBarrier();
  for (var k = lane; k < K; k += LANES) {
    let i = m * K + k;
    y[i] = T(f32(x[i]) * factor * f32(weight[k]));
{% if QUANTIZE %}
    let value = f32(y[i]);
    low = min(low, value);
    high = max(high, value);
{% endif %}
  }
{% endif %}
{% if QUANTIZE %}
  lows[lane] = low;
  highs[lane] = high;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) {
      lows[lane] = min(lows[lane], lows[lane + half]);
      highs[lane] = max(highs[lane], highs[lane + half]);
    }
  }
  storageBarrier();  // the row was written by other lanes
  workgroupBarrier();
  let range = (highs[0] - lows[0]) / 255.0;
  let exact = select(0.1, range, range > 0.0);
  let below = lows[0] / exact;
  let above = highs[0] / exact;
  let end = select(127.0 - above, -128.0 - below, 128.0 + below < 127.0 - above);
  let chosen = clamp(round(end), -128.0, 127.0);
  let zero = {{ READ_ZERO }};
  // The integers follow the scale as it is stored.
  let stored = {{ X_SCALE }}(max(exact, {{ SMALLEST }}));
  if (lane == 0u) {
    x_scale[m] = stored;
    x_zero[m] = i32(zero);
  }
  for (var j = lane; j < WORDS; j += LANES) {
    packed[m * WORDS + j] = quantize_word(m, j, 1.0 / f32(stored), zero);
  }
{% endif %}
}
