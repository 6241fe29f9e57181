//! What a trained network takes, and what its outputs mean: whatever images it is measured on are shown to it as those
//! were that it was trained on.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dataset::{CenterCrop, DataSource, Dataset, ImageData, Part, Task};
use crate::error::{Error, Result};

/// The most names that an error lists.
const LISTED: usize = 8;
/// Images of each part where there are none to be shown: a search can't be put together without any.
const BLANK: usize = 4;
/// The most bytes of an image, and the most classes: labels are numbers of 16 bits.
const LARGEST: i64 = 256 << 20;
const MOST_CLASSES: i64 = 1 << 16;
/// What a byte of a pixel is divided by.
pub(crate) const BYTE: f64 = 255.0;

/// How pixels become inputs, and what the outputs mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Normalisation {
    /// Subtracted from every channel, in units of [0, 1].
    #[serde(with = "crate::lossless")]
    pub mean: Vec<f64>,
    /// Then every channel is divided by this.
    #[serde(with = "crate::lossless")]
    pub std: Vec<f64>,
    /// Names of the classes.
    pub classes: Vec<String>,
}

/// Inputs and outputs of a network, as a run's manifest keeps them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    /// Shape of an image, and number of classes.
    pub task: Task,
    /// How test images are cut out of pictures; none where they are used as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<CenterCrop>,
    /// Mean and deviation of the channels, and names of the classes.
    #[serde(flatten)]
    pub normalisation: Normalisation,
}

/// All that is done to a picture before a network sees it, as exported files say it: its shorter side is scaled to
/// `resize` pixels, `size` is taken out of the middle, and pixels x become (x / `divide_by` − `mean`) / `std`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Preprocessing {
    /// Rows and columns that the network takes.
    pub size: [i64; 2],
    /// Pixels of the picture's shorter side. A picture that has the network's size stays as it is.
    pub resize: i64,
    /// `bilinear`.
    pub interpolation: &'static str,
    /// Whether the filter grows where a picture is scaled down, as Pillow's does.
    pub antialias: bool,
    /// Order of the channels: `RGB`, or `grey`, by Pillow's weights; none where they are no colours of a picture.
    pub colours: Option<&'static str>,
    /// What pixels are divided by: 255, the largest byte.
    pub divide_by: f64,
    /// Subtracted from every channel.
    #[serde(with = "crate::lossless")]
    pub mean: Vec<f64>,
    /// Then every channel is divided by this.
    #[serde(with = "crate::lossless")]
    pub std: Vec<f64>,
}

impl Inputs {
    /// How the network sees any picture: as its own test images are cut out, and the whole middle square where these are
    /// taken as they are.
    #[must_use]
    pub fn cut(&self) -> CenterCrop {
        let Task { height, width, .. } = self.task;
        self.crop.unwrap_or(CenterCrop {
            size: [height, width],
            resize: height.min(width),
        })
    }

    /// The same in full, for other programs.
    #[must_use]
    pub fn preprocessing(&self) -> Preprocessing {
        let CenterCrop { size, resize } = self.cut();
        Preprocessing {
            size,
            resize,
            interpolation: "bilinear",
            antialias: true,
            colours: match self.task.channels {
                1 => Some("grey"),
                3 => Some("RGB"),
                _ => None,
            },
            divide_by: BYTE,
            mean: self.normalisation.mean.clone(),
            std: self.normalisation.std.clone(),
        }
    }

    /// The name of a class, which is its number where it has no other.
    #[must_use]
    pub fn class(&self, number: usize) -> Cow<'_, str> {
        let name = self.normalisation.classes.get(number);
        name.map_or_else(|| number.to_string().into(), |name| name.into())
    }

    /// Black images in the place of those that the network was trained on, which need not be there.
    #[must_use]
    pub fn blank(&self) -> ImageData {
        let Task {
            channels,
            height,
            width,
            ..
        } = self.task;
        let part = Part {
            images: vec![0; BLANK * (channels * height * width) as usize].into(),
            labels: vec![0; BLANK],
        };
        ImageData {
            task: self.task,
            train: part.clone(),
            test: part,
            split: None,
            mean: self.normalisation.mean.clone(),
            std: self.normalisation.std.clone(),
            classes: self.normalisation.classes.clone(),
        }
    }

    /// Those of a network that is trained on these images.
    pub fn of(dataset: &dyn Dataset, data: &ImageData) -> Self {
        Self {
            task: data.task,
            crop: dataset.crop(),
            normalisation: Normalisation {
                mean: data.mean.clone(),
                std: data.std.clone(),
                classes: data.classes.clone(),
            },
        }
    }

    /// The images of a dataset as the network takes them: of its shape, cut out as its own are, with its mean and
    /// deviation, and with its numbers of classes, which are found by their names.
    ///
    /// # Errors
    /// Images of another shape, classes that the network does not know, and whatever the dataset has to say.
    pub fn load(&self, dataset: &dyn Dataset, source: &DataSource) -> Result<ImageData> {
        let (name, ours) = (dataset.typetag_name(), self.task);
        let data = dataset.load_as(source, ours.channels, self.cut())?;
        let mut data = data.check(name)?;
        let shape = |task: Task| format!("{}×{}×{}", task.channels, task.height, task.width);
        if shape(data.task) != shape(ours) {
            let why = format!(
                "its images are {}, the network takes {} (channels, rows, columns)",
                shape(data.task),
                shape(ours)
            );
            let help = "choose images of that shape; files of any size are brought to it by \
                        `--dataset image-folder --data-dir DIR`";
            return Err(refused(name, why, help));
        }
        let numbers = self.numbers(name, data.task, &data.classes, source)?;
        for part in [&mut data.train, &mut data.test] {
            for label in &mut part.labels {
                *label = numbers[usize::from(*label)];
            }
        }
        Ok(ImageData {
            task: ours,
            mean: self.normalisation.mean.clone(),
            std: self.normalisation.std.clone(),
            classes: self.normalisation.classes.clone(),
            ..data
        })
    }

    /// The network's number of each class of a dataset.
    fn numbers(
        &self,
        dataset: &str,
        task: Task,
        theirs: &[String],
        source: &DataSource,
    ) -> Result<Vec<u16>> {
        let ours = &self.normalisation.classes;
        let same: Vec<u16> = (0..=u16::MAX).take(task.classes as usize).collect();
        if ours == theirs && self.task.classes == task.classes {
            return Ok(same);
        }
        let (our_numbers, their_numbers) = (by_name(ours, self.task), by_name(theirs, task));
        let (Some(our_numbers), Some(_)) = (&our_numbers, &their_numbers) else {
            let whose = match our_numbers {
                None => "the run's dataset".to_owned(),
                Some(_) => format!("dataset `{dataset}`"),
            };
            if self.task.classes == task.classes {
                source.notes.warn(format!(
                    "{whose} has no name of its own for each class: the {} classes of both go by their numbers",
                    task.classes
                ));
                return Ok(same);
            }
            let why = format!(
                "it has {} classes and the network {}, and {whose} has no name of its own for each",
                task.classes, self.task.classes
            );
            return Err(refused(
                dataset,
                why,
                "choose a dataset with the same classes",
            ));
        };
        let unknown: Vec<&String> = theirs
            .iter()
            .filter(|name| !our_numbers.contains_key(name.as_str()))
            .collect();
        if unknown.is_empty() {
            let number = |name: &String| our_numbers.get(name.as_str()).copied();
            return Ok(theirs.iter().filter_map(number).collect());
        }
        let missing: Vec<&String> = ours.iter().filter(|name| !theirs.contains(name)).collect();
        let help = match missing.is_empty() {
            true => "leave them out; all classes of the network are there without them".to_owned(),
            false => format!(
                "name classes as the run does, whose others are {}",
                list(&missing)
            ),
        };
        let why = format!("the network does not know the classes {}", list(&unknown));
        Err(refused(dataset, why, help))
    }

    /// What can't be of any images.
    pub(crate) fn problem(&self) -> Option<String> {
        let Task {
            channels,
            height,
            width,
            classes,
        } = self.task;
        let Normalisation { mean, std, .. } = &self.normalisation;
        if [channels, height, width, classes].iter().any(|n| *n < 1) {
            return Some("the shape of the network's images has a number below 1".into());
        }
        let bytes = channels
            .checked_mul(height)
            .and_then(|n| n.checked_mul(width));
        if bytes.is_none_or(|bytes| bytes > LARGEST) || classes > MOST_CLASSES {
            return Some(format!(
                "no network takes {channels}×{height}×{width} images of {classes} classes"
            ));
        }
        [mean, std]
            .iter()
            .any(|values| values.len() as i64 != channels)
            .then(|| {
                format!(
                    "{} means and {} deviations for {channels} channels",
                    mean.len(),
                    std.len()
                )
            })
    }
}

/// Numbers of classes by name; none unless each class has a name of its own.
fn by_name(names: &[String], task: Task) -> Option<BTreeMap<&str, u16>> {
    let numbers: BTreeMap<&str, u16> = names.iter().map(String::as_str).zip(0..).collect();
    (numbers.len() == names.len() && names.len() as i64 == task.classes).then_some(numbers)
}

fn refused(dataset: &str, why: String, help: impl Into<String>) -> Error {
    Error::Incompatible {
        what: format!("dataset `{dataset}` for this run"),
        why,
        help: help.into(),
    }
}

fn list(names: &[&String]) -> String {
    let shown: Vec<String> = names
        .iter()
        .take(LISTED)
        .map(|n| format!("`{n}`"))
        .collect();
    match names.len().saturating_sub(LISTED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
