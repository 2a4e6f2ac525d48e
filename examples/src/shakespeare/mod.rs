//! The Shakespeare experiment of the paper that federated averaging comes from (McMahan et al.
//! 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS,
//! section 3): a client for each speaking role with two lines or more, a character LSTM, and the
//! rounds until 54 % of the characters of the test lines are expected.

pub mod data;
pub mod options;
pub mod run;
