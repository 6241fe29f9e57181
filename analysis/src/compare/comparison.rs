//! What a comparison amounts to, as `comparison.json` keeps it.

use std::path::PathBuf;

use nasfw_framework::budget::Budget;
use serde::{Deserialize, Serialize};

/// File of a [`Comparison`] in its folder.
pub const COMPARISON: &str = "comparison.json";

/// Strategies compared on equal budgets over the same seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Name of the plan.
    pub name: String,
    /// Level of the tests; intervals have confidence 1 − level.
    #[serde(with = "nasfw_framework::lossless")]
    pub level: f64,
    /// Labels of the strategies, in the order of the plan, controls last where the plan does not name them.
    pub strategies: Vec<String>,
    /// Those of them that draw at random: what the others must beat.
    pub controls: Vec<String>,
    /// Whether trials are missing: the figures are then over the seeds that all strategies have finished.
    pub partial: bool,
    /// One entry per space × dataset × budget.
    pub settings: Vec<Setting>,
    /// Every trial of the plan.
    pub trials: Vec<TrialResult>,
    /// Friedman test over the settings as blocks (mean metric of each strategy); none with fewer than two settings.
    pub overall: Option<Ranks>,
}

impl Comparison {
    /// Places in `trials` of what can be shown beside each other: the finished trials of the first setting and its first
    /// seed.
    pub fn of_one_seed(&self) -> Vec<usize> {
        let Some(first) = self.trials.first() else {
            return vec![];
        };
        let same = |t: &TrialResult| {
            let setting = |t: &TrialResult| (t.space.clone(), t.dataset.clone(), t.budget);
            t.state == State::Done && t.seed == first.seed && setting(t) == setting(first)
        };
        let trials = self.trials.iter().enumerate();
        trials.filter(|(_, t)| same(t)).map(|(i, _)| i).collect()
    }
}

/// State of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has a result.
    Done,
    /// It began and has no result yet.
    Unfinished,
    /// It ended with an error.
    Failed,
    /// It has not begun.
    Missing,
}

/// What became of one trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialResult {
    /// Label of the strategy.
    pub strategy: String,
    /// Space, by name; for a declared space the name of its file without the ending.
    pub space: String,
    /// Dataset; none for the space's own.
    pub dataset: Option<String>,
    /// Budget.
    pub budget: Budget,
    /// Seed.
    pub seed: u64,
    /// Run folder, relative to the comparison's folder.
    pub run: PathBuf,
    /// What became of it.
    pub state: State,
    /// The metric of what was found; none where the benchmark does not know it.
    #[serde(default, with = "nasfw_framework::lossless")]
    pub metric: Option<f64>,
    /// Optimum minus metric.
    #[serde(default, with = "nasfw_framework::lossless")]
    pub regret: Option<f64>,
    /// Last lines of what a failed trial said.
    pub error: Option<String>,
}

/// One space × dataset × budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// As in [`TrialResult::space`].
    pub space: String,
    /// As in [`TrialResult::dataset`].
    pub dataset: Option<String>,
    /// Budget of every trial.
    pub budget: Budget,
    /// The metric that is compared; higher is better. None where nothing is finished or nothing has a metric.
    pub metric: Option<String>,
    /// What the benchmark is and what regret is measured from, in words.
    pub benchmark: Option<String>,
    /// Whether a model predicted a value of the metric, of what was found or of what would have been derived on the way.
    #[serde(default, skip_serializing_if = "is_false")]
    pub predicted: bool,
    /// Seeds that every strategy has finished with a metric: the pairs. All figures are over these.
    pub seeds: Vec<u64>,
    /// Whether the plan has more seeds than that.
    pub partial: bool,
    /// What a reader must know: too few seeds for any test, unknown architectures, …
    pub notes: Vec<String>,
    /// Figures of every strategy, in the order of [`Comparison::strategies`]. Empty without common seeds.
    pub strategies: Vec<StrategyFigures>,
    /// Every pair of strategies once, Holm's correction over all of them. Empty with fewer than two common seeds.
    pub pairs: Vec<Pair>,
    /// Friedman test with the seeds as blocks; none with fewer than three strategies or two seeds.
    pub ranks: Option<Ranks>,
    /// Positions of the anytime curves in units of the budget, from 0 to its amount.
    #[serde(with = "nasfw_framework::lossless")]
    pub grid: Vec<f64>,
}

impl Setting {
    /// A setting of which nothing is known yet.
    pub(super) fn empty(space: &str, dataset: Option<String>, budget: Budget) -> Self {
        Self {
            space: space.to_owned(),
            dataset,
            budget,
            metric: None,
            benchmark: None,
            predicted: false,
            seeds: vec![],
            partial: true,
            notes: vec![],
            strategies: vec![],
            pairs: vec![],
            ranks: None,
            grid: vec![],
        }
    }
}

/// Figures of a strategy in a setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StrategyFigures {
    /// Its label.
    pub strategy: String,
    /// The metric at the end.
    pub metric: Summary,
    /// The regret at the end; none where a benchmark gives none.
    pub regret: Option<Summary>,
    /// The regret along the way; none without.
    pub anytime: Option<Anytime>,
    /// Kendall's τ-b between supernet and table accuracy, over the trials that have one; none where none was asked for.
    pub tau: Option<Summary>,
    /// Against each control; empty for the only control, and with too few seeds for any test.
    pub verdicts: Vec<Verdict>,
    /// The verdicts as a sentence.
    pub sentence: String,
}

/// Mean of repeated measurements.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The measurements, in the order of the seeds.
    #[serde(with = "nasfw_framework::lossless")]
    pub values: Vec<f64>,
    /// Their mean.
    #[serde(with = "nasfw_framework::lossless")]
    pub mean: f64,
    /// Sample standard deviation (n − 1); none for one measurement.
    #[serde(default, with = "nasfw_framework::lossless")]
    pub sd: Option<f64>,
    /// Bootstrap interval (BCa) of the mean, confidence 1 − level; none for one measurement.
    #[serde(default, with = "nasfw_framework::lossless")]
    pub interval: Option<[f64; 2]>,
}

/// Regret over the budget: at any time that of the architecture that would have been derived then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Anytime {
    /// Mean over the seeds at every position of [`Setting::grid`].
    #[serde(with = "nasfw_framework::lossless")]
    pub mean: Vec<f64>,
    /// Lower ends of the bootstrap intervals; empty with one seed.
    #[serde(with = "nasfw_framework::lossless")]
    pub low: Vec<f64>,
    /// Upper ends.
    #[serde(with = "nasfw_framework::lossless")]
    pub high: Vec<f64>,
    /// Area under each seed's curve divided by the budget: the mean regret over the search.
    pub area: Summary,
}

/// Two strategies over the same seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The one.
    pub a: String,
    /// The other.
    pub b: String,
    /// Mean of metric(a) − metric(b).
    #[serde(with = "nasfw_framework::lossless")]
    pub difference: f64,
    /// Wilcoxon's signed-rank test, two-sided.
    #[serde(with = "nasfw_framework::lossless")]
    pub p: f64,
    /// The same after Holm's correction over all pairs of the setting.
    #[serde(with = "nasfw_framework::lossless")]
    pub p_holm: f64,
    /// Seeds in which the two differ; only these count in the test.
    pub n: usize,
    /// Matched-pairs rank-biserial correlation: 1 where a is always better, −1 where b is.
    #[serde(with = "nasfw_framework::lossless")]
    pub rank_biserial: f64,
    /// Cohen's d of the differences; none where they do not vary.
    #[serde(default, with = "nasfw_framework::lossless")]
    pub cohen_dz: Option<f64>,
}

/// Average ranks of strategies over blocks; rank 1 is the best.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ranks {
    /// Strategy and its average rank, in the order of [`Comparison::strategies`].
    #[serde(with = "nasfw_framework::lossless")]
    pub average: Vec<(String, f64)>,
    /// Number of blocks.
    pub blocks: usize,
    /// Friedman's χ², corrected for ties.
    #[serde(with = "nasfw_framework::lossless")]
    pub chi_squared: f64,
    /// Its p-value.
    #[serde(with = "nasfw_framework::lossless")]
    pub p: f64,
    /// Nemenyi's critical difference: average ranks further apart than this differ at the level.
    #[serde(with = "nasfw_framework::lossless")]
    pub critical_difference: f64,
}

/// A strategy against a control.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The control.
    pub control: String,
    /// What the test says.
    pub outcome: VerdictOutcome,
    /// Wilcoxon's p after Holm's correction.
    #[serde(with = "nasfw_framework::lossless")]
    pub p_holm: f64,
}

/// What a test at the level says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerdictOutcome {
    /// The strategy is better.
    Better,
    /// The strategy is worse.
    Worse,
    /// p is not below the level.
    NotDistinguishable,
}

/// Supernet and table accuracy of architectures drawn uniformly, as `ranking.json` of a run keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ranking {
    /// Kendall's τ-b; none where one of the two does not vary.
    #[serde(default, with = "nasfw_framework::lossless")]
    pub tau: Option<f64>,
    /// Its two-sided p-value; none without τ.
    #[serde(default, with = "nasfw_framework::lossless")]
    pub p: Option<f64>,
    /// The metric of the benchmark.
    pub metric: String,
    /// Architectures that were asked for; small spaces have fewer.
    #[serde(default)]
    pub asked: usize,
    /// Batches of the validation half that each accuracy is over; none for all.
    pub batches: Option<usize>,
    /// Seed of the drawing.
    pub seed: u64,
    /// Epochs that the supernet was trained for.
    pub epochs: u64,
    /// Of how many architectures a model predicts the metric.
    #[serde(default, skip_serializing_if = "is_none")]
    pub predicted: usize,
    /// The architectures.
    pub architectures: Vec<Ranked>,
}

fn is_none(of: &usize) -> bool {
    *of == 0
}

fn is_false(of: &bool) -> bool {
    !of
}

/// An architecture of a [`Ranking`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ranked {
    /// As text.
    pub genotype: String,
    /// Accuracy in the supernet, from 0 to 1.
    #[serde(with = "nasfw_framework::lossless")]
    pub supernet: f64,
    /// The benchmark's metric.
    #[serde(with = "nasfw_framework::lossless")]
    pub table: f64,
}
