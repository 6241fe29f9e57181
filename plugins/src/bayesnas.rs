//! BayesNAS (Zhou, Yang, Wang, Pan 2019): switches on edges and on their candidates under hierarchical priors of automatic
//! relevance determination, trained in one pass over the images and judged by a Laplace approximation.
//!
//! A row puts out s_e Σ_o s_{e,o} o(x). The prior of a switch is N(0, γ); one of a candidate can only be relevant if its
//! edge's is. Where the authors' release searches the operations of eight fixed edges, this is the paper's rule on all edges.
//!
//! Readings. Cells of a type share their switches, as everything else that a space decides: the release has switches for
//! every cell and groups those of all cells, which is a group of one here. The first tenth of the steps trains weights alone
//! (in the release on a tenth of the images, of which the rest never sees the others). The curvature is the diagonal of the
//! Hessian by double backward, exactly or by probes (Bekas et al. 2007), not the release's recursion over layers; its size is
//! taken, since a Laplace approximation needs one that is not negative. The release prints γ and leaves the cell to its
//! reader: here they are ranked by the space's own rule, and where edges can be `none` an edge is, whose best candidate has
//! an entropy ½ ln (2 π e γ) below zero. Gradients of weights and switches are clipped at a norm of 5, as in DARTS: without,
//! which is the release's way on its eight edges, the loss of DARTS's fourteen grows beyond all numbers.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use nasfw_framework::rng;
use nasfw_framework::search::Curvature;
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::{bilevel, sparse};

/// Settings of BayesNAS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BayesNasConfig {
    /// λ of edges' switches.
    pub lambda_edge: f64,
    /// λ of candidates' switches.
    pub lambda_candidate: f64,
    /// Share of the search that trains weights alone.
    pub warmup: f64,
    /// Random vectors that the Hessian's diagonal is estimated with; 0 means exactly.
    pub probes: usize,
    /// γ below which a row is `none`, where it can be.
    pub threshold: f64,
    /// Optimizer of the switches.
    pub arch: OptimizerConfig,
}

register! {
    strategy "bayesnas" => BayesNasConfig,
    summary: "BayesNAS: switches under hierarchical relevance priors, judged by a Laplace approximation after one pass",
    source: "Zhou, Yang, Wang, Pan 2019, ICML, arXiv:1905.04919",
    defaults: concat!(r#"[strategy]
# Weight of the penalty on edges' switches. The authors publish cells for 0.005, 0.007 and 0.01 of both.
lambda_edge = 0.005
# Weight of the penalty on candidates' switches.
lambda_candidate = 0.005
# Share of the search that trains weights alone.
warmup = 0.1
# Random vectors that the diagonal of the Hessian is estimated with after every epoch, one product with the Hessian each; 0:
# exactly, by a product for every switch.
probes = 0
# Where an edge can be `none`, it is if its best candidate has a smaller variance than this: 1 / (2 pi e), entropy zero.
threshold = 0.0585
"#, nasfw_framework::arch_optimizer!("sgd", "0.1", momentum: "0.9", beta: "0.5", decay: "0.0", clip: "5.0"), r#"
[trainer]
epochs = 1
batch_size = 18

[trainer.weights]
lr = 0.1
schedule = "constant"
weight_decay = 1e-4
"#),
    example: "nasfw run --strategy bayesnas --space darts --set strategy.probes=16",
    presets: &[
        ("lambda-0.007", "[strategy]\nlambda_edge = 0.007\nlambda_candidate = 0.007\n"),
        ("lambda-0.01", "[strategy]\nlambda_edge = 0.01\nlambda_candidate = 0.01\n"),
    ],
    // Switches without a bound on a loss without one.
    families: &[("toy-quadratic", "[strategy.arch]\nlr = 0.01\n")],
}

#[typetag::serde(name = "bayesnas")]
impl StrategyConfig for BayesNasConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(BayesNas {
            config: self.clone(),
            switches: Switches::new(cx),
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.at_least("strategy.lambda_edge", self.lambda_edge, 1e-12);
        v.at_least("strategy.lambda_candidate", self.lambda_candidate, 1e-12);
        v.range("strategy.warmup", self.warmup, 0.0, 1.0);
        v.range("strategy.probes", self.probes, 0, 100_000);
        v.at_least("strategy.threshold", self.threshold, 0.0);
        self.arch.validate("strategy.arch", v);
    }
}

/// What is known of every switch: of candidates as in φ, then of rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Posterior {
    /// γ: variances of the priors.
    #[serde(with = "nasfw_framework::lossless")]
    pub gamma: Vec<f64>,
    /// ω: weights of the switches in the penalty.
    #[serde(with = "nasfw_framework::lossless")]
    pub omega: Vec<f64>,
}

/// The update of one switch s (section 3.3, in closed form): C = 1 / (1/γ + H/λ), ω = √|1/γ − C/γ²|, γ ← |s| / ω. Gives
/// (γ, ω). `curvature` is H ≥ 0.
pub fn update(s: f64, gamma: f64, curvature: f64, lambda: f64) -> (f64, f64) {
    let h = curvature / lambda;
    // 1/γ − C/γ² without its cancellation. A switch that nothing depends on would have ω = 0.
    let omega = (h / (1.0 + gamma * h)).sqrt().max(1e-6);
    (s.abs() / omega, omega)
}

/// The prior variance of a candidate's switch below that of its edge's: 1 / (1/γ_candidate + 1/γ_edge).
pub fn below(gamma: f64, edge: f64) -> f64 {
    if gamma == 0.0 || edge == 0.0 {
        return 0.0;
    }
    1.0 / (1.0 / gamma + 1.0 / edge)
}

/// s_e s_{e,o} for every candidate but `none`. φ are the candidates' switches, then one of every row.
struct Switches {
    spec: ArchSpec,
    layout: ParamLayout,
    /// Candidates but `none`.
    real: sparse::Table,
    posterior: Posterior,
}

impl Switches {
    fn new(cx: BuildContext<'_>) -> Self {
        let (spec, rows) = (cx.spec.clone(), cx.spec.rows().count() as i64);
        let mut layout = ParamLayout::new();
        layout.add("candidates", &[spec.numel()], Init::Ones);
        layout.add("rows", &[rows], Init::Ones);
        // Between 0 and 1 as in the release, but not so small that one over it is no number.
        let rng = &mut cx.streams.at("variances", 0);
        let mut draw = || {
            (0..layout.numel())
                .map(|_| rng.random_range(1e-3..1.0))
                .collect()
        };
        let posterior = Posterior {
            gamma: draw(),
            omega: draw(),
        };
        Self {
            real: sparse::real(&spec),
            spec,
            layout,
            posterior,
        }
    }

    /// Switches of rows, `[rows, 1]` per group, and of candidates, `[rows, width]`.
    fn split(&self, phi: &Tensor) -> Vec<(Tensor, Tensor)> {
        let candidates = self.spec.split(&phi.narrow(0, 0, self.spec.numel()));
        let sizes: Vec<i64> = self.spec.groups().iter().map(|g| g.shape()[0]).collect();
        let rows = phi.narrow(0, self.spec.numel(), sizes.iter().sum());
        let rows = rows.split_with_sizes(sizes, 0).into_iter();
        rows.map(|r| r.unsqueeze(1)).zip(candidates).collect()
    }

    fn masks(&self, phi: &Tensor) -> Vec<Tensor> {
        sparse::masks(&self.spec, &self.real, phi.kind(), phi.device())
    }

    /// λ_candidate Σ ω |s_{e,o}| + λ_edge Σ ω |s_e| over what exists.
    fn penalty(&self, phi: &Tensor, config: &BayesNasConfig) -> Tensor {
        let weights =
            Tensor::from_slice(&self.lambdas(config)) * Tensor::from_slice(&self.posterior.omega);
        let weights = weights.to_kind(phi.kind()).to_device(phi.device());
        (phi.abs() * weights).sum(phi.kind())
    }

    /// λ of every switch; zero of what does not exist.
    fn lambdas(&self, config: &BayesNasConfig) -> Vec<f64> {
        let on = sparse::flat(&self.real).into_iter();
        let candidates = on.map(|on| if on { config.lambda_candidate } else { 0.0 });
        let rows = self.spec.rows().map(|_| config.lambda_edge);
        candidates.chain(rows).collect()
    }

    /// The row that each candidate's switch is below.
    fn edges(&self) -> Vec<usize> {
        let widths = self
            .spec
            .rows()
            .map(|(g, _, _)| self.spec.groups()[g].width());
        let rows = widths
            .enumerate()
            .flat_map(|(row, n)| std::iter::repeat_n(row, n));
        rows.collect()
    }

    /// One update of all γ and ω, edges first.
    fn update(&mut self, phi: &[f64], curvature: &[f64], config: &BayesNasConfig) {
        let (n, lambdas) = (self.spec.numel() as usize, self.lambdas(config));
        let edges = self.edges();
        let Posterior { gamma, omega } = &mut self.posterior;
        for i in (n..phi.len()).chain(0..n).filter(|&i| lambdas[i] > 0.0) {
            (gamma[i], omega[i]) = update(phi[i], gamma[i], curvature[i].abs(), lambdas[i]);
            if i < n {
                gamma[i] = below(gamma[i], gamma[n + edges[i]]);
            }
        }
    }
}

impl ArchDistribution for Switches {
    fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    fn sample(&self, phi: &Tensor, _rng: &mut Rng) -> Result<RelaxedArch> {
        let switches = self.split(phi).into_iter().zip(self.masks(phi));
        let weights = switches.map(|((row, candidates), mask)| row * candidates * mask);
        Ok(RelaxedArch::new(weights.collect()).with_active(self.real.clone()))
    }

    /// γ of every candidate at its ω and its edge's: 1 / (ω_{e,o} / |s_{e,o}| + ω_e / |s_e|).
    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        let omega = Tensor::from_slice(&self.posterior.omega);
        let gamma = phi.abs() / omega.to_kind(phi.kind()).to_device(phi.device());
        let gamma = self.split(&gamma).into_iter().zip(self.masks(phi));
        // A product over a sum: zero where both are.
        let below = gamma.map(|((edge, candidates), mask)| {
            let sum = (&edge + &candidates).clamp_min(1e-30);
            edge * candidates / sum * mask
        });
        Ok(below.collect())
    }
}

struct BayesNas {
    config: BayesNasConfig,
    switches: Switches,
}

/// The diagonal of the Hessian behind a curvature with respect to `leaf` (`[n]`), n numbers: exactly by a product for each
/// of them that `wanted` names, or as the mean of v ⊙ H v over `probes` random vectors v of ones and minus ones.
///
/// # Errors
/// Those of [`Curvature::product`].
pub fn diagonal(
    curvature: &Curvature,
    leaf: &Tensor,
    wanted: &[bool],
    probes: usize,
    rng: &mut Rng,
) -> Result<Vec<f64>> {
    let n = wanted.len();
    let along = |v: &[f64]| -> Result<Vec<f64>> {
        let v = Tensor::from_slice(v)
            .to_kind(leaf.kind())
            .to_device(leaf.device());
        Ok(sparse::numbers(&curvature.product(&v, leaf)?))
    };
    let mut found = vec![0.0; n];
    if probes == 0 {
        for i in (0..n).filter(|&i| wanted[i]) {
            let mut unit = vec![0.0; n];
            unit[i] = 1.0;
            found[i] = along(&unit)?[i];
        }
        return Ok(found);
    }
    for _ in 0..probes {
        let uniform = rng::uniform(rng, &[n as i64], Kind::Double, tch::Device::Cpu);
        let v = sparse::numbers(&((uniform - 0.5).sign()));
        for (found, (v, hv)) in found.iter_mut().zip(v.iter().zip(along(&v)?)) {
            *found += v * hv / probes as f64;
        }
    }
    Ok(found)
}

impl Strategy for BayesNas {
    /// Weights alone at first, then weights and switches on one loss: L(w, s) + Σ λ ω |s|.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let (theta, phi) = (search.theta(), search.phi());
        let d = search.batch(Split::Full)?;
        if search.progress() < self.config.warmup {
            return bilevel::descend_weights(search, &self.switches, &d);
        }
        let s = self.switches.sample(&phi, &mut search.rng("switches"))?;
        let loss = search.weight_loss(&s, &d)? + self.switches.penalty(&phi, &self.config);
        let gradients = search.gradients(&loss, &[&theta, &phi])?;
        search.descend_theta(&gradients[0]);
        search.descend_phi(&gradients[1])
    }

    /// After every epoch that has trained switches: one update of γ and ω in closed form.
    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        let phi = search.phi();
        if search.progress() <= self.config.warmup {
            return Ok(Control::Continue);
        }
        let next = search.next_batch(Split::Full);
        let batch = search.batch_again(&next)?;
        let s = self.switches.sample(&phi, &mut search.rng("switches"))?;
        let loss = search.smooth_loss(&search.theta().detach(), &s, &batch)?;
        let wanted: Vec<bool> = (self.switches.lambdas(&self.config).iter())
            .map(|lambda| *lambda > 0.0)
            .collect();
        let curvature = diagonal(
            &Curvature::new(&loss, &phi)?,
            &phi,
            &wanted,
            self.config.probes,
            &mut search.rng("probes"),
        )?;
        self.switches
            .update(&sparse::numbers(&phi), &curvature, &self.config);
        Ok(Control::Continue)
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.switches)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }

    fn data(&self) -> DataPlan {
        DataPlan::Full
    }

    /// The space's own rule on γ; a row that can be `none` is, if its best γ is below the threshold.
    fn derive(&self, search: &Search) -> Result<Choice> {
        let spec = &self.switches.spec;
        let mut gamma = spec.to_marginals(&self.switches.mean(&search.phi().detach())?);
        for (g, r, row) in spec.rows() {
            let irrelevant = gamma[g][r].iter().all(|x| *x < self.config.threshold);
            if irrelevant && row.column("none").is_some() && spec.groups()[g].edges_kept().is_none()
            {
                gamma[g][r].fill(0.0);
            }
        }
        Ok(sparse::strongest(
            spec,
            &search.space().derive(&gamma),
            &gamma,
        ))
    }

    fn state(&self) -> Result<StrategyState> {
        StrategyState::of(&self.switches.posterior)
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        let posterior: Posterior = state.value()?;
        let n = self.switches.layout.numel() as usize;
        if [posterior.gamma.len(), posterior.omega.len()] != [n, n] {
            return Err(Error::Invalid {
                what: "strategy state".into(),
                why: "its switches are not those of the space".into(),
            });
        }
        self.switches.posterior = posterior;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use tch::Device;

    /// Two groups, one ragged, with `none`.
    fn spec() -> ArchSpec {
        let group = |name: &str, widths: &[usize]| Group {
            name: name.into(),
            role: Role::Operations,
            rows: widths
                .iter()
                .enumerate()
                .map(|(i, n)| Row {
                    name: format!("row {i}"),
                    candidates: ["a", "none", "b"][..*n]
                        .iter()
                        .map(|c| (*c).to_owned())
                        .collect(),
                    keep: 1,
                })
                .collect(),
            edges: None,
        };
        ArchSpec::new(vec![group("one", &[3, 1]), group("two", &[2])]).unwrap()
    }

    fn config() -> BayesNasConfig {
        let registry = nasfw_framework::registry::Registry::load().unwrap();
        let plugin = registry.get(nasfw_framework::registry::Kind::Strategy, "bayesnas");
        let mut section = plugin.unwrap().default_section().unwrap();
        section.as_object_mut().unwrap().remove("name");
        serde_json::from_value(section).unwrap()
    }

    fn switches() -> Switches {
        let spec = spec();
        Switches::new(BuildContext {
            spec: &spec,
            streams: Streams::new(1),
            kind: Kind::Double,
            device: Device::Cpu,
            epochs: 1,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// The equations of the paper as they stand, with their cancellation.
        #[test]
        fn an_update_is_the_closed_form(
            s in -2.0f64..2.0, gamma in 0.01f64..3.0, h in 0.01f64..5.0, lambda in 0.001f64..0.1,
        ) {
            let c = 1.0 / (1.0 / gamma + h / lambda);
            let omega = (-c / gamma.powi(2) + 1.0 / gamma).abs().sqrt();
            let (next, own) = update(s, gamma, h, lambda);
            prop_assert!((own - omega).abs() < 1e-6 * omega, "{own} {omega}");
            prop_assert!((next - s.abs() / omega).abs() < 1e-6 * next.abs().max(1e-9));
        }

        /// All switches at once, the candidates' below their rows': φ is [3 + 3, 3 | 2, 1] with `none` and padding left out.
        #[test]
        fn candidates_are_updated_below_their_edges(phi in prop::collection::vec(-2.0f64..2.0, 11), h in prop::collection::vec(-1.0f64..1.0, 11)) {
            let (mut switches, config) = (switches(), config());
            prop_assert_eq!(switches.layout.numel(), 8 + 3);
            let before = switches.posterior.clone();
            switches.update(&phi, &h, &config);
            // Place in φ of every candidate that exists, and of its row.
            let pairs = [(0, 8), (2, 8), (3, 9), (6, 10)];
            for i in 0..8 {
                if !pairs.iter().any(|(c, _)| *c == i) {
                    prop_assert_eq!(switches.posterior.gamma[i], before.gamma[i]);
                }
            }
            for (candidate, row) in pairs {
                let of = |i: usize| {
                    let g = before.gamma[i];
                    let c = 1.0 / (1.0 / g + h[i].abs() / 0.005);
                    let omega = (1.0 / g - c / (g * g)).abs().sqrt().max(1e-6);
                    (phi[i].abs() / omega, omega)
                };
                let ((edge, edge_omega), (own, own_omega)) = (of(row), of(candidate));
                let near = |a: f64, b: f64| (a - b).abs() <= 1e-6 * b.abs().max(1e-6);
                prop_assert!(near(switches.posterior.omega[row], edge_omega));
                prop_assert!(near(switches.posterior.omega[candidate], own_omega));
                prop_assert!(near(switches.posterior.gamma[row], edge));
                let expected = 1.0 / (1.0 / own + 1.0 / edge);
                prop_assert!(near(switches.posterior.gamma[candidate], expected));
                // What derivation goes by is what the update has found.
                let mean = switches.mean(&Tensor::from_slice(&phi)).unwrap();
                let flat = [sparse::numbers(&mean[0]), sparse::numbers(&mean[1])].concat();
                prop_assert!(near(flat[candidate], expected), "{} {expected}", flat[candidate]);
                prop_assert_eq!(flat[1], 0.0);
            }
        }

        /// The penalty, number by number.
        #[test]
        fn the_penalty_counts_what_exists(phi in prop::collection::vec(-2.0f64..2.0, 11)) {
            let (switches, config) = (switches(), BayesNasConfig { lambda_edge: 0.3, ..config() });
            let seen = switches.penalty(&Tensor::from_slice(&phi), &config).double_value(&[]);
            let omega = &switches.posterior.omega;
            let term = |i: usize, lambda: f64| lambda * omega[i] * phi[i].abs();
            let expected: f64 = [0, 2, 3, 6].map(|i| term(i, 0.005)).iter().chain(&[8, 9, 10].map(|i| term(i, 0.3))).sum();
            prop_assert!((seen - expected).abs() < 1e-12);
        }
    }

    /// A small network, tanh(x W₁ diag(s)) W₂ under a softmax: the diagonal by products against second differences of its loss
    /// and, in the mean over all signs, by probes.
    #[test]
    fn the_diagonal_is_that_of_the_hessian() {
        let normal = |name: &str, shape: &[i64]| {
            let rng = &mut Streams::new(4).at(name, 0);
            rng::normal(rng, shape, Kind::Double, Device::Cpu)
        };
        let (x, first, second) = (
            normal("x", &[8, 3]),
            normal("first", &[3, 5]),
            normal("second", &[5, 3]),
        );
        let labels = Tensor::from_slice(&[0i64, 1, 2, 0, 1, 2, 0, 1]);
        let loss = |s: &Tensor| {
            let logits = (x.matmul(&first) * s).tanh().matmul(&second);
            logits.cross_entropy_loss::<Tensor>(&labels, None, tch::Reduction::Mean, -100, 0.0)
        };
        let s = (normal("s", &[5]) * 0.5 + 1.0).set_requires_grad(true);
        let curvature = Curvature::new(&loss(&s), &s).unwrap();
        let rng = &mut Streams::new(4).at("probes", 0);
        let exact = diagonal(&curvature, &s, &[true, true, false, true, true], 0, rng).unwrap();
        for (i, seen) in exact.iter().enumerate() {
            let mut unit = [0.0; 5];
            unit[i] = 1e-4;
            let at = |sign: f64| {
                loss(&(s.detach() + Tensor::from_slice(&unit) * sign)).double_value(&[])
            };
            let difference = (at(1.0) - 2.0 * at(0.0) + at(-1.0)) / 1e-8;
            let expected = if i == 2 { 0.0 } else { difference };
            assert!((seen - expected).abs() < 1e-6, "{i}: {seen} {expected}");
        }
        let probed = diagonal(&curvature, &s, &[true; 5], 4000, rng).unwrap();
        for i in [0, 1, 3, 4] {
            assert!((probed[i] - exact[i]).abs() < 0.02, "{probed:?} {exact:?}");
        }
    }
}
