//! FairDARTS (Chu et al. 2020): candidates that do not compete, each with a sigmoid weight of its own.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::{bilevel, sparse};

/// Settings of FairDARTS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FairDartsConfig {
    /// Weight w₀₁ of the zero-one loss.
    pub zero_one: f64,
    /// The form of the zero-one loss.
    pub zero_one_norm: Norm,
    /// Weight from which on a candidate is kept.
    pub threshold: f64,
    /// Optimizer of the logits.
    pub arch: OptimizerConfig,
}

/// The form of the zero-one loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    /// −mean (σ − ½)² (equation 6).
    L2,
    /// −mean |σ − ½| (equation 7).
    L1,
}

register! {
    strategy "fair-darts" => FairDartsConfig,
    summary: "FairDARTS: independent sigmoid weights, a zero-one loss, candidates kept by a threshold",
    source: "Chu, Zhou, Zhang, Li 2020, ECCV, arXiv:1911.12126",
    defaults: concat!(r#"[strategy]
# Weight of the zero-one loss, which drives weights to zero or one.
zero_one = 10.0
# "l2" is -mean (weight - 0.5)^2, "l1" is -mean |weight - 0.5|.
zero_one_norm = "l2"
# An edge is kept if its best candidate weighs at least this, where edges into a node compete or may be `none`.
threshold = 0.85
"#, nasfw_framework::arch_adam!("3e-3", beta: "0.9"), r#"
[trainer]
epochs = 50
batch_size = 128

[trainer.weights]
lr = 5e-3
"#),
    example: "nasfw run --strategy fair-darts --space darts",
    presets: &[("l1", "[strategy]\nzero_one_norm = \"l1\"\n")],
}

#[typetag::serde(name = "fair-darts")]
impl StrategyConfig for FairDartsConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(FairDarts {
            config: self.clone(),
            sigmoid: IndependentSigmoid::new(cx.spec),
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.at_least("strategy.zero_one", self.zero_one, 0.0);
        v.range("strategy.threshold", self.threshold, 0.0, 1.0);
        self.arch.validate("strategy.arch", v);
    }
}

/// σ(α) for every candidate but `none`, which weighs nothing and is not computed. Logits start at zero.
struct IndependentSigmoid {
    spec: ArchSpec,
    layout: ParamLayout,
    active: sparse::Table,
}

impl IndependentSigmoid {
    fn new(spec: &ArchSpec) -> Self {
        let mut layout = ParamLayout::new();
        layout.add("alpha", &[spec.numel()], Init::Zeros);
        Self {
            spec: spec.clone(),
            layout,
            active: sparse::real(spec),
        }
    }

    /// One where there is a candidate other than `none`, one matrix `[rows, width]` per group.
    fn real(&self, kind: Kind, device: Device) -> Vec<Tensor> {
        sparse::masks(&self.spec, &self.active, kind, device)
    }

    fn weights(&self, phi: &Tensor) -> Vec<Tensor> {
        let groups = self.spec.split(&phi.sigmoid()).into_iter();
        let real = self.real(phi.kind(), phi.device());
        groups.zip(real).map(|(sigma, real)| sigma * real).collect()
    }

    /// L₀₁, the mean over all candidates but `none` (equations 6 and 7).
    fn zero_one(&self, phi: &Tensor, norm: Norm) -> Tensor {
        let groups = self.spec.split(&(phi.sigmoid() - 0.5)).into_iter();
        let real = self.real(phi.kind(), phi.device());
        let count: usize = self
            .active
            .iter()
            .flatten()
            .flatten()
            .filter(|on| **on)
            .count();
        let terms = groups.zip(&real).map(|(away, real)| {
            let away = match norm {
                Norm::L2 => away.square(),
                Norm::L1 => away.abs(),
            };
            (away * real).sum(phi.kind())
        });
        -terms.sum::<Tensor>() / count as f64
    }
}

impl ArchDistribution for IndependentSigmoid {
    fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    fn sample(&self, phi: &Tensor, _rng: &mut Rng) -> Result<RelaxedArch> {
        Ok(RelaxedArch::new(self.weights(phi)).with_active(self.active.clone()))
    }

    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        Ok(self.weights(phi))
    }
}

struct FairDarts {
    config: FairDartsConfig,
    sigmoid: IndependentSigmoid,
}

impl Strategy for FairDarts {
    /// A step of first-order DARTS, with the zero-one loss in the architecture's (equation 5).
    fn step(&mut self, search: &mut Search) -> Result<()> {
        // 1. Update α by descending ∇_α (L_val(w, σ(α)) + w₀₁ L₀₁(α)).
        let loss = bilevel::validation_loss(search, &self.sigmoid)?;
        let zero_one = self
            .sigmoid
            .zero_one(&search.phi(), self.config.zero_one_norm);
        bilevel::descend_architecture(search, &(loss + zero_one * self.config.zero_one))?;
        // 2. Update w by descending ∇_w L_train(w, σ(α)).
        let train = search.batch(Split::Train)?;
        bilevel::descend_weights(search, &self.sigmoid, &train)
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.sigmoid)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }

    /// Where edges into a node compete, or may be `none`: what passes the threshold. Elsewhere the space's own rule.
    fn derive(&self, search: &Search) -> Result<Choice> {
        let p = self.sigmoid.mean(&search.phi().detach())?;
        let least = self.config.threshold;
        let spec = &self.sigmoid.spec;
        Ok(crate::derived_by_group(
            search,
            spec,
            &p,
            |group, p, kept| {
                threshold(group, p, least, kept);
            },
        ))
    }
}

/// Per node the edges with the strongest candidates (other than `none`), as many as the space keeps, of those that weigh
/// at least `threshold`; of equals the first wins. Where every edge keeps something, edges below the threshold keep
/// `none`, if they have it. A group whose rows are no edges stays as it is.
fn threshold(group: &Group, p: &[Vec<f64>], threshold: f64, kept: &mut [Vec<usize>]) {
    let Some(edges) = &group.edges else { return };
    let best = |r: usize| {
        let none = group.rows[r].column("none");
        let real = (0..p[r].len()).filter(|c| Some(*c) != none);
        real.reduce(|a, b| if p[r][b] > p[r][a] { b } else { a })
            .filter(|&c| p[r][c] >= threshold)
    };
    for rows in group.nodes() {
        let mut passing: Vec<(usize, usize)> = (rows.iter().copied())
            .filter_map(|r| Some((r, best(r)?)))
            .collect();
        passing.sort_by(|a, b| p[b.0][b.1].total_cmp(&p[a.0][a.1]));
        match edges.keep {
            Some(keep) => {
                passing.truncate(keep);
                rows.iter().for_each(|&r| kept[r].clear());
            }
            None => rows.iter().for_each(|&r| {
                // Without `none` the strongest stays, as the space has derived it.
                if let Some(none) = group.rows[r].column("none") {
                    kept[r] = vec![none];
                }
            }),
        }
        passing.into_iter().for_each(|(r, c)| kept[r] = vec![c]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nasfw_framework::arch::subsets;
    use proptest::prelude::*;

    const CANDIDATES: [&str; 4] = ["none", "a", "b", "c"];

    /// A cell of two inputs and two nodes: five edges.
    fn group(candidates: &[&str], keep: Option<usize>) -> Group {
        let ends = vec![(0, 2), (1, 2), (0, 3), (1, 3), (2, 3)];
        let row = |(from, to): &(usize, usize)| Row {
            name: format!("{from}->{to}"),
            candidates: candidates.iter().map(|c| (*c).to_owned()).collect(),
            keep: 1,
        };
        Group {
            name: "cell".into(),
            role: Role::Operations,
            rows: ends.iter().map(row).collect(),
            edges: Some(Edges { ends, keep }),
        }
    }

    fn numbers(t: &Tensor) -> Vec<f64> {
        Vec::try_from(t.detach().reshape([-1])).unwrap()
    }

    fn weights() -> impl proptest::strategy::Strategy<Value = Vec<Vec<f64>>> {
        prop::collection::vec(prop::collection::vec(0.6f64..1.0, 4), 5)
    }

    fn sigmoid(alpha: &[f64]) -> (IndependentSigmoid, Tensor) {
        let spec = ArchSpec::new(vec![group(&CANDIDATES, Some(2))]).unwrap();
        let phi = Tensor::from_slice(alpha).set_requires_grad(true);
        (IndependentSigmoid::new(&spec), phi)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Of all sets of at most two edges into a node with a candidate each, all at the threshold or above, the
        /// largest, and of these the one with the largest sum.
        #[test]
        fn the_threshold_keeps_the_best_set_of_edges(p in weights(), at in 0.6f64..1.1) {
            let group = group(&CANDIDATES, Some(2));
            let mut kept = vec![vec![0]; 5];
            threshold(&group, &p, at, &mut kept);
            for rows in [vec![0, 1], vec![2, 3, 4]] {
                let mut best = (0, 0.0);
                for size in 1..=2 {
                    for set in subsets(rows.len(), size) {
                        let strongest: Vec<f64> = set.iter().map(|&i: &usize| p[rows[i]][1..].iter().copied().fold(0.0, f64::max)).collect();
                        let sum = strongest.iter().sum::<f64>();
                        if strongest.iter().all(|s| *s >= at) && (size, sum) > best {
                            best = (size, sum);
                        }
                    }
                }
                let own: Vec<f64> = rows.iter().flat_map(|&r| kept[r].iter().map(move |&c| (r, c))).map(|(r, c)| p[r][c]).collect();
                prop_assert_eq!(own.len(), best.0);
                prop_assert!((own.iter().sum::<f64>() - best.1).abs() < 1e-12);
                prop_assert!(rows.iter().all(|&r| kept[r].len() < 2 && !kept[r].contains(&0)));
            }
        }

        #[test]
        fn where_every_edge_keeps_something_the_strongest_stays_or_none(p in weights(), at in 0.6f64..1.1) {
            for (candidates, none) in [(&CANDIDATES, true), (&["a", "b", "c", "d"], false)] {
                let mut kept = vec![vec![3]; 5];
                threshold(&group(candidates, None), &p, at, &mut kept);
                for (kept, p) in kept.iter().zip(&p) {
                    let first = usize::from(none);
                    let best = (first..4).fold(first, |a, b| if p[b] > p[a] { b } else { a });
                    let expected = match (p[best] >= at, none) {
                        (true, _) => best,
                        (false, true) => 0,
                        (false, false) => 3, // As the space derived it.
                    };
                    prop_assert_eq!(kept, &vec![expected]);
                }
            }
        }

        /// ∂L₀₁/∂α = −2 (σ − ½) σ (1 − σ) / n (L2), ∓ σ (1 − σ) / n (L1), n candidates without `none`.
        #[test]
        fn the_zero_one_loss_has_its_closed_form(alpha in prop::collection::vec(-4.0f64..4.0, 20), l1: bool) {
            let (d, phi) = sigmoid(&alpha);
            let loss = d.zero_one(&phi, if l1 { Norm::L1 } else { Norm::L2 });
            let seen = numbers(&Tensor::run_backward(&[&loss], &[&phi], false, false)[0]);
            let mut value = 0.0;
            for (i, a) in alpha.iter().enumerate() {
                let s = 1.0 / (1.0 + (-a).exp());
                let real = f64::from(u8::from(i % 4 != 0)) / 15.0;
                let (term, slope) = if l1 {
                    ((s - 0.5).abs(), (s - 0.5).signum())
                } else {
                    ((s - 0.5).powi(2), 2.0 * (s - 0.5))
                };
                value -= term * real;
                let expected = -slope * s * (1.0 - s) * real;
                prop_assert!((seen[i] - expected).abs() < 1e-12, "{i}: {} and {expected}", seen[i]);
            }
            prop_assert!((loss.double_value(&[]) - value).abs() < 1e-12);
        }

        /// Candidates don't compete: a logit moves its own weight alone, by σ (1 − σ); `none` weighs nothing.
        #[test]
        fn weights_are_independent(alpha in prop::collection::vec(-4.0f64..4.0, 20), of in 0usize..20) {
            let (d, phi) = sigmoid(&alpha);
            let a = d.sample(&phi, &mut Streams::new(0).at("none", 0)).unwrap();
            let w = a.weights[0].reshape([-1]);
            let seen = numbers(&Tensor::run_backward(&[&w.get(of as i64)], &[&phi], false, false)[0]);
            let w = numbers(&w);
            for i in 0..20 {
                let s = 1.0 / (1.0 + (-alpha[i]).exp());
                let real = i % 4 != 0;
                prop_assert_eq!(a.is_active(0, i / 4, i % 4), real);
                let expected = if real { s } else { 0.0 };
                prop_assert!((w[i] - expected).abs() < 1e-12);
                let slope = if real && i == of { s * (1.0 - s) } else { 0.0 };
                prop_assert!((seen[i] - slope).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn weights_start_at_one_half() {
        let (d, _) = sigmoid(&[0.0; 20]);
        let phi = d.init(Streams::new(1), Kind::Double, Device::Cpu);
        assert_eq!(numbers(&phi), [0.0; 20]);
        assert_eq!(numbers(&d.weights(&phi)[0])[..4], [0.0, 0.5, 0.5, 0.5]);
    }
}
