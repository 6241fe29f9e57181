//! The one trainer; it is a plugin like everything else.

mod agreement;
pub(crate) mod checkpoint;
mod derive;
mod images;
mod interrupt;
mod planner;
mod plugin;
mod search_trainer;
mod session;
mod shares;
mod steps;
mod trackers;

pub use crate::inputs::{Inputs, Normalisation, Preprocessing};
pub use crate::job::{
    ClassFigures, CurvePoint, Drawn, Evaluation, Job, Measured, Mistake, Outcome, Reopen, Reopened,
    Trainer,
};
pub use checkpoint::{check as check_checkpoint, digest};
pub use interrupt::{Interrupt, PATIENCE};
pub use search_trainer::SearchTrainer;
pub use steps::{advance, save};
