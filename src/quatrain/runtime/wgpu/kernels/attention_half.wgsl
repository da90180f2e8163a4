// Causal attention whose products are summed in float16, one term after the other, as a phone does
// for prompts in float16 buffers. A workgroup per query row: its lanes score a position each, and
// sum the values of a dimension each. Scores are computed anew for their maximum, the sum of their
// exponentials and the weights, so that no memory holds them.
//
// q, y [tokens, HEADS, D]; caches [context, KV_HEADS, D]

const D = {{ D }}u;
const LANES = {{ WORKGROUP }}u;
const HEADS = {{ KV_HEADS * RATIO }}u;
{% set PER_LANE = (D + WORKGROUP - 1) // WORKGROUP %}

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // tokens, start, -, -
@group(0) @binding(1) var<storage, read> q: array<f16>;
@group(0) @binding(2) var<storage, read> keys: array<f16>;
@group(0) @binding(3) var<storage, read> values: array<f16>;
@group(0) @binding(4) var<storage, read_write> y: array<f16>;

var<workgroup> shared_by_lanes: array<f32, {{ WORKGROUP }}>;

{% include "halves.wgsl" %}

fn score(row: u32, key: u32) -> f32 {
  var total = 0.0;
  for (var d = 0u; d < D; d++) {
    total = rounded(total + f32(q[row + d]) * f32(keys[key + d]));
  }
  return rounded(total * rounded({{ SCALE }}));
}

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = (group.y * HEADS + group.x) * D;
  let first = group.x / {{ RATIO }}u * D;
  let stride = {{ KV_HEADS }}u * D;
  let seen = p.y + group.y + 1u;

  var top = -3.0e38;
  for (var c = lane; c < seen; c += LANES) { top = max(top, score(row, first + c * stride)); }
  shared_by_lanes[lane] = top;
  workgroupBarrier();
  for (var i = 0u; i < LANES; i++) { top = max(top, shared_by_lanes[i]); }
  workgroupBarrier();

  var sum = 0.0;
  for (var c = lane; c < seen; c += LANES) {
    sum += rounded(exp(rounded(score(row, first + c * stride) - top)));
  }
  shared_by_lanes[lane] = sum;
  workgroupBarrier();
  sum = 0.0;
  for (var i = 0u; i < LANES; i++) { sum += shared_by_lanes[i]; }
  sum = rounded(sum);
  workgroupBarrier();

{% for e in range(PER_LANE) %}
  var y{{ e }} = 0.0;
{% endfor %}
  for (var chunk = 0u; chunk < seen; chunk += LANES) {
    let mine = score(row, first + min(chunk + lane, seen - 1u) * stride);
    shared_by_lanes[lane] = rounded(rounded(exp(rounded(mine - top))) / sum);
    workgroupBarrier();
    for (var i = 0u; i < min(LANES, seen - chunk); i++) {
      let at = first + (chunk + i) * stride;
{% for e in range(PER_LANE) %}
      y{{ e }} = rounded(y{{ e }} + shared_by_lanes[i] * f32(values[at + min(lane + {{ e }}u * LANES, D - 1u)]));
{% endfor %}
    }
    workgroupBarrier();
  }
{% for e in range(PER_LANE) %}
  if (lane + {{ e }}u * LANES < D) { y[row + lane + {{ e }}u * LANES] = f16(y{{ e }}); }
{% endfor %}
}
