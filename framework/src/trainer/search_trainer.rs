//! The one trainer: it owns the loop, the schedules, the checkpoints and the events; the strategy owns the step.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::checkpoint::{self, Checkpoint};
use super::{Job, Normalisation, Reopen, Reopened, Trainer};
use crate::arch::{Choice, Genotype, Marginals};
use crate::batches::{Augment, Order};
use crate::benchmark::Provenance;
use crate::config::{RunConfig, Validator};
use crate::dataset::ImageData;
use crate::device;
use crate::distribution::normalised_entropy;
use crate::draw::Drawing;
use crate::error::{Error, Result};
use crate::events::{Event, Subscriber};
use crate::optim::OptimizerConfig;
use crate::rng::Streams;
use crate::run::{self, EventLog, Manifest};
use crate::search::{Parts, Search, Settings, Tick};
use crate::strategy::{BuildContext, Changes, Control, Strategy};

/// Settings of the trainer: the section `[trainer]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchTrainer {
    /// Epochs of search.
    pub epochs: u64,
    /// Images a batch.
    pub batch_size: usize,
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
    /// Steps between two checkpoints, besides those at the end of every epoch.
    pub checkpoint_every: u64,
    /// The optimizer of the supernet's weights.
    pub weights: OptimizerConfig,
    /// Random changes of training images.
    pub augment: Augment,
}

/// `[trainer]`, with DARTS's settings (Liu et al. 2019) where a space or strategy says nothing else.
const DEFAULTS: &str = include_str!("defaults.toml");

crate::register! {
    trainer "search" => SearchTrainer,
    summary: "the one trainer: device, data, schedules, clipping, checkpoints, interrupts, events",
    source: "nasfw",
    defaults: DEFAULTS,
    example: "nasfw run --epochs 2 --set trainer.batch_size=32 --set trainer.weights.lr=0.05",
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The derived architecture.
    pub genotype: Genotype,
    /// The same as indices into the space's spec.
    pub choice: Choice,
    /// What the space adds, for example a benchmark's own encoding.
    pub facts: Map<String, Value>,
    /// The weights that derivation went by.
    pub marginals: Option<Marginals>,
    /// Normalised entropy of them: 1 uniform, 0 one-hot.
    pub entropy: Option<f64>,
    /// Mean over rows of the largest weight.
    pub sharpness: Option<f64>,
    /// The benchmark's metrics, and the strategy's own figures.
    pub metrics: Option<BTreeMap<String, f64>>,
    /// Optimum minus metric.
    pub regret: Option<BTreeMap<String, f64>>,
    /// Whether the benchmark knows the architecture; none without a benchmark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<bool>,
    /// Where metrics and regret come from; none without a benchmark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub benchmark: Option<Provenance>,
    /// What the benchmark says of the architecture before training and after every epoch, in the order of the events:
    /// an epoch that was rolled back is there, and comes again. Empty without a benchmark.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<CurvePoint>,
    /// Epochs done.
    pub epochs: u64,
    /// Steps done.
    pub steps: u64,
    /// Why the search ended.
    pub reason: String,
}

/// A point of [`Outcome::curve`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Epochs done.
    pub epoch: u64,
    /// Whether the benchmark knows the architecture.
    pub known: bool,
    /// The benchmark's metrics, where it does, and the strategy's own figures.
    pub metrics: Option<BTreeMap<String, f64>>,
    /// Optimum minus metric.
    pub regret: Option<BTreeMap<String, f64>>,
}

#[typetag::serde(name = "search")]
impl Trainer for SearchTrainer {
    fn search(&self, job: Job<'_>) -> Result<Outcome> {
        Session::open(self, job)?.run()
    }

    fn reopen(&self, job: Reopen<'_>) -> Result<Reopened> {
        let restored = match job.checkpoint {
            Some(path) => checkpoint::read(path, job.fingerprint)?,
            None => checkpoint::newest(job.run, job.fingerprint)?.ok_or_else(|| Error::Run {
                path: job.run.path().to_owned(),
                problem: "this run has no checkpoint yet".into(),
                help: format!("go on with `nasfw resume {}`", job.run.path().display()),
            })?,
        };
        let (mut search, strategy, data) = self.assemble(job.config, Some(&restored))?;
        restored.restore(&mut search)?;
        Ok(Reopened {
            choice: strategy.derive(&search)?,
            search,
            normalisation: Normalisation {
                mean: data.mean,
                std: data.std,
                classes: data.classes,
            },
        })
    }

    fn validate(&self, v: &mut Validator) {
        v.at_least("trainer.epochs", self.epochs, 1);
        // A batch of one image has no variance, which batch norm divides by.
        v.at_least("trainer.batch_size", self.batch_size, 2);
        v.at_least("trainer.eval_batch_size", self.eval_batch_size, 1);
        v.at_least("trainer.log_every", self.log_every, 1);
        v.at_least("trainer.checkpoint_every", self.checkpoint_every, 1);
        v.range(
            "trainer.augment.crop_padding",
            self.augment.crop_padding,
            0,
            64,
        );
        v.at_least("trainer.augment.cutout", self.augment.cutout, 0);
        for (strength, most) in self
            .augment
            .color_jitter
            .into_iter()
            .zip([1.0, 1.0, 1.0, 0.5])
        {
            v.range("trainer.augment.color_jitter", strength, 0.0, most);
        }
        self.weights.validate("trainer.weights", v);
    }
}

/// A search at work in a run folder.
struct Session<'a> {
    trainer: &'a SearchTrainer,
    job: Job<'a>,
    strategy: Box<dyn Strategy>,
    search: Search,
    log: EventLog,
    fingerprint: String,
    finished: Option<String>,
    began: Instant,
}

impl<'a> Session<'a> {
    /// Puts a search together; if the run has a checkpoint, as it was then.
    fn open(trainer: &'a SearchTrainer, job: Job<'a>) -> Result<Self> {
        let began = Instant::now();
        let config = job.config;
        let fingerprint = config.fingerprint()?;
        let restored = checkpoint::newest(job.run, &fingerprint)?;
        let (mut search, strategy, data) = trainer.assemble(config, restored.as_ref())?;
        let checksum = data.checksum();
        let table = search.benchmark().and_then(|b| b.provenance().checksum);
        match &restored {
            None => job.run.write_json(
                run::MANIFEST,
                &Manifest::now(
                    device::describe(search.device()),
                    checksum,
                    table,
                    fingerprint.clone(),
                )?,
            )?,
            Some(_) => {
                let manifest: Manifest = job.run.read_json(run::MANIFEST)?;
                same_data(&job, &manifest, &checksum)?;
                if manifest.benchmark.is_none() && table.is_some() {
                    tracing::info!(
                        "this run began without the table that is there now, and goes on without it"
                    );
                    search.forget_benchmark();
                } else {
                    same_table(&job, &manifest, table.as_deref())?;
                }
            }
        }
        let (mut events_bytes, mut finished) = (0, None);
        if let Some(checkpoint) = &restored {
            checkpoint.restore(&mut search)?;
            events_bytes = checkpoint.header.events_bytes;
            finished = checkpoint.header.finished.clone();
        }
        let log = EventLog::open(&job.run.path().join(run::EVENTS), events_bytes)?;
        let mut session = Self {
            trainer,
            job,
            strategy,
            search,
            log,
            fingerprint,
            finished,
            began,
        };
        session.started(restored.is_none())?;
        Ok(session)
    }

    fn started(&mut self, fresh: bool) -> Result<()> {
        let s = &self.search;
        self.emit(Event::Started {
            step: s.clock.step,
            epochs: s.epochs(),
            steps_per_epoch: s.steps_per_epoch(),
            device: device::describe(s.device()),
            weights: s.theta.numel() as i64,
            arch_params: s.phi.numel() as i64,
        })?;
        if fresh {
            self.report_architecture()?;
            self.save()?;
        }
        Ok(())
    }

    fn run(mut self) -> Result<Outcome> {
        while self.finished.is_none() && self.search.clock.epoch < self.trainer.epochs {
            self.epoch()?;
        }
        let reason = self
            .finished
            .clone()
            .unwrap_or_else(|| "all epochs are done".into());
        self.finish(reason)
    }

    fn epoch(&mut self) -> Result<()> {
        if self.search.clock.step_in_epoch == 0 {
            self.strategy.epoch_start(&mut self.search)?;
        }
        let steps = self.search.steps_per_epoch();
        while self.search.clock.step_in_epoch < steps {
            self.strategy.step(&mut self.search)?;
            self.search.clock.step += 1;
            self.search.clock.step_in_epoch += 1;
            let step = self.search.clock.step;
            if step.is_multiple_of(self.trainer.log_every) {
                self.report_progress()?;
            }
            if self.job.interrupt.load(Ordering::SeqCst) {
                self.save()?;
                self.emit(Event::Interrupted { step })?;
                return Err(Error::Interrupted {
                    step,
                    run: self.job.run.path().to_owned(),
                });
            }
            if step.is_multiple_of(self.trainer.checkpoint_every)
                && self.search.clock.step_in_epoch < steps
            {
                self.save()?;
            }
        }
        if !self
            .search
            .clock
            .step
            .is_multiple_of(self.trainer.log_every)
        {
            self.report_progress()?;
        }
        let control = self.strategy.epoch_end(&mut self.search)?;
        self.search.clock.epoch += 1;
        self.search.clock.step_in_epoch = 0;
        self.report_architecture()?;
        self.obey(control)?;
        self.save()
    }

    /// Carries out what the strategy asked for.
    fn obey(&mut self, control: Control) -> Result<()> {
        let what = match control {
            Control::Continue => return Ok(()),
            Control::Stop(reason) => {
                let what = format!("stop: {reason}");
                self.finished = Some(reason);
                what
            }
            Control::Set(changes) => {
                self.change(changes);
                format!("set {changes:?}")
            }
            Control::Rollback { epoch, changes } => {
                if !self.strategy.needs_history() || epoch > self.search.clock.epoch {
                    return Err(Error::Plugin {
                        plugin: "strategy".into(),
                        message: format!(
                            "it rolls back to epoch {epoch}, of which nothing is kept"
                        ),
                    });
                }
                let kept = checkpoint::of_epoch(self.job.run, epoch, &self.fingerprint)?;
                kept.restore(&mut self.search)?;
                self.change(changes);
                format!("roll back to the end of epoch {epoch}, set {changes:?}")
            }
            Control::Rebuild { carry_weights } => {
                self.search.rebuild(self.strategy.as_ref(), carry_weights)?;
                format!("rebuild, stage {}", self.search.clock.stage)
            }
        };
        self.emit(Event::Control {
            epoch: self.search.clock.epoch,
            what,
        })
    }

    fn change(&mut self, changes: Changes) {
        if let Some(n) = changes.batch_size {
            self.search.settings.batch_size = n.max(2);
        }
        if let Some(decay) = changes.weight_decay {
            self.search.theta_optimizer.set_weight_decay(decay);
        }
    }

    fn finish(mut self, reason: String) -> Result<Outcome> {
        let choice = self.strategy.derive(&self.search)?;
        choice.check(self.search.space().spec())?;
        let genotype = self.search.space().genotype(&choice);
        let found = self.found(&genotype)?;
        let outcome = Outcome {
            facts: self.search.space().facts(&genotype),
            choice,
            marginals: found.marginals,
            entropy: found.entropy,
            sharpness: found.sharpness,
            metrics: found.metrics,
            regret: found.regret,
            known: found.known,
            benchmark: self.search.benchmark().map(|b| b.provenance()),
            curve: self.curve()?,
            epochs: self.search.clock.epoch,
            steps: self.search.clock.step,
            reason: reason.clone(),
            genotype,
        };
        let drawing = Drawing::of_genotype(&outcome.genotype);
        self.job.run.write("cell.svg", drawing.svg().as_bytes())?;
        self.job.run.write("cell.dot", drawing.dot().as_bytes())?;
        self.job.run.write_json(run::RESULT, &outcome)?;
        let (step, seconds) = (self.search.clock.step, self.began.elapsed().as_secs_f64());
        self.emit(Event::Finished {
            step,
            reason,
            seconds,
            peak_memory: device::peak_memory(),
        })?;
        self.log.sync()?;
        Ok(outcome)
    }

    fn report_progress(&mut self) -> Result<()> {
        let marginals = self.search.marginals(self.strategy.as_ref())?;
        let s = &mut self.search;
        let event = Event::Progress {
            step: s.clock.step,
            epoch: s.clock.epoch,
            meters: s.take_meters()?,
            entropy: marginals.as_ref().map(normalised_entropy),
            lr: s.theta_lr(),
            scalars: s.scalars.clone(),
            seconds: self.began.elapsed().as_secs_f64(),
        };
        self.emit(event)
    }

    fn report_architecture(&mut self) -> Result<()> {
        let choice = self.strategy.derive(&self.search)?;
        let genotype = self.search.space().genotype(&choice);
        let Found {
            marginals,
            entropy,
            sharpness,
            metrics,
            regret,
            known,
        } = self.found(&genotype)?;
        let epoch = self.search.clock.epoch;
        self.emit(Event::Architecture {
            epoch,
            marginals,
            entropy,
            sharpness,
            genotype,
            metrics,
            regret,
            known,
        })
    }

    /// What the events say of the benchmark. A resumed run reads what earlier processes wrote.
    fn curve(&self) -> Result<Vec<CurvePoint>> {
        if self.search.benchmark().is_none() {
            return Ok(vec![]);
        }
        let events = run::read_events(&self.job.run.path().join(run::EVENTS))?;
        let points = events.into_iter().filter_map(|event| match event {
            Event::Architecture {
                epoch,
                metrics,
                regret,
                known,
                ..
            } => Some(CurvePoint {
                epoch,
                known: known.unwrap_or(regret.is_some()),
                metrics,
                regret,
            }),
            _ => None,
        });
        Ok(points.collect())
    }

    fn found(&self, genotype: &Genotype) -> Result<Found> {
        let marginals = self.search.marginals(self.strategy.as_ref())?;
        let metrics = self.search.query(genotype)?.map(|score| score.metrics);
        let regret = self
            .search
            .benchmark()
            .zip(metrics.as_ref())
            .map(|(b, metrics)| {
                let best = b.optimum();
                metrics
                    .iter()
                    .filter_map(|(k, v)| Some((k.clone(), best.get(k)? - v)))
                    .collect()
            });
        let known = self.search.benchmark().map(|_| metrics.is_some());
        let mut own = self.strategy.metrics();
        let metrics = match metrics {
            Some(known) => {
                own.extend(known);
                Some(own)
            }
            None => (!own.is_empty()).then_some(own),
        };
        Ok(Found {
            entropy: marginals.as_ref().map(normalised_entropy),
            sharpness: marginals.as_ref().map(sharpness),
            marginals,
            metrics,
            regret,
            known,
        })
    }

    fn save(&mut self) -> Result<()> {
        // The events up to here belong to the checkpoint; they must be on disk before it claims so.
        self.log.sync()?;
        let history = self.strategy.needs_history() && self.search.clock.step_in_epoch == 0;
        checkpoint::save(
            self.job.run,
            &mut self.search,
            self.strategy.as_ref(),
            &self.fingerprint,
            self.log.bytes(),
            self.finished.as_deref(),
            history,
        )?;
        let step = self.search.clock.step;
        for s in &mut self.job.subscribers {
            s.on_event(&Event::Checkpoint { step })?;
        }
        Ok(())
    }

    fn emit(&mut self, event: Event) -> Result<()> {
        self.log.on_event(&event)?;
        self.job
            .subscribers
            .iter_mut()
            .try_for_each(|s| s.on_event(&event))
    }
}

struct Found {
    marginals: Option<Marginals>,
    entropy: Option<f64>,
    sharpness: Option<f64>,
    metrics: Option<BTreeMap<String, f64>>,
    regret: Option<BTreeMap<String, f64>>,
    known: Option<bool>,
}

impl SearchTrainer {
    /// Search, strategy and data; as they were then if there is a checkpoint, but for weights.
    fn assemble(
        &self,
        config: &RunConfig,
        restored: Option<&Checkpoint>,
    ) -> Result<(Search, Box<dyn Strategy>, ImageData)> {
        let common = &config.common;
        let device = device::choose(&common.device)?;
        if common.threads > 0 {
            tch::set_num_threads(i32::try_from(common.threads).unwrap_or(i32::MAX));
        }
        let space = config.space.build()?;
        let streams = Streams::new(common.seed);
        let mut strategy = config.strategy.build(BuildContext {
            spec: space.spec(),
            streams: streams.child("build", 0),
            kind: common.kind(),
            device,
            epochs: self.epochs,
        })?;
        if let Some(checkpoint) = restored {
            strategy.restore(checkpoint.strategy_state())?;
        }
        let benchmark = match &config.benchmark {
            Some(b) => {
                b.open(
                    &serde_json::to_value(&config.space).map_err(|e| Error::Invalid {
                        what: "space settings".into(),
                        why: e.to_string(),
                    })?,
                )?
            }
            None => None,
        };
        let data = config.dataset.load(&common.source())?;
        let parts = Parts {
            space,
            benchmark,
            data: &data,
            streams,
            kind: common.kind(),
            device,
        };
        let search = Search::new(parts, strategy.as_ref(), self.settings())?;
        Ok((search, strategy, data))
    }

    fn settings(&self) -> Settings {
        Settings {
            batch_size: self.batch_size,
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
        }
    }
}

/// Mean over rows of the largest weight.
fn sharpness(marginals: &Marginals) -> f64 {
    let rows: Vec<f64> = marginals
        .iter()
        .flatten()
        .map(|row| row.iter().copied().fold(f64::NEG_INFINITY, f64::max))
        .collect();
    rows.iter().sum::<f64>() / rows.len().max(1) as f64
}

/// Refuses to go on with other data than the run began with.
fn same_data(job: &Job<'_>, manifest: &Manifest, checksum: &str) -> Result<()> {
    if manifest.data == checksum {
        return Ok(());
    }
    Err(Error::Run {
        path: job.run.path().to_owned(),
        problem: "the dataset's files have changed since this run began".into(),
        help: "put the files back that the run began with (`--data-dir DIR`), or start a new run"
            .into(),
    })
}

/// Refuses to go on with another table than the run began with: its curve would be one of two measures.
fn same_table(job: &Job<'_>, manifest: &Manifest, table: Option<&str>) -> Result<()> {
    if manifest.benchmark.as_deref() == table {
        return Ok(());
    }
    let problem = match table {
        Some(_) => "the benchmark's table is another one than this run began with",
        None => "the benchmark's table that this run began with is gone",
    };
    Err(Error::Run {
        path: job.run.path().to_owned(),
        problem: problem.into(),
        help: "put the table back (`nasfw bench list` shows where it is looked for), or start a new run"
            .into(),
    })
}
