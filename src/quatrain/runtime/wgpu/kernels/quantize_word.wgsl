// Eight of {{ SOURCE }} at [m, 8j ...] as int8, the even ones in the first u32. Past K: zero.
fn quantize_word(m: u32, j: u32, inverse: f32, zero: f32) -> vec2<u32> {
  var even = vec4<i32>(0);
  var odd = vec4<i32>(0);
  for (var i = 0u; i < 4u; i++) {
    let k = j * 8u + i * 2u;
    if (k < K) {
      even[i] = i32(clamp(round(f32({{ SOURCE }}[m * K + k]) * inverse) + zero, -128.0, 127.0));
    }
    if (k + 1u < K) {
      odd[i] = i32(clamp(round(f32({{ SOURCE }}[m * K + k + 1u]) * inverse) + zero, -128.0, 127.0));
    }
  }
  return vec2<u32>(pack4xI8(even), pack4xI8(odd));
}
