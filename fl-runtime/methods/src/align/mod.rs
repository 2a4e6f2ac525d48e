//! Federated transfer by adversarial training: nodes with labels (the sources) teach one whose
//! data is of another distribution (the target), and nothing but parameters travels.
//!
//! A feature extractor G, a task model T and a domain discriminator D make up a [`Model`]; every
//! [`Node`] has a copy of the three. After CN113159283A, with the objectives of DANN (Ganin et
//! al. 2016) and ADDA (Tzeng et al. 2017) and, as in FADA (Peng et al. 2020), discriminators that
//! nodes train apart. An *exchange* is a round of the runtime: nodes start from the last
//! aggregate, train what its [`Phase`] asks for, and send the change.
//!
//! 1. [`Phase::WarmUp`]: every source trains G and T on its own data (4.1); the aggregate is
//!    what the target's G starts from (4.2).
//! 2. [`Phase::Discriminate`]: G and T are fixed; every node trains D on its own features,
//!    sources to say 0 and the target 1. A node sees one class only, so it makes few steps, and
//!    the mean of the nodes' changes is what trains D (4.3, 4.4).
//! 3. [`Phase::Adapt`]: D is fixed; sources train G and T on their task while their features are
//!    to look like the target's, the target trains its G so that its features look like the
//!    sources' (4.5).
//!
//! 2 and 3 alternate until the loss falls no more or the rounds are spent (4.6). The target then
//! uses the aggregated G, and the aggregated T of the sources alone or with its own (4.7,
//! [`TaskModel`]).
//!
//! Local steps are plain gradient descent; what comes of their mean is up to the aggregator,
//! [`Fusion`], whose Adam sees the gradients of all domains together (each node's own Adam would
//! scale its one-sided gradients of D up until their means cancel).
//!
//! Who aggregates is a matter of where things run. On the target: [`run`] drives the nodes from
//! there. On a third node: [`plan`] describes the run to a server, which needs no data and no
//! knowledge of the model but its tensors; a [`Node`] is a
//! [`Trainer`](tern_protocol::trainer::Trainer)
//! like any other. Both give the same model, bit by bit, if no node misses a round and there is no
//! [`Settings::patience`]: with it, clients of a server end with the model of the least loss, and
//! [`run`] with the last one.
//!
//! ```
//! use tern_engine::nn::ModelSpec;
//! use tern_engine::Device;
//! use tern_methods::align::{Fusion, Model, Node, Settings, plan, run};
//! use tern_protocol::ClientId;
//!
//! # fn main() -> tern_protocol::Result<()> {
//! let device = Device::cpu();
//! // Points of two classes, and the same points moved aside, without their classes.
//! let points: Vec<f32> = (0..64).map(|i| (i * 37 % 64) as f32 / 32.0 - 1.0).collect();
//! let labels: Vec<u32> = points.chunks(2).map(|p| u32::from(p[0] > p[1])).collect();
//! let moved: Vec<f32> = points.iter().map(|x| x + 0.5).collect();
//!
//! let discriminator = ModelSpec::mlp(8, &[8], 1);
//! let task = ModelSpec::mlp(8, &[], 2);
//! let model = Model::new(ModelSpec::mlp(2, &[16], 8), task, discriminator)?;
//! let settings = Settings { exchanges: 5, head_start: 2, batch: 8, ..Settings::default() };
//! let source = Node::source(&device, &model, &settings, &points, &labels)?;
//! let target = Node::target(&device, &model, &settings, &moved, None)?;
//! let mut nodes = [(ClientId([1; 32]), source), (ClientId([2; 32]), target)];
//! let plan = plan("points", &model, &settings, nodes.len() as u32);
//! let (fusion, initial) = (Fusion::new(&model, &settings), model.initial(settings.seed));
//! let outcome = run(&plan, &fusion, &initial, &mut nodes, |_, _| ())?;
//! let classes = nodes[1].1.predict(&outcome.model, &moved)?;
//! assert_eq!(classes.len(), 32);
//! # Ok(())
//! # }
//! ```

mod fusion;
mod model;
mod node;
mod probe;
mod record;
mod rounds;
mod settings;
#[cfg(test)]
mod tests;

pub use fusion::Fusion;
pub use model::{Group, Model};
pub use node::{Node, Role};
pub use rounds::{Ended, Outcome, Round, plan, run};
pub use settings::{Objective, Phase, Settings, TaskModel};
