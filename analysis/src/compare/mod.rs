//! Comparisons of strategies: the plan, and what its trials amount to.

mod assemble;
mod checks;
mod comparison;
mod figures;
mod metric;
mod plan;
mod simulation;
mod text;
mod trials;

#[cfg(test)]
mod tests;

pub use assemble::{BEGUN, LOG_END, LOGS, RANKING, TRIALS, assemble, error_file};
pub use comparison::*;
pub use figures::{Labels, Measured, figures, pairs, ranks, verdicts};
pub use metric::{choose_metric, metric_and_reason};
pub use nasfw_framework::budget::{Budget, Unit};
pub use plan::{Entry, MOST_RANKED, Plan, PlanFile, RANDOM, RANDOM_ARCHITECTURES, Rank, Seeds};
pub use simulation::{Noise, Rates, Simulation};
pub use text::text;
pub use trials::{Trial, differences};
