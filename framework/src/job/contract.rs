//! What a run is made of, and what carries it out.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use tch::Kind as TensorKind;

use super::reopened::Reopened;
use crate::benchmark::BenchmarkConfig;
use crate::dataset::{DataSource, Dataset};
use crate::error::{Error, Result};
use crate::listen::SharedListener;
use crate::outcome::Outcome;
use crate::ranks::Ranks;
use crate::run::RunFolder;
use crate::search::Search;
use crate::settings::Validator;
use crate::space::SpaceConfig;
use crate::strategy::{Strategy, StrategyConfig};
use crate::tracker::Tracker;

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
    /// Whether a run of an older version has the tracker `tensorboard` on; never true in a newer one.
    #[serde(default, skip_serializing)]
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
    /// Who else keeps what happens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trackers: Vec<Box<dyn Tracker>>,
    /// Paths of the settings that the file of a run of an earlier version lacks. They say what that version did.
    #[serde(skip)]
    pub lacks: Vec<Vec<String>>,
}

impl RunConfig {
    /// BLAKE3 of the settings that decide the numbers of a run, as the version wrote them that began it.
    pub fn fingerprint(&self) -> Result<String> {
        let mut value = self.deciding()?;
        for path in &self.lacks {
            let Some((key, above)) = path.split_last() else {
                continue;
            };
            let section = above.iter().try_fold(&mut value, |at, key| at.get_mut(key));
            if let Some(map) = section.and_then(Value::as_object_mut) {
                // The others keep their order.
                map.shift_remove(key);
            }
        }
        Ok(blake3::hash(value.to_string().as_bytes())
            .to_hex()
            .to_string())
    }

    /// Whether both give the same numbers, whichever versions they are of.
    pub fn is_same_search(&self, other: &Self) -> Result<bool> {
        Ok(self.deciding()? == other.deciding()?)
    }

    /// The settings that decide the numbers of a run: everything but where files lie and who else keeps what happens.
    fn deciding(&self) -> Result<Value> {
        let mut value = self.to_value()?;
        if let Some(map) = value.as_object_mut() {
            map.remove("trackers");
        }
        if let Some(map) = value.get_mut("common").and_then(Value::as_object_mut) {
            for key in ["out", "data_dir", "download"] {
                map.remove(key);
            }
        }
        if let Some(map) = value.get_mut("benchmark").and_then(Value::as_object_mut) {
            map.remove("file");
        }
        Ok(value)
    }

    /// Name and settings of the space.
    pub fn space_section(&self) -> Result<Value> {
        serde_json::to_value(&self.space).map_err(|e| Error::Invalid {
            what: "space settings".into(),
            why: e.to_string(),
        })
    }

    /// The typed configuration as JSON.
    pub fn to_value(&self) -> Result<Value> {
        serde_json::to_value(self).map_err(|e| Error::Invalid {
            what: "run configuration".into(),
            why: e.to_string(),
        })
    }
}

/// A run to be carried out.
pub struct Job<'a> {
    /// What to do.
    pub config: &'a RunConfig,
    /// Where to keep it. If it holds checkpoints, the search goes on from the newest good one.
    pub run: &'a RunFolder,
    /// Who listens, besides the run folder's own event file.
    pub listeners: Vec<SharedListener>,
    /// Set to end the search after a checkpoint.
    pub interrupt: &'a AtomicBool,
    /// The processes that carry it out together.
    pub ranks: Ranks,
}

/// A run to be looked at again.
pub struct Reopen<'a> {
    /// How it was made, but for where its files are and the device.
    pub config: &'a RunConfig,
    /// [`RunConfig::fingerprint`] of how it was made.
    pub fingerprint: &'a str,
    /// Where it is. Nothing in it is changed, and whoever works on it goes on.
    pub run: &'a Path,
    /// One of its checkpoints; none means the newest.
    pub checkpoint: Option<&'a Path>,
    /// The images that it is measured on.
    pub on: Measured<'a>,
}

/// What a run that is looked at again is measured on.
#[derive(Debug, Clone, Copy)]
pub enum Measured<'a> {
    /// Its own images.
    Own,
    /// Another dataset, and where that is. Its images are shown to the network as the run's own are, and its classes go
    /// by their names.
    Other(&'a dyn Dataset, &'a DataSource),
    /// Nothing: no images are looked for, unless the run is of an earlier version, which only its own images tell what
    /// its network takes.
    Nothing,
}

/// What runs a search.
#[typetag::serde(tag = "name")]
pub trait Trainer: Send + Sync + std::fmt::Debug {
    /// Runs the search to its end and returns what was found.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) after a signal, with everything saved; and whatever data,
    /// space, strategy or disk have to say.
    fn search(&self, job: Job<'_>) -> Result<Outcome>;

    /// A search before its first step, in no run folder, to be measured.
    ///
    /// # Errors
    /// Whatever data, space and strategy have to say.
    fn start(&self, config: &RunConfig) -> Result<(Search, Box<dyn Strategy>)>;

    /// A run as it was at a checkpoint, to be measured or exported.
    ///
    /// # Errors
    /// A run without checkpoints, a checkpoint of another run, and whatever data, space and strategy have to say.
    fn reopen(&self, job: Reopen<'_>) -> Result<Reopened>;

    /// Checks ranges before anything is built.
    fn validate(&self, _v: &mut Validator) {}
}
