// y[o, j, i] = x[o, s, i] for x [outer, SIZE, INNER], y [outer, length, INNER], with
// s = start + j * STEP or, with INDEX, s = index[j].

alias T = {{ T }};
const INNER = {{ INNER }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // outer * length, length, start, -
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;
{% if INDEX %}
@group(0) @binding(3) var<storage, read> index: array<i32>;
{% endif %}

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= INNER || id.y >= p.x) { return; }
  let j = id.y % p.y;
  let s = {% if INDEX %}min(u32(index[j]), {{ SIZE }}u - 1u){% else %}p.z + j * {{ STEP }}u{% endif %};
  y[id.y * INNER + id.x] = x[(id.y / p.y * {{ SIZE }}u + s) * INNER + id.x];
}
