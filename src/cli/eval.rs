//! `nasfw eval`.

use std::path::{Path, PathBuf};

use clap::Args;
use nasfw_framework::config::RunConfig;
use nasfw_framework::device::load_cuda;
use nasfw_framework::registry::{Kind, Parse, Registry};
use nasfw_framework::run::{RUN, RunFolder};
use nasfw_framework::trainer::Evaluate;
use nasfw_framework::{Error, Result};

use super::logging;
use super::output::say;

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
        let checkpoint = self.what.is_file().then_some(self.what.as_path());
        let folder = match checkpoint {
            // RUN/checkpoints/NUMBER.safetensors
            Some(file) => file
                .parent()
                .and_then(Path::parent)
                .unwrap_or(Path::new("")),
            None => &self.what,
        };
        let run = RunFolder::open(if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        })?;
        let mut config: RunConfig = run.read_json(RUN)?;
        let fingerprint = config.fingerprint()?;
        if let Some(name) = &self.dataset {
            let plugin = registry.get(Kind::Dataset, name)?;
            if let Parse::Dataset(parse) = plugin.parse {
                config.dataset = parse(&plugin.default_section()?).map_err(Box::new)?;
                config.common.data_dir = PathBuf::new();
            }
        }
        if let Some(dir) = self.data_dir {
            config.common.data_dir = dir;
        }
        if let Some(device) = self.device {
            config.common.device = device;
        }
        let found = config.trainer.evaluate(Evaluate {
            config: &config,
            fingerprint: &fingerprint,
            run: &run,
            checkpoint,
        })?;
        if self.json {
            let json = serde_json::to_string_pretty(&found).map_err(|e| Error::Invalid {
                what: "evaluation".into(),
                why: e.to_string(),
            })?;
            say(json);
            return Ok(());
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
