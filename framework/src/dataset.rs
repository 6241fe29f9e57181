//! Datasets: standard files on disk in, bytes of images and labels out.

use std::path::PathBuf;

use tch::{Device, Kind, Tensor};

use crate::config::Validator;
use crate::error::{Error, Result};
use crate::space::Task;

/// Where a dataset may look and what it may do.
#[derive(Debug, Clone, Default)]
pub struct DataSource {
    /// `--data-dir`.
    pub dir: Option<PathBuf>,
    /// Whether missing files may be fetched.
    pub download: bool,
    /// Seed for datasets that are made up.
    pub seed: u64,
}

/// nasfw's own folder for files that outlive a run: `$XDG_CACHE_HOME/nasfw`, by default `~/.cache/nasfw`. Downloaded
/// datasets and imported tables lie below it. None where neither variable is set.
#[must_use]
pub fn cache_folder() -> Option<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("nasfw"))
}

/// Images and labels of one part of a dataset.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Part {
    /// Bytes, image after image, each channel × height × width.
    pub images: Vec<u8>,
    /// One class a image.
    pub labels: Vec<u8>,
}

/// A dataset in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageData {
    /// Shape of an image and number of classes.
    pub task: Task,
    /// Training images, in file order.
    pub train: Part,
    /// Test images.
    pub test: Part,
    /// Mean of every channel, in units of [0, 1].
    pub mean: Vec<f64>,
    /// Standard deviation of every channel, in units of [0, 1].
    pub std: Vec<f64>,
    /// Names of the classes.
    pub classes: Vec<String>,
}

impl ImageData {
    /// Checks that sizes agree and labels are classes; `path` is named in the error.
    pub fn check(self, path: impl Into<PathBuf>) -> Result<Self> {
        let t = self.task;
        let bytes = (t.channels * t.height * t.width) as usize;
        let problem = [("training", &self.train), ("test", &self.test)]
            .into_iter()
            .find_map(|(name, p)| {
                if p.images.len() != p.labels.len() * bytes {
                    return Some(format!(
                        "{} {name} labels but {} bytes of images of {bytes} bytes each",
                        p.labels.len(),
                        p.images.len()
                    ));
                }
                let at = p.labels.iter().position(|&l| i64::from(l) >= t.classes)?;
                Some(format!(
                    "{name} image {at} has label {}, but there are {} classes",
                    p.labels[at], t.classes
                ))
            });
        let channels = t.channels as usize;
        let problem = problem.or_else(|| {
            (self.mean.len() != channels || self.std.len() != channels).then(|| {
                format!(
                    "{} means and {} deviations for {channels} channels",
                    self.mean.len(),
                    self.std.len()
                )
            })
        });
        match problem {
            None => Ok(self),
            Some(problem) => Err(Error::Data {
                path: path.into(),
                problem,
                help: "get the files again, or point `--data-dir` to a good copy".into(),
            }),
        }
    }

    /// BLAKE3 of all bytes, for the manifest.
    pub fn checksum(&self) -> String {
        let mut h = blake3::Hasher::new();
        for part in [&self.train, &self.test] {
            h.update(&part.images).update(&part.labels);
        }
        h.finalize().to_hex().to_string()
    }
}

impl Part {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Bytes `[n, channels, height, width]` and labels `[n]` (int64) on a device.
    pub(crate) fn tensors(&self, task: Task, device: Device) -> (Tensor, Tensor) {
        let shape = [self.len() as i64, task.channels, task.height, task.width];
        let images = Tensor::from_slice(&self.images)
            .view(shape)
            .to_device(device);
        let labels = Tensor::from_slice(&self.labels)
            .to_kind(Kind::Int64)
            .to_device(device);
        (images, labels)
    }
}

/// A dataset: its settings are its own fields, kept with a run.
#[typetag::serde(tag = "name")]
pub trait Dataset: Send + Sync + std::fmt::Debug {
    /// Reads everything into memory.
    ///
    /// # Errors
    /// [`Error::Data`] for files that are missing, truncated or corrupt, with what to type.
    fn load(&self, source: &DataSource) -> Result<ImageData>;

    /// Checks ranges before anything is read.
    fn validate(&self, _v: &mut Validator) {}
}
