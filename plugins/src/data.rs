//! DATA (Chang et al. 2019): every edge carries all candidates that any of M Gumbel-softmax draws hit, straight through,
//! learned by first-order bilevel descent.
//!
//! Readings. The authors' formula of the temperature is T = 5 − 4 e / 150, but their search script never hands the epoch
//! over, so that it runs at T = 1: preset `official`. Where several draws hit a candidate their maximum has no slope of its
//! own: its gradient is shared among them alike (libtorch's `max` in their code takes one of them). The code has four rules
//! from probabilities to a cell and says of none that it made the published one; the default is the one that its search
//! script prints.

use nasfw_framework::distribution::gumbel;
use nasfw_framework::prelude::*;
use nasfw_framework::register;
use nasfw_framework::schedule::Shape;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::{bilevel, sparse};

/// Settings of DATA.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// M: draws of a row.
    pub draws: usize,
    /// Temperature in the first epoch.
    pub tau_max: f64,
    /// Temperature in the last epoch.
    pub tau_min: f64,
    /// How α becomes probabilities.
    pub activation: Activation,
    /// Weight of the distance between probabilities and what was drawn.
    pub distance: f64,
    /// What the draws are of by which a derived cell keeps candidates.
    pub cover: Cover,
    /// Mean of α at the start.
    pub init_mean: f64,
    /// Standard deviation of α at the start.
    pub init_std: f64,
    /// Optimizer of α.
    pub arch: OptimizerConfig,
}

/// How α becomes probabilities π of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// max(α, 0) divided by their sum.
    Relu,
    /// The softmax of α.
    Softmax,
}

/// What the M draws are of by which a derived cell keeps candidates ([`covered`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cover {
    /// The candidates of one edge.
    Edge,
    /// All pairs of an edge into a node and a candidate.
    Node,
    /// The same, all pairs with `none` being one.
    NodeMerged,
    /// The same without pairs with `none`.
    NodeReal,
}

register! {
    strategy "data" => DataConfig,
    summary: "DATA: edges carry all candidates that any of M Gumbel-softmax draws hit",
    source: "Chang, Zhang, Guo, Meng, Xiang, Pan 2019, NeurIPS, arXiv:1905.01786",
    defaults: concat!(r#"[strategy]
# M: draws of a row, of which it carries all that were hit. The authors' script has 2, their best published cell 7.
draws = 7
# Temperature in the first epoch.
tau_max = 5.0
# Temperature in the last epoch; it falls linearly. 5 - 4 e / 150, in the last of 100 epochs.
tau_min = 2.36
# Probabilities of a row: "relu" are max(alpha, 0) divided by their sum, "softmax" those of alpha.
activation = "relu"
# Weight of the mean distance |probability - weight drawn|, summed over groups, in the architecture's loss.
distance = 0.1
# Where edges into a node compete, a cell keeps the likeliest k categories, k being such that M draws most probably hit just
# these. Categories: "edge": the candidates of an edge; "node": all pairs of an edge into a node and a candidate;
# "node-merged": those, but all `none` as one; "node-real": those without `none`.
cover = "node-merged"
# Mean of alpha at the start.
init_mean = 1.0
# Standard deviation of alpha at the start.
init_std = 1e-3
"#, nasfw_framework::arch_optimizer!("adam", "3e-4", momentum: "0.0", beta: "0.5", decay: "0.0", clip: "0.0"), r#"
[trainer]
epochs = 100
val_order = "fresh"
"#),
    example: "nasfw run --strategy data --space darts --set strategy.draws=4",
    presets: &[("official", "[strategy]\ntau_max = 1.0\ntau_min = 1.0\n")],
}

#[typetag::serde(name = "data")]
impl StrategyConfig for DataConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Data {
            config: self.clone(),
            ensemble: Ensemble {
                spec: cx.spec.clone(),
                start: IndependentSoftmax::new(cx.spec, self.init_std),
                init_mean: self.init_mean,
                activation: self.activation,
                draws: self.draws,
                temperature: self.tau_max,
            },
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.draws", self.draws, 1, 100);
        v.at_least("strategy.tau_max", self.tau_max, 1e-3);
        v.range(
            "strategy.tau_min",
            self.tau_min,
            1e-3,
            self.tau_max.max(1e-3),
        );
        v.at_least("strategy.distance", self.distance, 0.0);
        v.range("strategy.init_mean", self.init_mean, -100.0, 100.0);
        v.at_least("strategy.init_std", self.init_std, 0.0);
        self.arch.validate("strategy.arch", v);
    }
}

/// The ensemble Gumbel-softmax (section 3.2): a row's weights are the elementwise maximum of M one-hot draws, divided by its
/// sum, with the gradients of the relaxed draws.
struct Ensemble {
    spec: ArchSpec,
    /// Layout and start of α, but for its mean.
    start: IndependentSoftmax,
    init_mean: f64,
    activation: Activation,
    draws: usize,
    temperature: f64,
}

impl Ensemble {
    /// π, one matrix `[rows, width]` per group. The small number is that of the authors' code.
    fn probabilities(&self, alpha: &Tensor) -> Vec<Tensor> {
        match self.activation {
            Activation::Softmax => self.spec.softmax(alpha),
            Activation::Relu => {
                let groups = self.spec.split(alpha).into_iter().zip(self.spec.groups());
                let normalised = groups.map(|(alpha, group)| {
                    let mask = group.mask(alpha.device()).to_kind(alpha.kind());
                    let positive = alpha.relu() * mask;
                    let sum = positive.sum_dim_intlist([-1i64].as_slice(), true, alpha.kind());
                    positive / (sum + 1e-7)
                });
                normalised.collect()
            }
        }
    }

    /// Mean over candidates of |π − A|, summed over groups: what pulls probabilities towards weights A that were drawn.
    fn distance(&self, alpha: &Tensor, drawn: &RelaxedArch) -> Tensor {
        let groups = self.spec.groups().iter().zip(self.probabilities(alpha));
        let terms = groups.zip(&drawn.weights).map(|((group, p), a)| {
            let count: usize = group.rows.iter().map(|row| row.candidates.len()).sum();
            (p - a.detach()).abs().sum(alpha.kind()) / count as f64
        });
        terms.sum()
    }
}

impl ArchDistribution for Ensemble {
    fn layout(&self) -> &ParamLayout {
        self.start.layout()
    }

    fn sample(&self, phi: &Tensor, rng: &mut Rng) -> Result<RelaxedArch> {
        let (m, kind) = (self.draws as i64, phi.kind());
        let noise = gumbel(rng, &[m, self.spec.numel()], kind, phi.device());
        let sizes = (self.spec.groups().iter()).map(|g| g.shape().iter().product::<i64>());
        let noise = noise.split_with_sizes(sizes.collect::<Vec<_>>(), 1);
        let groups = self.spec.groups().iter().zip(self.probabilities(phi));
        let weights = groups.zip(noise).map(|((group, p), g)| {
            let [rows, width] = group.shape();
            let logits = group.masked_logits(&(p + 1e-10).log());
            let perturbed = (logits + g.view([m, rows, width])) / self.temperature;
            let soft = perturbed.softmax(-1, kind);
            let hard =
                soft.detach()
                    .zeros_like()
                    .scatter_value(-1, &perturbed.argmax(-1, true), 1.0);
            let straight = hard + (&soft - soft.detach());
            let code = straight.amax([0i64].as_slice(), false);
            &code / code.sum_dim_intlist([-1i64].as_slice(), true, kind)
        });
        Ok(RelaxedArch::new(weights.collect()))
    }

    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        Ok(self.probabilities(phi))
    }

    fn init(&self, streams: Streams, kind: Kind, device: tch::Device) -> Tensor {
        self.start.init(streams, kind, device) + self.init_mean
    }
}

struct Data {
    config: DataConfig,
    ensemble: Ensemble,
}

impl Strategy for Data {
    /// A step of first-order bilevel descent, on a draw of its own in both halves.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let c = &self.config;
        let tau = Shape::Linear.at(c.tau_max, c.tau_min, search.epoch_progress());
        self.ensemble.temperature = tau;
        search.log("tau", tau);

        // 1. Update α by descending ∇_α (L_val(w, A) + 0.1 |π(α) − A|). What was not drawn is computed, since it has a
        //    gradient.
        let val = search.batch(Split::Val)?;
        let alpha = search.phi();
        let a = (self.ensemble).sample(&alpha, &mut search.rng("architecture step"))?;
        let mut loss = search.loss(&search.theta().detach(), &a, &val)?;
        if self.config.distance > 0.0 {
            loss += self.ensemble.distance(&alpha, &a) * self.config.distance;
        }
        bilevel::descend_architecture(search, &loss)?;

        // 2. Update w by descending ∇_w L_train(w, A).
        let train = search.batch(Split::Train)?;
        let a = (self.ensemble).sample(&search.phi(), &mut search.rng("weight step"))?;
        let drawn = sparse::support_of(&self.ensemble.spec, &a);
        bilevel::descend_weights_at(search, &drawn, &train)
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.ensemble)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }

    fn claims(&self) -> Claims {
        Claims {
            arch_gradient: ArchGradient::Other(
                "a straight-through estimate: the loss at the drawn codes, the slope of the relaxed draws",
            ),
            schedules: vec![Endpoints {
                scalar: "tau",
                start: self.config.tau_max,
                end: self.config.tau_min,
            }],
            ..Claims::default()
        }
    }

    /// Where edges into a node compete, what M draws most probably hit; else the space's own rule.
    fn derive(&self, search: &Search) -> Result<Choice> {
        let p = self.ensemble.mean(&search.phi().detach())?;
        let cover = |group: &Group, p: &[Vec<f64>], kept: &mut Vec<Vec<usize>>| {
            if group.edges_kept().is_some() {
                *kept = covering(group, p, self.config.cover, self.config.draws);
            }
        };
        let spec = &self.ensemble.spec;
        Ok(crate::derived_by_group(search, spec, &p, cover))
    }
}

/// Per row the candidates that a derived cell keeps, `none` never among them.
fn covering(group: &Group, p: &[Vec<f64>], cover: Cover, draws: usize) -> Vec<Vec<usize>> {
    let mut kept = vec![vec![]; group.rows.len()];
    let parts = match cover {
        Cover::Edge => (0..group.rows.len()).map(|r| vec![r]).collect(),
        _ => group.nodes(),
    };
    for rows in parts {
        let pairs = (rows.iter()).flat_map(|&r| (0..p[r].len()).map(move |c| (r, c)));
        let (none, real): (Vec<_>, Vec<_>) =
            pairs.partition(|&(r, c)| group.rows[r].column("none") == Some(c));
        let of = |pairs: &[(usize, usize)]| pairs.iter().map(|&(r, c)| p[r][c]).collect::<Vec<_>>();
        // Those with `none` come last, and are not kept.
        let rest = match cover {
            Cover::Edge | Cover::Node => of(&none),
            Cover::NodeMerged => vec![of(&none).iter().sum()],
            Cover::NodeReal => vec![],
        };
        for i in covered(&[of(&real), rest].concat(), draws) {
            if let Some(&(r, c)) = real.get(i) {
                kept[r].push(c);
            }
        }
    }
    kept.iter_mut().for_each(|columns| columns.sort_unstable());
    kept
}

/// Indices of the k largest of `weights` (not negative; divided by their sum they are probabilities), k being such that
/// `draws` draws hit each of these and nothing else with the largest probability; of equals the first k wins. The authors'
/// `infer_prob`, for any number of draws.
pub fn covered(weights: &[f64], draws: usize) -> Vec<usize> {
    let sum: f64 = weights.iter().sum();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    // ways[m]: the probability that the categories so far are hit by m draws, each at least once, in any order. It is
    // m! times the coefficient of x^m in Π (exp(p_i x) − 1).
    let mut ways = vec![0.0; draws + 1];
    ways[0] = 1.0;
    let (mut best, mut count) = (0.0, 0);
    for (k, &category) in order.iter().enumerate().take(draws) {
        let p = weights[category] / sum;
        let hits = |m: usize| {
            (1..=m)
                .map(|j| binomial(m, j) * p.powi(j as i32) * ways[m - j])
                .sum()
        };
        ways = (0..=draws).map(hits).collect();
        if ways[draws] > best {
            (best, count) = (ways[draws], k + 1);
        }
    }
    order.truncate(count);
    order
}

/// Ways to choose `k` of `n`.
fn binomial(n: usize, k: usize) -> f64 {
    (0..k).map(|i| (n - i) as f64 / (i + 1) as f64).product()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};
    use tch::Device;

    /// Three edges, two of them into the second node, ragged.
    fn group() -> Group {
        let ends = vec![(0, 1), (0, 2), (1, 2)];
        let row = |(i, (from, to)): (usize, &(usize, usize))| Row {
            name: format!("{from}->{to}"),
            candidates: ["a", "none", "b", "c"][..if i == 1 { 3 } else { 4 }]
                .iter()
                .map(|c| (*c).to_owned())
                .collect(),
            keep: 1,
        };
        Group {
            name: "cell".into(),
            role: Role::Operations,
            rows: ends.iter().enumerate().map(row).collect(),
            edges: Some(Edges {
                ends,
                keep: Some(2),
            }),
        }
    }

    fn ensemble(activation: Activation, draws: usize) -> Ensemble {
        let spec = ArchSpec::new(vec![group()]).unwrap();
        Ensemble {
            start: IndependentSoftmax::new(&spec, 0.3),
            spec,
            init_mean: 1.0,
            activation,
            draws,
            temperature: 0.7,
        }
    }

    /// The probability of every set of categories that `draws` draws hit, by going through all of them.
    fn enumerated(p: &[f64], draws: usize) -> BTreeMap<BTreeSet<usize>, f64> {
        let mut all = BTreeMap::new();
        for number in 0..p.len().pow(draws as u32) {
            let drawn: Vec<usize> = (0..draws)
                .map(|d| number / p.len().pow(d as u32) % p.len())
                .collect();
            let probability: f64 = drawn.iter().map(|&c| p[c]).product();
            *all.entry(drawn.into_iter().collect()).or_insert(0.0) += probability;
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Of the sets of the likeliest k categories, the one that all M-tuples of draws hit with the largest probability.
        #[test]
        fn what_is_covered_is_the_likeliest_of_all_draws(
            weights in prop::collection::vec(0.0f64..1.0, 1..5),
            draws in 1usize..6,
        ) {
            let sum: f64 = weights.iter().sum();
            prop_assume!(sum > 0.01);
            let p: Vec<f64> = weights.iter().map(|w| w / sum).collect();
            let all = enumerated(&p, draws);
            prop_assert!((all.values().sum::<f64>() - 1.0).abs() < 1e-9);
            let mut order: Vec<usize> = (0..p.len()).collect();
            order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
            let of = |set: &[usize]| all.get(&set.iter().copied().collect()).copied().unwrap_or(0.0);
            let best = (1..=p.len()).map(|k| of(&order[..k])).fold(0.0, f64::max);
            let own = covered(&weights, draws);
            prop_assert_eq!(&own[..], &order[..own.len()]);
            prop_assert!((of(&own) - best).abs() < 1e-12, "{} and {best}", of(&own));
        }

        /// Each rule is that of its own categories, written out.
        #[test]
        fn categories_are_those_of_the_rule(
            p in prop::collection::vec(prop::collection::vec(0.01f64..1.0, 4), 3),
            draws in 1usize..8,
        ) {
            let group = group();
            let p: Vec<Vec<f64>> = p.iter().zip(&group.rows).map(|(p, row)| p[..row.candidates.len()].to_vec()).collect();
            for cover in [Cover::Edge, Cover::Node, Cover::NodeMerged, Cover::NodeReal] {
                let seen = covering(&group, &p, cover, draws);
                let parts = if cover == Cover::Edge { vec![vec![0], vec![1], vec![2]] } else { vec![vec![0], vec![1, 2]] };
                for rows in parts {
                    let mut names: Vec<(usize, usize)> = vec![];
                    let mut weights = vec![];
                    let mut merged = 0.0;
                    for &r in &rows {
                        for (c, p) in p[r].iter().enumerate() {
                            match (cover, c == 1) {
                                (Cover::NodeReal, true) => {}
                                (Cover::NodeMerged, true) => merged += p,
                                _ => { names.push((r, c)); weights.push(*p); }
                            }
                        }
                    }
                    if cover == Cover::NodeMerged {
                        names.push((9, 1));
                        weights.push(merged);
                    }
                    let mut expected: Vec<(usize, usize)> = covered(&weights, draws).into_iter()
                        .map(|i| names[i]).filter(|(_, c)| *c != 1).collect();
                    expected.sort_unstable();
                    let own: Vec<(usize, usize)> = rows.iter().flat_map(|&r| seen[r].iter().map(move |&c| (r, c))).collect();
                    prop_assert_eq!(own, expected);
                }
            }
        }

        /// In value a sample is the set of what was hit, each with the same weight. Its gradient by hand, with
        /// u = ∂L/∂A: ∂L/∂code_i = (u_i − Σ_j u_j A_j) / n of n ones, shared among the draws that attain the maximum (those
        /// that hit i; all, where none did), and ∂h_j/∂logits_i = h_j (δ_ij − h_i) / τ.
        #[test]
        fn a_sample_is_what_was_hit_and_its_gradient_that_of_the_draws(seed in 0u64..10_000, relu: bool) {
            const M: usize = 3;
            let activation = if relu { Activation::Relu } else { Activation::Softmax };
            let d = ensemble(activation, M);
            let alpha = d.init(Streams::new(seed), Kind::Double, Device::Cpu).set_requires_grad(true);
            let a = d.sample(&alpha, &mut Streams::new(seed).at("g", 0)).unwrap();
            let u: Vec<f64> = (0..12).map(|i| (f64::from(i) * 1.3).cos()).collect();
            let loss = (&a.weights[0].view([-1]) * Tensor::from_slice(&u)).sum(Kind::Double);
            let seen = sparse::numbers(&Tensor::run_backward(&[loss], &[&alpha], false, false)[0]);

            let g = sparse::numbers(&gumbel(&mut Streams::new(seed).at("g", 0), &[M as i64, 12], Kind::Double, Device::Cpu));
            let (alpha, weights) = (sparse::numbers(&alpha), sparse::numbers(&a.weights[0]));
            for r in 0..3 {
                let n = if r == 1 { 3 } else { 4 };
                let own = &alpha[r * 4..r * 4 + n];
                let sum: f64 = own.iter().map(|x| x.max(0.0)).sum();
                let p: Vec<f64> = if relu {
                    own.iter().map(|x| x.max(0.0) / (sum + 1e-7)).collect()
                } else {
                    let e: f64 = own.iter().map(|x| x.exp()).sum();
                    own.iter().map(|x| x.exp() / e).collect()
                };
                let z = |m: usize, c: usize| ((p[c] + 1e-10).ln() + g[m * 12 + r * 4 + c]) / 0.7;
                let hit: Vec<usize> = (0..M).map(|m| (0..n).max_by(|&i, &j| z(m, i).total_cmp(&z(m, j))).unwrap()).collect();
                let ones = hit.iter().collect::<BTreeSet<_>>().len() as f64;
                let value = |c: usize| f64::from(u8::from(hit.contains(&c))) / ones;
                for c in 0..4 {
                    let expected = if c < n { value(c) } else { 0.0 };
                    prop_assert!((weights[r * 4 + c] - expected).abs() < 1e-12);
                }
                let mean: f64 = (0..n).map(|c| u[r * 4 + c] * value(c)).sum();
                let mut of_logits = vec![0.0; n];
                for m in 0..M {
                    let e: f64 = (0..n).map(|c| z(m, c).exp()).sum();
                    let h: Vec<f64> = (0..n).map(|c| z(m, c).exp() / e).collect();
                    let share = |c: usize| {
                        let hits = hit.iter().filter(|x| **x == c).count();
                        match (hits, hit[m] == c) {
                            (0, _) => 1.0 / M as f64,
                            (hits, true) => 1.0 / hits as f64,
                            (_, false) => 0.0,
                        }
                    };
                    for (i, slope) in of_logits.iter_mut().enumerate() {
                        *slope += (0..n).map(|j| {
                            let up = (u[r * 4 + j] - mean) / ones * share(j);
                            up * h[j] * (f64::from(u8::from(i == j)) - h[i]) / 0.7
                        }).sum::<f64>();
                    }
                }
                for i in 0..n {
                    let of_p = |j: usize| of_logits[j] / (p[j] + 1e-10);
                    let expected: f64 = if relu {
                        if own[i] <= 0.0 { 0.0 } else {
                            (0..n).map(|j| of_p(j) * (f64::from(u8::from(i == j)) - p[j]) / (sum + 1e-7)).sum()
                        }
                    } else {
                        (0..n).map(|j| of_p(j) * p[j] * (f64::from(u8::from(i == j)) - p[i])).sum()
                    };
                    let seen = seen[r * 4 + i];
                    prop_assert!((seen - expected).abs() < 1e-7 * (1.0 + expected.abs()), "row {r}, {i}: {seen} and {expected}");
                }
            }
        }
    }

    /// Seven candidates are hit by seven draws as often as the draws say: the share of all sets against enumeration.
    #[test]
    fn sets_are_hit_as_often_as_enumeration_says() {
        const SAMPLES: u64 = 4000;
        let d = ensemble(Activation::Relu, 3);
        let alpha = Tensor::from_slice(&[
            0.9, 0.3, 0.6, 0.2, 1.0, 1.0, 1.0, 7.0, 0.1, 0.2, 0.3, 0.4f64,
        ]);
        let mut counts: BTreeMap<BTreeSet<usize>, f64> = BTreeMap::new();
        for i in 0..SAMPLES {
            let a = d.sample(&alpha, &mut Streams::new(3).at("g", i)).unwrap();
            let row = sparse::numbers(&a.weights[0].get(0));
            let hit = (0..4).filter(|&c| row[c] > 0.0).collect();
            *counts.entry(hit).or_default() += 1.0;
        }
        let all = enumerated(&[0.45, 0.15, 0.3, 0.1], 3);
        let chi2: f64 = all
            .iter()
            .map(|(set, p)| {
                let expected = p * SAMPLES as f64;
                (counts.get(set).copied().unwrap_or(0.0) - expected).powi(2) / expected
            })
            .sum();
        // 14 sets, 13 degrees of freedom: above this once in ten thousand.
        assert_eq!(all.len(), 14);
        assert!(chi2 < 40.9, "{chi2}");
    }

    /// Mean over the eleven candidates that exist.
    #[test]
    fn the_distance_is_the_mean_over_candidates() {
        let d = ensemble(Activation::Softmax, 7);
        let alpha = d.init(Streams::new(5), Kind::Double, Device::Cpu);
        let a = d.sample(&alpha, &mut Streams::new(5).at("g", 0)).unwrap();
        let p = sparse::numbers(&d.probabilities(&alpha)[0]);
        let a_numbers = sparse::numbers(&a.weights[0]);
        let expected: f64 = p.iter().zip(&a_numbers).map(|(p, a)| (p - a).abs()).sum();
        let seen = d.distance(&alpha, &a).double_value(&[]);
        assert!((seen - expected / 11.0).abs() < 1e-12);
    }
}
