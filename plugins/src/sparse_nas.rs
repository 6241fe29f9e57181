//! SparseNAS (Wu, Liu, Huang, Zhang, Van Gool 2021): a supernet of free weights under a sparse group lasso, so that any
//! number of paths into any number of nodes may be left.
//!
//! A reconstruction: no code is public, and the text fixes neither the penalties' weights nor the start. From the paper:
//! weights without a softmax, an L1 norm of all of them and an L2 norm of those into a node, bilevel descent by a
//! hierarchical accelerated proximal gradient (HAPG: the element's proximal step, then the group's) or with Adam's step
//! sizes (AdamHAPG), and what is not zero is the architecture. Decided here: penalties, the start, √n as a group's weight (as
//! in the group lasso), momentum as in DSO-NAS but none of a weight whose proximal step ends at zero, so that zeros last, and,
//! with Adam, the proximal step in Adam's own metric, which is then exact. Where rows are no edges a row is a group.
//!
//! What weighs nothing is no part of a weight step. It is computed in an architecture's step, and comes back if its gradient is
//! larger than the penalty.

use nasfw_framework::optim::Rule;
use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

use crate::bilevel;
use crate::sparse::{self, RawWeights};

/// Settings of SparseNAS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparseNasConfig {
    /// λ₁: weight of the L1 norm of all weights.
    pub l1: f64,
    /// λ₂: weight of Σ √n ‖α_node‖₂ over nodes with n paths.
    pub l2: f64,
    /// Weights at the start.
    pub init: f64,
    /// Step sizes: "adam" is AdamHAPG, "sgd" HAPG with this momentum.
    pub arch: OptimizerConfig,
}

register! {
    strategy "sparse-nas" => SparseNasConfig,
    summary: "SparseNAS: free weights under a sparse group lasso, what is not zero is kept (a reconstruction)",
    source: "Wu, Liu, Huang, Zhang, Van Gool 2021, AAAI, arXiv:2007.16112",
    defaults: concat!(r#"[strategy]
# Weight of the L1 norm of all candidates' weights.
l1 = 1e-3
# Weight of the L2 norms of the weights into each node, each times the root of their number.
l2 = 1e-3
# Weights at the start.
init = 0.125
"#, nasfw_framework::arch_optimizer!("adam", "3e-4", momentum: "0.0", beta: "0.5", decay: "0.0", clip: "0.0"), r#"
[trainer]
epochs = 50
"#),
    example: "nasfw run --strategy sparse-nas --space darts --set strategy.l2=0.002",
    presets: &[("hapg", "[strategy.arch]\noptimizer = \"sgd\"\nlr = 0.025\nmomentum = 0.9\n")],
}

#[typetag::serde(name = "sparse-nas")]
impl StrategyConfig for SparseNasConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        let bundles = sparse::bundles(cx.spec, |group| group.edges.is_some());
        Ok(Box::new(SparseNas {
            config: self.clone(),
            descent: OptimizerConfig {
                momentum: 0.0,
                ..self.arch.clone()
            },
            nodes: bundles.iter().map(|b| b.places(cx.spec)).collect(),
            weights: RawWeights::new(cx.spec, self.init),
            momentum: vec![0.0; cx.spec.numel() as usize],
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.at_least("strategy.l1", self.l1, 0.0);
        v.at_least("strategy.l2", self.l2, 0.0);
        v.range("strategy.init", self.init, -100.0, 100.0);
        self.arch.validate("strategy.arch", v);
        // That of the accelerated proximal gradient, whatever the rule.
        v.reads("strategy.arch.momentum");
        if self.arch.optimizer == Rule::RmsProp {
            let why = "the proximal step knows the step sizes of \"adam\" and \"sgd\" alone";
            v.problem("strategy.arch.optimizer", why);
        }
        if self.arch.nesterov {
            let why = "the accelerated proximal gradient has Nesterov's momentum of its own";
            v.problem("strategy.arch.nesterov", why);
        }
    }
}

struct SparseNas {
    config: SparseNasConfig,
    /// The optimizer of the smooth part: momentum comes after the proximal step.
    descent: OptimizerConfig,
    /// Per node the places of its paths in φ.
    nodes: Vec<Vec<usize>>,
    weights: RawWeights,
    /// v of the accelerated proximal gradient, `[parameters]`; zero with Adam.
    momentum: Vec<f64>,
}

impl SparseNas {
    /// η of every parameter in the step that was just taken, `[parameters]`: with Adam η / (√v̂ + ε).
    fn step_sizes(&self, search: &Search) -> Vec<f64> {
        let (eta, n) = (search.phi_lr(), self.momentum.len());
        match search.phi_optimizer() {
            Some(adam) if adam.config().optimizer == Rule::Adam => {
                let ([_, (_, second)], steps) = adam.state();
                let unbiased = 1.0 - adam.config().betas[1].powf(steps as f64);
                let size = |v: f64| eta / ((v / unbiased).sqrt() + adam.config().eps);
                sparse::numbers(second).into_iter().map(size).collect()
            }
            _ => vec![eta; n],
        }
    }
}

/// The minimiser of ½ Σ (z_i − x_i)² / η_i + l1 ‖z‖₁ + l2 ‖z‖₂: soft thresholds of the elements, then a common shrinkage.
/// With one η for all that is max(0, 1 − η l2 / ‖u‖) u, u the thresholded x. Of several, the size of z solves
/// Σ (u_i / (t + η_i l2))² = 1, found by bisection.
pub fn sparse_group_step(x: &[f64], eta: &[f64], l1: f64, l2: f64) -> Vec<f64> {
    let pairs = || x.iter().zip(eta);
    let u: Vec<f64> = pairs()
        .map(|(x, eta)| sparse::soft_threshold(*x, eta * l1))
        .collect();
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    if l2 == 0.0 {
        return u;
    }
    let at = |t: f64| norm(&mut u.iter().zip(eta).map(|(u, eta)| u / (t + eta * l2)));
    // Where the slope of the smooth part is no larger than the penalty's, zero is the minimiser.
    if at(0.0).is_nan() || at(0.0) <= 1.0 {
        return vec![0.0; x.len()];
    }
    let (mut low, mut high) = (0.0, norm(&mut u.iter().copied()));
    loop {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if at(middle) > 1.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    u.iter()
        .zip(eta)
        .map(|(u, eta)| u * high / (high + eta * l2))
        .collect()
}

impl Strategy for SparseNas {
    fn step(&mut self, search: &mut Search) -> Result<()> {
        // 1. α: a step of the optimizer along ∇_α L_val(w, α), then the proximal step of l1 ‖α‖₁ + l2 Σ √n ‖α_node‖₂.
        let before = sparse::numbers(&search.phi());
        let loss = bilevel::validation_loss(search, &self.weights)?;
        bilevel::descend_architecture(search, &loss)?;
        let (eta, mu) = (self.step_sizes(search), self.config.arch.momentum);
        let (l1, l2) = (self.config.l1, self.config.l2);
        let (nodes, momentum) = (&self.nodes, &mut self.momentum);
        search.update_phi(|phi| {
            let mut alpha = sparse::numbers(phi);
            for node in nodes {
                let of = |v: &[f64]| node.iter().map(|&i| v[i]).collect::<Vec<_>>();
                let l2 = l2 * (node.len() as f64).sqrt();
                let z = sparse_group_step(&of(&alpha), &of(&eta), l1, l2);
                for (&i, z) in node.iter().zip(z) {
                    momentum[i] = match z == 0.0 {
                        true => 0.0,
                        false => mu * (z - before[i] + momentum[i]),
                    };
                    alpha[i] = z + momentum[i];
                }
            }
            sparse::write(phi, &alpha);
        });

        // 2. Update w by descending ∇_w L_train(w, α).
        let train = search.batch(Split::Train)?;
        let arch = self.weights.support(&search.phi());
        bilevel::descend_weights_at(search, &arch, &train)
    }

    /// How many candidates are left.
    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        let active = self.weights.support(&search.phi()).active;
        let kept = sparse::flat(&active.unwrap_or_default());
        search.log("kept", kept.iter().filter(|on| **on).count() as f64);
        Ok(Control::Continue)
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.weights)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.descent)
    }

    fn derive(&self, search: &Search) -> Result<Choice> {
        Ok(self.weights.derive(search))
    }

    fn state(&self) -> Result<StrategyState> {
        StrategyState::of(&State {
            momentum: self.momentum.clone(),
        })
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        let State { momentum } = state.value()?;
        sparse::need(&self.weights.spec, &self.weights.alive, &momentum)?;
        self.momentum = momentum;
        Ok(())
    }
}

/// What a checkpoint must keep.
#[derive(Serialize, Deserialize)]
struct State {
    #[serde(with = "nasfw_framework::lossless")]
    momentum: Vec<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn objective(z: &[f64], x: &[f64], eta: &[f64], l1: f64, l2: f64) -> f64 {
        let smooth: f64 = (z.iter().zip(x).zip(eta))
            .map(|((z, x), eta)| 0.5 * (z - x).powi(2) / eta)
            .sum();
        let norm = z.iter().map(|z| z * z).sum::<f64>().sqrt();
        smooth + l1 * z.iter().map(|z| z.abs()).sum::<f64>() + l2 * norm
    }

    /// Values to try for every coordinate, some of them zero.
    const STEPS: i32 = 40;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// No point of a grid over all coordinates is better, nor one a hair away.
        #[test]
        fn a_step_minimises_its_objective(
            x in prop::collection::vec(-2.0f64..2.0, 2),
            eta in prop::collection::vec(0.05f64..1.5, 2),
            l1 in 0.0f64..1.5,
            l2 in prop_oneof![Just(0.0), 0.01f64..2.5],
        ) {
            let z = sparse_group_step(&x, &eta, l1, l2);
            let best = objective(&z, &x, &eta, l1, l2);
            let at = |i: i32| f64::from(i) * 0.05;
            for i in -STEPS..=STEPS {
                for j in -STEPS..=STEPS {
                    let other = objective(&[at(i), at(j)], &x, &eta, l1, l2);
                    prop_assert!(best <= other + 1e-9, "{z:?}: {best}, at {} {}: {other}", at(i), at(j));
                }
            }
            for (di, dj) in [(1e-4, 0.0), (-1e-4, 0.0), (0.0, 1e-4), (0.0, -1e-4)] {
                let other = objective(&[z[0] + di, z[1] + dj], &x, &eta, l1, l2);
                prop_assert!(best <= other + 1e-12, "{z:?}");
            }
        }

        /// With one step size it is the published closed form, element first, group second.
        #[test]
        fn one_step_size_has_the_closed_form(
            x in prop::collection::vec(-2.0f64..2.0, 1..20), eta in 0.01f64..1.0, l1 in 0.0f64..1.0, l2 in 0.0f64..2.0,
        ) {
            let z = sparse_group_step(&x, &vec![eta; x.len()], l1, l2);
            let u: Vec<f64> = x.iter().map(|x| x.signum() * (x.abs() - eta * l1).max(0.0)).collect();
            let norm = u.iter().map(|u| u * u).sum::<f64>().sqrt();
            let by = if norm > 0.0 { (1.0 - eta * l2 / norm).max(0.0) } else { 0.0 };
            for (z, u) in z.iter().zip(&u) {
                prop_assert!((z - by * u).abs() < 1e-9, "{z} {}", by * u);
            }
        }

        /// Three coordinates with step sizes of their own: a proximal step is optimal if 0 lies in its subdifferential.
        #[test]
        fn the_subdifferential_holds_zero(
            x in prop::collection::vec(-2.0f64..2.0, 1..12),
            sizes in prop::collection::vec(1e-3f64..1.5, 12),
            l1 in 0.0f64..0.5,
            l2 in 0.01f64..2.0,
        ) {
            let eta = &sizes[..x.len()];
            let z = sparse_group_step(&x, eta, l1, l2);
            let norm = z.iter().map(|z| z * z).sum::<f64>().sqrt();
            let slopes: Vec<f64> = (0..x.len()).map(|i| (z[i] - x[i]) / eta[i]).collect();
            if norm == 0.0 {
                // Some s in [−l1, l1] and g with ‖g‖ ≤ l2 cancel the slope.
                let rest: f64 = slopes.iter().map(|s| (s.abs() - l1).max(0.0).powi(2)).sum();
                prop_assert!(rest.sqrt() <= l2 + 1e-9);
            } else {
                for (z, slope) in z.iter().zip(&slopes) {
                    let residue = if *z == 0.0 { (slope.abs() - l1).max(0.0) } else { slope + l1 * z.signum() + l2 * z / norm };
                    prop_assert!(residue.abs() < 1e-6, "{residue}");
                }
            }
        }
    }
}
