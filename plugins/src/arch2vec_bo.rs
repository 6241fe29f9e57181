//! arch2vec with Bayesian optimisation (Yan, Zheng, Ao, Zeng, Zhang 2020): architectures are embedded by an auto-encoder
//! that never sees an accuracy, then searched in that embedding by DNGO and expected improvement.
//!
//! From the authors' code: a variational GIN auto-encoder of 4 layers of 128 and 16 latent numbers a vertex, Adam at 1e-3 in
//! batches of 32, dropout 0.3, the divergence's small weight, an architecture's embedding as the mean over its vertices;
//! 16 uniform architectures first; a network of 3 × 128 tanh units, 100 epochs in batches of 10 at 0.01, trained afresh in every
//! round; a Bayesian linear head whose precisions maximise the evidence; fixed targets of expected improvement.
//!
//! On purpose not from it: expected improvement takes a standard deviation (the code hands over the predicted variance);
//! what was tried is not tried again (NAS-Bench-201's script keys what it visited by tensors, which are never equal); labels
//! are decoded by a softmax over labels (the code calls a sigmoid), so that the loss is a bound on the likelihood but for
//! the divergence's weight; values are standardised for the network. Readings: both cells of a space are embedded
//! (the authors make them equal), a vertex's features say which cell it is of; the candidates of a large space are a
//! sample of it (theirs: 600,000 cells of DARTS's space, below 600 million multiply-adds); a training's reward is the
//! accuracy at its end (theirs: the mean over its epochs).

use std::collections::{BTreeMap, HashSet, VecDeque};

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::predictors::dngo::{Basis, Dngo, expected_improvement};
use crate::predictors::gin::Learner;
use crate::predictors::graph::{Graph, Vocabulary};
pub use crate::predictors::trials::Scoring;
use crate::predictors::trials::{Proposer, Trial, Trials, distinct};
use crate::predictors::vae::{Reconstruction, Vae, VaeConfig};

/// Settings of arch2vec with Bayesian optimisation.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arch2vecConfig {
    /// How an architecture is judged.
    pub score: Scoring,
    /// The benchmark's metric to go by; empty means its first one of validation, or its first one.
    pub metric: String,
    /// After which training of the benchmark.
    pub fidelity: Fidelity,
    /// Epochs of a training.
    pub epochs: u64,
    /// Batches of the validation half that a training is judged on; 0 means all.
    pub eval_batches: usize,
    /// Architectures that are judged in the whole run.
    pub samples: usize,
    /// Architectures drawn uniformly before the first model.
    pub initial: usize,
    /// Architectures of a round.
    pub round: usize,
    /// What expected improvement improves on; 0 means the best so far.
    pub target: f64,
    /// Architectures that are embedded.
    pub pool: usize,
    /// The auto-encoder.
    pub encoder: VaeConfig,
    /// The model of accuracies.
    pub model: ModelConfig,
}

/// Settings of the model of accuracies.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Units of each of the three hidden layers.
    pub units: i64,
    /// Passes over what was judged.
    pub epochs: u64,
    /// Architectures a step.
    pub batch: usize,
    /// Rate of Adam.
    pub lr: f64,
}

register! {
    strategy "arch2vec-bo" => Arch2vecConfig,
    summary: "arch2vec: unsupervised graph auto-encoder, then Bayesian optimisation (DNGO) in its latent space",
    source: "Yan, Zheng, Ao, Zeng, Zhang 2020, NeurIPS, arXiv:2006.06936; Snoek et al. 2015, ICML (DNGO)",
    defaults: r#"[strategy]
# "train": architectures are trained from fresh weights on the training half and tested on the validation half.
# "benchmark": each is looked up, one a step.
score = "train"
# The benchmark's metric to go by; empty means its first one of validation, or its first one if it has none.
metric = ""
# The training that the metric is taken after: "full", or "lowest": the shortest one that the benchmark knows of it.
fidelity = "full"
# Epochs of a training.
epochs = 50
# Batches of the validation half that a training is judged on; 0 means all.
eval_batches = 0
# Architectures that are judged in the whole run, unless a budget decides.
samples = 100
# Architectures drawn uniformly before the first model.
initial = 16
# Architectures of a round.
round = 5
# What expected improvement improves on, in percent as accuracies are; 0 means the best so far.
target = 0.0
# Architectures that are embedded, and chosen from: all of a space that has no more, else a uniform sample.
pool = 16_000

# The auto-encoder, trained once on all of them.
[strategy.encoder]
# Hidden units of the graph isomorphism network.
hidden = 128
# Its layers.
layers = 4
# Latent numbers a vertex.
latent = 16
# Dropout of latent numbers before they are decoded.
dropout = 0.3
# Passes over the architectures.
epochs = 10
# Architectures a step.
batch = 32
# Rate of Adam.
lr = 1e-3
# Share of the architectures that is held out to measure reconstruction.
held_out = 0.1

# The model of accuracies, trained in every round from a fresh start.
[strategy.model]
# Units of each of the three hidden layers; the last is the basis of the Bayesian linear regression.
units = 128
# Passes over what was judged.
epochs = 100
# Architectures a step.
batch = 10
# Rate of Adam.
lr = 0.01

[trainer]
# Trainings end it, not epochs: 100 of 50 are 5000.
epochs = 10_000
"#,
    example: "nasfw run --strategy arch2vec-bo --preset simulated --space nasbench201",
    presets: &[
        ("benchmark", "[strategy]\nscore = \"benchmark\"\n[trainer]\nepochs = 1\n"),
        (
            "simulated",
            r#"# The protocol of NAS-Bench-201 (Dong and Yang 2020, ICLR): short trainings, 12,000 seconds of them.
[strategy]
score = "benchmark"
fidelity = "lowest"
samples = 1000
[trainer]
epochs = 1
[trainer.budget]
unit = "simulated"
amount = 12_000
"#,
        ),
    ],
    families: &[
        ("darts", "# The authors' code.\n[strategy]\ntarget = 95.0\n"),
        ("robust", "# As on DARTS's space.\n[strategy]\ntarget = 95.0\n"),
        ("nasbench201", "# The authors' code: one architecture a round.\n[strategy]\ntarget = 100.0\nround = 1\n"),
    ],
}

#[typetag::serde(name = "arch2vec-bo")]
impl StrategyConfig for Arch2vecConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        let length = match self.score {
            Scoring::Benchmark => self.fidelity,
            Scoring::Train => Fidelity::Epochs(self.epochs),
        };
        Ok(Box::new(Arch2vec {
            trials: Trials::new(self.score, &self.metric, self.eval_batches, vec![length]),
            bo: Bo {
                config: self.clone(),
                streams: cx.streams,
                state: State::default(),
                encoder: None,
                embedded: None,
            },
            spec: cx.spec.clone(),
            epochs: cx.epochs,
        }))
    }

    fn needs_benchmark(&self) -> bool {
        self.score == Scoring::Benchmark
    }

    fn validate(&self, v: &mut Validator) {
        let (idle, with) = match self.score {
            Scoring::Train => (["metric", "fidelity"], "with `score = \"train\"`"),
            Scoring::Benchmark => (["epochs", "eval_batches"], "with `score = \"benchmark\"`"),
        };
        for option in idle {
            v.idle(&format!("strategy.{option}"), with);
        }
        v.at_least("strategy.epochs", self.epochs, 1);
        v.range("strategy.samples", self.samples, 1, MOST);
        v.range("strategy.initial", self.initial, 2, MOST);
        v.range("strategy.round", self.round, 1, MOST);
        v.at_least("strategy.target", self.target, 0.0);
        v.range("strategy.pool", self.pool, 2, MOST);
        let (e, m) = (&self.encoder, &self.model);
        v.range("strategy.encoder.hidden", e.hidden, 1, 4096);
        v.range("strategy.encoder.layers", e.layers, 1, 64);
        v.range("strategy.encoder.latent", e.latent, 1, 1024);
        v.below("strategy.encoder.dropout", e.dropout, 0.0, 1.0);
        v.range("strategy.encoder.epochs", e.epochs, 1, 100_000);
        v.range("strategy.encoder.batch", e.batch, 1, MOST);
        v.at_least("strategy.encoder.lr", e.lr, 0.0);
        v.below("strategy.encoder.held_out", e.held_out, 0.0, 1.0);
        v.range("strategy.model.units", m.units, 1, 4096);
        v.range("strategy.model.epochs", m.epochs, 1, 100_000);
        v.range("strategy.model.batch", m.batch, 1, MOST);
        v.at_least("strategy.model.lr", m.lr, 0.0);
    }
}

const MOST: usize = 1_000_000;

/// An architecture that was judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Judged {
    /// Its position in the pool.
    number: usize,
    #[serde(with = "nasfw_framework::lossless")]
    score: f64,
}

/// What a checkpoint must keep, beside the encoder. The pool follows from the run's seed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    judged: Vec<Judged>,
    /// Positions of what is to be tried next.
    queue: VecDeque<usize>,
    /// Positions of what a partial table lacks.
    lacking: Vec<usize>,
    /// The best architecture and its accuracy.
    #[serde(with = "nasfw_framework::lossless")]
    best: Option<(Choice, f64)>,
    reconstruction: Option<Reconstruction>,
}

/// The embedding and the optimisation in it.
struct Bo {
    config: Arch2vecConfig,
    streams: Streams,
    state: State,
    /// Parameters and statistics of the auto-encoder, once it has learnt.
    encoder: Option<[Tensor; 2]>,
    embedded: Option<Embedded>,
}

/// The pool and its embedding, `[pool, latent]`: a function of the seed and the encoder.
struct Embedded {
    pool: Vec<Choice>,
    points: Tensor,
}

/// Architectures of a space, each once: all where there are at most `n` and rows do not compete, else `n` uniform draws.
fn pool(space: &dyn SearchSpace, n: usize, rng: &mut Rng) -> Vec<Choice> {
    let spec = space.spec();
    if spec.size() > n as f64 {
        return distinct(n, &HashSet::new(), |_| space.random(rng));
    }
    let is_of_the_space = |choice: &Choice| {
        let weights = choice.one_hot(spec, Kind::Double, tch::Device::Cpu).weights;
        space.derive(&spec.to_marginals(&weights)) == *choice
    };
    let mut all: Vec<Choice> = spec.enumerate().filter(is_of_the_space).collect();
    all.shuffle(rng);
    all
}

/// The error of a state of another search.
fn wrong(why: &str) -> Error {
    Error::Invalid {
        what: "strategy state".into(),
        why: why.into(),
    }
}

impl Bo {
    /// The pool's graphs.
    fn graphs(&self, space: &dyn SearchSpace) -> Result<(Vec<Choice>, Vec<Graph>, Vocabulary)> {
        let pool = pool(space, self.config.pool, &mut self.streams.at("pool", 0));
        let vocabulary = Vocabulary::of(space, &mut self.streams.at("vocabulary", 0));
        let graphs = pool.iter().map(|c| vocabulary.graph(&space.genotype(c)));
        let graphs = graphs.collect::<Result<_>>()?;
        Ok((pool, graphs, vocabulary))
    }

    /// Stage 1: the auto-encoder learns the pool's architectures, once; then all are embedded.
    fn embed(&mut self, search: &mut Search) -> Result<()> {
        if self.embedded.is_some() {
            return Ok(());
        }
        let (pool, graphs, vocabulary) = self.graphs(search.space())?;
        let s = &self.state;
        let judged = s.judged.iter().map(|j| &j.number);
        let mut numbers = judged.chain(&s.queue).chain(&s.lacking);
        if numbers.any(|&n| n >= pool.len()) {
            return Err(wrong("it names an architecture that is not in the pool"));
        }
        let c = &self.config.encoder;
        let vae = Vae::new(c, &vocabulary);
        let streams = self.streams.child("encoder", 0);
        let mut learner: Learner = vae.start(streams, Kind::Float, c.lr);
        match &self.encoder {
            Some([params, stats]) => {
                let fits =
                    params.size() == learner.params.size() && stats.size() == learner.stats.size();
                if !fits {
                    return Err(wrong("its auto-encoder is one of another space"));
                }
                (learner.params, learner.stats) = (params.copy(), stats.copy());
            }
            None => {
                let told = vae.learn(&mut learner, (&graphs, &vocabulary), c, streams)?;
                self.state.reconstruction = Some(told);
                self.encoder = Some([&learner.params, &learner.stats].map(|t| t.detach().copy()));
            }
        }
        let points = vae.embed(&learner, &graphs, &vocabulary);
        self.embedded = Some(Embedded { pool, points });
        Ok(())
    }

    /// Stage 2, a round: the architectures of most expected improvement that were not tried.
    /// With the first one's expected improvement.
    fn propose(&self, search: &Search, embedded: &Embedded) -> Result<(Vec<usize>, Option<f64>)> {
        let (state, c) = (&self.state, &self.config);
        let tried = state
            .judged
            .iter()
            .map(|j| j.number)
            .chain(state.lacking.iter().copied());
        let tried: HashSet<usize> = tried.collect();
        let left: Vec<usize> = (0..embedded.pool.len())
            .filter(|i| !tried.contains(i))
            .collect();
        let first = c.initial.saturating_sub(state.judged.len());
        if first > 0 {
            // The pool is in random order.
            return Ok((left.into_iter().take(first).collect(), None));
        }
        let numbers: Vec<i64> = state.judged.iter().map(|j| j.number as i64).collect();
        let scores: Vec<f64> = state.judged.iter().map(|j| j.score).collect();
        let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let x = embedded
            .points
            .index_select(0, &Tensor::from_slice(&numbers));
        let m = &c.model;
        let basis = Basis {
            units: m.units,
            epochs: m.epochs,
            batch: m.batch,
            lr: m.lr,
        };
        let streams = self.streams.child("model", search.clock().step);
        let model = Dngo::fit(&x, &Tensor::from_slice(&scores), basis, streams)?;
        let (mean, std) = model.predict(&embedded.points);
        let target = if c.target > 0.0 { c.target } else { best };
        let improvement: Vec<f64> = Vec::try_from(expected_improvement(&mean, &std, target))?;
        let mean: Vec<f64> = Vec::try_from(mean)?;
        let mut order = left;
        // Where a target is so far that nothing is left of the expected improvement, the mean decides.
        let key = |i: &usize| (improvement[*i], mean[*i]);
        order.sort_by(|a, b| {
            let ((ia, ma), (ib, mb)) = (key(a), key(b));
            ib.total_cmp(&ia).then(mb.total_cmp(&ma))
        });
        order.truncate(c.round);
        let most = order.first().map(|&i| improvement[i]);
        Ok((order, most))
    }
}

impl Proposer for Bo {
    fn next(&mut self, search: &mut Search, _lengths: usize) -> Result<Option<Trial>> {
        self.embed(search)?;
        if self.state.judged.len() >= self.config.samples {
            return Ok(None);
        }
        let Some(embedded) = &self.embedded else {
            return Ok(None);
        };
        if self.state.queue.is_empty() {
            let (proposed, most) = self.propose(search, embedded)?;
            self.state.queue.extend(proposed);
            most.into_iter()
                .for_each(|v| search.log("expected_improvement", v));
        }
        let next = self.state.queue.pop_front().and_then(|number| {
            let choice = embedded.pool.get(number)?.clone();
            Some(Trial {
                choice,
                number,
                from: 0,
            })
        });
        Ok(next)
    }

    fn told(&mut self, _search: &mut Search, trial: Trial, score: Option<f64>) {
        let (state, number) = (&mut self.state, trial.number);
        match score {
            Some(score) => {
                if state.best.as_ref().is_none_or(|(_, best)| score > *best) {
                    state.best = Some((trial.choice, score));
                }
                state.judged.push(Judged { number, score });
            }
            None => state.lacking.push(number),
        }
    }
}

struct Arch2vec {
    trials: Trials,
    bo: Bo,
    spec: ArchSpec,
    epochs: u64,
}

/// Names of the encoder's tensors in a state.
const ENCODER: [&str; 2] = ["encoder.params", "encoder.stats"];

impl Strategy for Arch2vec {
    fn step(&mut self, search: &mut Search) -> Result<()> {
        self.trials.step(&mut self.bo, search)
    }

    fn epoch_start(&mut self, search: &mut Search) -> Result<()> {
        self.trials.epoch_start(&mut self.bo, search)
    }

    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        self.trials.epoch_end(&mut self.bo, search)
    }

    fn data(&self) -> DataPlan {
        self.trials.data(self.bo.config.samples as u64, self.epochs)
    }

    /// The best that was judged; before there is any, what is being tried.
    fn derive(&self, search: &Search) -> Result<Choice> {
        let best = self.bo.state.best.as_ref().map(|(choice, _)| choice);
        let found = best.or(self.trials.current()).cloned();
        Ok(found.unwrap_or_else(|| search.space().random(&mut search.rng("first"))))
    }

    /// How much of held-out architectures the auto-encoder gives back.
    fn metrics(&self) -> BTreeMap<String, f64> {
        let of = |r: Reconstruction| {
            [
                ("reconstructed-labels", r.labels),
                ("reconstructed-edges", r.edges),
                ("reconstructed-architectures", r.whole),
            ]
        };
        let all = self.bo.state.reconstruction.into_iter().flat_map(of);
        all.map(|(name, share)| (name.to_owned(), share)).collect()
    }

    fn state(&self) -> Result<StrategyState> {
        let mut state = self.trials.state(&self.bo.state)?;
        for (name, tensor) in ENCODER.iter().zip(self.bo.encoder.iter().flatten()) {
            state.tensors.insert((*name).into(), tensor.shallow_clone());
        }
        Ok(state)
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        let (state, mut tensors): (State, _) = self.trials.restore(&self.spec, state)?;
        if let Some((choice, _)) = &state.best {
            choice.check(&self.spec)?;
        }
        let [params, stats] = ENCODER.map(|name| tensors.remove(name));
        self.bo.encoder = params.zip(stats).map(|(p, s)| [p, s]);
        self.bo.state = state;
        self.bo.embedded = None;
        Ok(())
    }
}
