//! DARTS-ES (Zela et al. 2020): the search ends when the curvature of the validation loss grows, with the architecture
//! from before it grew.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

use crate::eigenvalue::{Alarm, Watch};

/// Settings of DARTS-ES.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DartsEsConfig {
    /// When to stop.
    pub alarm: Alarm,
    /// The strategy that is stopped.
    pub base: Box<dyn StrategyConfig>,
}

register! {
    strategy "darts-es" => DartsEsConfig,
    summary: "DARTS-ES: stops when the Hessian's largest eigenvalue grows; wraps any gradient strategy",
    source: "Zela et al. 2020, ICLR, arXiv:1909.09656",
    defaults: r#"[strategy.alarm]
# Epochs between two eigenvalues.
every = 2
# Eigenvalues that are averaged.
window = 5
# Eigenvalues between the two averages that are compared.
apart = 4
# Growth of the average that ends the search.
factor = 1.3
# Earliest epoch whose architecture may be the result.
earliest = 10

[strategy.base]
# The strategy that is stopped; its own settings follow.
name = "darts"
# Second order, as published.
order = 2
"#,
    example: "nasfw run --strategy darts-es --space robust-s2",
}

#[typetag::serde(name = "darts-es")]
impl StrategyConfig for DartsEsConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(DartsEs {
            alarm: self.alarm,
            base: self.base.build(cx)?,
            state: State::default(),
        }))
    }

    fn needs_benchmark(&self) -> bool {
        self.base.needs_benchmark()
    }

    fn validate(&self, v: &mut Validator) {
        self.alarm.validate(v);
        v.base(|v| self.base.validate(v));
    }
}

/// What a checkpoint must keep.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    watch: Watch,
    /// The architecture from before the alarm.
    found: Option<Choice>,
}

struct DartsEs {
    alarm: Alarm,
    base: Box<dyn Strategy>,
    state: State,
}

impl Strategy for DartsEs {
    fn step(&mut self, search: &mut Search) -> Result<()> {
        self.base.step(search)
    }

    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        let control = self.base.epoch_end(search)?;
        let watch = &mut self.state.watch;
        let Some(before) = watch.epoch_end(self.alarm, search, self.base.as_ref())? else {
            return Ok(control);
        };
        self.state.found = Some(before.choice);
        Ok(Control::Stop(format!(
            "the Hessian's largest eigenvalue grows; the architecture is that of epoch {}",
            before.epoch + 1
        )))
    }

    fn derive(&self, search: &Search) -> Result<Choice> {
        match &self.state.found {
            Some(found) => Ok(found.clone()),
            None => self.base.derive(search),
        }
    }

    crate::wraps!(base, keeping state);
}
