//! How far a surrogate is to be trusted.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fit::HeldOut;
use super::model::LEVELS;

/// What rows say that the networks had not seen, each predicted by those that learned the other parts of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// Kendall's τ-b between measured and predicted values; none where one of them does not vary.
    pub tau: Option<f64>,
    /// Coefficient of determination: 1 − squared errors / squared distances from the mean.
    pub r2: f64,
    /// Mean absolute error, in the metric's unit.
    pub error: f64,
    /// Share of the rows that lie inside the interval for each of [`LEVELS`], which other rows decided.
    pub inside: [f64; LEVELS.len()],
}

impl Figures {
    /// The figures of rows, with `tau` of their measured and predicted values.
    pub fn of(rows: &[HeldOut], tau: impl FnOnce(&[f64], &[f64]) -> Option<f64>) -> Self {
        let n = rows.len() as f64;
        let measured: Vec<f64> = rows.iter().map(|r| r.value).collect();
        let predicted: Vec<f64> = rows.iter().map(|r| r.prediction.value).collect();
        let mean = measured.iter().sum::<f64>() / n;
        let left = || measured.iter().zip(&predicted).map(|(m, p)| m - p);
        let spread: f64 = measured.iter().map(|m| (m - mean).powi(2)).sum();
        let inside = |level: usize| {
            let held = rows.iter().filter(|r| {
                let [low, high] = r.prediction.intervals[level];
                (low..=high).contains(&r.value)
            });
            held.count() as f64 / n
        };
        Self {
            tau: tau(&measured, &predicted),
            r2: 1.0 - left().map(|d| d * d).sum::<f64>() / spread,
            error: left().map(f64::abs).sum::<f64>() / n,
            inside: [0, 1, 2].map(inside),
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tau = self.tau.map_or("none".into(), |tau| format!("{tau:.3}"));
        let Self { r2, error, .. } = self;
        write!(
            f,
            "Kendall's τ {tau}, R² {r2:.3}, mean absolute error {error:.4}; "
        )?;
        let shares = LEVELS.iter().zip(self.inside);
        let shares: Vec<String> = shares
            .map(|(level, share)| format!("{:.1} % inside {:.0} %", share * 100.0, level * 100.0))
            .collect();
        write!(f, "intervals: {}", shares.join(", "))
    }
}
