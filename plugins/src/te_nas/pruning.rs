//! What goes: sums of ranks by both indicators.

use serde::{Deserialize, Serialize};

/// What cutting a candidate does, relative to before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Group, row and column of the candidate.
    pub at: (usize, usize, usize),
    /// (κ₀ − κ) / κ₀: the more κ falls, the better for training.
    #[serde(with = "nasfw_framework::lossless")]
    pub condition: f64,
    /// (R₀ − R) / R₀: the fewer regions are lost, the better for what can be expressed.
    #[serde(with = "nasfw_framework::lossless")]
    pub regions: f64,
}

/// To so many significant digits.
pub fn rounded(x: f64, digits: i32) -> f64 {
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let power = digits - 1 - x.abs().log10().floor() as i32;
    let scale = 10_f64.powi(power);
    (x * scale).round() / scale
}

/// Rank of every number, 0 the smallest; equal ones share a rank, and the next one is one more.
fn dense_ranks(values: &[f64]) -> Vec<usize> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.dedup();
    let rank = |v: &f64| sorted.iter().position(|s| s == v).unwrap_or(sorted.len());
    values.iter().map(rank).collect()
}

/// Places in `changes` from the first to go on: by the sum of the rank by κ, of which the largest fall is first, and the
/// rank by regions, of which the smallest loss is first. Of equal sums the larger fall of κ goes first, then the earlier
/// candidate.
pub fn order(changes: &[Change], digits: i32) -> Vec<usize> {
    let by = |of: fn(&Change) -> f64| {
        let values: Vec<f64> = changes.iter().map(|c| rounded(of(c), digits)).collect();
        dense_ranks(&values)
    };
    let (condition, regions) = (by(|c| -c.condition), by(|c| c.regions));
    let mut order: Vec<usize> = (0..changes.len()).collect();
    order.sort_by_key(|&i| (condition[i] + regions[i], condition[i], i));
    order
}

/// Candidates that go at the end of a round: of every row the first `count`, but that `keep(group, row)` stay of `alive`.
pub fn pruned(
    changes: &[Change],
    digits: i32,
    count: usize,
    spare: impl Fn(usize, usize) -> usize,
) -> Vec<(usize, usize, usize)> {
    let mut gone: Vec<(usize, usize, usize)> = vec![];
    for i in order(changes, digits) {
        let (g, r, c) = changes[i].at;
        let here = gone.iter().filter(|(h, s, _)| (*h, *s) == (g, r)).count();
        if here < count.min(spare(g, r)) {
            gone.push((g, r, c));
        }
    }
    gone
}
