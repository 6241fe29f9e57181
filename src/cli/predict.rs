//! `nasfw predict`.

use std::path::{Path, PathBuf};

use clap::Args;
use nasfw_datasets::folder::pictures;
use nasfw_framework::command::{command, quoted};
use nasfw_framework::run::RUN;
use nasfw_framework::{Error, Result};
use serde::Serialize;

use super::eval::{self, Changes};
use super::onnx::Exported;
use super::output::{say, say_json};
use super::ready::ready;

/// Images that are read and shown to the network at once.
const BATCH: usize = 64;

/// Probabilities of the classes, a row an image.
type Rows = Vec<Vec<f64>>;

/// Options of `predict`.
#[derive(Debug, Args)]
pub struct Predict {
    /// A run folder that `nasfw retrain` made, one of its checkpoints, or an ONNX model that `nasfw export` wrote
    what: PathBuf,
    /// Image files (JPEG, PNG, WebP, BMP, TIFF): scaled, cut out and normalised as the run's own test images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// How many classes are shown of an image, the most likely first
    #[arg(long, default_value_t = 5, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    /// Where the dataset's files are now, if they have moved: only a run of an earlier version needs them
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// `auto`, `cpu` or `cuda:N` instead of the run's
    #[arg(long)]
    device: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What a network says of images.
#[derive(Debug, Serialize)]
struct Predictions {
    /// Epochs done at the checkpoint.
    epoch: u64,
    images: Vec<Prediction>,
}

/// What it says of one.
#[derive(Debug, Serialize)]
struct Prediction {
    file: String,
    /// The most likely first.
    top: Vec<Likely>,
}

/// A class that an image may show.
#[derive(Debug, Serialize)]
struct Likely {
    class: String,
    /// Which of the network's outputs it is, from 0.
    number: usize,
    /// Softmax of the logits, from 0 to 1.
    probability: f64,
}

impl Predict {
    /// Says what images show.
    pub fn carry_out(self) -> Result<()> {
        let is_onnx = has_ending(&self.what, "onnx");
        if !is_onnx {
            refuse_exported(&self.what)?;
        }
        ready()?;
        if is_onnx {
            return self.of_exported();
        }
        let changes = Changes {
            data_dir: self.data_dir.clone(),
            device: self.device.clone(),
            without_images: true,
            ..Changes::default()
        };
        let run = eval::open(&self.what, changes)?;
        let inputs = run.inputs();
        let probabilities = |files: &[PathBuf], number: u64| {
            let images = pictures(files, inputs.task.channels, inputs.cut())?;
            let rows = run.probabilities(&images, number);
            rows.map_err(|error| error.of_run(eval::run_of(&self.what)))
        };
        self.tell(run.epoch(), &probabilities, &|number| {
            inputs.class(number).into_owned()
        })
    }

    /// Says what the network of an ONNX file sees.
    fn of_exported(&self) -> Result<()> {
        if self.device.is_some() || self.data_dir.is_some() {
            return Err(Error::Incompatible {
                what: "--device and --data-dir".into(),
                why: "an ONNX model is computed on the processor, and needs nothing but its file"
                    .into(),
                help: "leave them out".into(),
            });
        }
        let network = Exported::open(&self.what)?;
        let probabilities = |files: &[PathBuf], _| network.probabilities(files);
        self.tell(network.epoch(), &probabilities, &|number| {
            network.class(number)
        })
    }

    /// Says what images show: `probabilities` of files, which are a batch with a number, and the names of the classes.
    fn tell(
        &self,
        epoch: u64,
        probabilities: &dyn Fn(&[PathBuf], u64) -> Result<Rows>,
        class: &dyn Fn(usize) -> String,
    ) -> Result<()> {
        let top = usize::try_from(self.top).unwrap_or(usize::MAX);
        let mut images = vec![];
        for (number, files) in self.images.chunks(BATCH).enumerate() {
            let found = most_likely(files, probabilities(files, number as u64)?, top, class);
            match self.json {
                true => images.extend(found),
                false => found.iter().for_each(show),
            }
        }
        match self.json {
            true => say_json("predictions", &Predictions { epoch, images }),
            false => Ok(()),
        }
    }
}

/// The `top` most likely classes of files.
fn most_likely(
    files: &[PathBuf],
    rows: Rows,
    top: usize,
    class: &dyn Fn(usize) -> String,
) -> Vec<Prediction> {
    let of_one = |(file, row): (&PathBuf, Vec<f64>)| {
        let mut order: Vec<(usize, f64)> = row.into_iter().enumerate().collect();
        // Equal ones stay in the order of the classes.
        order.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let likely = order.into_iter().take(top);
        Prediction {
            file: file.display().to_string(),
            top: likely
                .map(|(number, probability)| Likely {
                    class: class(number),
                    number,
                    probability,
                })
                .collect(),
        }
    };
    files.iter().zip(rows).map(of_one).collect()
}

fn show(prediction: &Prediction) {
    say(&prediction.file);
    for likely in &prediction.top {
        say(format!(
            "  {:6.2}%  {}",
            likely.probability * 100.0,
            likely.class
        ));
    }
}

fn has_ending(what: &Path, ending: &str) -> bool {
    what.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case(ending))
}

/// Refuses other files than checkpoints.
fn refuse_exported(what: &Path) -> Result<()> {
    let why = if has_ending(what, "py") {
        "nasfw writes Python files and does not run them"
    } else if what.is_file() && !eval::run_of(what).join(RUN).is_file() {
        "it is no checkpoint in a run folder"
    } else {
        return Ok(());
    };
    Err(Error::Incompatible {
        what: format!("predictions of {}", quoted(what)),
        why: why.into(),
        help: format!(
            "name the run folder whose network it is: `{}`",
            command(["predict", "runs/NAME", "IMAGE"])
        ),
    })
}
