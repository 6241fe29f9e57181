//! A comparison that is to be carried out: its plan, and its folder as far as it has begun.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nasfw_analysis::compare::{
    BEGUN, COMPARISON, Comparison, PlanFile, TRIALS, Trial, assemble, differences,
};
use nasfw_framework::config::{ConfigError, Layer, Origin, RunConfig, resolve};
use nasfw_framework::registry::Registry;
use nasfw_framework::run::{RunFolder, name_of, read_json_if_there};
use nasfw_framework::{Error, Result};

use super::runner::Runner;
use crate::cli::run::need_benchmark;
use crate::cli::selection::{Pair, space_options};
use crate::cli::waiting;

/// File of the plan in a comparison's folder.
pub const PLAN: &str = "plan.toml";
/// The setting that every trial has, whether the plan names it or not.
const THREADS: &str = "threads";

/// A comparison that is to be carried out.
pub struct Work {
    /// The plan.
    pub file: PlanFile,
    /// The comparison's folder.
    pub path: PathBuf,
    /// All trials: those that were begun in the order of then, new ones after them. So a trial keeps its number when the
    /// plan grows.
    pub trials: Vec<Trial>,
    /// What the plan asks for.
    planned: Vec<Trial>,
    /// What trials get that have no number of threads.
    threads: Pair,
}

impl Work {
    /// Reads a plan, or the folder of a comparison that has begun; `out` is the folder around the comparison's. `threads`
    /// is the number of threads of trials that the plan gives none, and who says so.
    pub fn read(plan: &Path, out: Option<&Path>, threads: (u64, String)) -> Result<Self> {
        let (count, from) = threads;
        let threads = (THREADS.to_owned(), count.to_string(), from);
        let (file, path, planned) = if plan.is_dir() {
            let mut file = PlanFile::read(&plan.join(PLAN))?;
            file.plan.name = name_of(plan);
            (file, plan.to_owned(), begun(plan)?)
        } else {
            let file = PlanFile::read(plan)?;
            let planned = file.trials(|space| {
                let options = space_options("space.name", "space", space)?.into_iter();
                Ok(options.map(|(key, value, _)| (key, value)).collect())
            })?;
            let out = out.unwrap_or(&file.plan.out);
            let path = out.join(&file.plan.name);
            (file, path, planned)
        };
        let trials = settle(&planned, &begun(&path)?, &threads);
        Ok(Self {
            file,
            path,
            trials,
            planned,
            threads,
        })
    }

    /// What carries its trials out here, so many at once.
    pub fn runner(&self, jobs: usize) -> Runner<'_> {
        Runner {
            folder: &self.path,
            rank: self.file.plan.rank,
            metric: self.file.plan.metric.as_deref(),
            jobs,
        }
    }

    /// Where a trial's run is.
    pub fn run_folder(&self, trial: &Trial) -> PathBuf {
        self.path.join(TRIALS).join(&trial.id)
    }

    /// Takes the comparison's folder, and notes there what is to be done. Refuses a plan that is no longer the one that
    /// it was begun with.
    pub fn begin(&mut self) -> Result<RunFolder> {
        let folder = RunFolder::at(&self.path)?;
        let begun = begun(&self.path)?;
        self.trials = settle(&self.planned, &begun, &self.threads);
        same_plan(&folder, &begun, &self.trials)?;
        folder.write(PLAN, self.file.document.text().as_bytes())?;
        folder.write_json(BEGUN, &self.trials)?;
        Ok(folder)
    }

    /// Sees to it that the comparison has begun with a trial: here, or in another process that is faster.
    pub fn begin_with(&mut self, trial: &Trial) -> Result<()> {
        let began = Instant::now();
        while !self.has_begun(trial)? {
            let patience = match RunFolder::holder(&self.path) {
                Some(_) => waiting::PATIENCE,
                None => Duration::from_secs(1),
            };
            match self.begin() {
                // Whoever has the folder may be doing just this.
                Err(Error::Run { .. }) if began.elapsed() < patience => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                done => return done.map(drop),
            }
        }
        Ok(())
    }

    fn has_begun(&self, trial: &Trial) -> Result<bool> {
        let begun = begun(&self.path)?;
        let same = begun.iter().find(|b| b.id == trial.id);
        Ok(same.is_some_and(|b| {
            differences(std::slice::from_ref(b), std::slice::from_ref(trial)).is_empty()
        }))
    }

    /// What its trials amount to so far, which the folder keeps.
    pub fn assemble(&self, folder: &RunFolder) -> Result<Comparison> {
        let comparison = assemble(&self.file, &self.trials, &self.path)?;
        folder.write_json(COMPARISON, &comparison)?;
        Ok(comparison)
    }

    /// Resolves the settings of one trial of each kind, so that a plan that can't work is refused before anything runs; with
    /// `tables` one that needs a table which is not imported, too.
    pub fn check(&self, registry: &Registry, tables: bool) -> Result<()> {
        let mut seen = BTreeSet::new();
        for trial in &self.trials {
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
                .and_then(|config| match tables {
                    true => need_benchmark(&config),
                    false => Ok(()),
                })
                .map_err(|e| located(e, &self.file, trial))?;
        }
        Ok(())
    }
}

/// How many threads a trial has, where that is said.
pub fn threads(trial: &Trial) -> Option<u64> {
    let option = trial.options.iter().find(|o| o.0 == THREADS);
    option?.1.parse().ok()
}

/// The trials that a comparison was begun with.
fn begun(path: &Path) -> Result<Vec<Trial>> {
    let begun = read_json_if_there(
        &path.join(BEGUN),
        "the file was edited; put it back as it was, or give the comparison another `name`",
    )?;
    Ok(begun.unwrap_or_default())
}

/// What is planned, what was begun first, and with a number of threads that every trial keeps once and for all: on a host
/// with other cores it would be another one, and with it other last bits.
fn settle(planned: &[Trial], begun: &[Trial], threads: &Pair) -> Vec<Trial> {
    let of = |t: &Trial| t.options.iter().find(|o| o.0 == THREADS).cloned();
    let places: HashMap<&str, usize> = begun
        .iter()
        .enumerate()
        .map(|(i, t)| (t.id.as_str(), i))
        .collect();
    // New trials of a plan that grows get what those before them have.
    let as_begun = begun
        .iter()
        .find_map(|t| of(t).filter(|o| o.2.starts_with("--")));
    let mut trials = planned.to_vec();
    trials.sort_by_key(|t| places.get(t.id.as_str()).copied().unwrap_or(usize::MAX));
    for trial in &mut trials {
        if of(trial).is_none() {
            let known = places.get(trial.id.as_str()).and_then(|i| of(&begun[*i]));
            let option = known
                .or(as_begun.clone())
                .unwrap_or_else(|| threads.clone());
            trial.options.push(option);
        }
    }
    trials
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

/// Says where in the plan the setting is that a trial's configuration is refused for.
fn located(error: Error, file: &PlanFile, trial: &Trial) -> Error {
    let mut error = match error {
        Error::Config(error) => error,
        Error::UnknownPlugin { kind, .. } => {
            let key = format!("{kind}.name");
            let option = trial.options.iter().find(|o| o.0 == key);
            let help = error.help();
            let mut found = ConfigError::one(key, error.to_string(), None);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn planned(text: &str) -> Vec<Trial> {
        let file = PlanFile::parse(Path::new("plan.toml"), text.into()).unwrap();
        let options = |space: &str| Ok(vec![("space.name".to_owned(), format!("\"{space}\""))]);
        file.trials(options).unwrap()
    }

    #[test]
    fn a_trial_keeps_its_number_and_its_threads_when_the_plan_grows() {
        let plan = |strategies: &str, seeds: u64| {
            planned(&format!(
                "seeds = {seeds}\nstrategies = [{strategies}]\nspaces = [\"toy-planted\"]\nbudgets = [{{ unit = \"steps\", amount = 5 }}]\n"
            ))
        };
        let here = |n: &str| (THREADS.to_owned(), n.to_owned(), "--jobs 1".to_owned());
        let begun = settle(&plan("\"darts\"", 2), &[], &here("4"));
        let grown = settle(&plan("\"vim\", \"darts\"", 3), &begun, &here("16"));
        let ids = |trials: &[Trial]| trials.iter().map(|t| t.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&grown)[..begun.len()], ids(&begun));
        assert_eq!((begun.len(), grown.len()), (6, 12));
        assert!(grown.iter().all(|t| threads(t) == Some(4)));
        // The plan's own number is stronger.
        let own = planned(
            "seeds = 1\nstrategies = [\"darts\"]\nspaces = [\"toy-planted\"]\n\
             budgets = [{ unit = \"steps\", amount = 5 }]\nset = { threads = 2 }\n",
        );
        let own = settle(&own, &begun, &here("4"));
        assert!(own.iter().all(|t| threads(t) == Some(2)));
    }
}
