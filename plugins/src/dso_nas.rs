//! DSO-NAS (Zhang, Huang, Wang 2018): every candidate has a non-negative scale λ instead of a softmax weight, an L1 penalty
//! drives scales to zero, and what is zero is pruned.
//!
//! Readings. The paper has a space of its own, in which every operation reads all earlier ones and the output is joined with
//! scales; here rows are those of the space that is searched. The authors clip gradients of scales and weights number by
//! number; here scales so, and weights by their norm (`trainer.weights.clip`). Their code removes what is zero from the
//! network every five epochs; between these epochs it is no part of a weight step, and may come back by a step of its scale.
//! The penalty that grows with the operations' cost is not here.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

use crate::bilevel;
use crate::sparse::{self, RawWeights, Table};

/// Settings of DSO-NAS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DsoNasConfig {
    /// γ: weight of ‖λ‖₁ in the loss.
    pub gamma: f64,
    /// μ: momentum of the scales.
    pub momentum: f64,
    /// Largest size of each number of the scales' gradient; 0 means no clipping.
    pub clip: f64,
    /// Scales at the start.
    pub init: f64,
    /// Epochs from one pruning to the next.
    pub prune_every: u64,
}

register! {
    strategy "dso-nas" => DsoNasConfig,
    summary: "DSO-NAS: candidates scaled by numbers that an L1 penalty drives to zero; what is zero is pruned",
    source: "Zhang, Huang, Wang 2018, arXiv:1811.01567",
    defaults: r#"[strategy]
# Weight of the L1 norm of the scales in the loss.
gamma = 1e-3
# Momentum of the scales' accelerated proximal gradient. Their learning rate is that of the weights.
momentum = 0.9
# Largest size of each number of the scales' gradient; 0 means no clipping.
clip = 2.0
# Scales at the start.
init = 1.0
# Epochs after which what has the scale zero is removed for good, again and again.
prune_every = 5

[trainer]
epochs = 120
batch_size = 128

[trainer.weights]
lr = 0.1
schedule = "constant"
nesterov = true
weight_decay = 1e-4
"#,
    example: "nasfw run --strategy dso-nas --space darts --set strategy.gamma=0.005",
}

#[typetag::serde(name = "dso-nas")]
impl StrategyConfig for DsoNasConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(DsoNas {
            config: self.clone(),
            scales: RawWeights::new(cx.spec, self.init),
            state: State {
                momentum: vec![0.0; cx.spec.numel() as usize],
                alive: sparse::real(cx.spec),
            },
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.at_least("strategy.gamma", self.gamma, 0.0);
        v.below("strategy.momentum", self.momentum, 0.0, 1.0);
        v.at_least("strategy.clip", self.clip, 0.0);
        v.at_least("strategy.init", self.init, 0.0);
        v.at_least("strategy.prune_every", self.prune_every, 1);
    }
}

/// What a checkpoint must keep.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    /// m of the accelerated proximal gradient, `[parameters]`.
    #[serde(with = "nasfw_framework::lossless")]
    momentum: Vec<f64>,
    /// What is not pruned.
    alive: Table,
}

struct DsoNas {
    config: DsoNasConfig,
    scales: RawWeights,
    state: State,
}

/// One step of the accelerated proximal gradient on λ ≥ 0 in the form of Nesterov's momentum (equations 10 to 12):
/// z = soft(λ − η g, η γ), m ← z − λ + μ m, λ ← max(0, z + μ m).
fn step(lambda: &mut f64, m: &mut f64, g: f64, eta: f64, gamma: f64, mu: f64) {
    let z = sparse::soft_threshold(*lambda - eta * g, eta * gamma);
    *m = z - *lambda + mu * *m;
    *lambda = (z + mu * *m).max(0.0);
}

impl Strategy for DsoNas {
    /// Weights and scales in turn, each on batches of their own half.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        // 1. Update W by descending ∇_W L_train(W, λ); what has the scale zero has no part in it.
        let train = search.batch(Split::Train)?;
        let scaled = self.scales.support(&search.phi());
        bilevel::descend_weights_at(search, &scaled, &train)?;

        // 2. Update λ by a proximal step on L_val(W, λ) + γ ‖λ‖₁, λ ≥ 0.
        let loss = bilevel::validation_loss(search, &self.scales)?;
        let gradient = search.gradients(&loss, &[&search.phi()])?.remove(0);
        let DsoNasConfig {
            gamma,
            momentum: mu,
            clip,
            ..
        } = self.config;
        let (eta, m) = (search.theta_lr(), &mut self.state.momentum);
        search.update_phi(|phi| {
            let mut lambda = sparse::numbers(phi);
            let gradient = sparse::numbers(&gradient);
            for ((lambda, m), g) in lambda.iter_mut().zip(m).zip(gradient) {
                let g = if clip > 0.0 { g.clamp(-clip, clip) } else { g };
                step(lambda, m, g, eta, gamma, mu);
            }
            sparse::write(phi, &lambda);
        });
        Ok(())
    }

    /// What has the scale zero is removed for good.
    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        let scales = self.scales.support(&search.phi());
        let kept = scales.active.unwrap_or_default();
        let count = kept.iter().flatten().flatten().filter(|on| **on).count();
        search.log("kept", count as f64);
        if (search.epoch() + 1).is_multiple_of(self.config.prune_every) {
            // Their gradients are zero from now on: without momentum they stay where they are.
            let on = sparse::flat(&kept);
            for (m, on) in self.state.momentum.iter_mut().zip(on) {
                *m = if on { *m } else { 0.0 };
            }
            self.state.alive.clone_from(&kept);
            self.scales.alive = kept;
        }
        Ok(Control::Continue)
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.scales)
    }

    fn derive(&self, search: &Search) -> Result<Choice> {
        Ok(self.scales.derive(search))
    }

    fn state(&self) -> Result<StrategyState> {
        StrategyState::of(&self.state)
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        let state: State = state.value()?;
        sparse::need(&self.scales.spec, &state.alive, &state.momentum)?;
        self.scales.alive.clone_from(&state.alive);
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Without momentum a step is the minimiser of ½ (z − (λ − η g))² + η γ z over z ≥ 0, found on a grid.
        #[test]
        fn a_step_minimises_its_proximal_objective(
            start in 0.0f64..2.0, g in -3.0f64..3.0, eta in 0.01f64..0.5, gamma in 0.0f64..3.0,
        ) {
            let (mut lambda, mut m) = (start, 0.0);
            step(&mut lambda, &mut m, g, eta, gamma, 0.0);
            let objective = |z: f64| 0.5 * (z - (start - eta * g)).powi(2) + eta * gamma * z;
            let grid = (0..40_000).map(|i| f64::from(i) * 1e-4);
            let best = grid.fold(0.0, |b, z| if objective(z) < objective(b) { z } else { b });
            prop_assert!((lambda - best).abs() < 1e-4, "{lambda} and {best}");
            prop_assert!(objective(lambda) <= objective(best) + 1e-12);
        }
    }

    /// The accelerated form ends where ∇ + γ is zero or the scale is: of L = Σ ½ h (λ − t)² at max(0, t − γ / h).
    #[test]
    fn steps_end_at_the_sparse_minimum() {
        for (h, t) in [(1.0, 0.8), (2.0, 0.3), (0.5, 0.35), (1.0, -0.4)] {
            let gamma = 0.2;
            let (mut lambda, mut m) = (1.0, 0.0);
            for _ in 0..500 {
                let g = h * (lambda - t);
                step(&mut lambda, &mut m, g, 0.1, gamma, 0.9);
            }
            let expected = (t - gamma / h).max(0.0);
            assert!((lambda - expected).abs() < 1e-6, "{lambda} {expected}");
            // Zero is zero, not small.
            assert_eq!(lambda == 0.0, expected == 0.0);
        }
    }
}
