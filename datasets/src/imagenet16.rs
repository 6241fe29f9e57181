//! ImageNet16 (Chrabaszcz, Loshchilov, Hutter 2017, arXiv:1707.08819): ImageNet scaled down to 16×16 pixels, in
//! pickled batches of Python. NAS-Bench-201 uses its first 120 classes.

use std::path::{Path, PathBuf};

use nasfw_framework::config::Validator;
use nasfw_framework::dataset::{DataSource, Dataset, ImageData, Part};
use nasfw_framework::space::Task;
use nasfw_framework::{Error, Result, register};
use serde::{Deserialize, Serialize};

use crate::published::{Check, Sum};
use crate::{files, numpy, subset};

/// Bytes of an image: the red, green and blue planes.
const IMAGE: usize = 3 * 16 * 16;
/// The longest file that is read; the real ones have up to 99 MB.
const LIMIT: usize = 256 << 20;
/// Of NAS-Bench-201, in units of [0, 255].
const MEAN: [f64; 3] = [122.68, 116.66, 104.01];
const STD: [f64; 3] = [63.22, 61.26, 65.09];

/// The files with their published MD5 sums (AutoDL-Projects, `DownsampledImageNet.py`); the last one holds the
/// validation images.
const FILES: [(&str, Sum); 11] = [
    (
        "train_data_batch_1",
        Sum::Md5("27846dcaa50de8e21a7d1a35f30f0e91"),
    ),
    (
        "train_data_batch_2",
        Sum::Md5("c7254a054e0e795c69120a5727050e3f"),
    ),
    (
        "train_data_batch_3",
        Sum::Md5("4333d3df2e5ffb114b05d2ffc19b1e87"),
    ),
    (
        "train_data_batch_4",
        Sum::Md5("1620cdf193304f4a92677b695d70d10f"),
    ),
    (
        "train_data_batch_5",
        Sum::Md5("348b3c2fdbb3940c4e9e834affd3b18d"),
    ),
    (
        "train_data_batch_6",
        Sum::Md5("6e765307c242a1b3d7d5ef9139b48945"),
    ),
    (
        "train_data_batch_7",
        Sum::Md5("564926d8cbf8fc4818ba23d2faac7564"),
    ),
    (
        "train_data_batch_8",
        Sum::Md5("f4755871f718ccb653440b9dd0ebac66"),
    ),
    (
        "train_data_batch_9",
        Sum::Md5("bb6dd660c38c58552125b1a92f86b5d4"),
    ),
    (
        "train_data_batch_10",
        Sum::Md5("8f03f34ac4b42271a294f91bf480f29b"),
    ),
    ("val_data", Sum::Md5("3410e3017fdaefba8d5073aaa65e4bd6")),
];

/// ImageNet16's first classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageNet16 {
    /// Classes to keep, the first ones.
    pub classes: u16,
    /// Training images of each class to use, the first in the files; 0 uses all.
    pub per_class: usize,
}

register! {
    dataset "imagenet16-120" => ImageNet16,
    summary: "ImageNet16-120: 151,700 + 6,000 photographs of 16×16 pixels, 120 classes, from its pickled batches",
    source: "Chrabaszcz, Loshchilov, Hutter 2017, arXiv:1707.08819",
    defaults: "[dataset]\n\
        # Classes to keep, the first ones of 1,000.\n\
        classes = 120\n\
        # Training images of each class to use, the first in the files; 0 uses all.\n\
        per_class = 0\n\
        [trainer.augment]\n\
        crop_padding = 2\n",
    example: "nasfw run --dataset imagenet16-120 --data-dir DIR",
}

/// The folder that its files are looked for in.
const FOLDER: &str = "ImageNet16";

/// How many of the files are in a folder.
fn held(folder: &Path) -> usize {
    let is_there = |(name, _): &&(&str, Sum)| folder.join(name).exists();
    FILES.iter().filter(is_there).count()
}

#[typetag::serde(name = "imagenet16-120")]
impl Dataset for ImageNet16 {
    fn place(&self, source: &DataSource) -> Option<PathBuf> {
        let mut folders = files::folders(source, FOLDER, &[]).into_iter();
        folders.find(|folder| held(folder) == FILES.len())
    }

    fn load(&self, source: &DataSource) -> Result<ImageData> {
        let folders = files::folders(source, FOLDER, &[]);
        // Where some files are missing, reading names the first of them.
        let Some(folder) = folders
            .iter()
            .max_by_key(|f| held(f))
            .filter(|f| held(f) > 0)
        else {
            let first = folders
                .first()
                .cloned()
                .unwrap_or_else(|| "ImageNet16".into());
            return Err(Error::Data {
                path: first,
                problem: format!("no {} of ImageNet16 there", FILES[0].0),
                help: "ask for the 16×16 files (`Imagenet16_train`, `Imagenet16_val`) at \
                       https://image-net.org/download-images, unpack both into one folder and type \
                       `nasfw run --dataset imagenet16-120 --data-dir DIR`"
                    .into(),
            });
        };
        let data = self.read_folder(folder, source)?;
        let expected = match self.classes {
            120 => Some((151_700, 6_000)),
            1_000 => Some((1_281_167, 50_000)),
            _ => None,
        };
        let found = (data.train.len(), data.test.len());
        if let Some(expected) = expected.filter(|e| *e != found) {
            let problem = format!(
                "{} + {} images of the first {} classes, {} + {} are expected",
                found.0, found.1, self.classes, expected.0, expected.1
            );
            return Err(files::corrupt(folder, problem));
        }
        Ok(ImageData {
            train: subset::first_of_each_class(data.train, self.per_class),
            ..data
        })
    }

    fn validate(&self, v: &mut Validator) {
        v.range("dataset.classes", self.classes, 2, 1000);
    }
}

impl ImageNet16 {
    /// Reads the eleven files, whatever number of images they hold. Another MD5 sum than the published one is
    /// noted: files that were pickled again with the same content are good, and all sizes are checked.
    ///
    /// # Errors
    /// A missing or corrupt file, a label that is none of 1 to 1,000.
    pub fn read_folder(&self, folder: &Path, source: &DataSource) -> Result<ImageData> {
        let mut check = Check::default();
        let mut part = |files: &[(&'static str, Sum)]| -> Result<Part> {
            let (mut images, mut labels) = (vec![], vec![]);
            for &(name, sum) in files {
                let path = folder.join(name);
                let bytes = files::read(&path, LIMIT)?;
                check.file(name, &bytes, sum);
                let batch = unpickle(&bytes).map_err(|problem| files::corrupt(&path, problem))?;
                for (image, label) in batch.images.chunks_exact(IMAGE).zip(batch.labels) {
                    if label <= self.classes {
                        images.extend_from_slice(image);
                        labels.push(label - 1);
                    }
                }
            }
            Ok(Part {
                images: images.into(),
                labels,
            })
        };
        let [train @ .., test] = &FILES;
        let (train, test) = (part(train)?, part(&[*test])?);
        check.tell("imagenet16", folder, source);
        let scaled = |values: [f64; 3]| values.map(|v| v / 255.0).to_vec();
        let data = ImageData {
            task: Task {
                channels: 3,
                height: 16,
                width: 16,
                classes: i64::from(self.classes),
            },
            train,
            test,
            split: None,
            mean: scaled(MEAN),
            std: scaled(STD),
            classes: (1..=self.classes).map(|c| c.to_string()).collect(),
        };
        data.check(folder)
    }
}

/// Images of 3×16×16 bytes and labels from 1 to 1,000.
struct Batch {
    images: Vec<u8>,
    labels: Vec<u16>,
}

/// Reads a pickled batch. Nothing in the file is executed.
fn unpickle(bytes: &[u8]) -> Result<Batch, String> {
    let (images, labels) = numpy::batch(bytes, IMAGE, &["labels"])?;
    let labels = labels
        .into_iter()
        .enumerate()
        .map(|(i, label)| match label {
            1..=1000 => Ok(label as u16),
            other => Err(format!(
                "image {i} (from 0) has label {other}, labels are 1 to 1,000"
            )),
        });
    Ok(Batch {
        images,
        labels: labels.collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::test_pickles::{PROTOCOLS, Pickle};
    use proptest::prelude::*;
    use std::fs;

    fn data(rows: usize, salt: usize) -> Vec<u8> {
        (0..rows * IMAGE)
            .map(|i| ((i * 31 + i / IMAGE + salt) % 256) as u8)
            .collect()
    }

    /// Eleven files, three images each, with labels 1, 120, 121 in turn.
    fn write() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (i, (name, _)) in FILES.iter().enumerate() {
            let protocol = PROTOCOLS[i % PROTOCOLS.len()];
            let batch = Pickle::batch(protocol, [3, 768], &data(3, i), &[1, 120, 121], "labels");
            fs::write(dir.path().join(name), batch).unwrap();
        }
        dir
    }

    fn dataset(classes: u16) -> ImageNet16 {
        ImageNet16 {
            classes,
            per_class: 0,
        }
    }

    #[test]
    fn the_first_classes_are_kept_in_file_order() {
        let dir = write();
        let read = dataset(120)
            .read_folder(dir.path(), &DataSource::default())
            .unwrap();
        assert_eq!(read.train.labels, [0, 119].repeat(10));
        assert_eq!(read.test.labels, [0, 119]);
        let expected: Vec<u8> = (0..10).flat_map(|i| data(2, i)).collect();
        assert_eq!(read.train.images.bytes(), expected);
        assert_eq!(read.test.images.bytes(), data(2, 10));
        assert!((read.mean[0] - 0.481_098).abs() < 1e-6);
        let more = dataset(150)
            .read_folder(dir.path(), &DataSource::default())
            .unwrap();
        assert_eq!(more.train.len(), 30);
        assert_eq!(more.train.labels[..3], [0, 119, 120]);
    }

    #[test]
    fn each_mistake_is_named() {
        let images = data(2, 0);
        for protocol in PROTOCOLS {
            let wrong = |rows: u32, data: &[u8], labels: &[u32], words: &str| {
                let error = unpickle(&Pickle::batch(
                    protocol,
                    [rows, 768],
                    data,
                    labels,
                    "labels",
                ))
                .err()
                .unwrap();
                assert!(error.contains(words), "{error}");
            };
            wrong(2, &images, &[1], "holds 2 images and 1 labels");
            wrong(2, &images[1..], &[1, 2], "`data` is no array [n, 768]");
            wrong(2, &images, &[1, 0], "image 1 (from 0) has label 0");
            wrong(2, &images, &[1, 1001], "has label 1001");
            let whole = Pickle::batch(protocol, [2, 768], &images, &[1, 2], "labels");
            for cut in [0, 1, 50, 900, whole.len() - 1] {
                let error = unpickle(&whole[..cut]).err().unwrap();
                assert!(error.len() < 300, "{error}");
            }
        }
        assert!(
            unpickle(b"\x80\x02K\x01.")
                .err()
                .unwrap()
                .contains("no dictionary")
        );
        assert!(
            unpickle(b"\x80\x02}.")
                .err()
                .unwrap()
                .contains("has no `data`")
        );
    }

    #[test]
    fn missing_files_and_other_counts_say_what_to_type() {
        let dir = write();
        let source = DataSource {
            dir: Some(dir.path().to_owned()),
            ..DataSource::default()
        };
        let error = dataset(120).load(&source).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("20 + 2 images of the first 120 classes, 151700 + 6000"),
            "{error}"
        );
        assert_eq!(dataset(121).load(&source).unwrap().train.len(), 30);
        let some = ImageNet16 {
            per_class: 4,
            ..dataset(121)
        };
        assert_eq!(some.load(&source).unwrap().train.len(), 12);
        fs::remove_file(dir.path().join("train_data_batch_7")).unwrap();
        let error = dataset(120).load(&source).unwrap_err();
        assert!(error.to_string().contains("train_data_batch_7"), "{error}");
        assert!(error.help().unwrap().contains("--data-dir"));
        let source = DataSource {
            dir: Some(dir.path().join("nowhere")),
            ..DataSource::default()
        };
        let error = dataset(120).load(&source).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(
            error
                .help()
                .unwrap()
                .contains("--dataset imagenet16-120 --data-dir DIR")
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Whatever happens to a file, the result is an error or whole images with labels in range, never a panic.
        #[test]
        fn damage_is_an_error_or_harmless(
            which in 0usize..4, at in 0.0f64..1.0, value in any::<u8>(), end in any::<bool>(), cut in any::<bool>(),
        ) {
            let mut bytes = Pickle::batch(PROTOCOLS[which], [2, 768], &data(2, 0), &[1, 2], "labels");
            // Half of the time outside of the pixels, where the structure is.
            let from = if end { bytes.len() - 60 } else { 0 };
            let at = from + ((bytes.len() - from - 1) as f64 * at) as usize;
            bytes[at] = value;
            if cut {
                bytes.truncate(at);
            }
            if let Ok(batch) = unpickle(&bytes) {
                prop_assert_eq!(batch.images.len(), batch.labels.len() * IMAGE);
                prop_assert!(batch.labels.iter().all(|l| (1..=1000).contains(l)));
            }
        }
    }
}
