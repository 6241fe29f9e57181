//! `nasfw eval`.

use std::path::{Path, PathBuf};

use clap::Args;
use nasfw_framework::Result;
use nasfw_framework::config::RunConfig;
use nasfw_framework::device::load_cuda;
use nasfw_framework::registry::{Kind, Parse, Registry};
use nasfw_framework::trainer::{Reopen, Reopened};

use super::logging;
use super::output::{say, say_json};

/// Opens a run, or one of its checkpoints, after `change` of what does not decide what it is.
pub fn open(what: &Path, change: impl FnOnce(&mut RunConfig) -> Result<()>) -> Result<Reopened> {
    let checkpoint = what.is_file().then_some(what);
    // RUN/checkpoints/NUMBER.safetensors
    let folder = checkpoint.map_or(Some(what), |file| file.parent().and_then(Path::parent));
    let run = match folder {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut config = RunConfig::of_run(run)?;
    let fingerprint = config.fingerprint()?;
    change(&mut config)?;
    config.trainer.reopen(Reopen {
        config: &config,
        fingerprint: &fingerprint,
        run,
        checkpoint,
    })
}

/// Options of `eval`.
#[derive(Debug, Args)]
pub struct Eval {
    /// A run folder, or one of its checkpoints
    what: PathBuf,
    /// Other test images than the run's, of the same shape
    #[arg(long, short = 'd', value_name = "NAME")]
    dataset: Option<String>,
    /// Where the dataset's files are now, if they have moved
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
        let registry = Registry::load()?;
        let opened = open(&self.what, |config| {
            if let Some(name) = &self.dataset {
                let plugin = registry.get(Kind::Dataset, name)?;
                if let Parse::Dataset(parse) = plugin.parse {
                    config.dataset = parse(&plugin.default_section()?).map_err(Box::new)?;
                    config.common.data_dir = PathBuf::new();
                }
            }
            if let Some(dir) = &self.data_dir {
                config.common.data_dir.clone_from(dir);
            }
            if let Some(device) = &self.device {
                config.common.device.clone_from(device);
            }
            Ok(())
        })?;
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
            None => say(
                "the weights are those of a supernet; `nasfw retrain` trains the architecture alone",
            ),
        }
        Ok(())
    }
}
