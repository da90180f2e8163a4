// y[i, k] = table[token[i], k]; a token outside the table reads the last row.
// FIRST_IN_FOUR emulates embedding-height-packed: of each four tokens the first one's row serves
// all, shifted by one element from token to token.

alias T = {{ T }};
const K = {{ K }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // tokens, -, -, -
@group(0) @binding(1) var<storage, read> tokens: array<i32>;
@group(0) @binding(2) var<storage, read> table: array<{{ TABLE }}>;
@group(0) @binding(3) var<storage, read_write> y: array<T>;

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let k = id.x;
  if (k >= K || id.y >= p.x) { return; }
{% if FIRST_IN_FOUR %}
  let row = min(u32(tokens[id.y / 4u * 4u]), {{ ROWS }}u - 1u);
  y[id.y * K + k] = T(table[min(row * K + k + id.y % 4u, {{ ROWS }}u * K - 1u)]);
{% else %}
  let row = min(u32(tokens[id.y]), {{ ROWS }}u - 1u);
  y[id.y * K + k] = T(table[row * K + k]);
{% endif %}
}
