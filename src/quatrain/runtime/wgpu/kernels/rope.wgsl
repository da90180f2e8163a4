// Rotates q [M, Q_HEADS, D] and k [M, K_HEADS, D] by the angles of their tokens. With CACHE, k goes
// to its KV cache [context, K_HEADS, D], and v [M, K_HEADS, D] with it, as it is.
//
// Interleaved (Meta): pairs (2i, 2i+1), tables [M, D/2].
// HALVES (Hugging Face): pairs (i, i + R/2) of the first R dimensions, the rest passes through;
// tables [context, R], of which a phone reads the first half, the token's row is START + m.

alias T = {{ T }};
const D = {{ D }}u;
const Q_HEADS = {{ Q_HEADS }}u;
const K_HEADS = {{ K_HEADS }}u;
const PAIRS = {{ D // 2 }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // M, row in the tables, row in the caches, -
@group(0) @binding(1) var<storage, read> q: array<T>;
@group(0) @binding(2) var<storage, read> k: array<T>;
@group(0) @binding(3) var<storage, read> cosines: array<{{ TABLE }}>;
@group(0) @binding(4) var<storage, read> sines: array<{{ TABLE }}>;
@group(0) @binding(5) var<storage, read_write> q_out: array<T>;
@group(0) @binding(6) var<storage, read_write> k_out: array<T>;
{% if CACHE %}
@group(0) @binding(7) var<storage, read> v: array<T>;
@group(0) @binding(8) var<storage, read_write> v_out: array<T>;
{% endif %}

struct Turn { first: u32, second: u32, from_first: vec2<f32>, from_second: vec2<f32> }

// Where pair i lies within a head, and (cos, -sin), (sin, cos) for its two results.
fn turn_of(m: u32, i: u32) -> Turn {
{% if HALVES %}
  const R = {{ R }}u;
  if (i >= R / 2u) {
    let at = R + (i - R / 2u) * 2u;
    return Turn(at, at + 1u, vec2(1.0, 0.0), vec2(0.0, 1.0));
  }
  let c = f32(cosines[(p.y + m) * R + i]);
  let s = f32(sines[(p.y + m) * R + i]);
  return Turn(i, i + R / 2u, vec2(c, -s), vec2(s, c));
{% else %}
  let c = f32(cosines[(p.y + m) * PAIRS + i]);
  let s = f32(sines[(p.y + m) * PAIRS + i]);
  return Turn(2u * i, 2u * i + 1u, vec2(c, -s), vec2(s, c));
{% endif %}
}

fn element(m: u32, pair_of_m: u32) {
  let head = pair_of_m / PAIRS;
  if (head >= Q_HEADS + {{ 2 if CACHE else 1 }}u * K_HEADS) { return; }
{% if CACHE %}
  if (head >= Q_HEADS + K_HEADS) {
    let at = (head - Q_HEADS - K_HEADS) * D + pair_of_m % PAIRS * 2u;
    v_out[(p.z + m) * K_HEADS * D + at] = v[m * K_HEADS * D + at];
    v_out[(p.z + m) * K_HEADS * D + at + 1u] = v[m * K_HEADS * D + at + 1u];
    return;
  }
{% endif %}
  let turn = turn_of(m, pair_of_m % PAIRS);
  if (head < Q_HEADS) {
    let at = (m * Q_HEADS + head) * D;
    let pair = vec2<f32>(f32(q[at + turn.first]), f32(q[at + turn.second]));
    q_out[at + turn.first] = T(dot(pair, turn.from_first));
    q_out[at + turn.second] = T(dot(pair, turn.from_second));
  } else {
    let at = (m * K_HEADS + head - Q_HEADS) * D;
    let pair = vec2<f32>(f32(k[at + turn.first]), f32(k[at + turn.second]));
    let goal = at + p.z * K_HEADS * D;
    k_out[goal + turn.first] = T(dot(pair, turn.from_first));
    k_out[goal + turn.second] = T(dot(pair, turn.from_second));
  }
}

{% include "row_element.wgsl" %}
