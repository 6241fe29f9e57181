//! DARTS† (Wang et al. 2021): DARTS with the learning rate and the noise of VIM-NAS, but without its generator. The
//! control that shows what rate and noise alone do.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use nasfw_framework::rng;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::bilevel;

/// Settings of DARTS†.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DartsDaggerConfig {
    /// Standard deviation of the noise ξ that every sample adds to the logits.
    pub noise: f64,
    /// Standard deviation of the logits at the start.
    pub init_std: f64,
    /// Optimizer of the logits.
    pub arch: OptimizerConfig,
}

register! {
    strategy "darts-dagger" => DartsDaggerConfig,
    summary: "DARTS with a rate of 0.025 and noise on the logits: the control of VIM-NAS",
    source: "Wang et al. 2021, ICCV, doi:10.1109/ICCV48922.2021.01209, figure 6",
    defaults: concat!(r#"[strategy]
# Standard deviation of the noise that every sample adds to the logits; 0 means none.
noise = 1.0
# Standard deviation of the logits at the start.
init_std = 1e-3
"#, nasfw_framework::arch_adam!("0.025"), r#"
[trainer]
epochs = 50
"#),
    example: "nasfw run --strategy darts-dagger --space nasbench1shot1-s3",
    presets: &[("sgd", "[strategy.arch]\noptimizer = \"sgd\"\nmomentum = 0.9\n")],
}

#[typetag::serde(name = "darts-dagger")]
impl StrategyConfig for DartsDaggerConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(DartsDagger {
            config: self.clone(),
            distribution: NoisySoftmax {
                spec: cx.spec.clone(),
                softmax: IndependentSoftmax::new(cx.spec, self.init_std),
                noise: self.noise,
            },
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.at_least("strategy.noise", self.noise, 0.0);
        v.at_least("strategy.init_std", self.init_std, 0.0);
        self.arch.validate("strategy.arch", v);
    }
}

/// softmax(α + σξ), ξ ~ N(0, 1) for every logit.
struct NoisySoftmax {
    spec: ArchSpec,
    softmax: IndependentSoftmax,
    noise: f64,
}

impl ArchDistribution for NoisySoftmax {
    fn layout(&self) -> &ParamLayout {
        self.softmax.layout()
    }

    fn sample(&self, phi: &Tensor, rng: &mut Rng) -> Result<RelaxedArch> {
        if self.noise == 0.0 {
            return self.softmax.sample(phi, rng);
        }
        let xi = rng::normal(rng, &phi.size(), phi.kind(), phi.device());
        Ok(RelaxedArch::new(
            self.spec.softmax(&(phi + xi * self.noise)),
        ))
    }

    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        self.softmax.mean(phi)
    }

    fn init(&self, streams: Streams, kind: Kind, device: Device) -> Tensor {
        self.softmax.init(streams, kind, device)
    }
}

struct DartsDagger {
    config: DartsDaggerConfig,
    distribution: NoisySoftmax,
}

impl Strategy for DartsDagger {
    /// A step of DARTS (first order), each half at a sample of its own.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        // 1. Update α by descending ∇_α L_val(w, α + ξ).
        let loss = bilevel::validation_loss(search, &self.distribution)?;
        bilevel::descend_architecture(search, &loss)?;
        // 2. Update w by descending ∇_w L_train(w, α + ξ).
        let train = search.batch(Split::Train)?;
        bilevel::descend_weights(search, &self.distribution, &train)
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.distribution)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nasfw_conformance::{ArchStep, Problem, architecture_step};
    use nasfw_framework::registry::{Kind, Registry};

    /// The fourth step of a strategy on the suite's problem.
    fn step(name: &str, noise: Option<f64>, lr: f64) -> ArchStep {
        let registry = Registry::load().unwrap();
        let plugin = registry.get(Kind::Strategy, name).unwrap();
        let mut section = plugin.default_section().unwrap();
        section["arch"]["lr"] = lr.into();
        if let Some(noise) = noise {
            section["noise"] = noise.into();
        }
        architecture_step(plugin, &section, &Problem::built_in().unwrap(), 3).unwrap()
    }

    #[test]
    fn without_noise_and_at_its_rate_it_is_darts_bit_by_bit() {
        let darts = step("darts", None, 3e-4);
        let tensors = |s: &ArchStep| [&s.theta, &s.phi, &s.momentum, &s.gradient].map(|t| t.copy());
        assert_eq!(
            tensors(&step("darts-dagger", Some(0.0), 3e-4)),
            tensors(&darts)
        );
        for (noise, lr) in [(1.0, 3e-4), (0.0, 0.025)] {
            assert_ne!(step("darts-dagger", Some(noise), lr).phi, darts.phi);
        }
    }
}
