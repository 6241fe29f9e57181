//! DARTS- (Chu et al. 2021): an identity beside every mixed operation, which fades out, takes from skip connections what
//! makes them win.

use std::f64::consts::PI;

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use nasfw_framework::supernet::AUXILIARY_SKIP;
use serde::{Deserialize, Serialize};

use crate::bilevel;

/// Settings of DARTS-.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DartsMinusConfig {
    /// Weight of the auxiliary identities in the first epoch.
    pub auxiliary_start: f64,
    /// How it falls to zero.
    pub decay: Decay,
    /// Standard deviation of the logits at the start.
    pub init_std: f64,
    /// Optimizer of the logits.
    pub arch: OptimizerConfig,
}

/// How the weight of the auxiliary identities falls from 1 to 0, by epoch e of T.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// 1 − e/T.
    Linear,
    /// (1 + cos(πe/T)) / 2.
    Cosine,
    /// cos(πe/2T).
    SlowCosine,
}

impl Decay {
    /// The weight when a share of the epochs is done.
    pub fn at(self, share: f64) -> f64 {
        match self {
            Self::Linear => 1.0 - share,
            Self::Cosine => (1.0 + (PI * share).cos()) / 2.0,
            Self::SlowCosine => (PI * share / 2.0).cos(),
        }
    }
}

register! {
    strategy "darts-minus" => DartsMinusConfig,
    summary: "DARTS-: an auxiliary identity beside every mixed operation, whose weight falls from 1 to 0",
    source: "Chu et al. 2021, ICLR, arXiv:2009.01027",
    defaults: concat!(r#"[strategy]
# Weight of the auxiliary identities in the first epoch; 0 is DARTS.
auxiliary_start = 1.0
# It falls to zero along a "linear", "cosine" or "slow-cosine" curve, once an epoch.
decay = "linear"
# Standard deviation of the logits at the start.
init_std = 1e-3
"#, nasfw_framework::arch_adam!("3e-4"), r#"
[trainer]
epochs = 50
"#),
    example: "nasfw run --strategy darts-minus --space nasbench201 --set space.preset=small",
}

#[typetag::serde(name = "darts-minus")]
impl StrategyConfig for DartsMinusConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(DartsMinus {
            config: self.clone(),
            softmax: IndependentSoftmax::new(cx.spec, self.init_std),
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.auxiliary_start", self.auxiliary_start, 0.0, 100.0);
        if self.auxiliary_start == 0.0 {
            v.idle(
                "strategy.decay",
                "with `auxiliary_start = 0`, which is DARTS",
            );
        }
        v.at_least("strategy.init_std", self.init_std, 0.0);
        self.arch.validate("strategy.arch", v);
    }
}

struct DartsMinus {
    config: DartsMinusConfig,
    softmax: IndependentSoftmax,
}

impl Strategy for DartsMinus {
    /// Algorithm 1 of the paper: first-order DARTS on edges that put out β x + Σ p o(x).
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let beta = self.config.auxiliary_start * self.config.decay.at(search.epoch_share());
        search.set_scalar(AUXILIARY_SKIP, beta);
        search.log(AUXILIARY_SKIP, beta);

        let train = search.batch(Split::Train)?;
        let loss = bilevel::validation_loss(search, &self.softmax)?;
        bilevel::descend_architecture(search, &loss)?;
        bilevel::descend_weights(search, &self.softmax, &train)
    }

    fn claims(&self) -> Claims {
        Claims {
            schedules: vec![Endpoints {
                scalar: AUXILIARY_SKIP,
                start: self.config.auxiliary_start,
                end: 0.0,
            }],
            ..Claims::default()
        }
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.softmax)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }

    fn supernet_options(&self) -> SupernetOptions {
        SupernetOptions {
            auxiliary_skip: self.config.auxiliary_start > 0.0,
            ..SupernetOptions::default()
        }
    }
}
