//! Strategies with a state and a schedule of their own.

use std::sync::atomic::{AtomicU64, Ordering};

use nasfw_framework::prelude::*;
use nasfw_framework::{register, schedule::Shape};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::{Defect, sgd};

/// A softmax that is cooled down; its temperature goes by a counter, φ by a velocity of the strategy's own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AnnealedConfig {
    hot: f64,
    cold: f64,
    #[serde(default)]
    defect: Defect,
}

register! {
    strategy "double-annealed" => AnnealedConfig,
    summary: "a softmax that is cooled down",
    source: "tests",
    defaults: "[strategy]\n# Temperature at the start.\nhot = 5.0\n# Temperature at the end.\ncold = 0.5\n",
    example: "nasfw run --strategy double-annealed",
}

#[typetag::serde(name = "double-annealed")]
impl StrategyConfig for AnnealedConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Annealed {
            config: self.clone(),
            spec: cx.spec.clone(),
            softmax: IndependentSoftmax::new(cx.spec, 0.5),
            optimizer: sgd(0.1),
            steps: 0,
            velocity: Tensor::zeros([cx.spec.numel()], (cx.kind, cx.device)),
            kept: Tensor::ones([2, 3], (cx.kind, cx.device)).tr(),
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.at_least("strategy.hot", self.hot, 1e-3);
        v.at_least("strategy.cold", self.cold, 1e-3);
    }
}

struct Annealed {
    config: AnnealedConfig,
    spec: ArchSpec,
    softmax: IndependentSoftmax,
    optimizer: OptimizerConfig,
    steps: u64,
    velocity: Tensor,
    /// A batch that is kept, say, and lies in memory column by column.
    kept: Tensor,
}

impl Annealed {
    fn has(&self, defect: Defect) -> bool {
        self.config.defect == defect
    }
}

impl Strategy for Annealed {
    fn step(&mut self, s: &mut Search) -> Result<()> {
        let planned = s.epochs() * s.steps_per_epoch();
        let total = if self.has(Defect::ScheduleStopsShort) {
            2 * planned
        } else {
            planned
        };
        let progress = self.steps as f64 / total as f64;
        let temperature = Shape::Linear.at(self.config.hot, self.config.cold, progress);
        self.steps += 1;
        s.log("temperature", temperature);
        let (theta, phi, batch) = (s.theta(), s.phi(), s.batch(Split::Full)?);
        let mut logits = &phi / temperature;
        if self.has(Defect::FavoursTheFirst) {
            // A bonus for whatever stands in the first place.
            let bonus = Tensor::zeros_like(&phi);
            let _ = bonus.get(0).fill_(0.1);
            logits += bonus;
        }
        if self.has(Defect::Unseeded) {
            static DRAWS: AtomicU64 = AtomicU64::new(0);
            logits *= 1.0 + 1e-3 * DRAWS.fetch_add(1, Ordering::Relaxed) as f64;
        }
        let arch = RelaxedArch::new(self.spec.softmax(&logits));
        let loss = s.loss(&theta, &arch, &batch)?;
        if self.has(Defect::DifferentiatesTwice) {
            // Of a batch in parts a loss knows its first derivatives only.
            let leaf: &[&Tensor] = &[&theta];
            let slope = &Tensor::f_run_backward(&[&loss], leaf, true, true)?[0];
            let penalty = slope.square().sum(slope.kind());
            self.velocity += Tensor::f_run_backward(&[&penalty], &[&phi], true, false)?.remove(0);
        }
        let gradients = s.gradients(&loss, &[&theta, &phi])?;
        s.descend_theta(&gradients[0]);
        if self.has(Defect::MixesPrecision) {
            let probe = Tensor::ones([phi.numel() as i64], (tch::Kind::Double, phi.device()));
            s.log("slope", gradients[1].dot(&probe).double_value(&[]));
        }
        self.velocity = &self.velocity * 0.5 + &gradients[1];
        let velocity = self.velocity.copy();
        s.update_phi(|phi| *phi -= velocity * 0.1);
        Ok(())
    }

    fn claims(&self) -> Claims {
        Claims {
            schedules: vec![Endpoints {
                scalar: "temperature",
                start: self.config.hot,
                end: self.config.cold,
            }],
            ..Claims::default()
        }
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.softmax)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.optimizer)
    }

    fn data(&self) -> DataPlan {
        DataPlan::Full
    }

    fn derive(&self, search: &Search) -> Result<Choice> {
        let marginals = search.marginals(self.distribution())?.unwrap();
        let mut derived = search.space().derive(&marginals);
        if self.has(Defect::RandomReport) {
            static ASKED: AtomicU64 = AtomicU64::new(0);
            let mut rng = Streams::new(0).at("report", ASKED.fetch_add(1, Ordering::Relaxed));
            derived = search.space().random(&mut rng);
        }
        if self.has(Defect::FailsAtTheEnd) && search.progress() >= 1.0 {
            return Err(Error::Plugin {
                plugin: "double-annealed".into(),
                message: "TypeError on the last line".into(),
            });
        }
        Ok(derived)
    }

    fn state(&self) -> Result<StrategyState> {
        let mut state = StrategyState::default();
        state.tensors.insert("kept".into(), self.kept.copy());
        if !self.has(Defect::CounterNotSaved) {
            state.values = self.steps.into();
        }
        if !self.has(Defect::MomentumNotSaved) {
            state
                .tensors
                .insert("velocity".into(), self.velocity.copy());
        }
        Ok(state)
    }

    fn restore(&mut self, mut state: StrategyState) -> Result<()> {
        self.steps = state.values.as_u64().unwrap_or_default();
        if let Some(kept) = state.tensors.remove("kept") {
            let loses = self.has(Defect::LayoutNotRestored);
            self.kept = if loses { kept.contiguous() } else { kept };
        }
        if let Some(velocity) = state.tensors.remove("velocity") {
            self.velocity = velocity;
        }
        Ok(())
    }
}
