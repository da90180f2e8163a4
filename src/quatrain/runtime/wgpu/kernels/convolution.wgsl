// y[b, o, r, c] = sum of x[b, group, ..] * w + bias[o], x [B, I, H, W], the group's CHANNELS of I.
//
// A kernel element (u, v) meets row r * STRIDE + u * DILATION - PADDING of x and the like column;
// of a transposed convolution the row that (r + PADDING - u * DILATION) / STRIDE is, if it is whole.
// w [O, CHANNELS, KH, KW], or TRANSPOSED [I, O / groups, KH, KW].

alias T = {{ T }};
const SIZE = vec2<i32>({{ SIZE | join(", ") }});  // H, W
const OUT = vec2<u32>({{ OUT | join(", ") }});
const KERNEL = vec2<u32>({{ KERNEL | join(", ") }});
const STRIDE = vec2<i32>({{ STRIDE | join(", ") }});
const PADDING = vec2<i32>({{ PADDING | join(", ") }});
const DILATION = vec2<i32>({{ DILATION | join(", ") }});
const CHANNELS = {{ CHANNELS }}u;  // of x, of one group
const OUTPUTS = {{ OUTPUTS }}u;  // of y, of one group
const LOW = f32({{ LOW }});
const HIGH = f32({{ HIGH }});
const GROUPS = {{ GROUPS }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // elements of y, -, -, -
@group(0) @binding(1) var<storage, read> x: array<{{ X }}>;
@group(0) @binding(2) var<storage, read> w: array<{{ W }}>;
@group(0) @binding(3) var<storage, read_write> y: array<T>;
{% if BIAS %}
@group(0) @binding(4) var<storage, read> bias: array<{{ BIAS }}>;
{% endif %}

fn element(i: u32) {
  let at = vec2<i32>(vec2(i / OUT.y % OUT.x, i % OUT.y));
  let o = i / (OUT.x * OUT.y) % (OUTPUTS * GROUPS);
  let first = (i / (OUT.x * OUT.y * OUTPUTS * GROUPS) * GROUPS + o / OUTPUTS) * CHANNELS;
  var total = {% if BIAS %}f32(bias[o]){% else %}0.0{% endif %};
  for (var u = 0u; u < KERNEL.x; u++) {
    for (var v = 0u; v < KERNEL.y; v++) {
      let step = vec2<i32>(vec2(u, v)) * DILATION;
{% if TRANSPOSED %}
      let back = at + PADDING - step;
      let place = back / STRIDE;
      if (any(back < vec2(0)) || any(place * STRIDE != back) || any(place >= SIZE)) { continue; }
{% else %}
      let place = at * STRIDE + step - PADDING;
      if (any(place < vec2(0)) || any(place >= SIZE)) { continue; }
{% endif %}
      for (var c = 0u; c < CHANNELS; c++) {
{% if TRANSPOSED %}
        let weight = (o / OUTPUTS * CHANNELS + c) * OUTPUTS + o % OUTPUTS;
{% else %}
        let weight = o * CHANNELS + c;
{% endif %}
        let value = f32(x[(first + c) * u32(SIZE.x * SIZE.y) + u32(place.x * SIZE.y + place.y)]);
        total += value * f32(w[(weight * KERNEL.x + u) * KERNEL.y + v]);
      }
    }
  }
  y[i] = T({{ RESULT }});
}

{% include "element.wgsl" %}
