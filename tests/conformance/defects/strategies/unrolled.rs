//! DARTS with the unrolled step, correct and with each of the defects that it was found with.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

use super::{Defect, sgd};

/// DARTS (Liu et al. 2019) with the unrolled step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnrolledConfig {
    order: u8,
    chunks: i64,
    rate: f64,
    #[serde(default)]
    defect: Defect,
}

register! {
    strategy "double-unrolled" => UnrolledConfig,
    summary: "DARTS of second order",
    source: "tests",
    defaults: "[strategy]\n# 1 or 2.\norder = 2\n# Parts that a validation batch is differentiated in.\nchunks = 1\n# Rate of φ.\nrate = 0.1\n",
    example: "nasfw run --strategy double-unrolled",
}

#[typetag::serde(name = "double-unrolled")]
impl StrategyConfig for UnrolledConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Unrolled {
            config: self.clone(),
            softmax: IndependentSoftmax::new(cx.spec, 0.5),
            optimizer: sgd(if self.defect == Defect::IdleOption {
                0.1
            } else {
                self.rate
            }),
            piled: None,
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.order", self.order, 1, 2);
        v.range("strategy.chunks", self.chunks, 1, 2);
        v.at_least("strategy.rate", self.rate, 0.0);
    }
}

struct Unrolled {
    config: UnrolledConfig,
    softmax: IndependentSoftmax,
    optimizer: OptimizerConfig,
    piled: Option<Tensor>,
}

impl Unrolled {
    fn has(&self, defect: Defect) -> bool {
        self.config.defect == defect
    }

    fn loss(&self, s: &mut Search, theta: &Tensor, phi: &Tensor, batch: &Batch) -> Result<Tensor> {
        let arch = self.softmax.sample(phi, &mut s.rng("a"))?;
        s.loss(theta, &arch, batch)
    }

    /// ∇_φ L_val(θ, φ), in so many parts.
    fn first_order(&self, s: &mut Search, val: &Batch) -> Result<Tensor> {
        let (theta, phi) = (s.theta(), s.phi());
        let (n, parts) = (val.len(), self.config.chunks);
        let mut sum = Tensor::zeros_like(&phi);
        for part in 0..parts {
            let (from, to) = (n * part / parts, n * (part + 1) / parts);
            let chunk = Batch {
                images: val.images.narrow(0, from, to - from),
                labels: val.labels.narrow(0, from, to - from),
                split: val.split,
            };
            let loss = self.loss(s, &theta, &phi, &chunk)?;
            let share = (to - from) as f64 / n as f64;
            let gradient = &s.gradients(&loss, &[&phi])?[0] * share;
            if self.has(Defect::LastChunk) {
                sum = gradient;
            } else {
                sum += gradient;
            }
        }
        Ok(sum)
    }

    /// Equations 7 and 8 of the paper, on the flat vector.
    fn second_order(&self, s: &mut Search, train: &Batch, val: &Batch) -> Result<Tensor> {
        let (mut theta, phi) = (s.theta(), s.phi());
        let c = s.theta_optimizer().config().clone();
        let xi = s.theta_lr();
        let momentum = s.theta_optimizer().momentum_buffer().copy();
        let loss = self.loss(s, &theta, &phi, train)?;
        let g = &s.gradients(&loss, &[&theta])?[0];
        let stepped =
            no_grad(|| &theta - (&momentum * c.momentum + g + &theta * c.weight_decay) * xi);
        let virtual_theta = if self.has(Defect::NoVirtualStep) {
            theta.detach().copy()
        } else {
            stepped
        }
        .set_requires_grad(true);
        let loss = self.loss(s, &virtual_theta, &phi, val)?;
        let direct = s.gradients(&loss, &[&phi, &virtual_theta])?;
        let v = &direct[1];
        // Of a step so small single precision shows nothing.
        let step = if self.has(Defect::TinyStep) {
            1e-7
        } else {
            0.01
        };
        let epsilon = step / v.norm().double_value(&[]);

        // The passes at θ ± εv write into θ itself, and put it back.
        let kept = theta.detach().copy();
        let centre = if self.has(Defect::AroundVirtual) {
            virtual_theta.detach().copy()
        } else {
            kept.copy()
        };
        let mut pass = |s: &mut Search, sign: f64| -> Result<Tensor> {
            let sign = if self.has(Defect::SamePasses) {
                1.0
            } else {
                sign
            };
            no_grad(|| theta.copy_(&(&centre + v * (sign * epsilon))));
            let loss = self.loss(s, &theta, &phi, train)?;
            Ok(s.gradients(&loss, &[&phi])?.remove(0))
        };
        let (plus, minus) = (pass(s, 1.0)?, pass(s, -1.0)?);
        if !self.has(Defect::NotRestored) {
            no_grad(|| theta.copy_(&kept));
        }
        let product = if self.has(Defect::Precedence) {
            (plus - minus) / 2.0 * epsilon
        } else {
            (plus - minus) / (2.0 * epsilon)
        };
        Ok(&direct[0] - product * xi)
    }
}

impl Strategy for Unrolled {
    fn step(&mut self, s: &mut Search) -> Result<()> {
        let (train, val) = (s.batch(Split::Train)?, s.batch(Split::Val)?);
        let order = if self.has(Defect::IgnoresOrder) {
            1
        } else {
            self.config.order
        };
        let mut gradient = match order {
            1 => self.first_order(s, &val)?,
            _ => self.second_order(s, &train, &val)?,
        };
        if self.has(Defect::GradientsPileUp) {
            if let Some(before) = self.piled.take() {
                gradient += before;
            }
            self.piled = Some(gradient.copy());
        }
        s.descend_phi(&gradient)?;

        let (theta, phi) = (s.theta(), s.phi().detach());
        if self.has(Defect::WastedPass) {
            let loss = self.loss(s, &theta, &phi, &val)?;
            s.gradients(&loss, &[&theta])?;
        }
        let own = match self.has(Defect::WeightsSeeTheOtherHalf) {
            true => &val,
            false => &train,
        };
        let loss = self.loss(s, &theta, &phi, own)?;
        let mut gradient = s.gradients(&loss, &[&theta])?.remove(0);
        if self.has(Defect::WeightsTakeArchGradient) {
            // The gradient buffer of the validation pass is still there, and the weights' pass adds to it.
            let loss = self.loss(s, &theta, &phi, &val)?;
            gradient += Tensor::f_run_backward(&[&loss], &[&theta], false, false)?.remove(0);
        }
        s.descend_theta(&gradient);
        Ok(())
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
        Some(&self.optimizer)
    }
}
