// y[o, j, i] = x[o, start + j * STEP, i] for x [outer, SIZE, INNER], y [outer, length, INNER].

alias T = {{ T }};
const INNER = {{ INNER }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // elements of y, length, start, -
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;

fn element(i: u32) {
  let row = i / INNER;
  let s = p.z + row % p.y * {{ STEP }}u;
  y[i] = x[(row / p.y * {{ SIZE }}u + s) * INNER + i % INNER];
}

{% include "element.wgsl" %}
