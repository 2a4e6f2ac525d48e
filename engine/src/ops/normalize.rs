//! Layer and RMS normalization.
//!
//! ```rust
//! use tern_engine::{Arena, Data, Device, Element, Graph, Init, Parameters};
//!
//! # fn main() -> tern_engine::Result<()> {
//! let mut parameters = Parameters::new();
//! let gamma = parameters.add("weight", &[2], Init::Constant(2.0))?;
//! let beta = parameters.add("bias", &[2], Init::Constant(10.0))?;
//! let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
//! let mut graph = Graph::new(&arena);
//! let x = graph.input("x", &[1, 2], Element::F32);
//! let y = graph.layer_norm(x, &gamma, &beta, 1e-9)?;
//! graph.keep(y);
//! let mut plan = graph.forward()?;
//! // Mean 4, standard deviation 1.
//! plan.write(x, &Data::F32(vec![3.0, 5.0]))?;
//! plan.run(1)?;
//! let y = plan.read(y)?.floats()?;
//! assert!((y[0] - 8.0).abs() < 1e-5 && (y[1] - 12.0).abs() < 1e-5);
//! # Ok(())
//! # }
//! ```

pub mod groups;

use tern_shaders::kernels::normalize::{
    LAYER_NORM_BACKWARD, LAYER_NORM_BACKWARD_PARAMETERS, LAYER_NORM_FORWARD, LayerNormBackward,
    LayerNormBackwardParameters, LayerNormForward, RMS_NORM_BACKWARD, RMS_NORM_BACKWARD_WEIGHT,
    RMS_NORM_FORWARD, RmsNormBackward, RmsNormBackwardWeight, RmsNormForward,
};
use tern_shaders::{Element, MAX_SUMMED_ROWS};

use super::{Case, mode_of_part, noise, part, parts};
use crate::{Backward, Data, Error, Flat, Graph, Operand, Param, Result, Tensor};

/// The mode of a parameter's gradient in [`LayerNormBackwardParameters`].
fn mode(b: &mut Backward<'_>, weight: &Param) -> u32 {
    b.weight_target(weight).unwrap_or(2)
}

impl Graph {
    /// Rows and width of a tensor to be normalized over its last axis, by weights of its length.
    fn check_normal(
        &self,
        op: &'static str,
        x: Tensor,
        weights: &[&Param],
        epsilon: f32,
    ) -> Result<(u32, u32)> {
        let (rows, width) = self.check_rows(op, x)?;
        for weight in weights {
            if weight.shape != [width as usize] {
                let (x, name, shape) = (self.shape(x), &weight.name, &weight.shape);
                return Err(Error::shape(op, format!("{x:?} with {name} {shape:?}")));
            }
        }
        // Written so that a NaN fails.
        if !(epsilon > 0.0 && epsilon.is_finite()) {
            return Err(Error::value(format!("{op}'s epsilon"), epsilon, "a positive number"));
        }
        Ok((rows, width))
    }

    /// Normalizes over the last axis: y = (x − mean) / √(variance + ε) · γ + β, γ and β
    /// `[width]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if γ or β is not as long as the last axis, [`Error::Value`] unless
    /// ε is positive.
    pub fn layer_norm(
        &mut self,
        x: Tensor,
        gamma: &Param,
        beta: &Param,
        epsilon: f32,
    ) -> Result<Tensor> {
        let (rows, width) = self.check_normal("layer_norm", x, &[gamma, beta], epsilon)?;
        let shape = self.shape(x).to_vec();
        let y = self.tensor("layer_norm", &shape, Element::F32);
        let mean = self.tensor("mean", &[rows as usize], Element::F32);
        let rstd = self.tensor("rstd", &[rows as usize], Element::F32);
        let (gamma_offset, beta_offset) = (gamma.offset as u32, beta.offset as u32);
        let stride = self.parameter_stride() as u32;
        let params = LayerNormForward { rows, width, epsilon, gamma_offset, beta_offset, stride };
        let parameters = Operand::Flat(Flat::Parameters);
        let args = [x.into(), parameters, y.into(), mean.into(), rstd.into()];
        self.dispatch(&LAYER_NORM_FORWARD, &params, &args);
        let weights = [gamma.clone(), beta.clone()];
        self.on_backward(&[x], &[gamma, beta], &[y], move |b| {
            let Some(dy) = b.gradient(y) else { return Ok(()) };
            if let Some((dx, accumulate)) = b.target(x) {
                let params = LayerNormBackward { rows, width, gamma_offset, stride, accumulate };
                let [x, mean, rstd, dy, dx] = [x, mean, rstd, dy, dx].map(Operand::from);
                b.dispatch(&LAYER_NORM_BACKWARD, &params, &[x, parameters, mean, rstd, dy, dx]);
            }
            let [gamma_mode, beta_mode] = [0, 1].map(|i| mode(b, &weights[i]));
            if (gamma_mode, beta_mode) != (2, 2) {
                let [x, mean, rstd, dy] = [x, mean, rstd, dy].map(Operand::from);
                let args = [x, mean, rstd, dy, Backward::GRADIENTS];
                for (first, end) in parts(rows, MAX_SUMMED_ROWS) {
                    let params = LayerNormBackwardParameters {
                        rows,
                        width,
                        gamma_offset,
                        beta_offset,
                        stride,
                        gamma_mode: mode_of_part(first, gamma_mode),
                        beta_mode: mode_of_part(first, beta_mode),
                        first,
                        end,
                    };
                    b.dispatch(&LAYER_NORM_BACKWARD_PARAMETERS, &params, &args);
                }
            }
            Ok(())
        });
        Ok(y)
    }

    /// Normalizes over the last axis by the root mean square: y = x / √(mean(x²) + ε) · weight,
    /// `weight` `[width]` (Zhang, Sennrich 2019).
    ///
    /// # Errors
    /// [`Error::Shape`] if the weight is not as long as the last axis, [`Error::Value`] unless
    /// ε is positive.
    pub fn rms_norm(&mut self, x: Tensor, weight: &Param, epsilon: f32) -> Result<Tensor> {
        let (rows, width) = self.check_normal("rms_norm", x, &[weight], epsilon)?;
        let shape = self.shape(x).to_vec();
        let y = self.tensor("rms_norm", &shape, Element::F32);
        let rrms = self.tensor("rrms", &[rows as usize], Element::F32);
        let (weight_offset, stride) = (weight.offset as u32, self.parameter_stride() as u32);
        let params = RmsNormForward { rows, width, epsilon, weight_offset, stride };
        let parameters = Operand::Flat(Flat::Parameters);
        self.dispatch(&RMS_NORM_FORWARD, &params, &[x.into(), parameters, y.into(), rrms.into()]);
        let trained = weight.clone();
        self.on_backward(&[x], &[weight], &[y], move |b| {
            let Some(dy) = b.gradient(y) else { return Ok(()) };
            let params =
                |accumulate| RmsNormBackward { rows, width, weight_offset, stride, accumulate };
            let target = b.target(x);
            let [x, rrms, dy] = [x, rrms, dy].map(Operand::from);
            if let Some((dx, accumulate)) = target {
                let args = [x, parameters, rrms, dy, dx.into()];
                b.dispatch(&RMS_NORM_BACKWARD, &params(accumulate), &args);
            }
            if let Some(accumulate) = b.weight_target(&trained) {
                let args = [x, rrms, dy, Backward::GRADIENTS];
                for (first, end) in parts(rows, MAX_SUMMED_ROWS) {
                    let params = RmsNormBackwardWeight {
                        rows,
                        width,
                        weight_offset,
                        stride,
                        accumulate: mode_of_part(first, accumulate),
                        first,
                        end,
                    };
                    b.dispatch(&RMS_NORM_BACKWARD_WEIGHT, &params, &args);
                }
            }
            Ok(())
        });
        Ok(y)
    }
}

/// Cases of this family.
pub fn cases() -> Vec<Case> {
    let mut cases = groups::cases();
    for (rows, width, replicas) in [
        (1u32, 1u32, 1usize),
        (5, 7, 3),
        (100, 256, 1),
        (33, 1300, 2),
        (60_000, 2, 1),
        (133, 3, 2),
        (70, 32, 3),
    ] {
        let (n, all) = (rows as usize * replicas, (rows * width) as usize * replicas);
        let (gamma_offset, beta_offset, epsilon) = (64, 64 + width, 1e-5);
        let stride = 64 + 2 * width + 3;
        let flat = noise(stride as usize * replicas, 1.0, 1);
        let (x, y, dy) = (noise(all, 4.0, 2), noise(all, 1.0, 3), noise(all, 2.0, 4));
        let (mean, rstd) = (noise(n, 0.1, 5), noise(n, 1.0, 6));
        let size = format!("{rows} x {width}");
        cases.push(Case::new(
            &LAYER_NORM_FORWARD,
            &size,
            &LayerNormForward { rows, width, epsilon, gamma_offset, beta_offset, stride },
            replicas,
            [&x, &flat, &y, &mean, &rstd].map(Data::clone).to_vec(),
        ));
        for accumulate in [0, 1] {
            cases.push(Case::new(
                &LAYER_NORM_BACKWARD,
                format!("{size} accumulate {accumulate}"),
                &LayerNormBackward { rows, width, gamma_offset, stride, accumulate },
                replicas,
                [&x, &flat, &mean, &rstd, &dy, &y].map(Data::clone).to_vec(),
            ));
        }
        for (gamma_mode, beta_mode) in [(0, 1), (1, 2), (2, 0)] {
            let (first, end) = part(rows, beta_mode);
            let params = LayerNormBackwardParameters {
                rows,
                width,
                gamma_offset,
                beta_offset,
                stride,
                gamma_mode,
                beta_mode,
                first,
                end,
            };
            cases.push(Case::new(
                &LAYER_NORM_BACKWARD_PARAMETERS,
                format!("{size} modes {gamma_mode} {beta_mode}"),
                &params,
                replicas,
                [&x, &mean, &rstd, &dy, &flat].map(Data::clone).to_vec(),
            ));
        }
        let weight_offset = gamma_offset;
        cases.push(Case::new(
            &RMS_NORM_FORWARD,
            &size,
            &RmsNormForward { rows, width, epsilon, weight_offset, stride },
            replicas,
            [&x, &flat, &y, &rstd].map(Data::clone).to_vec(),
        ));
        for accumulate in [0, 1] {
            let label = format!("{size} accumulate {accumulate}");
            let params = RmsNormBackward { rows, width, weight_offset, stride, accumulate };
            let buffers = [&x, &flat, &rstd, &dy, &y].map(Data::clone).to_vec();
            cases.push(Case::new(&RMS_NORM_BACKWARD, &label, &params, replicas, buffers));
            let (first, end) = part(rows, accumulate);
            let params = RmsNormBackwardWeight {
                rows,
                width,
                weight_offset,
                stride,
                accumulate,
                first,
                end,
            };
            let buffers = [&x, &rstd, &dy, &flat].map(Data::clone).to_vec();
            cases.push(Case::new(&RMS_NORM_BACKWARD_WEIGHT, label, &params, replicas, buffers));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{gradient_check_with, run_cases};
    use crate::{Activation, Arena, Device, Init, Parameters};

    #[test]
    fn cases_hold_on_every_device() {
        run_cases(&cases());
    }

    #[test]
    fn gradients_match_finite_differences() {
        let mut parameters = Parameters::new();
        let gamma = parameters.add("gamma", &[6], Init::Normal(1.0)).unwrap();
        let beta = parameters.add("beta", &[6], Init::Normal(1.0)).unwrap();
        gradient_check_with(&parameters, &[&[2, 4, 6]], |g, x| {
            let mid = g.activation(x[0], Activation::Tanh);
            let y = g.layer_norm(mid, &gamma, &beta, 1e-2)?;
            // The same weights again: their gradients add.
            let y = g.layer_norm(y, &gamma, &beta, 1e-2)?;
            Ok(g.activation(y, Activation::Tanh))
        });
    }

    #[test]
    fn rms_gradients_match_finite_differences() {
        let mut parameters = Parameters::new();
        let weight = parameters.add("weight", &[6], Init::Normal(1.0)).unwrap();
        gradient_check_with(&parameters, &[&[2, 4, 6]], |g, x| {
            let mid = g.activation(x[0], Activation::Tanh);
            let y = g.rms_norm(mid, &weight, 1e-2)?;
            // The same weight again, and the same input: their gradients add.
            let y = g.rms_norm(y, &weight, 1e-2)?;
            let y = g.multiply(y, mid)?;
            Ok(g.activation(y, Activation::Tanh))
        });
    }

    #[test]
    fn wrong_shapes_and_numbers_are_refused() {
        let mut parameters = Parameters::new();
        let gamma = parameters.add("gamma", &[6], Init::Zeros).unwrap();
        let short = parameters.add("short", &[5], Init::Zeros).unwrap();
        let mut g = Graph::new(&Arena::new(&Device::cpu(), &parameters, &[1]).unwrap());
        let x = g.input("x", &[2, 6], Element::F32);
        let message = g.layer_norm(x, &gamma, &short, 1e-5).unwrap_err().to_string();
        assert_eq!(message, "layer_norm: [2, 6] with short [5]");
        assert!(g.layer_norm(x, &gamma, &gamma, 0.0).is_err());
        let message = g.rms_norm(x, &short, 1e-5).unwrap_err().to_string();
        assert_eq!(message, "rms_norm: [2, 6] with short [5]");
        let message = g.rms_norm(x, &gamma, f32::NAN).unwrap_err().to_string();
        assert_eq!(message, "rms_norm's epsilon is NaN, expected a positive number");
    }
}
