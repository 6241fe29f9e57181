//! ReinMax (Liu, Dong, Liu, Yu, Gao 2023): discrete draws with a straight-through estimator of second order, as a sampler of
//! architectures.
//!
//! The estimator is the paper's and its authors' code's. Searching with it is not published as a method: first-order
//! bilevel descent around it is DARTS's, and so are all other settings. Its gradient needs the output of every candidate,
//! so an architecture step computes all of them, and a weight step only what is drawn. A row that keeps several candidates
//! is one categorical variable over its subsets.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::bilevel;
use crate::subsets::SubsetSoftmax;

/// Settings of ReinMax.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReinmaxConfig {
    /// Temperature τ of the estimator.
    pub temperature: f64,
    /// Standard deviation of the logits at the start.
    pub init_std: f64,
    /// Optimizer of the logits.
    pub arch: OptimizerConfig,
}

register! {
    strategy "reinmax" => ReinmaxConfig,
    summary: "ReinMax: discrete draws, a straight-through gradient of second order",
    source: "Liu, Dong, Liu, Yu, Gao 2023, NeurIPS, arXiv:2304.08612",
    defaults: concat!(r#"[strategy]
# Temperature of the softmax that a draw is averaged with, at least 1, where the estimator is of second order; draws do not
# depend on it.
temperature = 1.0
# Standard deviation of the logits at the start.
init_std = 1e-3
"#, nasfw_framework::arch_adam!("3e-4"), r#"
[trainer]
epochs = 50
"#),
    example: "nasfw run --strategy reinmax --space nasbench201",
}

#[typetag::serde(name = "reinmax")]
impl StrategyConfig for ReinmaxConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Reinmax {
            config: self.clone(),
            sampler: ReinmaxSampler::new(cx.spec, self.init_std, self.temperature)?,
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.temperature", self.temperature, 1.0, 1e6);
        v.at_least("strategy.init_std", self.init_std, 0.0);
        self.arch.validate("strategy.arch", v);
    }
}

/// Independent categorical rows whose samples are draws with ReinMax's gradient.
#[derive(Debug)]
pub struct ReinmaxSampler {
    temperature: f64,
    categorical: SubsetSoftmax,
}

impl ReinmaxSampler {
    /// Logits that start Gaussian with standard deviation `init_std`, and a temperature τ ≥ 1.
    ///
    /// # Errors
    /// [`Error::Incompatible`] where a row may keep too many subsets of its candidates.
    pub fn new(spec: &ArchSpec, init_std: f64, temperature: f64) -> Result<Self> {
        let categorical = SubsetSoftmax::new(spec, init_std)?;
        Ok(Self {
            temperature,
            categorical,
        })
    }

    /// The value of a choice, one at what it keeps, with ReinMax's gradient in the logits `theta` (equation 5 and algorithm 2
    /// of the paper): with D the draw, p = softmax(θ) and p₁ = (D + softmax(θ/τ)) / 2,
    /// 2 J(p₁) − J(p) / 2 in the place of D's derivative, J(q) = diag(q) − q qᵀ that of a softmax.
    ///
    /// # Errors
    /// A choice that does not fit.
    pub fn straight_through(&self, theta: &Tensor, choice: &Choice) -> Result<RelaxedArch> {
        let subsets = &self.categorical.subsets;
        let spec = subsets.unfolded();
        let draw = subsets.unfold(choice)?;
        let draw = draw.one_hot(spec, theta.kind(), theta.device()).weights;
        let warm = spec.softmax(&(theta.detach() / self.temperature));
        let (logits, p) = (spec.split(theta), spec.softmax(theta));
        let rows = draw.into_iter().zip(warm).zip(logits.iter().zip(p));
        let weights: Vec<Tensor> = rows
            .map(|((d, warm), (logits, p))| {
                // A softmax of logits whose value is p₁, and whose derivative is one.
                let middle: Tensor = (&d + warm) / 2.0;
                let middle = middle.log() - logits.detach() + logits;
                let surrogate = middle.softmax(-1, d.kind()) * 2.0 - p / 2.0;
                d + (&surrogate - surrogate.detach())
            })
            .collect();
        Ok(RelaxedArch::new(subsets.weights(&weights)))
    }
}

impl ArchDistribution for ReinmaxSampler {
    fn layout(&self) -> &ParamLayout {
        self.categorical.layout()
    }

    /// A draw with ReinMax's gradient; every candidate is to be computed.
    fn sample(&self, phi: &Tensor, rng: &mut Rng) -> Result<RelaxedArch> {
        self.straight_through(phi, &self.draw(phi, rng)?)
    }

    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        self.categorical.mean(phi)
    }

    fn draw(&self, phi: &Tensor, rng: &mut Rng) -> Result<Choice> {
        self.categorical.draw(phi, rng)
    }

    fn log_prob(&self, phi: &Tensor, choice: &Choice) -> Result<Tensor> {
        self.categorical.log_prob(phi, choice)
    }
}

struct Reinmax {
    config: ReinmaxConfig,
    sampler: ReinmaxSampler,
}

impl Strategy for Reinmax {
    /// Bilevel descent of first order, at draws.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        // 1. Update α by descending ReinMax's estimate of ∇_α E[L_val(w, D)].
        let loss = bilevel::validation_loss(search, &self.sampler)?;
        bilevel::descend_architecture(search, &loss)?;

        // 2. Update w by descending ∇_w L_train(w, D) at another draw, the only one computed.
        let train = search.batch(Split::Train)?;
        let choice = self
            .sampler
            .draw(&search.phi(), &mut search.rng("weight step"))?;
        let path = search.one_hot(&choice);
        bilevel::descend_weights_at(search, &path, &train)
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.sampler)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }

    fn claims(&self) -> Claims {
        Claims {
            arch_gradient: ArchGradient::Other(
                "a straight-through estimate: the loss at a draw, the slope of Heun's method",
            ),
            ..Claims::default()
        }
    }

    /// The most probable architecture.
    fn derive(&self, search: &Search) -> Result<Choice> {
        let mode = self.sampler.categorical.mode(&search.phi().detach())?;
        Ok(search.space().derive(&mode))
    }
}
