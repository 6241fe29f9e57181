//! `nasfw bench latency`: a table of how long the pieces of a space's networks take on this machine.

mod fitted;
mod networks;
mod onnx;
mod torch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use nasfw_analysis::stats::quantile;
use nasfw_framework::command::quoted;
use nasfw_framework::config::RunConfig;
use nasfw_framework::cost::Unit;
use nasfw_framework::network::{Network, NetworkOptions};
use nasfw_framework::printable::counted;
use nasfw_framework::registry::{Kind, Registry};
use nasfw_framework::space::Task;
use nasfw_framework::{Error, Result};
use nasfw_plugins::costs::latency::{NETWORK, Row, Table};
use serde_json::{Value, json};
use tracing::info;

use self::fitted::{Check, Line};
use super::super::export::image;
use super::super::output::{hint, say, write_file};
use super::super::ready::ready;
use super::super::selection::{Pair, Settings, space_options};

/// Options of `bench latency`.
#[derive(Debug, Args)]
pub struct Latency {
    /// Whose networks: a name [see `nasfw list spaces`], or a TOML file that declares a space
    #[arg(long, short = 'S', value_name = "NAME|FILE.toml")]
    space: String,
    /// What runs them
    #[arg(long, value_enum, default_value_t = Runtime::Torch)]
    backend: Runtime,
    /// Write the table to this file
    #[arg(long, short = 'o', value_name = "FILE.csv")]
    output: PathBuf,
    /// `auto`, `cpu` or `cuda:N` [default: auto]
    #[arg(long)]
    device: Option<String>,
    /// CPU threads, 0 for one per core [default: 0]
    #[arg(long)]
    threads: Option<u64>,
    /// Images at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    batch: i64,
    /// Initial channels [default: those of the space's paper]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    channels: Option<i64>,
    /// Number of cells [default: that of the space's paper]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    cells: Option<u64>,
    /// Channels, rows and columns of an image, instead of the dataset's
    #[arg(long, value_name = "CxHxW", value_parser = image, requires = "classes")]
    image: Option<[i64; 3]>,
    /// Number of classes, instead of the dataset's
    #[arg(long, requires = "image", value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    classes: Option<i64>,
    /// What a search learns from [default: the space's, or else fashion-mnist-mini] [see `nasfw list datasets`]
    #[arg(long, short = 'd', value_name = "NAME", conflicts_with = "image")]
    dataset: Option<String>,
    /// Folder of the dataset's files
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Timed evaluations of each network
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u64).range(3..=100_000))]
    repeats: u64,
    /// Other random networks that are measured whole, to say what the table is worth
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(2..=10_000))]
    check: u64,
    /// Seed of the random architectures
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// For `--backend onnx`: a Python that has onnxruntime
    #[arg(long, value_name = "FILE", default_value = "python3")]
    python: PathBuf,
    /// What the table is worth as JSON
    #[arg(long)]
    json: bool,
    /// Any other setting, for example `--set space.preset=proxyless`
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// What runs networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Runtime {
    /// libtorch, as nasfw itself: each operation is timed in its place in whole networks
    Torch,
    /// ONNX Runtime, from a Python: each piece is timed as a model of its own
    Onnx,
}

/// What measures.
trait Measure {
    /// Seconds of the pieces of the first networks and of both kinds of networks as wholes: all in the same rounds, so that what
    /// else the machine does falls on all of them.
    fn measure(&mut self, covering: &[Network], others: &[Network]) -> Result<Measured>;

    /// Itself and the device in words.
    fn describe(&self) -> String;
}

/// Seconds, of each several times.
struct Measured {
    /// By their keys.
    pieces: BTreeMap<String, Vec<f64>>,
    /// Whole networks that the pieces are of.
    covering: Vec<Vec<f64>>,
    /// Other whole networks.
    others: Vec<Vec<f64>>,
}

impl Latency {
    /// Measures, writes, and says what the table is worth.
    pub fn carry_out(self) -> Result<()> {
        let registry = ready()?;
        let config = self.config(&registry)?;
        let space = config.space.build()?;
        let task = self.task(&config)?;
        let size = NetworkOptions {
            channels: self.channels,
            cells: self.cells.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
            auxiliary: false,
        };
        let networks = |which| networks::drawn(space.as_ref(), task, &size, self.seed, which);
        let covering = networks(networks::Which::Covering)?;
        let others = networks(networks::Which::Others(self.check))?;
        let mut measure = self.measure(&config)?;
        info!(
            "{} that have all pieces, {}, on {}",
            counted(covering.len() as u64, "network"),
            counted(others.len() as u64, "other network"),
            measure.describe()
        );
        let known: BTreeSet<String> = covering.iter().flat_map(keys).collect();
        let (others, lacking): (Vec<Network>, Vec<Network>) = others
            .into_iter()
            .partition(|n| keys(n).all(|key| known.contains(&key)));
        let seconds = measure.measure(&covering, &others)?;
        let raw = Table {
            about: vec![],
            rows: seconds
                .pieces
                .iter()
                .map(|(key, seconds)| row(key, seconds))
                .collect(),
        };
        let line = Line::through(&beside(&raw, &covering, &seconds.covering)?);
        let table = self.table(raw, line, &config, task, measure.describe());
        let check = Check::of(&beside(&table, &others, &seconds.others)?);
        let mut about = vec![];
        if !lacking.is_empty() {
            about.push(format!(
                "of {} more, pieces are not here",
                counted(lacking.len() as u64, "random network")
            ));
        }
        // Searches by this table repeat its last line.
        about.push(check.to_string());
        let table = Table {
            about: [table.about, about].concat(),
            ..table
        };
        write_file(&self.output, table.text()?.as_bytes())?;
        self.tell(&table, &check, &config);
        Ok(())
    }

    fn config(&self, registry: &Registry) -> Result<RunConfig> {
        let settings = Settings {
            dataset: self.dataset.clone(),
            data_dir: self.data_dir.clone(),
            device: self.device.clone(),
            threads: self.threads,
            set: self.set.clone(),
            ..Settings::default()
        };
        let weakest =
            |key: &str, value: &str| -> Pair { (key.into(), value.into(), "bench latency".into()) };
        let mut under = vec![weakest("benchmark.name", "'none'")];
        // No strategy has a say in it; one without needs.
        if registry.get(Kind::Strategy, "random").is_ok() {
            under.push(weakest("strategy.name", "'random'"));
        }
        let parts = space_options("space.name", "space", &self.space)?;
        RunConfig::new(registry, &settings.resolve(registry, under, parts)?)
    }

    fn task(&self, config: &RunConfig) -> Result<Task> {
        if let (Some([channels, height, width]), Some(classes)) = (self.image, self.classes) {
            return Ok(Task {
                channels,
                height,
                width,
                classes,
            });
        }
        Ok(config.dataset.load(&config.common.source())?.task)
    }

    fn measure(&self, config: &RunConfig) -> Result<Box<dyn Measure>> {
        let repeats = usize::try_from(self.repeats).unwrap_or(usize::MAX);
        let threads = config.common.threads;
        Ok(match self.backend {
            Runtime::Torch => Box::new(torch::Torch::new(
                &config.common.device,
                threads,
                self.batch,
                repeats,
            )?),
            Runtime::Onnx => Box::new(onnx::Onnx::new(
                &self.python,
                &config.common.device,
                threads,
                self.batch,
                repeats,
            )?),
        })
    }

    /// The rows with the line, and what they are of.
    fn table(&self, raw: Table, line: Line, config: &RunConfig, task: Task, on: String) -> Table {
        let scaled = raw.rows.into_iter().map(|row| Row {
            seconds: row.seconds * line.slope,
            low: row.low.map(|s| s * line.slope),
            high: row.high.map(|s| s * line.slope),
            ..row
        });
        let once = Row {
            piece: NETWORK.into(),
            seconds: line.once,
            low: None,
            high: None,
            measured: None,
        };
        let settings = self
            .set
            .iter()
            .filter(|pair| pair.trim_start().starts_with("space."));
        let settings: Vec<&str> = settings.map(String::as_str).collect();
        let of = match settings.is_empty() {
            true => String::new(),
            false => format!(" with {}", settings.join(", ")),
        };
        let or_paper = |n: Option<String>| n.unwrap_or_else(|| "the paper's".into());
        let from = match self.image {
            Some(_) => String::new(),
            None => format!(" ({})", config.dataset.typetag_name()),
        };
        Table {
            about: vec![
                format!("space {}{of}", self.space),
                format!(
                    "networks of {} channels and {} cells, images {}x{}x{}{from}, {} classes, batches of {}",
                    or_paper(self.channels.map(|n| n.to_string())),
                    or_paper(self.cells.map(|n| n.to_string())),
                    task.channels,
                    task.height,
                    task.width,
                    task.classes,
                    self.batch
                ),
                format!("{on}; {}", today()),
                format!(
                    "pieces are their measured median times {:.3}; `{NETWORK}` is there once",
                    line.slope
                ),
            ],
            rows: std::iter::once(once).chain(scaled).collect(),
        }
    }

    fn tell(&self, table: &Table, check: &Check, config: &RunConfig) {
        if self.json {
            say(format!("{:#}", self.json(table, check)));
            return;
        }
        for line in &table.about {
            say(line);
        }
        say(format!(
            "{}: {}",
            self.output.display(),
            counted(table.rows.len() as u64, "row")
        ));
        if check.networks == 0 {
            return;
        }
        let limit = Unit::Seconds.show(check.median());
        hint(format!(
            "\nnext:\n  nasfw run --space {} --limit latency={} --set limits.latency.table={}",
            quoted(config.space.name()),
            limit.replace(' ', ""),
            quoted(&self.output)
        ));
    }

    fn json(&self, table: &Table, check: &Check) -> Value {
        json!({
            "file": self.output, "about": table.about, "rows": table.rows.len(), "networks": check.networks,
            "kendall": check.tau, "mean_error": check.mean_error, "largest_error": check.largest_error,
            "measured": check.measured, "predicted": check.predicted,
        })
    }
}

/// The keys of a network's pieces.
fn keys(network: &Network) -> impl Iterator<Item = String> {
    network
        .pieces()
        .into_iter()
        .map(|piece| piece.key().to_owned())
}

/// What a table says of networks beside the median of what they took.
fn beside(table: &Table, networks: &[Network], took: &[Vec<f64>]) -> Result<Vec<(f64, f64)>> {
    let of = |(network, took): (&Network, &Vec<f64>)| {
        let says = table.seconds(network).map_err(|missing| Error::Invalid {
            what: "table of latencies".into(),
            why: format!("`{}` was not measured", missing.join("`, `")),
        })?;
        Ok((says, quantile(took, 0.5).unwrap_or(f64::NAN)))
    };
    networks.iter().zip(took).map(of).collect()
}

fn row(key: &str, seconds: &[f64]) -> Row {
    Row {
        piece: key.to_owned(),
        seconds: quantile(seconds, 0.5).unwrap_or_default(),
        low: quantile(seconds, 0.25),
        high: quantile(seconds, 0.75),
        measured: Some(seconds.len() as u64),
    }
}

/// The date, UTC.
fn today() -> String {
    Timestamp::now().strftime("%Y-%m-%d").to_string()
}
