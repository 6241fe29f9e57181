//! Weights that descend at a perturbed architecture.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

use super::{Defect, sgd};

/// Weights descend at an architecture that was moved so as to raise their loss (SDARTS-ADV, Chen & Hsieh 2020,
/// equation 5), φ as in DARTS.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AdversarialConfig {
    radius: f64,
    #[serde(default)]
    defect: Defect,
}

register! {
    strategy "double-adversarial" => AdversarialConfig,
    summary: "DARTS whose weights descend at perturbed architectures",
    source: "tests",
    defaults: "[strategy]\n# Largest change of a weight.\nradius = 0.1\n",
    example: "nasfw run --strategy double-adversarial",
}

#[typetag::serde(name = "double-adversarial")]
impl StrategyConfig for AdversarialConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Adversarial {
            config: self.clone(),
            softmax: IndependentSoftmax::new(cx.spec, 0.5),
            optimizer: sgd(0.1),
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.at_least("strategy.radius", self.radius, 1e-6);
    }
}

struct Adversarial {
    config: AdversarialConfig,
    softmax: IndependentSoftmax,
    optimizer: OptimizerConfig,
}

impl Strategy for Adversarial {
    fn step(&mut self, s: &mut Search) -> Result<()> {
        let (theta, mut phi, val) = (s.theta(), s.phi(), s.batch(Split::Val)?);
        let arch = self.softmax.sample(&phi, &mut s.rng("a"))?;
        let loss = s.loss(&theta, &arch, &val)?;
        let gradient = s.gradients(&loss, &[&phi])?;
        s.descend_phi(&gradient[0])?;

        // The first step of projected ascent from the middle of the ball goes to its corner.
        let train = s.batch(Split::Train)?;
        let clean = self.softmax.sample(&phi, &mut s.rng("a"))?.detach();
        let leaves: Vec<Tensor> = clean
            .weights
            .iter()
            .map(|w| w.copy().set_requires_grad(true))
            .collect();
        let loss = s.loss(
            &theta,
            &RelaxedArch::new(leaves.iter().map(Tensor::shallow_clone).collect()),
            &train,
        )?;
        let leaf_refs: Vec<&Tensor> = leaves.iter().collect();
        let ascent = Tensor::f_run_backward(&[&loss], &leaf_refs, false, false)?;
        let sign = if self.config.defect == Defect::Minimises {
            -1.0
        } else {
            1.0
        };
        let moved = |size: f64| {
            let pairs = leaves.iter().zip(&ascent);
            RelaxedArch::new(
                pairs
                    .map(|(w, g)| w.detach() + g.sign() * (sign * size))
                    .collect(),
            )
        };
        if self.config.defect == Defect::PerturbationStays {
            // Written into the parameters themselves, and never taken out.
            no_grad(|| {
                let flat: Vec<Tensor> = ascent.iter().map(|g| g.reshape([-1])).collect();
                phi += Tensor::cat(&flat, 0).sign() * self.config.radius;
            });
        }
        // The loss is convex in the architecture, so that the corner that the gradient points to raises it.
        let loss = s.loss(&theta, &moved(self.config.radius), &train)?;
        let gradient = s.gradients(&loss, &[&theta])?;
        s.descend_theta(&gradient[0]);
        Ok(())
    }

    fn claims(&self) -> Claims {
        Claims {
            adversarial: true,
            ..Claims::default()
        }
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.softmax)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.optimizer)
    }
}
