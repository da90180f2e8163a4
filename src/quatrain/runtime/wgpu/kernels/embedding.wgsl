// y[i, k] = table[token[i], k]; a token outside the table reads the last row.
// FIRST_IN_FOUR emulates embedding-height-packed: of each four tokens the first one's row serves
// all, shifted by one element from token to token.

alias T = {{ T }};
const K = {{ K }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // tokens, -, -, -
@group(0) @binding(1) var<storage, read> tokens: array<i32>;
@group(0) @binding(2) var<storage, read> table: array<{{ TABLE }}>;
@group(0) @binding(3) var<storage, read_write> y: array<T>;

fn element(m: u32, k: u32) {
  if (k >= K) { return; }
{% if FIRST_IN_FOUR %}
  let row = min(u32(tokens[m / 4u * 4u]), {{ ROWS }}u - 1u);
  y[m * K + k] = T(table[min(row * K + k + m % 4u, {{ ROWS }}u * K - 1u)]);
{% else %}
  let row = min(u32(tokens[m]), {{ ROWS }}u - 1u);
  y[m * K + k] = T(table[row * K + k]);
{% endif %}
}

{% include "row_element.wgsl" %}
