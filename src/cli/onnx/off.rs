//! Networks of ONNX files, in a program that can't run them.

use std::path::{Path, PathBuf};

use nasfw_framework::command::{command, quoted};
use nasfw_framework::{Error, Result};

/// A network of an ONNX file, of which there is none.
pub enum Exported {}

impl Exported {
    /// Refuses the file.
    pub fn open(path: &Path) -> Result<Self> {
        Err(Error::Incompatible {
            what: format!("predictions of {}", quoted(path)),
            why: "this program was built without the feature `onnx`".into(),
            help: format!(
                "name the run folder whose network it is: `{}`",
                command(["predict", "runs/NAME", "IMAGE"])
            ),
        })
    }

    /// Epochs that it was trained for.
    pub fn epoch(&self) -> u64 {
        match *self {}
    }

    /// The name of an output.
    pub fn class(&self, _number: usize) -> String {
        match *self {}
    }

    /// Probabilities of the classes.
    pub fn probabilities(&self, _files: &[PathBuf]) -> Result<Vec<Vec<f64>>> {
        match *self {}
    }
}
