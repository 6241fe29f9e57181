//! `nasfw export`.

use std::path::PathBuf;

use clap::Args;
use nasfw_framework::Result;
use nasfw_framework::device::load_cuda;
use nasfw_framework::network::ONNX_OPSET;
use nasfw_framework::registry::Registry;
use nasfw_framework::run::write_whole;
use serde_json::json;

use super::eval::Changes;
use super::output::{format_of, say};
use super::{eval, logging};

/// Options of `export`.
#[derive(Debug, Args)]
pub struct Export {
    /// A run folder that `nasfw retrain` made, or one of its checkpoints
    what: PathBuf,
    /// Write an ONNX model here
    #[arg(long, value_name = "FILE", required_unless_present = "safetensors")]
    onnx: Option<PathBuf>,
    /// Write the weights by name here
    #[arg(long, value_name = "FILE")]
    safetensors: Option<PathBuf>,
    /// Operator set of the ONNX model
    #[arg(long, default_value_t = ONNX_OPSET, value_name = "N")]
    opset: i64,
    /// Where the dataset's files are now, if they have moved
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Export {
    /// Writes the files.
    pub fn carry_out(self) -> Result<()> {
        for (option, file, ending) in [
            ("--onnx", &self.onnx, "onnx"),
            ("--safetensors", &self.safetensors, "safetensors"),
        ] {
            if let Some(file) = file {
                format_of(option, file, &[(ending, ())])?;
            }
        }
        load_cuda();
        logging::to_terminal();
        Registry::load()?;
        let changes = Changes {
            data_dir: self.data_dir,
            // Weights are copied as they are, wherever that is done.
            device: Some("cpu".into()),
            ..Changes::default()
        };
        let run = eval::open(&self.what, changes)?;
        let network = run.network()?;
        let metadata = json!({
            "nasfw": env!("CARGO_PKG_VERSION"),
            "genotype": run.genotype(),
            "epoch": run.epoch(),
            "normalisation": run.inputs().normalisation,
            "crop": run.inputs().crop,
        })
        .to_string();
        if let Some(path) = &self.onnx {
            let bytes = network.onnx(run.weights(), self.opset, &metadata)?;
            write_whole(path, &bytes)?;
            say(format!(
                "{}: ONNX, operator set {}, {} bytes",
                path.display(),
                self.opset,
                bytes.len()
            ));
        }
        if let Some(path) = &self.safetensors {
            let bytes = network.safetensors(run.weights(), &metadata)?;
            write_whole(path, &bytes)?;
            say(format!(
                "{}: safetensors, {} bytes",
                path.display(),
                bytes.len()
            ));
        }
        Ok(())
    }
}
