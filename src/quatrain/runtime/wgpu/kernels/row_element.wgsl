// A lane for each element of each of p.x rows, which lie over two dimensions of the grid.
@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let m = id.z * groups.y + id.y;
  if (m < p.x) { element(m, id.x); }
}
