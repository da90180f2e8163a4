// Writes the new keys and values [tokens, WIDTH] into their caches [context, WIDTH] at `start`.

alias T = {{ T }};
const WIDTH = {{ WIDTH }}u;  // KV heads * head_dim

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // tokens, start, -, -
@group(0) @binding(1) var<storage, read> k: array<T>;
@group(0) @binding(2) var<storage, read> v: array<T>;
@group(0) @binding(3) var<storage, read_write> k_cache: array<T>;
@group(0) @binding(4) var<storage, read_write> v_cache: array<T>;

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= WIDTH || id.y >= p.x) { return; }
  let source = id.y * WIDTH + id.x;
  let goal = (p.y + id.y) * WIDTH + id.x;
  k_cache[goal] = k[source];
  v_cache[goal] = v[source];
}
