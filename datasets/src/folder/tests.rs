//! Folders of images that these tests make, against plain loops.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod layouts;
mod shown;

use std::collections::HashMap;
use std::fs;

use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use nasfw_framework::rng::{Rng, Streams};
use proptest::prelude::*;

use super::view::{View, middle_view, random_view};
use super::*;

fn settings() -> Folders {
    Folders {
        size: 8,
        resize: 10,
        crop_scale: [0.08, 1.0],
        weights_fraction: 0.5,
        arch_fraction: 0.5,
        check: false,
    }
}

/// A smooth picture that tells left from right, top from bottom, and one number from another.
fn picture(width: u32, height: u32, number: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let wave = |a: u32, b: u32| {
            (127.0 + 120.0 * (0.07 * f64::from(a * x + b * y + 31 * number)).sin()) as u8
        };
        image::Rgb([wave(1, 2), wave(2, 1), wave(1, 0)])
    })
}

fn jpeg(image: &RgbImage) -> Vec<u8> {
    let mut bytes = vec![];
    JpegEncoder::new_with_quality(&mut bytes, 95)
        .encode_image(image)
        .unwrap();
    bytes
}

/// Three classes with 10, 5 and 1 training images and two test images each, some PNG, of several shapes.
fn write() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut number = 0;
    for (part, counts) in [("train", [10, 5, 1]), ("val", [2, 2, 2])] {
        for (class, count) in ["n01", "n02", "n10"].into_iter().zip(counts) {
            let folder = dir.path().join(part).join(class);
            fs::create_dir_all(&folder).unwrap();
            for i in 0..count {
                let image = picture(20 + 3 * i, 34 - 2 * i, number);
                if i == 1 {
                    image.save(folder.join("a picture.PNG")).unwrap();
                } else {
                    fs::write(folder.join(format!("{class}_{i}.JPEG")), jpeg(&image)).unwrap();
                }
                number += 1;
            }
        }
    }
    fs::write(dir.path().join("train/.hidden"), "not looked at").unwrap();
    dir
}

fn source(dir: &Path) -> DataSource {
    DataSource {
        dir: Some(dir.to_owned()),
        ..DataSource::default()
    }
}

fn load(dir: &Path) -> Result<ImageData> {
    ImageFolder(settings()).load(&source(dir))
}

fn decode(part: &Part, index: usize, random: Option<&mut Rng>, size: usize) -> Result<Vec<u8>> {
    let Images::Source(source) = &part.images else {
        panic!("these images are decoded");
    };
    let mut bytes = vec![0; 3 * size * size];
    source.decode(index, random, &mut bytes).map(|()| bytes)
}

/// What Pillow computes, in floating point: a triangle as wide as a pixel of the smaller image, normalised, first along
/// rows, then along columns, each rounded to bytes.
fn reference(image: &RgbImage, [left, top, width, height]: [f64; 4], size: u32) -> Vec<[f64; 3]> {
    let weights = |from: f64, length: f64, limit: u32, at: u32| -> Vec<(u32, f64)> {
        let scale = length / f64::from(size);
        let support = scale.max(1.0);
        let centre = from + (f64::from(at) + 0.5) * scale;
        let all = (0..limit).map(|p| {
            (
                p,
                (1.0 - ((f64::from(p) + 0.5 - centre) / support).abs()).max(0.0),
            )
        });
        let all: Vec<_> = all.filter(|(_, w)| *w > 0.0).collect();
        let sum: f64 = all.iter().map(|(_, w)| w).sum();
        all.into_iter().map(|(p, w)| (p, w / sum)).collect()
    };
    let mut out = vec![];
    for y in 0..size {
        for x in 0..size {
            let (across, down) = (
                weights(left, width, image.width(), x),
                weights(top, height, image.height(), y),
            );
            out.push([0, 1, 2].map(|c| {
                let row = |y: u32| {
                    across
                        .iter()
                        .map(|(x, w)| w * f64::from(image[(*x, y)][c]))
                        .sum::<f64>()
                        .round()
                };
                down.iter().map(|(y, w)| w * row(*y)).sum::<f64>().round()
            }));
        }
    }
    out
}

fn largest_difference(planes: &[u8], reference: &[[f64; 3]]) -> f64 {
    let n = reference.len();
    let all = (0..n)
        .flat_map(|i| [0, 1, 2].map(|c| (f64::from(planes[c * n + i]) - reference[i][c]).abs()));
    all.fold(0.0, f64::max)
}

#[test]
fn classes_labels_and_splits_follow_the_folders() {
    let dir = write();
    let data = load(dir.path()).unwrap();
    assert_eq!(data.classes, ["n01", "n02", "n10"]);
    let mut counts = [[0; 3]; 2];
    let split = data.split.unwrap();
    for (i, label) in data.train.labels.iter().enumerate() {
        counts[usize::from(i >= split)][usize::from(*label)] += 1;
    }
    assert_eq!(
        counts,
        [[5, 3, 1], [5, 2, 0]],
        "half of each class, the odd one for the weights"
    );
    assert_eq!(data.test.labels, [0, 0, 1, 1, 2, 2]);

    let some = Folders {
        weights_fraction: 0.2,
        arch_fraction: 0.1,
        ..settings()
    };
    let data = some.load(dir.path(), &DataSource::default()).unwrap();
    assert_eq!(
        (data.split, data.train.labels),
        (Some(4), vec![0, 0, 1, 2, 0, 1])
    );
}

/// Every file of a part comes out as its own label's picture: the right one among all, and close to it.
#[test]
fn every_image_is_decoded_once_with_its_own_label() {
    let dir = write();
    let data = load(dir.path()).unwrap();
    // All pictures in the order that they were written in, and their classes.
    let shapes = [10u32, 5, 1]
        .into_iter()
        .enumerate()
        .flat_map(|(c, n)| (0..n).map(move |i| (c, i)));
    let pictures: Vec<_> = shapes
        .enumerate()
        .map(|(n, (c, i))| (c, picture(20 + 3 * i, 34 - 2 * i, n as u32)))
        .collect();
    let mut seen = HashMap::new();
    for (i, label) in data.train.labels.iter().enumerate() {
        let bytes = decode(&data.train, i, None, 8).unwrap();
        let distance = |image: &RgbImage| {
            let view = middle_view(image.dimensions(), 10, 8);
            largest_difference(&bytes, &reference(image, view.part, 8))
        };
        let (nearest, (class, image)) = pictures
            .iter()
            .enumerate()
            .min_by(|a, b| distance(&a.1.1).total_cmp(&distance(&b.1.1)))
            .unwrap();
        assert_eq!(*class, usize::from(*label));
        assert!(
            distance(image) <= 12.0,
            "JPEG is not exact: {}",
            distance(image)
        );
        *seen.entry(nearest).or_insert(0) += 1;
    }
    assert!(
        seen.len() == 16 && seen.values().all(|n| *n == 1),
        "{seen:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    /// Scaling is Pillow's within rounding, for the views of training and of testing. Both round after the rows and after
    /// the columns, with weights in fixed point: a tie that falls the other way makes one step each time.
    #[test]
    fn views_are_scaled_like_pillow(width in 3u32..60, height in 3u32..60, size in 4u32..20, more in 0u32..8, seed in any::<u64>()) {
        let image = picture(width, height, seed as u32 % 100);
        let mut rng = Streams::new(seed).at("view", 0);
        let planes = |view: View| {
            let pixels = view.of(&image).unwrap();
            let planes: Vec<u8> = (0..3).flat_map(|c| pixels[c..].iter().step_by(3).copied().collect::<Vec<_>>()).collect();
            planes
        };
        let middle = middle_view((width, height), size + more, size);
        prop_assert!(largest_difference(&planes(middle), &reference(&image, middle.part, size)) <= 2.0);
        let random = random_view((width, height), [0.08, 1.0], size, &mut rng);
        let [left, top, w, h] = random.seen;
        // Torchvision crops first: what lies outside of the crop has no influence.
        let crop = image::imageops::crop_imm(&image, left, top, w, h).to_image();
        let difference = largest_difference(&planes(random), &reference(&crop, random.part, size));
        prop_assert!(difference <= 2.0, "{difference} {random:?}");
    }

    #[test]
    fn random_views_are_torchvisions(width in 1u32..700, height in 1u32..700, seed in any::<u64>()) {
        let mut rng = Streams::new(seed).at("view", 0);
        let View { seen: [left, top, w, h], part, size } = random_view((width, height), [0.08, 1.0], 224, &mut rng);
        prop_assert!(w >= 1 && h >= 1 && left + w <= width && top + h <= height);
        prop_assert_eq!((part, size), ([0.0, 0.0, f64::from(w), f64::from(h)], 224));
        // The rounding of a side moves the ratio.
        let (w, h) = (f64::from(w), f64::from(h));
        let (low, high) = ((w - 0.5) / (h + 0.5), (w + 0.5) / (h - 0.5).max(0.1));
        prop_assert!(high >= 0.75 - 1e-9 && low <= 4.0 / 3.0 + 1e-9, "{} x {}", w, h);
    }
}

/// Areas are uniform, the logarithm of the ratio too, and places are uniform in what is left (all far from the border
/// cases of an image so large).
#[test]
fn random_views_have_torchvisions_distribution() {
    let views: Vec<View> = (0..2000)
        .map(|i| {
            random_view(
                (3000, 3000),
                [0.1, 0.4],
                8,
                &mut Streams::new(i).at("view", 0),
            )
        })
        .collect();
    let mean = |f: &dyn Fn(&View) -> f64| views.iter().map(f).sum::<f64>() / 2000.0;
    let side = |v: &View, i: usize| f64::from(v.seen[i]);
    let area = mean(&|v| side(v, 2) * side(v, 3) / 9e6);
    assert!((area - 0.25).abs() < 0.01, "{area}");
    let ratio = mean(&|v| (side(v, 2) / side(v, 3)).ln());
    assert!(ratio.abs() < 0.02, "{ratio}");
    let spread = mean(&|v| (side(v, 2) / side(v, 3)).ln().powi(2));
    assert!(
        (spread - (4f64 / 3.0).ln().powi(2) / 3.0).abs() < 0.003,
        "{spread}"
    );
    for i in 0..2 {
        let place = mean(&|v| side(v, i) / (3000.0 - side(v, i + 2)));
        assert!((place - 0.5).abs() < 0.03, "{place}");
    }
}

/// Values computed with torchvision's formulas by hand.
#[test]
fn middle_views_are_torchvisions() {
    let view = |w, h, resize, size| middle_view((w, h), resize, size).part;
    // 500 × 375 becomes 341 × 256; of that columns 58 to 282 (58.5 rounds to even) and rows 16 to 240.
    let (x, y) = (500.0 / 341.0, 375.0 / 256.0);
    assert_eq!(
        view(500, 375, 256, 224),
        [58.0 * x, 16.0 * y, 224.0 * x, 224.0 * y]
    );
    assert_eq!(
        view(375, 500, 256, 224),
        [16.0 * y, 58.0 * x, 224.0 * y, 224.0 * x]
    );
    assert_eq!(view(256, 256, 256, 224), [16.0, 16.0, 224.0, 224.0]);
    assert_eq!(view(64, 64, 64, 64), [0.0, 0.0, 64.0, 64.0]);
    // 11 · (23 / 11) is more than 23 in floating point.
    assert_eq!(view(23, 25, 11, 11)[2], 23.0);
    // No other pixels than those of the middle are computed: this one would be 33,553,920 pixels long.
    let [left, ..] = view(65_535, 1, 512, 8);
    assert!((left - 32_767.5).abs() < 1.0, "{left}");
}

#[test]
fn where_ten_tries_do_not_fit_the_middle_is_taken() {
    let view = |w, h| random_view((w, h), [0.9, 1.0], 8, &mut Streams::new(1).at("view", 0)).seen;
    assert_eq!(
        view(400, 30),
        [180, 0, 40, 30],
        "as wide as 4/3 of its height"
    );
    assert_eq!(
        view(30, 400),
        [0, 180, 30, 40],
        "as high as 4/3 of its width"
    );
}

#[test]
fn the_randomness_of_a_view_is_its_own() {
    let dir = write();
    let data = load(dir.path()).unwrap();
    let view = |counter| {
        let mut rng = Streams::new(9).at("image", counter);
        decode(&data.train, 3, Some(&mut rng), 8).unwrap()
    };
    assert_eq!(view(0), view(0));
    assert_ne!(view(0), view(1));
}

#[test]
fn the_checksum_is_that_of_names_and_lengths() {
    let dir = write();
    let sum = || load(dir.path()).unwrap().checksum();
    let before = sum();
    assert_eq!(before, sum());
    let path = dir.path().join("train/n02/n02_0.JPEG");
    let mut bytes = fs::read(&path).unwrap();
    bytes[700] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(before, sum(), "contents are not read");
    bytes.push(0);
    fs::write(&path, &bytes).unwrap();
    let longer = sum();
    assert_ne!(before, longer);
    fs::rename(&path, dir.path().join("train/n02/other.jpg")).unwrap();
    assert_ne!(longer, sum());
}

/// Every mistake with folders and files: what is done to a good dataset, and what the error says and advises.
#[test]
fn each_mistake_is_named_with_what_to_type() {
    type Damage = fn(&Path) -> std::io::Result<()>;
    let cases: [(Damage, &str, &str); 12] = [
        (
            |d| fs::rename(d.join("train"), d.join("training")),
            "no folder `train`",
            "--dataset image-folder --data-dir DIR",
        ),
        (
            |d| fs::rename(d.join("val"), d.join("x")),
            "no folder `val` or `test`",
            "docs/datasets.md",
        ),
        (
            |d| {
                fs::remove_dir_all(d.join("val"))?;
                fs::create_dir(d.join("val"))?;
                fs::copy(d.join("train/n01/n01_0.JPEG"), d.join("val/1.JPEG")).map(|_| ())
            },
            "val: holds 1 images but no folders of classes",
            "folder of their own",
        ),
        (
            |d| fs::remove_dir_all(d.join("train/n02")),
            "val/n02: there is no class of this name",
            "rename or remove",
        ),
        (
            |d| fs::remove_dir_all(d.join("val/n02")),
            "val/n02: this class has no folder here",
            "put images of `n02`",
        ),
        (
            |d| {
                fs::remove_dir_all(d.join("train"))?;
                fs::create_dir_all(d.join("train/n01"))
            },
            "holds only one class",
            "folder of their own",
        ),
        (
            |d| {
                fs::remove_dir_all(d.join("train/n10"))?;
                fs::create_dir(d.join("train/n10"))
            },
            "train/n10: holds no images",
            "put images there",
        ),
        (
            |d| fs::write(d.join("train/n02/n02_2.JPEG"), ""),
            "n02_2.JPEG: is empty",
            "delete",
        ),
        (
            |d| fs::write(d.join("train/n02/notes.txt"), "hello"),
            "notes.txt: is neither",
            "out of this folder",
        ),
        (
            |d| fs::create_dir(d.join("train/n02/more")),
            "more: is neither",
            "out of this folder",
        ),
        // These are found when the image is decoded.
        (
            |d| fs::write(d.join("train/n02/n02_2.JPEG"), "hello"),
            "n02_2.JPEG: is no image",
            "dataset.check=true",
        ),
        (
            |d| {
                let path = d.join("train/n02/n02_2.JPEG");
                let bytes = fs::read(&path)?;
                fs::write(&path, &bytes[..bytes.len() / 2])
            },
            "n02_2.JPEG: this JPEG file is truncated",
            "dataset.check=true",
        ),
    ];
    for (damage, words, advice) in cases {
        let dir = write();
        damage(dir.path()).unwrap();
        let check = Folders {
            check: true,
            ..settings()
        };
        let error = ImageFolder(check).load(&source(dir.path())).unwrap_err();
        assert!(error.to_string().contains(words), "{words}: {error}");
        assert!(
            error.help().unwrap().contains(advice),
            "{advice}: {:?}",
            error.help()
        );
        assert_eq!(error.exit_code(), 3);
        if advice.contains("check") {
            let data = load(dir.path()).unwrap();
            let found: Vec<String> = (0..16)
                .filter_map(|i| decode(&data.train, i, None, 8).err())
                .map(|e| e.to_string())
                .collect();
            assert_eq!(found, [error.to_string()], "the others are decoded");
        }
    }
}

#[test]
fn imagenet_has_a_thousand_classes() {
    let dir = write();
    let error = ImageNet(settings()).load(&source(dir.path())).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("3 class folders, ImageNet has 1,000"),
        "{error}"
    );
    assert!(error.help().unwrap().contains("image-folder"));
}

/// Labels beyond a byte, and a folder `test` in place of `val`.
#[test]
fn three_hundred_classes() {
    let dir = tempfile::tempdir().unwrap();
    let image = jpeg(&picture(12, 12, 0));
    for part in ["train", "test"] {
        for class in 0..300 {
            let folder = dir.path().join(part).join(format!("{class:03}"));
            fs::create_dir_all(&folder).unwrap();
            for i in 0..2 {
                fs::write(folder.join(format!("{i}.jpg")), &image).unwrap();
            }
        }
    }
    let data = load(dir.path()).unwrap();
    assert_eq!(data.train.labels[..300], (0..300).collect::<Vec<u16>>());
    assert_eq!(data.task.classes, 300);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Any damage to a file is an error that names it, or pixels; never a panic.
    #[test]
    fn damage_is_an_error_or_pixels(at in 0.0f64..1.0, value in any::<u8>(), cut in any::<bool>(), png in any::<bool>()) {
        let dir = write();
        let name = if png { "a picture.PNG" } else { "n01_2.JPEG" };
        let path = dir.path().join("train/n01").join(name);
        let mut bytes = fs::read(&path).unwrap();
        let at = 1 + ((bytes.len() - 2) as f64 * at) as usize;
        bytes[at] = value;
        if cut {
            bytes.truncate(at);
        }
        fs::write(&path, &bytes).unwrap();
        let data = load(dir.path()).unwrap();
        for i in 0..data.train.len() {
            match decode(&data.train, i, None, 8) {
                Ok(_) => {}
                Err(error) => prop_assert!(error.to_string().contains(name), "{}", error),
            }
        }
        if cut {
            prop_assert!((0..data.train.len()).any(|i| decode(&data.train, i, None, 8).is_err()));
        }
    }
}

/// Not a test: images a second, for docs/datasets.md.
#[test]
#[ignore = "a measurement: cargo test -p nasfw-datasets speed -- --ignored --nocapture"]
#[allow(clippy::print_stdout)]
fn speed() {
    let image = picture(500, 375, 3);
    let noisy = RgbImage::from_fn(500, 375, |x, y| {
        image::Rgb(image[(x, y)].0.map(|v| v ^ (x * y % 13) as u8))
    });
    let dir = tempfile::tempdir().unwrap();
    for part in ["train", "val"] {
        for class in ["a", "b"] {
            let folder = dir.path().join(part).join(class);
            fs::create_dir_all(&folder).unwrap();
            for i in 0..4 {
                let mut bytes = vec![];
                JpegEncoder::new_with_quality(&mut bytes, 90)
                    .encode_image(&noisy)
                    .unwrap();
                fs::write(folder.join(format!("{i}.jpg")), bytes).unwrap();
            }
        }
    }
    let imagenet = Folders {
        size: 224,
        resize: 256,
        ..settings()
    };
    let data = imagenet.load(dir.path(), &DataSource::default()).unwrap();
    let bytes = fs::metadata(dir.path().join("train/a/0.jpg"))
        .unwrap()
        .len();
    for threads in [1, 2] {
        for random in [true, false] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let begin = std::time::Instant::now();
            let n = 1000;
            pool.install(|| {
                (0..n).into_par_iter().for_each(|i| {
                    let mut rng = Streams::new(i).at("view", 0);
                    decode(&data.train, i as usize % 8, random.then_some(&mut rng), 224).unwrap();
                });
            });
            let rate = n as f64 / begin.elapsed().as_secs_f64();
            println!(
                "{threads} threads, random {random}: {rate:.0} images a second of {bytes} bytes"
            );
        }
    }
}
