// int4 linear for groups that are not multiples of 32: one lane per output, one weight at a time.
// Operands as in linear_rows.wgsl, rows of w holding ROW nibbles, the even k in the low one of a byte
// (EVEN_LOW) or in the high one.

alias T = {{ T }};
const N = {{ N }}u;
const K = {{ K }}u;
const WORDS = {{ (K + 7) // 8 }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // M, -, -, -
@group(0) @binding(1) var<storage, read> w: array<u32>;
@group(0) @binding(2) var<storage, read> scales: array<{{ W_SCALE }}>;
@group(0) @binding(3) var<storage, read_write> y: array<T>;
{% if QUANTIZED %}
@group(0) @binding(4) var<storage, read> x: array<u32>;
@group(0) @binding(5) var<storage, read> x_scale: array<{{ X_SCALE }}>;
@group(0) @binding(6) var<storage, read> x_zero: array<i32>;
@group(0) @binding(7) var<storage, read> sums: array<i32>;
{% else %}
@group(0) @binding(4) var<storage, read> x: array<T>;
{% endif %}
{% if BIAS %}
@group(0) @binding({{ 8 if QUANTIZED else 5 }}) var<storage, read> bias: array<{{ BIAS }}>;
{% endif %}

fn load_x(m: u32, k: u32) -> f32 {
{% if QUANTIZED %}
  // Words come in pairs of the even and the odd k of each eight.
  let word = x[(m * WORDS + k / 8u) * 2u + k % 2u];
  return f32(extractBits(i32(word), (k % 8u) / 2u * 8u, 8u));
{% else %}
  return f32(x[m * K + k]);
{% endif %}
}

{% include "halves.wgsl" %}

fn nibble_of(at: u32) -> u32 { return extractBits(w[at / 8u], at % 8u * 4u, 4u); }

{% if SUM_COUNTS %}
// Emulates dq8ca-group-sums: 8 is taken off as often as the group's sum counts a four.
const SUM_COUNTS = array<f32, {{ SUM_COUNTS | length }}>({{ SUM_COUNTS | join(", ") }});
{% endif %}

fn element(m: u32, n: u32) {
  if (n >= N) { return; }
  var total{% if HALF_SUMS %}: f16{% endif %} = 0.0;
  for (var group = 0u; group < K / {{ GROUP }}u; group++) {
{% if HALF_SUMS %}
    let scale = f16(scales[group * {{ SCALE_STRIDE }}u + n]);
{% else %}
    var a = 0.0;
{% endif %}
    for (var k = group * {{ GROUP }}u; k < (group + 1u) * {{ GROUP }}u; k++) {
      let nibble = nibble_of(n * {{ ROW }}u + k{% if not EVEN_LOW %} ^ 1u{% endif %});
{% if HALF_SUMS %}
      total += f16(load_x(m, k)) * ((f16(nibble) - 8.0) * scale);
{% else %}
      a += (f32(nibble) - 8.0{% if SUM_COUNTS %} * SUM_COUNTS[k % {{ GROUP }}u / 4u]{% endif %}) * load_x(m, k);
{% endif %}
    }
{% if QUANTIZED %}
    if (true{% if CAPACITY %} && group * ((p.x + 3u) / 4u) + m / 4u < {{ CAPACITY }}u{% endif %}) {
      a -= f32(x_zero[m]) * f32(sums[group * {{ SUM_STRIDE }}u + n]);
    }
{% endif %}
{% if not HALF_SUMS %}
{% if HALF %}
    total = rounded(total + rounded(f32(scales[group * {{ SCALE_STRIDE }}u + n]) * f32(x_scale[m])) * rounded(a));
{% else %}
    total += a * f32(scales[group * {{ SCALE_STRIDE }}u + n]);
{% endif %}
{% endif %}
  }
  y[m * N + n] = T(total{% if QUANTIZED and not HALF %} * f32(x_scale[m]){% endif %}{% if BIAS %} + {{ "f16" if HALF_SUMS else "f32" }}(bias[n]){% endif %});
}

{% include "row_element.wgsl" %}
