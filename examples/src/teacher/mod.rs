//! The demo of private labels: teachers on disjoint parts of private data answer a student's
//! unlabeled samples by noisy votes, and what the answers tell is accounted for (PATE).
//!
//! [`data`] has the private, public and held-out samples, [`lesson`] runs teachers and students
//! on them, [`results`] has the numbers as a table, as JSON and as a picture.

pub mod data;
pub mod lesson;
mod network;
pub mod options;
pub mod results;
pub mod run;
