//! Batch and group normalization.
//!
//! ```rust
//! use tern_engine::ops::normalize::groups::BatchNormWeights;
//! use tern_engine::{Arena, Data, Device, Element, Flat, Graph, Init, Parameters};
//!
//! # fn main() -> tern_engine::Result<()> {
//! let mut parameters = Parameters::new();
//! let mut add = |name, value| parameters.add(name, &[1], Init::Constant(value));
//! let weights = BatchNormWeights {
//!     gamma: add("weight", 1.0)?,
//!     beta: add("bias", 0.0)?,
//!     running_mean: add("running_mean", 0.0)?,
//!     running_var: add("running_var", 1.0)?,
//! };
//! let arena = Arena::new(&Device::cpu(), &parameters, &[1])?;
//! let mut graph = Graph::new(&arena);
//! let x = graph.input("x", &[2, 1], Element::F32);
//! let y = graph.batch_norm(x, &weights, 1e-9, Some(0.5))?;
//! graph.keep(y);
//! let mut plan = graph.forward()?;
//! // Mean 4, variance 1, or 2 where it is not to depend on the number of samples.
//! plan.write(x, &Data::F32(vec![3.0, 5.0]))?;
//! plan.run(1)?;
//! assert!(plan.read(y)?.floats()?.iter().zip([-1.0, 1.0]).all(|(y, e)| (y - e).abs() < 1e-5));
//! let flat = arena.read(Flat::Parameters, 0)?;
//! assert_eq!(flat[weights.running_mean.offset], 2.0);
//! assert_eq!(flat[weights.running_var.offset], 1.5);
//! # Ok(())
//! # }
//! ```

use tern_shaders::Element;
use tern_shaders::kernels::normalize::groups::{
    GROUP_BACKWARD, GROUP_BACKWARD_CHANNELS, GROUP_FORWARD, GROUP_MOMENTS, GROUP_SUMS, GroupNorm,
    RUNNING_MOMENTS, RunningMoments,
};
use tern_shaders::kernels::pointwise::{COPY, Copy};
use tern_shaders::schedule::Schedule;
use tern_shaders::state::{self, StateRecord};

use super::mode;
use crate::ops::{Case, noise};
use crate::{Backward, Data, Error, Flat, Graph, Operand, Param, Result, Tensor};

/// Parameters of a batch normalization, `[channels]` each, in PyTorch's names. The running moments
/// have no gradients: they are averages over the batches of training.
#[derive(Clone, Debug)]
pub struct BatchNormWeights {
    /// `weight`
    pub gamma: Param,
    /// `bias`
    pub beta: Param,
    /// `running_mean`
    pub running_mean: Param,
    /// `running_var`
    pub running_var: Param,
}

impl Graph {
    /// Samples, channels, and elements of a channel, of `[N, C, ...]`.
    fn check_channels(
        &self,
        op: &'static str,
        x: Tensor,
        weights: &[&Param],
        epsilon: f32,
    ) -> Result<[u32; 3]> {
        self.check_floats(op, x)?;
        let &[samples, channels, ref pixels @ ..] = self.shape(x) else {
            return Err(Error::shape(op, format!("{:?}, expected [N, C, ...]", self.shape(x))));
        };
        for weight in weights {
            if weight.shape != [channels] {
                let (x, name, shape) = (self.shape(x), &weight.name, &weight.shape);
                return Err(Error::shape(op, format!("{x:?} with {name} {shape:?}")));
            }
        }
        // Written so that a NaN fails.
        if !(epsilon > 0.0 && epsilon.is_finite()) {
            return Err(Error::value(format!("{op}'s epsilon"), epsilon, "a positive number"));
        }
        Ok([samples, channels, pixels.iter().product()].map(|size| size as u32))
    }

    /// Normalizes each channel of `[N, C, ...]` over the batch, y = (x − mean) / √(variance + ε) · γ +
    /// β, as `torch.nn.BatchNorm2d` does: with a momentum, as in training, by the moments of the
    /// batch, which the running ones go to by that share; without, by the running ones. The rows that
    /// a short batch lacks count, as zeros.
    ///
    /// # Errors
    /// [`Error::Shape`] if the weights are not of the channels; [`Error::Value`] unless ε is positive
    /// and the momentum within 0 and 1, or for one element a channel in training.
    pub fn batch_norm(
        &mut self,
        x: Tensor,
        weights: &BatchNormWeights,
        epsilon: f32,
        momentum: Option<f32>,
    ) -> Result<Tensor> {
        let BatchNormWeights { gamma, beta, running_mean, running_var } = weights;
        let all = [gamma, beta, running_mean, running_var];
        let sizes = self.check_channels("batch_norm", x, &all, epsilon)?;
        let channels = sizes[1];
        let stride = self.parameter_stride() as u32;
        let params =
            GroupNorm { fixed: momentum.is_none().into(), ..GroupNorm::of_batch(sizes, epsilon) };
        let parameters = Operand::Flat(Flat::Parameters);
        let moments = self.tensor("moments", &[2, channels as usize], Element::F32);
        match momentum {
            Some(momentum) => {
                if !(0.0..=1.0).contains(&momentum) {
                    return Err(Error::value("batch_norm's momentum", momentum, "0 to 1"));
                }
                let length = params.length();
                if length == 1 {
                    let expected = "more, or the moments of a batch are of one number";
                    return Err(Error::value("elements of a channel in training", 1, expected));
                }
                self.dispatch(&GROUP_MOMENTS, &params, &[x.into(), moments.into()]);
                let running = RunningMoments {
                    channels,
                    mean_offset: running_mean.offset as u32,
                    variance_offset: running_var.offset as u32,
                    stride,
                    momentum,
                    correction: (length as f64 / (length as f64 - 1.0)) as f32,
                };
                let args = [moments.into(), Operand::State, parameters];
                self.dispatch(&RUNNING_MOMENTS, &running, &args);
            }
            None => {
                for (number, running) in [running_mean, running_var].into_iter().enumerate() {
                    let copy = Copy {
                        rows: 1,
                        width: channels,
                        x_offset: running.offset as u32,
                        x_row: channels,
                        x_stride: stride,
                        y_offset: number as u32 * channels,
                        y_row: channels,
                        y_stride: 2 * channels,
                        accumulate: 0,
                    };
                    self.dispatch(&COPY, &copy, &[parameters, moments.into()]);
                }
            }
        }
        Ok(self.by_groups("batch_norm", x, moments, params, [gamma, beta]))
    }

    /// Normalizes each of `groups` of the channels of each sample of `[N, C, ...]`, y = (x − mean) /
    /// √(variance + ε) · γ + β, as `torch.nn.GroupNorm` does.
    ///
    /// # Errors
    /// [`Error::Shape`] if the weights are not of the channels; [`Error::Value`] unless ε is positive
    /// and the groups divide the channels.
    pub fn group_norm(
        &mut self,
        x: Tensor,
        groups: usize,
        gamma: &Param,
        beta: &Param,
        epsilon: f32,
    ) -> Result<Tensor> {
        let sizes = self.check_channels("group_norm", x, &[gamma, beta], epsilon)?;
        let channels = sizes[1] as usize;
        if groups == 0 || !channels.is_multiple_of(groups) {
            let expected = format!("a divisor of {channels} channels");
            return Err(Error::value("groups of group_norm", groups, expected));
        }
        let params = GroupNorm::of_samples(sizes, groups as u32, epsilon);
        let moments = self.tensor("moments", &[2, params.groups as usize], Element::F32);
        self.dispatch(&GROUP_MOMENTS, &params, &[x.into(), moments.into()]);
        Ok(self.by_groups("group_norm", x, moments, params, [gamma, beta]))
    }

    /// Records the normalization by moments that are there, and its backward.
    fn by_groups(
        &mut self,
        op: &'static str,
        x: Tensor,
        moments: Tensor,
        params: GroupNorm,
        [gamma, beta]: [&Param; 2],
    ) -> Tensor {
        let stride = self.parameter_stride() as u32;
        let params = params.weights(gamma.offset as u32, beta.offset as u32, stride);
        let shape = self.shape(x).to_vec();
        let y = self.tensor(op, &shape, Element::F32);
        let parameters = Operand::Flat(Flat::Parameters);
        let args = [x.into(), moments.into(), parameters, y.into()];
        self.dispatch(&GROUP_FORWARD, &params, &args);
        let weights = [gamma.clone(), beta.clone()];
        self.on_backward(&[x], &[gamma, beta], &[y], move |b| {
            let Some(dy) = b.gradient(y) else { return Ok(()) };
            let target = b.target(x);
            let [x, moments, dy] = [x, moments, dy].map(Operand::from);
            if let Some((dx, accumulate)) = target {
                // Fixed moments have no sums: nothing of their binding is read.
                let mut sums = moments;
                if params.fixed == 0 {
                    let shape = [2, params.groups as usize];
                    sums = b.tensor("sums of groups", &shape, Element::F32).into();
                    b.dispatch(&GROUP_SUMS, &params, &[x, moments, parameters, dy, sums]);
                }
                let params = GroupNorm { gamma_mode: accumulate, ..params };
                let args = [x, moments, sums, parameters, dy, dx.into()];
                b.dispatch(&GROUP_BACKWARD, &params, &args);
            }
            let [gamma_mode, beta_mode] = [0, 1].map(|i| mode(b, &weights[i]));
            if (gamma_mode, beta_mode) != (2, 2) {
                let params = GroupNorm { gamma_mode, beta_mode, ..params };
                let args = [x, moments, dy, Backward::GRADIENTS];
                b.dispatch(&GROUP_BACKWARD_CHANNELS, &params, &args);
            }
            Ok(())
        });
        y
    }
}

/// Cases of the group normalizations.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for ([samples, channels, pixels], groups, replicas) in [
        ([1u32, 1u32, 2u32], 1u32, 1usize),
        ([3, 4, 7], 2, 3),
        ([5, 6, 1], 3, 2),
        ([2, 8, 300], 4, 2),
        ([33, 2, 1300], 1, 1),
        ([4, 3, 32], 3, 2),
    ] {
        let sizes = [samples, channels, pixels];
        let of_batch = GroupNorm::of_batch(sizes, 1e-5);
        let of_samples = GroupNorm::of_samples(sizes, groups, 1e-5);
        for (name, p) in [("batch", of_batch), ("group", of_samples)] {
            let stride = 64 + 2 * channels + 3;
            let p = p.weights(64, 64 + channels, stride);
            let (n, moments) = (p.elements() * replicas, 2 * p.groups as usize * replicas);
            let [x, y, dy] = [(4.0, 2), (1.0, 3), (2.0, 4)].map(|(s, key)| noise(n, s, key));
            let flat = noise(stride as usize * replicas, 1.0, 1);
            let sums = noise(moments, 1.0, 5);
            // Variances are no less than zero.
            let known = match noise(moments, 1.0, 6) {
                Data::F32(x) => Data::F32(x.into_iter().map(f32::abs).collect()),
                words => words,
            };
            let size = format!("{name} {sizes:?}");
            let copies = |buffers: &[&Data]| buffers.iter().map(|x| (*x).clone()).collect();
            let mut push = |kernel, label: &str, p: &GroupNorm, buffers: &[&Data]| {
                let label = format!("{size}{label}");
                cases.push(Case::new(kernel, label, p, replicas, copies(buffers)));
            };
            push(&GROUP_MOMENTS, "", &p, &[&x, &sums]);
            push(&GROUP_FORWARD, "", &p, &[&x, &known, &flat, &y]);
            push(&GROUP_SUMS, "", &p, &[&x, &known, &flat, &dy, &sums]);
            for (fixed, gamma_mode) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let p = GroupNorm { fixed, gamma_mode, ..p };
                let label = format!(" fixed {fixed} accumulate {gamma_mode}");
                push(&GROUP_BACKWARD, &label, &p, &[&x, &known, &sums, &flat, &dy, &y]);
            }
            for (gamma_mode, beta_mode) in [(0, 1), (1, 2), (2, 0)] {
                let p = GroupNorm { gamma_mode, beta_mode, ..p };
                let label = format!(" modes {gamma_mode} {beta_mode}");
                push(&GROUP_BACKWARD_CHANNELS, &label, &p, &[&x, &known, &dy, &flat]);
            }
        }
    }
    for (channels, replicas) in [(1u32, 1usize), (7, 3), (100, 2)] {
        let stride = 64 + 2 * channels;
        let p = RunningMoments {
            channels,
            mean_offset: 64,
            variance_offset: 64 + channels,
            stride,
            momentum: 0.1,
            correction: 1.25,
        };
        let record = |r: usize| {
            let mut record = StateRecord::new(0, 0..1, 1, 9, &Schedule::constant(0.1));
            record[state::ACTIVE] = u32::from(r != 1);
            *record
        };
        let records = Data::U32((0..replicas).flat_map(record).collect());
        let moments = noise(2 * channels as usize * replicas, 2.0, 1);
        let flat = noise(stride as usize * replicas, 2.0, 2);
        let buffers = vec![moments, records, flat];
        cases.push(Case::new(&RUNNING_MOMENTS, format!("{channels}"), &p, replicas, buffers));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::gradient_check_with;
    use crate::{Activation, Arena, Device, Init, Parameters};

    fn weights(parameters: &mut Parameters, channels: usize) -> BatchNormWeights {
        let mut add = |name, init| parameters.add(name, &[channels], init).unwrap();
        BatchNormWeights {
            gamma: add("weight", Init::Normal(1.0)),
            beta: add("bias", Init::Normal(1.0)),
            running_mean: add("running_mean", Init::Constant(0.25)),
            running_var: add("running_var", Init::Constant(0.5)),
        }
    }

    #[test]
    fn gradients_match_finite_differences() {
        let mut trained = Parameters::new();
        let gamma = trained.add("weight", &[4], Init::Normal(1.0)).unwrap();
        let beta = trained.add("bias", &[4], Init::Normal(1.0)).unwrap();
        gradient_check_with(&trained, &[&[3, 4, 2]], |g, x| {
            let mid = g.activation(x[0], Activation::Tanh);
            let y = g.group_norm(mid, 2, &gamma, &beta, 1e-2)?;
            // The same weights again: their gradients add.
            let y = g.group_norm(y, 4, &gamma, &beta, 1e-2)?;
            g.multiply(y, mid)
        });
    }

    /// The gradient of what goes in, in training and after it. The running moments are no weights that
    /// [`gradient_check_with`] could move.
    #[test]
    fn gradients_through_batches_match_finite_differences() {
        let mut parameters = Parameters::new();
        let own = weights(&mut parameters, 2);
        for momentum in [Some(0.0), None] {
            let arena = Arena::new(&Device::reference_f64(), &parameters, &[11]).unwrap();
            let mut graph = Graph::new(&arena);
            let x = graph.input("x", &[3, 2, 2], Element::F32);
            let y = graph.batch_norm(x, &own, 1e-2, momentum).unwrap();
            let y = graph.activation(y, Activation::Tanh);
            let loss = graph.sum(y);
            graph.keep(loss);
            let one = graph.constant(1.0, &[1]);
            let trainable = crate::Trainable::All;
            let (mut plan, d) = graph.gradients(&[(loss, one)], &trainable, &[x]).unwrap();
            let mut values: Vec<f32> = (0..12).map(|i| (i * 5 % 12) as f32 / 8.0).collect();
            let mut loss_of = |values: &[f32]| {
                plan.write(x, &Data::F32(values.to_vec())).unwrap();
                plan.run(1).unwrap();
                (plan.read_f64(loss).unwrap()[0], plan.read_f64(d[0].unwrap()).unwrap())
            };
            let (_, analytic) = loss_of(&values);
            for at in 0..12 {
                let (before, step) = (values[at], 1.0 / 256.0);
                values[at] = before + step;
                let up = loss_of(&values).0;
                values[at] = before - step;
                let down = loss_of(&values).0;
                values[at] = before;
                let slope = (up - down) / (2.0 * f64::from(step));
                assert!((slope - analytic[at]).abs() < 1e-4, "{at}: {slope} {}", analytic[at]);
            }
        }
    }

    #[test]
    fn wrong_shapes_and_numbers_are_refused() {
        let mut parameters = Parameters::new();
        let own = weights(&mut parameters, 4);
        let mut g = Graph::new(&Arena::new(&Device::cpu(), &parameters, &[1]).unwrap());
        let x = g.input("x", &[2, 3], Element::F32);
        let fit = g.input("x", &[1, 4], Element::F32);
        let flat = g.input("x", &[4], Element::F32);
        for (error, expected) in [
            (g.batch_norm(x, &own, 1e-5, None), "batch_norm: [2, 3] with weight [4]"),
            (g.batch_norm(flat, &own, 1e-5, None), "batch_norm: [4], expected [N, C, ...]"),
            (
                g.batch_norm(fit, &own, 0.0, None),
                "batch_norm's epsilon is 0, expected a positive number",
            ),
            (
                g.batch_norm(fit, &own, 1e-5, Some(1.5)),
                "batch_norm's momentum is 1.5, expected 0 to 1",
            ),
        ] {
            assert_eq!(error.unwrap_err().to_string(), expected);
        }
        let error = g.batch_norm(fit, &own, 1e-5, Some(0.1)).unwrap_err().to_string();
        assert!(error.contains("elements of a channel in training is 1"), "{error}");
        let error = g.group_norm(fit, 3, &own.gamma, &own.beta, 1e-5).unwrap_err().to_string();
        assert_eq!(error, "groups of group_norm is 3, expected a divisor of 4 channels");
    }
}
