//! `cargo xtask embedded-data`: builds the dataset inside the nasfw binary, the same bytes every
//! time.
//!
//! `fashion-mnist-mini` is the first 500 training and the first 100 test images of each class of
//! Fashion-MNIST, in the order of the files. The source is the Debian package
//! dataset-fashion-mnist.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use flate2::{Compression, GzBuilder, read::MultiGzDecoder};
use sha2::{Digest, Sha256};

use crate::failure::Failure;
use crate::workspace::Workspace;

const PACKAGE: &str = "dataset-fashion-mnist";
/// Where the package puts its files.
const INSTALLED: &str = "/usr/share/datasets/fashion-mnist";
const CLASSES: usize = 10;
const SIDE: usize = 28;

/// One of the two halves: a file of images and a file of labels.
struct Half {
    images: Source,
    labels: Source,
    rows: usize,
    kept_per_class: usize,
}

/// An IDX file of Fashion-MNIST and the SHA-256 of its uncompressed bytes.
struct Source {
    name: &'static str,
    sha256: &'static str,
}

const HALVES: [Half; 2] = [
    Half {
        images: Source {
            name: "train-images-idx3-ubyte.gz",
            sha256: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        },
        labels: Source {
            name: "train-labels-idx1-ubyte.gz",
            sha256: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        },
        rows: 60_000,
        kept_per_class: 500,
    },
    Half {
        images: Source {
            name: "t10k-images-idx3-ubyte.gz",
            sha256: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        },
        labels: Source {
            name: "t10k-labels-idx1-ubyte.gz",
            sha256: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
        rows: 10_000,
        kept_per_class: 100,
    },
];

/// Rebuilds `datasets/data/fashion-mnist-mini` from the files in `from`, by default from the Debian
/// package.
pub fn build(workspace: &Workspace, from: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let source = match from {
        Some(folder) => folder,
        None if Path::new(INSTALLED).is_dir() => INSTALLED.into(),
        None => fetch_package(&workspace.root.join("target/embedded-data"))?,
    };
    let target = workspace.root.join("datasets/data/fashion-mnist-mini");
    fs::create_dir_all(&target).map_err(|e| Failure::io("create", &target, &e))?;
    let mut sums = String::new();
    for half in &HALVES {
        let images = read_source(&source, &half.images)?;
        let labels = read_source(&source, &half.labels)?;
        let (images, labels) = subset(&images, &labels, half.rows, half.kept_per_class);
        for (name, idx) in [(half.images.name, images), (half.labels.name, labels)] {
            let bytes = compress(&idx);
            let file = target.join(name);
            fs::write(&file, &bytes).map_err(|e| Failure::io("write", &file, &e))?;
            sums.push_str(&format!("{}  {name}\n", sha256(&bytes)));
        }
    }
    let file = target.join("SHA256SUMS");
    let changed = fs::read_to_string(&file)
        .ok()
        .is_none_or(|before| before != sums);
    fs::write(&file, &sums).map_err(|e| Failure::io("write", &file, &e))?;
    print!("{sums}");
    println!(
        "{}: {}",
        target.display(),
        if changed {
            "written"
        } else {
            "the same bytes as before"
        }
    );
    Ok(ExitCode::SUCCESS)
}

/// Downloads and unpacks the Debian package into `folder`, without installing it.
fn fetch_package(folder: &Path) -> Result<PathBuf, Failure> {
    fs::create_dir_all(folder).map_err(|e| Failure::io("create", folder, &e))?;
    let script = format!("apt-get download {PACKAGE} && dpkg -x {PACKAGE}_*.deb .");
    let status = Command::new("sh")
        .args(["-c", &script])
        .current_dir(folder)
        .status();
    if status.is_ok_and(|status| status.success()) {
        return Ok(folder.join(INSTALLED.trim_start_matches('/')));
    }
    Err(Failure::new(
        format!("could not get Fashion-MNIST from the Debian package {PACKAGE}"),
        format!(
            "on Debian or Ubuntu: apt-get update && apt-get install {PACKAGE}\n\
             elsewhere: download Fashion-MNIST's four .gz files into DIR, then \
             `cargo xtask embedded-data --from DIR`"
        ),
    ))
}

/// The uncompressed bytes of a file of Fashion-MNIST, which must be the published ones.
fn read_source(folder: &Path, source: &Source) -> Result<Vec<u8>, Failure> {
    let path = folder.join(source.name);
    let compressed = fs::read(&path).map_err(|e| Failure::io("read", &path, &e))?;
    let mut bytes = Vec::new();
    MultiGzDecoder::new(compressed.as_slice())
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::io("uncompress", &path, &e))?;
    let found = sha256(&bytes);
    if found != source.sha256 {
        return Err(Failure::new(
            format!(
                "{} is not the file of Fashion-MNIST: SHA-256 of its content is {found}, not {}",
                path.display(),
                source.sha256
            ),
            format!("take it from the Debian package {PACKAGE}"),
        ));
    }
    Ok(bytes)
}

/// The IDX files of the first `kept` rows of each class, in the order of the source.
fn subset(images: &[u8], labels: &[u8], rows: usize, kept: usize) -> (Vec<u8>, Vec<u8>) {
    let pixels = SIDE * SIDE;
    let mut taken = [0; CLASSES];
    let total = kept * CLASSES;
    let mut subset_images = idx_header(&[total, SIDE, SIDE]);
    let mut subset_labels = idx_header(&[total]);
    // The sources' checksums vouch for headers of 16 and 8 bytes and for the number of rows.
    let (images, labels) = (&images[16..], &labels[8..]);
    for (row, &label) in labels.iter().enumerate().take(rows) {
        let taken = &mut taken[usize::from(label)];
        if *taken < kept {
            *taken += 1;
            subset_images.extend_from_slice(&images[row * pixels..(row + 1) * pixels]);
            subset_labels.push(label);
        }
    }
    (subset_images, subset_labels)
}

/// The header of an IDX file of unsigned bytes: 0, 0, type 8, number of dimensions, each size as
/// big-endian u32.
fn idx_header(sizes: &[usize]) -> Vec<u8> {
    let mut header = vec![0, 0, 8, sizes.len() as u8];
    for &size in sizes {
        header.extend_from_slice(&(size as u32).to_be_bytes());
    }
    header
}

/// Gzip without a time, a name or a system in it.
fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut writer = GzBuilder::new()
        .mtime(0)
        .operating_system(255)
        .write(Vec::new(), Compression::best());
    // Writing into memory can't fail.
    let written = writer.write_all(bytes).and_then(|()| writer.finish());
    written.unwrap_or_default()
}

/// The SHA-256 of bytes, in lower-case hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_first_rows_of_each_class_are_kept_in_order() {
        let pixels = SIDE * SIDE;
        // 3 rows of each class, descending classes, every pixel of row r is r.
        let labels: Vec<u8> = (0..30).map(|row| 9 - row % 10).collect();
        let images: Vec<u8> = (0..30).flat_map(|row| vec![row; pixels]).collect();
        let images = [idx_header(&[30, SIDE, SIDE]), images].concat();
        let labels = [idx_header(&[30]), labels].concat();
        let (images, labels) = subset(&images, &labels, 30, 2);
        assert_eq!(
            images[..16],
            [0, 0, 8, 3, 0, 0, 0, 20, 0, 0, 0, 28, 0, 0, 0, 28]
        );
        assert_eq!(labels[..8], [0, 0, 8, 1, 0, 0, 0, 20]);
        let expected: Vec<u8> = (0..20).map(|row| 9 - row % 10).collect();
        assert_eq!(labels[8..], expected);
        let rows: Vec<u8> = images[16..].chunks(pixels).map(|image| image[0]).collect();
        assert_eq!(rows, (0..20).collect::<Vec<u8>>());
    }

    #[test]
    fn compression_is_deterministic_and_lossless() {
        let bytes: Vec<u8> = (0..10_000u32).map(|i| ((i * i) >> 3) as u8).collect();
        let packed = compress(&bytes);
        assert_eq!(packed, compress(&bytes));
        assert_eq!(packed[4..8], [0; 4], "no time");
        assert_eq!(packed[9], 255, "no system");
        let mut back = Vec::new();
        MultiGzDecoder::new(packed.as_slice())
            .read_to_end(&mut back)
            .unwrap();
        assert_eq!(back, bytes);
    }

    #[test]
    fn another_file_is_refused() {
        let dir = tempfile::TempDir::new().unwrap();
        let source = &HALVES[0].labels;
        fs::write(dir.path().join(source.name), compress(b"MNIST")).unwrap();
        let failure = read_source(dir.path(), source).unwrap_err().to_string();
        assert!(
            failure.contains("is not the file of Fashion-MNIST"),
            "{failure}"
        );
        assert!(failure.contains(PACKAGE), "{failure}");
    }

    #[test]
    fn sha256_of_the_standard_example() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), expected);
    }
}
