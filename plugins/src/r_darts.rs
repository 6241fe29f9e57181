//! R-DARTS (Zela et al. 2020, section 5): DARTS searches again and again, each time with the weights regularised more
//! strongly, by L2 decay (`r-darts-l2`) or by drop path and cutout (`r-darts-dp`); what each search finds is trained for
//! a short time from fresh weights, and the best on the validation half is the result.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

use crate::bilevel;

/// Settings of R-DARTS (L2).
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RDartsL2Config {
    /// L2 decay of the weights in each search.
    pub weight_decays: Vec<f64>,
    /// Share of all epochs that what was found is trained in.
    pub retrain: f64,
    /// The strategy that searches.
    pub base: Box<dyn StrategyConfig>,
}

/// Settings of R-DARTS (DP).
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RDartsDpConfig {
    /// Largest rate of drop path in each search.
    pub drop_paths: Vec<f64>,
    /// Side of the square that is cut out of images.
    pub cutout: i64,
    /// Share of images that it is cut out of at the end of a search.
    pub cutout_probability: f64,
    /// Share of all epochs that what was found is trained in.
    pub retrain: f64,
    /// The strategy that searches.
    pub base: Box<dyn StrategyConfig>,
}

register! {
    strategy "r-darts-l2" => RDartsL2Config,
    summary: "R-DARTS (L2): searches under growing weight decay, each result trained for a short time, best kept",
    source: "Zela et al. 2020, ICLR, arXiv:1909.09656",
    defaults: r#"[strategy]
# L2 decay of the weights in each search.
weight_decays = [3e-4, 9e-4, 27e-4, 81e-4, 243e-4]
# Share of all epochs that what was found is trained in; with 0 the shared weights judge it.
retrain = 0.2

[strategy.base]
# The strategy that searches; its own settings follow.
name = "darts"
# Second order, as published.
order = 2

[trainer]
# Five searches of 48 epochs and as many trainings of 12 (published: 50 each, the training's length is not).
epochs = 300
"#,
    example: "nasfw run --strategy r-darts-l2 --space robust-s2",
}

register! {
    strategy "r-darts-dp" => RDartsDpConfig,
    summary: "R-DARTS (DP): searches under growing drop path, each result trained for a short time, best kept",
    source: "Zela et al. 2020, ICLR, arXiv:1909.09656",
    defaults: r#"[strategy]
# Rate of drop path at the end of each search; it grows linearly from 0.
drop_paths = [0.0, 0.2, 0.4, 0.6]
# Side of the square that is cut out of images in searches with drop path.
cutout = 16
# Share of images that it is cut out of at the end of a search; it grows linearly from 0.
cutout_probability = 1.0
# Share of all epochs that what was found is trained in; with 0 the shared weights judge it.
retrain = 0.2

[strategy.base]
# The strategy that searches; its own settings follow.
name = "darts"
# Second order, as published.
order = 2

[trainer]
# Four searches of 48 epochs and as many trainings of 12 (published: 50 each, the training's length is not).
epochs = 240
"#,
    example: "nasfw run --strategy r-darts-dp --space robust-s3",
}

#[typetag::serde(name = "r-darts-l2")]
impl StrategyConfig for RDartsL2Config {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        let decays = self.weight_decays.iter().copied();
        let strengths = decays.map(Regularisation::WeightDecay).collect();
        RDarts::build(strengths, self.retrain, self.base.as_ref(), cx)
    }

    fn needs_benchmark(&self) -> bool {
        self.base.needs_benchmark()
    }

    fn validate(&self, v: &mut Validator) {
        for (i, decay) in self.weight_decays.iter().enumerate() {
            v.at_least(&format!("strategy.weight_decays[{i}]"), *decay, 0.0);
        }
        if self.weight_decays.is_empty() {
            v.problem("strategy.weight_decays", "there must be at least one");
        }
        v.below("strategy.retrain", self.retrain, 0.0, 1.0);
        v.base(|v| self.base.validate(v));
    }
}

#[typetag::serde(name = "r-darts-dp")]
impl StrategyConfig for RDartsDpConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        let strength = |rate: &f64| Regularisation::DropPath {
            rate: *rate,
            cutout: self.cutout,
            // Without drop path the published search has no cutout either.
            probability: if *rate > 0.0 {
                self.cutout_probability
            } else {
                0.0
            },
        };
        let strengths = self.drop_paths.iter().map(strength).collect();
        RDarts::build(strengths, self.retrain, self.base.as_ref(), cx)
    }

    fn needs_benchmark(&self) -> bool {
        self.base.needs_benchmark()
    }

    fn validate(&self, v: &mut Validator) {
        for (i, rate) in self.drop_paths.iter().enumerate() {
            v.below(&format!("strategy.drop_paths[{i}]"), *rate, 0.0, 1.0);
        }
        if self.drop_paths.is_empty() {
            v.problem("strategy.drop_paths", "there must be at least one");
        }
        v.at_least("strategy.cutout", self.cutout, 0);
        v.range(
            "strategy.cutout_probability",
            self.cutout_probability,
            0.0,
            1.0,
        );
        v.below("strategy.retrain", self.retrain, 0.0, 1.0);
        v.base(|v| self.base.validate(v));
    }
}

/// How a search's weights are regularised.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Regularisation {
    WeightDecay(f64),
    DropPath {
        rate: f64,
        cutout: i64,
        probability: f64,
    },
}

impl Regularisation {
    /// Sets what holds in an epoch, `done` of the search from 0 to 1.
    fn apply(self, search: &mut Search, done: f64) {
        match self {
            Self::WeightDecay(decay) => {
                search.set_weight_decay(decay);
                search.log("weight_decay", decay);
            }
            Self::DropPath {
                rate,
                cutout,
                probability,
            } => {
                search.set_scalar("drop-path", rate * done);
                search.set_cutout(cutout, probability * done);
                search.log("drop_path", rate * done);
            }
        }
    }
}

/// What an epoch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stage {
    /// Number of the search.
    search: usize,
    /// Whether its result is trained.
    trains: bool,
    /// First epoch, and how many.
    first: u64,
    epochs: u64,
}

/// Searches and trainings in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    searches: usize,
    /// Epochs of each search and of each training.
    search: u64,
    train: u64,
    all: u64,
}

impl Plan {
    /// None where there is not an epoch for each search.
    fn new(searches: usize, retrain: f64, all: u64) -> Option<Self> {
        let each = all / searches as u64;
        let train = ((each as f64 * retrain).round() as u64).min(each.saturating_sub(1));
        (each > 0).then_some(Self {
            searches,
            search: each - train,
            train,
            all,
        })
    }

    /// Epochs that are left over go to the last stage.
    fn at(&self, epoch: u64) -> Stage {
        let each = self.search + self.train;
        let search = usize::try_from(epoch / each).unwrap_or(usize::MAX);
        let search = search.min(self.searches - 1);
        let begin = search as u64 * each;
        let end = if search + 1 == self.searches {
            self.all
        } else {
            begin + each
        };
        let trains = self.train > 0 && epoch - begin >= self.search;
        let (first, end) = match (trains, self.train) {
            (true, _) => (begin + self.search, end),
            (false, 0) => (begin, end),
            (false, _) => (begin, begin + self.search),
        };
        Stage {
            search,
            trains,
            first,
            epochs: end - first,
        }
    }
}

/// What a checkpoint must keep.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    /// What each search found.
    found: Vec<Choice>,
    /// Validation accuracy of each after its training.
    #[serde(with = "nasfw_framework::lossless")]
    scores: Vec<f64>,
}

struct RDarts {
    strengths: Vec<Regularisation>,
    plan: Plan,
    base: Box<dyn Strategy>,
    state: State,
    spec: ArchSpec,
}

impl RDarts {
    fn build(
        strengths: Vec<Regularisation>,
        retrain: f64,
        base: &dyn StrategyConfig,
        cx: BuildContext<'_>,
    ) -> Result<Box<dyn Strategy>> {
        let plan = Plan::new(strengths.len(), retrain, cx.epochs);
        let plan = plan.ok_or_else(|| Error::Incompatible {
            what: "R-DARTS".into(),
            why: format!(
                "{} searches don't fit into {} epochs",
                strengths.len(),
                cx.epochs
            ),
            help: format!(
                "use `--epochs {}` or more, or fewer strengths",
                strengths.len()
            ),
        })?;
        Ok(Box::new(Self {
            strengths,
            plan,
            base: base.build(cx)?,
            state: State::default(),
            spec: cx.spec.clone(),
        }))
    }

    fn stage(&self, search: &Search) -> Stage {
        self.plan.at(search.epoch())
    }

    /// One step of training the last find alone.
    fn train(&self, search: &mut Search) -> Result<()> {
        let Some(found) = self.state.found.last() else {
            return Ok(());
        };
        let arch = search.one_hot(found);
        let batch = search.batch(Split::Train)?;
        bilevel::descend_weights_at(search, &arch, &batch)
    }
}

impl Strategy for RDarts {
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let stage = self.stage(search);
        if stage.trains {
            search.set_scalar("drop-path", 0.0);
            if let Regularisation::DropPath { cutout, .. } = self.strengths[stage.search] {
                search.set_cutout(cutout, 0.0);
            }
            return self.train(search);
        }
        let last = stage.epochs.saturating_sub(1).max(1);
        let done = (search.epoch() - stage.first) as f64 / last as f64;
        self.strengths[stage.search].apply(search, done);
        self.base.step(search)
    }

    fn epoch_start(&mut self, search: &mut Search) -> Result<()> {
        if search.budget().is_some() {
            return Err(Error::Incompatible {
                what: "R-DARTS under a budget".into(),
                why: "it plans its searches in epochs".into(),
                help: "leave `trainer.budget` out, and say how long with `--epochs`".into(),
            });
        }
        let stage = self.stage(search);
        search.schedule_over(stage.first, stage.epochs);
        self.base.epoch_start(search)
    }

    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        let stage = self.stage(search);
        if search.epoch() + 1 < stage.first + stage.epochs {
            return if stage.trains {
                Ok(Control::Continue)
            } else {
                self.base.epoch_end(search)
            };
        }
        if !stage.trains {
            self.state.found.push(self.base.derive(search)?);
        }
        if stage.trains || self.plan.train == 0 {
            let found = &self.state.found[self.state.found.len() - 1];
            let arch = search.one_hot(found);
            let score = search.evaluate(&arch, Some(Split::Val), None)?.accuracy;
            search.log("score", score);
            self.state.scores.push(score);
        }
        // Fresh weights and logits for the next stage.
        Ok(if search.epoch() + 1 < self.plan.all {
            Control::Rebuild {
                carry_weights: false,
            }
        } else {
            Control::Continue
        })
    }

    fn derive(&self, search: &Search) -> Result<Choice> {
        let State { found, scores } = &self.state;
        let best = (0..scores.len()).reduce(|a, b| if scores[b] > scores[a] { b } else { a });
        match best.map(|best| &found[best]).or(found.first()) {
            Some(choice) => Ok(choice.clone()),
            None => self.base.derive(search),
        }
    }

    fn supernet_options(&self) -> SupernetOptions {
        let drops = |r: &Regularisation| matches!(r, Regularisation::DropPath { .. });
        SupernetOptions {
            drop_path: self.strengths.iter().any(drops),
            ..self.base.supernet_options()
        }
    }

    crate::wraps!(base);

    fn state(&self) -> Result<StrategyState> {
        StrategyState::wrap(&self.state, self.base.state()?)
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        let (own, base): (State, _) = state.unwrap()?;
        own.found.iter().try_for_each(|c| c.check(&self.spec))?;
        if own.scores.len() > own.found.len() {
            return Err(Error::Invalid {
                what: "strategy state".into(),
                why: "it has more scores than architectures".into(),
            });
        }
        self.state = own;
        self.base.restore(base)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Stages follow each other without gaps, one search of equal length for each strength, each trained.
        #[test]
        fn stages_cover_all_epochs(searches in 1usize..6, retrain in 0.0..0.9f64, all in 1u64..80) {
            let Some(plan) = Plan::new(searches, retrain, all) else {
                prop_assert!(all < searches as u64);
                return Ok(());
            };
            let mut stages = vec![plan.at(0)];
            for epoch in 0..all {
                let stage = plan.at(epoch);
                prop_assert!((stage.first..stage.first + stage.epochs).contains(&epoch));
                let last = stages[stages.len() - 1];
                if stage != last {
                    prop_assert_eq!(stage.first, last.first + last.epochs);
                    stages.push(stage);
                }
            }
            let last = stages[stages.len() - 1];
            prop_assert_eq!(last.first + last.epochs, all);
            let found: Vec<usize> = stages.iter().filter(|s| !s.trains).map(|s| s.search).collect();
            prop_assert_eq!(found, (0..searches).collect::<Vec<_>>());
            let trained = stages.iter().filter(|s| s.trains).count();
            prop_assert_eq!(trained, if plan.train > 0 { searches } else { 0 });
        }
    }

    #[test]
    fn the_published_lengths() {
        let l2 = Plan::new(5, 0.2, 300).unwrap();
        assert_eq!((l2.search, l2.train), (48, 12));
    }
}
