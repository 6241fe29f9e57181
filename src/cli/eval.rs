//! `nasfw eval`.

use std::path::{Path, PathBuf};

use clap::Args;
use nasfw_framework::config::RunConfig;
use nasfw_framework::dataset::{DataSource, Dataset};
use nasfw_framework::device::load_cuda;
use nasfw_framework::registry::{Kind, Parse, Registry};
use nasfw_framework::trainer::{Reopen, Reopened};
use nasfw_framework::{Error, Result};

use super::logging;
use super::output::{say, say_json};

/// What may be other than when a run was made: nothing that decides what it is.
#[derive(Debug, Default)]
pub struct Changes {
    /// The dataset that is measured on, by name. The run's own keeps the run's settings.
    pub dataset: Option<String>,
    /// Where that dataset's files are.
    pub data_dir: Option<PathBuf>,
    /// The device.
    pub device: Option<String>,
}

/// The run that a folder, or a checkpoint in one, is of.
pub fn run_of(what: &Path) -> &Path {
    if !what.is_file() {
        return what;
    }
    // RUN/checkpoints/NUMBER.safetensors
    match what.parent().and_then(Path::parent) {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Opens a run, or one of its checkpoints.
pub fn open(what: &Path, mut changes: Changes) -> Result<Reopened> {
    let checkpoint = what.is_file().then_some(what);
    let run = run_of(what);
    let mut config = RunConfig::of_run(run)?;
    let fingerprint = config.fingerprint()?;
    config.common.device = changes.device.unwrap_or(config.common.device);
    let own = config.dataset.typetag_name();
    let other = changes.dataset.filter(|name| name != own);
    let other = other.map(|name| default_dataset(&name)).transpose()?;
    let other = other.map(|dataset| {
        let dir = changes.data_dir.take();
        (
            dataset,
            DataSource {
                dir,
                ..config.common.source()
            },
        )
    });
    config.common.data_dir = changes.data_dir.unwrap_or(config.common.data_dir);
    config.trainer.reopen(Reopen {
        config: &config,
        fingerprint: &fingerprint,
        run,
        checkpoint,
        other: other
            .as_ref()
            .map(|(dataset, source)| (dataset.as_ref(), source)),
    })
}

/// A dataset with its default settings.
fn default_dataset(name: &str) -> Result<Box<dyn Dataset>> {
    let registry = Registry::load()?;
    let plugin = registry.get(Kind::Dataset, name)?;
    match plugin.parse {
        Parse::Dataset(parse) => Ok(parse(&plugin.default_section()?).map_err(Box::new)?),
        _ => Err(Error::Registry(format!("`{name}` is no dataset"))),
    }
}

/// Options of `eval`.
#[derive(Debug, Args)]
pub struct Eval {
    /// A run folder, or one of its checkpoints
    what: PathBuf,
    /// Another dataset to measure on: its images are shown as the run's are, its classes go by their names [default: the
    /// run's]
    #[arg(long, short = 'd', value_name = "NAME")]
    dataset: Option<String>,
    /// Where the dataset's files are, if they have moved or `--dataset` names another one
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// `auto`, `cpu` or `cuda:N` instead of the run's
    #[arg(long)]
    device: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Eval {
    /// Measures.
    pub fn carry_out(self) -> Result<()> {
        load_cuda();
        logging::to_terminal();
        Registry::load()?;
        let changes = Changes {
            dataset: self.dataset,
            data_dir: self.data_dir,
            device: self.device,
        };
        let opened = open(&self.what, changes)?;
        let found = opened.evaluate()?;
        if self.json {
            return say_json("evaluation", &found);
        }
        let test = found.test;
        say(format!("after epoch    {}", found.epoch));
        say(format!("test images    {}", test.images));
        say(format!("loss           {:.4}", test.loss));
        say(format!("top-1          {:.2}%", test.accuracy * 100.0));
        if let Some(top5) = test.top5 {
            say(format!("top-5          {:.2}%", top5 * 100.0));
        }
        match found.cost {
            Some(cost) => {
                say(format!("parameters     {}", cost.params));
                say(format!("multiply-adds  {}", cost.macs));
            }
            None if opened.is_alone() => {
                let params = opened.weights().params.numel();
                say(format!("parameters     {params}"));
            }
            None => say(
                "the weights are those of a supernet; `nasfw retrain` trains the architecture alone",
            ),
        }
        Ok(())
    }
}
