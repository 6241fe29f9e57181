//! Comparisons of strategies: the plan, and what its trials amount to.

mod assemble;
mod comparison;
mod figures;
mod plan;
mod text;

pub use assemble::{LOGS, RANKING, TRIALS, assemble, choose_metric, error_file};
pub use comparison::*;
pub use figures::{Labels, Measured, figures, ranks};
pub use nasfw_framework::budget::{Budget, Unit};
pub use plan::{
    Entry, Plan, PlanFile, RANDOM, RANDOM_ARCHITECTURES, Rank, Seeds, Trial, differences,
};
pub use text::text;
