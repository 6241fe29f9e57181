//! From a resolved configuration, or a run folder, to the typed configuration of a run.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::resolved::Resolved;
use crate::benchmark::Benchmark;
use crate::command::{command, quoted};
use crate::error::{Error, Result};
use crate::job::{Common, RunConfig};
use crate::registry::{Kind, Parse, Registry};
use crate::run::{CONFIG, RUN, need_run, read_stored};
use crate::settings::{ConfigError, Problem, Validator, flatten, misread, pointer};

/// The most CPU threads.
const MOST_THREADS: usize = 1024;

impl RunConfig {
    /// Types and checks a resolved configuration.
    ///
    /// # Errors
    /// Wrong types and values out of range, all at once, each with the place where it was set.
    pub fn new(registry: &Registry, resolved: &Resolved) -> Result<Self> {
        let mut reader = Reader {
            resolved,
            problems: vec![],
        };
        let section = |kind: Kind| -> Result<(Parse, Value)> {
            let section = resolved.section(kind);
            let name = section
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or_default();
            Ok((registry.get(kind, name)?.parse, section))
        };
        macro_rules! typed {
            ($kind:ident) => {
                match section(Kind::$kind)? {
                    (Parse::$kind(parse), value) => reader.read(Kind::$kind.name(), value, parse),
                    _ => {
                        return Err(Error::Registry(format!(
                            "{:?} registered as another kind",
                            Kind::$kind
                        )))
                    }
                }
            };
        }
        let common: Option<Common> = reader.read("", resolved.value.clone(), |value| {
            serde_path_to_error::deserialize(value).map_err(|e| {
                let key = e.path().to_string();
                ConfigError::one(key, misread(&e.into_inner()), None)
            })
        });
        let benchmark = match resolved
            .section(Kind::Benchmark)
            .get("name")
            .and_then(Value::as_str)
        {
            Some("none") | None => Some(None),
            Some(_) => typed!(Benchmark).map(Some),
        };
        let mut trackers = vec![];
        for name in resolved.trackers() {
            let section = format!("{}.{name}", Kind::Tracker.name());
            let Parse::Tracker(parse) = registry.get(Kind::Tracker, name)?.parse else {
                return Err(Error::Registry(format!(
                    "`{name}` is registered as no tracker"
                )));
            };
            trackers.extend(reader.read(&section, resolved.at(&section), parse));
        }
        let trainer = typed!(Trainer);
        let space = typed!(Space);
        // Through the plugin: what a wrapper wraps may have been announced while the program runs.
        let strategy = {
            let section = resolved.section(Kind::Strategy);
            let name = section["name"].as_str().unwrap_or_default();
            let plugin = registry.get(Kind::Strategy, name)?;
            reader.read(Kind::Strategy.name(), section.clone(), |value| {
                plugin.strategy(value)
            })
        };
        let dataset = typed!(Dataset);
        let mut problems = reader.problems;
        if let (
            Some(common),
            Some(trainer),
            Some(space),
            Some(strategy),
            Some(dataset),
            Some(benchmark),
        ) = (common, trainer, space, strategy, dataset, benchmark)
        {
            let config = Self {
                common,
                trainer,
                space,
                strategy,
                dataset,
                benchmark,
                trackers,
                lacks: vec![],
            };
            let section_name = |kind| {
                let section = resolved.section(kind);
                section["name"].as_str().unwrap_or_default().to_owned()
            };
            let parts = config
                .kept_names()
                .map(|(kind, kept)| (kind, section_name(kind), kept));
            let trackers = resolved.trackers().zip(&config.trackers);
            let trackers =
                trackers.map(|(name, t)| (Kind::Tracker, name.to_owned(), t.typetag_name()));
            for (kind, name, kept) in parts.chain(trackers) {
                let name = name.as_str();
                if let Some(why) = registry.get(kind, name)?.misnamed(kept) {
                    return Err(Error::Registry(format!("{} `{name}`: {why}", kind.name())));
                }
            }
            problems.extend(
                config
                    .check(|key| resolved.is_set(key))
                    .err()
                    .into_iter()
                    .flat_map(|e| e.problems),
            );
            if problems.is_empty() {
                return Ok(config);
            }
        }
        Err(located(problems, resolved))
    }

    /// The benchmark, for `what` can't be done without one.
    ///
    /// # Errors
    /// None that knows the space, none that is wanted, and a table that is not there or can't be read.
    pub fn need_benchmark(&self, what: &str) -> Result<Box<dyn Benchmark>> {
        let space = self.space.name();
        let refused = |why: String, help: String| {
            Err(Error::Incompatible {
                what: what.into(),
                why,
                help,
            })
        };
        let Some(config) = &self.benchmark else {
            return match Registry::load()?.benchmark_for(space) {
                Some(known) => refused(
                    format!(
                        "it needs the benchmark `{}`, and this run has none",
                        known.name
                    ),
                    "leave `benchmark.name` as it is by default".into(),
                ),
                None => refused(
                    format!("no benchmark knows the architectures of space `{space}`"),
                    "choose a space that a benchmark knows: `nasfw bench list` shows them".into(),
                ),
            };
        };
        let name = config.typetag_name();
        match config.open(&self.space_section()?)? {
            Some(benchmark) => Ok(benchmark),
            None => refused(
                format!("the table of {name}, which knows space `{space}`, is not imported"),
                format!(
                    "`nasfw bench import {name} FILE` imports it (docs/tables.md says what FILE is); \
                     `nasfw bench list` shows where it is looked for"
                ),
            ),
        }
    }

    /// The configuration of a run folder, checked as that of a new run is.
    ///
    /// # Errors
    /// A folder that is no run, a file that can't be read or understood, values out of range.
    pub fn of_run(run: &Path) -> Result<Self> {
        need_run(run)?;
        let mut config: Self = read_stored(run, RUN).map_err(|e| in_python(run, e))?;
        config.lacks = lacking(&config.to_value()?, &read_stored(run, RUN)?);
        if std::mem::take(&mut config.common.tensorboard) {
            let plugin = Registry::load()?.get(Kind::Tracker, "tensorboard")?;
            let tracker = plugin.tracker(&plugin.default_section()?)?;
            config.trackers.push(tracker);
        }
        // What changes nothing was refused, if it was, when the run began.
        config.check(|_| false).map_err(|e| Error::Run {
            path: run.join(RUN),
            problem: e.to_string(),
            help: format!(
                "the file was edited, or made by another version of nasfw; start a new run with `{}` and change the \
                 value with `--set`",
                command(["run".as_ref(), "--config".as_ref(), run.join(CONFIG).as_os_str()])
            ),
        })?;
        Ok(config)
    }

    /// What is out of range, and what of the idle options was set.
    fn check(&self, is_set: impl Fn(&str) -> bool) -> Result<(), ConfigError> {
        let mut v = Validator::default();
        v.range("threads", self.common.threads, 0, MOST_THREADS);
        // A value that can't be written is reported where it is kept.
        for (key, value) in self.to_value().iter().flat_map(flatten) {
            let key = key.strip_prefix("common.").unwrap_or(&key);
            v.counts(key, &value);
        }
        self.trainer.validate(&mut v);
        self.space.validate(&mut v);
        self.strategy.validate(&mut v);
        self.dataset.validate(&mut v);
        for tracker in &self.trackers {
            tracker.validate(&mut v);
        }
        v.refuse_idle(is_set);
        v.into_result()
    }

    /// The names under which plugins' settings are kept.
    fn kept_names(&self) -> impl Iterator<Item = (Kind, &'static str)> {
        let benchmark = (self.benchmark.as_ref()).map(|b| (Kind::Benchmark, b.typetag_name()));
        [
            (Kind::Trainer, self.trainer.typetag_name()),
            (Kind::Space, self.space.typetag_name()),
            (Kind::Strategy, self.strategy.typetag_name()),
            (Kind::Dataset, self.dataset.typetag_name()),
        ]
        .into_iter()
        .chain(benchmark)
    }
}

/// Paths of what is in `ours` and not in `theirs`.
fn lacking(ours: &Value, theirs: &Value) -> Vec<Vec<String>> {
    let (Some(ours), Some(theirs)) = (ours.as_object(), theirs.as_object()) else {
        return vec![];
    };
    let below = |(key, ours): (&String, &Value)| -> Vec<Vec<String>> {
        let Some(theirs) = theirs.get(key) else {
            return vec![vec![key.clone()]];
        };
        let deeper = lacking(ours, theirs).into_iter();
        deeper
            .map(|path| [vec![key.clone()], path].concat())
            .collect()
    };
    ours.iter().flat_map(below).collect()
}

/// The error of a `run.json` that this program can't read because its plugins are written in Python.
fn in_python(run: &Path, error: Error) -> Error {
    if !error.to_string().contains("unknown variant `python`") {
        return error;
    }
    Error::Run {
        path: run.join(RUN),
        problem: "the strategy of this run is written in Python, and this program has none".into(),
        help: format!(
            "`python -m nasfw resume {}` goes on with it, where the package nasfw is installed",
            quoted(run)
        ),
    }
}

/// Types the sections of a tree. A value of a wrong type is a problem and gives way to its default, so that what else is
/// wrong is seen too.
struct Reader<'a> {
    resolved: &'a Resolved,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn read<T>(
        &mut self,
        section: &str,
        mut value: Value,
        parse: impl Fn(&Value) -> Result<T, ConfigError>,
    ) -> Option<T> {
        let mut replaced = BTreeSet::new();
        loop {
            let error = match parse(&value) {
                Ok(typed) => return Some(typed),
                Err(error) => error,
            };
            for mut problem in error.problems {
                problem.key = problem.key.trim_start_matches('.').to_owned();
                let own = problem.key.split('[').next().unwrap_or_default().to_owned();
                problem.key = match (section, problem.key.as_str()) {
                    ("", key) => key.to_owned(),
                    (section, "") => section.to_owned(),
                    (section, key) => format!("{section}.{key}"),
                };
                self.problems.push(problem);
                let place = pointer(&own);
                let defaults = self.resolved.default_at(section);
                let default = defaults.and_then(|d| d.pointer(&place)).cloned();
                let (Some(value), Some(default)) = (value.pointer_mut(&place), default) else {
                    return None;
                };
                if !replaced.insert(own) {
                    return None;
                }
                *value = default;
            }
        }
    }
}

/// The error of all problems: adds where each value was set, and what explains it.
fn located(mut problems: Vec<Problem>, resolved: &Resolved) -> Error {
    for p in &mut problems {
        p.origin = p.origin.take().or_else(|| resolved.origin(&p.key).cloned());
    }
    let mut error = ConfigError {
        problems,
        help: None,
    };
    let kind = Kind::ALL
        .iter()
        .find(|k| error.problems.iter().any(|p| p.key.starts_with(k.name())));
    // `tracker.NAME.KEY`
    let of_tracker = |p: &Problem| {
        let mut parts = p.key.split('.');
        let is_one = parts.next() == Some(Kind::Tracker.name());
        parts.next().filter(|_| is_one).map(str::to_owned)
    };
    let name = kind.and_then(|k| match k {
        Kind::Tracker => error.problems.iter().find_map(of_tracker),
        _ => resolved.section(*k)["name"].as_str().map(str::to_owned),
    });
    error.help = Some(name.map_or_else(
        || "`nasfw config show` lists every option with its value and origin".into(),
        |n| format!("`nasfw describe {n}` explains its options"),
    ));
    Error::Config(Box::new(error))
}
