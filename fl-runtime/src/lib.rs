//! Federated training on Tern's engine.

pub mod secagg;
