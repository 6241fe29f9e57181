//! Our strategy: a softmax that is cooled down, so that the search ends near one-hot.

use nasfw_framework::prelude::*;
use nasfw_framework::{register, schedule::Shape};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Annealed {
    hot: f64,
    cold: f64,
    arch: OptimizerConfig,
}

register! {
    strategy "annealed" => Annealed,
    summary: "softmax with a temperature that falls over the run",
    source: "this example",
    defaults: r#"[strategy]
# Temperature at the start.
hot = 5.0
# Temperature at the end.
cold = 0.1

[strategy.arch]
# "sgd" or "adam".
optimizer = "adam"
# Learning rate at the start.
lr = 0.05
# Learning rate at the end of a decaying schedule.
lr_min = 0.0
# "constant", "linear" or "cosine".
schedule = "constant"
# Momentum of SGD.
momentum = 0.0
# Nesterov's form of it.
nesterov = false
# Adam: decay rates of the moments.
betas = [0.5, 0.999]
# L2 decay.
weight_decay = 0.0
# Largest gradient norm; 0 means no clipping.
clip = 0.0
"#,
    example: "own-strategy run --strategy annealed --space nasbench1shot1-s3",
}

#[typetag::serde(name = "annealed")]
impl StrategyConfig for Annealed {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        let softmax = IndependentSoftmax::new(cx.spec, 1e-3);
        Ok(Box::new(AnnealedSearch {
            config: self.clone(),
            spec: cx.spec.clone(),
            softmax,
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.at_least("strategy.hot", self.hot, 1e-6);
        v.at_least("strategy.cold", self.cold, 1e-6);
        self.arch.validate("strategy.arch", v);
    }
}

struct AnnealedSearch {
    config: Annealed,
    spec: ArchSpec,
    softmax: IndependentSoftmax,
}

impl Strategy for AnnealedSearch {
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let temperature = Shape::Cosine.at(self.config.hot, self.config.cold, search.progress());
        search.log("temperature", temperature);
        let (w, alpha, batch) = (search.theta(), search.phi(), search.batch(Split::Full)?);
        let arch = RelaxedArch::new(self.spec.softmax(&(&alpha / temperature)));
        let loss = search.loss(&w, &arch, &batch)?;
        let gradients = search.gradients(&loss, &[&w, &alpha])?;
        search.descend_theta(&gradients[0]);
        search.descend_phi(&gradients[1])
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.softmax)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }

    fn data(&self) -> DataPlan {
        DataPlan::Full
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nasfw_conformance as conformance;
    use nasfw_framework::registry::{Kind, Registry};

    #[test]
    fn it_conforms() {
        let registry = Registry::load().unwrap();
        let report = conformance::strategy(registry.get(Kind::Strategy, "annealed").unwrap());
        report.ok().unwrap();
    }
}
