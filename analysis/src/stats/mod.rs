//! Statistics of repeated, paired measurements. Every function takes plain numbers and gives plain numbers; the tests
//! compare with values that SciPy computed (`testdata/`).

mod anytime;
mod bootstrap;
mod describe;
mod effect;
mod friedman;
mod holm;
mod kendall;
mod nemenyi;
mod ranks;
mod spearman;
mod wilcoxon;

#[cfg(test)]
mod tests;

pub use anytime::StepFunction;
pub use bootstrap::{Bootstrap, bca};
pub use describe::{mean, quantile, sample_sd};
pub use effect::{cohen_dz, rank_biserial};
pub use friedman::{Friedman, friedman};
pub use holm::holm;
pub use kendall::{Kendall, kendall};
pub use nemenyi::{critical_difference, studentized_range_quantile};
pub use ranks::{ranks, tie_sizes};
pub use spearman::spearman;
pub use wilcoxon::{Wilcoxon, smallest_p, wilcoxon};
