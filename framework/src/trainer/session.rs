//! A search at work: it owns the loop, the reports and the checkpoints; the strategy owns the step.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::agreement::{plugin_versions, same_costs, same_data, same_for_all, same_table, workers};
use super::checkpoint;
use super::derive::derive;
use super::search_trainer::SearchTrainer;
use super::shares::{Part, Shares};
use super::trackers::trackers;
use crate::arch::{Choice, Genotype, Marginals};
use crate::benchmark::{Score, Standing};
use crate::budget::Unit;
use crate::cost::{METRIC, tables};
use crate::device;
use crate::draw::Drawing;
use crate::error::{Error, Result};
use crate::events::Event;
use crate::front::{Front, HYPERVOLUME};
use crate::inputs::Inputs;
use crate::job::{CurvePoint, Job, Outcome};
use crate::listen::{Listener, SharedListener, lock};
use crate::run::{self, EventLog, Manifest};
use crate::search::Search;
use crate::strategy::{Changes, Control, Strategy};
use crate::trust::{Trust, decided};

/// A search at work in a run folder.
pub(super) struct Session<'a> {
    trainer: &'a SearchTrainer,
    job: Job<'a>,
    /// The job's listeners, and the run's trackers.
    listeners: Vec<SharedListener>,
    strategy: Box<dyn Strategy>,
    search: Search,
    log: EventLog,
    fingerprint: String,
    /// What a reader must know of costs.
    doubts: BTreeMap<String, String>,
    finished: Option<String>,
    began: Instant,
    /// Up to when time is in the ledger of several processes.
    told: Instant,
    shares: Shares,
}

impl<'a> Session<'a> {
    /// Puts a search together; if the run has a checkpoint, as it was then.
    pub fn open(trainer: &'a SearchTrainer, job: Job<'a>) -> Result<Self> {
        let began = Instant::now();
        let config = job.config;
        let fingerprint = config.fingerprint()?;
        let restored = checkpoint::newest(job.run.path(), &fingerprint)?;
        let mut begun: Option<Manifest> = match &restored {
            Some(_) => Some(job.run.read_json(run::MANIFEST)?),
            None => None,
        };
        if let Some(manifest) = &begun {
            // Sums are added in another order by another number of threads.
            tch::set_num_threads(manifest.threads.clamp(1, 1024));
        }
        let source = config.common.source();
        let (mut search, strategy, data) =
            trainer.assemble(config, restored.as_ref(), &job.ranks, || {
                config.dataset.load(&source)
            })?;
        let checksum = data.checksum();
        let inputs = Inputs::of(config.dataset.as_ref(), &data);
        let table = search.benchmark().and_then(|b| b.provenance().checksum);
        let counted = tables::all(strategy.limits(), strategy.costs())?;
        let costs = tables::checksums(&counted)?;
        // Before the first of them writes, and the others may read that.
        same_for_all(
            &job.ranks,
            &fingerprint,
            &checksum,
            &table,
            &costs,
            restored.as_ref(),
        )?;
        let workers = workers(&job.ranks)?;
        match &mut begun {
            None => job.run.write_json(
                run::MANIFEST,
                &Manifest {
                    micro_batch: search.settings.micro_batch,
                    notes: source.notes.all(),
                    inputs: Some(inputs),
                    workers,
                    costs,
                    ..Manifest::now(
                        plugin_versions()?,
                        device::describe(search.device()),
                        checksum,
                        table,
                        fingerprint.clone(),
                    )
                },
            )?,
            Some(manifest) => {
                same_data(&job, manifest, &checksum)?;
                same_costs(&job, manifest, &costs)?;
                if manifest.benchmark.is_none() && table.is_some() {
                    tracing::info!(
                        "this run began without the table that is there now, and goes on without it"
                    );
                    search.forget_benchmark();
                } else {
                    same_table(&job, manifest, table.as_deref())?;
                }
                manifest.inputs.get_or_insert(inputs);
                workers.into_iter().for_each(|w| manifest.goes_on(w));
                job.run.write_json(run::MANIFEST, manifest)?;
            }
        }
        let (mut events_bytes, mut finished) = (0, None);
        if let Some(checkpoint) = &restored {
            checkpoint.reopen(&mut search, strategy.as_ref())?;
            events_bytes = checkpoint.header.events_bytes;
            finished = checkpoint.header.finished.clone();
        }
        let mut listeners = job.listeners.clone();
        let log = match job.run.is_ours() {
            true => {
                listeners.extend(trackers(&job, &search, restored.is_some())?);
                EventLog::open(&job.run.path().join(run::EVENTS), events_bytes)?
            }
            false => EventLog::elsewhere(),
        };
        for listener in &listeners {
            search.listen(listener);
        }
        let mut session = Self {
            trainer,
            job,
            listeners,
            strategy,
            search,
            log,
            fingerprint,
            doubts: tables::doubts(&counted)?,
            finished,
            began,
            told: Instant::now(),
            shares: Shares::new(),
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
            budget: s.budget(),
            done: s.progress().min(1.0),
            device: device::describe(s.device()),
            weights: s.theta.numel() as i64,
            arch_params: s.phi.numel() as i64,
            groups: s.space().spec().groups().to_vec(),
        })?;
        if fresh {
            self.report_architecture()?;
            self.report_pictures()?;
            self.save()?;
        }
        Ok(())
    }

    pub fn run(mut self) -> Result<Outcome> {
        let outcome = self.search();
        match &outcome {
            // Of trouble with the folder nothing is written into it: somebody else may work there.
            Ok(_) | Err(Error::Interrupted { .. } | Error::Run { .. } | Error::Io { .. }) => {}
            Err(error) => {
                let (step, error) = (self.search.clock.step, error.to_string());
                // Where not even that can be written, the error itself is what to tell.
                let _ = self.emit(Event::Failed { step, error });
            }
        }
        outcome
    }

    fn search(&mut self) -> Result<Outcome> {
        let budget = self.search.budget().is_some();
        while self.finished.is_none() && (budget || self.search.clock.epoch < self.trainer.epochs) {
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
        while self.search.clock.step_in_epoch < steps && !self.search.budget_is_spent() {
            self.search.begin_step();
            self.strategy.step(&mut self.search)?;
            self.search.end_step();
            let stop = self.after_step()?;
            self.shares.lap(Part::Steps);
            let step = self.search.clock.step;
            if step.is_multiple_of(self.trainer.log_every) {
                self.report_progress()?;
            }
            let over = self.search.clock.step_in_epoch == steps || self.search.budget_is_spent();
            let every = self.trainer.architecture_every;
            if !over && every > 0 && step.is_multiple_of(every) {
                self.report_architecture()?;
            }
            if stop {
                self.save()?;
                self.emit(Event::Interrupted { step })?;
                return Err(Error::Interrupted {
                    step,
                    run: self.job.run.path().to_owned(),
                });
            }
            if !over && step.is_multiple_of(self.trainer.checkpoint_every) {
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
        self.shares.lap(Part::Steps);
        if self.search.clock.step_in_epoch == steps {
            self.search.clock.epoch += 1;
            self.search.clock.step_in_epoch = 0;
        }
        self.report_architecture()?;
        self.report_pictures()?;
        match self.search.budget() {
            Some(budget) if self.search.budget_is_spent() => {
                self.finished = Some(format!("the budget of {budget} is spent"));
            }
            budget => {
                self.obey(control)?;
                if let Some(b) = budget.filter(|_| self.finished.is_none()) {
                    self.refuse_idle(b.unit)?;
                }
            }
        }
        self.save()?;
        let (epoch, data) = (self.search.clock.epoch, self.search.take_data_time());
        self.shares.log(epoch, data, self.job.ranks.take_time());
        Ok(())
    }

    /// Whether somebody has asked one of the processes to stop: all of them do so after the same step. They also take the
    /// first one's time for theirs.
    fn after_step(&mut self) -> Result<bool> {
        let asked = self.job.interrupt.load(Ordering::SeqCst);
        if self.job.ranks.world() == 1 {
            return Ok(asked);
        }
        let time = self.told.elapsed().as_micros() as i64;
        self.told = Instant::now();
        let said = self.job.ranks.say([i64::from(asked), time])?;
        self.search.spend(said[0][1].unsigned_abs());
        Ok(said.iter().any(|[asked, _]| *asked != 0))
    }

    /// Refuses a budget that an epoch has spent nothing of: it would never end.
    fn refuse_idle(&self, unit: Unit) -> Result<()> {
        let work = &self.search.clock.work;
        let (what, why) = match unit {
            Unit::Images if work.images == 0 => (
                "a budget of images",
                "this strategy puts no image through a supernet",
            ),
            Unit::Simulated if work.simulated == 0 => (
                "a budget of simulated seconds",
                "this strategy looks up nothing whose training time a table knows",
            ),
            _ => return Ok(()),
        };
        Err(Error::Incompatible {
            what: what.into(),
            why: format!("{why}, so it would never end"),
            help: "use `--set trainer.budget.unit=steps`".into(),
        })
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
                if !self.strategy.needs_history() || epoch >= self.search.clock.epoch {
                    return Err(Error::Plugin {
                        plugin: "strategy".into(),
                        message: format!(
                            "it rolls back to epoch {epoch}, of which nothing is kept"
                        ),
                    });
                }
                let kept = checkpoint::of_epoch(self.job.run.path(), epoch, &self.fingerprint)?;
                // What was spent stays spent, and checkpoints are counted on.
                let (spent, saves) = (self.search.clock.work, self.search.clock.saves);
                kept.restore(&mut self.search)?;
                (self.search.clock.work, self.search.clock.saves) = (spent, saves);
                self.search.account();
                self.change(changes);
                format!("roll back to the end of epoch {epoch}, set {changes:?}")
            }
            Control::Rebuild { carry_weights } => {
                self.search.rebuild(&self.strategy.needs(), carry_weights)?;
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

    fn finish(&mut self, reason: String) -> Result<Outcome> {
        let choice = derive(self.strategy.as_ref(), &self.search)?;
        let genotype = self.search.space().genotype(&choice);
        let found = self.found(&choice, &genotype)?;
        let outcome = Outcome {
            facts: self.search.space().facts(&genotype),
            choice,
            groups: self.search.space().spec().groups().to_vec(),
            space: self.job.config.space_section()?,
            marginals: found.marginals,
            entropy: found.entropy,
            sharpness: found.sharpness,
            metrics: found.metrics,
            regret: found.regret,
            known: found.known,
            benchmark: self.search.benchmark().map(|b| b.provenance()),
            curve: self.curve()?,
            front: self.front(),
            trust: found.trust,
            epochs: self.search.clock.epoch,
            steps: self.search.clock.step,
            reason: reason.clone(),
            genotype,
        };
        let drawing = Drawing::of_genotype(&outcome.genotype);
        self.job.run.write("cell.svg", drawing.svg().as_bytes())?;
        self.job.run.write("cell.dot", drawing.dot().as_bytes())?;
        let (step, seconds) = (self.search.clock.step, self.began.elapsed().as_secs_f64());
        self.emit(Event::Finished {
            step,
            reason,
            seconds,
            peak_memory: device::peak_memory(),
        })?;
        self.log.sync()?;
        // The last process may have died before it came to that.
        checkpoint::prune(self.job.run)?;
        // Last: who finds it finds a run that is over, in every file.
        self.job.run.write_json(run::RESULT, &outcome)?;
        for listener in &self.listeners {
            lock(listener).found(&outcome)?;
        }
        // None of several processes has done what another one failed to do.
        self.job.ranks.say([])?;
        Ok(outcome)
    }

    /// The architectures that none dominates; none of a search with one aim, or before it has looked at anything.
    fn front(&self) -> Option<Front> {
        let archive = self.strategy.front().filter(|a| !a.criteria().is_empty())?;
        let space = self.search.space();
        Some(archive.front(|choice| space.genotype(choice)))
    }

    /// Where a score stands, by what says most.
    fn standing(&self, score: Option<&Score>) -> Result<BTreeMap<String, Standing>> {
        let mut standing = match (self.search.benchmark(), score) {
            (Some(benchmark), Some(score)) => benchmark.standing(score)?,
            _ => BTreeMap::new(),
        };
        // A table has a dozen metrics: the test accuracy on the searched dataset, as far as there are such, says most.
        let of_dataset = format!("/{}", self.job.config.dataset.typetag_name());
        let wanted: [&dyn Fn(&str) -> bool; 3] = [
            &|name| !name.contains('@'),
            &|name| name.starts_with("test"),
            &|name| name.ends_with(&of_dataset),
        ];
        for wanted in wanted {
            if standing.keys().any(|name| wanted(name)) {
                standing.retain(|name, _| wanted(name));
            }
        }
        Ok(standing)
    }

    /// The searched dataset and the table's, where they are not the same.
    fn elsewhere(&self) -> Option<(String, Vec<String>)> {
        let measured = self.search.benchmark()?.datasets();
        let searched = self.job.config.dataset.typetag_name();
        let same = measured.is_empty() || measured.iter().any(|name| name == searched);
        (!same).then(|| (searched.to_owned(), measured))
    }

    fn report_progress(&mut self) -> Result<()> {
        let marginals = self.search.marginals(self.strategy.distribution())?;
        let entropy = self.entropy(marginals.as_ref());
        let s = &mut self.search;
        let event = Event::Progress {
            step: s.clock.step,
            epoch: s.clock.epoch,
            meters: s.take_meters()?,
            entropy,
            lr: s.theta_lr(),
            scalars: s.scalars.clone(),
            done: s.progress().min(1.0),
            seconds: self.began.elapsed().as_secs_f64(),
        };
        self.emit(event)
    }

    fn entropy(&self, marginals: Option<&Marginals>) -> Option<f64> {
        marginals.map(|marginals| self.search.space().spec().entropy(marginals))
    }

    fn report_architecture(&mut self) -> Result<()> {
        let choice = derive(self.strategy.as_ref(), &self.search)?;
        let genotype = self.search.space().genotype(&choice);
        let Found {
            marginals,
            entropy,
            sharpness,
            metrics,
            regret,
            known,
            trust,
        } = self.found(&choice, &genotype)?;
        let clock = &self.search.clock;
        self.emit(Event::Architecture {
            step: clock.step,
            epoch: clock.epoch,
            images: clock.work.images,
            seconds: clock.work.seconds(),
            simulated: clock.work.simulated_seconds(),
            marginals,
            entropy,
            sharpness,
            genotype,
            metrics,
            regret,
            known,
            trust: trust.into(),
        })
    }

    fn report_pictures(&mut self) -> Result<()> {
        let pictures = self.strategy.pictures(&self.search)?;
        if pictures.is_empty() {
            return Ok(());
        }
        self.emit(Event::Pictures {
            step: self.search.clock.step,
            epoch: self.search.clock.epoch,
            pictures,
        })
    }

    /// What the events say of the benchmark. A resumed run reads what earlier processes wrote.
    fn curve(&self) -> Result<Vec<CurvePoint>> {
        if self.search.benchmark().is_none() || !self.job.run.is_ours() {
            return Ok(vec![]);
        }
        let unit = self.search.budget().map(|b| b.unit);
        let timed = |of: Unit, seconds: f64| (unit == Some(of)).then_some(seconds);
        let events = run::read_events(&self.job.run.path().join(run::EVENTS))?;
        let points = events.into_iter().filter_map(|event| match event {
            Event::Architecture {
                step,
                epoch,
                images,
                seconds,
                simulated,
                metrics,
                regret,
                known,
                trust,
                ..
            } => Some(CurvePoint {
                step,
                epoch,
                images,
                seconds: timed(Unit::Seconds, seconds),
                simulated: timed(Unit::Simulated, simulated),
                known: known.unwrap_or(regret.is_some() && trust.predicted.is_empty()),
                predicted: trust.predicted,
                metrics,
                regret,
            }),
            _ => None,
        });
        Ok(points.collect())
    }

    fn found(&self, choice: &Choice, genotype: &Genotype) -> Result<Found> {
        let marginals = self.search.marginals(self.strategy.distribution())?;
        let score = self.search.query(genotype)?;
        let trust = Trust {
            decided: decided(self.search.space().spec().groups(), marginals.as_ref()),
            standing: self.standing(score.as_ref())?,
            predicted: (score.as_ref()).map_or_else(BTreeMap::new, |s| s.predicted.clone()),
            costs: self.doubts.clone(),
            elsewhere: self.elsewhere(),
        };
        let metrics = score.map(|score| score.metrics);
        let mut regret: Option<BTreeMap<String, f64>> = self
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
        // What a model predicts, the benchmark neither knows nor lacks.
        let answers = (self.search.benchmark()).filter(|_| trust.predicted.is_empty());
        let known = answers.map(|_| metrics.is_some());
        let mut own = self.strategy.metrics();
        if let Some(archive) = self.strategy.front() {
            let volume = archive.hypervolume();
            own.insert(HYPERVOLUME.into(), volume);
            if archive.is_relative() {
                let known = regret.get_or_insert_default();
                known.insert(HYPERVOLUME.into(), 1.0 - volume);
            }
            let values = archive.get(choice).unwrap_or_default();
            let named = archive.criteria().iter().map(|c| c.name.clone());
            own.extend(named.zip(values.iter().copied()));
        }
        if let Some(limits) = self.search.limits() {
            let costs = limits.costs(self.search.space(), choice)?;
            own.extend(
                costs
                    .into_iter()
                    .map(|(name, cost)| (format!("{METRIC}{name}"), cost)),
            );
        }
        let metrics = match metrics {
            Some(known) => {
                own.extend(known);
                Some(own)
            }
            None => (!own.is_empty()).then_some(own),
        };
        Ok(Found {
            entropy: self.entropy(marginals.as_ref()),
            sharpness: (marginals.as_ref()).map(|m| self.search.space().spec().sharpness(m)),
            marginals,
            metrics,
            regret,
            known,
            trust,
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
        self.tell(&Event::Checkpoint { step })?;
        self.shares.lap(Part::Checkpoints);
        Ok(())
    }

    fn emit(&mut self, event: Event) -> Result<()> {
        self.job.run.check_after_silence()?;
        self.log.event(&event)?;
        self.tell(&event)?;
        self.shares.lap(Part::Reports);
        Ok(())
    }

    fn tell(&self, event: &Event) -> Result<()> {
        let mut listeners = self.listeners.iter();
        listeners.try_for_each(|listener| lock(listener).event(event))
    }
}

struct Found {
    marginals: Option<Marginals>,
    entropy: Option<f64>,
    sharpness: Option<f64>,
    metrics: Option<BTreeMap<String, f64>>,
    regret: Option<BTreeMap<String, f64>>,
    known: Option<bool>,
    trust: Trust,
}
