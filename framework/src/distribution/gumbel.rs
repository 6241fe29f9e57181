//! Relaxed categorical samples by Gumbel noise.

use tch::{Device, Kind, Tensor, no_grad};

use super::independent::{ArchDistribution, IndependentSoftmax, gumbel};
use crate::arch::{ArchSpec, Choice, RelaxedArch, Role};
use crate::error::Result;
use crate::params::ParamLayout;
use crate::rng::{Rng, Streams};

/// How the perturbed logits of a row become weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relaxation {
    /// h = softmax((log p + G) / τ), the Concrete distribution (Maddison et al. 2017, equation 10; Jang et al. 2017).
    Soft,
    /// One on the [`keep`](crate::arch::Row::keep) largest of log p + G, zero elsewhere, with the gradient of h: the
    /// straight-through estimator (Jang et al. 2017, section 2.2). Only what is one is active.
    Hard,
}

/// Independent rows of free logits α, p = softmax(α), relaxed by Gumbel noise G at a temperature τ. Its mean, discrete
/// draws and their probabilities are those of [`IndependentSoftmax`].
#[derive(Debug, Clone)]
pub struct GumbelSoftmax {
    /// τ > 0.
    pub temperature: f64,
    /// How groups of operations are relaxed.
    pub operations: Relaxation,
    /// How groups of topology are relaxed.
    pub topology: Relaxation,
    spec: ArchSpec,
    softmax: IndependentSoftmax,
    init_mean: f64,
}

impl GumbelSoftmax {
    /// Soft rows at temperature 1, logits that start Gaussian.
    pub fn new(spec: &ArchSpec, init_mean: f64, init_std: f64) -> Self {
        Self {
            temperature: 1.0,
            operations: Relaxation::Soft,
            topology: Relaxation::Soft,
            spec: spec.clone(),
            softmax: IndependentSoftmax::new(spec, init_std),
            init_mean,
        }
    }

    fn relaxation(&self, role: Role) -> Relaxation {
        match role {
            Role::Operations => self.operations,
            Role::Topology => self.topology,
        }
    }
}

impl ArchDistribution for GumbelSoftmax {
    fn layout(&self) -> &ParamLayout {
        self.softmax.layout()
    }

    fn sample(&self, phi: &Tensor, rng: &mut Rng) -> Result<RelaxedArch> {
        // log_softmax(α) instead of α would change no row's softmax and no argmax.
        let perturbed = phi + gumbel(rng, &[self.spec.numel()], phi.kind(), phi.device());
        let soft = self.spec.softmax(&(&perturbed / self.temperature));
        let roles = || self.spec.groups().iter().map(|g| self.relaxation(g.role));
        if roles().all(|r| r == Relaxation::Soft) {
            return Ok(RelaxedArch::new(soft));
        }
        // What must be computed is decided on the host: one transfer for all groups.
        let on_host = no_grad(|| perturbed.detach().to_device(Device::Cpu));
        let chosen = self
            .spec
            .top(&self.spec.to_marginals(&self.spec.split(&on_host)));
        let hard = chosen.one_hot(&self.spec, phi.kind(), phi.device());
        let mut active = hard.active.unwrap_or_default();
        let weights = soft.into_iter().zip(hard.weights).zip(roles()).enumerate();
        let weights = weights.map(|(g, ((soft, hard), relaxation))| match relaxation {
            Relaxation::Hard => hard + (&soft - soft.detach()),
            Relaxation::Soft => {
                active[g].iter_mut().for_each(|row| row.fill(true));
                soft
            }
        });
        Ok(RelaxedArch::new(weights.collect()).with_active(active))
    }

    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        self.softmax.mean(phi)
    }

    fn log_prob(&self, phi: &Tensor, choice: &Choice) -> Result<Tensor> {
        self.softmax.log_prob(phi, choice)
    }

    fn draw(&self, phi: &Tensor, rng: &mut Rng) -> Result<Choice> {
        self.softmax.draw(phi, rng)
    }

    fn init(&self, streams: Streams, kind: Kind, device: Device) -> Tensor {
        self.softmax.init(streams, kind, device) + self.init_mean
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::arch::{Group, Row};
    use proptest::prelude::*;

    const DRAWS: u64 = 4000;

    fn row(candidates: usize, keep: usize) -> Row {
        Row {
            name: format!("{candidates} {keep}"),
            candidates: (0..candidates).map(|c| c.to_string()).collect(),
            keep,
        }
    }

    /// Ragged operations, and topology that keeps two.
    fn spec() -> ArchSpec {
        let group = |name: &str, role, rows| Group {
            name: name.into(),
            role,
            rows,
            edges: None,
        };
        ArchSpec::new(vec![
            group("ops", Role::Operations, vec![row(3, 1), row(2, 1)]),
            group("inputs", Role::Topology, vec![row(4, 2)]),
        ])
        .unwrap()
    }

    fn numbers(t: &Tensor) -> Vec<f64> {
        Vec::try_from(t.detach().reshape([-1]).to_kind(Kind::Double)).unwrap()
    }

    fn sample(d: &GumbelSoftmax, phi: &Tensor, i: u64) -> RelaxedArch {
        d.sample(phi, &mut Streams::new(4).at("g", i)).unwrap()
    }

    /// Two candidates have a closed form: P(z₁ ≤ x) = σ(τ logit(x) − (α₁ − α₂)) (Maddison et al. 2017, section 3.2).
    #[test]
    fn two_candidates_follow_the_binary_concrete_distribution() {
        let rows = vec![row(2, 1)];
        let group = Group {
            name: "ops".into(),
            role: Role::Operations,
            rows,
            edges: None,
        };
        let mut d = GumbelSoftmax::new(&ArchSpec::new(vec![group]).unwrap(), 0.0, 1.0);
        let phi = Tensor::from_slice(&[0.7, -0.2]);
        for tau in [0.3, 1.0, 4.0] {
            d.temperature = tau;
            let mut seen: Vec<f64> = (0..DRAWS)
                .map(|i| sample(&d, &phi, i).weights[0].double_value(&[0, 0]))
                .collect();
            seen.sort_by(f64::total_cmp);
            let cdf = |x: f64| 1.0 / (1.0 + (0.9 - tau * (x / (1.0 - x)).ln()).exp());
            let distance = seen.iter().enumerate().fold(0.0, |m: f64, (i, &x)| {
                m.max((cdf(x) - (i as f64 + 0.5) / DRAWS as f64).abs())
            });
            // Kolmogorov and Smirnov: above this once in ten thousand.
            assert!(distance < 2.23 / (DRAWS as f64).sqrt(), "{tau}: {distance}");
        }
    }

    #[test]
    fn the_largest_weight_falls_as_often_as_the_softmax_says_at_any_temperature() {
        let (spec, phi) = (spec(), Tensor::from_slice(&[0.5, -1.0, 1.0, 0.3, 0.9, 0.0]));
        let spec = ArchSpec::new(spec.groups()[..1].to_vec()).unwrap();
        for (operations, temperature) in [(Relaxation::Soft, 3.0), (Relaxation::Hard, 0.2)] {
            let d = GumbelSoftmax {
                operations,
                temperature,
                ..GumbelSoftmax::new(&spec, 0.0, 1.0)
            };
            let mut counts = [[0.0; 3]; 2];
            for i in 0..DRAWS {
                let best = sample(&d, &phi, i).weights[0].argmax(-1, false);
                for (r, counts) in counts.iter_mut().enumerate() {
                    counts[best.int64_value(&[r as i64]) as usize] += 1.0;
                }
            }
            let p = spec.to_marginals(&d.mean(&phi).unwrap());
            let chi2: f64 = (0..2)
                .flat_map(|r| (0..p[0][r].len()).map(move |c| (r, c)))
                .map(|(r, c)| (counts[r][c], p[0][r][c] * DRAWS as f64))
                .map(|(seen, expected)| (seen - expected).powi(2) / expected)
                .sum();
            // Three degrees of freedom: above this once in ten thousand.
            assert!(chi2 < 21.1, "{counts:?} for {p:?}");
            assert_eq!(counts[1][2], 0.0);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn soft_samples_are_uniform_when_hot_and_one_hot_when_cold(seed in 0u64..1000) {
            let mut d = GumbelSoftmax::new(&spec(), 0.0, 1.0);
            let phi = d.init(Streams::new(seed), Kind::Double, Device::Cpu);
            for (temperature, entropy) in [(1e6, 1.0), (1e-6, 0.0)] {
                d.temperature = temperature;
                let z = sample(&d, &phi, seed).weights;
                let seen = spec().entropy(&spec().to_marginals(&z));
                prop_assert!((seen - entropy).abs() < 1e-3, "{seen} at {temperature}");
            }
        }

        /// The value is the one-hot draw to the bit, the gradient that of the soft sample.
        #[test]
        fn straight_through_is_hard_forward_and_soft_backward(seed in 0u64..1000, tau in 0.1f64..10.0) {
            let spec = spec();
            let soft = GumbelSoftmax { temperature: tau, ..GumbelSoftmax::new(&spec, 0.0, 1.0) };
            let hard = GumbelSoftmax { operations: Relaxation::Hard, topology: Relaxation::Hard, ..soft.clone() };
            let phi = soft.init(Streams::new(seed), Kind::Float, Device::Cpu).set_requires_grad(true);
            let (h, a) = (sample(&soft, &phi, seed), sample(&hard, &phi, seed));
            prop_assert!(h.active.is_none());
            let active = a.active.clone().unwrap();
            for ((row, soft_row), (g, r, known)) in a.weights.iter().zip(&h.weights)
                .flat_map(|(a, h)| a.unbind(0).into_iter().zip(h.unbind(0)))
                .zip(spec.rows())
            {
                let on: Vec<f64> = active[g][r].iter().map(|&on| f64::from(u8::from(on))).collect();
                prop_assert_eq!(&numbers(&row), &on);
                prop_assert_eq!(on.iter().sum::<f64>(), known.keep as f64);
                let least = numbers(&soft_row).iter().zip(&on).filter(|(_, on)| **on == 1.0)
                    .fold(1.0, |m: f64, (h, _)| m.min(*h));
                prop_assert!(numbers(&soft_row).iter().zip(&on).all(|(h, on)| *on == 1.0 || *h <= least));
            }
            let slope = |arch: &RelaxedArch| {
                let terms = arch.weights.iter().enumerate().map(|(g, w)| {
                    let factors = Tensor::arange(w.numel() as i64, (Kind::Float, Device::Cpu)).view_as(w);
                    (w * (factors + g as f64).cos()).sum(Kind::Float)
                });
                let sum: Tensor = terms.sum();
                Tensor::run_backward(&[sum], &[&phi], false, false).remove(0)
            };
            prop_assert!(slope(&a).allclose(&slope(&h), 1e-6, 1e-7, false));
        }
    }
}
