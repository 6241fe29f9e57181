//! A run: what it is made of, the trait of what carries it out, and what comes of it.

mod contract;
mod evaluation;
mod reopened;

pub use crate::outcome::{CurvePoint, Outcome};
pub use contract::{Common, Job, Measured, Precision, Reopen, RunConfig, Trainer};
pub use evaluation::{ClassFigures, Evaluation, Mistake};
pub use reopened::{Drawn, Reopened};
