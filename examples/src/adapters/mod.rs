//! Low-rank adapters (LoRA; Hu et al. 2021) of a transformer, federated: the model's weights stay as
//! they are on each client, and what is trained and sent is the adapters alone, in full precision,
//! in 16 bits or ternary, under secure aggregation or not.

pub mod base;
pub mod byte_pairs;
pub mod options;
pub mod run;
pub mod train;
pub mod ways;
