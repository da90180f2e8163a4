// y[i] = EXPRESSION in a, b, c; each repeats: element i / inner, modulo its period, of its operand.

alias T = {{ T }};

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // elements, periods of a, b and c
{% for name, dtype, inner, repeats in INPUTS %}
@group(0) @binding({{ loop.index }}) var<storage, read> {{ name }}_in: array<{{ dtype }}>;
{% endfor %}
@group(0) @binding({{ INPUTS|length + 1 }}) var<storage, read_write> y: array<T>;

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * groups.x + group.x) * {{ WORKGROUP }}u + lane;
  if (i >= p.x) { return; }
{% for name, dtype, inner, repeats in INPUTS %}
  let {{ name }} = f32({{ name }}_in[i{% if inner > 1 %} / {{ inner }}u{% endif %}{% if repeats %} % p.{{ "yzw"[loop.index0] }}{% endif %}]);
{% endfor %}
  y[i] = T({{ EXPRESSION }});
}
