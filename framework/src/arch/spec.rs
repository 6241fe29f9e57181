//! The decisions of a search space, as data.

use std::collections::BTreeMap;

use rand::RngExt;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::choice::Choice;
use crate::error::{Error, Result};

/// What the candidates of a group stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Candidates are operations; a row is an edge or a node that computes one of them.
    Operations,
    /// Candidates are sources; a row is a node that reads from some of them.
    Topology,
}

/// One decision: keep `keep` of `candidates`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the row, unique in its group, for example `node 3` or `0->2`.
    pub name: String,
    /// Names of the candidates, in the order of the columns.
    pub candidates: Vec<String>,
    /// How many candidates the derived architecture keeps, at least one.
    pub keep: usize,
}

impl Row {
    /// The largest weight of a row that keeps one candidate; of a row that keeps several, the share of all its weights that
    /// the kept ones have.
    pub fn sharpness(&self, weights: &[f64]) -> f64 {
        let kept = top_k(weights, self.keep).into_iter();
        let kept: f64 = kept.map(|i| weights[i]).sum();
        match self.keep {
            1 => kept,
            _ => kept / weights.iter().sum::<f64>(),
        }
    }
}

/// Entropy of the weights of a row that keeps `keep` candidates, normalised to sum to one, from 1 for uniform weights to 0
/// where no more candidates have weight than are kept: (H − log keep) / (log candidates − log keep), no less than zero. A row
/// that keeps all of its candidates has nothing to decide, and where none has weight nothing is left to decide: 0.
pub fn row_entropy(weights: &[f64], keep: usize) -> f64 {
    let sum: f64 = weights.iter().sum();
    if keep >= weights.len() || sum == 0.0 {
        return 0.0;
    }
    let (kept, all) = ((keep as f64).ln(), (weights.len() as f64).ln());
    let shares = weights.iter().map(|w| w / sum).filter(|p| *p != 0.0);
    let h: f64 = shares.map(|p| -p * p.ln()).sum();
    let entropy = (h - kept) / (all - kept);
    // Not `max`, which would make zero of what is no number. A sum of nothing is -0.
    if entropy < 0.0 { 0.0 } else { entropy + 0.0 }
}

/// A matrix of choices. Rows may be ragged: shorter rows are padded on the right and the padding is masked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Name of the group, unique in its spec, for example `normal`.
    pub name: String,
    /// What the candidates stand for.
    pub role: Role,
    /// The rows.
    pub rows: Vec<Row>,
    /// Where the rows lead, if they are edges of a cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edges: Option<Edges>,
}

/// Rows as the edges of a cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edges {
    /// Per row the states that it leads from and to; the cell's inputs are the first states.
    pub ends: Vec<(usize, usize)>,
    /// How many edges into a node a derived cell keeps (two in DARTS's space); none means that every edge keeps its
    /// choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<usize>,
}

impl Row {
    /// Position of a candidate by its name.
    pub fn column(&self, candidate: &str) -> Option<usize> {
        self.candidates.iter().position(|c| c == candidate)
    }
}

impl Group {
    /// Rows that lead into each node, in the order of nodes; none where rows are no edges.
    pub fn nodes(&self) -> Vec<Vec<usize>> {
        let mut nodes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (row, (_, to)) in self.edges.iter().flat_map(|e| e.ends.iter().enumerate()) {
            nodes.entry(*to).or_default().push(row);
        }
        nodes.into_values().collect()
    }

    /// How many edges into a node a derived cell keeps; none where rows are no edges, or every edge keeps its choice.
    pub fn edges_kept(&self) -> Option<usize> {
        self.edges.as_ref()?.keep
    }

    /// Number of columns: the length of the longest row.
    pub fn width(&self) -> usize {
        self.rows
            .iter()
            .map(|r| r.candidates.len())
            .max()
            .unwrap_or(0)
    }

    /// `[rows, width]`, the shape of this group's weights.
    pub fn shape(&self) -> [i64; 2] {
        [self.rows.len() as i64, self.width() as i64]
    }

    /// Whether some row is shorter than the longest one.
    pub fn is_ragged(&self) -> bool {
        self.rows.iter().any(|r| r.candidates.len() != self.width())
    }

    /// `[rows, width]` of bool, true where there is a candidate.
    pub fn mask(&self, device: Device) -> Tensor {
        let width = self.width();
        let cells: Vec<bool> = self
            .rows
            .iter()
            .flat_map(|r| (0..width).map(move |c| c < r.candidates.len()))
            .collect();
        Tensor::from_slice(&cells)
            .view(self.shape())
            .to_device(device)
    }

    /// Row-wise softmax of `logits` (`[rows, width]`) over the candidates that exist; padding gets exactly zero.
    pub fn softmax(&self, logits: &Tensor) -> Tensor {
        self.masked_logits(logits).softmax(-1, logits.kind())
    }

    /// Row-wise weights of as many candidates as the row keeps: the probability of each to be among the kept, where a subset
    /// of that size has a probability in proportion to the exponential of the sum of its `logits` (`[rows, width]`). They sum
    /// to the number that is kept, none is above one; where one is kept it is the softmax. Padding gets zero.
    ///
    /// Such a probability is keep · softmax(logit + log e(logits of the others)), e being the elementary symmetric polynomial
    /// of their exponentials of degree keep − 1 (Ahmed et al. 2023, SIMPLE, ICLR, section 3).
    pub fn subset_softmax(&self, logits: &Tensor) -> Tensor {
        if self.rows.iter().all(|row| row.keep == 1) {
            return self.softmax(logits);
        }
        let (of_subsets, kept) = self.of_subsets(logits);
        of_subsets.softmax(-1, logits.kind()) * kept
    }

    /// Row by row, the logarithm of the sum over all subsets of as many candidates as the row keeps of the exponential of the
    /// sum of their `logits` (`[rows, width]`): `[rows]`, the logarithm of what [`Group::subset_softmax`] divides by.
    pub fn log_subsets(&self, logits: &Tensor) -> Tensor {
        let (of_subsets, kept) = self.of_subsets(logits);
        // Every subset is counted once for each of its candidates.
        let log_kept = kept.to_kind(logits.kind()).log().squeeze_dim(1);
        of_subsets.logsumexp([-1i64].as_slice(), false) - log_kept
    }

    /// `[rows, width]`: the logarithm of the sum over all subsets that hold a candidate, as in [`Group::log_subsets`]. And how
    /// many each row keeps, `[rows, 1]`.
    fn of_subsets(&self, logits: &Tensor) -> (Tensor, Tensor) {
        // Far below all logits, and its sums and differences are numbers.
        const NOTHING: f64 = -1e30;
        let (kind, device) = (logits.kind(), logits.device());
        let [rows, width] = self.shape();
        let logits = match self.is_ragged() {
            true => logits.masked_fill(&self.mask(device).logical_not(), NOTHING),
            false => logits.shallow_clone(),
        };
        let kept: Vec<i64> = self.rows.iter().map(|r| r.keep as i64).collect();
        let degrees = 0..kept.iter().copied().max().unwrap_or(1);
        // [row, candidate, other candidate]
        let own = Tensor::eye(width, (Kind::Bool, device));
        let others = logits.unsqueeze(1).masked_fill(&own, NOTHING);
        // log e of degrees 0 to keep − 1, of the first j of the others: [row, candidate].
        let all = |log_e: f64| Tensor::full([rows, width], log_e, (kind, device));
        let mut log_e: Vec<Tensor> = degrees
            .map(|degree| all(if degree == 0 { 0.0 } else { NOTHING }))
            .collect();
        if log_e.len() > 1 {
            for other in others.unbind(2) {
                for degree in (1..log_e.len()).rev() {
                    log_e[degree] = log_e[degree].logaddexp(&(&log_e[degree - 1] + &other));
                }
            }
        }
        let kept = Tensor::from_slice(&kept).to_device(device).view([rows, 1]);
        let degree = (&kept - 1).expand([rows, width], false).unsqueeze(0);
        let log_e = Tensor::stack(&log_e, 0).gather(0, &degree, false);
        (logits + log_e.squeeze_dim(0), kept)
    }

    /// `logits` with minus infinity in the padding.
    pub fn masked_logits(&self, logits: &Tensor) -> Tensor {
        if self.is_ragged() {
            logits.masked_fill(&self.mask(logits.device()).logical_not(), f64::NEG_INFINITY)
        } else {
            logits.shallow_clone()
        }
    }
}

impl Group {
    /// [`ArchSpec::entropy`] of this group alone, `[row][candidate]`.
    pub fn entropy(&self, weights: &[Vec<f64>]) -> f64 {
        mean_entropy(self.rows.iter(), weights.iter())
    }
}

fn mean_entropy<'a>(
    rows: impl Iterator<Item = &'a Row>,
    weights: impl Iterator<Item = &'a Vec<f64>>,
) -> f64 {
    let open = rows
        .zip(weights)
        .filter(|(row, weights)| row.keep < weights.len());
    mean(open.map(|(row, weights)| row_entropy(weights, row.keep)))
}

/// Zero of nothing.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0), |(sum, n), x| (sum + x, n + 1));
    sum / f64::from(n.max(1))
}

/// Probabilities or weights of every candidate, on the host: `[group][row][candidate]`, without padding.
pub type Marginals = Vec<Vec<Vec<f64>>>;

/// An ordered list of groups: everything that an architecture decides.
///
/// Distributions and strategies are written against this alone, so that any of them runs on any space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchSpec {
    groups: Vec<Group>,
}

impl ArchSpec {
    /// Checks the groups: names unique, rows not empty, `1 ≤ keep ≤ candidates`.
    pub fn new(groups: Vec<Group>) -> Result<Self> {
        let bad = |why: String| {
            Err(Error::Invalid {
                what: "architecture spec".into(),
                why,
            })
        };
        if groups.is_empty() {
            return bad("it has no groups".into());
        }
        for (i, g) in groups.iter().enumerate() {
            if groups[..i].iter().any(|h| h.name == g.name) {
                return bad(format!("two groups are named `{}`", g.name));
            }
            if g.rows.is_empty() {
                return bad(format!("group `{}` has no rows", g.name));
            }
            if g.edges
                .as_ref()
                .is_some_and(|e| e.ends.len() != g.rows.len())
            {
                return bad(format!("group `{}` has not one edge a row", g.name));
            }
            for (j, r) in g.rows.iter().enumerate() {
                if g.rows[..j].iter().any(|s| s.name == r.name) {
                    return bad(format!(
                        "group `{}` has two rows named `{}`",
                        g.name, r.name
                    ));
                }
                if r.keep == 0 || r.keep > r.candidates.len() {
                    return bad(format!(
                        "row `{}` of group `{}` keeps {} of {} candidates",
                        r.name,
                        g.name,
                        r.keep,
                        r.candidates.len()
                    ));
                }
            }
        }
        Ok(Self { groups })
    }

    /// The groups, in order.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Entries of all groups' matrices, padding included: the length of [`ArchSpec::split`]'s argument.
    pub fn numel(&self) -> i64 {
        self.groups
            .iter()
            .map(|g| g.shape().iter().product::<i64>())
            .sum()
    }

    /// Views of a flat tensor (`[numel]`) as one matrix per group, by a single `split_with_sizes`.
    pub fn split(&self, flat: &Tensor) -> Vec<Tensor> {
        let sizes: Vec<i64> = self
            .groups
            .iter()
            .map(|g| g.shape().iter().product())
            .collect();
        flat.split_with_sizes(sizes, 0)
            .into_iter()
            .zip(&self.groups)
            .map(|(part, g)| part.view(g.shape()))
            .collect()
    }

    /// Row-wise masked softmax of a flat tensor of logits, one matrix per group.
    pub fn softmax(&self, flat: &Tensor) -> Vec<Tensor> {
        self.split(flat)
            .iter()
            .zip(&self.groups)
            .map(|(logits, g)| g.softmax(logits))
            .collect()
    }

    /// Number of distinct choices (a float, since spaces are large).
    pub fn size(&self) -> f64 {
        let binomial = |n: usize, k: usize| {
            (0..k)
                .map(|i| (n - i) as f64 / (i + 1) as f64)
                .product::<f64>()
                .round()
        };
        self.rows()
            .map(|(_, _, r)| binomial(r.candidates.len(), r.keep))
            .product()
    }

    /// All rows with the indices of their group and row.
    pub fn rows(&self) -> impl Iterator<Item = (usize, usize, &Row)> {
        self.groups.iter().enumerate().flat_map(|(g, group)| {
            group
                .rows
                .iter()
                .enumerate()
                .map(move |(r, row)| (g, r, row))
        })
    }

    /// Every choice of the space, the last row varying fastest. Meant for small spaces: see [`ArchSpec::size`].
    pub fn enumerate(&self) -> impl Iterator<Item = Choice> + '_ {
        let subsets: Vec<Vec<Vec<usize>>> = self
            .rows()
            .map(|(_, _, r)| subsets(r.candidates.len(), r.keep))
            .collect();
        let mut counter = Some(vec![0usize; subsets.len()]);
        std::iter::from_fn(move || {
            let current = counter.clone()?;
            let mut next = current.clone();
            let mut at = next.len();
            counter = loop {
                if at == 0 {
                    break None;
                }
                at -= 1;
                next[at] += 1;
                if next[at] < subsets[at].len() {
                    break Some(next);
                }
                next[at] = 0;
            };
            let mut flat = current.iter().zip(&subsets).map(|(&i, s)| s[i].clone());
            Some(Choice::new(
                self.groups
                    .iter()
                    .map(|g| g.rows.iter().filter_map(|_| flat.next()).collect())
                    .collect(),
            ))
        })
    }

    /// A choice drawn uniformly: every row independently, every subset of `keep` candidates equally likely.
    pub fn uniform(&self, rng: &mut impl RngExt) -> Choice {
        Choice::new(
            self.groups
                .iter()
                .map(|g| {
                    g.rows
                        .iter()
                        .map(|r| {
                            let mut left: Vec<usize> = (0..r.candidates.len()).collect();
                            let mut kept: Vec<usize> = (0..r.keep)
                                .map(|_| left.swap_remove(rng.random_range(0..left.len())))
                                .collect();
                            kept.sort_unstable();
                            kept
                        })
                        .collect()
                })
                .collect(),
        )
    }

    /// The `keep` largest candidates of every row; of equals the first wins, so that ties are deterministic.
    pub fn top(&self, marginals: &Marginals) -> Choice {
        Choice::new(
            self.groups
                .iter()
                .zip(marginals)
                .map(|(g, rows)| {
                    g.rows
                        .iter()
                        .zip(rows)
                        .map(|(row, weights)| top_k(weights, row.keep))
                        .collect()
                })
                .collect(),
        )
    }

    /// Mean entropy ([`row_entropy`]) of the rows that have something to decide: 1 is undecided, 0 is decided.
    pub fn entropy(&self, marginals: &Marginals) -> f64 {
        mean_entropy(
            self.rows().map(|(_, _, row)| row),
            marginals.iter().flatten(),
        )
    }

    /// Mean sharpness ([`Row::sharpness`]) of all rows.
    pub fn sharpness(&self, marginals: &Marginals) -> f64 {
        let rows = self.rows().zip(marginals.iter().flatten());
        mean(rows.map(|((_, _, row), weights)| row.sharpness(weights)))
    }

    /// Copies one matrix per group to the host, dropping the padding.
    pub fn to_marginals(&self, matrices: &[Tensor]) -> Marginals {
        self.groups
            .iter()
            .zip(matrices)
            .map(|(g, m)| {
                let m = m
                    .detach()
                    .to_kind(Kind::Double)
                    .to_device(Device::Cpu)
                    .contiguous();
                let flat = Vec::<f64>::try_from(m.view([-1])).unwrap_or_default();
                g.rows
                    .iter()
                    .zip(flat.chunks(g.width()))
                    .map(|(r, c)| c[..r.candidates.len()].to_vec())
                    .collect()
            })
            .collect()
    }
}

/// Indices of the `k` largest weights in increasing order; of equals the first wins.
fn top_k(weights: &[f64], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    let mut kept = order[..k.min(order.len())].to_vec();
    kept.sort_unstable();
    kept
}

/// All subsets of `k` of the numbers below `n`, each in increasing order.
pub fn subsets(n: usize, k: usize) -> Vec<Vec<usize>> {
    if k == 0 {
        return vec![vec![]];
    }
    (k - 1..n)
        .flat_map(|last| {
            subsets(last, k - 1).into_iter().map(move |mut s| {
                s.push(last);
                s
            })
        })
        .collect()
}
