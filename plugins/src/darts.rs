//! DARTS (Liu, Simonyan, Yang 2019): independent softmax weights on all candidates, learned by bilevel descent.

use nasfw_framework::optim::{FlatOptimizer, Rule};
use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

use crate::bilevel;

/// Settings of DARTS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DartsConfig {
    /// 1: the architecture's gradient at the current weights (ξ = 0). 2: after one virtual step of the weights.
    pub order: u8,
    /// Order 2: how the product of a vector with the mixed second derivative is computed.
    pub hessian_product: HessianProduct,
    /// Standard deviation of the logits at the start.
    pub init_std: f64,
    /// Optimizer of the logits.
    pub arch: OptimizerConfig,
}

/// How ∇²_{α,w} L_train(w, α) v is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HessianProduct {
    /// By the difference of ∇_α L_train at w ± εv, ε = 0.01 / ‖v‖ (equation 8).
    FiniteDifference,
    /// By double backward.
    Exact,
}

register! {
    strategy "darts" => DartsConfig,
    summary: "DARTS: independent softmax, bilevel descent of first or second order",
    source: "Liu, Simonyan, Yang 2019, ICLR, arXiv:1806.09055",
    defaults: concat!(r#"[strategy]
# Order of the architecture's gradient: 1 takes it at the current weights (the paper's xi = 0), 2 after one virtual
# step of the weights (xi = their learning rate).
order = 1
# Order 2: "finite-difference" is the paper's equation 8, "exact" differentiates twice (slower, more memory).
hessian_product = "finite-difference"
# Standard deviation of the logits at the start.
init_std = 1e-3
"#, nasfw_framework::arch_adam!("3e-4"), r#"
[trainer]
epochs = 50
"#),
    example: "nasfw run --strategy darts --space nasbench1shot1-s3",
    presets: &[("second-order", "[strategy]\norder = 2\n")],
}

#[typetag::serde(name = "darts")]
impl StrategyConfig for DartsConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        let softmax = IndependentSoftmax::new(cx.spec, self.init_std);
        Ok(Box::new(Darts {
            config: self.clone(),
            softmax,
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.order", self.order, 1, 2);
        if self.order == 1 {
            v.idle(
                "strategy.hessian_product",
                "with `order = 1`, which has no such product",
            );
        }
        v.at_least("strategy.init_std", self.init_std, 0.0);
        self.arch.validate("strategy.arch", v);
    }
}

struct Darts {
    config: DartsConfig,
    softmax: IndependentSoftmax,
}

impl Darts {
    /// Equation 7: ∇_α L_val(w', α) − ξ ∇²_{α,w} L_train(w, α) ∇_{w'} L_val(w', α), with w' one step of the weights'
    /// optimizer away from w: w' = w − ξ (μ m + ∇_w L_train(w, α) + λ w).
    fn unrolled(&self, search: &mut Search, train: &Batch, val: &Batch) -> Result<Tensor> {
        let (w, alpha, xi) = (search.theta(), search.phi(), search.theta_lr());
        let arch = self.sample(search)?.detach();
        let loss = search.loss(&w, &arch, train)?;
        let gradient = search.gradients(&loss, &[&w])?.remove(0);
        let stepped = virtual_step(search.theta_optimizer(), &w, &gradient, xi)?;

        let arch = self.sample(search)?;
        let loss = search.loss(&stepped, &arch, val)?;
        let gradients = search.gradients(&loss, &[&alpha, &stepped])?;
        let (direct, v) = (&gradients[0], &gradients[1]);
        let product = match self.config.hessian_product {
            HessianProduct::FiniteDifference => self.difference(search, train, v)?,
            HessianProduct::Exact => {
                let arch = self.sample(search)?;
                let loss = search.smooth_loss(&w, &arch, train)?;
                search.hessian_product(&loss, &w, v, &alpha)?
            }
        };
        Ok(direct - product * xi)
    }

    /// Equation 8: [∇_α L_train(w⁺, α) − ∇_α L_train(w⁻, α)] / 2ε with w± = w ± εv and ε = 0.01 / ‖v‖.
    fn difference(&self, search: &mut Search, train: &Batch, v: &Tensor) -> Result<Tensor> {
        let (w, alpha) = (search.theta().detach(), search.phi());
        // The norm stays on the device. Without a direction there is nothing to add.
        let epsilon = v.norm().clamp_min(1e-30).reciprocal() * 0.01;
        let mut slope = |shift: &Tensor| -> Result<Tensor> {
            let arch = self.sample(search)?;
            let loss = search.loss(&(&w + shift), &arch, train)?;
            Ok(search.gradients(&loss, &[&alpha])?.remove(0))
        };
        let shift = v * &epsilon;
        let (plus, minus) = (slope(&shift)?, slope(&-&shift)?);
        Ok((plus - minus) / (epsilon * 2.0))
    }

    fn sample(&self, search: &Search) -> Result<RelaxedArch> {
        let rng = &mut search.rng("architecture step");
        self.softmax.sample(&search.phi(), rng)
    }
}

/// Weights after a step of SGD with momentum along a gradient, a leaf; neither they nor the optimizer have moved.
fn virtual_step(
    optimizer: &FlatOptimizer,
    w: &Tensor,
    gradient: &Tensor,
    xi: f64,
) -> Result<Tensor> {
    let c = optimizer.config();
    if c.optimizer != Rule::Sgd {
        return Err(Error::Incompatible {
            what: "second-order DARTS".into(),
            why: "its virtual step is one of SGD with momentum, and the weights have another optimizer".into(),
            help: "use `--set trainer.weights.optimizer=sgd`, or `--set strategy.order=1`".into(),
        });
    }
    let m = optimizer.momentum_buffer();
    let stepped = no_grad(|| {
        let step = gradient + w * c.weight_decay;
        w - (if c.momentum > 0.0 {
            step + m * c.momentum
        } else {
            step
        }) * xi
    });
    Ok(stepped.set_requires_grad(true))
}

impl Strategy for Darts {
    /// Algorithm 1 of the paper.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let train = search.batch(Split::Train)?;
        // 1. Update α by descending ∇_α L_val(w − ξ ∇_w L_train(w, α), α).
        if self.config.order == 1 {
            let loss = bilevel::validation_loss(search, &self.softmax)?;
            bilevel::descend_architecture(search, &loss)?;
        } else {
            let val = search.batch(Split::Val)?;
            let gradient = self.unrolled(search, &train, &val)?;
            search.descend_phi(&gradient)?;
        }
        // 2. Update w by descending ∇_w L_train(w, α).
        bilevel::descend_weights(search, &self.softmax, &train)
    }

    fn claims(&self) -> Claims {
        Claims {
            arch_gradient: match self.config.order {
                1 => ArchGradient::Direct,
                _ => ArchGradient::Unrolled,
            },
            ..Claims::default()
        }
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.softmax)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }
}
