//! What runs a search. There is one trainer; it is a plugin like everything else.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::config::{RunConfig, Validator};
use crate::dataset::{DataSource, Dataset};
use crate::error::Result;
use crate::events::Subscriber;
use crate::run::RunFolder;
use crate::search::Search;
use crate::strategy::Strategy;

pub(crate) mod checkpoint;
mod inputs;
mod interrupt;
mod outcome;
mod planner;
mod reopened;
mod search_trainer;
mod session;
mod shares;

pub use checkpoint::check as check_checkpoint;
pub use inputs::{Inputs, Normalisation};
pub use interrupt::{Interrupt, PATIENCE};
pub use outcome::{CurvePoint, Outcome};
pub use reopened::{Drawn, Evaluation, Reopened};
pub use search_trainer::SearchTrainer;

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

/// A run to be looked at again.
pub struct Reopen<'a> {
    /// How it was made, but for where its files are and the device.
    pub config: &'a RunConfig,
    /// [`RunConfig::fingerprint`] of how it was made.
    pub fingerprint: &'a str,
    /// Where it is. Nothing in it is changed, and whoever works on it goes on.
    pub run: &'a Path,
    /// One of its checkpoints; none means the newest.
    pub checkpoint: Option<&'a Path>,
    /// Another dataset to measure on, and where that is. Its images are shown to the network as the run's own are, and
    /// its classes go by their names.
    pub other: Option<(&'a dyn Dataset, &'a DataSource)>,
}

/// Takes one step, without events and checkpoints and whatever the strategy asks for at the end of an epoch.
///
/// # Errors
/// Whatever the strategy has to say.
pub fn advance(search: &mut Search, strategy: &mut dyn Strategy) -> Result<()> {
    if search.clock.step_in_epoch == 0 {
        strategy.epoch_start(search)?;
    }
    search.begin_step();
    strategy.step(search)?;
    search.end_step();
    if search.clock.step_in_epoch == search.steps_per_epoch() {
        strategy.epoch_end(search)?;
        search.clock.epoch += 1;
        search.clock.step_in_epoch = 0;
    }
    Ok(())
}

/// Writes a checkpoint of a search that the caller steps through.
///
/// # Errors
/// Whatever strategy and disk have to say.
pub fn save(
    run: &RunFolder,
    search: &mut Search,
    strategy: &dyn Strategy,
    fingerprint: &str,
) -> Result<()> {
    checkpoint::save(run, search, strategy, fingerprint, 0, None, false)
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

    /// A search before its first step, in no run folder, to be measured.
    ///
    /// # Errors
    /// Whatever data, space and strategy have to say.
    fn start(&self, config: &RunConfig) -> Result<(Search, Box<dyn Strategy>)>;

    /// A run as it was at a checkpoint, to be measured or exported.
    ///
    /// # Errors
    /// A run without checkpoints, a checkpoint of another run, and whatever data, space and strategy have to say.
    fn reopen(&self, job: Reopen<'_>) -> Result<Reopened>;

    /// Checks ranges before anything is built.
    fn validate(&self, _v: &mut Validator) {}
}
