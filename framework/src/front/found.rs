//! A front as `result.json` keeps it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::arch::Genotype;

/// Name of the metric that says how much a front covers.
pub const HYPERVOLUME: &str = "hypervolume";

/// What architectures are judged by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Criterion {
    /// The name: that of a benchmark's metric, or `cost/NAME`.
    pub name: String,
    /// What it is counted in; empty for a plain number.
    pub unit: String,
    /// Whether more is better.
    pub higher: bool,
    /// What is not better than this covers nothing.
    #[serde(with = "crate::lossless")]
    pub reference: f64,
    /// The best that there can be; none where nobody knows.
    #[serde(default, with = "crate::lossless")]
    pub ideal: Option<f64>,
}

impl Criterion {
    /// A value such that more is better.
    pub fn merit(&self, value: f64) -> f64 {
        if self.higher { value } else { -value }
    }

    /// How far a value is from the reference: 1 is the ideal, where there is one.
    pub(super) fn covers(&self, value: f64) -> f64 {
        let from = self.merit(value) - self.merit(self.reference);
        let whole = self.ideal.map(|i| (i - self.reference).abs());
        from / whole.filter(|whole| *whole > 0.0).unwrap_or(1.0)
    }
}

/// Architectures of which none is beaten in everything by another that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Front {
    /// What they are judged by, the metric first.
    pub criteria: Vec<Criterion>,
    /// The volume that they cover between the references and the ideals, as a fraction of all of it; in the criteria's own units
    /// where an ideal is not known.
    #[serde(with = "crate::lossless")]
    pub hypervolume: f64,
    /// The architectures, the best in the metric first.
    pub members: Vec<Member>,
    /// How many different architectures were looked at.
    pub evaluated: usize,
    /// What they are worth, in the order of `criteria`: all of them, or some where there are many.
    #[serde(default, with = "crate::lossless")]
    pub points: Vec<Vec<f64>>,
}

/// An architecture of a front.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// The architecture.
    pub genotype: Genotype,
    /// What it is worth, by the names of the criteria.
    #[serde(with = "crate::lossless")]
    pub values: BTreeMap<String, f64>,
}
