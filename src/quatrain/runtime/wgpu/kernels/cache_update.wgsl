// Writes the new keys and values [tokens, WIDTH] into their caches [context, WIDTH] at `start`.

alias T = {{ T }};
const WIDTH = {{ WIDTH }}u;  // KV heads * head_dim

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // tokens, start, -, -
@group(0) @binding(1) var<storage, read> k: array<T>;
@group(0) @binding(2) var<storage, read> v: array<T>;
@group(0) @binding(3) var<storage, read_write> k_cache: array<T>;
@group(0) @binding(4) var<storage, read_write> v_cache: array<T>;

fn element(m: u32, i: u32) {
  if (i >= WIDTH) { return; }
  let source = m * WIDTH + i;
  let goal = (p.y + m) * WIDTH + i;
  k_cache[goal] = k[source];
  v_cache[goal] = v[source];
}

{% include "row_element.wgsl" %}
