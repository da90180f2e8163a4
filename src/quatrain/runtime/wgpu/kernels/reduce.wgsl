// y[i] = K elements of x, the next one being joined to `sum` by JOIN, then FINISH, computed in C; a
// lane per result.

alias T = {{ T }};
alias C = {{ C }};
const K = {{ K }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // elements of y, -, -, -
@group(0) @binding(1) var<storage, read> x: array<{{ X }}>;
@group(0) @binding(2) var<storage, read_write> y: array<T>;

{% include "numbers.wgsl" %}

fn element(i: u32) {
  let first = {{ FIRST }};
  var sum = C(x[first]);
  var best = 0u;
  for (var k = 1u; k < K; k++) {
    let value = C(x[first + {{ NEXT }}]);
    {{ JOIN }}
  }
  y[i] = T({{ FINISH }});
}

{% include "element.wgsl" %}
