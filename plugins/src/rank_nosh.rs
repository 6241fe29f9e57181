//! RANK-NOSH (Wang, Chen, Cheng, Tang, Hsieh 2021): a pool of architectures trained for unlike numbers of epochs, and a
//! predictor that learns to rank them pair by pair.
//!
//! The pool is a pyramid of levels; what is in level i has been trained for e(i) epochs. In every round the predictor
//! proposes K architectures for level 1; then the best of each level move up and are trained on, while the others stay and
//! may rise in a later round. A pair of the pool is won by the one of the higher level, within a level by the more accurate.
//!
//! No code is public. These are readings: of level i the best r^i K move up in a round, at least one; the first round
//! draws K architectures uniformly; the predictor starts afresh in every round and has arch2vec's size (a GIN of 4
//! layers of 128, here with an MLP on the mean over vertices; a survey has it as "GIN + MLP"); it ranks by a difference
//! of scores (RankNet); it chooses among mutants of the best of the pool and uniform draws, half each; what is found is the
//! most accurate of the highest level. r is within the range that the paper found robust (0.4 to 0.7). The epochs of the
//! levels are not known here: 1, 5, 15, 50 add up, with a pool of 100, to 987, the paper's budget on DARTS's space being 990.
//! A training-free proxy as level 0, which the paper has as an option, is left out.

use std::collections::{HashSet, VecDeque};

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};
use tch::Kind;

use crate::predictors::gin::{Ranker, Size};
use crate::predictors::graph::{Graphs, Vocabulary};
pub use crate::predictors::trials::Scoring;
use crate::predictors::trials::{Proposer, Trial, Trials, distinct};
use crate::regularized_evolution::mutate;

/// Settings of RANK-NOSH.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RankNoshConfig {
    /// How an architecture is judged.
    pub score: Scoring,
    /// The benchmark's metric to go by; empty means its first one of validation, or its first one.
    pub metric: String,
    /// Batches of the validation half that a training is judged on; 0 means all.
    pub eval_batches: usize,
    /// e(1), e(2), …; empty means all lengths that the benchmark knows.
    pub levels: Vec<u64>,
    /// K.
    pub proposals: usize,
    /// r.
    pub promoted: f64,
    /// M: architectures in the pool at the end.
    pub pool: usize,
    /// Architectures that the predictor chooses the proposals from.
    pub candidates: usize,
    /// The ranker.
    pub predictor: Predictor,
}

/// Settings of the ranker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predictor {
    /// Hidden units.
    pub hidden: i64,
    /// Layers of the GIN.
    pub layers: usize,
    /// Steps on all pairs.
    pub steps: u64,
    /// Rate of Adam.
    pub lr: f64,
}

register! {
    strategy "rank-nosh" => RankNoshConfig,
    summary: "RANK-NOSH: non-uniform successive halving of a pool whose pairs teach a ranker to propose",
    source: "Wang, Chen, Cheng, Tang, Hsieh 2021, ICCV, arXiv:2108.08019 (no public code)",
    defaults: r#"[strategy]
# "train": architectures are trained from fresh weights on the training half and tested on the validation half.
# "benchmark": each is looked up, one a step.
score = "train"
# The benchmark's metric to go by; empty means its first one of validation, or its first one if it has none.
metric = ""
# Batches of the validation half that a training is judged on; 0 means all.
eval_batches = 0
# Epochs that the architectures of each level have been trained for. Empty, with a benchmark: all lengths that it knows.
levels = [1, 5, 15, 50]
# Architectures that a round proposes, K.
proposals = 10
# Of level i the best promoted^i * proposals move up in a round.
promoted = 0.5
# Architectures in the pool at the end.
pool = 100
# Architectures, half of them mutants of the pool's best, that the predictor chooses the proposals from.
candidates = 1000

# The ranker: a graph isomorphism network.
[strategy.predictor]
# Hidden units.
hidden = 128
# Layers.
layers = 4
# Steps of Adam on all pairs of the pool, in every round from a fresh start.
steps = 100
# Rate of Adam.
lr = 1e-3

[trainer]
# Trainings end it, not epochs: the pool is full after 987.
epochs = 2000
"#,
    example: "nasfw run --strategy rank-nosh --preset simulated --space nasbench201",
    presets: &[
        ("benchmark", "[strategy]\nscore = \"benchmark\"\nlevels = []\n[trainer]\nepochs = 1\n"),
        (
            "simulated",
            r#"# The protocol of NAS-Bench-201 (Dong and Yang 2020, ICLR): 12,000 seconds of trainings.
[strategy]
score = "benchmark"
levels = []
pool = 1000
[trainer]
epochs = 1
[trainer.budget]
unit = "simulated"
amount = 12_000
"#,
        ),
    ],
    families: &[(
        "nasbench201",
        "# The trainings that the benchmark knows.\n[strategy]\nlevels = [12, 200]\n",
    )],
}

#[typetag::serde(name = "rank-nosh")]
impl StrategyConfig for RankNoshConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        let lengths = self.levels.iter().map(|&n| Fidelity::Epochs(n)).collect();
        Ok(Box::new(RankNosh {
            trials: Trials::new(self.score, &self.metric, self.eval_batches, lengths),
            nosh: Nosh {
                config: self.clone(),
                streams: cx.streams,
                state: State::default(),
            },
            spec: cx.spec.clone(),
            epochs: cx.epochs,
        }))
    }

    fn needs_benchmark(&self) -> bool {
        self.score == Scoring::Benchmark
    }

    fn validate(&self, v: &mut Validator) {
        let rises = |w: &[u64]| w[0] < w[1];
        if self.levels.first() == Some(&0) || !self.levels.windows(2).all(rises) {
            v.problem(
                "strategy.levels",
                "each level needs more epochs than the one before, the first at least 1",
            );
        }
        if self.levels.is_empty() && self.score == Scoring::Train {
            v.problem(
                "strategy.levels",
                "without a benchmark there must be one level at least",
            );
        }
        match self.score {
            Scoring::Train => v.idle("strategy.metric", "with `score = \"train\"`"),
            Scoring::Benchmark => v.idle("strategy.eval_batches", "with `score = \"benchmark\"`"),
        }
        if self.levels.len() == 1 {
            v.idle("strategy.promoted", "with one level");
        }
        v.range("strategy.proposals", self.proposals, 1, MOST);
        v.range("strategy.promoted", self.promoted, 0.0, 1.0);
        v.range("strategy.pool", self.pool, 1, MOST);
        v.range("strategy.candidates", self.candidates, 1, MOST);
        let p = &self.predictor;
        v.range("strategy.predictor.hidden", p.hidden, 1, 4096);
        v.range("strategy.predictor.layers", p.layers, 1, 64);
        v.range("strategy.predictor.steps", p.steps, 1, 1_000_000);
        v.at_least("strategy.predictor.lr", p.lr, 0.0);
    }
}

const MOST: usize = 100_000;

/// An architecture of the pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// The architecture.
    pub choice: Choice,
    /// Its level, from 1.
    pub level: usize,
    /// Its accuracy there.
    #[serde(with = "nasfw_framework::lossless")]
    pub score: f64,
}

/// Who wins the pairs of a pool, as (winner, loser): the one of the higher level; within a level the more accurate. Equals
/// make no pair.
pub fn pairs(pool: &[Member]) -> Vec<(usize, usize)> {
    let wins = |a: &Member, b: &Member| (a.level, a.score) > (b.level, b.score);
    let all = (0..pool.len()).flat_map(|a| (0..pool.len()).map(move |b| (a, b)));
    all.filter(|&(a, b)| wins(&pool[a], &pool[b])).collect()
}

/// The `n` most accurate of a level, best first; of equals the oldest.
pub fn best_of(pool: &[Member], level: usize, n: usize) -> Vec<usize> {
    let mut members: Vec<usize> = (0..pool.len())
        .filter(|&i| pool[i].level == level)
        .collect();
    members.sort_by(|&a, &b| pool[b].score.total_cmp(&pool[a].score));
    members.truncate(n);
    members
}

/// What a checkpoint must keep.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    pool: Vec<Member>,
    /// The level that the trials of the queue lead to; 0 before the first round.
    stage: usize,
    /// What is to be tried next.
    queue: VecDeque<Trial>,
    /// What a partial table lacks.
    lacking: Vec<Choice>,
}

/// The pyramid and its rounds.
struct Nosh {
    config: RankNoshConfig,
    streams: Streams,
    state: State,
}

impl Nosh {
    /// K architectures that the pool does not hold: those that the ranker puts first.
    fn propose(&self, search: &mut Search) -> Result<Vec<Choice>> {
        let (space, pool, c) = (search.space(), &self.state.pool, &self.config);
        let seen = pool.iter().map(|m| &m.choice).chain(&self.state.lacking);
        let seen: HashSet<Choice> = seen.cloned().collect();
        let rng = &mut search.rng("proposals");
        let (pairs, p) = (pairs(pool), &c.predictor);
        if pairs.is_empty() {
            return Ok(distinct(c.proposals, &seen, |_| space.random(rng)));
        }
        let mut parents: Vec<usize> = (1..=self.state.stage)
            .rev()
            .flat_map(|level| best_of(pool, level, pool.len()))
            .collect();
        parents.truncate(c.proposals);
        let candidates = distinct(c.candidates, &seen, |i| match parents.choose(rng) {
            Some(&parent) if i % 2 == 0 => mutate(space, &pool[parent].choice, rng),
            _ => space.random(rng),
        });
        let vocabulary = Vocabulary::of(space, &mut self.streams.at("vocabulary", 0));
        let graphs = |choices: &mut dyn Iterator<Item = &Choice>| -> Result<Graphs> {
            let graphs = choices.map(|c| vocabulary.graph(&space.genotype(c)));
            let graphs = graphs.collect::<Result<Vec<_>>>()?;
            Ok(Graphs::new(&graphs, &vocabulary, Kind::Float))
        };
        let ranker = Ranker::new(Size {
            inputs: vocabulary.width(),
            hidden: p.hidden,
            layers: p.layers,
        });
        let streams = self.streams.child("ranker", search.clock().step);
        let mut learner = ranker.start(streams, Kind::Float, p.lr);
        let known = graphs(&mut pool.iter().map(|m| &m.choice))?;
        ranker.learn(&mut learner, &known, &pairs, p.steps)?;
        if candidates.is_empty() {
            return Ok(candidates);
        }
        let scores = ranker.judge(&learner, &graphs(&mut candidates.iter())?)?;
        let told = ranker.judge(&learner, &known)?;
        let right = pairs.iter().filter(|&&(a, b)| told[a] > told[b]).count();
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let best = order.into_iter().take(c.proposals);
        let best = best.map(|i| candidates[i].clone()).collect();
        search.log("pairs_told", right as f64 / pairs.len() as f64);
        Ok(best)
    }

    /// How many of level `level` move up in a round: r^level K, at least one where any move.
    fn moving(&self, level: usize) -> usize {
        let c = &self.config;
        let share = c.promoted.powi(i32::try_from(level).unwrap_or(i32::MAX));
        (c.proposals as f64 * share)
            .round()
            .max(f64::from(c.promoted > 0.0)) as usize
    }
}

impl Proposer for Nosh {
    /// A round: new architectures for level 1, then from each level the best to the next. The search is over when the pool
    /// is full at the end of a round, or when there is no architecture left that it does not hold.
    fn next(&mut self, search: &mut Search, levels: usize) -> Result<Option<Trial>> {
        while self.state.queue.is_empty() {
            let (stage, held) = (self.state.stage, self.state.pool.len());
            if (1..levels).contains(&stage) {
                let moving = best_of(&self.state.pool, stage, self.moving(stage));
                self.state
                    .queue
                    .extend(moving.into_iter().map(|number| Trial {
                        choice: self.state.pool[number].choice.clone(),
                        number,
                        from: stage,
                    }));
                self.state.stage += 1;
                continue;
            }
            if held >= self.config.pool {
                return Ok(None);
            }
            let new = self.propose(search)?;
            if new.is_empty() {
                return Ok(None);
            }
            let new = new.into_iter().enumerate().map(|(i, choice)| Trial {
                choice,
                number: held + i,
                from: 0,
            });
            self.state.queue.extend(new);
            self.state.stage = 1;
        }
        Ok(self.state.queue.pop_front())
    }

    fn told(&mut self, search: &mut Search, trial: Trial, score: Option<f64>) {
        let Some(score) = score else {
            if trial.from == 0 {
                self.state.lacking.push(trial.choice);
            }
            return;
        };
        match self.state.pool.get_mut(trial.number) {
            Some(member) if trial.from > 0 => {
                (member.level, member.score) = (trial.from + 1, score)
            }
            _ => self.state.pool.push(Member {
                choice: trial.choice,
                level: 1,
                score,
            }),
        }
        search.log("pool", self.state.pool.len() as f64);
    }

    fn goes_on(&self, trial: &Trial, levels: usize) -> bool {
        trial.from + 1 < levels
    }
}

struct RankNosh {
    trials: Trials,
    nosh: Nosh,
    spec: ArchSpec,
    epochs: u64,
}

impl Strategy for RankNosh {
    fn step(&mut self, search: &mut Search) -> Result<()> {
        self.trials.step(&mut self.nosh, search)
    }

    fn epoch_start(&mut self, search: &mut Search) -> Result<()> {
        self.trials.epoch_start(&mut self.nosh, search)
    }

    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        self.trials.epoch_end(&mut self.nosh, search)
    }

    /// Every architecture is looked up once a level at most.
    fn data(&self) -> DataPlan {
        let c = &self.nosh.config;
        let levels = if c.levels.is_empty() {
            4
        } else {
            c.levels.len()
        };
        self.trials
            .data((c.pool + c.proposals) as u64 * levels as u64, self.epochs)
    }

    /// The most accurate of the highest level; before there is any, what is being tried.
    fn derive(&self, search: &Search) -> Result<Choice> {
        let pool = &self.nosh.state.pool;
        let highest = pool.iter().map(|m| m.level).max().unwrap_or(0);
        let best = best_of(pool, highest, 1).first().map(|&i| &pool[i].choice);
        let found = best.or(self.trials.current()).cloned();
        Ok(found.unwrap_or_else(|| search.space().random(&mut search.rng("proposals"))))
    }

    fn state(&self) -> Result<StrategyState> {
        self.trials.state(&self.nosh.state)
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        let (state, _): (State, _) = self.trials.restore(&self.spec, state)?;
        let choices = state.pool.iter().map(|m| &m.choice).chain(&state.lacking);
        for choice in choices.chain(state.queue.iter().map(|t| &t.choice)) {
            choice.check(&self.spec)?;
        }
        self.nosh.state = state;
        Ok(())
    }
}
