//! Images made up from a seed: every class has a pattern of its own, noise hides it.

use nasfw_framework::config::Validator;
use nasfw_framework::dataset::{DataSource, Dataset, ImageData, Part};
use nasfw_framework::rng::Streams;
use nasfw_framework::space::Task;
use nasfw_framework::{Result, register};
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

/// The most bytes of all images.
const MOST_BYTES: u64 = 4 << 30;

/// A made-up dataset of any size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Synthetic {
    /// Training images.
    pub images: usize,
    /// Test images.
    pub test_images: usize,
    /// Classes, at most 1,000.
    pub classes: i64,
    /// Colour channels.
    pub channels: i64,
    /// Rows and columns.
    pub size: i64,
    /// Standard deviation of the noise, where that of the patterns is 1.
    pub noise: f64,
}

register! {
    dataset "synthetic" => Synthetic,
    summary: "made-up images of any size: a smooth pattern a class, hidden by noise",
    source: "nasfw",
    defaults: "[dataset]\n\
        # Training images.\n\
        images = 512\n\
        # Test images.\n\
        test_images = 128\n\
        # Classes.\n\
        classes = 4\n\
        # Colour channels.\n\
        channels = 3\n\
        # Rows and columns.\n\
        size = 16\n\
        # Standard deviation of the noise, where that of the patterns is 1.\n\
        noise = 1.0\n",
    example: "nasfw run --dataset synthetic --set dataset.images=1000 --set dataset.noise=2.0",
}

#[typetag::serde(name = "synthetic")]
impl Dataset for Synthetic {
    fn load(&self, source: &DataSource) -> Result<ImageData> {
        let streams = Streams::new(source.seed).child("synthetic", 0);
        let patterns: Vec<Vec<f64>> = (0..self.classes)
            .map(|c| self.pattern(streams, c as u64))
            .collect();
        let part = |name: &str, count: usize| {
            let mut rng = streams.at(name, 0);
            let (mut images, mut labels) = (vec![], vec![]);
            for i in 0..count {
                let class = i % patterns.len();
                labels.push(class as u16);
                images.extend(patterns[class].iter().map(|p| {
                    let noise: f64 = StandardNormal.sample(&mut rng);
                    ((p + self.noise * noise) * 32.0 + 127.5).clamp(0.0, 255.0) as u8
                }));
            }
            Part {
                images: images.into(),
                labels,
            }
        };
        let channels = self.channels as usize;
        let data = ImageData {
            task: Task {
                channels: self.channels,
                height: self.size,
                width: self.size,
                classes: self.classes,
            },
            train: part("train", self.images),
            test: part("test", self.test_images),
            split: None,
            mean: vec![0.5; channels],
            std: vec![(1.0 + self.noise * self.noise).sqrt() * 32.0 / 255.0; channels],
            classes: (0..self.classes).map(|c| format!("pattern {c}")).collect(),
        };
        data.check("the synthetic dataset")
    }

    fn validate(&self, v: &mut Validator) {
        v.at_least("dataset.images", self.images, 4);
        v.at_least("dataset.test_images", self.test_images, 2);
        v.range("dataset.classes", self.classes, 2, 1000);
        v.range("dataset.channels", self.channels, 1, 16);
        v.range("dataset.size", self.size, 1, 256);
        v.range("dataset.noise", self.noise, 0.0, 100.0);
        // Both are in memory at once. What is out of its own range may be anything here.
        let images = self.images.saturating_add(self.test_images) as u64;
        let image = [self.channels, self.size, self.size]
            .iter()
            .fold(1, |product: u64, n| {
                product.saturating_mul(n.unsigned_abs())
            });
        if images.saturating_mul(image) > MOST_BYTES {
            let message = format!(
                "{images} images of {image} bytes are too many, {MOST_BYTES} bytes are the most"
            );
            v.problem("dataset.images", message);
        }
    }
}

impl Synthetic {
    /// A sum of three waves of random direction, phase and colour, of unit variance.
    fn pattern(&self, streams: Streams, class: u64) -> Vec<f64> {
        let mut rng = streams.at("pattern", class);
        let mut normal = || -> f64 { StandardNormal.sample(&mut rng) };
        let waves: Vec<[f64; 4]> = (0..3 * self.channels)
            .map(|_| [normal() * 4.0, normal() * 4.0, normal() * 3.0, normal()])
            .collect();
        let size = self.size as f64;
        let mut pixels = Vec::new();
        for channel in 0..self.channels as usize {
            for y in 0..self.size {
                for x in 0..self.size {
                    let (y, x) = (y as f64 / size, x as f64 / size);
                    let waves = &waves[3 * channel..3 * channel + 3];
                    pixels.push(
                        waves
                            .iter()
                            .map(|[a, b, c, d]| d * (a * y + b * x + c).sin())
                            .sum(),
                    );
                }
            }
        }
        let n = pixels.len() as f64;
        let mean: f64 = pixels.iter().sum::<f64>() / n;
        let var: f64 = pixels.iter().map(|p: &f64| (p - mean).powi(2)).sum::<f64>() / n;
        let scale = var.sqrt().max(1e-9);
        pixels.into_iter().map(|p| (p - mean) / scale).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn make(seed: u64) -> ImageData {
        let s = Synthetic {
            images: 60,
            test_images: 12,
            classes: 3,
            channels: 2,
            size: 8,
            noise: 0.5,
        };
        s.load(&DataSource {
            seed,
            ..Default::default()
        })
        .unwrap()
    }

    #[test]
    fn the_seed_decides_everything() {
        let images = |seed| make(seed).train.images.bytes().to_vec();
        assert_eq!(images(1), images(1));
        assert_eq!(make(1).checksum(), make(1).checksum());
        assert_ne!(images(1), images(2));
        assert_ne!(images(1)[..12 * 128], make(1).test.images.bytes()[..]);
    }

    /// The nearest class mean of the training images recognises the test images: there is something to learn.
    #[test]
    fn classes_can_be_told_apart() {
        let d = make(5);
        let mut means = vec![vec![0.0; 128]; 3];
        for (label, image) in d
            .train
            .labels
            .iter()
            .zip(d.train.images.bytes().chunks(128))
        {
            for (m, p) in means[usize::from(*label)].iter_mut().zip(image) {
                *m += f64::from(*p) / 20.0;
            }
        }
        let distance = |image: &[u8], m: &[f64]| -> f64 {
            image
                .iter()
                .zip(m)
                .map(|(p, m)| (f64::from(*p) - m).powi(2))
                .sum()
        };
        let right = d
            .test
            .labels
            .iter()
            .zip(d.test.images.bytes().chunks(128))
            .filter(|(label, image)| {
                let best = (0..3).min_by(|a, b| {
                    distance(image, &means[*a]).total_cmp(&distance(image, &means[*b]))
                });
                best == Some(usize::from(**label))
            });
        assert_eq!(right.count(), 12);
    }
}
