//! Networks that `nasfw export --onnx` wrote, at work: all that is known of them stands in the file.

use std::fs;
use std::path::{Path, PathBuf};

use nasfw_datasets::folder::pictures;
use nasfw_framework::command::{command, quoted};
use nasfw_framework::dataset::CenterCrop;
use nasfw_framework::{Error, Result};
use rten::{Model, Value};
use serde::Deserialize;

/// The property that says what a file of ours is.
const PROPERTY: &str = "nasfw";

/// A network of an ONNX file.
pub struct Exported {
    path: PathBuf,
    model: Model,
    says: Says,
}

/// What the file says of itself, as far as predictions need it.
#[derive(Debug, Deserialize)]
struct Says {
    epoch: u64,
    normalisation: Classes,
    preprocessing: Preprocessing,
    raw_pixels: bool,
}

#[derive(Debug, Deserialize)]
struct Classes {
    classes: Vec<String>,
}

/// As [`nasfw_framework::inputs::Preprocessing`], read.
#[derive(Debug, Deserialize)]
struct Preprocessing {
    size: [i64; 2],
    resize: i64,
    interpolation: String,
    antialias: bool,
    colours: Option<String>,
    divide_by: f64,
    mean: Vec<f64>,
    std: Vec<f64>,
}

impl Exported {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that can't be read, is no ONNX model, was not written by nasfw, or says what this program can't do.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        let wrong = |problem: String, help: String| Error::Data {
            path: path.to_owned(),
            problem,
            help,
        };
        let again = || {
            format!(
                "write it again: `{}`",
                command(["export", "runs/NAME", "--onnx", "FILE.onnx"])
            )
        };
        let model = Model::load(bytes)
            .map_err(|e| wrong(format!("it is no ONNX model that can be run: {e}"), again()))?;
        let Some(text) = model.metadata().get(PROPERTY) else {
            let problem = format!(
                "nothing in it says how pictures are shown to it: it has no property `{PROPERTY}`"
            );
            let help = "only models that `nasfw export --onnx` wrote are run; others need a program that knows them";
            return Err(wrong(problem, help.into()));
        };
        let says: Says = serde_json::from_str(text).map_err(|e| {
            wrong(
                format!("its property `{PROPERTY}` can't be understood: {e}"),
                again(),
            )
        })?;
        match says.preprocessing.problem() {
            None => Ok(Self {
                path: path.to_owned(),
                model,
                says,
            }),
            Some(problem) => Err(wrong(problem, again())),
        }
    }

    /// Epochs that it was trained for.
    pub fn epoch(&self) -> u64 {
        self.says.epoch
    }

    /// The name of an output, which is its number where it has no other.
    pub fn class(&self, number: usize) -> String {
        let name = self.says.normalisation.classes.get(number);
        name.map_or_else(|| number.to_string(), String::clone)
    }

    /// Probabilities of the classes for image files, a row a file.
    ///
    /// # Errors
    /// Files that are no images, and a model that can't compute, or gives no numbers.
    pub fn probabilities(&self, files: &[PathBuf]) -> Result<Vec<Vec<f64>>> {
        let how = &self.says.preprocessing;
        let [rows, columns] = how.size;
        let images = pictures(files, how.mean.len() as i64, how.cut())?;
        let pixels = (rows * columns) as usize;
        let numbers: Vec<f32> = match self.says.raw_pixels {
            true => images.iter().map(|byte| f32::from(*byte)).collect(),
            false => how.normalised(&images, pixels),
        };
        let failed = |why: String| Error::Incompatible {
            what: format!("predictions of {}", quoted(&self.path)),
            why,
            help: "predict by the run that it was exported from, or export it again".into(),
        };
        let shape = [files.len(), how.mean.len(), rows as usize, columns as usize];
        let input = Value::from_shape(&shape, numbers).map_err(|e| failed(e.to_string()))?;
        let output = self.model.run_one(input.into(), None);
        let output = output.map_err(|e| failed(e.to_string()))?;
        let (shape, logits) = output
            .into_shape_vec::<f32, 2>()
            .map_err(|e| failed(e.to_string()))?;
        if shape[0] != files.len() || logits.iter().any(|logit| !logit.is_finite()) {
            return Err(failed(
                "its outputs are no finite numbers of each image".into(),
            ));
        }
        Ok(logits.chunks(shape[1].max(1)).map(softmax).collect())
    }
}

impl Preprocessing {
    fn cut(&self) -> CenterCrop {
        CenterCrop {
            size: self.size,
            resize: self.resize,
        }
    }

    /// What this program can't do to a picture.
    fn problem(&self) -> Option<String> {
        let colours = match self.mean.len() {
            1 => Some("grey"),
            3 => Some("RGB"),
            _ => None,
        };
        let known =
            self.interpolation == "bilinear" && self.antialias && self.std.len() == self.mean.len();
        (!known
            || self.colours.as_deref() != colours
            || self.size.iter().chain([&self.resize]).any(|n| *n < 1))
        .then(|| "it wants pictures shown in a way that this version of nasfw does not know".into())
    }

    /// Bytes of images as numbers, channel by channel.
    fn normalised(&self, images: &[u8], pixels: usize) -> Vec<f32> {
        let channels = images.chunks(pixels).zip((0..self.mean.len()).cycle());
        let number = |(bytes, c): (&[u8], usize)| {
            let of = |byte: &u8| {
                ((f64::from(*byte) / self.divide_by - self.mean[c]) / self.std[c]) as f32
            };
            bytes.iter().map(of).collect::<Vec<_>>()
        };
        channels.flat_map(number).collect()
    }
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers = logits.iter().map(|l| f64::from(l - largest).exp());
    let sum: f64 = powers.clone().sum();
    powers.map(|p| p / sum).collect()
}
