// Packs x [M, K] to int8 with parameters chosen elsewhere; the layout is row.wgsl's.

alias T = {{ T }};
const K = {{ K }}u;
const WORDS = {{ (K + 7) // 8 }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // M, -, -, -
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read> x_scale: array<{{ X_SCALE }}>;
@group(0) @binding(3) var<storage, read> x_zero: array<i32>;
@group(0) @binding(4) var<storage, read_write> packed: array<vec2<u32>>;

{% with SOURCE = "x" %}{% include "quantize_word.wgsl" %}{% endwith %}

fn element(m: u32, j: u32) {
  if (j < WORDS) {
    packed[m * WORDS + j] = quantize_word(m, j, 1.0 / f32(x_scale[m]), f32(x_zero[m]));
  }
}

{% include "row_element.wgsl" %}
