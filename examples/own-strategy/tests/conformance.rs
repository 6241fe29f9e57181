//! What the conformance suite says of a stranger's strategy that is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use nasfw_conformance as conformance;
use nasfw_framework::prelude::*;
use nasfw_framework::register;
use nasfw_framework::registry::{Kind, Registry};
use serde::{Deserialize, Serialize};
use tch::no_grad;

/// DARTS with random smoothing, as somebody might write it in a hurry: the noise is added to the architecture's
/// parameters themselves and never taken out again, and the gradient is doubled by summing over two equal passes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hasty {
    radius: f64,
    arch: OptimizerConfig,
}

register! {
    strategy "hasty" => Hasty,
    summary: "DARTS with random smoothing, written in a hurry",
    source: "this test",
    defaults: r#"[strategy]
# Standard deviation of the noise.
radius = 0.03

[strategy.arch]
# "sgd" or "adam".
optimizer = "sgd"
# Learning rate.
lr = 0.1
# Learning rate at the end.
lr_min = 0.0
# "constant", "linear" or "cosine".
schedule = "constant"
# Momentum of SGD.
momentum = 0.0
# Nesterov's form of it.
nesterov = false
# Decay rates of Adam.
betas = [0.5, 0.999]
# L2 decay.
weight_decay = 0.0
# Largest gradient norm; 0 means no clipping.
clip = 0.0
"#,
    example: "own-strategy run --strategy hasty",
}

#[typetag::serde(name = "hasty")]
impl StrategyConfig for Hasty {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(HastySearch {
            config: self.clone(),
            softmax: IndependentSoftmax::new(cx.spec, 1e-3),
        }))
    }
}

struct HastySearch {
    config: Hasty,
    softmax: IndependentSoftmax,
}

impl Strategy for HastySearch {
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let (w, mut alpha) = (search.theta(), search.phi());

        let val = search.batch(Split::Val)?;
        let mut gradient = alpha.zeros_like();
        for _ in 0..2 {
            let arch = self.softmax.sample(&alpha, &mut search.rng("a"))?;
            let loss = search.loss(&w, &arch, &val)?;
            gradient += &search.gradients(&loss, &[&alpha])?[0];
        }
        search.descend_phi(&gradient)?;

        let noise = nasfw_framework::rng::normal(
            &mut search.rng("noise"),
            &alpha.size(),
            alpha.kind(),
            alpha.device(),
        );
        no_grad(|| alpha += noise * self.config.radius);
        let train = search.batch(Split::Train)?;
        let arch = self.softmax.sample(&alpha, &mut search.rng("a"))?.detach();
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

#[test]
fn the_suite_says_which_invariants_broke_and_how() {
    let registry = Registry::load().unwrap();
    let report = conformance::strategy(registry.get(Kind::Strategy, "hasty").unwrap());
    let message = report.ok().unwrap_err().to_string();
    let broken: Vec<&str> = report.broken().iter().map(|f| f.invariant).collect();
    assert_eq!(
        broken,
        ["phi-moves-by-its-updates", "architecture-gradient"]
    );
    for says in [
        "strategy `hasty` breaks 2 of 18 invariants",
        "phi-moves-by-its-updates",
        "φ was not what its last update had left",
        "in every direction it is 2.000000 times that",
    ] {
        assert!(message.contains(says), "{message}");
    }
}
