//! GDAS (Dong & Yang 2019): one candidate an edge, drawn by the Gumbel-max trick, differentiated straight through.

use nasfw_framework::distribution::{GumbelSoftmax, Relaxation};
use nasfw_framework::prelude::*;
use nasfw_framework::register;
use nasfw_framework::schedule::Shape;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::bilevel;

/// Settings of GDAS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GdasConfig {
    /// Temperature τ in the first epoch.
    pub tau_max: f64,
    /// Temperature τ in the last epoch.
    pub tau_min: f64,
    /// What reaches the candidates that are not drawn.
    pub gradient: GradientForm,
    /// How groups of topology are sampled.
    pub topology: TopologyForm,
    /// Standard deviation of the logits at the start.
    pub init_std: f64,
    /// Optimizer of the logits.
    pub arch: OptimizerConfig,
}

/// What reaches the candidates that are not drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GradientForm {
    /// A row puts out A_k op_k(x) + Σ_{j≠k} A_j: the sum of the gradient of its output, as in the authors' code for
    /// NAS-Bench-201.
    Official,
    /// A row puts out A_k op_k(x): nothing, as in the paper, the authors' code for the NASNet space and that of
    /// NAS-Bench-1Shot1.
    Paper,
}

/// How groups of topology are sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TopologyForm {
    /// Relaxed, as in NAS-Bench-1Shot1's GDAS.
    Soft,
    /// Straight through, like operations.
    Hard,
}

register! {
    strategy "gdas" => GdasConfig,
    summary: "GDAS: one sampled candidate an edge, straight-through Gumbel-softmax",
    source: "Dong, Yang 2019, CVPR, arXiv:1910.04465",
    defaults: concat!(r#"[strategy]
# Temperature in the first epoch.
tau_max = 10.0
# Temperature in the last epoch; it falls linearly.
tau_min = 0.1
# What reaches candidates that are not drawn. "paper": nothing, as also in the authors' code for the NASNet space and in
# NAS-Bench-1Shot1's. "official": the sum of the gradient of their edge's output, as in the authors' code for NAS-Bench-201.
gradient = "paper"
# Groups of topology: "soft" relaxes them, as in NAS-Bench-1Shot1, "hard" samples them like operations.
topology = "soft"
# Standard deviation of the logits at the start.
init_std = 1e-3
"#, nasfw_framework::arch_adam!("3e-4"), r#"
# The authors' search script, which is that of NAS-Bench-201, too.
[trainer]
epochs = 250
batch_size = 256
schedule_by = "step"
val_order = "fresh"

[trainer.weights]
nesterov = true
weight_decay = 5e-4
"#),
    example: "nasfw run --strategy gdas --space nasbench201",
    presets: &[("official", "[strategy]\ngradient = \"official\"\n")],
    families: &[
        ("nasbench201", NASBENCH201),
        ("nasbench1shot1", NASBENCH1SHOT1),
    ],
}

/// Dong & Yang 2020, `forward_gdas` of the cells and `GDAS.py` of the searches on NAS-Bench-201.
const NASBENCH201: &str = r#"[strategy]
gradient = "official"

[trainer]
batch_size = 64
"#;

/// Zela et al. 2020, `optimizers/gdas`. τ falls by (10 − 1) / 100 an epoch there, and so is 1.09 in the last of 100.
const NASBENCH1SHOT1: &str = r#"[strategy]
tau_min = 1.09

[strategy.arch]
clip = 5.0

[trainer]
epochs = 100
batch_size = 96
schedule_by = "epoch"
val_order = "shuffled"

[trainer.weights]
nesterov = false
weight_decay = 3e-4
"#;

#[typetag::serde(name = "gdas")]
impl StrategyConfig for GdasConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        let mut distribution = GumbelSoftmax::new(cx.spec, 0.0, self.init_std);
        distribution.operations = Relaxation::Hard;
        distribution.topology = match self.topology {
            TopologyForm::Soft => Relaxation::Soft,
            TopologyForm::Hard => Relaxation::Hard,
        };
        Ok(Box::new(Gdas {
            config: self.clone(),
            spec: cx.spec.clone(),
            distribution,
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.at_least("strategy.tau_max", self.tau_max, 1e-3);
        v.range(
            "strategy.tau_min",
            self.tau_min,
            1e-3,
            self.tau_max.max(1e-3),
        );
        v.at_least("strategy.init_std", self.init_std, 0.0);
        self.arch.validate("strategy.arch", v);
    }
}

struct Gdas {
    config: GdasConfig,
    spec: ArchSpec,
    distribution: GumbelSoftmax,
}

impl Gdas {
    /// One draw A, shared by all cells.
    fn draw(&self, alpha: &Tensor, rng: &mut Rng) -> Result<RelaxedArch> {
        let a = self.distribution.sample(alpha, rng)?;
        if self.config.gradient == GradientForm::Paper {
            return Ok(a);
        }
        let groups = self.spec.groups().iter().zip(&a.weights);
        let offsets = groups.map(|(group, a)| match group.role {
            Role::Operations => of_the_others(a),
            Role::Topology => Tensor::zeros([a.size()[0]], (a.kind(), a.device())),
        });
        let offsets = offsets.collect();
        Ok(a.with_offsets(offsets))
    }
}

/// Σ_{j≠k} A_j of every row of one-hot rows A (`[rows, width]`): `[rows]`, zero in value, with the gradient of the A_j.
fn of_the_others(a: &Tensor) -> Tensor {
    (a - a * a.detach()).sum_dim_intlist([-1i64].as_slice(), false, a.kind())
}

impl Strategy for Gdas {
    /// Algorithm 1 of the paper.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let c = &self.config;
        let tau = Shape::Linear.at(c.tau_max, c.tau_min, search.epoch_progress());
        self.distribution.temperature = tau;
        search.log("tau", tau);

        // 1. Update w by descending ∇_w L_train at a draw.
        let train = search.batch(Split::Train)?;
        bilevel::descend_weights(search, &self.distribution, &train)?;

        // 2. Update α by descending ∇_α L_val at another draw.
        let val = search.batch(Split::Val)?;
        let a = self.draw(&search.phi(), &mut search.rng("architecture step"))?;
        let loss = search.loss(&search.theta().detach(), &a, &val)?;
        bilevel::descend_architecture(search, &loss)
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.distribution)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }

    fn claims(&self) -> Claims {
        Claims {
            arch_gradient: ArchGradient::Other(
                "a straight-through estimate: the loss at a one-hot draw, the slope of the relaxed one",
            ),
            schedules: vec![Endpoints {
                scalar: "tau",
                start: self.config.tau_max,
                end: self.config.tau_min,
            }],
            ..Claims::default()
        }
    }

    /// Where edges into a node compete, the best pairs of operation and source; else the space's own rule.
    fn derive(&self, search: &Search) -> Result<Choice> {
        let p = self.distribution.mean(&search.phi().detach())?;
        let pairs = |group: &Group, p: &[Vec<f64>], kept: &mut Vec<Vec<usize>>| {
            if let Some(keep) = group.edges_kept() {
                *kept = best_pairs(group, keep, p);
            }
        };
        Ok(crate::derived_by_group(search, &self.spec, &p, pairs))
    }
}

/// Per node the `keep` most probable pairs of an edge and an operation other than `none`; of equals the first wins. Two
/// pairs may share an edge (the authors' discretisation of DARTS's space). Per row the kept columns.
fn best_pairs(group: &Group, keep: usize, p: &[Vec<f64>]) -> Vec<Vec<usize>> {
    let mut kept = vec![vec![]; group.rows.len()];
    for rows in group.nodes() {
        let mut pairs: Vec<(usize, usize)> = rows
            .iter()
            .flat_map(|&r| (0..p[r].len()).map(move |c| (r, c)))
            .filter(|&(r, c)| group.rows[r].column("none") != Some(c))
            .collect();
        pairs.sort_by(|a, b| p[b.0][b.1].total_cmp(&p[a.0][a.1]));
        pairs.truncate(keep);
        pairs.sort_unstable();
        pairs.into_iter().for_each(|(r, c)| kept[r].push(c));
    }
    kept
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nasfw_framework::arch::subsets;
    use nasfw_framework::distribution::gumbel;
    use proptest::prelude::*;
    use tch::{Device, Kind};

    fn config() -> GdasConfig {
        let registry = nasfw_framework::registry::Registry::load().unwrap();
        let plugin = registry.get(nasfw_framework::registry::Kind::Strategy, "gdas");
        let mut section = plugin.unwrap().default_section().unwrap();
        section.as_object_mut().unwrap().remove("name");
        serde_json::from_value(section).unwrap()
    }

    /// A cell of one input and two nodes: three edges.
    fn group(candidates: &[&str], keep: Option<usize>) -> Group {
        let ends = vec![(0, 1), (0, 2), (1, 2)];
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

    fn gdas(gradient: GradientForm, spec: &ArchSpec) -> Gdas {
        let mut distribution = GumbelSoftmax::new(spec, 0.0, 1.0);
        distribution.operations = Relaxation::Hard;
        distribution.temperature = 0.7;
        Gdas {
            config: GdasConfig {
                gradient,
                ..config()
            },
            spec: spec.clone(),
            distribution,
        }
    }

    fn numbers(t: &Tensor) -> Vec<f64> {
        Vec::try_from(t.detach().reshape([-1])).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

        /// Every row puts out five numbers of four candidates, L = Σ ½ (y − t)². By hand: ∂L/∂A_k = (y − t)·o_k for
        /// the drawn k; for the others Σ (y − t) (official) or 0 (paper); then the Jacobian of the softmax,
        /// ∂h_j/∂α_i = h_j (δ_ij − h_i) / τ.
        #[test]
        fn the_gradient_is_the_straight_through_estimate_by_hand(seed in 0u64..10_000, official: bool) {
            const ROWS: i64 = 3;
            const WIDTH: usize = 4;
            let spec = ArchSpec::new(vec![group(&["none", "a", "b", "c"], None)]).unwrap();
            let form = if official { GradientForm::Official } else { GradientForm::Paper };
            let gdas = gdas(form, &spec);
            let normal = |name: &str, shape: &[i64]| {
                let rng = &mut Streams::new(seed).at(name, 0);
                nasfw_framework::rng::normal(rng, shape, Kind::Double, Device::Cpu)
            };
            let alpha = normal("alpha", &[12]).set_requires_grad(true);
            let (o, t) = (normal("o", &[ROWS, 4, 5]), normal("t", &[ROWS, 5]));
            let a = gdas.draw(&alpha, &mut Streams::new(seed).at("g", 0)).unwrap();
            let active = a.active.clone().unwrap();
            prop_assert!(active[0].iter().all(|row| row.iter().filter(|on| **on).count() == 1));

            let mask = Tensor::from_slice(&active[0].concat()).view([ROWS, 4, 1]).to_kind(Kind::Double);
            let mut y = (a.weights[0].unsqueeze(-1) * &o * mask).sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
            let one_hot = y.detach();
            if let Some(offsets) = &a.offsets {
                y += offsets[0].unsqueeze(-1);
            }
            prop_assert_eq!(a.offsets.is_some(), official);
            prop_assert_eq!(&y.detach(), &one_hot);
            let loss = (&y - &t).square().sum(Kind::Double) * 0.5;
            let seen = numbers(&Tensor::run_backward(&[loss], &[&alpha], false, false)[0]);

            let g = numbers(&gumbel(&mut Streams::new(seed).at("g", 0), &[12], Kind::Double, Device::Cpu));
            let (alpha, o, t) = (numbers(&alpha), numbers(&o), numbers(&t));
            for r in 0..ROWS as usize {
                let z: Vec<f64> = (0..WIDTH).map(|c| (alpha[r * WIDTH + c] + g[r * WIDTH + c]) / 0.7).collect();
                let k = (0..WIDTH).max_by(|&i, &j| z[i].total_cmp(&z[j])).unwrap();
                prop_assert!(active[0][r][k]);
                let sum: f64 = z.iter().map(|z| z.exp()).sum();
                let h: Vec<f64> = z.iter().map(|z| z.exp() / sum).collect();
                let at = |c: usize, n: usize| o[(r * WIDTH + c) * 5 + n];
                let up: Vec<f64> = (0..5).map(|n| at(k, n) - t[r * 5 + n]).collect();
                let of = |c: usize| -> f64 {
                    match (c == k, official) {
                        (true, _) => (0..5).map(|n| up[n] * at(k, n)).sum(),
                        (false, true) => up.iter().sum(),
                        (false, false) => 0.0,
                    }
                };
                for i in 0..WIDTH {
                    let expected: f64 = (0..WIDTH)
                        .map(|j| of(j) * h[j] * (f64::from(u8::from(i == j)) - h[i]) / 0.7)
                        .sum();
                    let seen = seen[r * WIDTH + i];
                    prop_assert!((seen - expected).abs() < 1e-9, "row {r}, {i}: {seen} and {expected}");
                }
            }
        }

        /// No other set of that many pairs into a node has a larger sum.
        #[test]
        fn the_best_pairs_of_a_node_are_kept(p in prop::collection::vec(prop::collection::vec(0.0f64..1.0, 4), 3)) {
            let group = group(&["a", "none", "b", "c"], Some(2));
            let kept = best_pairs(&group, 2, &p);
            for rows in [vec![0], vec![1, 2]] {
                let pairs: Vec<f64> = rows.iter().flat_map(|&r: &usize| [0, 2, 3].map(|c| p[r][c])).collect();
                let best = subsets(pairs.len(), 2).iter().map(|s| s.iter().map(|&i| pairs[i]).sum::<f64>()).fold(0.0, f64::max);
                let own: Vec<f64> = rows.iter().flat_map(|&r| kept[r].iter().map(|&c| p[r][c]).collect::<Vec<_>>()).collect();
                prop_assert_eq!(own.len(), 2);
                prop_assert!((own.iter().sum::<f64>() - best).abs() < 1e-12);
                prop_assert!(rows.iter().all(|&r| !kept[r].contains(&1) && kept[r].is_sorted()));
            }
        }
    }

    /// Two pairs on one edge, where both beat the other edge.
    #[test]
    fn two_pairs_may_share_an_edge() {
        let group = group(&["none", "a", "b"], Some(2));
        let p = [
            vec![0.8, 0.1, 0.1],
            vec![0.1, 0.45, 0.45],
            vec![0.5, 0.2, 0.3],
        ];
        assert_eq!(best_pairs(&group, 2, &p), [vec![1, 2], vec![1, 2], vec![]]);
    }
}
