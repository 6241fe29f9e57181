//! A run: what it is made of, the trait of what carries it out, and what comes of it.

mod contract;
mod reopened;

pub use crate::outcome::{CurvePoint, Outcome};
pub use contract::{Common, Job, Precision, Reopen, RunConfig, Trainer};
pub use reopened::{Drawn, Evaluation, Reopened};
