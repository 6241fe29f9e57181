//! Configuration: layered, typed, strict.
//!
//! Layers, weakest first: the embedded defaults, what the space, the strategy (and its preset) and the dataset change
//! in them, a file, the environment (`NASFW_STRATEGY__LR=0.05`), the command line. Every layer is TOML with the same
//! sections, so that what a plugin's defaults say can be copied into a file.

mod document;
mod error;
mod layers;
mod run_config;
mod validate;

pub use document::{Document, TEXT_LIMIT};
pub use error::{ConfigError, Problem};
pub use layers::{Layer, Origin, Resolved, environment_key, flatten, is_option, resolve};
pub use run_config::{Common, Precision, RunConfig};
pub use validate::Validator;

/// The embedded, commented defaults of everything that belongs to no plugin.
pub const DEFAULTS: &str = include_str!("defaults.toml");
