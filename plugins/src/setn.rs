//! SETN (Dong & Yang 2019) as it searches NAS-Bench-201 (Dong & Yang 2020): the shared weights are trained on one
//! uniformly drawn architecture a batch, the logits α of all candidates on the relaxed network of all; at the end the most
//! probable architectures are scored with the shared weights, and the best one is kept. The templates of the first paper
//! are not part of it.
//!
//! Architectures are those that the space can derive. Where edges into a node compete, one that is among the most probable
//! keeps its most probable edges. The script scores each architecture on a validation batch of its own; here all see the same.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use nasfw_framework::arch::subsets;
use nasfw_framework::distribution::plackett_luce;
use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::bilevel;
use crate::selection::{self, Selected};

/// Settings of SETN.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetnConfig {
    /// The most probable architectures that are scored.
    pub samples: usize,
    /// Batches of the validation half that each of them is scored on; 0 means all.
    pub eval_batches: usize,
    /// Standard deviation of the logits at the start.
    pub init_std: f64,
    /// Optimizer of the logits.
    pub arch: OptimizerConfig,
}

register! {
    strategy "setn" => SetnConfig,
    summary: "SETN: weights trained on uniform architectures, logits on the relaxed network, the best of the most probable kept",
    source: "Dong, Yang 2019, ICCV, arXiv:1910.05733, as in Dong, Yang 2020, ICLR (NAS-Bench-201)",
    defaults: concat!(r#"[strategy]
# The most probable architectures, which are scored with the shared weights when the search ends; the best one is the result.
samples = 100
# Batches (`trainer.eval_batch_size` images) of the validation half that each is scored on, the same for all; 0 means all.
eval_batches = 1
# Standard deviation of the logits at the start.
init_std = 1e-3
"#, nasfw_framework::arch_adam!("3e-4"), r#"
# The search script of NAS-Bench-201.
[trainer]
epochs = 250
eval_batch_size = 512
schedule_by = "step"
val_order = "fresh"

[trainer.weights]
nesterov = true
weight_decay = 5e-4
clip = 0.0
"#),
    example: "nasfw run --strategy setn --space nasbench201 --set space.preset=small",
}

#[typetag::serde(name = "setn")]
impl StrategyConfig for SetnConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Setn {
            config: self.clone(),
            softmax: IndependentSoftmax::new(cx.spec, self.init_std),
            selected: None,
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.samples", self.samples, 1, 1_000_000);
        v.at_least("strategy.init_std", self.init_std, 0.0);
        self.arch.validate("strategy.arch", v);
    }
}

struct Setn {
    config: SetnConfig,
    softmax: IndependentSoftmax,
    selected: Option<Selected>,
}

/// So many architectures are looked at, for one that is scored, before a search gives up to find other ones: where edges
/// compete, many differ in edges alone that are not kept.
const PATIENCE: usize = 100;

impl Setn {
    fn probabilities(&self, search: &Search) -> Result<Marginals> {
        let p = self.softmax.mean(&search.phi().detach())?;
        Ok(search.space().spec().to_marginals(&p))
    }

    /// The different architectures that the most probable choices stand for, the most probable first.
    fn candidates(&self, search: &Search) -> Result<Vec<Choice>> {
        let p = self.probabilities(search)?;
        let (n, mut seen, mut found) = (self.config.samples, BTreeSet::new(), vec![]);
        for (choice, _) in
            MostProbable::new(search.space().spec(), &p).take(n.saturating_mul(PATIENCE))
        {
            let choice = selection::derived(search, &choice, &p);
            if seen.insert(choice.clone()) {
                found.push(choice);
            }
            if found.len() == n {
                break;
            }
        }
        Ok(found)
    }
}

/// All choices of a space with their log-probabilities, the most probable first, rows being independent and drawn without
/// replacement in proportion to `p`. Of equals in a row, the first subset comes first.
pub struct MostProbable {
    /// Per row its subsets with their log-probabilities, the most probable first.
    rows: Vec<Vec<(Vec<usize>, f64)>>,
    /// Rows of every group.
    groups: Vec<usize>,
    next: BinaryHeap<Ranked>,
    seen: BTreeSet<Vec<usize>>,
}

/// Which of its subsets each row keeps, by their ranks.
struct Ranked {
    log_p: f64,
    ranks: Vec<usize>,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_ranks = || other.ranks.cmp(&self.ranks);
        self.log_p.total_cmp(&other.log_p).then_with(by_ranks)
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

impl MostProbable {
    /// The choices of a spec, given probabilities of every candidate.
    pub fn new(spec: &ArchSpec, p: &Marginals) -> Self {
        let row = |(g, r, row): (usize, usize, &Row)| {
            let p = Tensor::from_slice(&p[g][r]);
            let mut kept: Vec<(Vec<usize>, f64)> = subsets(row.candidates.len(), row.keep)
                .into_iter()
                .map(|kept| {
                    let log_p = plackett_luce(&p, &kept).log().double_value(&[]);
                    (kept, log_p)
                })
                .collect();
            kept.sort_by(|a, b| b.1.total_cmp(&a.1));
            kept
        };
        let mut all = Self {
            rows: spec.rows().map(row).collect(),
            groups: spec.groups().iter().map(|g| g.rows.len()).collect(),
            next: BinaryHeap::new(),
            seen: BTreeSet::new(),
        };
        all.push(vec![0; all.rows.len()]);
        all
    }

    fn push(&mut self, ranks: Vec<usize>) {
        let kept = ranks.iter().zip(&self.rows);
        let log_p = kept.map(|(&rank, row)| row[rank].1).sum();
        if self.seen.insert(ranks.clone()) {
            self.next.push(Ranked { log_p, ranks });
        }
    }
}

impl Iterator for MostProbable {
    type Item = (Choice, f64);

    /// The best of what is left. Whatever comes after it differs from one that came in a row that is one rank worse.
    fn next(&mut self) -> Option<Self::Item> {
        let Ranked { log_p, ranks } = self.next.pop()?;
        for r in 0..ranks.len() {
            if ranks[r] + 1 < self.rows[r].len() {
                let mut worse = ranks.clone();
                worse[r] += 1;
                self.push(worse);
            }
        }
        let mut kept = ranks
            .iter()
            .zip(&self.rows)
            .map(|(&k, row)| row[k].0.clone());
        let groups = self.groups.iter();
        let choice = groups.map(|&n| kept.by_ref().take(n).collect()).collect();
        Some((Choice::new(choice), log_p))
    }
}

impl Strategy for Setn {
    fn step(&mut self, search: &mut Search) -> Result<()> {
        // 1. Update w at an architecture drawn uniformly, the only one computed.
        let choice = search.space().random(&mut search.rng("weight step"));
        let train = search.batch(Split::Train)?;
        let path = search.one_hot(&choice);
        bilevel::descend_weights_at(search, &path, &train)?;

        // 2. Update α by descending ∇_α L_val of the relaxed network.
        let loss = bilevel::validation_loss(search, &self.softmax)?;
        bilevel::descend_architecture(search, &loss)
    }

    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        if search.is_last_epoch() {
            let candidates = self.candidates(search)?;
            let ranked = selection::rank(search, candidates, self.config.eval_batches)?;
            self.selected = ranked.into_iter().next();
        }
        Ok(Control::Continue)
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.softmax)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }

    /// What was selected; before that, the most probable architecture.
    fn derive(&self, search: &Search) -> Result<Choice> {
        match &self.selected {
            Some(selected) => Ok(selected.choice.clone()),
            None => Ok(search.space().derive(&self.probabilities(search)?)),
        }
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        selection::metrics(self.selected.as_ref())
    }

    fn state(&self) -> Result<StrategyState> {
        StrategyState::of(&self.selected)
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        self.selected = state.value()?;
        Ok(())
    }
}
