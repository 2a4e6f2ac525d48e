//! Federated training on Tern's engine.
