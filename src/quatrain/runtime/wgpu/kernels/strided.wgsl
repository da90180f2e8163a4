// y[TO] = x[FROM] for each i; with INDEX, FROM counts on by STEP from row to row of the SIZE that
// index[INDEX] picks: a negative one counts from the end, one outside is the nearest.

alias T = {{ T }};

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // how many, -, -, -
@group(0) @binding(1) var<storage, read> x: array<{{ X }}>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;
{% if INDEX %}
@group(0) @binding(3) var<storage, read> index: array<i32>;
{% endif %}

fn element(i: u32) {
{% if INDEX %}
  let at = index[{{ INDEX }}];
  let row = u32(clamp(at + select(0, {{ SIZE }}, at < 0), 0, {{ SIZE - 1 }}));
{% endif %}
  y[{{ TO }}] = T(x[{{ FROM }}{% if INDEX %} + row * {{ STEP }}u{% endif %}]);
}

{% include "element.wgsl" %}
