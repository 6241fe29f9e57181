//! CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from their standard binary files: per image one label
//! byte (CIFAR-100: a coarse and a fine one) and 3,072 bytes, the red, green and blue planes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nasfw_framework::dataset::{DataSource, Dataset, ImageData, Part};
use nasfw_framework::space::Task;
use nasfw_framework::{Error, Result, register};
use serde::{Deserialize, Serialize};

use crate::download::{Lock, Remote, fetch};
use crate::{files, subset};

/// Bytes of an image.
const IMAGE: usize = 3 * 32 * 32;

/// What tells one CIFAR from the other.
struct Format {
    name: &'static str,
    folder: &'static str,
    train: &'static [&'static str],
    test: &'static str,
    class_names: &'static str,
    /// Label bytes before an image; the last one is the class.
    labels: usize,
    classes: u8,
    mean: [f64; 3],
    std: [f64; 3],
    archive: Remote<'static>,
}

const CIFAR10: Format = Format {
    name: "cifar10",
    folder: "cifar-10-batches-bin",
    train: &[
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
    ],
    test: "test_batch.bin",
    class_names: "batches.meta.txt",
    labels: 1,
    classes: 10,
    mean: [0.491_399_68, 0.482_158_27, 0.446_531_24],
    std: [0.247_032_33, 0.243_485_05, 0.261_587_68],
    archive: Remote {
        url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        md5: "c32a1d4ab5d03f1284b67883e8d87530",
    },
};

const CIFAR100: Format = Format {
    name: "cifar100",
    folder: "cifar-100-binary",
    train: &["train.bin"],
    test: "test.bin",
    class_names: "fine_label_names.txt",
    labels: 2,
    classes: 100,
    mean: [0.5071, 0.4865, 0.4409],
    std: [0.2673, 0.2564, 0.2762],
    archive: Remote {
        url: "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        md5: "03b5dce01913d631647c71ecec9e9cb8",
    },
};

/// CIFAR-10.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cifar10 {
    /// Training images of each class to use, the first in the files; 0 uses all.
    pub per_class: usize,
}

/// CIFAR-100 with its 100 fine classes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cifar100 {
    /// Training images of each class to use, the first in the file; 0 uses all.
    pub per_class: usize,
}

#[typetag::serde(name = "cifar10")]
impl Dataset for Cifar10 {
    fn load(&self, source: &DataSource) -> Result<ImageData> {
        load(&CIFAR10, source, self.per_class)
    }
}

#[typetag::serde(name = "cifar100")]
impl Dataset for Cifar100 {
    fn load(&self, source: &DataSource) -> Result<ImageData> {
        load(&CIFAR100, source, self.per_class)
    }
}

const DEFAULTS: &str = "[dataset]\n\
    # Training images of each class to use, the first in the files; 0 uses all.\n\
    per_class = 0\n";

register! {
    dataset "cifar10" => Cifar10,
    summary: "CIFAR-10: 50,000 + 10,000 colour images of 32×32 pixels, 10 classes, from its binary files",
    source: "Krizhevsky 2009",
    defaults: DEFAULTS,
    example: "nasfw run --dataset cifar10 --data-dir DIR",
}

register! {
    dataset "cifar100" => Cifar100,
    summary: "CIFAR-100: 50,000 + 10,000 colour images of 32×32 pixels, 100 classes, from its binary files",
    source: "Krizhevsky 2009",
    defaults: DEFAULTS,
    example: "nasfw run --dataset cifar100 --data-dir DIR",
}

fn load(format: &Format, source: &DataSource, per_class: usize) -> Result<ImageData> {
    let folders = files::folders(source, format.folder, &[]);
    let files = || format.train.iter().chain([&format.test]);
    let complete = folders
        .iter()
        .find(|f| files().all(|name| f.join(name).exists()));
    let begun = folders
        .iter()
        .find(|f| files().any(|name| f.join(name).exists()));
    let folder = match (complete, begun) {
        (Some(folder), _) => folder.clone(),
        (None, _) if source.download => match files::download_folder(source, format.folder) {
            Some(folder) => download(format, &folder)?,
            None => return Err(files::missing(format.name, format.test, &folders)),
        },
        // Reading it names the file that is missing.
        (None, Some(folder)) => folder.clone(),
        (None, None) => return Err(files::missing(format.name, format.test, &folders)),
    };
    let mut data = read_folder(format, &folder, 50_000 / format.train.len(), 10_000)?;
    data.train = subset::first_of_each_class(data.train, per_class);
    Ok(data)
}

/// Fetches the archive into `folder` and unpacks the files that are needed there.
fn download(format: &Format, folder: &Path) -> Result<PathBuf> {
    let lock = Lock::wait(folder)?;
    let archive = folder.join("archive.tar.gz");
    fetch(&format.archive, &archive, &lock)?;
    let broken = |e: std::io::Error| files::corrupt(&archive, e.to_string());
    let file = File::open(&archive).map_err(Error::io("read", &archive))?;
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(file));
    for entry in tar.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = entry
            .path()
            .map_err(broken)?
            .file_name()
            .map(|n| n.to_os_string());
        let Some(name) = name.filter(|n| Path::new(n).extension().is_some()) else {
            continue;
        };
        // Whole files only: an interrupted run must not leave half of one.
        let (partial, path) = (folder.join("unpacking"), folder.join(name));
        let mut out = File::create(&partial).map_err(Error::io("write", &partial))?;
        std::io::copy(&mut entry, &mut out).map_err(broken)?;
        fs::rename(&partial, &path).map_err(Error::io("rename", &partial))?;
    }
    Ok(folder.to_owned())
}

fn read_folder(format: &Format, folder: &Path, rows: usize, test_rows: usize) -> Result<ImageData> {
    let train = read_batches(format, folder, format.train, rows)?;
    let test = read_batches(format, folder, &[format.test], test_rows)?;
    let task = Task {
        channels: 3,
        height: 32,
        width: 32,
        classes: i64::from(format.classes),
    };
    let data = ImageData {
        task,
        train,
        test,
        split: None,
        mean: format.mean.to_vec(),
        std: format.std.to_vec(),
        classes: class_names(format, folder),
    };
    data.check(folder)
}

/// Names from the file beside the images; numbers where it is missing or of another length.
fn class_names(format: &Format, folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join(format.class_names)).unwrap_or_default();
    let names: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .map(str::to_owned)
        .collect();
    if names.len() == usize::from(format.classes) {
        return names;
    }
    (0..format.classes).map(|c| c.to_string()).collect()
}

fn read_batches(format: &Format, folder: &Path, names: &[&str], rows: usize) -> Result<Part> {
    let row = format.labels + IMAGE;
    let (mut images, mut labels) = (vec![], vec![]);
    for name in names {
        let path = folder.join(name);
        let bytes = files::read(&path, rows * row)?;
        if bytes.len() != rows * row {
            return Err(files::corrupt(
                &path,
                files::length_problem(bytes.len(), rows * row, "bytes"),
            ));
        }
        for (i, row) in bytes.chunks_exact(row).enumerate() {
            let (row_labels, image) = row.split_at(format.labels);
            let label = row_labels[format.labels - 1];
            if label >= format.classes {
                let problem = format!(
                    "image {i} (from 0) has label {label}, labels are 0 to {}",
                    format.classes - 1
                );
                return Err(files::corrupt(&path, problem));
            }
            labels.push(u16::from(label));
            images.extend_from_slice(image);
        }
    }
    Ok(Part {
        images: images.into(),
        labels,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    const ROWS: usize = 7;

    fn batch(format: &Format, rows: usize, salt: usize) -> Vec<u8> {
        (0..rows)
            .flat_map(|i| {
                let labels = [
                    (i % 20) as u8,
                    ((i * 7 + salt) % usize::from(format.classes)) as u8,
                ];
                let labels = labels[2 - format.labels..].to_vec();
                labels
                    .into_iter()
                    .chain((0..IMAGE).map(move |p| ((p * 31 + i + salt) % 256) as u8))
            })
            .collect()
    }

    fn write(format: &Format) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (i, name) in format.train.iter().chain([&format.test]).enumerate() {
            fs::write(dir.path().join(name), batch(format, ROWS, i)).unwrap();
        }
        dir
    }

    #[test]
    fn both_formats_are_read_in_file_order() {
        for format in [&CIFAR10, &CIFAR100] {
            let dir = write(format);
            let data = read_folder(format, dir.path(), ROWS, ROWS).unwrap();
            assert_eq!(data.train.len(), ROWS * format.train.len());
            assert_eq!(
                data.train.labels[1],
                7 % u16::from(format.classes),
                "the last label byte counts"
            );
            let first = &batch(format, ROWS, 0)[format.labels..format.labels + IMAGE];
            assert_eq!(&data.train.images.bytes()[..IMAGE], first);
            let test =
                &batch(format, ROWS, format.train.len())[format.labels..format.labels + IMAGE];
            assert_eq!(&data.test.images.bytes()[..IMAGE], test);
        }
    }

    #[test]
    fn each_mistake_names_the_file() {
        let check = |damage: fn(&mut Vec<u8>), words: &str| {
            let dir = write(&CIFAR10);
            let path = dir.path().join("data_batch_3.bin");
            let mut bytes = fs::read(&path).unwrap();
            damage(&mut bytes);
            fs::write(&path, bytes).unwrap();
            let error = read_folder(&CIFAR10, dir.path(), ROWS, ROWS).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains(words) && text.contains("data_batch_3.bin"),
                "{text}"
            );
            assert_eq!(error.exit_code(), 3);
        };
        check(|b| b.truncate(b.len() - 1), "truncated");
        check(|b| b.push(0), "are expected");
        check(|b| b[3073] = 10, "image 1 (from 0) has label 10");
        check(Vec::clear, "holds 0 of");
    }

    #[test]
    fn a_missing_batch_and_a_missing_folder_say_what_to_type() {
        let dir = write(&CIFAR10);
        fs::remove_file(dir.path().join("data_batch_2.bin")).unwrap();
        let error = read_folder(&CIFAR10, dir.path(), ROWS, ROWS).unwrap_err();
        assert!(error.to_string().contains("data_batch_2.bin"), "{error}");
        let source = DataSource {
            dir: Some(dir.path().join("nowhere")),
            ..Default::default()
        };
        let error = Cifar10::default().load(&source).unwrap_err();
        assert!(
            error
                .help()
                .unwrap()
                .contains("--dataset cifar10 --data-dir DIR"),
            "{error}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whatever happens to a file, reading it gives an error or the bytes that are in it, never a panic.
        #[test]
        fn damage_is_an_error_or_harmless(file in 0usize..6, cut in prop::option::of(0.0f64..1.0), at in 0.0f64..1.0, value in any::<u8>()) {
            let dir = write(&CIFAR10);
            let names: Vec<&str> = CIFAR10.train.iter().copied().chain([CIFAR10.test]).collect();
            let path = dir.path().join(names[file]);
            let mut bytes = fs::read(&path).unwrap();
            let at = ((bytes.len() - 1) as f64 * at) as usize;
            bytes[at] = value;
            if let Some(cut) = cut {
                bytes.truncate((bytes.len() as f64 * cut) as usize);
            }
            fs::write(&path, &bytes).unwrap();
            match read_folder(&CIFAR10, dir.path(), ROWS, ROWS) {
                Ok(data) => {
                    prop_assert!(cut.is_none());
                    prop_assert!(data.train.labels.iter().chain(&data.test.labels).all(|l| *l < 10));
                }
                Err(error) => prop_assert_eq!(error.exit_code(), 3),
            }
        }
    }
}
