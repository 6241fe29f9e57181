//! The one trainer as a plugin: checks of its settings, and its three verbs.

use super::search_trainer::SearchTrainer;
use super::session::Session;
use super::{checkpoint, images};
use crate::budget::{Budget, Unit};
use crate::command::resume;
use crate::error::{Error, Result};
use crate::inputs::Inputs;
use crate::job::{Job, Measured, Outcome, Reopen, Reopened, RunConfig, Trainer};
use crate::ranks::Ranks;
use crate::search::Search;
use crate::settings::Validator;
use crate::strategy::Strategy;

/// The most images of a batch.
const MOST_IMAGES: usize = 1 << 20;

/// `[trainer]`, with DARTS's settings (Liu et al. 2019) where a space or strategy says nothing else.
const DEFAULTS: &str = include_str!("defaults.toml");

crate::register! {
    trainer "search" => SearchTrainer,
    summary: "the one trainer: device, data, schedules, clipping, checkpoints, interrupts, events",
    source: "nasfw",
    defaults: DEFAULTS,
    example: "nasfw run --epochs 2 --set trainer.batch_size=32 --set trainer.weights.lr=0.05",
}

#[typetag::serde(name = "search")]
impl Trainer for SearchTrainer {
    fn search(&self, job: Job<'_>) -> Result<Outcome> {
        Session::open(self, job)?.run()
    }

    fn start(&self, config: &RunConfig) -> Result<(Search, Box<dyn Strategy>)> {
        let (search, strategy, _) = self.assemble(config, None, &Ranks::alone(), || {
            config.dataset.load(&config.common.source())
        })?;
        Ok((search, strategy))
    }

    fn reopen(&self, job: Reopen<'_>) -> Result<Reopened> {
        let restored = match job.checkpoint {
            Some(path) => checkpoint::read(path, job.fingerprint)?,
            None => checkpoint::newest(job.run, job.fingerprint)?.ok_or_else(|| Error::Run {
                path: job.run.to_owned(),
                problem: "this run has no checkpoint yet".into(),
                help: format!("go on with `{}`", resume(job.run)),
            })?,
        };
        let (mut search, strategy, data) =
            self.assemble(job.config, Some(&restored), &Ranks::alone(), || {
                images::load(&job)
            })?;
        let choice = restored.reopen(&mut search, strategy.as_ref())?;
        if matches!(job.on, Measured::Own) {
            restored.fits(&search)?;
        }
        Ok(Reopened {
            choice,
            search,
            inputs: Inputs::of(job.config.dataset.as_ref(), &data),
        })
    }

    fn validate(&self, v: &mut Validator) {
        v.at_least("trainer.epochs", self.epochs, 1);
        // A batch of one image has no variance, which batch norm divides by.
        v.range("trainer.batch_size", self.batch_size, 2, MOST_IMAGES);
        if self.micro_batch > 0 && self.memory > 0 {
            v.problem(
                "trainer.memory",
                "the micro-batch is chosen already: set either `trainer.micro_batch` or `trainer.memory` to 0",
            );
        }
        if self.deterministic && self.cudnn_benchmark {
            v.problem(
                "trainer.cudnn_benchmark",
                "it chooses kernels by stopwatch, so that results don't repeat: set `trainer.deterministic = false` too",
            );
        }
        v.range(
            "trainer.eval_batch_size",
            self.eval_batch_size,
            1,
            MOST_IMAGES,
        );
        v.at_least("trainer.log_every", self.log_every, 1);
        v.at_least("trainer.checkpoint_every", self.checkpoint_every, 1);
        v.range(
            "trainer.augment.crop_padding",
            self.augment.crop_padding,
            0,
            64,
        );
        v.range("trainer.augment.cutout", self.augment.cutout, 0, 4096);
        v.range(
            "trainer.augment.cutout_probability",
            self.augment.cutout_probability,
            0.0,
            1.0,
        );
        if self.augment.cutout == 0 {
            v.idle("trainer.augment.cutout_probability", "without `cutout`");
        }
        if self.sync_batch_norm {
            let why = "with `sync_batch_norm = true`, which takes no fused kernels";
            v.idle("trainer.fused", why);
        }
        for (strength, most) in self
            .augment
            .color_jitter
            .into_iter()
            .zip([1.0, 1.0, 1.0, 0.5])
        {
            v.range("trainer.augment.color_jitter", strength, 0.0, most);
        }
        match self.budget {
            Budget {
                unit: Unit::None,
                amount: 0,
            } => {}
            Budget {
                unit: Unit::None, ..
            } => v.problem(
                "trainer.budget.amount",
                "an amount of what? say so with `trainer.budget.unit`: steps, images, seconds or simulated",
            ),
            Budget { amount, .. } => v.at_least("trainer.budget.amount", amount, 1),
        }
        self.weights.validate("trainer.weights", v);
    }
}
