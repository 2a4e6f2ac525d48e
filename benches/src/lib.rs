//! Bench_suite
