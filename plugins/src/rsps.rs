//! RSPS (Li & Talwalkar 2019): random search with parameter sharing. The shared weights are trained on one uniformly
//! drawn architecture a batch; at the end architectures are drawn again, and the one whose shared weights do best is kept.
//!
//! Architectures are those that the space can derive. In DARTS's cells they have no `none`, which the authors' code draws,
//! too.

use std::collections::BTreeMap;

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

use crate::bilevel;
use crate::selection::{self, Selected};

/// Settings of random search with parameter sharing.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RspsConfig {
    /// Architectures that the selection draws.
    pub samples: u64,
    /// Batches of the validation half that each of them is scored on; 0 means all.
    pub eval_batches: usize,
    /// The best of them that are scored once more, on all validation images; 0 means none.
    pub finalists: usize,
    /// Epochs between two selections, besides the one at the end; 0 means only that.
    pub select_every: u64,
}

register! {
    strategy "rsps" => RspsConfig,
    summary: "random search with parameter sharing: weights trained on uniform architectures, the best of a sample kept",
    source: "Li, Talwalkar 2019, UAI, arXiv:1902.07638",
    defaults: r#"[strategy]
# Architectures that are drawn and scored with the shared weights when the search ends; the best one is the result.
samples = 100
# Batches (`trainer.eval_batch_size` images) of the validation half that each is scored on, the same for all; 0 means all.
eval_batches = 1
# So many of the best are scored once more, on all validation images; 0 means none.
finalists = 0
# Selections also every so many epochs, for the reports on the way; 0 means only at the end.
select_every = 0

[trainer]
epochs = 50
"#,
    example: "nasfw run --strategy rsps --space nasbench201 --set space.preset=small",
    presets: &[("nasbench1shot1", NASBENCH1SHOT1)],
    families: &[
        ("darts", DARTS),
        ("robust", DARTS),
        (
            "nasbench201",
            r#"# The search scripts of NAS-Bench-201: one batch of 512 images.
[trainer]
epochs = 250
eval_batch_size = 512
schedule_by = "step"
[trainer.weights]
clip = 5.0
"#,
        ),
    ],
}

/// The authors' code for DARTS's cells: 10 batches of 64 images, then all for the best 10.
const DARTS: &str = "[strategy]
samples = 1000
eval_batches = 10
finalists = 10
[trainer]
eval_batch_size = 64
[trainer.weights]
clip = 0.25
";

/// NAS-Bench-1Shot1's code, which scores as many: no default there, since that takes longer than the search.
const NASBENCH1SHOT1: &str = "[strategy]
samples = 1000
eval_batches = 10
finalists = 5
[trainer]
batch_size = 64
eval_batch_size = 64
[trainer.weights]
clip = 0.25
";

#[typetag::serde(name = "rsps")]
impl StrategyConfig for RspsConfig {
    fn build(&self, _cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Rsps {
            config: self.clone(),
            selected: None,
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.samples", self.samples, 1, 1_000_000);
    }
}

struct Rsps {
    config: RspsConfig,
    selected: Option<Selected>,
}

impl Rsps {
    /// Draws architectures and keeps the one that is most accurate with the shared weights; of equals the first.
    fn select(&self, search: &Search) -> Result<Option<Selected>> {
        let mut rng = search.rng(SELECTION);
        let drawn = (0..self.config.samples).map(|_| search.space().random(&mut rng));
        let mut ranked = selection::rank(search, drawn, self.config.eval_batches)?;
        if self.config.finalists > 0 {
            ranked.truncate(self.config.finalists);
            ranked = selection::rank(search, ranked.into_iter().map(|s| s.choice), 0)?;
        }
        Ok(ranked.into_iter().next())
    }
}

/// The stream of the architectures that a selection draws.
const SELECTION: &str = "selection";

impl Strategy for Rsps {
    /// One uniformly drawn architecture, the only one computed, and a step of the shared weights.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let choice = search.space().random(&mut search.rng("architecture"));
        let batch = search.batch(Split::Train)?;
        let path = search.one_hot(&choice);
        bilevel::descend_weights_at(search, &path, &batch)
    }

    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        let every = self.config.select_every;
        let due = every > 0 && (search.epoch() + 1).is_multiple_of(every);
        if due || search.is_last_epoch() {
            self.selected = self.select(search)?;
        }
        Ok(Control::Continue)
    }

    /// What the last selection kept; before the first one, the architecture that a selection now would draw first.
    fn derive(&self, search: &Search) -> Result<Choice> {
        let selected = self.selected.as_ref().map(|s| s.choice.clone());
        Ok(selected.unwrap_or_else(|| search.space().random(&mut search.rng(SELECTION))))
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        selection::metrics(self.selected.as_ref())
    }

    fn state(&self) -> Result<StrategyState> {
        StrategyState::of(&self.selected)
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        self.selected = state.value()?;
        Ok(())
    }
}
