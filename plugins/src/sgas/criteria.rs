//! What says which edge can be decided (section 3.2 of the paper).

use nasfw_framework::prelude::*;
use serde::{Deserialize, Serialize};

/// The criteria of a group's rows, and the score that they make.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Criteria {
    /// Edge importance, from 0 to 1.
    #[serde(with = "nasfw_framework::lossless")]
    pub importance: Vec<f64>,
    /// Selection certainty, from 0 to 1.
    #[serde(with = "nasfw_framework::lossless")]
    pub certainty: Vec<f64>,
    /// Selection stability, from 0 to 1; empty where it does not count.
    #[serde(with = "nasfw_framework::lossless")]
    pub stability: Vec<f64>,
    /// Product of the criteria, each stretched to 0 … 1 over the group.
    #[serde(with = "nasfw_framework::lossless")]
    pub score: Vec<f64>,
}

impl Criteria {
    /// A line per row of the group.
    pub fn picture(&self) -> Picture {
        let columns = [
            &self.importance,
            &self.certainty,
            &self.stability,
            &self.score,
        ];
        (0..self.score.len())
            .map(|r| columns.iter().filter_map(|c| c.get(r).copied()).collect())
            .collect()
    }
}

/// The criteria of all groups, given the probabilities now and, where stability counts, after earlier epochs.
pub(super) fn of(spec: &ArchSpec, now: &Marginals, history: Option<&[Marginals]>) -> Vec<Criteria> {
    let groups = spec.groups().iter().enumerate();
    groups
        .map(|(g, group)| {
            let of_rows = |f: &dyn Fn(usize, Option<usize>) -> f64| -> Vec<f64> {
                let rows = group.rows.iter().enumerate();
                rows.map(|(r, row)| f(r, row.column("none"))).collect()
            };
            let importance = of_rows(&|r, none| importance(&now[g][r], none));
            let certainty = of_rows(&|r, none| certainty(&real(&now[g][r], none)));
            let stability = history.map_or_else(Vec::new, |history| {
                of_rows(&|r, none| {
                    let past: Vec<_> = history.iter().map(|p| real(&p[g][r], none)).collect();
                    stability(&real(&now[g][r], none), &past)
                })
            });
            let mut score = vec![1.0; group.rows.len()];
            for values in [&importance, &certainty, &stability] {
                for (score, factor) in score.iter_mut().zip(stretched(values)) {
                    *score *= factor;
                }
            }
            Criteria {
                importance,
                certainty,
                stability,
                score,
            }
        })
        .collect()
}

/// Probability that an edge is anything but `none`: exactly 1 where it can't be.
pub(super) fn importance(p: &[f64], none: Option<usize>) -> f64 {
    none.map_or(1.0, |none| 1.0 - p[none])
}

fn without(p: &[f64], none: Option<usize>) -> impl Iterator<Item = f64> {
    let others = p.iter().enumerate().filter(move |(c, _)| Some(*c) != none);
    others.map(|(_, p)| *p)
}

/// Probabilities of what is not `none`, given that it is not.
fn real(p: &[f64], none: Option<usize>) -> Vec<f64> {
    let sum: f64 = without(p, none).sum();
    without(p, none).map(|p| p / sum).collect()
}

/// 1 minus the entropy divided by its largest value.
fn certainty(p: &[f64]) -> f64 {
    1.0 - nasfw_framework::arch::row_entropy(p, 1)
}

/// Mean intersection of the distribution with earlier ones; 0 without any.
fn stability(p: &[f64], past: &[Vec<f64>]) -> f64 {
    let shared = |old: &Vec<f64>| p.iter().zip(old).map(|(a, b)| a.min(*b)).sum::<f64>();
    past.iter().map(shared).sum::<f64>() / past.len().max(1) as f64
}

/// Values moved and scaled so that they reach from 0 to 1; all 1 where they are equal, since they tell nothing then.
fn stretched(values: &[f64]) -> Vec<f64> {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let one = |v: &f64| {
        if high > low {
            (v - low) / (high - low)
        } else {
            1.0
        }
    };
    values.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn closed_forms() {
        let p = [0.4, 0.3, 0.3];
        assert!(near(importance(&p, Some(0)), 0.6) && near(importance(&p, None), 1.0));
        // Uniform over what is not none: no certainty at all.
        assert!(near(certainty(&real(&p, Some(0))), 0.0));
        // One of seven with ¼, one with ¾: 1 − (2 ln 2 − ¾ ln 3) / ln 7.
        let two = [0.25, 0.75, 0.0, 0.0, 0.0, 0.0, 0.0];
        let entropy = 2.0 * 2f64.ln() - 0.75 * 3f64.ln();
        assert!(near(certainty(&two), 1.0 - entropy / 7f64.ln()));
        assert!(near(certainty(&[1.0]), 1.0));
        // min(½, ½) + min(½, ¼) = ¾ and ½ + 0 = ½.
        let past = [vec![0.75, 0.25], vec![1.0, 0.0]];
        assert!(near(stability(&[0.5, 0.5], &past), 0.625));
        assert!(near(stability(&[0.5, 0.5], &[]), 0.0));
        assert_eq!(stretched(&[2.0, 4.0, 3.0]), [0.0, 1.0, 0.5]);
        assert_eq!(stretched(&[2.0, 2.0]), [1.0, 1.0]);
    }

    /// Rows of probabilities sum to one but for rounding, which must not become a score.
    #[test]
    fn where_nothing_is_none_importance_tells_nothing() {
        let row = |name: &str| Row {
            name: name.into(),
            candidates: ["a", "b", "c"].map(String::from).to_vec(),
            keep: 1,
        };
        let group = Group {
            name: "cell".into(),
            role: Role::Operations,
            rows: ["0->2", "1->2"].map(row).to_vec(),
            edges: Some(Edges {
                ends: vec![(0, 2), (1, 2)],
                keep: Some(2),
            }),
        };
        let spec = ArchSpec::new(vec![group]).unwrap();
        let now = vec![vec![vec![0.7, 0.2, 0.1], vec![0.3, 0.3, 0.4]]];
        assert!(now[0][0].iter().sum::<f64>() < 1.0);
        let found = of(&spec, &now, None).remove(0);
        assert_eq!(found.importance, [1.0, 1.0]);
        assert_eq!(found.score, [1.0, 0.0]);
    }

    proptest! {
        #[test]
        fn criteria_lie_between_0_and_1(p in prop::collection::vec(0.01f64..1.0, 2..9), q in prop::collection::vec(0.01f64..1.0, 9)) {
            let normed = |v: &[f64]| v.iter().map(|x| x / v.iter().sum::<f64>()).collect::<Vec<_>>();
            let (p, q) = (normed(&p), normed(&q[..p.len()]));
            for value in [importance(&p, Some(0)), certainty(&real(&p, Some(0))), stability(&p, &[q, p.clone()])] {
                prop_assert!((-1e-12..=1.0 + 1e-12).contains(&value));
            }
            prop_assert!(near(stability(&p, std::slice::from_ref(&p)), 1.0));
        }
    }
}
