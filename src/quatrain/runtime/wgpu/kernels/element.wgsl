// A lane for each of p.x elements, in workgroups over two dimensions.
@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * groups.x + group.x) * {{ WORKGROUP }}u + lane;
  if (i < p.x) { element(i); }
}
