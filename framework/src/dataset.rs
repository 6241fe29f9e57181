//! Datasets: standard files on disk in, bytes of images and labels out.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::rng::Rng;
use crate::settings::Validator;

/// What the network is for: the shape of an image and the number of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Colour channels.
    pub channels: i64,
    /// Rows of pixels.
    pub height: i64,
    /// Columns of pixels.
    pub width: i64,
    /// Number of classes.
    pub classes: i64,
}

/// Where a dataset may look and what it may do.
#[derive(Debug, Clone, Default)]
pub struct DataSource {
    /// `--data-dir`.
    pub dir: Option<PathBuf>,
    /// Whether missing files may be fetched.
    pub download: bool,
    /// Seed for datasets that are made up.
    pub seed: u64,
    /// What loading has to say that belongs to the results.
    pub notes: Notes,
}

/// What whoever reads a result should know of its data, for example that the files are not the published ones: logged
/// as a warning, and kept in the run's manifest.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    /// Adds one.
    pub fn warn(&self, note: impl Into<String>) {
        let note = note.into();
        tracing::warn!("{note}");
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(note);
    }

    /// All so far.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
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

/// Images that do not fit in memory: they are decoded when a batch needs them, on several threads at once.
pub trait ImageSource: Send + Sync + Debug {
    /// Writes the bytes of image number `index`, channel × height × width of the task, to `image`. For training,
    /// `random` decides the random crop of this view, and nothing else does; without it the image is cropped as for
    /// testing.
    ///
    /// # Errors
    /// [`Error::Data`] that names the file, where it is missing, truncated or no image.
    fn decode(&self, index: usize, random: Option<&mut Rng>, image: &mut [u8]) -> Result<()>;

    /// What stands for the content in the manifest: a hash of whatever can be known without decoding everything.
    fn checksum(&self) -> String;
}

/// The images of a part.
#[derive(Debug, Clone)]
pub enum Images {
    /// Bytes in memory, image after image, each channel × height × width.
    Bytes(Vec<u8>),
    /// One image a label, decoded when it is needed.
    Source(Arc<dyn ImageSource>),
}

impl Images {
    /// The bytes of images in memory; none of a source.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Source(_) => &[],
        }
    }
}

impl Default for Images {
    fn default() -> Self {
        Self::Bytes(vec![])
    }
}

impl From<Vec<u8>> for Images {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

/// Images and labels of one part of a dataset.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// The images.
    pub images: Images,
    /// One class an image.
    pub labels: Vec<u16>,
}

/// A dataset as a search uses it.
#[derive(Debug, Clone)]
pub struct ImageData {
    /// Shape of an image and number of classes.
    pub task: Task,
    /// Training images, in file order.
    pub train: Part,
    /// Test images.
    pub test: Part,
    /// How many training images, the first ones, belong to the weights where a strategy splits them; the others are
    /// the architecture's. None is half of them, drawn class by class where the images are in the order of their classes.
    pub split: Option<usize>,
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
                if let Images::Bytes(images) = &p.images
                    && images.len() != p.labels.len() * bytes
                {
                    return Some(format!(
                        "{} {name} labels but {} bytes of images of {bytes} bytes each",
                        p.labels.len(),
                        images.len()
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
        let images = self.train.len();
        let problem = problem.or_else(|| {
            let split = self.split.filter(|&s| s > images)?;
            Some(format!(
                "the weights get {split} of {images} training images"
            ))
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

    /// BLAKE3 of all labels and bytes, or of a source's own checksum in their place, for the manifest.
    pub fn checksum(&self) -> String {
        let mut h = blake3::Hasher::new();
        for part in [&self.train, &self.test] {
            match &part.images {
                Images::Bytes(bytes) => h.update(bytes),
                Images::Source(source) => h.update(source.checksum().as_bytes()),
            };
            for label in &part.labels {
                h.update(&label.to_le_bytes());
            }
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
}

/// A dataset: its settings are its own fields, kept with a run.
#[typetag::serde(tag = "name")]
pub trait Dataset: Send + Sync + std::fmt::Debug {
    /// Reads everything into memory, or finds the files of an [`ImageSource`].
    ///
    /// # Errors
    /// [`Error::Data`] for files that are missing, truncated or corrupt, with what to type.
    fn load(&self, source: &DataSource) -> Result<ImageData>;

    /// Where all of its files are, as far as their names tell: nothing in them is read. None where some are missing, and of a
    /// dataset that needs none.
    fn place(&self, _source: &DataSource) -> Option<PathBuf> {
        None
    }

    /// How its test images are cut out of pictures; none where images are used as they are.
    fn crop(&self) -> Option<CenterCrop> {
        None
    }

    /// As [`Dataset::load`], for a network that was trained on other images: of `channels` channels, test images cut out
    /// in this way. Mean and deviation are those of the network's own images, whatever is given here. A dataset that
    /// can't choose gives what it has, and is refused where that does not fit.
    ///
    /// # Errors
    /// As of [`Dataset::load`], and shapes that its images can't be brought to.
    fn load_as(&self, source: &DataSource, _channels: i64, _crop: CenterCrop) -> Result<ImageData> {
        self.load(source)
    }

    /// Checks ranges before anything is read.
    fn validate(&self, _v: &mut Validator) {}
}

/// How a test image is cut out of a picture: the picture is scaled until its shorter side has `resize` pixels, and the
/// middle of it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CenterCrop {
    /// Rows and columns of the middle.
    pub size: [i64; 2],
    /// Pixels of the picture's shorter side.
    pub resize: i64,
}
