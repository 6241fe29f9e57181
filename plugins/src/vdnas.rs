//! VDNAS and SI-VDNAS (Wang, Dai, Li, Zou, Xiong 2020): weights of candidates with variational dropout, whose rates are
//! learned; what drops out too often is pruned. `semi_implicit` draws the rates of an edge's candidates together.
//!
//! A reconstruction: no code is public. From the abstract and summaries: variational dropout on operations and edges, made
//! hierarchical by a semi-implicit distribution, and halves of the images for weights and architecture. Decided here, after
//! sparse variational dropout (Molchanov, Ashukha, Vetrov 2017): a weight is W = θ (1 + √a ε) with ε ~ N(0, 1), drawn once a
//! step for all cells and images; its divergence from the log-uniform prior by their approximation, divided by the number of
//! images, joins the architecture's loss; it is pruned where log a > 3. Semi-implicit, an edge e draws u_e = m_e + σ_e ξ, and
//! its candidates have the rates log a + u_e: mixed over u their weights are dependent and not Gaussian. The divergence of such
//! a mixture is bounded by the mean of its parts' (Yin & Zhou 2018), which is what is descended. Of what is left, the space's
//! own rule keeps the largest |θ|, so that networks compare with others. The paper's drop path and cutout are not here.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use nasfw_framework::rng;
use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

use crate::{bilevel, sparse};

/// Settings of VDNAS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VdnasConfig {
    /// Whether the candidates of a row draw their rates together.
    pub semi_implicit: bool,
    /// Weight of the divergence; 1 is the variational bound.
    pub kl: f64,
    /// log a above which a candidate is pruned.
    pub threshold: f64,
    /// θ at the start.
    pub init_mean: f64,
    /// log a at the start.
    pub init_rate: f64,
    /// Semi-implicit: σ_e at the start.
    pub init_spread: f64,
    /// Optimizer of all of them.
    pub arch: OptimizerConfig,
}

register! {
    strategy "vdnas" => VdnasConfig,
    summary: "VDNAS: weights of candidates with learned rates of variational dropout; preset `semi-implicit` is SI-VDNAS (a reconstruction)",
    source: "Wang, Dai, Li, Zou, Xiong 2020, IJCAI (SI-VDNAS); Molchanov, Ashukha, Vetrov 2017, ICML, arXiv:1701.05369",
    defaults: concat!(r#"[strategy]
# Whether the candidates of an edge draw their dropout rates together (SI-VDNAS).
semi_implicit = false
# Weight of the divergence from the prior, divided by the number of images of a half; 1 is the variational bound.
kl = 1.0
# Candidates whose dropout rate has a larger logarithm are pruned.
threshold = 3.0
# Means of the weights at the start.
init_mean = 0.125
# Logarithms of the dropout rates at the start.
init_rate = -3.0
# Semi-implicit: standard deviation of what an edge adds to the logarithms of its rates, at the start.
init_spread = 0.1
"#, nasfw_framework::arch_optimizer!("adam", "3e-4", momentum: "0.0", beta: "0.5", decay: "0.0", clip: "0.0"), r#"
[trainer]
epochs = 50
"#),
    example: "nasfw run --strategy vdnas --set strategy.preset=semi-implicit --space darts",
    presets: &[
        ("semi-implicit", "[strategy]\nsemi_implicit = true\n"),
        ("convergent", "# SI-VDNAS-C.\n[strategy]\nsemi_implicit = true\n\n[trainer]\nepochs = 150\n"),
    ],
}

#[typetag::serde(name = "vdnas")]
impl StrategyConfig for VdnasConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Vdnas {
            config: self.clone(),
            dropout: VariationalDropout::new(self, cx.spec),
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.at_least("strategy.kl", self.kl, 0.0);
        v.range("strategy.threshold", self.threshold, -50.0, 50.0);
        v.range("strategy.init_mean", self.init_mean, -100.0, 100.0);
        v.range("strategy.init_rate", self.init_rate, -50.0, 50.0);
        v.range("strategy.init_spread", self.init_spread, 1e-6, 50.0);
        if !self.semi_implicit {
            v.idle("strategy.init_spread", "without `semi_implicit = true`");
        }
        self.arch.validate("strategy.arch", v);
    }
}

/// KL(q ‖ p) of q(w) = N(θ, a θ²) and the log-uniform prior, up to the constant that makes it zero for a → ∞, at log a, element
/// by element: the approximation of Molchanov et al. 2017 (equation 14).
pub fn divergence(log_a: &Tensor) -> Tensor {
    const K: [f64; 3] = [0.63576, 1.87320, 1.48695];
    let sigmoid = (log_a * K[2] + K[1]).sigmoid();
    // ln(1 + 1/a).
    let log1p = (-log_a).softplus();
    (1.0 - sigmoid) * K[0] + log1p * 0.5
}

/// Weights θ (1 + √a ε) of every candidate but `none`. φ are θ and log a of every candidate; semi-implicit also m and log σ
/// of every row.
struct VariationalDropout {
    spec: ArchSpec,
    layout: ParamLayout,
    real: sparse::Table,
    semi_implicit: bool,
    threshold: f64,
}

/// A draw, and the rates that it was made with.
struct Drawn {
    arch: RelaxedArch,
    /// log a + u, `[rows, width]` per group.
    log_rates: Vec<Tensor>,
}

impl VariationalDropout {
    fn new(config: &VdnasConfig, spec: &ArchSpec) -> Self {
        let mut layout = ParamLayout::new();
        let rows = spec.rows().count() as i64;
        layout.add("means", &[spec.numel()], Init::Constant(config.init_mean));
        layout.add("rates", &[spec.numel()], Init::Constant(config.init_rate));
        if config.semi_implicit {
            let spread = Init::Constant(config.init_spread.ln());
            layout.add("rows' rates", &[rows], Init::Zeros);
            layout.add("rows' spreads", &[rows], spread);
        }
        Self {
            spec: spec.clone(),
            layout,
            real: sparse::real(spec),
            semi_implicit: config.semi_implicit,
            threshold: config.threshold,
        }
    }

    fn means(&self, phi: &Tensor) -> Vec<Tensor> {
        self.spec.split(&phi.narrow(0, 0, self.spec.numel()))
    }

    /// log a + m + σ ξ, `[rows, width]` per group, for the ξ (`[rows]`) of all rows; without a ξ log a + m.
    fn log_rates(&self, phi: &Tensor, xi: Option<&Tensor>) -> Vec<Tensor> {
        let n = self.spec.numel();
        let rates = self.spec.split(&phi.narrow(0, n, n));
        if !self.semi_implicit {
            return rates;
        }
        let sizes: Vec<i64> = self.spec.groups().iter().map(|g| g.shape()[0]).collect();
        let rows: i64 = sizes.iter().sum();
        let (m, log_sigma) = (
            phi.narrow(0, 2 * n, rows),
            phi.narrow(0, 2 * n + rows, rows),
        );
        let u = match xi {
            Some(xi) => m + log_sigma.exp() * xi,
            None => m,
        };
        let u = u.split_with_sizes(sizes, 0).into_iter();
        rates
            .into_iter()
            .zip(u)
            .map(|(a, u)| a + u.unsqueeze(1))
            .collect()
    }

    fn masks(&self, phi: &Tensor) -> Vec<Tensor> {
        sparse::masks(&self.spec, &self.real, phi.kind(), phi.device())
    }

    fn draw(&self, phi: &Tensor, rng: &mut Rng) -> Drawn {
        let (kind, device) = (phi.kind(), phi.device());
        let rows = self.spec.rows().count() as i64;
        let epsilon = rng::normal(rng, &[self.spec.numel()], kind, device);
        let xi = rng::normal(rng, &[rows], kind, device);
        let log_rates = self.log_rates(phi, Some(&xi));
        let noise = self.spec.split(&epsilon).into_iter().zip(&log_rates);
        let parts = self.means(phi).into_iter().zip(noise).zip(self.masks(phi));
        let weights = parts.map(|((theta, (epsilon, log_a)), mask)| {
            theta * ((log_a * 0.5).exp() * epsilon + 1.0) * mask
        });
        Drawn {
            arch: RelaxedArch::new(weights.collect()).with_active(self.real.clone()),
            log_rates,
        }
    }

    /// Σ over candidates of their weights' divergence from the prior, at rates that were drawn.
    fn divergence(&self, drawn: &Drawn) -> Tensor {
        let phi = &drawn.log_rates[0];
        let terms = drawn.log_rates.iter().zip(self.masks(phi));
        terms
            .map(|(log_a, mask)| (divergence(log_a) * mask).sum(phi.kind()))
            .sum()
    }
}

impl ArchDistribution for VariationalDropout {
    fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    fn sample(&self, phi: &Tensor, rng: &mut Rng) -> Result<RelaxedArch> {
        Ok(self.draw(phi, rng).arch)
    }

    /// |θ|, zero where log a is above the threshold.
    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        let rates = self.log_rates(phi, None).into_iter().zip(self.masks(phi));
        let parts = self.means(phi).into_iter().zip(rates);
        let left = parts.map(|(theta, (log_a, mask))| {
            theta.abs() * log_a.le(self.threshold).to_kind(phi.kind()) * mask
        });
        Ok(left.collect())
    }
}

struct Vdnas {
    config: VdnasConfig,
    dropout: VariationalDropout,
}

impl Strategy for Vdnas {
    /// A step of first-order bilevel descent, on a draw of its own in both halves.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        // 1. Update φ by descending ∇_φ (L_val(w, W) + KL / n), n images: the variational bound of a mean over images.
        let val = search.batch(Split::Val)?;
        let drawn = (self.dropout).draw(&search.phi(), &mut search.rng("architecture step"));
        let images = search.steps_per_epoch() * search.batch_size() as u64;
        let loss = search.loss(&search.theta().detach(), &drawn.arch, &val)?;
        let kl = self.dropout.divergence(&drawn) * (self.config.kl / images as f64);
        bilevel::descend_architecture(search, &(loss + kl))?;
        // 2. Update w by descending ∇_w L_train(w, W).
        let train = search.batch(Split::Train)?;
        bilevel::descend_weights(search, &self.dropout, &train)
    }

    /// How many candidates are not pruned.
    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        let left = no_grad(|| self.dropout.mean(&search.phi()))?;
        let numbers = left.iter().flat_map(sparse::numbers);
        search.log("kept", numbers.filter(|x| *x != 0.0).count() as f64);
        Ok(Control::Continue)
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.dropout)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }

    /// The space's own rule on what is not pruned.
    fn derive(&self, search: &Search) -> Result<Choice> {
        let spec = &self.dropout.spec;
        let weights = spec.to_marginals(&self.dropout.mean(&search.phi().detach())?);
        Ok(sparse::strongest(
            spec,
            &search.space().derive(&weights),
            &weights,
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tch::{Device, Kind};

    /// The divergence by its integral (Kingma, Salimans, Welling 2015, equation 11): E ln |1 + √a z| − ½ ln a − E ln |z| over
    /// z ~ N(0, 1), which is zero for a → ∞. The middle of cells of width 1e-4.
    fn integrated(log_a: f64) -> f64 {
        let root = (0.5 * log_a).exp();
        let (mut sum, mut mass) = (0.0, 0.0);
        for i in -100_000..100_000 {
            let z = (f64::from(i) + 0.5) * 1e-4;
            let density = (-0.5 * z * z).exp();
            sum += density * ((1.0 + root * z).abs().ln() - z.abs().ln());
            mass += density;
        }
        sum / mass - 0.5 * log_a
    }

    #[test]
    fn the_divergence_is_its_integral() {
        for i in -12..=12 {
            let log_a = f64::from(i) * 0.5;
            let seen = divergence(&Tensor::from_slice(&[log_a])).double_value(&[0]);
            let exact = integrated(log_a);
            // The approximation is good to about a hundredth.
            assert!((seen - exact).abs() < 0.015, "{log_a}: {seen} {exact}");
        }
        // It falls, to zero.
        let all = divergence(
            &Tensor::arange_start(-200, 200, (Kind::Double, Device::Cpu)).multiply_scalar(0.1),
        );
        assert!(
            sparse::numbers(&all)
                .windows(2)
                .all(|w| w[1] < w[0] && w[1] > -1e-9)
        );
    }

    fn spec() -> ArchSpec {
        let row = |i: usize| Row {
            name: format!("row {i}"),
            candidates: ["a", "none", "b", "c"][..if i == 1 { 3 } else { 4 }]
                .iter()
                .map(|c| (*c).to_owned())
                .collect(),
            keep: 1,
        };
        let group = Group {
            name: "cell".into(),
            role: Role::Operations,
            rows: (0..3).map(row).collect(),
            edges: None,
        };
        ArchSpec::new(vec![group]).unwrap()
    }

    fn dropout(semi_implicit: bool) -> VariationalDropout {
        let registry = nasfw_framework::registry::Registry::load().unwrap();
        let plugin = registry.get(nasfw_framework::registry::Kind::Strategy, "vdnas");
        let mut section = plugin.unwrap().default_section().unwrap();
        section.as_object_mut().unwrap().remove("name");
        section["semi_implicit"] = semi_implicit.into();
        let config: VdnasConfig = serde_json::from_value(section).unwrap();
        VariationalDropout::new(&config, &spec())
    }

    /// W = θ (1 + √a ε) over many draws: mean θ, variance a θ² (semi-implicit a E e^u), `none` and padding nothing. Two
    /// candidates of an edge are as independent as they are uncorrelated, but their sizes go together where rates do.
    #[test]
    fn draws_have_the_moments_of_their_rates() {
        const DRAWS: u64 = 20_000;
        for semi_implicit in [false, true] {
            let d = dropout(semi_implicit);
            let theta: Vec<f64> = (0..12).map(|i| 0.5 + 0.1 * f64::from(i)).collect();
            let log_a: Vec<f64> = (0..12).map(|i| -1.0 + 0.1 * f64::from(i)).collect();
            let mut phi = [theta.clone(), log_a.clone()].concat();
            let (m, sigma) = (0.3, 0.8f64);
            if semi_implicit {
                phi.extend([m; 3]);
                phi.extend([sigma.ln(); 3]);
            }
            assert_eq!(d.layout.numel() as usize, phi.len());
            let phi = Tensor::from_slice(&phi);
            let draws: Vec<Vec<f64>> = (0..DRAWS)
                .map(|i| {
                    sparse::numbers(&d.draw(&phi, &mut Streams::new(2).at("w", i)).arch.weights[0])
                })
                .collect();
            let mean =
                |f: &dyn Fn(&[f64]) -> f64| draws.iter().map(|w| f(w)).sum::<f64>() / DRAWS as f64;
            let none = [1, 5, 7, 9];
            for i in 0..12 {
                if none.contains(&i) {
                    assert!(draws.iter().all(|w| w[i] == 0.0));
                    continue;
                }
                // E e^u of a Gaussian.
                let mixed = if semi_implicit {
                    (m + sigma * sigma / 2.0).exp()
                } else {
                    1.0
                };
                let a = log_a[i].exp() * mixed;
                let deviation = (a / DRAWS as f64).sqrt() * theta[i];
                assert!((mean(&|w| w[i]) - theta[i]).abs() < 4.0 * deviation, "{i}");
                let variance = mean(&|w| (w[i] - theta[i]).powi(2));
                let expected = a * theta[i] * theta[i];
                assert!(
                    (variance / expected - 1.0).abs() < 0.15,
                    "{i}: {variance} {expected}"
                );
            }
            // Squares of the noise of two candidates, of one row and of two rows.
            let square =
                |w: &[f64], i: usize| ((w[i] / theta[i] - 1.0).powi(2) / log_a[i].exp()).min(50.0);
            let correlation = |i: usize, j: usize| {
                let (a, b) = (mean(&|w| square(w, i)), mean(&|w| square(w, j)));
                let covariance = mean(&|w| (square(w, i) - a) * (square(w, j) - b));
                covariance
                    / (mean(&|w| (square(w, i) - a).powi(2))
                        * mean(&|w| (square(w, j) - b).powi(2)))
                    .sqrt()
            };
            let (same, other) = (correlation(0, 2), correlation(0, 8));
            assert!(other.abs() < 0.04, "{other}");
            assert_eq!(same > 0.1, semi_implicit, "{same}");
            assert!(semi_implicit || same.abs() < 0.04);
        }
    }

    /// The rates that a draw is made with are those that its divergence is taken at.
    #[test]
    fn a_draw_and_its_divergence_share_their_rates() {
        let d = dropout(true);
        let phi = d.init(Streams::new(3), Kind::Double, Device::Cpu) + 0.01;
        let drawn = d.draw(&phi, &mut Streams::new(3).at("w", 0));
        let (n, rows) = (12, 3);
        let rng = &mut Streams::new(3).at("w", 0);
        let epsilon = sparse::numbers(&rng::normal(rng, &[n], Kind::Double, Device::Cpu));
        let xi = sparse::numbers(&rng::normal(rng, &[rows], Kind::Double, Device::Cpu));
        let numbers = sparse::numbers(&phi);
        let mut divergence_by_hand = 0.0;
        let weights = sparse::numbers(&drawn.arch.weights[0]);
        for i in 0..12 {
            let row = i / 4;
            let rate = numbers[12 + i] + numbers[24 + row] + numbers[27 + row].exp() * xi[row];
            if ![1, 5, 7, 9].contains(&i) {
                let expected = numbers[i] * (1.0 + (rate / 2.0).exp() * epsilon[i]);
                assert!((weights[i] - expected).abs() < 1e-12);
                divergence_by_hand += divergence(&Tensor::from_slice(&[rate])).double_value(&[0]);
            }
        }
        assert!((d.divergence(&drawn).double_value(&[]) - divergence_by_hand).abs() < 1e-9);
    }

    #[test]
    fn what_drops_out_too_often_is_gone() {
        let d = dropout(true);
        let mut phi = vec![0.5; 12];
        phi.extend((0..12).map(|i| if i % 2 == 0 { 2.5 } else { 3.5 }));
        // What the edge adds counts.
        phi.extend([0.0, 1.0, -1.0, 0.0, 0.0, 0.0]);
        let mean = sparse::numbers(&d.mean(&Tensor::from_slice(&phi)).unwrap()[0]);
        let on = |of: &[usize]| {
            (0..12)
                .map(|i| if of.contains(&i) { 0.5 } else { 0.0 })
                .collect::<Vec<_>>()
        };
        assert_eq!(mean, on(&[0, 2, 8, 10, 11]));
    }
}
