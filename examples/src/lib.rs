//! Demos
