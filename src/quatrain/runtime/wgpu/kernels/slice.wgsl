// y[o, j, i] = x[o, start + j * STEP, i] for x [outer, SIZE, INNER], y [outer, length, INNER].

alias T = {{ T }};
const INNER = {{ INNER }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // outer * length, length, start, -
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= INNER || id.y >= p.x) { return; }
  let s = p.z + id.y % p.y * {{ STEP }}u;
  y[id.y * INNER + id.x] = x[(id.y / p.y * {{ SIZE }}u + s) * INNER + id.x];
}
