//! From finished trials to figures: pairs of the same seed, tests, intervals, verdicts.

use std::collections::{BTreeMap, BTreeSet};

use super::comparison::{
    Anytime, Pair, Ranks, Setting, State, StrategyFigures, Summary, TrialResult, Verdict,
    VerdictOutcome,
};
use crate::stats::{
    Bootstrap, StepFunction, cohen_dz, critical_difference, friedman, holm, mean, rank_biserial,
    sample_sd, smallest_p, wilcoxon,
};

/// Resamples of every bootstrap interval.
const RESAMPLES: usize = 9999;
/// Below so many seeds intervals come with a warning.
const FEW: usize = 10;
/// Positions of anytime curves.
const GRID: usize = 101;

/// A trial's result with what only figures need.
#[derive(Debug, Clone)]
pub struct Measured {
    /// What is kept of it.
    pub result: TrialResult,
    /// Regret over what was spent, in units of the budget.
    pub curve: Option<StepFunction>,
    /// Kendall's τ-b of its supernet.
    pub tau: Option<f64>,
}

/// Labels of the compared strategies.
#[derive(Debug, Clone, Copy)]
pub struct Labels<'a> {
    /// All of them, in the order of the plan.
    pub all: &'a [String],
    /// Those that draw at random.
    pub controls: &'a [String],
}

/// All figures of one setting from its trials. The setting comes with its names; its figures are replaced.
pub fn figures(setting: Setting, trials: &[Measured], labels: Labels<'_>, level: f64) -> Setting {
    let mut s = setting;
    let by: BTreeMap<(&str, u64), &Measured> = trials
        .iter()
        .map(|t| ((t.result.strategy.as_str(), t.result.seed), t))
        .collect();
    let planned: BTreeSet<u64> = trials.iter().map(|t| t.result.seed).collect();
    let measured = |seed: u64, label: &str| {
        let trial = by.get(&(label, seed))?;
        trial.result.metric.map(|m| (*trial, m))
    };
    let complete = |seed: &u64| labels.all.iter().all(|l| measured(*seed, l).is_some());
    s.seeds = planned.iter().copied().filter(complete).collect();
    s.partial = s.seeds.len() < planned.len();
    let done = |t: &&Measured| t.result.state == State::Done;
    let unknown = trials
        .iter()
        .filter(done)
        .filter(|t| t.result.metric.is_none())
        .count();
    if unknown > 0 && s.metric.is_some() {
        s.notes.push(format!(
            "{unknown} of the architectures that were found are not in the table; their seeds are left out, which can \
             favour strategies that find what the table has"
        ));
    }
    if s.seeds.is_empty() {
        return s;
    }

    let bootstrap = Bootstrap::new(s.seeds.len(), RESAMPLES, 0);
    let of = |label: &str| -> Vec<(&Measured, f64)> {
        s.seeds
            .iter()
            .filter_map(|seed| measured(*seed, label))
            .collect()
    };
    let metrics: BTreeMap<&str, Vec<f64>> = labels
        .all
        .iter()
        .map(|l| (l.as_str(), of(l).iter().map(|t| t.1).collect()))
        .collect();
    let budget = s.budget.amount as f64;
    s.grid = (0..GRID)
        .map(|i| budget * i as f64 / (GRID - 1) as f64)
        .collect();
    s.pairs = if s.seeds.len() > 1 {
        pairs(labels.all, &metrics)
    } else {
        vec![]
    };
    let tests = s.pairs.len();
    if let Some(note) = too_few(s.seeds.len(), tests, level) {
        s.notes.push(note);
    }
    if s.seeds.len() < FEW {
        s.notes.push(format!(
            "intervals from fewer than {FEW} seeds are too narrow: from 5, one of 95 % covers the mean in about 85 % of cases"
        ));
    }
    s.ranks = ranks(labels.all, &transposed(labels.all, &metrics), level);
    s.strategies = labels
        .all
        .iter()
        .map(|label| {
            let trials = of(label);
            let regret: Option<Vec<f64>> = trials.iter().map(|t| t.0.result.regret).collect();
            let curves: Option<Vec<&StepFunction>> =
                trials.iter().map(|t| t.0.curve.as_ref()).collect();
            let taus: Vec<f64> = trials.iter().filter_map(|t| t.0.tau).collect();
            let verdicts = verdicts(label, labels.controls, &s.pairs, level);
            StrategyFigures {
                strategy: label.clone(),
                metric: summary(metrics[label.as_str()].clone(), &bootstrap, level),
                regret: regret.map(|r| summary(r, &bootstrap, level)),
                anytime: curves.map(|c| anytime(&c, &s.grid, budget, &bootstrap, level)),
                tau: (!taus.is_empty()).then(|| {
                    let own = Bootstrap::new(taus.len(), RESAMPLES, 0);
                    summary(taus, &own, level)
                }),
                sentence: sentence(&verdicts),
                verdicts,
            }
        })
        .collect();
    s
}

fn summary(values: Vec<f64>, bootstrap: &Bootstrap, level: f64) -> Summary {
    Summary {
        mean: mean(&values).unwrap_or_default(),
        sd: sample_sd(&values),
        interval: bootstrap.interval(&values, 1.0 - level),
        values,
    }
}

fn anytime(
    curves: &[&StepFunction],
    grid: &[f64],
    budget: f64,
    bootstrap: &Bootstrap,
    level: f64,
) -> Anytime {
    let areas = curves.iter().map(|c| c.mean(budget)).collect();
    let (mut means, mut low, mut high) = (vec![], vec![], vec![]);
    let mut last: Option<(Vec<f64>, Option<[f64; 2]>)> = None;
    for x in grid {
        let values: Vec<f64> = curves.iter().map(|c| c.at(*x)).collect();
        means.push(mean(&values).unwrap_or_default());
        // Curves stand still most of the time.
        let interval = match &last {
            Some((same, interval)) if *same == values => *interval,
            _ => bootstrap.interval(&values, 1.0 - level),
        };
        if let Some([l, h]) = interval {
            low.push(l);
            high.push(h);
        }
        last = Some((values, interval));
    }
    Anytime {
        mean: means,
        low,
        high,
        area: summary(areas, bootstrap, level),
    }
}

/// Every strategy against every other, with Holm's correction over all of them. `metrics` has the values of every
/// label, all of one length.
pub fn pairs(labels: &[String], metrics: &BTreeMap<&str, Vec<f64>>) -> Vec<Pair> {
    let mut pairs = vec![];
    for (i, a) in labels.iter().enumerate() {
        for b in &labels[i + 1..] {
            let both = metrics[a.as_str()].iter().zip(&metrics[b.as_str()]);
            let differences: Vec<f64> = both.map(|(a, b)| a - b).collect();
            let test = wilcoxon(&differences);
            pairs.push(Pair {
                a: a.clone(),
                b: b.clone(),
                difference: mean(&differences).unwrap_or_default(),
                p: test.p,
                p_holm: test.p,
                n: test.n,
                rank_biserial: rank_biserial(&differences),
                cohen_dz: cohen_dz(&differences),
            });
        }
    }
    let adjusted = holm(&pairs.iter().map(|p| p.p).collect::<Vec<_>>());
    pairs
        .iter_mut()
        .zip(adjusted)
        .for_each(|(pair, p)| pair.p_holm = p);
    pairs
}

/// Says so where no outcome whatever could be significant: the smallest p that so many pairs can give, times the number
/// of tests, is not below the level.
fn too_few(seeds: usize, tests: usize, level: f64) -> Option<String> {
    let best = |n: usize| (smallest_p(n) * tests.max(1) as f64).min(1.0);
    if best(seeds) < level {
        return None;
    }
    let enough = (seeds..).find(|n| best(*n) < level)?;
    Some(format!(
        "{seeds} seeds can't show any difference at level {level}: the smallest possible p of a pair is {:.3}, after \
         Holm's correction for {tests} tests {:.3}; it takes at least {enough} seeds",
        smallest_p(seeds),
        best(seeds),
    ))
}

fn transposed(labels: &[String], metrics: &BTreeMap<&str, Vec<f64>>) -> Vec<Vec<f64>> {
    let blocks = labels.first().map_or(0, |l| metrics[l.as_str()].len());
    let row = |i| labels.iter().map(|l| metrics[l.as_str()][i]).collect();
    (0..blocks).map(row).collect()
}

/// Friedman test and Nemenyi's critical difference over blocks; none with fewer than three strategies or two blocks.
pub fn ranks(labels: &[String], blocks: &[Vec<f64>], level: f64) -> Option<Ranks> {
    if labels.len() < 3 || blocks.len() < 2 {
        return None;
    }
    let test = friedman(blocks)?;
    Some(Ranks {
        average: labels.iter().cloned().zip(test.average).collect(),
        blocks: blocks.len(),
        chi_squared: test.chi_squared,
        p: test.p,
        critical_difference: critical_difference(labels.len(), blocks.len(), level)?,
    })
}

/// What the pairs say of a strategy against each control.
pub fn verdicts(label: &str, controls: &[String], pairs: &[Pair], level: f64) -> Vec<Verdict> {
    let against = |control: &String| {
        let pair = pairs
            .iter()
            .find(|p| (p.a == label && p.b == *control) || (p.b == label && p.a == *control))?;
        let ahead = if pair.a == label {
            pair.rank_biserial
        } else {
            -pair.rank_biserial
        };
        Some(Verdict {
            control: control.clone(),
            outcome: match pair.p_holm < level {
                true if ahead > 0.0 => VerdictOutcome::Better,
                true => VerdictOutcome::Worse,
                false => VerdictOutcome::NotDistinguishable,
            },
            p_holm: pair.p_holm,
        })
    };
    controls.iter().filter_map(against).collect()
}

/// "better than random (p = 0.002), not distinguishable from random-architectures (p = 0.31)".
fn sentence(verdicts: &[Verdict]) -> String {
    let say = |(outcome, words): (VerdictOutcome, &str)| {
        let those = verdicts.iter().filter(|v| v.outcome == outcome);
        let those: Vec<String> = those
            .map(|v| format!("{} ({})", v.control, show_p(v.p_holm)))
            .collect();
        (!those.is_empty()).then(|| format!("{words} {}", those.join(" and ")))
    };
    let parts: Vec<String> = [
        (VerdictOutcome::Better, "better than"),
        (VerdictOutcome::Worse, "worse than"),
        (
            VerdictOutcome::NotDistinguishable,
            "not distinguishable from",
        ),
    ]
    .into_iter()
    .filter_map(say)
    .collect();
    if parts.is_empty() {
        "no test yet".into()
    } else {
        parts.join(", ")
    }
}

/// `p = 0.031`, `p < 0.001`.
pub fn show_p(p: f64) -> String {
    if p < 0.001 {
        "p < 0.001".into()
    } else {
        format!("p = {p:.3}")
    }
}
