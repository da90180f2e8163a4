// The index of the highest of the SIZE logits in row `row`, the first of equals; NaN never wins.

const SIZE = {{ SIZE }}u;
const LANES = {{ WORKGROUP }}u;

@group(0) @binding(0) var<uniform> p: vec4<u32>;  // row, -, -, -
@group(0) @binding(1) var<storage, read> logits: array<{{ T }}>;
@group(0) @binding(2) var<storage, read_write> token: array<u32>;

var<workgroup> best: array<f32, {{ WORKGROUP }}>;
var<workgroup> index: array<u32, {{ WORKGROUP }}>;

@compute @workgroup_size({{ WORKGROUP }})
fn main(@builtin(local_invocation_index) lane: u32) {
  var top = -3.4e38;
  var at = 0u;
  for (var i = lane; i < SIZE; i += LANES) {
    let value = f32(logits[p.x * SIZE + i]);
    if (value > top) {
      top = value;
      at = i;
    }
  }
  best[lane] = top;
  index[lane] = at;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) {
      let other = lane + half;
      let wins = best[other] > best[lane] || (best[other] == best[lane] && index[other] < index[lane]);
      if (wins) {
        best[lane] = best[other];
        index[lane] = index[other];
      }
    }
  }
  if (lane == 0u) { token[0] = index[0]; }
}
