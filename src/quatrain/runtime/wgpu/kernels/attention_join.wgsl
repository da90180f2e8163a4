// Joins what attention.wgsl left for each split of the context.
//
// parts [splits, rows, D + 2] f32: weighted sum of values, highest score, sum of weights
// y     [rows, D], rows = tokens * heads

alias T = {{ T }};
const D = {{ D }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // tokens, start, span, -
@group(0) @binding(1) var<storage, read> parts: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let rows = p.x * {{ HEADS }}u;
  let row = id.x / D;
  let d = id.x % D;
  if (row >= rows) { return; }
  let splits = (p.y + p.x + p.z - 1u) / p.z;
  var top = -3.0e38;
  for (var i = 0u; i < splits; i++) { top = max(top, parts[(i * rows + row) * (D + 2u) + D]); }
  var sum = 0.0;
  var weight = 0.0;
  for (var i = 0u; i < splits; i++) {
    let at = (i * rows + row) * (D + 2u);
    let keep = exp(parts[at + D] - top);
    sum += keep * parts[at + d];
    weight += keep * parts[at + D + 1u];
  }
  y[id.x] = T(sum / weight);
}
