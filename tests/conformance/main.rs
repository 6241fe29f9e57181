//! The conformance suite on every registered plugin, and proof that it catches defects: planted copies of those that
//! were found in other frameworks, each of which it must reject.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

use nasfw as _;

mod defects;
mod plugins;
mod strategies;
