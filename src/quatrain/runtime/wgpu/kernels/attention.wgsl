// Causal attention over the KV cache, computed chunk by chunk with a running softmax.
//
// A workgroup serves one KV head and TOKENS query tokens, hence TOKENS * RATIO query rows, so
// that keys and values are read once for all query heads that share them. For each chunk of
// CHUNK positions: lane = position computes the scores, then lane = dimension sums the values.
// SPLIT (decode): each workgroup covers `span` positions and leaves (sum, max, weight) per row
// for attention_join.wgsl. Otherwise (prefill) it covers all of them and writes the result.
//
// q, y [tokens, KV_HEADS * RATIO, D]; caches [context, KV_HEADS, D]
// Source: FlashAttention-2 (arXiv 2307.08691) and its split over the context for decoding.

alias T = {{ T }};
const D = {{ D }}u;
const HEADS = {{ KV_HEADS * RATIO }}u;
const CHUNK = {{ CHUNK }}u;  // also the workgroup's size
{% set ROWS = TOKENS * RATIO %}
{% set PER_LANE = (D + CHUNK - 1) // CHUNK %}

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // tokens, start, span, -
@group(0) @binding(1) var<storage, read> q: array<T>;
@group(0) @binding(2) var<storage, read> keys: array<vec4<T>>;
@group(0) @binding(3) var<storage, read> values: array<T>;
@group(0) @binding(4) var<storage, read_write> y: array<{{ "f32" if SPLIT else "T" }}>;

var<workgroup> scores: array<f32, {{ ROWS * CHUNK }}>;
var<workgroup> highest: array<f32, {{ ROWS }}>;

@compute @workgroup_size({{ CHUNK }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32{% if SPREAD %},
        @builtin(subgroup_invocation_id) sub: u32{% endif %}) {
  let kv_head = group.x;
  let token = group.y * {{ TOKENS }}u;
  // Positions that the tile's last token sees, cut to this split.
  let seen = p.y + min(token + {{ TOKENS }}u, p.x);
  let begin = group.z * p.z;
  let end = min(begin + p.z, seen);
{% for r in range(ROWS) %}
  let t{{ r }} = min(token + {{ r // RATIO }}u, p.x - 1u);
  let q{{ r }} = (t{{ r }} * HEADS + kv_head * {{ RATIO }}u + {{ r % RATIO }}u) * D;
  var max{{ r }} = -3.0e38;
  var weight{{ r }} = 0.0;
{% for e in range(PER_LANE) %}
  var sum{{ r }}_{{ e }} = 0.0;
{% endfor %}
{% endfor %}

  for (var chunk = begin; chunk < end; chunk += CHUNK) {
    // Scores of this lane's position against every row.
    let position = chunk + lane;
    let key = (min(position, end - 1u) * {{ KV_HEADS }}u + kv_head) * (D / 4u);
{% for r in range(ROWS) %}
    var s{{ r }} = 0.0;
{% endfor %}
    // Eight lanes without a position to score have nothing to load.
    let depth = select(0u, D, chunk + (lane & ~7u) < end);
    for (var d = 0u; d < depth; d += 8u) {
      let low = vec4<f32>(keys[key + d / 4u]);
      let high = vec4<f32>(keys[key + d / 4u + 1u]);
{% for r in range(ROWS) %}
{% if SPREAD %}
      let mine{{ r }} = f32(q[q{{ r }} + d + (sub & 7u)]);
{% endif %}
{% for i in range(8) %}
      s{{ r }} += {{ "low" if i < 4 else "high" }}.{{ "xyzw"[i % 4] }} * {% if SPREAD %}subgroupBroadcast(mine{{ r }}, {{ i }}u){% else %}f32(q[q{{ r }} + d + {{ i }}u]){% endif %};
{% endfor %}
{% endfor %}
    }
{% for r in range(ROWS) %}
    s{{ r }} = select(-3.0e38, s{{ r }} * {{ SCALE }}, position < end && position <= p.y + t{{ r }});
    scores[{{ r }}u * CHUNK + lane] = s{{ r }};
{% endfor %}
    workgroupBarrier();
    for (var r = lane; r < {{ ROWS }}u; r += CHUNK) {
      var top = -3.0e38;
      for (var i = 0u; i < CHUNK; i++) { top = max(top, scores[r * CHUNK + i]); }
      highest[r] = top;
    }
    workgroupBarrier();
{% for r in range(ROWS) %}
    let top{{ r }} = max(max{{ r }}, highest[{{ r }}]);
    let keep{{ r }} = exp(max{{ r }} - top{{ r }});
    max{{ r }} = top{{ r }};
    weight{{ r }} *= keep{{ r }};
{% for e in range(PER_LANE) %}
    sum{{ r }}_{{ e }} *= keep{{ r }};
{% endfor %}
    // A masked score must weigh nothing even in a chunk where every score is masked.
    scores[{{ r }}u * CHUNK + lane] = select(0.0, exp(s{{ r }} - top{{ r }}), s{{ r }} > -2.9e38);
{% endfor %}
    workgroupBarrier();

    // Values of this lane's dimensions, weighted. Positions past the end weigh nothing.
    for (var i = 0u; i < CHUNK; i += 8u) {
      if (chunk + i >= end) { break; }
{% if SPREAD %}{% for r in range(ROWS) %}
      let near{{ r }} = scores[{{ r }}u * CHUNK + i + (sub & 7u)];
{% endfor %}{% endif %}
{% for j in range(8) %}
      let at{{ j }} = (min(chunk + i + {{ j }}u, end - 1u) * {{ KV_HEADS }}u + kv_head) * D;
{% for e in range(PER_LANE) %}
      let v{{ j }}_{{ e }} = f32(values[at{{ j }} + min(lane + {{ e }}u * CHUNK, D - 1u)]);
{% endfor %}
{% for r in range(ROWS) %}
      let w{{ r }}_{{ j }} = {% if SPREAD %}subgroupBroadcast(near{{ r }}, {{ j }}u){% else %}scores[{{ r }}u * CHUNK + i + {{ j }}u]{% endif %};
      weight{{ r }} += w{{ r }}_{{ j }};
{% for e in range(PER_LANE) %}
      sum{{ r }}_{{ e }} += w{{ r }}_{{ j }} * v{{ j }}_{{ e }};
{% endfor %}
{% endfor %}
{% endfor %}
    }
    workgroupBarrier();
  }

{% for r in range(ROWS) %}
  if (token + {{ r // RATIO }}u < p.x) {
{% if SPLIT %}
    let row{{ r }} = (group.z * p.x * HEADS + q{{ r }} / D) * (D + 2u);
    if (lane == 0u) {
      y[row{{ r }} + D] = max{{ r }};
      y[row{{ r }} + D + 1u] = weight{{ r }};
    }
{% endif %}
{% for e in range(PER_LANE) %}
    if (lane + {{ e }}u * CHUNK < D) {
{% if SPLIT %}
      y[row{{ r }} + lane + {{ e }}u * CHUNK] = sum{{ r }}_{{ e }};
{% else %}
      y[q{{ r }} + lane + {{ e }}u * CHUNK] = T(sum{{ r }}_{{ e }} / weight{{ r }});
{% endif %}
    }
{% endfor %}
  }
{% endfor %}
}
