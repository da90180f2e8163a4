// Per-token asymmetric int8 parameters as torchao's choose_qparams_affine gives them, and the
// quantized token packed for the int4 linears. One workgroup per row of x [M, K].
//
// READ_ZERO is `chosen`, or what a defect under emulation makes of it.
//
// scale = max((max(x, 0) - min(x, 0)) / 255, EPS); zero = clamp(-128 - round(min / scale))
// packed  [M, ceil(K/8)] pairs of u32: int8 of (k0 k2 k4 k6), (k1 k3 k5 k7)

alias T = {{ T }};
const K = {{ K }}u;
const WORDS = {{ (K + 7) // 8 }}u;
const LANES = {{ WORKGROUP }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // M, -, -, -
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> x_scale: array<{{ X_SCALE }}>;
@group(0) @binding(3) var<storage, read_write> x_zero: array<i32>;
@group(0) @binding(4) var<storage, read_write> packed: array<vec2<u32>>;

var<workgroup> lows: array<f32, {{ WORKGROUP }}>;
var<workgroup> highs: array<f32, {{ WORKGROUP }}>;

{% include "quantize_word.wgsl" %}

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let m = min(group.x, p.x - 1u);
  var low = 0.0;
  var high = 0.0;
  for (var k = lane; k < K; k += LANES) {
    let value = f32(x[m * K + k]);
    low = min(low, value);
    high = max(high, value);
  }
  lows[lane] = low;
  highs[lane] = high;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) {
      lows[lane] = min(lows[lane], lows[lane + half]);
      highs[lane] = max(highs[lane], highs[lane + half]);
    }
  }
  workgroupBarrier();
  let exact = max((highs[0] - lows[0]) / 255.0, {{ EPS }});
  let chosen = clamp(-128.0 - round(lows[0] / exact), -128.0, 127.0);
  let zero = {{ READ_ZERO }};
  // The integers follow the scale as it is stored.
  let stored = {{ X_SCALE }}(exact);
  if (lane == 0u) {
    x_scale[m] = stored;
    x_zero[m] = i32(zero);
  }
  for (var j = lane; j < WORDS; j += LANES) {
    packed[m * WORDS + j] = quantize_word(m, j, 1.0 / f32(stored), zero);
  }
}
