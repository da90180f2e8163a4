// y[i] = EXPRESSION in a, b, c, each an element of a tensor or a number, computed in C.

alias T = {{ T }};
alias C = {{ C }};

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // elements of y and of the tensors
{% for name, dtype, index in INPUTS %}
@group(0) @binding({{ loop.index }}) var<storage, read> {{ name }}_in: array<{{ dtype }}>;
{% endfor %}
@group(0) @binding({{ INPUTS|length + 1 }}) var<storage, read_write> y: array<T>;

{% include "numbers.wgsl" %}

fn element(i: u32) {
{% for name, dtype, index in INPUTS %}
  let {{ name }} = C({{ name }}_in[{{ index }}]);
{% endfor %}
{% for name, number in NUMBERS %}
  let {{ name }} = C({{ number }});
{% endfor %}
  y[i] = T({{ EXPRESSION }});
}

{% include "element.wgsl" %}
