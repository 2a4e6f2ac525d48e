//! The digits-transfer demo: who can read one kind of handwriting teaches whoever has another
//! kind and no labels, by federated adversarial training (CN113159283A), in one
//! process or as many.

pub mod data;
pub mod network;
pub mod options;
pub mod results;
pub mod run;
pub mod transfer;
