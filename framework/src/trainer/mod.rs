//! What runs a search. There is one trainer; it is a plugin like everything else.

use std::sync::atomic::AtomicBool;

use crate::config::{RunConfig, Validator};
use crate::error::Result;
use crate::events::Subscriber;
use crate::run::RunFolder;

mod checkpoint;
mod interrupt;
mod search_trainer;

pub use interrupt::on_signals;
pub use search_trainer::{CurvePoint, Outcome, SearchTrainer};

/// A run to be carried out.
pub struct Job<'a> {
    /// What to do.
    pub config: &'a RunConfig,
    /// Where to keep it. If it holds checkpoints, the search goes on from the newest good one.
    pub run: &'a RunFolder,
    /// Who listens, besides the run folder's own event file.
    pub subscribers: Vec<Box<dyn Subscriber + 'a>>,
    /// Set to end the search after a checkpoint.
    pub interrupt: &'a AtomicBool,
}

/// What runs a search.
#[typetag::serde(tag = "name")]
pub trait Trainer: Send + Sync + std::fmt::Debug {
    /// Runs the search to its end and returns what was found.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) after a signal, with everything saved; and whatever data,
    /// space, strategy or disk have to say.
    fn search(&self, job: Job<'_>) -> Result<Outcome>;

    /// Checks ranges before anything is built.
    fn validate(&self, _v: &mut Validator) {}
}
