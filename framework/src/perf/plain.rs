//! Steps of the bare supernet, which those of strategies are compared with.

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

use crate::arch::{ArchSpec, Choice, RelaxedArch, Role};
use crate::batches::Batch;
use crate::distribution::{ArchDistribution, IndependentSoftmax};
use crate::error::{Error, Result};
use crate::search::{Search, leaf};
use crate::strategy::{BuildContext, DataPlan, Split, Strategy, StrategyConfig};

/// Forward pass, loss, backward pass and update of the weights, on one batch that is drawn once. It is no strategy to
/// search with, so it is not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum PlainStep {
    /// All candidates, with fixed weights from a softmax of small random logits.
    Weights,
    /// The same, and the gradient with respect to the logits.
    Joint,
    /// One candidate of every row, drawn anew every step. Successive draws shift each row by one candidate, so that
    /// as many steps as there are candidates compute each candidate of a row equally often.
    Sampled,
    /// The same candidate in all rows of operations, the next one every step; sources as with `Sampled`.
    Everywhere,
}

#[typetag::serde(name = "plain-step")]
impl StrategyConfig for PlainStep {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        let softmax = IndependentSoftmax::new(cx.spec, 1e-3);
        let mut rng = cx.streams.at("first candidates", 0);
        Ok(Box::new(Plain {
            what: *self,
            logits: leaf(softmax.init(cx.streams, cx.kind, cx.device)),
            first: cx
                .spec
                .rows()
                .map(|(_, _, row)| rng.random_range(0..row.candidates.len()))
                .collect(),
            spec: cx.spec.clone(),
            batch: None,
        }))
    }
}

struct Plain {
    what: PlainStep,
    spec: ArchSpec,
    logits: Tensor,
    /// The candidate of every row in the first draw.
    first: Vec<usize>,
    batch: Option<Batch>,
}

impl Plain {
    fn arch(&self, search: &Search) -> RelaxedArch {
        let softmax = || RelaxedArch::new(self.spec.softmax(&self.logits));
        match self.what {
            PlainStep::Weights => no_grad(softmax),
            PlainStep::Joint => softmax(),
            PlainStep::Sampled | PlainStep::Everywhere => {
                let turn = search.clock().step as usize;
                search.one_hot(&self.choice(turn))
            }
        }
    }

    /// As many successive candidates as each row keeps.
    fn choice(&self, turn: usize) -> Choice {
        let mut first = self.first.iter();
        let groups = self.spec.groups().iter().map(|group| {
            let same = self.what == PlainStep::Everywhere && group.role == Role::Operations;
            let rows = group.rows.iter().zip(&mut first).map(|(row, &first)| {
                let first = if same { 0 } else { first };
                let at = |i| (first + turn + i) % row.candidates.len();
                let mut kept: Vec<usize> = (0..row.keep).map(at).collect();
                kept.sort_unstable();
                kept
            });
            rows.collect()
        });
        Choice::new(groups.collect())
    }
}

impl Strategy for Plain {
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let batch = match self.batch.take() {
            Some(batch) => batch,
            None => full_batch(search)?,
        };
        search.clock.work.images += batch.len() as u64;
        let (theta, arch) = (search.theta(), self.arch(search));
        let loss = search.loss(&theta, &arch, &batch)?;
        let gradients = match self.what {
            PlainStep::Joint => search.gradients(&loss, &[&theta, &self.logits])?,
            _ => search.gradients(&loss, &[&theta])?,
        };
        search.descend_theta(&gradients[0]);
        self.batch = Some(batch);
        Ok(())
    }

    fn data(&self) -> DataPlan {
        DataPlan::Full
    }
}

/// A batch of no split, so that it is not metered.
fn full_batch(search: &mut Search) -> Result<Batch> {
    let batch = search.batch(Split::Full)?;
    if batch.len() < search.batch_size() as i64 {
        return Err(Error::Incompatible {
            what: format!("a batch of {} images", search.batch_size()),
            why: format!("the dataset has only {} for training", batch.len()),
            help: "make the batches smaller, or choose another dataset".into(),
        });
    }
    Ok(Batch {
        split: None,
        ..batch
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::arch::{Group, Row};
    use tch::{Device, Kind};

    fn spec() -> ArchSpec {
        let row = |name: &str, n: usize, keep| Row {
            name: name.into(),
            candidates: (0..n).map(|c| c.to_string()).collect(),
            keep,
        };
        let group = |name: &str, role, rows| Group {
            name: name.into(),
            role,
            rows,
            edges: None,
        };
        ArchSpec::new(vec![
            group(
                "ops",
                Role::Operations,
                vec![row("a", 4, 1), row("b", 4, 1)],
            ),
            group(
                "inputs",
                Role::Topology,
                vec![row("c", 3, 2), row("d", 4, 2)],
            ),
        ])
        .unwrap()
    }

    fn plain(what: PlainStep) -> Plain {
        let spec = spec();
        Plain {
            what,
            logits: Tensor::zeros([spec.numel()], (Kind::Float, Device::Cpu)),
            first: vec![1, 3, 2, 0],
            spec,
            batch: None,
        }
    }

    #[test]
    fn as_many_draws_as_candidates_take_each_candidate_once() {
        for what in [PlainStep::Sampled, PlainStep::Everywhere] {
            let plain = plain(what);
            let draws: Vec<Choice> = (5..9).map(|turn| plain.choice(turn)).collect();
            for draw in &draws {
                draw.check_complete(&plain.spec).unwrap();
            }
            for row in 0..2 {
                let mut taken: Vec<usize> = draws.iter().map(|d| d.kept(0, row)[0]).collect();
                taken.sort_unstable();
                assert_eq!(taken, [0, 1, 2, 3], "{what:?}");
            }
        }
    }

    #[test]
    fn everywhere_is_one_candidate_in_all_operations_and_sampled_is_not() {
        let [same, drawn] = [PlainStep::Everywhere, PlainStep::Sampled].map(plain);
        for turn in 0..4 {
            let (same, drawn) = (same.choice(turn), drawn.choice(turn));
            assert_eq!(same.kept(0, 0), same.kept(0, 1));
            assert_ne!(drawn.kept(0, 0), drawn.kept(0, 1));
            assert_eq!(same.groups()[1], drawn.groups()[1]);
        }
    }
}
