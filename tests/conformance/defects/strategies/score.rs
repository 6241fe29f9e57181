//! REINFORCE on discrete draws.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::{Defect, sgd};

/// REINFORCE (Williams 1992) on discrete draws.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScoreConfig {
    baseline: f64,
    #[serde(default)]
    defect: Defect,
}

register! {
    strategy "double-score" => ScoreConfig,
    summary: "REINFORCE",
    source: "tests",
    defaults: "[strategy]\n# Subtracted from every loss.\nbaseline = 0.5\n",
    example: "nasfw run --strategy double-score",
}

#[typetag::serde(name = "double-score")]
impl StrategyConfig for ScoreConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(ScoreFunction {
            config: self.clone(),
            softmax: IndependentSoftmax::new(cx.spec, 0.5),
            optimizer: sgd(0.1),
            told: Told(IndependentSoftmax::new(cx.spec, 0.5), self.defect),
        }))
    }
}

/// What a wrong strategy says that its distribution is.
struct Told(IndependentSoftmax, Defect);

impl ArchDistribution for Told {
    fn layout(&self) -> &ParamLayout {
        self.0.layout()
    }

    fn sample(&self, phi: &Tensor, rng: &mut Rng) -> Result<RelaxedArch> {
        self.0.sample(phi, rng)
    }

    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        match self.1 {
            Defect::MeanOfTheStart => self.0.mean(&phi.zeros_like()),
            _ => self.0.mean(phi),
        }
    }

    fn log_prob(&self, phi: &Tensor, choice: &Choice) -> Result<Tensor> {
        self.0.log_prob(phi, choice)
    }

    fn draw(&self, phi: &Tensor, rng: &mut Rng) -> Result<Choice> {
        match self.1 {
            Defect::DrawsElsewhere => self.0.draw(&(phi * 0.5), rng),
            _ => self.0.draw(phi, rng),
        }
    }
}

struct ScoreFunction {
    config: ScoreConfig,
    softmax: IndependentSoftmax,
    told: Told,
    optimizer: OptimizerConfig,
}

impl Strategy for ScoreFunction {
    fn step(&mut self, s: &mut Search) -> Result<()> {
        let (theta, phi, val) = (s.theta(), s.phi(), s.batch(Split::Val)?);
        let choice = self.softmax.draw(&phi, &mut s.rng("draw"))?;
        let arch = s.one_hot(&choice);
        let loss = s.loss(&theta, &arch, &val)?.detach() - self.config.baseline;
        let log_prob = self.softmax.log_prob(&phi, &choice)?;
        let differentiated = if self.config.defect == Defect::PlainProbability {
            log_prob.exp()
        } else {
            log_prob
        };
        let mut gradient = &s.gradients(&differentiated, &[&phi])?[0] * &loss;
        if self.config.defect == Defect::WrongSign {
            gradient = -gradient;
        }
        s.descend_phi(&gradient)?;
        let train = s.batch(Split::Train)?;
        let loss = s.loss(&theta, &arch, &train)?;
        let gradient = s.gradients(&loss, &[&theta])?;
        s.descend_theta(&gradient[0]);
        Ok(())
    }

    fn claims(&self) -> Claims {
        Claims {
            arch_gradient: ArchGradient::Score,
            ..Claims::default()
        }
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        match self.config.defect {
            Defect::DrawsElsewhere | Defect::MeanOfTheStart => Some(&self.told),
            _ => Some(&self.softmax),
        }
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.optimizer)
    }
}
