//! The typed configuration of a run, as kept in the run folder.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use tch::Kind as TensorKind;

use super::{ConfigError, Resolved, Validator, flatten};
use crate::benchmark::BenchmarkConfig;
use crate::dataset::{DataSource, Dataset};
use crate::error::{Error, Result};
use crate::registry::{Kind, Parse, Registry};
use crate::run::{CONFIG, RUN, need_run, read_stored};
use crate::space::SpaceConfig;
use crate::strategy::StrategyConfig;
use crate::trainer::Trainer;

/// The most CPU threads.
const MOST_THREADS: usize = 1024;

/// Floating-point width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    Float,
    /// 64 bits.
    Double,
}

/// Settings that belong to no plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Common {
    /// Seed of every random draw.
    pub seed: u64,
    /// `auto`, `cpu` or `cuda:N`.
    pub device: String,
    /// CPU threads, 0 for one per core.
    pub threads: usize,
    /// Folder of run folders.
    #[serde(serialize_with = "in_words")]
    pub out: PathBuf,
    /// Folder of the dataset's files, empty for the dataset's own idea.
    #[serde(serialize_with = "in_words")]
    pub data_dir: PathBuf,
    /// Whether missing data files may be fetched.
    pub download: bool,
    /// Whether TensorBoard event files are written, too. Runs of older versions lack the setting.
    #[serde(default)]
    pub tensorboard: bool,
    /// Width of floating-point numbers.
    pub precision: Precision,
}

/// A path as text. What is not UTF-8 in it (`nasfw resume --data-dir`) becomes `\u{fffd}`: it is used, not kept.
fn in_words<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

impl Common {
    /// libtorch's name of the precision.
    pub fn kind(&self) -> TensorKind {
        match self.precision {
            Precision::Float => TensorKind::Float,
            Precision::Double => TensorKind::Double,
        }
    }

    /// Where the dataset may look.
    pub fn source(&self) -> DataSource {
        let dir = (!self.data_dir.as_os_str().is_empty()).then(|| self.data_dir.clone());
        DataSource {
            dir,
            download: self.download,
            seed: self.seed,
            ..DataSource::default()
        }
    }
}

/// Everything that decides a run. Plugins' settings are trait objects, kept by name through typetag.
#[derive(Debug, Serialize, Deserialize)]
pub struct RunConfig {
    /// Settings of no plugin.
    pub common: Common,
    /// The trainer.
    pub trainer: Box<dyn Trainer>,
    /// The space.
    pub space: Box<dyn SpaceConfig>,
    /// The strategy.
    pub strategy: Box<dyn StrategyConfig>,
    /// The dataset.
    pub dataset: Box<dyn Dataset>,
    /// The benchmark that regret is reported with.
    pub benchmark: Option<Box<dyn BenchmarkConfig>>,
}

impl RunConfig {
    /// Types and checks a resolved configuration.
    ///
    /// # Errors
    /// Wrong types and values out of range, each with the place where it was set; all range problems at once.
    pub fn new(registry: &Registry, resolved: &Resolved) -> Result<Self> {
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
                    (Parse::$kind(parse), value) => {
                        parse(&value).map_err(|e| located(e, Kind::$kind.name(), resolved))?
                    }
                    _ => {
                        return Err(Error::Registry(format!(
                            "{:?} registered as another kind",
                            Kind::$kind
                        )))
                    }
                }
            };
        }
        let common = serde_path_to_error::deserialize(&resolved.value).map_err(|e| {
            let key = e.path().to_string();
            located(
                ConfigError::one(key, e.into_inner().to_string(), None),
                "",
                resolved,
            )
        })?;
        let benchmark = match resolved
            .section(Kind::Benchmark)
            .get("name")
            .and_then(Value::as_str)
        {
            Some("none") | None => None,
            Some(_) => Some(typed!(Benchmark)),
        };
        let config = Self {
            common,
            trainer: typed!(Trainer),
            space: typed!(Space),
            strategy: typed!(Strategy),
            dataset: typed!(Dataset),
            benchmark,
        };
        for (kind, kept) in config.kept_names() {
            let section = resolved.section(kind);
            let name = section["name"].as_str().unwrap_or_default();
            if let Some(why) = registry.get(kind, name)?.misnamed(kept) {
                return Err(Error::Registry(format!("{} `{name}`: {why}", kind.name())));
            }
        }
        config.check().map_err(|e| located(e, "", resolved))?;
        Ok(config)
    }

    /// The configuration of a run folder, checked as that of a new run is.
    ///
    /// # Errors
    /// A folder that is no run, a file that can't be read or understood, values out of range.
    pub fn of_run(run: &Path) -> Result<Self> {
        need_run(run)?;
        let config: Self = read_stored(run, RUN)?;
        config.check().map_err(|e| Error::Run {
            path: run.join(RUN),
            problem: e.to_string(),
            help: format!(
                "the file was edited, or made by another version of nasfw; start a new run with `nasfw run --config \
                 {}/{CONFIG}` and change the value with `--set`",
                run.display()
            ),
        })?;
        Ok(config)
    }

    /// What is out of range.
    fn check(&self) -> Result<(), ConfigError> {
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

    /// BLAKE3 of the settings that decide the numbers of a run: everything but where files lie and which
    /// are written.
    pub fn fingerprint(&self) -> Result<String> {
        let mut value = self.to_value()?;
        if let Some(map) = value.get_mut("common").and_then(Value::as_object_mut) {
            for key in ["out", "data_dir", "download", "tensorboard"] {
                map.remove(key);
            }
        }
        if let Some(map) = value.get_mut("benchmark").and_then(Value::as_object_mut) {
            map.remove("file");
        }
        Ok(blake3::hash(value.to_string().as_bytes())
            .to_hex()
            .to_string())
    }

    /// The typed configuration as JSON.
    pub fn to_value(&self) -> Result<Value> {
        serde_json::to_value(self).map_err(|e| Error::Invalid {
            what: "run configuration".into(),
            why: e.to_string(),
        })
    }
}

/// Prefixes relative keys with their section and adds where each value was set.
fn located(mut error: ConfigError, section: &str, resolved: &Resolved) -> Error {
    for p in &mut error.problems {
        if !section.is_empty() {
            p.key = if p.key.is_empty() {
                section.into()
            } else {
                format!("{section}.{}", p.key)
            };
        }
        p.origin = p.origin.take().or_else(|| resolved.origin(&p.key).cloned());
    }
    if error.help.is_none() {
        let kind = Kind::ALL
            .iter()
            .find(|k| error.problems.iter().any(|p| p.key.starts_with(k.name())));
        let name = kind.and_then(|k| {
            resolved
                .section(*k)
                .get("name")
                .and_then(Value::as_str)
                .map(str::to_owned)
        });
        error.help = Some(name.map_or_else(
            || "`nasfw config show` lists every option with its value and origin".into(),
            |n| format!("`nasfw describe {n}` explains its options"),
        ));
    }
    Error::Config(Box::new(error))
}
