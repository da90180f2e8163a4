// y[i, k] = (nibble(table[token[i], k]) - 8) * scales[token[i], k/GROUP]
//
// table [ROWS, K/2] bytes; the even k is in the low nibble of its byte when the table is shared
// with a linear (EVEN_LOW), else in the high one.

alias T = {{ T }};
const K = {{ K }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // tokens, -, -, -
@group(0) @binding(1) var<storage, read> tokens: array<i32>;
@group(0) @binding(2) var<storage, read> table: array<u32>;
@group(0) @binding(3) var<storage, read> scales: array<{{ W_SCALE }}>;
@group(0) @binding(4) var<storage, read_write> y: array<T>;

fn element(m: u32, k: u32) {
  if (k >= K) { return; }
  let row = min(u32(tokens[m]), {{ ROWS }}u - 1u);
  let nibble_at = k{% if not EVEN_LOW %} ^ 1u{% endif %};
  let at = row * K + nibble_at;
  let value = f32(extractBits(table[at / 8u], at % 8u * 4u, 4u)) - 8.0;
  y[m * K + k] = T(value * f32(scales[row * {{ K // GROUP }}u + k / {{ GROUP }}u]));
}

{% include "row_element.wgsl" %}
