//! Made-up images as files, little networks that are trained on them, and what another engine says of these.

use std::fs;
use std::path::Path;

use image::ColorType;
use nasfw::framework::dataset::{DataSource, Dataset, ImageData, Part};
use nasfw::framework::registry::{Kind, Registry};
use rten::{Model, Value as Tensor};
use serde_json::{Value, json};

use crate::program::good;

const CELL: &str =
    "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|";
/// `pattern 10` stands before `pattern 2` among folders, and behind it in the dataset.
pub const CLASSES: usize = 12;

fn settings(channels: usize, size: usize) -> [(&'static str, Value); 6] {
    [
        ("noise", json!(0.3)),
        ("images", json!(96)),
        ("test_images", json!(60)),
        ("classes", json!(CLASSES)),
        ("channels", json!(channels)),
        ("size", json!(size)),
    ]
}

/// A dataset with settings that are others than its defaults.
pub fn dataset(name: &str, settings: &[(&str, Value)]) -> Box<dyn Dataset> {
    let registry = Registry::load().unwrap();
    let plugin = registry.get(Kind::Dataset, name).unwrap();
    let mut section = plugin.default_section().unwrap();
    for (key, value) in settings {
        section[*key] = value.clone();
    }
    plugin.dataset(&section).unwrap()
}

/// The images of `synthetic` with these settings.
pub fn synthetic(channels: usize, size: usize) -> ImageData {
    let dataset = dataset("synthetic", &settings(channels, size));
    dataset.load(&DataSource::default()).unwrap()
}

/// Trains a little network on a dataset, in the folder `run`. In double precision: the order of images changes sums.
pub fn trained(dir: &Path, dataset: &[&str]) {
    let fixed = "--preset quick --channels 4 --cells 1 --epochs 4 --threads 1 --out . --name run --device cpu \
                 --set trainer.batch_size=16 --set precision=double";
    let mut args = vec!["retrain", CELL];
    args.extend(fixed.split_whitespace());
    args.extend(dataset);
    good(dir, &args);
}

/// The same on pictures of 18×18 pixels in the folder `own`, of which the network sees 16×16. Gives the words that name the
/// folder, and its images.
pub fn trained_on_pictures(dir: &Path) -> ([&'static str; 4], ImageData) {
    let data = synthetic(3, 18);
    as_files(&dir.join("own/train"), &data.train, [3, 18], pattern);
    as_files(&dir.join("own/val"), &data.test, [3, 18], pattern);
    let own = ["--dataset", "image-folder", "--data-dir", "own"];
    trained(dir, &[&own[..], &["--set", "dataset.size=16"]].concat());
    (own, data)
}

pub fn trained_on_synthetic(dir: &Path, channels: usize, size: usize) {
    let set = settings(channels, size).map(|(key, value)| format!("dataset.{key}={value}"));
    let set = set.iter().flat_map(|pair| ["--set", pair.as_str()]);
    let args: Vec<&str> = ["--dataset", "synthetic"].into_iter().chain(set).collect();
    trained(dir, &args);
}

/// The images of a part as PNG files; `name` says what a class is called, if it is there.
pub fn as_files(
    folder: &Path,
    part: &Part,
    [channels, size]: [usize; 2],
    name: impl Fn(usize) -> Option<String>,
) {
    let pixels = size * size;
    let images = part.images.bytes().chunks_exact(channels * pixels);
    for (i, (image, label)) in images.zip(&part.labels).enumerate() {
        let Some(class) = name(usize::from(*label)) else {
            continue;
        };
        fs::create_dir_all(folder.join(&class)).unwrap();
        let interleaved: Vec<u8> = (0..pixels)
            .flat_map(|p| (0..channels).map(move |c| image[c * pixels + p]))
            .collect();
        let kind = match channels {
            1 => ColorType::L8,
            _ => ColorType::Rgb8,
        };
        let file = folder.join(class).join(format!("{i:03}.png"));
        image::save_buffer(file, &interleaved, size as u32, size as u32, kind).unwrap();
    }
}

/// The same images for training and for testing.
pub fn as_dataset(
    folder: &Path,
    part: &Part,
    shape: [usize; 2],
    name: impl Fn(usize) -> Option<String>,
) {
    for to in ["train", "val"] {
        as_files(&folder.join(to), part, shape, &name);
    }
}

pub fn pattern(class: usize) -> Option<String> {
    Some(format!("pattern {class}"))
}

/// The logits of an exported model in another engine, image by image.
pub fn onnx_logits(model: Vec<u8>, shape: &[usize; 4], pixels: Vec<f32>) -> Vec<Vec<f64>> {
    let input = Tensor::from_shape(shape, pixels).unwrap();
    let model = Model::load(model).unwrap();
    let output = model.run_one(input.into(), None).unwrap();
    let ([_, outputs], logits) = output.into_shape_vec::<f32, 2>().unwrap();
    let rows = logits.chunks_exact(outputs);
    rows.map(|row| row.iter().map(|l| f64::from(*l)).collect())
        .collect()
}
