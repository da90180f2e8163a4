// Rotates the pairs (2j, 2j + 1) of x [B, ANGLES, 2] by angles [ANGLES, 2] of (cos, sin).

alias T = {{ T }};

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // pairs of x, -, -, -
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read> angles: array<{{ TABLE }}>;
@group(0) @binding(3) var<storage, read_write> y: array<T>;

fn element(i: u32) {
  let pair = vec2<f32>(f32(x[2u * i]), f32(x[2u * i + 1u]));
  let at = i % {{ ANGLES }}u * 2u;
  let turn = vec2<f32>(f32(angles[at]), f32(angles[at + 1u]));
  y[2u * i] = T(pair.x * turn.x - pair.y * turn.y);
  y[2u * i + 1u] = T(pair.x * turn.y + pair.y * turn.x);
}

{% include "element.wgsl" %}
