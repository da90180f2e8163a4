{# Sums of a phone's float16 buffers, where HALF: each is rounded to float16. #}
fn rounded(x: f32) -> f32 { return {{ "f32(f16(x))" if HALF else "x" }}; }
