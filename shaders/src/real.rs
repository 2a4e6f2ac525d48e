//! The number types that reference implementations run in.

/// A floating-point type a CPU reference can compute in: `f32` (what a device computes)
/// or `f64` (what both are held against).
pub trait Real:
    num_traits::Float
    + num_traits::FloatConst
    + bytemuck::Pod
    + Default
    + std::fmt::Debug
    + std::iter::Sum
    + std::ops::AddAssign
    + std::ops::SubAssign
    + std::ops::MulAssign
    + Send
    + Sync
    + 'static
{
    /// Converts a parameter; exact in both types.
    fn of(x: f32) -> Self;
    /// Converts a count; exact below 2^24.
    fn count(n: usize) -> Self;
    /// Rounds to `f32`, the type every device stores.
    fn f32(self) -> f32;
    /// The complementary error function.
    fn erfc(self) -> Self;
}

impl Real for f32 {
    fn of(x: f32) -> Self {
        x
    }
    fn count(n: usize) -> Self {
        n as f32
    }
    fn f32(self) -> f32 {
        self
    }
    fn erfc(self) -> Self {
        libm::erfcf(self)
    }
}

impl Real for f64 {
    fn of(x: f32) -> Self {
        x.into()
    }
    fn count(n: usize) -> Self {
        n as f64
    }
    fn f32(self) -> f32 {
        self as f32
    }
    fn erfc(self) -> Self {
        libm::erfc(self)
    }
}
