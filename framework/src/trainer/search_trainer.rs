//! Settings of the one trainer, and how a search is put together from a configuration. The loop is in `session.rs`; the
//! strategy owns the step.

use nasfw_kernels::precision;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

use super::checkpoint::Checkpoint;
use super::planner;
use crate::batches::{Augment, Order};
use crate::benchmark::Benchmark;
use crate::budget::Budget;
use crate::dataset::ImageData;
use crate::device;
use crate::error::{Error, Result};
use crate::job::RunConfig;
use crate::optim::OptimizerConfig;
use crate::ranks::Ranks;
use crate::rng::Streams;
use crate::search::{Autocast, Parts, Search, Settings, Tick};
use crate::space::SearchSpace;
use crate::strategy::{BuildContext, Strategy};

/// Settings of the trainer: the section `[trainer]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchTrainer {
    /// Epochs of search.
    pub epochs: u64,
    /// Images a batch.
    pub batch_size: usize,
    /// Images a forward and backward pass at most; 0 means those of the batch.
    pub micro_batch: usize,
    /// Bytes of memory that a step may need, from which the planner chooses the micro-batch; 0 means no limit.
    #[serde(deserialize_with = "planner::bytes")]
    pub memory: u64,
    /// Precision of convolutions and matrix products in the supernet.
    pub autocast: Autocast,
    /// Whether GPUs may round the factors of matrix products to TF32.
    pub tf32: bool,
    /// Whether GPUs compute only by kernels that give the same bits every time.
    pub deterministic: bool,
    /// Whether cuDNN measures which algorithms are the fastest.
    pub cudnn_benchmark: bool,
    /// Images a batch when nothing is differentiated.
    pub eval_batch_size: usize,
    /// Epochs over which learning rates run; 0 means `epochs`.
    pub schedule_epochs: u64,
    /// When learning rates move.
    pub schedule_by: Tick,
    /// Epochs in which the weights' learning rate grows, in equal steps, to what the schedule says.
    pub warmup_epochs: u64,
    /// How batches of the architecture's half follow each other.
    pub val_order: Order,
    /// Steps between two progress events.
    pub log_every: u64,
    /// Steps between two looks at the architecture, besides those at the end of every epoch; 0 means only those.
    pub architecture_every: u64,
    /// Steps between two checkpoints, besides those at the end of every epoch.
    pub checkpoint_every: u64,
    /// What the search may spend.
    pub budget: Budget,
    /// Whether supernets use fused kernels where they have them; they have first derivatives only.
    pub fused: bool,
    /// Whether several processes take the statistics of batch norm over all their parts of a batch, by operators that are not
    /// fused.
    #[serde(default)]
    pub sync_batch_norm: bool,
    /// The optimizer of the supernet's weights.
    pub weights: OptimizerConfig,
    /// Random changes of training images.
    pub augment: Augment,
}

impl SearchTrainer {
    /// Search, strategy and data; as they were then if there is a checkpoint, but for weights. Data are loaded last.
    pub(crate) fn assemble(
        &self,
        config: &RunConfig,
        restored: Option<&Checkpoint>,
        ranks: &Ranks,
        load: impl FnOnce() -> Result<ImageData>,
    ) -> Result<(Search, Box<dyn Strategy>, ImageData)> {
        let common = &config.common;
        let device = device::choose(&common.device)?;
        // Where the name has no number, every process of a host has a GPU of its own.
        let device = match common.device.as_str() {
            "auto" | "cuda" if device.is_cuda() => device::choose(&ranks.gpu())?,
            _ => device,
        };
        if common.threads > 0 {
            tch::set_num_threads(i32::try_from(common.threads).unwrap_or(i32::MAX));
        }
        precision::set_tf32(self.tf32);
        precision::set_deterministic(self.deterministic);
        tch::Cuda::cudnn_set_benchmark(self.cudnn_benchmark);
        if self.autocast != Autocast::None && common.kind() != Kind::Float {
            return Err(Error::Incompatible {
                what: "trainer.autocast".into(),
                why: "autocast leaves numbers of 64 bits as they are".into(),
                help: "use `--set precision=float`, or `--set trainer.autocast=none`".into(),
            });
        }
        let mut plugins = Plugins::build(self, config, device)?;
        if let Some(checkpoint) = restored {
            let restored = plugins.strategy.restore(checkpoint.strategy_state());
            restored
                .map_err(|e| checkpoint.broken(format!("the strategy can't use its state: {e}")))?;
        }
        let data = load()?;
        let mut settings = self.settings();
        let begun = restored.map(|checkpoint| checkpoint.header.micro_batch);
        self.share_out(&mut settings, begun, ranks)?;
        if self.memory > 0 && restored.is_none() {
            let size = planner::largest(self.batch_size, self.memory, |size| {
                let plugins = Plugins::build(self, config, device)?;
                let settings = Settings {
                    micro_batch: Some(size),
                    ..settings.clone()
                };
                let (search, mut strategy) =
                    plugins.search(config, &data, device, settings, ranks)?;
                planner::peak_of_step(search, strategy.as_mut())
            })?;
            settings.micro_batch = Some(size);
        }
        let (search, strategy) = plugins.search(config, &data, device, settings, ranks)?;
        Ok((search, strategy, data))
    }

    /// Has every process compute a part of a batch, unless smaller parts are set. Of a run that was begun, the parts are what
    /// they were.
    fn share_out(
        &self,
        settings: &mut Settings,
        begun: Option<Option<usize>>,
        ranks: &Ranks,
    ) -> Result<()> {
        let refuse = |what: &str, why: &str, help: String| {
            Err(Error::Incompatible {
                what: what.into(),
                why: why.into(),
                help,
            })
        };
        if self.sync_batch_norm {
            if self.micro_batch > 0 || self.memory > 0 {
                return refuse(
                    "trainer.sync_batch_norm",
                    "statistics over all parts need all parts at once, one a process",
                    "leave it out, or use `--set trainer.micro_batch=0 --set trainer.memory=0`"
                        .into(),
                );
            }
            // By the same operators, however many processes go on.
            settings.sync_batch_norm = true;
            settings.fused = false;
        }
        if ranks.world() == 1 {
            return Ok(());
        }
        let each = self.batch_size.div_ceil(ranks.world());
        if self.memory > 0 {
            return refuse(
                "trainer.memory",
                "several processes can't each choose the parts of a batch by what they measure",
                format!(
                    "choose them yourself: `--set trainer.memory=0 --set trainer.micro_batch={each}`"
                ),
            );
        }
        if begun == Some(None) && !self.sync_batch_norm {
            return refuse(
                "a run that was begun in whole batches",
                "several processes would all compute the same",
                "go on with one process; a run that is begun by several, or with `trainer.micro_batch`, can go on with \
                 any number of them"
                    .into(),
            );
        }
        settings.micro_batch.get_or_insert(each);
        Ok(())
    }

    fn settings(&self) -> Settings {
        Settings {
            batch_size: self.batch_size,
            micro_batch: (self.micro_batch > 0).then_some(self.micro_batch),
            autocast: self.autocast,
            eval_batch_size: self.eval_batch_size,
            augment: self.augment,
            val_order: self.val_order,
            weights: self.weights.clone(),
            schedule_epochs: if self.schedule_epochs == 0 {
                self.epochs
            } else {
                self.schedule_epochs
            },
            schedule_by: self.schedule_by,
            warmup_epochs: self.warmup_epochs,
            epochs: self.epochs,
            budget: self.budget,
            fused: self.fused,
            sync_batch_norm: false,
        }
    }
}

/// The parts of a search that come from plugins.
struct Plugins {
    space: Box<dyn SearchSpace>,
    strategy: Box<dyn Strategy>,
    benchmark: Option<Box<dyn Benchmark>>,
}

impl Plugins {
    fn build(trainer: &SearchTrainer, config: &RunConfig, device: Device) -> Result<Self> {
        let space = config.space.build()?;
        let strategy = config.strategy.build(BuildContext {
            spec: space.spec(),
            streams: Streams::new(config.common.seed).child("build", 0),
            kind: config.common.kind(),
            device,
            epochs: trainer.epochs,
        })?;
        let benchmark = match &config.benchmark {
            Some(b) => b.open(&config.space_section()?)?,
            None => None,
        };
        Ok(Self {
            space,
            strategy,
            benchmark,
        })
    }

    fn search(
        self,
        config: &RunConfig,
        data: &ImageData,
        device: Device,
        settings: Settings,
        ranks: &Ranks,
    ) -> Result<(Search, Box<dyn Strategy>)> {
        let parts = Parts {
            space: self.space,
            benchmark: self.benchmark,
            data,
            streams: Streams::new(config.common.seed),
            kind: config.common.kind(),
            device,
            ranks: ranks.clone(),
        };
        let search = Search::new(parts, &self.strategy.needs(), settings)?;
        Ok((search, self.strategy))
    }
}
