//! How often the rule that decides a comparison is wrong: made-up metrics of which the truth is known.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::comparison::{Pair, VerdictOutcome};
use super::figures::{pairs, verdicts};

/// Made-up comparisons. Every strategy's metric is a number common to all strategies of a seed plus noise of its own.
#[derive(Debug, Clone, Copy)]
pub struct Simulation {
    /// Strategies, of which the last two are the controls.
    pub strategies: usize,
    /// Seeds.
    pub seeds: usize,
    /// How much better than all others the first strategy is, in standard deviations of the noise; 0 is the null.
    pub ahead: f64,
    /// Shape of the noise.
    pub noise: Noise,
    /// Level of the tests.
    pub level: f64,
}

/// Shape of a metric's noise; each has a standard deviation of about 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noise {
    /// Sums of uniform numbers, which are normal enough.
    Normal,
    /// Exponential: now and then far off.
    Skewed,
    /// Normal, rounded to whole numbers, so that many results are equal.
    Rounded,
}

/// How often something was claimed, as shares of all made-up comparisons.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Some pair differs, by Holm-adjusted p. Under the null every such claim is false.
    pub any: f64,
    /// The same by p as it is, without Holm's correction.
    pub any_uncorrected: f64,
    /// The first strategy is better than both controls.
    pub better: f64,
}

impl Simulation {
    /// Makes up `repeats` comparisons and decides each.
    pub fn rates(&self, repeats: usize, seed: u64) -> Rates {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let labels: Vec<String> = (0..self.strategies).map(|i| format!("s{i}")).collect();
        let controls = &labels[self.strategies.saturating_sub(2)..];
        let (mut any, mut any_uncorrected, mut better) = (0, 0, 0);
        for _ in 0..repeats {
            let common: Vec<f64> = (0..self.seeds).map(|_| 2.0 * normal(&mut rng)).collect();
            let metrics: BTreeMap<&str, Vec<f64>> = labels
                .iter()
                .enumerate()
                .map(|(i, label)| {
                    let ahead = if i == 0 { self.ahead } else { 0.0 };
                    let values = common.iter().map(|c| self.metric(c + ahead, &mut rng));
                    (label.as_str(), values.collect())
                })
                .collect();
            let pairs = pairs(&labels, &metrics);
            let claims = |p: fn(&Pair) -> f64| pairs.iter().any(|x| p(x) < self.level);
            any += usize::from(claims(|p| p.p_holm));
            any_uncorrected += usize::from(claims(|p| p.p));
            let verdicts = verdicts(&labels[0], controls, &pairs, self.level);
            better += usize::from(verdicts.iter().all(|v| v.outcome == VerdictOutcome::Better));
        }
        let share = |count: usize| count as f64 / repeats.max(1) as f64;
        Rates {
            any: share(any),
            any_uncorrected: share(any_uncorrected),
            better: share(better),
        }
    }

    fn metric(&self, mean: f64, rng: &mut ChaCha8Rng) -> f64 {
        match self.noise {
            Noise::Normal => mean + normal(rng),
            Noise::Skewed => mean - (1.0 - rng.random::<f64>()).ln() - 1.0,
            Noise::Rounded => (mean + normal(rng)).round(),
        }
    }
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0
}
