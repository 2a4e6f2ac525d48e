//! Private labels from an ensemble of teachers (Ant Financial, CN111832591A; PATE, Papernot et
//! al. 2017, "Semi-supervised Knowledge Transfer for Deep Learning from Private Training Data",
//! and 2018, "Scalable Private Learning with PATE").
//!
//! The data owner splits the samples into disjoint parts
//! ([`partition`](tern_protocol::partition::partition) at random,
//! [`by_value`](tern_protocol::partition::by_value) by the device that collected them; [`usable`] leaves
//! out parts that teach nothing) and trains a teacher on each: [`Models`]. A [`Service`] answers
//! clients' unlabeled samples: each teacher votes, an [`Aggregator`] adds noise to the counts and
//! gives the plurality, or no label where the teachers disagree. A [`Budget`] charges for every
//! answer before it goes out and refuses once (ε, δ) is spent. The client trains its own model on
//! the samples and the labels it got, and serves itself from then on.
//!
//! What is private is a record of the teachers' data: whoever has the answers can hardly tell it
//! from another in its place. So a record may change its own teacher alone: what all samples are
//! scaled by, which parts there are and how much noise is added must not depend on it. That
//! clients see which of their samples were answered is part of the account; the samples that
//! clients send are not protected.
//!
//! ```
//! use tern_engine::{Device, nn::ModelSpec};
//! use tern_methods::teach::{Aggregator, Budget, Limit, Mechanism, Models, Noise, Recipe, Samples, Service, usable};
//! use tern_protocol::partition::{Partition, partition};
//! use tern_protocol::plan::LocalTraining;
//! use tern_protocol::ClientId;
//!
//! # fn main() -> tern_protocol::Result<()> {
//! let device = Device::cpu();
//! // Points on a line; the class is the sign.
//! let x: Vec<f32> = (0..400).map(|i| (i as f32 - 199.5) / 200.0).collect();
//! let labels: Vec<u32> = x.iter().map(|x| u32::from(*x > 0.0)).collect();
//! let (parts, _) = usable(&labels, partition(&labels, 40, Partition::Iid, 1)?);
//! let mut training = LocalTraining::default();
//! (training.epochs, training.learning_rate) = (30, 1.0);
//! let recipe = Recipe { model: ModelSpec::mlp(1, &[], 2), classes: 2, training, seed: 1 };
//! let samples = Samples { features: &x, width: 1, labels: &labels };
//! let teachers = Models::train(&device, &recipe, &samples, &parts, &mut |_, _, _| {})?;
//!
//! let aggregator = Aggregator::new(Mechanism::Gaussian { sigma: 8.0 }, Noise::from_system())?;
//! let budget = Budget::in_memory(Limit { epsilon: 3.0, delta: 1e-3 })?;
//! let mut service = Service::new(teachers, aggregator, budget);
//! let labels = service.answer(ClientId::numbered(0), &[-0.9, 0.9])?;
//! assert_eq!(labels.len(), 2);
//! println!("ε = {:.2} for {labels:?}", service.spent().epsilon);
//! while service.answer(ClientId::numbered(0), &[0.5]).is_ok() {}
//! assert!(service.spent().epsilon <= 3.0);
//! # Ok(())
//! # }
//! ```

pub mod accountant;
mod aggregator;
mod budget;
mod models;
mod noise;
#[cfg(any(feature = "client", feature = "server"))]
mod served;
mod service;
#[cfg(test)]
mod tests;

pub use aggregator::{Aggregator, Mechanism, plurality};
pub use budget::{Budget, Limit, Spent};
pub use models::{LeftOut, Models, Part, Recipe, Samples, accuracy, usable};
pub use noise::Noise;
#[cfg(any(feature = "client", feature = "server"))]
pub use served::Answer;
#[cfg(feature = "server")]
pub use served::Labels;
#[cfg(feature = "client")]
pub use served::ask;
pub use service::{MAX_SAMPLES, Service, Tally, Voters};
