//! Comparisons of strategies: the plan, and what its trials amount to.

mod comparison;

pub use comparison::*;
