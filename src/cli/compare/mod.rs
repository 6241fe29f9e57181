//! `nasfw compare`.

mod runner;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use nasfw_analysis::compare::{BEGUN, COMPARISON, PlanFile, Trial, assemble, differences, text};
use nasfw_framework::config::{Layer, Origin, RunConfig, resolve};
use nasfw_framework::printable::counted;
use nasfw_framework::registry::Registry;
use nasfw_framework::run::{RunFolder, read_json_if_there};
use nasfw_framework::{Error, Result};

use super::output::say;
use super::run::need_benchmark;
use super::selection::space_options;
use super::{logging, progress};
use crate::host::Host;
use runner::{Ended, Runner};

/// File of the plan in a comparison's folder.
pub const PLAN: &str = "plan.toml";
/// The setting that every trial has, whether the plan names it or not.
const THREADS: &str = "threads";

/// Options of `compare`.
#[derive(Debug, Args)]
pub struct Compare {
    /// The plan, a TOML file [see docs/comparing.md]
    plan: PathBuf,
    /// Folder that gets the comparison's folder, instead of the plan's
    #[arg(long, short = 'o', value_name = "DIR")]
    out: Option<PathBuf>,
    /// Trials at once
    #[arg(long, short = 'j', value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024))]
    jobs: u64,
    /// Only print the trials
    #[arg(long)]
    dry_run: bool,
}

impl Compare {
    /// Carries out what of the plan is not done yet, and says what all of it amounts to.
    pub fn carry_out(self, host: &Host) -> Result<()> {
        logging::to_terminal();
        let registry = Registry::load()?;
        let file = PlanFile::read(&self.plan)?;
        let mut trials = file.trials(|space| {
            let options = space_options("space.name", "space", space)?.into_iter();
            Ok(options.map(|(key, value, _)| (key, value)).collect())
        })?;
        let out = self.out.as_deref().unwrap_or(&file.plan.out);
        let path = out.join(&file.plan.name);
        let begun: Option<Vec<Trial>> = read_json_if_there(
            &path.join(BEGUN),
            "the file was edited; put it back as it was, or give the comparison another `name`",
        )?;
        let begun = begun.unwrap_or_default();
        fix_threads(&mut trials, &begun, self.jobs);
        check(&registry, &file, &trials, !self.dry_run)?;
        let runner = Runner {
            folder: &path,
            rank: file.plan.rank,
            metric: file.plan.metric.as_deref(),
            jobs: usize::try_from(self.jobs).unwrap_or(1),
        };
        if self.dry_run {
            for trial in &trials {
                say(runner.next_command(trial)?);
            }
            say(format!(
                "{} in {}",
                counted(trials.len(), "trial"),
                path.display()
            ));
            return Ok(());
        }

        let folder = RunFolder::at(&path)?;
        same_plan(&folder, &begun, &trials)?;
        folder.write(PLAN, file.document.text().as_bytes())?;
        folder.write_json(BEGUN, &trials)?;
        host.works_in(&path);
        let interrupt = host.interrupt(|| {})?;
        let ended = runner.run(&trials, interrupt.flag())?;
        let comparison = assemble(&file, &trials, &path)?;
        folder.write_json(COMPARISON, &comparison)?;
        let again = format!("type the same command again: {}", host.typed());
        match ended {
            Ended::Interrupted { done, lost } => Err(Error::Stopped {
                what: format!(
                    "interrupted with {done} of {} done; {}",
                    counted(trials.len(), "trial"),
                    match lost.as_slice() {
                        [] => "those at work are saved".to_owned(),
                        lost => format!(
                            "those at work are saved, but these did not end as asked and go on from what they \
                             saved before: {}",
                            lost.join(", ")
                        ),
                    }
                ),
                help: format!("to go on, {again}"),
            }),
            Ended::All { failed } => {
                say(text(&comparison).trim_start());
                say(format!("result: {}", path.join(COMPARISON).display()));
                if failed.is_empty() {
                    return Ok(());
                }
                for (id, lines) in &failed {
                    progress::line(&format!("\n{id}:\n{lines}"));
                }
                Err(Error::Run {
                    path: path.clone(),
                    problem: format!(
                        "{} of {} failed",
                        failed.len(),
                        counted(trials.len(), "trial")
                    ),
                    help: format!(
                        "what they said is above and in logs/; to try them again, {again}"
                    ),
                })
            }
        }
    }
}

/// Gives every trial its number of threads, once and for all: on a host with other cores it would be another one, and
/// with it other last bits.
fn fix_threads(trials: &mut [Trial], begun: &[Trial], jobs: u64) {
    let of = |t: &Trial| t.options.iter().find(|o| o.0 == THREADS).cloned();
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let here = (
        THREADS.to_owned(),
        (cores / jobs).max(1).to_string(),
        format!("--jobs {jobs}"),
    );
    // New trials of a plan that grows get what those before them have.
    let as_begun = begun
        .iter()
        .find_map(|t| of(t).filter(|o| o.2.starts_with("--jobs")));
    for trial in trials {
        if of(trial).is_none() {
            let known = begun.iter().find(|b| b.id == trial.id).and_then(of);
            let option = known.or(as_begun.clone()).unwrap_or_else(|| here.clone());
            trial.options.push(option);
        }
    }
}

/// Refuses a plan that is no longer the one that the folder was begun with.
fn same_plan(folder: &RunFolder, begun: &[Trial], trials: &[Trial]) -> Result<()> {
    let found = differences(begun, trials);
    if found.is_empty() {
        return Ok(());
    }
    let more = found.len().saturating_sub(5);
    let mut shown = found.into_iter().take(5).collect::<Vec<_>>().join("; ");
    if more > 0 {
        shown += &format!("; and {more} more");
    }
    Err(Error::Run {
        path: folder.path().to_owned(),
        problem: format!("this comparison was begun with another plan: {shown}"),
        help: format!(
            "a plan may get more strategies, spaces, datasets, seeds and budgets; anything else is another comparison: \
             give it another `name` (the plan as it was is {})",
            folder.path().join(PLAN).display()
        ),
    })
}

/// Resolves the settings of one trial of each kind, so that a plan that can't work is refused before anything runs; with
/// `tables` one that needs a table which is not imported, too.
fn check(registry: &Registry, file: &PlanFile, trials: &[Trial], tables: bool) -> Result<()> {
    let mut seen = BTreeSet::new();
    for trial in trials {
        if !seen.insert((
            &trial.strategy,
            &trial.space,
            &trial.dataset,
            trial.budget.to_string(),
        )) {
            continue;
        }
        let resolved = resolve(registry, &[Layer::CommandLine(trial.options.clone())]);
        resolved
            .and_then(|r| RunConfig::new(registry, &r))
            .and_then(|config| {
                if tables {
                    need_benchmark(&config)
                } else {
                    Ok(())
                }
            })
            .map_err(|e| located(e, file, trial))?;
    }
    Ok(())
}

/// Says where in the plan the setting is that a trial's configuration is refused for.
fn located(error: Error, file: &PlanFile, trial: &Trial) -> Error {
    let mut error = match error {
        Error::Config(error) => error,
        Error::UnknownPlugin { kind, .. } => {
            let key = format!("{kind}.name");
            let option = trial.options.iter().find(|o| o.0 == key);
            let help = error.help();
            let mut found = nasfw_framework::config::ConfigError::one(key, error.to_string(), None);
            found.problems[0].origin = option.and_then(|o| file.document.origin(&o.2));
            found.help = help;
            return Error::Config(Box::new(found));
        }
        other => return other,
    };
    for problem in &mut error.problems {
        if let Some(Origin::CommandLine(at)) = &problem.origin {
            problem.origin = file.document.origin(at).or_else(|| problem.origin.clone());
        }
    }
    Error::Config(error)
}
