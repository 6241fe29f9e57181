//! DARTS-ADA (Zela et al. 2020): when the curvature of the validation loss grows, the search goes back to before it grew
//! and on from there with stronger regularisation of the weights.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

use crate::eigenvalue::{Alarm, Watch};

/// Settings of DARTS-ADA.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DartsAdaConfig {
    /// Factor of the weights' L2 decay at every alarm.
    pub raise: f64,
    /// The largest L2 decay.
    pub most: f64,
    /// When to go back.
    pub alarm: Alarm,
    /// The strategy that is sent back.
    pub base: Box<dyn StrategyConfig>,
}

register! {
    strategy "darts-ada" => DartsAdaConfig,
    summary: "DARTS-ADA: goes back and raises weight decay when the Hessian's largest eigenvalue grows; wraps any gradient strategy",
    source: "Zela et al. 2020, ICLR, arXiv:1909.09656",
    defaults: r#"[strategy]
# Factor of the weights' L2 decay at every alarm.
raise = 10.0
# The largest L2 decay; with it the search runs to its end.
most = 0.03

[strategy.alarm]
# Epochs between two eigenvalues.
every = 2
# Eigenvalues that are averaged.
window = 5
# Eigenvalues between the two averages that are compared.
apart = 4
# Growth of the average that sends the search back.
factor = 1.3
# Earliest epoch to go back to.
earliest = 10

[strategy.base]
# The strategy that is sent back; its own settings follow.
name = "darts"
# Second order, as published.
order = 2
"#,
    example: "nasfw run --strategy darts-ada --space robust-s2",
}

#[typetag::serde(name = "darts-ada")]
impl StrategyConfig for DartsAdaConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(DartsAda {
            raise: self.raise,
            most: self.most,
            alarm: self.alarm,
            base: self.base.build(cx)?,
            watch: Watch::default(),
        }))
    }

    fn needs_benchmark(&self) -> bool {
        self.base.needs_benchmark()
    }

    fn validate(&self, v: &mut Validator) {
        self.alarm.validate(v);
        if self.raise.is_nan() || self.raise <= 1.0 {
            v.problem("strategy.raise", "it must be above 1, or nothing is raised");
        }
        v.at_least("strategy.most", self.most, 0.0);
        v.base(|v| self.base.validate(v));
    }
}

struct DartsAda {
    raise: f64,
    most: f64,
    alarm: Alarm,
    base: Box<dyn Strategy>,
    watch: Watch,
}

impl DartsAda {
    /// The next L2 decay; none where the current one is the largest.
    fn raised(&self, decay: f64) -> Option<f64> {
        // Powers of the factor may miss the largest decay by rounding.
        (decay > 0.0 && decay < self.most * (1.0 - 1e-9))
            .then(|| (decay * self.raise).min(self.most))
    }
}

impl Strategy for DartsAda {
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let decay = search.theta_optimizer().config().weight_decay;
        search.log("weight_decay", decay);
        self.base.step(search)
    }

    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        let control = self.base.epoch_end(search)?;
        let decay = search.theta_optimizer().config().weight_decay;
        let alarm = self
            .watch
            .epoch_end(self.alarm, search, self.base.as_ref())?;
        match alarm.zip(self.raised(decay)) {
            None => Ok(control),
            Some((before, raised)) => {
                self.watch.back_to(before.epoch);
                Ok(Control::Rollback {
                    epoch: before.epoch + 1,
                    changes: Changes {
                        weight_decay: Some(raised),
                        ..Changes::default()
                    },
                })
            }
        }
    }

    fn needs_history(&self) -> bool {
        true
    }

    crate::wraps!(base, keeping watch);
}
