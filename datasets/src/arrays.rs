//! Images as NumPy arrays in one `.npz` file, as Keras and MedMNIST distribute them and `nasfw.Images` writes them.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use nasfw_framework::config::Validator;
use nasfw_framework::dataset::{DataSource, Dataset, ImageData, Part};
use nasfw_framework::space::Task;
use nasfw_framework::{Error, Result, register};
use npyz::npz::{array_name_from_file_name, file_name_from_array_name};
use npyz::zip::ZipArchive;
use npyz::{DType, NpyFile, Order, TypeChar};
use serde::{Deserialize, Serialize};

/// The most bytes of one array.
const MOST: u64 = 16 << 30;
/// Names of the four arrays, in the order of [`Names`]: those of Keras's files, and those of MedMNIST's.
const USUAL: [[&str; 4]; 2] = [
    ["x_train", "y_train", "x_test", "y_test"],
    ["train_images", "train_labels", "test_images", "test_labels"],
];
/// What may stand beside them.
const CLASSES: &str = "classes";

/// A file of arrays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arrays {
    /// The file, in the dataset's folder unless the path is absolute.
    pub file: PathBuf,
    /// How many training images, the first ones, belong to the weights; 0 takes half of them.
    pub split: usize,
}

register! {
    dataset "arrays" => Arrays,
    summary: "your own images as NumPy arrays in one .npz file",
    source: "yours",
    defaults: "[dataset]\n\
        # A .npz file with x_train, y_train, x_test and y_test (Keras's names; or MedMNIST's, train_images and so on): images\n\
        # as bytes [n, height, width] or [n, height, width, channels], labels as whole numbers [n] or [n, 1], and if you like\n\
        # the names of the classes, `classes`.\n\
        file = \"\"\n\
        # How many training images, the first ones, belong to the weights where a strategy splits them; 0 takes half of them.\n\
        split = 0\n",
    example: "nasfw run --dataset arrays --set dataset.file=images.npz",
}

#[typetag::serde(name = "arrays")]
impl Dataset for Arrays {
    fn load(&self, source: &DataSource) -> Result<ImageData> {
        let path = match &source.dir {
            Some(dir) => dir.join(&self.file),
            None => self.file.clone(),
        };
        if self.file.as_os_str().is_empty() {
            return Err(Error::Data {
                path,
                problem: "which file are the images in?".into(),
                help: "say `--set dataset.file=FILE.npz`; `nasfw describe arrays` tells what is to be in it"
                    .into(),
            });
        }
        let data = read(&path)?;
        let split = (self.split > 0).then_some(self.split);
        ImageData { split, ..data }.check(path)
    }

    fn validate(&self, _v: &mut Validator) {}
}

/// What is wrong with a file.
fn wrong(path: &Path, problem: impl Into<String>) -> Error {
    Error::Data {
        path: path.into(),
        problem: problem.into(),
        help: "`nasfw describe arrays` tells what is to be in the file; `numpy.savez(FILE, x_train=…, y_train=…, x_test=…, \
               y_test=…)` writes one"
            .into(),
    }
}

/// Reads and checks a file.
fn read(path: &Path) -> Result<ImageData> {
    let mut archive = open(path)?;
    let held = archive.file_names().filter_map(array_name_from_file_name);
    let mut held: Vec<String> = held.map(str::to_owned).collect();
    held.sort_unstable();
    let holds = |names: &&[&str; 4]| names.iter().all(|n| held.iter().any(|h| h == n));
    let Some([x_train, y_train, x_test, y_test]) = USUAL.iter().find(holds) else {
        return Err(wrong(
            path,
            format!(
                "it holds {}; {} are needed, or {}",
                match held.is_empty() {
                    true => "no arrays".to_owned(),
                    false => held.join(", "),
                },
                USUAL[0].join(", "),
                USUAL[1].join(", ")
            ),
        ));
    };
    let (shape, train) = images(path, &mut archive, x_train)?;
    let (test_shape, test) = images(path, &mut archive, x_test)?;
    if shape != test_shape {
        return Err(wrong(
            path,
            format!(
                "images of {shape:?} in `{x_train}` and of {test_shape:?} in `{x_test}` (channels, rows, columns)"
            ),
        ));
    }
    let train = Part {
        images: train.into(),
        labels: labels(path, &mut archive, y_train)?,
    };
    let test = Part {
        images: test.into(),
        labels: labels(path, &mut archive, y_test)?,
    };
    let known = train.labels.iter().chain(&test.labels).max();
    let count = known.map_or(0, |most| usize::from(*most) + 1);
    let classes = match held.iter().any(|h| h == CLASSES) {
        true => names(path, &mut archive)?,
        false => (0..count).map(|c| c.to_string()).collect(),
    };
    if classes.len() < 2 {
        return Err(wrong(path, "its labels are of fewer than two classes"));
    }
    let [channels, height, width] = shape;
    let (mean, std) = statistics(train.images.bytes(), channels, height * width);
    Ok(ImageData {
        task: Task {
            channels: channels as i64,
            height: height as i64,
            width: width as i64,
            classes: classes.len() as i64,
        },
        train,
        test,
        split: None,
        mean,
        std,
        classes,
    })
}

/// Mean and standard deviation of every channel, in units of [0, 1]. A channel that never changes has the deviation 1.
fn statistics(planes: &[u8], channels: usize, pixels: usize) -> (Vec<f64>, Vec<f64>) {
    let mut counts = vec![[0u64; 256]; channels];
    if pixels > 0 {
        for (at, plane) in planes.chunks_exact(pixels).enumerate() {
            for byte in plane {
                counts[at % channels][usize::from(*byte)] += 1;
            }
        }
    }
    let of = |counts: &[u64; 256]| {
        let all = counts.iter().sum::<u64>().max(1) as f64;
        let sum = |power: i32| -> f64 {
            let terms = counts.iter().enumerate();
            terms
                .map(|(byte, n)| *n as f64 * (byte as f64 / 255.0).powi(power))
                .sum()
        };
        let mean = sum(1) / all;
        let std = (sum(2) / all - mean * mean).max(0.0).sqrt();
        (mean, if std > 0.0 { std } else { 1.0 })
    };
    counts.iter().map(of).unzip()
}

type Archive = ZipArchive<BufReader<File>>;

fn open(path: &Path) -> Result<Archive> {
    let file = File::open(path).map_err(|e| wrong(path, format!("cannot be read: {e}")))?;
    ZipArchive::new(BufReader::new(file))
        .map_err(|e| wrong(path, format!("this is no .npz file: {e}")))
}

/// The bytes of an array of the archive. What a file says of lengths is not believed: memory is taken for what there is.
fn bytes_of(path: &Path, archive: &mut Archive, name: &str) -> Result<Vec<u8>> {
    let unreadable = |e: String| wrong(path, format!("`{name}` cannot be read: {e}"));
    let entry = archive.by_name(&file_name_from_array_name(name));
    let entry = entry.map_err(|e| unreadable(e.to_string()))?;
    let mut bytes = vec![];
    let read = entry.take(MOST + 1).read_to_end(&mut bytes);
    read.map_err(|e| unreadable(e.to_string()))?;
    match bytes.len() as u64 > MOST {
        true => Err(unreadable(format!("it has more than {MOST} bytes"))),
        false => Ok(bytes),
    }
}

/// The array in these bytes: its form, and its numbers to be read.
fn array<'a>(path: &Path, name: &str, bytes: &'a [u8]) -> Result<NpyFile<&'a [u8]>> {
    let bad = |why: String| wrong(path, format!("`{name}` {why}"));
    let found = NpyFile::new(bytes).map_err(|e| bad(format!("cannot be read: {e}")))?;
    if found.order() != Order::C {
        return Err(bad(
            "is in Fortran's order: numpy.ascontiguousarray mends that".into(),
        ));
    }
    let size = match found.dtype() {
        DType::Plain(kind) => kind.num_bytes(),
        _ => None,
    };
    let size =
        size.ok_or_else(|| bad(format!("is {}, no array of numbers", found.dtype().descr())))?;
    let numbers = found
        .shape()
        .iter()
        .try_fold(1u64, |n, d| n.checked_mul(*d));
    let needed = numbers.and_then(|n| n.checked_mul(size as u64));
    // The header is before them.
    if needed.is_none_or(|needed| needed > bytes.len() as u64) {
        return Err(bad(format!(
            "is cut off: it should have the shape {:?}",
            found.shape()
        )));
    }
    Ok(found)
}

/// Images as channels, rows, columns, and bytes in that order, image after image.
fn images(path: &Path, archive: &mut Archive, name: &str) -> Result<([usize; 3], Vec<u8>)> {
    let raw = bytes_of(path, archive, name)?;
    let found = array(path, name, &raw)?;
    let shape: Vec<usize> = found.shape().iter().map(|d| *d as usize).collect();
    let bytes = matches!(found.dtype(), DType::Plain(t) if t.type_char() == TypeChar::Uint && t.size_field() == 1);
    let [_, height, width, channels] = match (bytes, shape.as_slice()) {
        (true, &[n, height, width]) => [n, height, width, 1],
        (true, &[n, height, width, channels]) => [n, height, width, channels],
        _ => {
            return Err(wrong(
                path,
                format!(
                    "`{name}` is {} of shape {shape:?}: images must be bytes (uint8) [n, height, width] or \
                     [n, height, width, channels]",
                    found.dtype().descr()
                ),
            ));
        }
    };
    let pixels = height * width;
    let flat: Vec<u8> = found
        .into_vec()
        .map_err(|e| wrong(path, format!("`{name}` cannot be read: {e}")))?;
    let mut planes = vec![0; flat.len()];
    if pixels * channels > 0 {
        let images = flat.chunks_exact(pixels * channels);
        for (image, planes) in images.zip(planes.chunks_exact_mut(pixels * channels)) {
            for (at, byte) in image.iter().enumerate() {
                planes[at % channels * pixels + at / channels] = *byte;
            }
        }
    }
    Ok(([channels, height, width], planes))
}

/// One class an image.
fn labels(path: &Path, archive: &mut Archive, name: &str) -> Result<Vec<u16>> {
    let raw = bytes_of(path, archive, name)?;
    let found = array(path, name, &raw)?;
    let shape = found.shape().to_vec();
    let DType::Plain(kind) = found.dtype() else {
        return Err(wrong(path, format!("`{name}` is no array of numbers")));
    };
    let column = matches!(shape.as_slice(), [_] | [_, 1]);
    if !column {
        return Err(wrong(
            path,
            format!(
                "`{name}` has the shape {shape:?}: one class an image, [n] or [n, 1], is needed"
            ),
        ));
    }
    let unreadable = |e: std::io::Error| wrong(path, format!("`{name}` cannot be read: {e}"));
    let numbers: Vec<i128> = match (kind.type_char(), kind.size_field()) {
        (TypeChar::Uint, 1) => widened(found.into_vec::<u8>().map_err(unreadable)?),
        (TypeChar::Uint, 2) => widened(found.into_vec::<u16>().map_err(unreadable)?),
        (TypeChar::Uint, 4) => widened(found.into_vec::<u32>().map_err(unreadable)?),
        (TypeChar::Uint, 8) => widened(found.into_vec::<u64>().map_err(unreadable)?),
        (TypeChar::Int, 1) => widened(found.into_vec::<i8>().map_err(unreadable)?),
        (TypeChar::Int, 2) => widened(found.into_vec::<i16>().map_err(unreadable)?),
        (TypeChar::Int, 4) => widened(found.into_vec::<i32>().map_err(unreadable)?),
        (TypeChar::Int, 8) => widened(found.into_vec::<i64>().map_err(unreadable)?),
        _ => {
            return Err(wrong(
                path,
                format!(
                    "`{name}` is {}: labels must be whole numbers",
                    found.dtype().descr()
                ),
            ));
        }
    };
    let class = |(at, n): (usize, i128)| {
        u16::try_from(n).map_err(|_| {
            wrong(
                path,
                format!("`{name}` has the label {n} at {at}: classes are 0 to 65535"),
            )
        })
    };
    numbers.into_iter().enumerate().map(class).collect()
}

fn widened<T: Into<i128>>(numbers: Vec<T>) -> Vec<i128> {
    numbers.into_iter().map(Into::into).collect()
}

/// Names of the classes, `[n]` of texts.
fn names(path: &Path, archive: &mut Archive) -> Result<Vec<String>> {
    let raw = bytes_of(path, archive, CLASSES)?;
    let found = array(path, CLASSES, &raw)?;
    let shape = found.shape().to_vec();
    let text = matches!(found.dtype(), DType::Plain(t) if t.type_char() == TypeChar::UnicodeStr);
    if !text || shape.len() != 1 {
        return Err(wrong(
            path,
            format!(
                "`{CLASSES}` is {} of shape {shape:?}: names are texts [n]",
                found.dtype().descr()
            ),
        ));
    }
    found
        .into_vec::<String>()
        .map_err(|e| wrong(path, format!("`{CLASSES}` cannot be read: {e}")))
}

#[cfg(test)]
mod tests;
