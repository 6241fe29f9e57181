//! Reads a comparison's folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nasfw_framework::run::{RESULT, RUN, read_json_if_there};
use nasfw_framework::trainer::{CurvePoint, Outcome};
use nasfw_framework::{Error, Result, input};
use serde_json::Value;

use super::figures::{Labels, Measured, figures, ranks};
use super::{
    Budget, Comparison, PlanFile, RANDOM, RANDOM_ARCHITECTURES, Ranking, Setting, State, Trial,
    TrialResult, Unit,
};
use crate::stats::StepFunction;

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

/// The metric that is compared when the plan names none: `test/DATASET`, else `test`, else the first (by name) that
/// begins with `test` and is not of shortened training (`@`), else the first that begins with `valid`, else the first.
pub fn choose_metric<'a>(known: &[&'a str], dataset: &str) -> Option<&'a str> {
    let mut known = known.to_vec();
    known.sort_unstable();
    let own = format!("test/{dataset}");
    let rules: [&dyn Fn(&str) -> bool; 5] = [
        &|m| m.eq_ignore_ascii_case(&own),
        &|m| m == "test",
        &|m| m.starts_with("test") && !m.contains('@'),
        &|m| m.starts_with("valid") && !m.contains('@'),
        &|_| true,
    ];
    rules
        .iter()
        .find_map(|rule| known.iter().find(|m| rule(m)))
        .copied()
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
    let known: Vec<&str> = finished()
        .flat_map(|(_, f)| f.metrics.iter().flatten().map(|(name, _)| name.as_str()))
        .collect();
    let metric = match wanted {
        Some(name) if known.contains(&name) || known.is_empty() => Some(name.to_owned()),
        Some(name) => {
            let mut known = known;
            known.sort_unstable();
            known.dedup();
            return Err(Error::Incompatible {
                what: format!("metric `{name}` on space `{}`", setting.space),
                why: "the finished trials have none of this name".into(),
                help: format!("`metric` of the plan can be {}", known.join(", ")),
            });
        }
        None => {
            let dataset = match finished().next() {
                Some((run, _)) => read_json_if_there::<Value>(&folder.join(run).join(RUN), HELP)?
                    .and_then(|v| Some(v.pointer("/dataset/name")?.as_str()?.to_owned())),
                None => None,
            };
            choose_metric(&known, &dataset.unwrap_or_default()).map(str::to_owned)
        }
    };
    let (count, with_curve) = (
        finished().count(),
        finished().filter(|(_, f)| !f.curve.is_empty()).count(),
    );
    if count > 0 && metric.is_none() {
        setting.notes.push(
            "no benchmark knows this space, so there is nothing to compare; `nasfw bench import` imports a table, and \
             `benchmark.file` in `[set]` names one"
                .into(),
        );
    } else if with_curve < count {
        setting
            .notes
            .push("some trials have no curve, so their strategies have no anytime regret".into());
    }
    setting.benchmark = finished()
        .find_map(|(_, f)| f.benchmark.as_ref())
        .map(|b| format!("{}; regret is against {}", b.source, b.optimum));
    setting.metric.clone_from(&metric);
    let value = |of: Option<&BTreeMap<String, f64>>| of?.get(metric.as_deref()?).copied();
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
                    metric: value(found.as_ref().and_then(|f| f.metrics.as_ref())),
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
