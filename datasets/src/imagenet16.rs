//! ImageNet16 (Chrabaszcz, Loshchilov, Hutter 2017, arXiv:1707.08819): ImageNet scaled down to 16×16 pixels, in
//! pickled batches of Python. NAS-Bench-201 uses its first 120 classes.

use std::collections::BTreeMap;
use std::path::Path;

use md5::{Digest, Md5};
use nasfw_framework::config::Validator;
use nasfw_framework::dataset::{DataSource, Dataset, ImageData, Part};
use nasfw_framework::space::Task;
use nasfw_framework::{Error, Result, register};
use serde::{Deserialize, Serialize};
use serde_pickle::{DeOptions, HashableValue, Value};

use crate::{files, subset};

/// Bytes of an image: the red, green and blue planes.
const IMAGE: usize = 3 * 16 * 16;
/// The longest file that is read; the real ones have up to 99 MB.
const LIMIT: usize = 1 << 30;
/// Of NAS-Bench-201, in units of [0, 255].
const MEAN: [f64; 3] = [122.68, 116.66, 104.01];
const STD: [f64; 3] = [63.22, 61.26, 65.09];

/// The files with their published MD5 sums (AutoDL-Projects, `DownsampledImageNet.py`); the last one holds the
/// validation images.
const FILES: [(&str, &str); 11] = [
    ("train_data_batch_1", "27846dcaa50de8e21a7d1a35f30f0e91"),
    ("train_data_batch_2", "c7254a054e0e795c69120a5727050e3f"),
    ("train_data_batch_3", "4333d3df2e5ffb114b05d2ffc19b1e87"),
    ("train_data_batch_4", "1620cdf193304f4a92677b695d70d10f"),
    ("train_data_batch_5", "348b3c2fdbb3940c4e9e834affd3b18d"),
    ("train_data_batch_6", "6e765307c242a1b3d7d5ef9139b48945"),
    ("train_data_batch_7", "564926d8cbf8fc4818ba23d2faac7564"),
    ("train_data_batch_8", "f4755871f718ccb653440b9dd0ebac66"),
    ("train_data_batch_9", "bb6dd660c38c58552125b1a92f86b5d4"),
    ("train_data_batch_10", "8f03f34ac4b42271a294f91bf480f29b"),
    ("val_data", "3410e3017fdaefba8d5073aaa65e4bd6"),
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

#[typetag::serde(name = "imagenet16-120")]
impl Dataset for ImageNet16 {
    fn load(&self, source: &DataSource) -> Result<ImageData> {
        let folders = files::folders(source, "ImageNet16", &[]);
        let held = |folder: &Path| {
            FILES
                .iter()
                .filter(|(name, _)| folder.join(name).exists())
                .count()
        };
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
        let data = self.read_folder(folder)?;
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
    /// Reads the eleven files, whatever number of images they hold. Another MD5 sum than the published one is a
    /// warning: files that were pickled again with the same content are good, and all sizes are checked.
    fn read_folder(&self, folder: &Path) -> Result<ImageData> {
        let part = |files: &[(&str, &str)]| -> Result<Part> {
            let (mut images, mut labels) = (vec![], vec![]);
            for (name, md5) in files {
                let path = folder.join(name);
                let bytes = files::read(&path, LIMIT)?;
                let sum: String = Md5::digest(&bytes)
                    .iter()
                    .map(|b| format!("{b:02x}"))
                    .collect();
                if sum != *md5 {
                    tracing::warn!("{}: MD5 sum {sum}, published is {md5}", path.display());
                }
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
        let scaled = |values: [f64; 3]| values.map(|v| v / 255.0).to_vec();
        let data = ImageData {
            task: Task {
                channels: 3,
                height: 16,
                width: 16,
                classes: i64::from(self.classes),
            },
            train: part(train)?,
            test: part(&[*test])?,
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

/// Reads a pickled dictionary with the NumPy array `data` `[n, 768]` of bytes and the list `labels`. Nothing in the
/// file is executed: objects come as the tuples that they would be made from.
fn unpickle(bytes: &[u8]) -> Result<Batch, String> {
    let options = DeOptions::new()
        .keep_restore_state()
        .replace_unresolved_globals();
    let value = serde_pickle::value_from_slice(bytes, options).map_err(|e| {
        // The text of an error may quote a whole array.
        let text: String = e.to_string().chars().take(200).collect();
        format!("is no pickled batch: {text}")
    })?;
    let Value::Dict(mut entries) = value else {
        return Err("holds no dictionary".into());
    };
    let mut entry =
        |name: &str| take(&mut entries, name).ok_or(format!("its dictionary has no `{name}`"));
    let (data, labels) = (entry("data")?, entry("labels")?);
    let (rows, images) = array(data).ok_or(format!(
        "`data` is no array [n, {IMAGE}] of bytes in row order"
    ))?;
    let Value::List(labels) = labels else {
        return Err("`labels` is no list".into());
    };
    if labels.len() != rows {
        return Err(format!("holds {rows} images and {} labels", labels.len()));
    }
    let labels = labels.iter().enumerate().map(|(i, label)| match label {
        Value::I64(label @ 1..=1000) => Ok(*label as u16),
        Value::I64(other) => Err(format!(
            "image {i} (from 0) has label {other}, labels are 1 to 1,000"
        )),
        _ => Err(format!("the label of image {i} (from 0) is no number")),
    });
    Ok(Batch {
        images,
        labels: labels.collect::<Result<_, _>>()?,
    })
}

/// Python 2 pickles a string as bytes, Python 3 as text.
fn take(entries: &mut BTreeMap<HashableValue, Value>, name: &str) -> Option<Value> {
    let text = HashableValue::String(name.into());
    let bytes = HashableValue::Bytes(name.into());
    entries.remove(&text).or_else(|| entries.remove(&bytes))
}

/// Rows and bytes of a NumPy array of shape [rows, 768]. Its state is (version, shape, type, column order, bytes); from
/// protocol 5 on an array is made from (bytes, type, shape, order).
fn array(value: Value) -> Option<(usize, Vec<u8>)> {
    let Value::Tuple(state) = value else {
        return None;
    };
    let (mut shape, mut images) = (None, None);
    for item in state {
        match item {
            Value::Tuple(items) => {
                if let [Value::I64(rows), Value::I64(columns)] = items[..] {
                    shape = Some((usize::try_from(rows).ok()?, usize::try_from(columns).ok()?));
                }
            }
            Value::Bytes(bytes) if bytes.len() > 1 => images = Some(bytes),
            Value::Bool(true) => return None,
            Value::String(order) if order == "F" => return None,
            _ => {}
        }
    }
    let ((rows, IMAGE), images) = (shape?, images?) else {
        return None;
    };
    (images.len() == rows.checked_mul(IMAGE)?).then_some((rows, images))
}
