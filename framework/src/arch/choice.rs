//! A discrete architecture as indices into an [`ArchSpec`](super::ArchSpec).

use serde::{Deserialize, Serialize};

/// The kept candidates: `[group][row]` → indices in increasing order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Choice(Vec<Vec<Vec<usize>>>);

impl Choice {
    /// Wraps indices; [`Choice::check`] tells whether they fit a spec.
    pub fn new(kept: Vec<Vec<Vec<usize>>>) -> Self {
        Self(kept)
    }

    /// The kept candidates of a row.
    pub fn kept(&self, group: usize, row: usize) -> &[usize] {
        &self.0[group][row]
    }

    /// All groups.
    pub fn groups(&self) -> &[Vec<Vec<usize>>] {
        &self.0
    }
}
