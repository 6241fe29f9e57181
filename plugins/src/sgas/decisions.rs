//! What is decided, and the softmax over what is not.

use nasfw_framework::prelude::*;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::criteria::{self, Criteria};

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
    match group.edges_kept() {
        Some(keep) => group.nodes().iter().map(|n| n.len().min(keep)).sum(),
        None => choices(&(0..group.rows.len()).collect::<Vec<_>>()),
    }
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
            let keep = group.edges_kept();
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

    /// Weights that the space's rule derives the cell from as it stands: no probability exceeds what is decided. Where
    /// edges into a node compete, the open ones do so by importance, the probability that they are not `none`, and not
    /// by their best candidates (`parse_gene_force` of the authors); where none of them can be `none`, that tells
    /// nothing, and DARTS's rule stands.
    pub fn rank(&self, spec: &ArchSpec, weights: &mut Marginals) {
        for (g, group) in spec.groups().iter().enumerate() {
            let rows = || group.rows.iter().enumerate();
            if group.edges_kept().is_none() || rows().all(|(_, row)| row.column("none").is_none()) {
                continue;
            }
            for (r, row) in rows() {
                let (none, p) = (row.column("none"), &mut weights[g][r]);
                let importance = criteria::importance(p, none);
                let best = top(p, 1, none).first().map_or(1.0, |&c| p[c]);
                p.iter_mut().for_each(|p| *p = *p / best * importance);
            }
        }
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

    /// Refuses decisions that are not about this space: a checkpoint's.
    pub fn need(&self, decided: &Decided) -> Result<()> {
        let row = |(row, kept): (&Row, &Option<Vec<usize>>)| {
            kept.iter().flatten().all(|c| *c < row.candidates.len())
        };
        let group = |(group, rows): (&Group, &Vec<Option<Vec<usize>>>)| {
            group.rows.len() == rows.len() && group.rows.iter().zip(rows).all(row)
        };
        let groups = self.spec.groups();
        let fits = groups.len() == decided.0.len() && groups.iter().zip(&decided.0).all(group);
        if fits || decided.0.is_empty() {
            return Ok(());
        }
        Err(Error::Invalid {
            what: "strategy state".into(),
            why: "its decisions are not about the space".into(),
        })
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const CANDIDATES: [&str; 4] = ["a", "none", "b", "c"];

    /// A cell of two inputs and three nodes: nine edges, of which two a node are kept.
    fn spec() -> ArchSpec {
        let ends: Vec<(usize, usize)> = (2..5)
            .flat_map(|to| (0..to).map(move |from| (from, to)))
            .collect();
        let row = |(from, to): &(usize, usize)| Row {
            name: format!("{from}->{to}"),
            candidates: CANDIDATES.map(String::from).to_vec(),
            keep: 1,
        };
        let group = Group {
            name: "cell".into(),
            role: Role::Operations,
            rows: ends.iter().map(row).collect(),
            edges: Some(Edges {
                ends,
                keep: Some(2),
            }),
        };
        ArchSpec::new(vec![group]).unwrap()
    }

    /// DARTS's rule: the two edges into each node with the largest weights of candidates other than `none`.
    fn darts(spec: &ArchSpec, weights: &Marginals) -> Vec<Vec<usize>> {
        let group = &spec.groups()[0];
        let best = |r: usize| top(&weights[0][r], 1, Some(1))[0];
        let mut kept = vec![vec![]; group.rows.len()];
        for mut node in group.nodes() {
            node.sort_by(|&a, &b| weights[0][b][best(b)].total_cmp(&weights[0][a][best(a)]));
            node.iter().take(2).for_each(|&r| kept[r] = vec![best(r)]);
        }
        kept
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is decided stays; the rest of a node's two edges are those that are least likely `none`, each with its
        /// most probable candidate.
        #[test]
        fn open_edges_are_ranked_by_importance(
            p in prop::collection::vec(prop::collection::vec(0.01f64..1.0, 4), 9),
            score in prop::collection::vec(0.0f64..1.0, 9),
            rounds in 0usize..7,
        ) {
            let spec = spec();
            let p = vec![p.iter().map(|row| row.iter().map(|x| x / row.iter().sum::<f64>()).collect()).collect()];
            let criteria = [Criteria { score, ..Criteria::default() }];
            let mut decided = Decided::default();
            (0..rounds).for_each(|_| decided.greedily(&spec, &criteria, &p));
            let mut weights = p.clone();
            decided.rank(&spec, &mut weights);
            let found = darts(&spec, &weights);
            for node in spec.groups()[0].nodes() {
                let fixed = |r: usize| decided.0.first().and_then(|g| g[r].clone());
                let mut open: Vec<usize> = node.iter().copied().filter(|&r| fixed(r).is_none()).collect();
                open.sort_by(|&a, &b| p[0][a][1].total_cmp(&p[0][b][1]));
                let full = node.iter().filter(|&&r| fixed(r).is_some_and(|k| !k.is_empty())).count();
                for &r in &node {
                    let chosen = open.iter().position(|&o| o == r).is_some_and(|at| at < 2 - full);
                    let best = [0, 2, 3].into_iter().fold(0, |a, b| if p[0][r][b] > p[0][r][a] { b } else { a });
                    let expected = fixed(r).unwrap_or(if chosen { vec![best] } else { vec![] });
                    prop_assert_eq!(&found[r], &expected, "row {}", r);
                }
            }
        }
    }
}
