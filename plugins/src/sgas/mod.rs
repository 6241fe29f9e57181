//! SGAS (Li et al. 2020): first-order DARTS that decides edge after edge, greedily, and computes what is decided alone.
//!
//! The paper has DARTS's cells, in which a node keeps two edges and `none` is never kept. In spaces where every row keeps
//! its choice (NAS-Bench-201, NAS-Bench-1Shot1) all rows are decided, one after the other, for their most probable
//! candidates, `none` among them.

mod criteria;
mod decisions;

use std::collections::BTreeMap;

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::no_grad;

use crate::bilevel;
use criteria::Criteria;
use decisions::{Decided, DecidedSoftmax};

/// Settings of SGAS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SgasConfig {
    /// By what the next edge is chosen: 1 importance and certainty, 2 also stability.
    pub criterion: u8,
    /// Epochs before the one that the first decision follows.
    pub warmup: u64,
    /// Epochs from one decision to the next.
    pub every: u64,
    /// Images by which batches grow with every decision.
    pub batch_increase: usize,
    /// Standard deviation of the logits at the start.
    pub init_std: f64,
    /// Optimizer of the logits.
    pub arch: OptimizerConfig,
}

register! {
    strategy "sgas" => SgasConfig,
    summary: "SGAS: first-order DARTS that decides greedily, one edge after the other",
    source: "Li, Qian, Delgadillo, Müller, Thabet, Ghanem 2020, CVPR, arXiv:1912.00195",
    defaults: concat!(r#"[strategy]
# How the next edge is chosen: 1 by importance and certainty, 2 by stability over the last four epochs, too.
criterion = 1
# Epochs before the one that the first decision follows. `warmup` and `every` are those of a search long enough for all
# decisions and `every` epochs after the last (50 epochs in DARTS's space); a shorter one, or one with a budget, has them
# in proportion.
warmup = 9
# Epochs from one decision to the next; the authors call 7 more stable.
every = 5
# Images by which batches grow with every decision, since less is computed.
batch_increase = 8
# Standard deviation of the logits at the start.
init_std = 1e-3
"#, nasfw_framework::arch_adam!("3e-4"), r#"
[trainer]
epochs = 50
"#),
    example: "nasfw run --strategy sgas --space darts --set strategy.criterion=2",
    presets: &[("criterion-2", "[strategy]\ncriterion = 2\n")],
}

#[typetag::serde(name = "sgas")]
impl StrategyConfig for SgasConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Sgas {
            config: self.clone(),
            softmax: DecidedSoftmax::new(&cx, self.init_std),
            state: State::default(),
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.criterion", self.criterion, 1, 2);
        v.at_least("strategy.every", self.every, 1);
        v.at_least("strategy.init_std", self.init_std, 0.0);
        self.arch.validate("strategy.arch", v);
    }
}

/// So many epochs does stability look back.
const HISTORY: usize = 4;

/// What a checkpoint must keep.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    decided: Decided,
    /// Decisions that have been made in every group.
    rounds: u64,
    /// Probabilities of all candidates after the last epochs, the latest last.
    #[serde(with = "nasfw_framework::lossless")]
    history: Vec<Marginals>,
    /// Per group what the last epoch's decision went by.
    criteria: Vec<Criteria>,
}

struct Sgas {
    config: SgasConfig,
    softmax: DecidedSoftmax,
    state: State,
}

impl Sgas {
    /// Decisions that are due when the current epoch ends.
    fn due(&self, search: &Search, rounds: u64) -> u64 {
        let SgasConfig { warmup, every, .. } = self.config;
        let whole = warmup + every * rounds + 1;
        let done = match search.budget() {
            Some(_) => search.progress() * whole as f64,
            None => {
                let (done, epochs) = (search.epoch() + 1, search.epochs());
                done as f64 * (whole as f64 / epochs as f64).max(1.0)
            }
        };
        let follows = |round: &u64| (warmup + every * round + 1) as f64 <= done + 1e-9;
        (0..rounds).take_while(follows).count() as u64
    }
}

impl Strategy for Sgas {
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let train = search.batch(Split::Train)?;
        let before = no_grad(|| search.phi().copy());
        let loss = bilevel::validation_loss(search, &self.softmax)?;
        bilevel::descend_architecture(search, &loss)?;
        // Decay and momentum move what has no gradient, too: what is decided stays.
        if let Some(frozen) = self.softmax.frozen() {
            search.update_phi(|alpha| alpha.copy_(&before.where_self(frozen, alpha)));
        }
        bilevel::descend_weights(search, &self.softmax, &train)
    }

    /// Algorithm 1 of the paper: the undecided edge of the largest score gets its best operation.
    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        let spec = search.space().spec();
        let now = no_grad(|| spec.to_marginals(&spec.softmax(&search.phi())));
        let due = self.due(search, decisions::rounds(spec));
        let state = &mut self.state;
        let history = (self.config.criterion == 2).then_some(state.history.as_slice());
        state.criteria = criteria::of(spec, &now, history);
        let made = due.saturating_sub(state.rounds);
        for _ in 0..made {
            state.decided.greedily(spec, &state.criteria, &now);
        }
        state.rounds += made;
        if state.history.len() == HISTORY {
            state.history.remove(0);
        }
        state.history.push(now);
        self.softmax.decide(&state.decided);
        Ok(match self.config.batch_increase * made as usize {
            0 => Control::Continue,
            more => Control::Set(Changes {
                batch_size: Some(search.batch_size() + more),
                ..Changes::default()
            }),
        })
    }

    /// What is decided; of the rest, the most important edges with their most probable candidates.
    fn derive(&self, search: &Search) -> Result<Choice> {
        let spec = search.space().spec();
        let mut weights = spec.to_marginals(&no_grad(|| self.softmax.mean(&search.phi()))?);
        self.state.decided.rank(spec, &mut weights);
        Ok(search.space().derive(&weights))
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.softmax)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }

    /// Per group the criteria of the last epoch: a row per row of the group.
    fn pictures(&self, search: &Search) -> Result<BTreeMap<String, Picture>> {
        let groups = search.space().spec().groups().iter();
        Ok(groups
            .zip(&self.state.criteria)
            .map(|(group, criteria)| (format!("{} criteria", group.name), criteria.picture()))
            .collect())
    }

    fn state(&self) -> Result<StrategyState> {
        StrategyState::of(&self.state)
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        let state: State = state.value()?;
        self.softmax.need(&state.decided)?;
        self.state = state;
        self.softmax.decide(&self.state.decided);
        Ok(())
    }
}
