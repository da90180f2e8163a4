// Causal attention over the KV cache, computed chunk by chunk with a running softmax.
//
// A workgroup serves one KV head and TOKENS query tokens, hence TOKENS * RATIO query rows, so
// that keys and values are read once for all query heads that share them. For each chunk of
// CHUNK positions: a lane scores one position against every row; then it sums the values of four
// dimensions over every GROUPS-th position. What the groups summed is joined at the end.
// A workgroup covers `span` positions. Where that is all of them it writes the result; else, which
// only SPLIT (decode) may be, it leaves (sum, max, weight) per row for attention_join.wgsl.
//
// q, y [tokens, KV_HEADS * RATIO, D]; caches [context, KV_HEADS, D]
// Source: FlashAttention-2 (arXiv 2307.08691) and its split over the context for decoding.

alias T = {{ T }};
const D4 = {{ D // 4 }}u;  // four dimensions at a time
const HEADS = {{ KV_HEADS * RATIO }}u;
const CHUNK = {{ CHUNK }}u;  // also the workgroup's size
{% set ROWS = TOKENS * RATIO %}
{% set QUADS = (ROWS + 3) // 4 %}
{# What the groups share must fit the 16 KiB that every GPU offers a workgroup. #}
{% set GROUPS = [1, CHUNK // (D // 4)]|max if ROWS <= 8 else 1 %}
{% set PER_LANE = (D // 4 + CHUNK - 1) // CHUNK %}
{% set JOINED = GROUPS * ROWS %}

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // tokens, start, span, -
@group(0) @binding(1) var<storage, read> q: array<T>;
@group(0) @binding(2) var<storage, read> keys: array<vec4<T>>;
@group(0) @binding(3) var<storage, read> values: array<vec4<T>>;
@group(0) @binding(4) var<storage, read_write> y: array<T>;
{% if SPLIT %}
@group(0) @binding(5) var<storage, read_write> parts: array<f32>;
{% endif %}

// Four rows' scores of a position lie together: [CHUNK, QUADS].
var<workgroup> scores: array<vec4<f32>, {{ CHUNK * QUADS }}>;
var<workgroup> highest: array<f32, {{ ROWS }}>;
{% if GROUPS > 1 %}
var<workgroup> sums: array<vec4<f32>, {{ JOINED * (D // 4) }}>;
var<workgroup> weights: array<f32, {{ JOINED }}>;
{% endif %}

@compute @workgroup_size({{ CHUNK }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32{% if SPREAD %},
        @builtin(subgroup_invocation_id) sub: u32{% endif %}) {
  let kv_head = group.x;
  let token = group.y * {{ TOKENS }}u;
  // Positions that the tile's last token sees, cut to this split.
  let seen = p.y + min(token + {{ TOKENS }}u, p.x);
  let begin = group.z * p.z;
  let end = min(begin + p.z, seen);
  let mine = lane / D4;  // this lane's group of positions, and its four dimensions
  let place = lane % D4;
{% for r in range(ROWS) %}
  let t{{ r }} = min(token + {{ r // RATIO }}u, p.x - 1u);
  let row{{ r }} = t{{ r }} * HEADS + kv_head * {{ RATIO }}u + {{ r % RATIO }}u;
  var max{{ r }} = -3.0e38;
  var weight{{ r }} = 0.0;
{% for e in range(PER_LANE) %}
  var sum{{ r }}_{{ e }} = vec4<f32>(0.0);
{% endfor %}
{% endfor %}

  for (var chunk = begin; chunk < end; chunk += CHUNK) {
    // Scores of this lane's position against every row.
    let position = chunk + lane;
    let key = (min(position, end - 1u) * {{ KV_HEADS }}u + kv_head) * D4;
{% for r in range(ROWS) %}
    var s{{ r }} = 0.0;
{% endfor %}
    // Eight lanes without a position to score have nothing to load.
    let depth = select(0u, D4, chunk + (lane & ~7u) < end);
    for (var d = 0u; d < depth; d += 2u) {
      let low = vec4<f32>(keys[key + d]);
      let high = vec4<f32>(keys[key + d + 1u]);
{% for r in range(ROWS) %}
      let at{{ r }} = (row{{ r }} * D4 + d) * 4u;
{% if SPREAD %}
      let mine{{ r }} = f32(q[at{{ r }} + (sub & 7u)]);
{% endif %}
{% for i in range(8) %}
      s{{ r }} += {{ "low" if i < 4 else "high" }}.{{ "xyzw"[i % 4] }} * {% if SPREAD %}subgroupBroadcast(mine{{ r }}, {{ i }}u){% else %}f32(q[at{{ r }} + {{ i }}u]){% endif %};
{% endfor %}
{% endfor %}
    }
{% for r in range(ROWS) %}
    s{{ r }} = select(-3.0e38, s{{ r }} * {{ SCALE }}, position < end && position <= p.y + t{{ r }});
{% endfor %}
{% for quad in range(QUADS) %}
    scores[lane * {{ QUADS }}u + {{ quad }}u] = vec4<f32>({% for i in range(4) %}{{ "s%d" % (quad * 4 + i) if quad * 4 + i < ROWS else "0.0" }}{{ ", " if i < 3 }}{% endfor %});
{% endfor %}
    workgroupBarrier();
    for (var r = lane; r < {{ ROWS }}u; r += CHUNK) {
      var top = -3.0e38;
      for (var i = 0u; i < CHUNK; i++) { top = max(top, scores[i * {{ QUADS }}u + r / 4u][r % 4u]); }
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
    s{{ r }} = select(0.0, exp(s{{ r }} - top{{ r }}), s{{ r }} > -2.9e38);
{% endfor %}
{% for quad in range(QUADS) %}
    scores[lane * {{ QUADS }}u + {{ quad }}u] = vec4<f32>({% for i in range(4) %}{{ "s%d" % (quad * 4 + i) if quad * 4 + i < ROWS else "0.0" }}{{ ", " if i < 3 }}{% endfor %});
{% endfor %}
    workgroupBarrier();

    // Values of this lane's dimensions and positions, weighted.
    let count = select(0u, min(CHUNK, end - chunk), mine < {{ GROUPS }}u);
    for (var i = mine; i < count; i += {{ GROUPS }}u) {
      let at = ((chunk + i) * {{ KV_HEADS }}u + kv_head) * D4;
{% for e in range(PER_LANE) %}
      let v{{ e }} = vec4<f32>(values[at + {% if PER_LANE > 1 %}min(place + {{ e }}u * CHUNK, D4 - 1u){% else %}place{% endif %}]);
{% endfor %}
{% for quad in range(QUADS) %}
      let w{{ quad }} = scores[i * {{ QUADS }}u + {{ quad }}u];
{% endfor %}
{% for r in range(ROWS) %}
      weight{{ r }} += w{{ r // 4 }}.{{ "xyzw"[r % 4] }};
{% for e in range(PER_LANE) %}
      sum{{ r }}_{{ e }} += w{{ r // 4 }}.{{ "xyzw"[r % 4] }} * v{{ e }};
{% endfor %}
{% endfor %}
    }
    workgroupBarrier();
  }

{% if GROUPS > 1 %}
  if (mine < {{ GROUPS }}u) {
{% for r in range(ROWS) %}
    sums[(mine * {{ ROWS }}u + {{ r }}u) * D4 + place] = sum{{ r }}_0;
    if (place == 0u) { weights[mine * {{ ROWS }}u + {{ r }}u] = weight{{ r }}; }
{% endfor %}
  }
  workgroupBarrier();
  if (mine > 0u) { return; }
{% for r in range(ROWS) %}
{% for g in range(1, GROUPS) %}
  sum{{ r }}_0 += sums[{{ (g * ROWS + r) * (D // 4) }}u + place];
  weight{{ r }} += weights[{{ g * ROWS + r }}u];
{% endfor %}
{% endfor %}
{% else %}
  if (mine > 0u) { return; }
{% endif %}
{% for r in range(ROWS) %}
  if (token + {{ r // RATIO }}u < p.x) {
{% if SPLIT %}
    let part{{ r }} = (group.z * p.x * HEADS + row{{ r }}) * {{ D + 2 }}u;
    if (groups.z > 1u && lane == 0u) {
      parts[part{{ r }} + {{ D }}u] = max{{ r }};
      parts[part{{ r }} + {{ D + 1 }}u] = weight{{ r }};
    }
{% endif %}
{% for e in range(PER_LANE) %}
    let d{{ r }}_{{ e }} = (place + {{ e * CHUNK }}u) * 4u;
    if (d{{ r }}_{{ e }} < {{ D }}u) {
{% for i in range(4) %}
      let result{{ i }} = sum{{ r }}_{{ e }}.{{ "xyzw"[i] }};
{% if SPLIT %}
      if (groups.z > 1u) { parts[part{{ r }} + d{{ r }}_{{ e }} + {{ i }}u] = result{{ i }}; }
      else { y[row{{ r }} * {{ D }}u + d{{ r }}_{{ e }} + {{ i }}u] = T(result{{ i }} / weight{{ r }}); }
{% else %}
      y[row{{ r }} * {{ D }}u + d{{ r }}_{{ e }} + {{ i }}u] = T(result{{ i }} / weight{{ r }});
{% endif %}
{% endfor %}
    }
{% endfor %}
  }
{% endfor %}
}
