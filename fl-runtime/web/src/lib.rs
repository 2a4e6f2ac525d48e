//! Tern in browsers: models that train on WebGPU, or on the CPU where a browser has none, and a
//! client of federated runs, as a module of JavaScript with types of TypeScript. `fl-runtime/web/README.md`
//! tells how it is built and used.
//!
//! Elsewhere than in a browser there is nothing in this crate.

#![cfg(all(target_arch = "wasm32", target_os = "unknown"))]

mod bench;
mod client;
mod console;
mod data;
mod device;
mod json;
mod model;
