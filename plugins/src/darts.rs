//! DARTS (Liu, Simonyan, Yang 2019): independent softmax weights on all candidates, learned by bilevel descent.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

/// Settings of DARTS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DartsConfig {
    /// 1: the architecture's gradient at the current weights (ξ = 0).
    pub order: u8,
    /// Standard deviation of the logits at the start.
    pub init_std: f64,
    /// Optimizer of the logits.
    pub arch: OptimizerConfig,
}

register! {
    strategy "darts" => DartsConfig,
    summary: "DARTS, first order: independent softmax, bilevel descent",
    source: "Liu, Simonyan, Yang 2019, ICLR, arXiv:1806.09055",
    defaults: r#"[strategy]
# Order of the architecture's gradient: 1 takes it at the current weights (the paper's xi = 0).
order = 1
# Standard deviation of the logits at the start.
init_std = 1e-3

[strategy.arch]
# Optimizer of the logits: "sgd" or "adam".
optimizer = "adam"
# Learning rate at the start.
lr = 3e-4
# Learning rate at the end of a decaying schedule.
lr_min = 0.0
# "cosine", "linear" or "constant".
schedule = "constant"
# SGD: momentum.
momentum = 0.0
# SGD: Nesterov's form of momentum.
nesterov = false
# Adam: decay rates of the moments.
betas = [0.5, 0.999]
# L2 decay.
weight_decay = 1e-3
# Largest gradient norm; 0 means no clipping.
clip = 0.0

[trainer]
epochs = 50
"#,
    example: "nasfw run --strategy darts --space nasbench1shot1-s3",
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
        match self.order {
            1 => {}
            2 => v.problem(
                "strategy.order",
                "second order (the unrolled step) is not there yet; first order is `order = 1`",
            ),
            n => v.problem(
                "strategy.order",
                format!("{n} is out of range, it must be 1"),
            ),
        }
        v.at_least("strategy.init_std", self.init_std, 0.0);
        self.arch.validate("strategy.arch", v);
    }
}

struct Darts {
    config: DartsConfig,
    softmax: IndependentSoftmax,
}

impl Strategy for Darts {
    /// Algorithm 1 of the paper, with ξ = 0 in step 1.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let (w, alpha) = (search.theta(), search.phi());

        // 1. Update α by descending ∇_α L_val(w, α).
        let val = search.batch(Split::Val)?;
        let arch = self.softmax.sample(&alpha, &mut search.rng("sample"))?;
        let loss = search.loss(&w.detach(), &arch, &val)?;
        let gradient = search.gradients(&loss, &[&alpha])?;
        search.descend_phi(&gradient[0])?;

        // 2. Update w by descending ∇_w L_train(w, α).
        let train = search.batch(Split::Train)?;
        let arch = self
            .softmax
            .sample(&alpha, &mut search.rng("sample"))?
            .detach();
        let loss = search.loss(&w, &arch, &train)?;
        let gradient = search.gradients(&loss, &[&w])?;
        search.descend_theta(&gradient[0]);
        Ok(())
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.softmax)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nasfw_framework::registry::{Kind, Registry};

    #[test]
    fn an_order_other_than_the_first_is_refused_with_what_to_type() {
        let registry = Registry::load().unwrap();
        let plugin = registry.get(Kind::Strategy, "darts").unwrap();
        let mut section = plugin.default_section().unwrap();
        section.as_object_mut().unwrap().remove("name");
        let mut config: DartsConfig = serde_json::from_value(section).unwrap();
        for (order, says) in [(1, None), (2, Some("`order = 1`")), (3, Some("must be 1"))] {
            config.order = order;
            let mut v = Validator::default();
            config.validate(&mut v);
            let problems = v.into_problems();
            assert_eq!(problems.len(), usize::from(says.is_some()));
            for problem in problems {
                assert_eq!(problem.key, "strategy.order");
                assert!(
                    problem.message.contains(says.unwrap()),
                    "{}",
                    problem.message
                );
            }
        }
    }
}
