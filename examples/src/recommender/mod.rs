//! A recommender of insurance products that terminals train together and that sends ternary
//! gradients, after CN112288097A: 3.1 to 3.7 of its points are named where they happen.
//!
//! [`data`] is what the terminals hold, [`arms`] the ways to train, [`train`] runs one of them,
//! [`device`] is the downloaded model at work on a device, and [`results`] what came out.
//! [`movielens`] does the same for ratings of films, for those who have them.

pub mod arms;
pub mod data;
pub mod device;
pub mod movielens;
pub mod network;
pub mod options;
pub mod results;
pub mod run;
pub mod train;

#[cfg(test)]
mod tests;
