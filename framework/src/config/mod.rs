//! Configuration: layered, typed, strict.
//!
//! Layers, weakest first: the embedded defaults, what the space, the strategy (and its preset) and the dataset change
//! in them, a file, the environment (`NASFW_STRATEGY__LR=0.05`), the command line. Every layer is TOML with the same
//! sections, so that what a plugin's defaults say can be copied into a file.

mod document;
mod layers;
mod limits;
mod resolved;
mod run_config;
mod trackers;

pub use crate::job::{Common, Precision, RunConfig};
pub use crate::settings::{ConfigError, Origin, Problem, Validator, differ, flatten, is_option};
pub use document::{Document, TEXT_LIMIT};
pub use layers::{DEFAULTS, Layer, environment_key, resolve, typed_value};
pub use resolved::Resolved;
