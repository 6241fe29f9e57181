//! Scores of networks by proxies: what `score` and `rank` have in common.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use nasfw_framework::batches::Batch;
use nasfw_framework::config::{ConfigError, Layer, Origin, RunConfig, resolve, typed_value};
use nasfw_framework::dataset::Task;
use nasfw_framework::device;
use nasfw_framework::network::{Network, NetworkOptions};
use nasfw_framework::proxy::{Proxy, Start, batch};
use nasfw_framework::registry::{Kind, Registry};
use nasfw_framework::rng::Streams;
use nasfw_framework::{Error, Result};
use serde_json::{Map, Value};

use super::selection::{Pair, text};

/// By which proxies, of networks of which size, on which images.
#[derive(Debug, Clone, Args)]
pub struct Scoring {
    /// A proxy; may be given again [see `nasfw list proxies`]
    #[arg(long, short = 'p', value_name = "NAME")]
    pub proxy: Vec<String>,
    /// Images that a score is taken on
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(2..=1 << 20))]
    batch: u64,
    /// Fresh starts, with other weights and images, that a score is the mean over
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    starts: u64,
    /// Initial channels [default: those of the space's paper]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..=4096))]
    channels: Option<i64>,
    /// Number of cells [default: that of the space's paper]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=999))]
    cells: Option<u64>,
    /// What the images are from [default: the run's or the space's] [see `nasfw list datasets`]
    #[arg(long, short = 'd', value_name = "NAME")]
    pub dataset: Option<String>,
    /// Folder of the dataset's files
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// `auto`, `cpu` or `cuda:N`
    #[arg(long)]
    device: Option<String>,
    /// CPU threads, 0 for one per core
    #[arg(long)]
    threads: Option<u64>,
    /// A setting of a proxy, for example `--set zen.repeats=32`, or one of a run, for example `--set precision=double`
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Scoring {
    /// The configuration of a run on a space, for its dataset, device and benchmark. `weakest` gives way to the options.
    pub fn config(
        &self,
        registry: &Registry,
        weakest: Vec<Pair>,
        space: Vec<Pair>,
        seed: u64,
    ) -> Result<RunConfig> {
        let folder = self
            .data_dir
            .as_ref()
            .map(|dir| dir.to_string_lossy().into_owned());
        let number = |key: &str, value: Option<u64>| {
            value.map(|v| (key.to_owned(), v.to_string(), format!("--{key} {v}")))
        };
        let options = [
            text("dataset.name", "dataset", &self.dataset),
            text("data_dir", "data-dir", &folder),
            text("device", "device", &self.device),
            number("threads", self.threads),
            number("seed", Some(seed)),
        ];
        let mut options: Vec<Pair> = space
            .into_iter()
            .chain(options.into_iter().flatten())
            .collect();
        for typed in &self.set {
            let (key, value) = parts(typed)?;
            if self.of_proxy(key).is_none() {
                options.push((key.into(), value.into(), format!("--set {typed}")));
            }
        }
        let layers = [Layer::CommandLine(weakest), Layer::CommandLine(options)];
        RunConfig::new(registry, &resolve(registry, &layers)?)
    }

    /// A key as that of a proxy that is asked for: its name, and the key of its own.
    fn of_proxy<'a>(&self, key: &'a str) -> Option<(&'a str, &'a str)> {
        let (name, key) = key.split_once('.')?;
        self.proxy
            .iter()
            .any(|asked| asked == name)
            .then_some((name, key))
    }

    /// The proxies with their settings.
    fn proxies(&self, registry: &Registry) -> Result<Vec<Named>> {
        let mut set: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
        for typed in &self.set {
            let (key, value) = parts(typed)?;
            if let Some((name, key)) = self.of_proxy(key) {
                let value = typed_value(value).map_err(|why| {
                    let origin = Origin::CommandLine(format!("--set {typed}"));
                    Box::new(ConfigError::one(key, why, Some(origin)))
                })?;
                let value = serde_json::to_value(value).map_err(|e| Error::Invalid {
                    what: format!("--set {typed}"),
                    why: e.to_string(),
                })?;
                set.entry(name).or_default().insert(key.to_owned(), value);
            }
        }
        let mut proxies: Vec<Named> = vec![];
        for name in &self.proxy {
            if proxies.iter().any(|(known, _)| known == name) {
                continue;
            }
            let plugin = registry.get(Kind::Proxy, name)?;
            let none = Map::new();
            let section = plugin.section_with(set.get(name.as_str()).unwrap_or(&none))?;
            proxies.push((name.clone(), plugin.proxy(&section)?));
        }
        if proxies.is_empty() {
            return Err(Error::Config(Box::new(
                ConfigError::one("", "no proxy is named", None)
                    .with_help("`--proxy NAME`; `nasfw list proxies` shows all"),
            )));
        }
        Ok(proxies)
    }

    /// Proxies and batches, ready to score. Start i has seed `seed + i`.
    pub fn ready(&self, registry: &Registry, config: &RunConfig, seed: u64) -> Result<Scorer> {
        let proxies = self.proxies(registry)?;
        let common = &config.common;
        let device = device::choose(&common.device)?;
        if common.threads > 0 {
            tch::set_num_threads(i32::try_from(common.threads).unwrap_or(i32::MAX));
        }
        let data = config.dataset.load(&common.source())?;
        let images = usize::try_from(self.batch).unwrap_or(usize::MAX);
        let start = |i: u64| {
            let streams = Streams::new(seed.wrapping_add(i));
            Ok((
                batch(&data, images, streams, (common.kind(), device))?,
                streams,
            ))
        };
        Ok(Scorer {
            proxies,
            starts: (0..self.starts).map(start).collect::<Result<_>>()?,
            task: data.task,
            options: NetworkOptions {
                channels: self.channels,
                cells: self.cells.and_then(|n| usize::try_from(n).ok()),
                auxiliary: false,
            },
        })
    }
}

/// A proxy by its name.
type Named = (String, Box<dyn Proxy>);

/// Key and value of a setting as it is typed.
fn parts(typed: &str) -> Result<(&str, &str)> {
    let (key, value) = typed.split_once('=').ok_or_else(|| Error::Incompatible {
        what: format!("--set {typed}"),
        why: "this is not of the form KEY=VALUE".into(),
        help: "for example `--set zen.repeats=32`".into(),
    })?;
    Ok((key.trim(), value.trim()))
}

/// Proxies and batches.
pub struct Scorer {
    proxies: Vec<Named>,
    starts: Vec<(Batch, Streams)>,
    /// What networks are built for.
    pub task: Task,
    /// Their size.
    pub options: NetworkOptions,
}

impl Scorer {
    /// Names of the proxies, in the order of scores.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.proxies.iter().map(|(name, _)| name.as_str())
    }

    /// A network's scores, each a mean over all starts.
    pub fn scores(&self, network: &Network) -> Result<Vec<f64>> {
        let mean = |(name, proxy): &Named| {
            let mut sum = 0.0;
            for (batch, streams) in &self.starts {
                let score = proxy.score(&Start::new(network, batch, *streams)?);
                sum += score.map_err(|e| match e {
                    Error::HasNone { who, what } => Error::Incompatible {
                        what: format!("a score by `{name}`"),
                        why: format!("{who} has no {what}"),
                        help: "`nasfw list proxies` shows the others".into(),
                    },
                    other => other,
                })?;
            }
            Ok(sum / self.starts.len() as f64)
        };
        self.proxies.iter().map(mean).collect()
    }
}
