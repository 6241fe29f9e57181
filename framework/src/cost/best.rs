//! The likeliest architecture that meets limits.

use std::collections::{BinaryHeap, HashSet};

use super::limits::{Limit, Limits};
use super::model::real;
use crate::arch::{Choice, Marginals, subsets};
use crate::space::SearchSpace;

/// Partial architectures that are kept beside each other, where there are several limits.
const BESIDE: usize = 500;
/// Architectures that are looked at one after the other, the likeliest first, where a cost is no sum.
const LOOKED_AT: usize = 1000;
/// Changes that make an architecture cheaper, one after the other.
const CHANGES: usize = 100;
/// Weights below count as this.
const TINY: f64 = 1e-300;

/// One way to decide something.
#[derive(Debug, Clone)]
struct Way {
    /// Group, row, candidates.
    kept: Vec<(usize, usize, Vec<usize>)>,
    /// Logarithm of the product of the weights.
    score: f64,
    /// What it adds, limit by limit.
    costs: Vec<f64>,
}

/// Everything that is decided on its own, with all ways to decide it, the likeliest first: rows, or nodes that keep some of
/// their edges.
struct Decisions<'a> {
    limits: &'a Limits,
    space: &'a dyn SearchSpace,
    all: Vec<Vec<Way>>,
}

/// The architecture of largest product of weights that meets all limits: exactly for one limit on a cost that is a sum. For
/// several it is the best of those that were kept beside each other, and where a cost is no sum the first of the likeliest, or
/// else the likeliest made cheaper step by step. None where none was found.
pub(super) fn best(
    limits: &Limits,
    space: &dyn SearchSpace,
    marginals: &Marginals,
) -> Option<Choice> {
    let decisions = Decisions::new(limits, space, marginals);
    match limits.all().iter().all(|limit| limit.model().is_sum()) {
        true => decisions.best_sum(),
        false => decisions.first_that_fits(),
    }
}

impl<'a> Decisions<'a> {
    fn new(limits: &'a Limits, space: &'a dyn SearchSpace, marginals: &Marginals) -> Self {
        let spec = space.spec();
        let log = |g: usize, r: usize, c: usize| marginals[g][r][c].max(TINY).ln();
        let way = |kept: Vec<(usize, usize, Vec<usize>)>| {
            let each = || {
                let rows = kept.iter();
                rows.flat_map(|(g, r, columns)| columns.iter().map(|c| (*g, *r, *c)))
            };
            let of_limit = |limit: &Limit| {
                let parts = limit.model().parts()?;
                Some(each().map(|(g, r, c)| parts[g][r][c]).sum())
            };
            Way {
                score: each().map(|(g, r, c)| log(g, r, c)).sum(),
                costs: limits.all().iter().filter_map(of_limit).collect(),
                kept,
            }
        };
        let mut all: Vec<Vec<Way>> = vec![];
        for (g, group) in spec.groups().iter().enumerate() {
            let Some(contest) = limits.all().first().and_then(|l| l.model().contest(g)) else {
                for (r, row) in group.rows.iter().enumerate() {
                    let ways = subsets(row.candidates.len(), row.keep).into_iter();
                    all.push(ways.map(|kept| way(vec![(g, r, kept)])).collect());
                }
                continue;
            };
            for (node, edges) in contest.edges.iter().enumerate() {
                let mut ways = vec![];
                for chosen in subsets(edges.len(), contest.keep(node)) {
                    let mut kept: Vec<Vec<(usize, usize, Vec<usize>)>> = vec![vec![]];
                    for i in chosen {
                        let edge = edges[i];
                        let with = |before: &Vec<_>| {
                            let columns = real(&group.rows[edge]);
                            let each = columns.map(|c| [before.clone(), vec![(g, edge, vec![c])]]);
                            each.map(|parts| parts.concat()).collect::<Vec<_>>()
                        };
                        kept = kept.iter().flat_map(with).collect();
                    }
                    ways.extend(kept.into_iter().map(&way));
                }
                all.push(ways);
            }
        }
        for ways in &mut all {
            // Of equals the first stays first.
            ways.sort_by(|a, b| b.score.total_cmp(&a.score));
        }
        Self { limits, space, all }
    }

    /// The architecture of one way for every decision.
    fn choice<'w>(&self, ways: impl Iterator<Item = &'w Way>) -> Choice {
        let groups = self.space.spec().groups().iter();
        let mut kept: Vec<Vec<Vec<usize>>> = groups.map(|g| vec![vec![]; g.rows.len()]).collect();
        for (g, r, columns) in ways.flat_map(|way| &way.kept) {
            kept[*g][*r].clone_from(columns);
        }
        Choice::new(kept)
    }

    /// By dynamic programming over the decisions: of partial architectures those stay that no other one beats in its score and
    /// in every cost.
    fn best_sum(&self) -> Option<Choice> {
        let all: Vec<Vec<Way>> = self.all.iter().map(|ways| unbeaten_ways(ways)).collect();
        let limits = self.limits.all();
        // What the decisions that follow cost at least.
        let mut least: Vec<Vec<f64>> = vec![vec![0.0; limits.len()]];
        for ways in all.iter().rev() {
            let after = &least[least.len() - 1];
            let of = |k: usize| {
                ways.iter()
                    .map(|w| w.costs[k])
                    .fold(f64::INFINITY, f64::min)
            };
            least.push((0..limits.len()).map(|k| after[k] + of(k)).collect());
        }
        let fits = |costs: &[f64], after: &[f64]| {
            let all = costs.iter().zip(after).zip(limits);
            // A sum in another order may differ in its last digits.
            all.into_iter()
                .all(|((cost, after), l)| cost + after <= l.most() * (1.0 + 1e-9))
        };
        // Costs, score, way, and the place of what came before.
        type Partial = (Vec<f64>, f64, usize, usize);
        let start = limits.iter().map(|l| l.model().base()).collect();
        let mut layers: Vec<Vec<Partial>> = vec![vec![(start, 0.0, 0, 0)]];
        for (i, ways) in all.iter().enumerate() {
            let after = &least[all.len() - 1 - i];
            let mut next: Vec<Partial> = vec![];
            for (before, (costs, score, ..)) in layers[i].iter().enumerate() {
                for (w, way) in ways.iter().enumerate() {
                    let sums = costs.iter().zip(&way.costs).map(|(a, b)| a + b);
                    let costs: Vec<f64> = sums.collect();
                    if fits(&costs, after) {
                        next.push((costs, score + way.score, w, before));
                    }
                }
            }
            layers.push(unbeaten(next, |p| (p.0.as_slice(), p.1)));
        }
        let last = layers.last()?.iter().enumerate();
        let (mut at, _) = last.max_by(|a, b| a.1.1.total_cmp(&b.1.1).then(b.0.cmp(&a.0)))?;
        let mut ways = vec![];
        for (ways_here, layer) in all.iter().zip(&layers[1..]).rev() {
            let (_, _, way, before) = &layer[at];
            ways.push(&ways_here[*way]);
            at = *before;
        }
        Some(self.choice(ways.into_iter()))
    }

    fn at(&self, places: &[usize]) -> Choice {
        let ways = self.all.iter().zip(places);
        self.choice(ways.map(|(ways, &place)| &ways[place]))
    }

    /// Goes through architectures from the likeliest on.
    fn first_that_fits(&self) -> Option<Choice> {
        let score = |places: &[usize]| {
            let ways = self.all.iter().zip(places);
            ways.map(|(ways, &place)| ways[place].score).sum::<f64>()
        };
        let start = vec![0; self.all.len()];
        let mut open = BinaryHeap::from([Ranked(score(&start), start.clone())]);
        let mut seen = HashSet::from([start.clone()]);
        for _ in 0..LOOKED_AT {
            let Some(Ranked(_, places)) = open.pop() else {
                break;
            };
            let choice = self.at(&places);
            if self.limits.excess(self.space, &choice) == 0.0 {
                return Some(choice);
            }
            for i in 0..places.len() {
                let mut next = places.clone();
                next[i] += 1;
                if next[i] < self.all[i].len() && seen.insert(next.clone()) {
                    open.push(Ranked(score(&next), next));
                }
            }
        }
        self.made_cheaper(start)
    }

    /// Changes one decision after the other: the one that takes most of what is too much, for what it takes from the score.
    fn made_cheaper(&self, mut places: Vec<usize>) -> Option<Choice> {
        for _ in 0..CHANGES {
            let here = self.limits.excess(self.space, &self.at(&places));
            if here == 0.0 {
                return Some(self.at(&places));
            }
            let mut best: Option<(f64, usize, usize)> = None;
            for (i, ways) in self.all.iter().enumerate() {
                for w in (0..ways.len()).filter(|w| *w != places[i]) {
                    let mut next = places.clone();
                    next[i] = w;
                    let saved = here - self.limits.excess(self.space, &self.at(&next));
                    let lost = (ways[places[i]].score - ways[w].score).max(0.0);
                    let worth = saved / (lost + 1e-9);
                    if saved > 0.0 && best.is_none_or(|(most, ..)| worth > most) {
                        best = Some((worth, i, w));
                    }
                }
            }
            let (_, i, w) = best?;
            places[i] = w;
        }
        None
    }
}

/// By score.
#[derive(PartialEq)]
struct Ranked(f64, Vec<usize>);

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // Of equals the one of earlier candidates is first.
        self.0.total_cmp(&other.0).then(other.1.cmp(&self.1))
    }
}

fn unbeaten_ways(ways: &[Way]) -> Vec<Way> {
    unbeaten(ways.to_vec(), |way| (way.costs.as_slice(), way.score))
}

/// Those that no other one beats in its score without costing more; of equals the first. Of several costs at most so many, the
/// best.
fn unbeaten<T>(mut all: Vec<T>, of: impl Fn(&T) -> (&[f64], f64)) -> Vec<T> {
    let one = all.first().is_none_or(|first| of(first).0.len() == 1);
    if one {
        all.sort_by(|a, b| {
            let ((a, score_a), (b, score_b)) = (of(a), of(b));
            a[0].total_cmp(&b[0]).then(score_b.total_cmp(&score_a))
        });
        let mut best = f64::NEG_INFINITY;
        all.retain(|x| {
            let better = of(x).1 > best;
            best = best.max(of(x).1);
            better
        });
        return all;
    }
    all.sort_by(|a, b| of(b).1.total_cmp(&of(a).1));
    let mut kept: Vec<T> = vec![];
    for x in all {
        let beats = |k: &T| of(k).0.iter().zip(of(&x).0).all(|(a, b)| a <= b);
        if kept.len() < BESIDE && !kept.iter().any(beats) {
            kept.push(x);
        }
    }
    kept
}
