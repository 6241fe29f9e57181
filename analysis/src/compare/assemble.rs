//! Reads a comparison's folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nasfw_framework::run::{RESULT, RUN, read_json_if_there};
use nasfw_framework::trainer::{CurvePoint, Outcome};
use nasfw_framework::trust::guesses;
use nasfw_framework::{Result, input};
use serde_json::Value;

use super::comparison::{Comparison, Ranking, Setting, State, TrialResult};
use super::figures::{Labels, Measured, figures, ranks};
use super::metric::Metrics;
use super::plan::{PlanFile, RANDOM, RANDOM_ARCHITECTURES};
use super::trials::Trial;
use crate::stats::StepFunction;
use nasfw_framework::budget::{Budget, Unit};

/// File of the trials that the plan asked for, by which a changed plan is noticed.
pub const BEGUN: &str = "trials.json";
/// Folder of run folders in a comparison's folder.
pub const TRIALS: &str = "trials";
/// Folder of what trials said on standard error.
pub const LOGS: &str = "logs";
/// File of a [`Ranking`] in a run folder.
pub const RANKING: &str = "ranking.json";

/// So many bytes of what a trial said last are read.
pub const LOG_END: u64 = 64 << 10;

/// What a failed trial said last is kept here.
pub fn error_file(folder: &Path, id: &str) -> PathBuf {
    folder.join(LOGS).join(format!("{id}.error"))
}

/// What to do about a file of a trial that can't be understood.
const HELP: &str = "it was cut, edited or made by another version of nasfw; delete the run's folder and type the command \
                    again to repeat this trial";

/// What the trials of a plan amount to so far.
///
/// # Errors
/// Files that are there and can't be read or understood; a metric that the plan names and results lack.
pub fn assemble(file: &PlanFile, trials: &[Trial], folder: &Path) -> Result<Comparison> {
    let plan = &file.plan;
    let strategies = file.labels();
    let controls = [RANDOM, RANDOM_ARCHITECTURES].map(str::to_owned);
    let labels = Labels {
        all: &strategies,
        controls: &controls,
    };
    let mut settings: Vec<(Setting, Vec<&Trial>)> = vec![];
    for trial in trials {
        let same = |s: &&mut (Setting, Vec<&Trial>)| {
            let s = &s.0;
            (&s.space, &s.dataset, s.budget) == (&trial.space, &trial.dataset, trial.budget)
        };
        match settings.iter_mut().find(same) {
            Some((_, own)) => own.push(trial),
            None => settings.push((
                Setting::empty(&trial.space, trial.dataset.clone(), trial.budget),
                vec![trial],
            )),
        }
    }
    let mut all = vec![];
    let mut filled = vec![];
    for (mut setting, trials) in settings {
        let measured = measure(&mut setting, &trials, folder, plan.metric.as_deref())?;
        all.extend(measured.iter().map(|m| m.result.clone()));
        filled.push(figures(setting, &measured, labels, plan.level));
    }
    let blocks: Vec<Vec<f64>> = filled
        .iter()
        .filter(|s| !s.strategies.is_empty())
        .map(|s| s.strategies.iter().map(|f| f.metric.mean).collect())
        .collect();
    Ok(Comparison {
        name: plan.name.clone(),
        level: plan.level,
        overall: ranks(&strategies, &blocks, plan.level),
        strategies,
        controls: controls.to_vec(),
        partial: filled.iter().any(|s| s.partial),
        settings: filled,
        trials: all,
    })
}

/// Reads the trials of a setting, and chooses its metric.
fn measure(
    setting: &mut Setting,
    trials: &[&Trial],
    folder: &Path,
    wanted: Option<&str>,
) -> Result<Vec<Measured>> {
    let runs: Vec<(&Trial, PathBuf, Option<Outcome>)> = trials
        .iter()
        .map(|t| {
            let run = Path::new(TRIALS).join(&t.id);
            let found = read_json_if_there(&folder.join(&run).join(RESULT), HELP)?;
            Ok((*t, run, found))
        })
        .collect::<Result<_>>()?;
    let finished = || {
        runs.iter()
            .filter_map(|(_, run, f)| Some((run, f.as_ref()?)))
    };
    let metrics = Metrics::new(
        runs.iter()
            .map(|(t, _, f)| (t.strategy.as_str(), f.as_ref())),
    );
    let metric = match wanted {
        Some(name) => {
            metrics.check(name, &setting.space)?;
            Some(name.to_owned())
        }
        None => match finished().next() {
            None => None,
            Some((run, _)) => {
                let config: Option<Value> = read_json_if_there(&folder.join(run).join(RUN), HELP)?;
                let dataset = config
                    .as_ref()
                    .and_then(|v| v.pointer("/dataset/name")?.as_str());
                let (metric, note) = match metrics.choose(dataset.unwrap_or_default()) {
                    Ok((metric, why)) => (Some(metric.to_owned()), why),
                    Err(why) => (None, why),
                };
                setting.notes.push(note);
                metric
            }
        },
    };
    let (count, with_curve) = (
        finished().count(),
        finished().filter(|(_, f)| !f.curve.is_empty()).count(),
    );
    if metric.is_some() && with_curve < count {
        setting
            .notes
            .push("some trials have no curve, so their strategies have no anytime regret".into());
    }
    setting.benchmark = finished()
        .find_map(|(_, f)| f.benchmark.as_ref())
        .map(|b| format!("{}; regret is against {}", b.source, b.optimum));
    setting.metric.clone_from(&metric);
    let value = |of: Option<&BTreeMap<String, f64>>| of?.get(metric.as_deref()?).copied();
    let guessed = |f: &Outcome| {
        let predicted = &f.trust.predicted;
        metric.as_deref().is_some_and(|m| predicted.contains_key(m))
    };
    let on_the_way = |f: &Outcome| {
        let is = |p: &CurvePoint| metric.as_ref().is_some_and(|m| p.predicted.contains_key(m));
        f.curve.iter().any(is)
    };
    setting.predicted = finished().any(|(_, f)| guessed(f) || on_the_way(f));
    let predicted = finished().filter(|(_, f)| guessed(f)).count();
    let note = metric.as_deref().and_then(|m| guesses(m, count, predicted));
    setting.notes.extend(note);
    // A figure of the strategy's own can have the name of one of the benchmark's.
    let benchmarks = metric.as_deref().is_some_and(|m| metrics.is_benchmarks(m));
    let measured = |f: &Outcome| match benchmarks && f.known == Some(false) {
        true => None,
        false => value(f.metrics.as_ref()),
    };
    runs.iter()
        .map(|(trial, run, found)| {
            let error = input::last_lines(&error_file(folder, &trial.id), LOG_END).ok();
            let state = match (found, &error) {
                (Some(_), _) => State::Done,
                (None, Some(_)) => State::Failed,
                (None, None) if folder.join(run).exists() => State::Unfinished,
                (None, None) => State::Missing,
            };
            let curve = found.as_ref().and_then(|f| {
                let point =
                    |p: &CurvePoint| Some((spent(p, trial.budget)?, value(p.regret.as_ref())?));
                StepFunction::new(f.curve.iter().filter_map(point).collect())
            });
            let ranking: Option<Ranking> =
                read_json_if_there(&folder.join(run).join(RANKING), HELP)?;
            Ok(Measured {
                result: TrialResult {
                    strategy: trial.strategy.clone(),
                    space: trial.space.clone(),
                    dataset: trial.dataset.clone(),
                    budget: trial.budget,
                    seed: trial.seed,
                    run: run.clone(),
                    state,
                    metric: found.as_ref().and_then(measured),
                    regret: value(found.as_ref().and_then(|f| f.regret.as_ref())),
                    error: error.filter(|_| state == State::Failed),
                },
                curve,
                tau: ranking.and_then(|r| r.tau),
            })
        })
        .collect()
}

fn spent(point: &CurvePoint, budget: Budget) -> Option<f64> {
    match budget.unit {
        Unit::Steps => Some(point.step as f64),
        Unit::Images => Some(point.images as f64),
        Unit::Seconds => point.seconds,
        Unit::Simulated => point.simulated,
        Unit::None => None,
    }
}
