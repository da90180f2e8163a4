// y[i] = EXPRESSION in a = a_in[i] and, where there is one, b = b_in[i mod its period].

alias T = {{ T }};

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // elements, period of b, workgroups along x, -
@group(0) @binding(1) var<storage, read> a_in: array<{{ A }}>;
{% if B %}
@group(0) @binding(2) var<storage, read> b_in: array<{{ B }}>;
{% endif %}
@group(0) @binding({{ 3 if B else 2 }}) var<storage, read_write> y: array<T>;

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * p.z + group.x) * {{ WORKGROUP }}u + lane;
  if (i >= p.x) { return; }
  let a = f32(a_in[i]);
{% if B %}
  let b = f32(b_in[i % p.y]);
{% endif %}
  y[i] = T({{ EXPRESSION }});
}
