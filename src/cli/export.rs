//! `nasfw export`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use nasfw_framework::Result;
use nasfw_framework::network::{ONNX_OPSET, OnnxOptions};
use nasfw_framework::run::write_whole;
use serde_json::json;

use super::eval;
use super::eval::Changes;
use super::network::{NetworkSize, check_size, described, need_weights};
use super::output::{format_of, say};
use super::ready::ready;

/// Options of `export`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("file").args(["onnx", "safetensors", "pytorch"]).required(true).multiple(true))]
pub struct Export {
    /// A run folder that `nasfw retrain` made, or one of its checkpoints; for `--pytorch` alone also an architecture: a run
    /// folder, a file, FILE:NAME where a file has several, a published cell's name, or a genotype as text
    what: OsString,
    /// Write an ONNX model here
    #[arg(long, value_name = "FILE")]
    onnx: Option<PathBuf>,
    /// Write the weights by name here
    #[arg(long, value_name = "FILE")]
    safetensors: Option<PathBuf>,
    /// Write the network here, without weights, as a Python file that needs torch alone
    #[arg(long, value_name = "FILE.py")]
    pytorch: Option<PathBuf>,
    /// Operator set of the ONNX model
    #[arg(long, default_value_t = ONNX_OPSET, value_name = "N")]
    opset: i64,
    /// The ONNX model takes raw pixels, 0 to 255: scaling, mean and deviation are in it
    #[arg(long, requires = "onnx")]
    raw_pixels: bool,
    /// Where the dataset's files are now, if they have moved: only a run of an earlier version needs them
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    size: Size,
}

/// How large the network of an architecture that is not trained is to be
#[derive(Debug, Args)]
#[command(next_help_heading = "For an architecture that is not trained")]
struct Size {
    /// The space whose network is built, by name or TOML file [default: the architecture's own; `darts-imagenet` for the
    /// large network of a DARTS cell]
    #[arg(long, short = 'S', value_name = "NAME|FILE.toml")]
    space: Option<String>,
    /// Initial channels [default: those of the space's paper]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..=4096))]
    channels: Option<i64>,
    /// Number of cells [default: that of the space's paper]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=999))]
    cells: Option<u64>,
    /// With a second classifier in the middle, for training
    #[arg(long)]
    auxiliary: bool,
    /// Number of classes [default: those of the search, or 10]
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    classes: Option<i64>,
    /// Channels, rows and columns of an image [default: those of the search, or 3x32x32]
    #[arg(long, value_name = "CxHxW", value_parser = image)]
    image: Option<[i64; 3]>,
}

/// Channels, rows and columns of an image, as they are typed.
///
/// # Errors
/// Other text than three numbers.
pub fn image(text: &str) -> std::result::Result<[i64; 3], String> {
    let parts = text.split(['x', 'X', '×', ',']);
    let numbers: Option<Vec<i64>> = parts
        .map(|part| {
            part.trim()
                .parse()
                .ok()
                .filter(|n| (1..=100_000).contains(n))
        })
        .collect();
    numbers
        .and_then(|numbers| numbers.try_into().ok())
        .ok_or_else(|| "three numbers from 1 on are needed, for example 3x32x32".into())
}

impl Export {
    /// Writes the files.
    pub fn carry_out(self) -> Result<()> {
        for (option, file, ending) in [
            ("--onnx", &self.onnx, "onnx"),
            ("--safetensors", &self.safetensors, "safetensors"),
            ("--pytorch", &self.pytorch, "py"),
        ] {
            if let Some(file) = file {
                format_of(option, file, &[(ending, ())])?;
            }
        }
        ready()?;
        let size = NetworkSize {
            space: self.size.space.clone(),
            channels: self.size.channels,
            cells: self.size.cells.and_then(|n| usize::try_from(n).ok()),
            auxiliary: self.size.auxiliary,
            classes: self.size.classes,
            image: self.size.image,
        };
        let asked = [
            ("--onnx", self.onnx.is_some()),
            ("--safetensors", self.safetensors.is_some()),
        ];
        let asked = asked.iter().find(|(_, asked)| *asked);
        if let Some((option, _)) = asked {
            need_weights(&self.what, option)?;
            check_size(&self.what, &size)?;
        }
        // What can't be built is said before anything is written.
        let file = match &self.pytorch {
            Some(path) => Some((path, described(&self.what, &size, self.data_dir.clone())?)),
            None => None,
        };
        if asked.is_some() {
            self.weights()?;
        }
        if let Some((path, (network, text))) = file {
            write_whole(path, text.as_bytes())?;
            let cost = network.size();
            say(format!(
                "{}: PyTorch, {} parameters, {} bytes",
                path.display(),
                cost.params + cost.auxiliary_params,
                text.len()
            ));
        }
        Ok(())
    }

    /// Writes what holds weights.
    fn weights(&self) -> Result<()> {
        let changes = Changes {
            data_dir: self.data_dir.clone(),
            // Weights are copied as they are, wherever that is done.
            device: Some("cpu".into()),
            without_images: true,
            ..Changes::default()
        };
        let run = eval::open(Path::new(&self.what), changes)?;
        let inputs = run.inputs();
        let metadata = |raw_pixels: bool| {
            json!({
                "nasfw": env!("CARGO_PKG_VERSION"),
                "genotype": run.genotype(),
                "epoch": run.epoch(),
                "normalisation": inputs.normalisation,
                "crop": inputs.crop,
                "preprocessing": inputs.preprocessing(),
                "raw_pixels": raw_pixels,
            })
            .to_string()
        };
        if let Some(path) = &self.onnx {
            let network = run.network()?;
            let options = OnnxOptions {
                opset: self.opset,
                metadata: &metadata(self.raw_pixels),
                raw: self.raw_pixels.then_some(&inputs.normalisation),
            };
            let bytes = network.onnx(run.weights(), options)?;
            write_whole(path, &bytes)?;
            say(format!(
                "{}: ONNX, operator set {}{}, {} bytes",
                path.display(),
                self.opset,
                if self.raw_pixels { ", raw pixels" } else { "" },
                bytes.len()
            ));
        }
        if let Some(path) = &self.safetensors {
            let bytes = run.safetensors(&metadata(false))?;
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
