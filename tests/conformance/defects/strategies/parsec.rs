//! PARSEC: architectures that are drawn and weighed by how well they explain a batch.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::{Defect, sgd};

/// PARSEC (Casale et al. 2019): A_k ~ p(A|π), ω = softmax_k(log p(y|X, w, A_k)); w goes along Σ_k ω_k ∇_w log p(y|X, w, A_k)
/// on training images, π along Σ_k ω_k ∇_π log p(A_k|π) on validation images.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ParsecConfig {
    draws: u64,
    likelihood: Likelihood,
    #[serde(default)]
    defect: Defect,
}

/// log p(y|X, w, A) of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Likelihood {
    /// The sum over its images.
    Batch,
    /// Their mean.
    Mean,
}

register! {
    strategy "double-parsec" => ParsecConfig,
    summary: "PARSEC",
    source: "tests",
    defaults: "[strategy]\n# Architectures a batch.\ndraws = 3\n# Of the \"batch\", or the \"mean\" of its images.\nlikelihood = \"batch\"\n",
    example: "nasfw run --strategy double-parsec",
}

#[typetag::serde(name = "double-parsec")]
impl StrategyConfig for ParsecConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Parsec {
            config: self.clone(),
            softmax: IndependentSoftmax::new(cx.spec, 0.5),
            optimizer: sgd(0.1),
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.draws", self.draws, 1, 16);
    }
}

struct Parsec {
    config: ParsecConfig,
    softmax: IndependentSoftmax,
    optimizer: OptimizerConfig,
}

impl Parsec {
    /// ω of losses that are means over `images` images.
    fn importance(&self, losses: &[Tensor], images: i64) -> Tensor {
        let scale = match self.config.likelihood {
            Likelihood::Batch => images as f64,
            Likelihood::Mean => 1.0,
        };
        let losses = Tensor::stack(losses, 0).detach();
        let log_likelihood = match self.config.defect {
            Defect::FavoursTheWorst => losses * scale,
            _ => losses * -scale,
        };
        match self.config.defect {
            Defect::NotNormalised => log_likelihood.exp(),
            Defect::WeighsAlike => log_likelihood.ones_like() / self.config.draws as f64,
            _ => log_likelihood.softmax(0, log_likelihood.kind()),
        }
    }

    fn draws(&self, s: &Search) -> Result<Vec<Choice>> {
        let draw = |k| {
            self.softmax
                .draw(&s.phi(), &mut s.rng(&format!("draw {k}")))
        };
        (0..self.config.draws).map(draw).collect()
    }
}

impl Strategy for Parsec {
    fn step(&mut self, s: &mut Search) -> Result<()> {
        let (theta, phi, val) = (s.theta(), s.phi(), s.batch(Split::Val)?);
        let drawn = self.draws(s)?;
        let losses = drawn.iter().map(|choice| {
            let arch = s.one_hot(choice);
            s.loss(&theta.detach(), &arch, &val)
        });
        let losses = losses.collect::<Result<Vec<_>>>()?;
        let omega = self.importance(&losses, val.len());
        let log_probs = drawn
            .iter()
            .map(|choice| self.softmax.log_prob(&phi, choice));
        let log_probs = Tensor::stack(&log_probs.collect::<Result<Vec<_>>>()?, 0);
        let score = -(omega * log_probs).sum(phi.kind());
        let gradient = s.gradients(&score, &[&phi])?;
        s.descend_phi(&gradient[0])?;

        // Each loss is computed, and differentiated, alone.
        let train = s.batch(Split::Train)?;
        let (mut losses, mut gradients) = (vec![], vec![]);
        for choice in self.draws(s)? {
            let loss = s.loss(&theta, &s.one_hot(&choice), &train)?;
            gradients.push(s.gradients(&loss, &[&theta])?.remove(0));
            losses.push(loss);
        }
        let omega = self.importance(&losses, train.len());
        s.descend_theta(&omega.matmul(&Tensor::stack(&gradients, 0)));
        Ok(())
    }

    /// −log Σ_k p(y|X, w, A_k), for each image of the batch.
    fn claims(&self) -> Claims {
        let whole = self.config.likelihood == Likelihood::Batch;
        let objective = move |losses: &[TakenLoss]| {
            let images = if whole { losses[0].images } else { 1.0 };
            let sum: f64 = losses.iter().map(|l| (-l.value * images).exp()).sum();
            -sum.ln() / images
        };
        Claims {
            weight_gradient: match self.config.defect {
                Defect::ClaimsNothing => WeightGradient::Mean,
                _ => WeightGradient::Of(Objective::new(objective)),
            },
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
