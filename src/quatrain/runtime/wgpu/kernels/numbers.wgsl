{# What WGSL has no function for, in the type C that is computed in. #}
{% if C == "f32" %}
// By its bits: WGSL may take for granted that there are no NaNs.
fn is_nan(a: f32) -> bool { return (bitcast<u32>(a) & 0x7fffffffu) > 0x7f800000u; }

fn lower(a: f32, b: f32) -> f32 { return select(select(min(a, b), b, is_nan(b)), a, is_nan(a)); }

fn higher(a: f32, b: f32) -> f32 { return select(select(max(a, b), b, is_nan(b)), a, is_nan(a)); }

// A division of WGSL may be a few units off in the last place: the rest says by which side.
fn floor_divide(a: f32, b: f32) -> f32 {
  let quotient = floor(a / b);
  let rest = fma(-quotient, b, a);
  if (rest * b < 0.0) { return quotient - 1.0; }
  return quotient + select(0.0, 1.0, abs(rest) >= abs(b) && b != 0.0);
}

fn trunc_divide(a: f32, b: f32) -> f32 {
  return select(1.0, -1.0, a / b < 0.0) * floor_divide(abs(a), abs(b));
}

// pow of WGSL takes no negative base.
fn power(a: f32, b: f32) -> f32 {
  if (b == 0.0 || a == 1.0) { return 1.0; }
  let size = pow(abs(a), b);
  if (a >= 0.0 || is_nan(a)) { return select(size, a, is_nan(a)); }
  if (floor(b) != b) { return sqrt(a); }  // NaN
  return select(size, -size, floor(b * 0.5) * 2.0 != b);
}

// Abramowitz and Stegun, 7.1.26: off by 1.5e-7 at most.
fn erf(a: f32) -> f32 {
  let t = 1.0 / (1.0 + 0.3275911 * abs(a));
  let sum = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t
             + 0.254829592) * t;
  return sign(a) * (1.0 - sum * exp(-a * a));
}
{% else %}
fn is_nan(a: i32) -> bool { return false; }

fn lower(a: i32, b: i32) -> i32 { return min(a, b); }

fn higher(a: i32, b: i32) -> i32 { return max(a, b); }

fn trunc_divide(a: i32, b: i32) -> i32 { return a / b; }

fn floor_divide(a: i32, b: i32) -> i32 {
  let rest = a % b;
  return a / b - select(0, 1, rest != 0 && (rest < 0) != (b < 0));
}

fn power(a: i32, b: i32) -> i32 {
  var product = 1;
  for (var k = 0; k < b; k++) { product *= a; }
  return product;
}
{% endif %}
