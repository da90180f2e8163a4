// y[o, start + j, i] = x[o, j, i] for x [outer, length, INNER], y [outer, size, INNER].

alias T = {{ T }};
const INNER = {{ INNER }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // outer * length, length, start, size
@group(0) @binding(1) var<storage, read> x: array<{{ X }}>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= INNER || id.y >= p.x) { return; }
  let row = id.y / p.y * p.w + p.z + id.y % p.y;
  y[row * INNER + id.x] = T(x[id.y * INNER + id.x]);
}
