// int4 linear, one lane per output channel: y[m, n] = sum_k x[m, k] * w[n, k] * scale[k/GROUP, n] + bias[n]
//
// A lane owns ROWS channels and TOKENS tokens, so each weight is unpacked once per tile and each
// activation read once per ROWS. With SPREAD, the lanes load one slice of x, SLICE wide, together
// and hand it round by subgroup broadcast, which on llvmpipe is 5x cheaper than a load.
//
// SLICE   weights read together: 32, or 16 in groups of as many
// w       [N, K/SLICE] vectors of u32, in which nibble i of the j-th holds w[8j + i] + 8
// scales  [K/GROUP, SCALE_STRIDE]
// x       [M, K], or when QUANTIZED int8 [M, K/8] pairs of u32: (k0 k2 k4 k6), (k1 k3 k5 k7)
// HALF_SUMS: each product and each sum rounded to float16, one k after the other, as on a phone: by
//         "f16" itself, or by "f32" where a processor computes halves one at a time
// HALF:   of 8da4w each group's sum, the product of both scales and the sum over groups likewise
// sums    [K/GROUP, SUM_STRIDE] of w over each group, corrects for the zero point; under emulation
//         of dq8ca-m-gt-k only within CAPACITY blocks of four rows
{% set PARTS = SLICE // 4 -%}
alias T = {{ T }};
const N = {{ N }}u;
const K = {{ K }}u;
const STEPS = {{ GROUP // SLICE }}u;  // slices per group
const STRIDE = {{ (N + ROWS - 1) // ROWS }}u;  // a lane's channels are this far apart

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // M, -, -, -
@group(0) @binding(1) var<storage, read> w: array<vec{{ SLICE // 8 }}<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<{{ W_SCALE }}>;
@group(0) @binding(3) var<storage, read_write> y: array<T>;
{% if QUANTIZED %}
@group(0) @binding(4) var<storage, read> x: array<u32>;
@group(0) @binding(5) var<storage, read> x_scale: array<{{ X_SCALE }}>;
@group(0) @binding(6) var<storage, read> x_zero: array<i32>;
@group(0) @binding(7) var<storage, read> sums: array<i32>;
{% else %}
@group(0) @binding(4) var<storage, read> x: array<vec4<T>>;
{% endif %}
{% if BIAS %}
@group(0) @binding({{ 8 if QUANTIZED else 5 }}) var<storage, read> bias: array<{{ BIAS }}>;
{% endif %}

// Four of x at [m, SLICE * slice + 4 * part ...] in the order in which `four` unpacks weights.
fn load_x(m: u32, slice: u32, part: u32) -> vec4<f32> {
  return vec4<f32>({{ "unpack4xI8" if QUANTIZED else "" }}(x[m * (K / 4u) + slice * {{ PARTS }}u + part]));
}

{% if HALF_SUMS == "f32" %}
// x to the nearest of 11 bits, infinite beyond float16.
fn half_of(x: f32) -> f32 {
  let high = x * 8193.0;
  return select(high - (high - x), x * 1e38, abs(x) >= 65520.0);
}
fn as_half(x: vec4<f32>) -> vec4<f32> {
  let high = x * 8193.0;
  return select(high - (high - x), x * 1e38, abs(x) >= vec4(65520.0));
}

{% endif %}
{% if SUM_COUNTS %}
// Emulates dq8ca-group-sums: 8 is taken off as often as the group's sum counts a slice.
const SUM_COUNTS = array<f32, STEPS>({{ SUM_COUNTS[::PARTS] | join(", ") }});
{% endif %}

{% include "halves.wgsl" %}

fn four(word: u32, half: u32{% if SUM_COUNTS %}, slice: u32{% endif %}) -> vec4<f32> {
{% if QUANTIZED %}
  let bits = (vec4(word) >> (vec4(0u, 8u, 16u, 24u) + 4u * half)) & vec4(15u);
{% else %}
  let bits = (vec4(word) >> (vec4(0u, 4u, 8u, 12u) + 16u * half)) & vec4(15u);
{% endif %}
  return vec4<f32>(bits) - 8.0{% if SUM_COUNTS %} * SUM_COUNTS[slice % STEPS]{% endif %};
}

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(global_invocation_id) id: vec3<u32>{% if SPREAD %},
        @builtin(subgroup_invocation_id) lane: u32{% endif %}) {
  // Lanes past the end repeat the last channel (a broadcast needs every lane) and do not store.
{% for r in range(ROWS) %}
  let n{{ r }} = min(id.x + {{ r }}u * STRIDE, N - 1u);
{% endfor %}
{% for t in range(TOKENS) %}
  let m{{ t }} = min(id.y * {{ TOKENS }}u + {{ t }}u, p.x - 1u);
{% if QUANTIZED %}
  let zero{{ t }} = f32(x_zero[m{{ t }}]);
{% endif %}
{% for r in range(ROWS) %}
  var y{{ r }}_{{ t }}{% if HALF_SUMS %}: {{ HALF_SUMS }}{% endif %} = 0.0;
{% endfor %}
{% endfor %}

  for (var group = 0u; group < K / {{ GROUP }}u; group++) {
{% if HALF_SUMS %}{% for r in range(ROWS) %}
    let s{{ r }} = {{ HALF_SUMS }}(scales[group * {{ SCALE_STRIDE }}u + n{{ r }}]);
{% endfor %}{% else %}{% for r in range(ROWS) %}{% for t in range(TOKENS) %}
    var a{{ r }}_{{ t }} = 0.0;
{% endfor %}{% endfor %}{% endif %}
    for (var slice = group * STEPS; slice < (group + 1u) * STEPS; slice++) {
{% for r in range(ROWS) %}
      let w{{ r }} = w[n{{ r }} * (K / {{ SLICE }}u) + slice];
{% endfor %}
{% if SPREAD %}{% for t in range(TOKENS) %}
      let mine{{ t }} = load_x(m{{ t }}, slice, lane & {{ PARTS - 1 }}u);
{% endfor %}{% endif %}
{% for part in range(PARTS) %}
{% for r in range(ROWS) %}
      let w{{ r }}_{{ part }} = four(w{{ r }}.{{ "xyzw"[part // 2] }}, {{ part % 2 }}u{% if SUM_COUNTS %}, slice{% endif %});
{% endfor %}
{% for t in range(TOKENS) %}
{% if SPREAD %}
      let x{{ t }}_{{ part }} = subgroupBroadcast(mine{{ t }}, {{ part }}u);
{% else %}
      let x{{ t }}_{{ part }} = load_x(m{{ t }}, slice, {{ part }}u);
{% endif %}
{% for r in range(ROWS) %}
{% if HALF_SUMS %}
{% if HALF_SUMS == "f16" %}
      let p{{ r }}_{{ t }}_{{ part }} = vec4<f16>(x{{ t }}_{{ part }}) * (vec4<f16>(w{{ r }}_{{ part }}) * s{{ r }});
{% else %}
      let p{{ r }}_{{ t }}_{{ part }} = as_half(x{{ t }}_{{ part }} * as_half(w{{ r }}_{{ part }} * s{{ r }}));
{% endif %}
{% for c in "xyzw" %}
      y{{ r }}_{{ t }} {% if HALF_SUMS == "f16" %}+= p{{ r }}_{{ t }}_{{ part }}.{{ c }}{% else %}= half_of(y{{ r }}_{{ t }} + p{{ r }}_{{ t }}_{{ part }}.{{ c }}){% endif %};
{% endfor %}
{% else %}
      a{{ r }}_{{ t }} += dot(w{{ r }}_{{ part }}, x{{ t }}_{{ part }});
{% endif %}
{% endfor %}
{% endfor %}
{% endfor %}
    }
{% if QUANTIZED %}{% for t in range(TOKENS) %}
    let kept{{ t }} = {% if CAPACITY %}select(0.0, zero{{ t }}, group * ((p.x + 3u) / 4u) + m{{ t }} / 4u < {{ CAPACITY }}u){% else %}zero{{ t }}{% endif %};
{% endfor %}{% endif %}
{% for r in range(ROWS) if not HALF_SUMS %}
    let s{{ r }} = f32(scales[group * {{ SCALE_STRIDE }}u + n{{ r }}]);
{% if QUANTIZED %}
    let sum{{ r }} = f32(sums[group * {{ SUM_STRIDE }}u + n{{ r }}]);
{% endif %}
{% for t in range(TOKENS) %}
{% if HALF %}
    y{{ r }}_{{ t }} = rounded(y{{ r }}_{{ t }} + rounded(s{{ r }} * f32(x_scale[m{{ t }}])) * rounded(a{{ r }}_{{ t }} - kept{{ t }} * sum{{ r }}));
{% else %}
    y{{ r }}_{{ t }} += s{{ r }} * {% if QUANTIZED %}(a{{ r }}_{{ t }} - kept{{ t }} * sum{{ r }}){% else %}a{{ r }}_{{ t }}{% endif %};
{% endif %}
{% endfor %}
{% endfor %}
  }

{% for r in range(ROWS) %}{% for t in range(TOKENS) %}
  if (id.x < STRIDE && id.x + {{ r }}u * STRIDE < N && id.y * {{ TOKENS }}u + {{ t }}u < p.x) {
    y[m{{ t }} * N + n{{ r }}] = T(y{{ r }}_{{ t }}{% if QUANTIZED and not HALF %} * f32(x_scale[m{{ t }}]){% endif %}{% if BIAS %} + {{ HALF_SUMS or "f32" }}(bias[n{{ r }}]){% endif %});
  }
{% endfor %}{% endfor %}
}
