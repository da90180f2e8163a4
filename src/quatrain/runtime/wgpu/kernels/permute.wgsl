// y[i] = x at the same indices in another order: DIMS holds, for each dimension of y, its size and
// the step that it makes in x.

alias T = {{ T }};

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // elements, -, -, -
@group(0) @binding(1) var<storage, read> x: array<T>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * groups.x + group.x) * {{ WORKGROUP }}u + lane;
  if (i >= p.x) { return; }
  var rest = i;
  var source = 0u;
{% for size, step in DIMS|reverse %}
  source += rest % {{ size }}u * {{ step }}u;
  rest /= {{ size }}u;
{% endfor %}
  y[i] = x[source];
}
