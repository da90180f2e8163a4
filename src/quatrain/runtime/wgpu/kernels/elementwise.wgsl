// y[i] = EXPRESSION in a, b, c; each repeats: the element at its index, modulo its period.

alias T = {{ T }};

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // elements, periods of a, b and c
{% for name, dtype, index, repeats in INPUTS %}
@group(0) @binding({{ loop.index }}) var<storage, read> {{ name }}_in: array<{{ dtype }}>;
{% endfor %}
@group(0) @binding({{ INPUTS|length + 1 }}) var<storage, read_write> y: array<T>;

// A division of WGSL may be a few units off in the last place: the rest says by which side.
fn floor_divide(a: f32, b: f32) -> f32 {
  let quotient = floor(a / b);
  let rest = fma(-quotient, b, a);
  if (rest * b < 0.0) { return quotient - 1.0; }
  return quotient + select(0.0, 1.0, abs(rest) >= abs(b) && b != 0.0);
}

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * groups.x + group.x) * {{ WORKGROUP }}u + lane;
  if (i >= p.x) { return; }
{% for name, dtype, index, repeats in INPUTS %}
  let {{ name }} = f32({{ name }}_in[{% if repeats %}({{ index }}) % p.{{ "yzw"[loop.index0] }}{% else %}{{ index }}{% endif %}]);
{% endfor %}
  y[i] = T({{ EXPRESSION }});
}
