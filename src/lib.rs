//! nasfw: plugin-based neural architecture search. One trainer, many strategies, results that reproduce.
//!
//! This crate links the first-party plugins and holds the command line. A program of your own that adds plugins is
//! three lines ([`main`], or [`Program`] where there is more to say): see `examples/own-strategy`.

// A crate that no Rust path mentions is not linked, and its plugins would be missing without a word.
use nasfw_plugins as _;
use nasfw_trackers as _;

pub use nasfw_analysis as analysis;
pub use nasfw_datasets as datasets;
pub use nasfw_framework as framework;
pub use nasfw_framework::{arch_adam, arch_optimizer, prelude, register};
pub use nasfw_spaces as spaces;
// What the code of a plugin names, in the versions that go with it.
pub use {rand, serde_json, tch};

mod cli;
mod host;
mod memory;
mod program;

pub use cli::error_text;
pub use cli::network::{NetworkSize, network_source};
pub use host::{Carried, Failure, Guest};
pub use program::Program;

/// The command line. Programs with plugins of their own call this from their `main`.
pub fn main() -> std::process::ExitCode {
    Program::default().run()
}
