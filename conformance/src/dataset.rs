//! What every dataset must hold.

use std::collections::BTreeSet;

use nasfw_framework::Result;
use nasfw_framework::dataset::{DataSource, Dataset, ImageData, Images, Part};
use nasfw_framework::rng::{Rng, Streams};

use super::report::{Report, Verdict};

/// Images of each part that are looked into, where they are decoded one by one.
const LOOKED_AT: usize = 256;

/// Checks a dataset that is read from `source`. It is read twice.
pub fn dataset(name: &str, dataset: &dyn Dataset, source: &DataSource) -> Report {
    let mut report = Report::new(format!("dataset `{name}`"));
    let mut data = None;
    report.check(
        "loads",
        "it loads, with labels of its classes and sizes that agree",
        || {
            data = Some(dataset.load(source)?.check(name)?);
            Ok(Verdict::Held)
        },
    );
    let Some(data) = data else {
        return report;
    };
    let parts = [("training", &data.train), ("test", &data.test)];
    report.check(
        "has-images",
        "there are images to train and to test on, of a task that makes sense",
        || {
            let t = data.task;
            let positive = [t.channels, t.height, t.width].iter().all(|n| *n > 0) && t.classes > 1;
            let two = parts.iter().all(|(_, part)| part.len() > 1);
            Ok(Verdict::of(positive && two, || {
                format!(
                    "{t:?}, with {} training and {} test images",
                    data.train.len(),
                    data.test.len()
                )
            }))
        },
    );
    report.check("names-classes", "every class has a name of its own", || {
        let names: BTreeSet<&String> = data.classes.iter().collect();
        let right = names.len() == data.classes.len() && names.len() as i64 == data.task.classes;
        Ok(Verdict::of(right, || {
            format!(
                "{} different names of {} classes",
                names.len(),
                data.task.classes
            )
        }))
    });
    report.check(
        "halves-know-all-classes",
        "both halves of the training images, and the test images, have every class",
        || Ok(classes_in_halves(&data)),
    );
    report.check(
        "normalises",
        "mean and deviation are those of the training images, near enough to train by",
        || normalisation(&data),
    );
    report.check("has-content", "images are not all the same", || {
        let (first, second) = (
            image(&data, &data.train, 0)?,
            image(&data, &data.train, data.train.len() - 1)?,
        );
        let middle = image(&data, &data.train, data.train.len() / 2)?;
        Ok(Verdict::of(first != second || first != middle, || {
            "three of them are".into()
        }))
    });
    report.check(
        "same-twice",
        "reading it again gives the same bytes and labels",
        || {
            let again = dataset.load(source)?;
            for ((what, a), b) in parts.iter().zip([&again.train, &again.test]) {
                if a.labels != b.labels {
                    return Ok(Verdict::Broken(format!("the {what} labels differ")));
                }
                let (a, b) = (Views(&data, a), Views(&again, b));
                for index in a.looked_at() {
                    if a.view(index)? != b.view(index)? {
                        return Ok(Verdict::Broken(format!("{what} image {index} differs")));
                    }
                }
            }
            Ok(Verdict::of(data.checksum() == again.checksum(), || {
                "its checksum differs".into()
            }))
        },
    );
    report
}

/// Classes that a half or the test images lack; halves as strategies see them, before any shuffling.
fn classes_in_halves(data: &ImageData) -> Verdict {
    let all: BTreeSet<u16> = data.train.labels.iter().copied().collect();
    if all.len() as i64 != data.task.classes {
        return Verdict::Broken(format!(
            "training images are of {} classes, the task has {}",
            all.len(),
            data.task.classes
        ));
    }
    let split = data.split.unwrap_or(data.train.len() / 2);
    let sorted = data.train.labels.is_sorted();
    // In the order of their classes they are split class by class.
    let halves = match data.split {
        None if sorted => vec![],
        _ => vec![
            ("the first half", &data.train.labels[..split]),
            ("the second half", &data.train.labels[split..]),
        ],
    };
    for (what, labels) in halves
        .into_iter()
        .chain([("the test part", data.test.labels.as_slice())])
    {
        let here: BTreeSet<u16> = labels.iter().copied().collect();
        if let Some(missing) = all.difference(&here).next() {
            return Verdict::Broken(format!("{what} has no image of class {missing}"));
        }
    }
    Verdict::Held
}

/// The mean of every channel over the images that are looked at, in units of the deviation, must be near the mean that the
/// dataset names: half a deviation, or a factor of two in the deviation, is another dataset's.
fn normalisation(data: &ImageData) -> Result<Verdict> {
    let channels = data.task.channels as usize;
    let (mut sums, mut squares, mut pixels) = (vec![0.0; channels], vec![0.0; channels], 0.0);
    let views = Views(data, &data.train);
    for index in views.looked_at() {
        let bytes = image(data, &data.train, index)?;
        let size = bytes.len() / channels;
        pixels += size as f64;
        for (c, plane) in bytes.chunks(size).enumerate() {
            for byte in plane {
                let value = f64::from(*byte) / 255.0;
                sums[c] += value;
                squares[c] += value * value;
            }
        }
    }
    for c in 0..channels {
        let mean = sums[c] / pixels;
        let std = (squares[c] / pixels - mean * mean).max(0.0).sqrt();
        let (named, spread) = (data.mean[c], data.std[c]);
        let near = (mean - named).abs() <= 0.5 * std.max(1e-3);
        if !near || spread.is_nan() || !(0.5..=2.0).contains(&(spread / std.max(1e-3))) {
            return Ok(Verdict::Broken(format!(
                "channel {c} has mean {mean:.3} and deviation {std:.3}, it says {named:.3} and {spread:.3}"
            )));
        }
    }
    Ok(Verdict::Held)
}

/// The bytes of an image as it is for testing.
fn image(data: &ImageData, part: &Part, index: usize) -> Result<Vec<u8>> {
    decoded(data, part, index, None)
}

fn decoded(
    data: &ImageData,
    part: &Part,
    index: usize,
    random: Option<&mut Rng>,
) -> Result<Vec<u8>> {
    let size = (data.task.channels * data.task.height * data.task.width) as usize;
    match &part.images {
        Images::Bytes(bytes) => Ok(bytes[index * size..(index + 1) * size].to_vec()),
        Images::Source(source) => {
            let mut bytes = vec![0; size];
            source.decode(index, random, &mut bytes)?;
            Ok(bytes)
        }
    }
}

/// Images of a part as they are for testing and for training.
struct Views<'a>(&'a ImageData, &'a Part);

impl Views<'_> {
    /// Spread over all of them.
    fn looked_at(&self) -> impl Iterator<Item = usize> + use<> {
        let images = self.1.len();
        let count = images.min(LOOKED_AT);
        (0..count).map(move |i| i * images / count)
    }

    fn view(&self, index: usize) -> Result<[Vec<u8>; 2]> {
        let mut rng = Streams::new(7).at("view", index as u64);
        Ok([
            image(self.0, self.1, index)?,
            decoded(self.0, self.1, index, Some(&mut rng))?,
        ])
    }
}
