//! Pointwise activations.

use crate::Real;

/// An activation function; the number is what kernels receive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum Activation {
    /// x
    #[default]
    Identity = 0,
    /// max(x, 0)
    Relu = 1,
    /// 1 / (1 + e^-x)
    Sigmoid = 2,
    /// tanh x
    Tanh = 3,
    /// x for x > 0, otherwise 0.01 x: PyTorch's default slope
    LeakyRelu = 4,
    /// GELU: x Φ(x), with the normal distribution Φ (Hendrycks and Gimpel 2016); PyTorch's default
    Gelu = 5,
    /// GELU's approximation by tanh, within 5e-4 of it; PyTorch's `approximate="tanh"`, GPT-2's
    GeluTanh = 6,
    /// SiLU, or Swish: x / (1 + e^-x) (Elfwing et al. 2018)
    Silu = 7,
}

impl Activation {
    /// All of them.
    pub const ALL: [Activation; 8] = [
        Self::Identity,
        Self::Relu,
        Self::Sigmoid,
        Self::Tanh,
        Self::LeakyRelu,
        Self::Gelu,
        Self::GeluTanh,
        Self::Silu,
    ];

    /// Its name in model files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Relu => "relu",
            Self::Sigmoid => "sigmoid",
            Self::Tanh => "tanh",
            Self::LeakyRelu => "leaky_relu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
            Self::Silu => "silu",
        }
    }

    /// The activation of a number that came through a parameter struct.
    pub fn of(number: u32) -> Self {
        Self::ALL.get(number as usize).copied().unwrap_or_default()
    }

    /// Whether the derivative is a function of the output alone, so that the input need
    /// not be kept.
    pub fn from_output(self) -> bool {
        !matches!(self, Self::Gelu | Self::GeluTanh | Self::Silu)
    }
}

/// 1 / (1 + e^-x) without overflow.
pub fn sigmoid<F: Real>(x: F) -> F {
    let e = (-x.abs()).exp();
    (if x >= F::zero() { F::one() } else { e }) / (F::one() + e)
}

/// The share of the normal distribution below x.
fn normal_below<F: Real>(x: F) -> F {
    F::of(0.5) * (-x * F::FRAC_1_SQRT_2()).erfc()
}

fn gelu_inner<F: Real>(x: F) -> F {
    (F::of(0.797_884_6) * (x + F::of(0.044_715) * x * x * x)).tanh()
}

/// y = f(x)
pub fn activate<F: Real>(kind: Activation, x: F) -> F {
    match kind {
        Activation::Identity => x,
        // Not the maximum, which could hide a NaN.
        Activation::Relu if x <= F::zero() => F::zero(),
        Activation::Relu => x,
        Activation::Sigmoid => sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::LeakyRelu if x > F::zero() => x,
        Activation::LeakyRelu => F::of(0.01) * x,
        Activation::Gelu => x * normal_below(x),
        Activation::GeluTanh => F::of(0.5) * x * (F::one() + gelu_inner(x)),
        Activation::Silu => x * sigmoid(x),
    }
}

/// f'(x), given x and y = f(x). Where [`Activation::from_output`] holds, y may be passed
/// for x too.
pub fn activate_gradient<F: Real>(kind: Activation, x: F, y: F) -> F {
    let one = F::one();
    match kind {
        Activation::Identity => one,
        Activation::Relu if x <= F::zero() => F::zero(),
        Activation::Relu => one,
        Activation::Sigmoid => y * (one - y),
        Activation::Tanh => one - y * y,
        Activation::LeakyRelu if x > F::zero() => one,
        Activation::LeakyRelu => F::of(0.01),
        Activation::Gelu => {
            let density = (F::of(-0.5) * x * x).exp() * F::of(0.398_942_3);
            normal_below(x) + x * density
        }
        Activation::GeluTanh => {
            let t = gelu_inner(x);
            let inner = F::of(0.797_884_6) * (one + F::of(0.134_145) * x * x);
            F::of(0.5) * (one + t) + F::of(0.5) * x * (one - t * t) * inner
        }
        Activation::Silu => {
            let s = sigmoid(x);
            s * (one + x * (one - s))
        }
    }
}
