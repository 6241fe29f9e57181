//! What runs a search. There is one trainer; it is a plugin like everything else.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use crate::arch::Genotype;
use crate::config::{RunConfig, Validator};
use crate::error::Result;
use crate::events::{Meter, Subscriber};
use crate::network::Cost;
use crate::run::RunFolder;

pub(crate) mod checkpoint;
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

/// A run to be measured.
pub struct Evaluate<'a> {
    /// How it was made, or with another dataset of images of the same shape, or another device.
    pub config: &'a RunConfig,
    /// [`RunConfig::fingerprint`] of how it was made.
    pub fingerprint: &'a str,
    /// Where it is.
    pub run: &'a RunFolder,
    /// One of its checkpoints; none means the newest.
    pub checkpoint: Option<&'a Path>,
}

/// What was measured on the test images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// Epochs done at the checkpoint.
    pub epoch: u64,
    /// The architecture.
    pub genotype: Genotype,
    /// Loss and accuracy.
    pub test: Meter,
    /// Size of the standalone network, where the space has one.
    pub cost: Option<Cost>,
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

    /// Measures what a run has on the test images, as it was at `checkpoint`, or else at the newest good one.
    ///
    /// # Errors
    /// A run without checkpoints, a checkpoint of another run, and whatever data, space and strategy have to say.
    fn evaluate(&self, job: Evaluate<'_>) -> Result<Evaluation>;

    /// Checks ranges before anything is built.
    fn validate(&self, _v: &mut Validator) {}
}
