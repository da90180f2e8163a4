// y[o, start + j, i] = x[o, j, i] for x [outer, length, INNER], y [outer, size, INNER].

alias T = {{ T }};
const INNER = {{ INNER }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // elements of x, length, start, size
@group(0) @binding(1) var<storage, read> x: array<{{ X }}>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;

fn element(i: u32) {
  let row = i / INNER;
  let goal = row / p.y * p.w + p.z + row % p.y;
  y[goal * INNER + i % INNER] = T(x[i]);
}

{% include "element.wgsl" %}
