//! The keyboard demo: a public next-character model, and people whose own devices make it
//! theirs (DeepType, IMWUT 2018), in one process.
//!
//! A [`server`] trains the public model on public text and publishes it as files
//! ([`public`](crate::public)). Each [`client`] loads it, collects what its user types together with what the
//! model expected, and trains on it once the preset count is reached, as
//! [`tern_fl::methods::personalize`] does it for any model. [`run`] tells the story
//! from end to end and [`measure`]s it on lines that no model has seen; [`interactive`] lets a
//! person be the user.

pub mod client;
pub mod data;
pub mod interactive;
pub mod measure;
pub mod network;
pub mod options;
pub mod personalize;
pub mod predictor;
pub mod reader;
pub mod results;
pub mod run;
pub mod server;
pub mod steps;
pub mod study;
