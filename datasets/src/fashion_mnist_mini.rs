//! A class-balanced subset of Fashion-MNIST inside the binary: the main job runs anywhere.

use std::path::{Path, PathBuf};

use nasfw_framework::dataset::{DataSource, Dataset, ImageData};
use nasfw_framework::{Result, register};
use serde::{Deserialize, Serialize};

use crate::{fashion_mnist, files};

/// Training and test images.
const ROWS: [usize; 2] = [5_000, 1_000];

/// A file of `datasets/data/fashion-mnist-mini`, made by `cargo xtask embedded-data`.
macro_rules! embedded {
    ($name:literal) => {
        (
            concat!("data/fashion-mnist-mini/", $name),
            include_bytes!(concat!("../data/fashion-mnist-mini/", $name)).as_slice(),
        )
    };
}

/// Compressed training images and labels, test images and labels, with the names of their files.
const FILES: [(&str, &[u8]); 4] = [
    embedded!("train-images-idx3-ubyte.gz"),
    embedded!("train-labels-idx1-ubyte.gz"),
    embedded!("t10k-images-idx3-ubyte.gz"),
    embedded!("t10k-labels-idx1-ubyte.gz"),
];

/// The first 500 training and 100 test images of each class of Fashion-MNIST.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FashionMnistMini {}

#[typetag::serde(name = "fashion-mnist-mini")]
impl Dataset for FashionMnistMini {
    fn load(&self, _source: &DataSource) -> Result<ImageData> {
        let part = |[images, labels]: [(&str, &[u8]); 2], rows| {
            let (images, labels) = (unpack(images)?, unpack(labels)?);
            fashion_mnist::part((&images.0, &images.1), (&labels.0, &labels.1), rows)
        };
        let [train_images, train_labels, test_images, test_labels] = FILES;
        fashion_mnist::data(
            part([train_images, train_labels], ROWS[0])?,
            part([test_images, test_labels], ROWS[1])?,
            Path::new("the embedded fashion-mnist-mini"),
        )
    }
}

register! {
    dataset "fashion-mnist-mini" => FashionMnistMini,
    summary: "5,000 + 1,000 images of Fashion-MNIST inside the binary, needs no files",
    source: "Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747; the first 500 + 100 images of each class",
    defaults: "[dataset]\n[trainer]\n# Small data for a first try: a few epochs say enough.\nepochs = 3\n",
    example: "nasfw run --dataset fashion-mnist-mini",
}

fn unpack((name, bytes): (&str, &[u8])) -> Result<(PathBuf, Vec<u8>)> {
    let path = PathBuf::from(name);
    let unpacked = files::take(flate2::read::MultiGzDecoder::new(bytes), usize::MAX / 2)
        .map_err(|error| files::corrupt(&path, error.to_string()))?;
    Ok((path, unpacked))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn the_embedded_bytes_have_the_recorded_checksums() {
        let recorded = include_str!("../data/fashion-mnist-mini/SHA256SUMS");
        assert_eq!(recorded.lines().count(), FILES.len());
        for (name, bytes) in FILES {
            let sum: String = Sha256::digest(bytes)
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            let file = Path::new(name).file_name().unwrap().to_str().unwrap();
            let line = format!("{sum}  {file}");
            assert!(recorded.lines().any(|recorded| recorded == line), "{line}");
        }
    }

    #[test]
    fn classes_are_balanced() {
        let data = FashionMnistMini::default()
            .load(&DataSource::default())
            .unwrap();
        for (part, each) in [(&data.train, 500), (&data.test, 100)] {
            for class in 0..10 {
                let count = part.labels.iter().filter(|&&label| label == class).count();
                assert_eq!(count, each, "class {class}");
            }
            assert_eq!(part.images.bytes().len(), part.len() * 28 * 28);
        }
        // The subset looks like the whole: its mean is within one percent of the published one.
        let pixels = data.train.images.bytes();
        let sum: f64 = pixels.iter().map(|&pixel| f64::from(pixel)).sum();
        let mean = sum / 255.0 / pixels.len() as f64;
        assert!((mean - fashion_mnist::MEAN).abs() < 0.01, "{mean}");
    }
}
