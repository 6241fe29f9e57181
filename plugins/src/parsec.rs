//! PARSEC (Casale, Gordon, Fusi 2019): empirical Bayes on discrete architectures. The prior p(A|π), rows independent, and
//! the shared weights w ascend the evidence p(y|X, w, π) = Σ_A p(y|X, w, A) p(A|π), whose gradients are expectations
//! under the posterior; these are taken by importance weights over draws of the prior.
//!
//! There is no official code, and this is a reconstruction: the estimators are the paper's; that π ascends the evidence of
//! validation images and w that of training images, one after the other, is a reading; optimizers, their rates and the
//! epochs are DARTS's and this program's. The paper's cells choose two inputs a node; where edges into a node compete here,
//! all of them have an operation in a draw, and the space's own rule keeps two.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

/// Settings of PARSEC.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParsecConfig {
    /// Architectures K that are drawn for a batch.
    pub samples: u64,
    /// The log-likelihood that draws are weighed by.
    pub likelihood: Likelihood,
    /// Standard deviation of the prior's logits at the start.
    pub init_std: f64,
    /// Optimizer of the prior's logits.
    pub arch: OptimizerConfig,
}

/// The log-likelihood of an architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Likelihood {
    /// log p(y|X, w, A) of the batch, a sum over its images.
    Sum,
    /// The mean over its images.
    Mean,
}

impl Likelihood {
    /// By how much a loss, which is a mean over `images` images, is multiplied.
    fn scale(self, images: f64) -> f64 {
        match self {
            Self::Sum => images,
            Self::Mean => 1.0,
        }
    }

    /// The scalar log-likelihood of a batch that a loss stands for, outside any graph.
    fn of(self, loss: &Tensor, batch: &Batch) -> Tensor {
        loss.detach() * -self.scale(batch.len() as f64)
    }
}

register! {
    strategy "parsec" => ParsecConfig,
    summary: "PARSEC: empirical Bayes, drawn architectures weighed by how well they explain a batch",
    source: "Casale, Gordon, Fusi 2019, arXiv:1902.05116",
    defaults: concat!(r#"[strategy]
# Architectures that are drawn for a batch, each with a forward and backward pass of its own.
samples = 16
# What a draw is weighed by: the log-likelihood of the whole batch, which is the "sum" over its images, or their "mean",
# which is far less peaked.
likelihood = "sum"
# Standard deviation of the logits at the start; 0 is the uniform prior.
init_std = 0.0
"#, nasfw_framework::arch_adam!("3e-4"), r#"
[trainer]
epochs = 100
"#),
    example: "nasfw run --strategy parsec --space nasbench201 --set strategy.samples=8",
}

#[typetag::serde(name = "parsec")]
impl StrategyConfig for ParsecConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Parsec {
            config: self.clone(),
            prior: IndependentSoftmax::new(cx.spec, self.init_std),
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.samples", self.samples, 1, 1_000_000);
        v.at_least("strategy.init_std", self.init_std, 0.0);
        self.arch.validate("strategy.arch", v);
    }
}

struct Parsec {
    config: ParsecConfig,
    prior: IndependentSoftmax,
}

impl Parsec {
    /// A_1, …, A_K ~ p(A|π).
    fn draws(&self, search: &Search, stream: &str) -> Result<Vec<Choice>> {
        let (pi, mut rng) = (search.phi(), search.rng(stream));
        (0..self.config.samples)
            .map(|_| self.prior.draw(&pi, &mut rng))
            .collect()
    }
}

/// −Σ_k ω_k log p(A_k|π) with ω = softmax_k(log p(y|X, w, A_k)), which π descends: a scalar with a graph to π alone.
///
/// # Errors
/// Those of [`Search::loss`].
pub fn surprise(
    search: &mut Search,
    prior: &dyn ArchDistribution,
    likelihood: Likelihood,
    drawn: &[Choice],
    val: &Batch,
) -> Result<Tensor> {
    let (w, pi) = (search.theta().detach(), search.phi());
    let (mut likelihoods, mut priors) = (vec![], vec![]);
    for choice in drawn {
        let loss = search.loss(&w, &search.one_hot(choice), val)?;
        likelihoods.push(likelihood.of(&loss, val));
        priors.push(prior.log_prob(&pi, choice)?);
    }
    let omega = Tensor::stack(&likelihoods, 0).softmax(0, pi.kind());
    Ok(-(omega * Tensor::stack(&priors, 0)).sum(pi.kind()))
}

/// Σ_k ω_k ∇_w L_k with the same ω, `[weights]`. One architecture is in memory at a time: ω is known up to its sum so far.
///
/// # Errors
/// Those of [`Search::weight_loss`].
pub fn weight_gradient(
    search: &mut Search,
    likelihood: Likelihood,
    drawn: &[Choice],
    train: &Batch,
) -> Result<Tensor> {
    let w = search.theta();
    let mut mean = w.detach().zeros_like();
    let mut evidence: Option<Tensor> = None;
    for choice in drawn {
        let loss = search.weight_loss(&search.one_hot(choice), train)?;
        let gradient = search.gradients(&loss, &[&w])?.remove(0);
        no_grad(|| {
            let likelihood = likelihood.of(&loss, train);
            let before = evidence.take();
            let with = before.as_ref().map(|e| e.logaddexp(&likelihood));
            let with = with.unwrap_or_else(|| likelihood.shallow_clone());
            if let Some(before) = before {
                let _ = mean.g_mul_(&(before - &with).exp());
            }
            let _ = mean.g_add_(&(gradient * (likelihood - &with).exp()));
            evidence = Some(with);
        });
    }
    Ok(mean)
}

impl Strategy for Parsec {
    /// The importance-weighted estimates of both gradients of the evidence.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        // 1. π ascends Σ_k ω_k ∇_π log p(A_k|π).
        let val = search.batch(Split::Val)?;
        let drawn = self.draws(search, "architecture step")?;
        let likelihood = self.config.likelihood;
        let surprise = surprise(search, &self.prior, likelihood, &drawn, &val)?;
        let gradient = search.gradients(&surprise, &[&search.phi()])?;
        search.descend_phi(&gradient[0])?;

        // 2. w ascends Σ_k ω_k ∇_w log p(y|X, w, A_k), the mean over images.
        let train = search.batch(Split::Train)?;
        let drawn = self.draws(search, "weight step")?;
        let gradient = weight_gradient(search, likelihood, &drawn, &train)?;
        search.descend_theta(&gradient);
        Ok(())
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.prior)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }

    /// w descends −log Σ_k p(y|X, w, A_k) of the draws, for each image.
    fn claims(&self) -> Claims {
        let likelihood = self.config.likelihood;
        let evidence = move |losses: &[TakenLoss]| {
            let scale = losses.first().map_or(1.0, |l| likelihood.scale(l.images));
            let best = losses.iter().map(|l| l.value).fold(f64::MAX, f64::min);
            let sum: f64 = losses
                .iter()
                .map(|l| ((best - l.value) * scale).exp())
                .sum();
            best - sum.ln() / scale
        };
        Claims {
            weight_gradient: WeightGradient::Of(Objective::new(evidence)),
            ..Claims::default()
        }
    }
}
