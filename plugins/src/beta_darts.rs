//! β-DARTS (Ye et al. 2022): first-order DARTS with a smooth maximum of every row's logits in the architecture's loss, whose
//! weight grows: large logits are held back, and a row's weights stay close to each other.
//!
//! The authors' code has one matrix of logits and takes the mean over its rows; where a space has several, the mean here is
//! over all rows together. Its weight is 50 e / 100 in epoch e of 100: 50 times the share of the epochs that are done.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::{bilevel, sdarts};

/// Settings of β-DARTS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BetaDartsConfig {
    /// Weight of the regulariser after the last epoch; it grows linearly from zero.
    pub weight: f64,
    /// Standard deviation of the logits at the start.
    pub init_std: f64,
    /// Optimizer of the logits.
    pub arch: OptimizerConfig,
}

register! {
    strategy "beta-darts" => BetaDartsConfig,
    summary: "β-DARTS: a growing penalty on the smooth maximum of every row's logits",
    source: "Ye et al. 2022, CVPR, arXiv:2203.01665",
    defaults: concat!(r#"[strategy]
# Weight of the penalty after the last epoch; it grows linearly, once an epoch, from zero. 0 is DARTS.
weight = 50.0
# Standard deviation of the logits at the start.
init_std = 1e-3
"#, nasfw_framework::arch_adam!("3e-4"), r#"
[trainer]
epochs = 50
"#),
    example: "nasfw run --strategy beta-darts --space nasbench201 --set space.preset=small",
    families: sdarts::FAMILIES,
}

#[typetag::serde(name = "beta-darts")]
impl StrategyConfig for BetaDartsConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(BetaDarts {
            config: self.clone(),
            softmax: IndependentSoftmax::new(cx.spec, self.init_std),
            spec: cx.spec.clone(),
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.at_least("strategy.weight", self.weight, 0.0);
        v.at_least("strategy.init_std", self.init_std, 0.0);
        self.arch.validate("strategy.arch", v);
    }
}

struct BetaDarts {
    config: BetaDartsConfig,
    softmax: IndependentSoftmax,
    spec: ArchSpec,
}

/// L_Beta: the mean over rows of log Σ_k exp(α_k), a scalar (equation 14 of the paper). Its gradient is the rows' softmax,
/// divided by their number.
fn smooth_maximum(spec: &ArchSpec, alpha: &Tensor) -> Tensor {
    let groups = spec.groups().iter().zip(spec.split(alpha));
    let sums = groups.map(|(group, logits)| {
        let of_rows = group
            .masked_logits(&logits)
            .logsumexp([-1i64].as_slice(), false);
        of_rows.sum(alpha.kind())
    });
    sums.sum::<Tensor>() / spec.rows().count() as f64
}

impl Strategy for BetaDarts {
    /// A step of first-order DARTS, with λ L_Beta in the architecture's loss.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let lambda = self.config.weight * search.epoch_share();
        search.log("penalty_weight", lambda);

        let train = search.batch(Split::Train)?;
        // 1. Update α by descending ∇_α (L_val(w, α) + λ L_Beta(α)).
        let mut loss = bilevel::validation_loss(search, &self.softmax)?;
        if lambda > 0.0 {
            loss += smooth_maximum(&self.spec, &search.phi()) * lambda;
        }
        bilevel::descend_architecture(search, &loss)?;
        // 2. Update w by descending ∇_w L_train(w, α).
        bilevel::descend_weights(search, &self.softmax, &train)
    }

    fn claims(&self) -> Claims {
        Claims {
            schedules: vec![Endpoints {
                scalar: "penalty_weight",
                start: 0.0,
                end: self.config.weight,
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
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// Three rows of three, two and four candidates in two groups.
    fn spec() -> ArchSpec {
        let row = |n: usize| Row {
            name: format!("{n}"),
            candidates: (0..n).map(|c| format!("op{c}")).collect(),
            keep: 1,
        };
        let group = |name: &str, rows: &[usize]| Group {
            name: name.into(),
            role: Role::Operations,
            rows: rows.iter().map(|n| row(*n)).collect(),
            edges: None,
        };
        ArchSpec::new(vec![group("ragged", &[3, 2]), group("other", &[4])]).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Value and gradient number by number, padding left out.
        #[test]
        fn the_penalty_has_its_closed_form(alpha in prop::collection::vec(-6.0f64..6.0, 10)) {
            let phi = Tensor::from_slice(&alpha).set_requires_grad(true);
            let value = smooth_maximum(&spec(), &phi);
            let slope = Tensor::run_backward(&[&value], &[&phi], false, false).remove(0);
            let slope = Vec::<f64>::try_from(slope).unwrap();
            let rows = [0..3, 3..5, 6..10];
            let sums = rows.clone().map(|r| alpha[r].iter().map(|a| a.exp()).sum::<f64>());
            let expected = sums.iter().map(|s| s.ln()).sum::<f64>() / 3.0;
            prop_assert!((value.double_value(&[]) - expected).abs() < 1e-12);
            for (i, found) in slope.iter().enumerate() {
                let row = rows.iter().position(|r| r.contains(&i));
                let expected = row.map_or(0.0, |r| alpha[i].exp() / sums[r] / 3.0);
                prop_assert!((found - expected).abs() < 1e-12, "{i}: {found} {expected}");
            }
        }
    }
}
