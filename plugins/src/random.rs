//! Random search: architectures drawn uniformly, with replacement, the best one kept. The control of every comparison.

use nasfw_framework::cost::Named;
use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bilevel;
use crate::objectives::Objectives;

/// Settings of random search.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomConfig {
    /// Architectures drawn in the whole run; they share its steps equally.
    pub samples: u64,
    /// How an architecture is scored.
    pub score: Scoring,
    /// Batches of the validation half that a score is taken on; 0 means all.
    pub eval_batches: usize,
    /// The benchmark's metric to go by; empty means its first one of validation, or its first one.
    pub metric: String,
    /// After which training.
    pub fidelity: Fidelity,
    /// What networks must not cost, if the result is to be a front: names of costs, or tables of a `name` and settings.
    pub costs: Vec<Value>,
    /// What a front's hypervolume counts the score from.
    pub reference: f64,
}

/// How an architecture is scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scoring {
    /// By the benchmark.
    Benchmark,
    /// By training it from fresh weights on the training half and testing it on the validation half.
    Train,
    /// Not at all: the first architecture that is drawn is the result. With costs it is looked up, so that there is a front of it.
    None,
}

register! {
    strategy "random" => RandomConfig,
    summary: "random search: uniform architectures, each trained for an equal share of the steps, best kept",
    source: "Li, Talwalkar 2019, UAI, arXiv:1902.07638 (as a control)",
    defaults: r#"[strategy]
# Architectures drawn in the whole run; they share its steps equally, so there are never more than steps.
samples = 8
# "train": each is trained from fresh weights on the training half and tested on the validation half.
# "benchmark": each is looked up, one a step. "none": the first one drawn is the result, at no cost.
score = "train"
# Batches of the validation half that a score is taken on; 0 means all.
eval_batches = 0
# The benchmark's metric to go by; empty means its first one of validation, or its first one if it has none.
metric = ""
# The training that the metric is taken after: "full", or "lowest": the shortest one that the benchmark knows of it.
fidelity = "full"
# Costs beside the score: then the result has the front of all that is drawn. "macs", "params", … (`nasfw list costs`), or tables
# that also have the cost's own settings and what the hypervolume counts it from, for example { name = "macs", reference = "300M" }.
costs = []
# With `costs`: what the hypervolume counts the score from.
reference = 0.0

[trainer.weights]
# Every architecture is trained at the same rate, early or late in the run.
schedule = "constant"
"#,
    example: "nasfw run --strategy random --space nasbench1shot1-s3 --set strategy.samples=8",
    presets: &[
        ("benchmark", "[strategy]\nscore = \"benchmark\"\n"),
        (
            "simulated",
            r#"# The protocol of NAS-Bench-201 (Dong and Yang 2020, ICLR): short trainings, 12,000 seconds of them.
[strategy]
score = "benchmark"
fidelity = "lowest"
samples = 100
[trainer]
epochs = 1
[trainer.budget]
unit = "simulated"
amount = 12_000
"#,
        ),
        ("architectures", "[strategy]\nscore = \"none\"\n"),
    ],
}

#[typetag::serde(name = "random")]
impl StrategyConfig for RandomConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Random {
            objectives: Objectives::new(&self.costs, self.reference)?,
            config: self.clone(),
            spec: cx.spec.clone(),
            streams: cx.streams,
            epochs: cx.epochs,
            state: State::default(),
        }))
    }

    fn needs_benchmark(&self) -> bool {
        match self.score {
            Scoring::Benchmark => true,
            // What is not scored is on no front.
            Scoring::None => !self.costs.is_empty(),
            Scoring::Train => false,
        }
    }

    fn validate(&self, v: &mut Validator) {
        v.at_least("strategy.samples", self.samples, 1);
        Objectives::validate(v, &self.costs);
        if self.costs.is_empty() {
            v.idle("strategy.reference", "without a cost in `strategy.costs`");
        }
        if self.score != Scoring::Train {
            v.idle("strategy.eval_batches", "without `score = \"train\"`");
        }
        if self.score == Scoring::None {
            v.idle(
                "strategy.samples",
                "with `score = \"none\"`, which draws one",
            );
        }
    }
}

/// Name of the accuracy on the validation half that a front of trained architectures has.
const OWN_METRIC: &str = "val-accuracy";

/// What a checkpoint must keep.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    /// The best architecture so far and its score.
    #[serde(default, with = "nasfw_framework::lossless")]
    best: Option<(Choice, f64)>,
    /// Architectures whose turn is over.
    drawn: u64,
    /// Those of them that a partial table lacks.
    #[serde(flatten)]
    gaps: Gaps,
    /// With costs, all that was scored.
    #[serde(default)]
    archive: Archive,
}

struct Random {
    config: RandomConfig,
    objectives: Objectives,
    spec: ArchSpec,
    streams: Streams,
    epochs: u64,
    state: State,
}

impl Random {
    /// Number of the sample whose turn it is when so much of all is spent.
    fn turn(&self, (spent, all): (u64, u64)) -> u64 {
        let samples = self.config.samples.min(all);
        u64::try_from(u128::from(spent) * u128::from(samples) / u128::from(all.max(1)))
            .unwrap_or(u64::MAX)
    }

    /// The architecture whose turn it is: a function of how many have had theirs.
    fn current(&self, search: &Search) -> Choice {
        let rng = &mut self.streams.at("sample", self.state.drawn);
        search.space().random(rng)
    }

    /// The architecture whose turn it is has its score.
    fn scored(&mut self, score: f64, search: &mut Search) -> Result<()> {
        self.keep(score, search)?;
        let best = self.state.best.as_ref().map(|(_, best)| *best);
        if best.is_none_or(|best| score > best) {
            self.state.best = Some((self.current(search), score));
        }
        self.state.drawn += 1;
        self.state.gaps.knows();
        search.log(
            "samples",
            (self.state.drawn - self.state.gaps.missing()) as f64,
        );
        search.log("score", score);
        search.log("best_score", best.map_or(score, |best| best.max(score)));
        Ok(())
    }

    /// Keeps what it is worth, if there are costs.
    fn keep(&mut self, score: f64, search: &Search) -> Result<()> {
        if self.objectives.is_empty() {
            return Ok(());
        }
        let choice = self.current(search);
        let archive = &mut self.state.archive;
        match self.config.score {
            Scoring::Train => {
                let named = || Ok((OWN_METRIC.to_owned(), Some(1.0)));
                self.objectives
                    .keep(search, archive, &choice, (named, score))
            }
            Scoring::Benchmark | Scoring::None => {
                let metric = Metric {
                    name: &self.config.metric,
                    fidelity: self.config.fidelity,
                };
                self.objectives
                    .keep_looked_up(search, archive, &choice, (metric, score))
            }
        }
    }

    /// Looks an architecture up. What a partial table lacks is passed over.
    fn look_up(&mut self, search: &mut Search) -> Result<()> {
        let metric = Metric {
            name: &self.config.metric,
            fidelity: self.config.fidelity,
        };
        match search.look_up(&self.current(search), metric)? {
            LookUp::Score(score) => self.scored(score, search)?,
            // The result stays the first one.
            _ if self.config.score == Scoring::None => {}
            LookUp::Unknown => {
                self.state.drawn += 1;
                self.state.gaps.lacks(search);
            }
            LookUp::TooDear => {}
        }
        Ok(())
    }
}

impl Strategy for Random {
    fn step(&mut self, search: &mut Search) -> Result<()> {
        match self.config.score {
            Scoring::None if self.objectives.is_empty() => return Ok(()),
            Scoring::None => return self.look_up(search),
            Scoring::Benchmark => return self.look_up(search),
            Scoring::Train => {}
        }
        let arch = search.one_hot(&self.current(search));
        let batch = search.batch(Split::Train)?;
        bilevel::descend_weights_at(search, &arch, &batch)?;
        let (now, then) = (search.spent(), search.spent_with_this_step());
        let last = then.0 >= then.1;
        if last || self.turn(then) != self.turn(now) {
            let batches = (self.config.eval_batches > 0).then_some(self.config.eval_batches);
            let score = search.evaluate(&arch, Some(Split::Val), batches)?.accuracy;
            self.scored(score, search)?;
            if !last {
                search.restart_weights()?;
            }
        }
        Ok(())
    }

    fn costs(&self) -> Named {
        self.objectives.costs()
    }

    fn epoch_start(&mut self, search: &mut Search) -> Result<()> {
        self.objectives.begin(search)
    }

    fn epoch_end(&mut self, _search: &mut Search) -> Result<Control> {
        let stop = match self.config.score {
            Scoring::None => Some("an architecture is drawn".into()),
            _ => self.state.gaps.stop(),
        };
        Ok(stop.map_or(Control::Continue, Control::Stop))
    }

    fn data(&self) -> DataPlan {
        match self.config.score {
            Scoring::Train => DataPlan::Halves,
            Scoring::Benchmark => DataPlan::Steps(self.config.samples.div_ceil(self.epochs.max(1))),
            Scoring::None => DataPlan::Steps(1),
        }
    }

    fn derive(&self, search: &Search) -> Result<Choice> {
        // Of equal scores the cheapest.
        let best = self.state.archive.best().cloned();
        let best = best.or_else(|| Some(self.state.best.as_ref()?.0.clone()));
        Ok(best.unwrap_or_else(|| self.current(search)))
    }

    fn front(&self) -> Option<&Archive> {
        (!self.objectives.is_empty()).then_some(&self.state.archive)
    }

    fn state(&self) -> Result<StrategyState> {
        StrategyState::of(&self.state)
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        let state: State = state.value()?;
        state.archive.check(&self.spec)?;
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nasfw_framework::registry::{Kind, Registry};
    use proptest::prelude::*;

    fn random(samples: u64) -> Random {
        let registry = Registry::load().unwrap();
        let plugin = registry.get(Kind::Strategy, "random").unwrap();
        let mut section = plugin.default_section().unwrap();
        section.as_object_mut().unwrap().remove("name");
        let config: RandomConfig = serde_json::from_value(section).unwrap();
        Random {
            config: RandomConfig { samples, ..config },
            objectives: Objectives::new(&[], 0.0).unwrap(),
            spec: ArchSpec::new(vec![Group {
                name: "group".into(),
                role: Role::Operations,
                rows: vec![Row {
                    name: "row".into(),
                    candidates: vec!["a".into(), "b".into()],
                    keep: 1,
                }],
                edges: None,
            }])
            .unwrap(),
            streams: Streams::new(0),
            epochs: 1,
            state: State::default(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn architectures_share_the_steps_equally(samples in 1u64..40, steps in 1u64..400) {
            let random = random(samples);
            let turns: Vec<u64> = (0..steps).map(|s| random.turn((s, steps))).collect();
            prop_assert!(turns[0] == 0 && turns.windows(2).all(|t| t[1] == t[0] || t[1] == t[0] + 1));
            let architectures = samples.min(steps);
            prop_assert_eq!(turns[turns.len() - 1] + 1, architectures);
            for a in 0..architectures {
                let share = turns.iter().filter(|t| **t == a).count() as u64;
                prop_assert!(share == steps / architectures || share == steps.div_ceil(architectures));
            }
        }
    }
}
