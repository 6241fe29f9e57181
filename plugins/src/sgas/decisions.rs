//! What is decided, and the softmax over what is not.

use nasfw_framework::prelude::*;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::criteria::Criteria;

/// Per group and row what it keeps; none where that is open. A row that keeps nothing is an edge that was pruned.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Decided(Vec<Vec<Option<Vec<usize>>>>);

/// Decisions that a group needs: edges of its derived cell, or rows that have a choice.
fn needed(group: &Group) -> usize {
    let choices = |rows: &[usize]| {
        let has = |r: &&usize| group.rows[**r].candidates.len() > group.rows[**r].keep;
        rows.iter().filter(has).count()
    };
    match keep(group) {
        Some(keep) => group.nodes().iter().map(|n| n.len().min(keep)).sum(),
        None => choices(&(0..group.rows.len()).collect::<Vec<_>>()),
    }
}

/// Edges that a node keeps; none where all keep their choice.
fn keep(group: &Group) -> Option<usize> {
    group.edges.as_ref().and_then(|edges| edges.keep)
}

/// Decisions that the group needs that needs most; every group has one a round until it is done.
pub(super) fn rounds(spec: &ArchSpec) -> u64 {
    spec.groups().iter().map(needed).max().unwrap_or(0) as u64
}

impl Decided {
    fn open(&self, group: usize, row: usize) -> bool {
        self.0.get(group).is_none_or(|g| g[row].is_none())
    }

    /// Decides one row of every group: the open one of the largest score keeps its most probable candidates. Where nodes
    /// keep some of their edges, `none` is no candidate, and what is left of a node that has enough is pruned.
    pub fn greedily(&mut self, spec: &ArchSpec, criteria: &[Criteria], now: &Marginals) {
        if self.0.is_empty() {
            let rows = |g: &Group| vec![None; g.rows.len()];
            self.0 = spec.groups().iter().map(rows).collect();
        }
        for (g, group) in spec.groups().iter().enumerate() {
            let keep = keep(group);
            let undecided = (0..group.rows.len()).filter(|&r| {
                let row = &group.rows[r];
                self.open(g, r) && (keep.is_some() || row.candidates.len() > row.keep)
            });
            let score = &criteria[g].score;
            let Some(r) = undecided.reduce(|a, b| if score[b] > score[a] { b } else { a }) else {
                continue;
            };
            let row = &group.rows[r];
            let none = keep.and_then(|_| row.column("none"));
            self.0[g][r] = Some(top(&now[g][r], row.keep, none));
            let Some(keep) = keep else { continue };
            for node in group.nodes().iter().filter(|node| node.contains(&r)) {
                let kept = |r: &&usize| self.0[g][**r].as_ref().is_some_and(|k| !k.is_empty());
                if node.iter().filter(kept).count() >= keep {
                    for &other in node {
                        self.0[g][other].get_or_insert_with(Vec::new);
                    }
                }
            }
        }
    }

    /// Gives what is decided weights that no probability exceeds.
    pub fn put_first(&self, weights: &mut Marginals) {
        for (g, r, kept) in self.rows() {
            weights[g][r].fill(0.0);
            for &c in kept {
                weights[g][r][c] = 2.0;
            }
        }
    }

    /// Rows that are decided.
    fn rows(&self) -> impl Iterator<Item = (usize, usize, &Vec<usize>)> {
        self.0.iter().enumerate().flat_map(|(g, rows)| {
            let rows = rows.iter().enumerate();
            rows.filter_map(move |(r, kept)| Some((g, r, kept.as_ref()?)))
        })
    }
}

/// The `keep` most probable candidates without `none`, in increasing order; of equals the first.
fn top(p: &[f64], keep: usize, none: Option<usize>) -> Vec<usize> {
    let mut columns: Vec<usize> = (0..p.len()).filter(|c| Some(*c) != none).collect();
    columns.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
    columns.truncate(keep);
    columns.sort_unstable();
    columns
}

/// Softmax over open rows; decided ones are one-hot, and only what they keep is computed.
pub(super) struct DecidedSoftmax {
    spec: ArchSpec,
    softmax: IndependentSoftmax,
    kind: Kind,
    device: Device,
    masks: Option<Masks>,
}

/// What is decided, as tensors.
struct Masks {
    /// Per group `[rows, width]`: 1 where a row is open, else 0.
    open: Vec<Tensor>,
    /// Per group `[rows, width]`: 1 on what decided rows keep, else 0.
    kept: Vec<Tensor>,
    /// Entries of decided rows, of all: `[parameters]` of bool.
    frozen: Tensor,
    active: Vec<Vec<Vec<bool>>>,
}

impl DecidedSoftmax {
    pub fn new(cx: &BuildContext<'_>, init_std: f64) -> Self {
        Self {
            spec: cx.spec.clone(),
            softmax: IndependentSoftmax::new(cx.spec, init_std),
            kind: cx.kind,
            device: cx.device,
            masks: None,
        }
    }

    /// Logits of decided rows; none while nothing is decided.
    pub fn frozen(&self) -> Option<&Tensor> {
        self.masks.as_ref().map(|m| &m.frozen)
    }

    /// Takes over what is decided.
    pub fn decide(&mut self, decided: &Decided) {
        if decided.rows().next().is_none() {
            return;
        }
        let groups = || self.spec.groups().iter().enumerate();
        let table = |cell: &dyn Fn(usize, usize, usize) -> bool| -> Vec<Vec<Vec<bool>>> {
            groups()
                .map(|(g, group)| {
                    let row = |r| (0..group.width()).map(|c| cell(g, r, c)).collect();
                    (0..group.rows.len()).map(row).collect()
                })
                .collect()
        };
        let tensor = |rows: &[Vec<bool>], width: i64| {
            Tensor::from_slice(&rows.concat())
                .view([-1, width])
                .to_device(self.device)
        };
        let keeps = |g: usize, r: usize, c: usize| {
            let kept = decided.0[g][r].as_ref();
            kept.is_some_and(|kept| kept.contains(&c))
        };
        let open = table(&|g, r, _| decided.open(g, r));
        let kept = table(&keeps);
        let numbers = |table: &[Vec<Vec<bool>>]| -> Vec<Tensor> {
            let groups = table.iter().zip(self.spec.groups());
            groups
                .map(|(rows, g)| tensor(rows, g.width() as i64).to_kind(self.kind))
                .collect()
        };
        self.masks = Some(Masks {
            frozen: Tensor::cat(
                &numbers(&open)
                    .iter()
                    .map(|m| m.reshape([-1]))
                    .collect::<Vec<_>>(),
                0,
            )
            .eq(0.0),
            open: numbers(&open),
            kept: numbers(&kept),
            active: table(&|g, r, c| {
                let exists = c < self.spec.groups()[g].rows[r].candidates.len();
                exists && (decided.open(g, r) || keeps(g, r, c))
            }),
        });
    }
}

impl ArchDistribution for DecidedSoftmax {
    fn layout(&self) -> &ParamLayout {
        self.softmax.layout()
    }

    fn sample(&self, phi: &Tensor, _rng: &mut Rng) -> Result<RelaxedArch> {
        let arch = RelaxedArch::new(self.mean(phi)?);
        Ok(match &self.masks {
            None => arch,
            Some(masks) => arch.with_active(masks.active.clone()),
        })
    }

    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        let probabilities = self.softmax.mean(phi)?;
        Ok(match &self.masks {
            None => probabilities,
            Some(Masks { open, kept, .. }) => {
                let rows = probabilities.iter().zip(open).zip(kept);
                rows.map(|((p, open), kept)| p * open + kept).collect()
            }
        })
    }
}
