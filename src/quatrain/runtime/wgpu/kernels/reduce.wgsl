// y[m] = x[m, 0 .. K] joined by JOIN in `sum` and `value`, from FIRST, then FINISH; a lane per row.

alias T = {{ T }};
const K = {{ K }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // M, -, -, -
@group(0) @binding(1) var<storage, read> x: array<{{ X }}>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.x) { return; }
  var sum = {{ FIRST }};
  for (var k = 0u; k < K; k++) {
    let value = f32(x[id.x * K + k]);
    sum = {{ JOIN }};
  }
  y[id.x] = T({{ FINISH }});
}
