//! Budgets: how much a search may spend, so that strategies of unlike steps can be compared.

use serde::{Deserialize, Serialize};

use crate::printable::counted;

/// What a budget is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// There is no budget: epochs decide.
    None,
    /// Steps of the strategy, whatever they cost.
    Steps,
    /// Training images that went through the supernet: every image of every loss.
    Images,
    /// Seconds of search, of all processes that worked on the run. Two such runs are never bit for bit equal.
    Seconds,
    /// Simulated seconds: those of the trainings that a table stands in for ([`crate::search::Search::look_up`]).
    Simulated,
}

impl Unit {
    /// The unit as a setting.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Steps => "steps",
            Self::Images => "images",
            Self::Seconds => "seconds",
            Self::Simulated => "simulated",
        }
    }

    /// The unit in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Simulated => "simulated seconds",
            other => other.name(),
        }
    }
}

/// How much a search may spend: the section `[trainer.budget]`. Learning rates then run over the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// What it is counted in.
    pub unit: Unit,
    /// How many of them.
    pub amount: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            unit: Unit::None,
            amount: 0,
        }
    }
}

impl std::fmt::Display for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.unit {
            Unit::None => f.write_str("no budget"),
            unit => f.write_str(&counted(self.amount, unit.words().trim_end_matches('s'))),
        }
    }
}

/// Work done in a run. What was rolled back stays spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Work {
    /// Steps carried out.
    pub steps: u64,
    /// Training images that went through the supernet.
    pub images: u64,
    /// Time spent, in microseconds.
    pub microseconds: u64,
    /// Simulated time spent, in microseconds.
    #[serde(default)]
    pub simulated: u64,
}

impl Work {
    /// Seconds spent.
    pub fn seconds(&self) -> f64 {
        self.microseconds as f64 / 1e6
    }

    /// Simulated seconds spent.
    pub fn simulated_seconds(&self) -> f64 {
        self.simulated as f64 / 1e6
    }
}

impl Budget {
    /// What `work` has spent of this budget and the whole of it, in one unit; none without a budget.
    pub fn spent(&self, work: &Work) -> Option<(u64, u64)> {
        let microseconds = self.amount.saturating_mul(1_000_000);
        match self.unit {
            Unit::None => None,
            Unit::Steps => Some((work.steps, self.amount)),
            Unit::Images => Some((work.images, self.amount)),
            Unit::Seconds => Some((work.microseconds, microseconds)),
            Unit::Simulated => Some((work.simulated, microseconds)),
        }
    }
}
