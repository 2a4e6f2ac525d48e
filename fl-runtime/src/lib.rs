//! Federated_runtime
