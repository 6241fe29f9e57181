//! Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747): four IDX files, compressed or not.

use std::path::{Path, PathBuf};

use nasfw_framework::dataset::{DataSource, Dataset, ImageData, Part};
use nasfw_framework::space::Task;
use nasfw_framework::{Result, register};
use serde::{Deserialize, Serialize};

use crate::download::{Lock, Remote, fetch};
use crate::published::{self, Check, Stranger, Sum};
use crate::{files, idx, subset};

/// Rows and columns of an image.
pub const SIDE: usize = 28;
/// Mean of all training pixels, in units of [0, 1].
pub const MEAN: f64 = 0.286_04;
/// Standard deviation of all training pixels, in units of [0, 1].
pub const STD: f64 = 0.353_02;
/// The ten classes.
pub const CLASSES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

const NAME: &str = "fashion-mnist";
/// Where the Debian package dataset-fashion-mnist puts its files.
const SYSTEM: &str = "/usr/share/datasets/fashion-mnist";
const URL: &str = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com";

/// The files: training images and labels, test images and labels, with the MD5 sums of their compressed form that the
/// authors publish, and those of the content.
const FILES: [(&str, &str, Sum); 4] = [
    (
        "train-images-idx3-ubyte",
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        Sum::Md5("f4a8712d7a061bf5bd6d2ca38dc4d50a"),
    ),
    (
        "train-labels-idx1-ubyte",
        "25c81989df183df01b3e8a0aad5dffbe",
        Sum::Md5("9018921c3c673c538a1fc5bad174d6f9"),
    ),
    (
        "t10k-images-idx3-ubyte",
        "bef4ecab320f06d8554ea6380940ec79",
        Sum::Md5("8181f5470baa50b63fa0f6fddb340f0a"),
    ),
    (
        "t10k-labels-idx1-ubyte",
        "bb300cfdad3c16e7a12a480ee83cd310",
        Sum::Md5("15d484375f8d13e6eb1aabb0c3f46965"),
    ),
];

/// MNIST's files have the same names and sizes.
const STRANGERS: [Stranger; 1] = [Stranger {
    name: "MNIST",
    sums: &[
        Sum::Md5("6bbc9ace898e44ae57da46a324031adb"),
        Sum::Md5("a25bea736e30d166cdddb491f175f624"),
        Sum::Md5("2646ac647ad5339dbf082846283269ea"),
        Sum::Md5("27ae3e4e09519cfbb04c329615203637"),
    ],
}];

/// Fashion-MNIST from its standard files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FashionMnist {
    /// Training images of each class to use, the first in the file; 0 uses all.
    pub per_class: usize,
}

#[typetag::serde(name = "fashion-mnist")]
impl Dataset for FashionMnist {
    fn load(&self, source: &DataSource) -> Result<ImageData> {
        let folders = files::folders(source, NAME, &[SYSTEM]);
        let has = |folder: &PathBuf, name: &str| in_folder(folder, name).is_some();
        let complete = self.place(source);
        let begun = folders
            .iter()
            .find(|f| FILES.iter().any(|(name, ..)| has(f, name)));
        let folder = match (complete, begun) {
            (Some(folder), _) => folder,
            (None, _) if source.download => match files::download_folder(source, NAME) {
                Some(folder) => download(folder)?,
                None => return Err(files::missing(NAME, FILES[0].0, &folders, source)),
            },
            // Reading it names the file that is missing.
            (None, Some(folder)) => folder.clone(),
            (None, None) => return Err(files::missing(NAME, FILES[0].0, &folders, source)),
        };
        let mut data = read_folder(&folder, [60_000, 10_000], source)?;
        data.train = subset::first_of_each_class(data.train, self.per_class);
        Ok(data)
    }

    fn place(&self, source: &DataSource) -> Option<PathBuf> {
        let has = |folder: &Path, name: &str| in_folder(folder, name).is_some();
        let mut folders = files::folders(source, NAME, &[SYSTEM]).into_iter();
        folders.find(|f| FILES.iter().all(|(name, ..)| has(f, name)))
    }
}

register! {
    dataset "fashion-mnist" => FashionMnist,
    summary: "Fashion-MNIST: 60,000 + 10,000 grey images of 28×28 pixels, 10 classes, from its IDX files",
    source: "Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747",
    defaults: "[dataset]\n# Training images of each class to use, the first in the file; 0 uses all.\nper_class = 0\n",
    example: "nasfw run --dataset fashion-mnist --data-dir DIR",
}

fn in_folder(folder: &Path, name: &str) -> Option<PathBuf> {
    let plain = folder.join(name);
    let compressed = folder.join(format!("{name}.gz"));
    [plain, compressed].into_iter().find(|path| path.exists())
}

fn download(folder: PathBuf) -> Result<PathBuf> {
    let lock = Lock::wait(&folder)?;
    for (name, md5, _) in FILES {
        let url = format!("{URL}/{name}.gz");
        fetch(
            &Remote { url: &url, md5 },
            &folder.join(format!("{name}.gz")),
            &lock,
        )?;
    }
    Ok(folder)
}

/// Reads the four files in `folder`; `rows` are the numbers of training and test images that they
/// must hold: 60,000 and 10,000 for the real ones. Content that was not published as Fashion-MNIST is noted in `source`.
///
/// # Errors
/// A missing, truncated or corrupt file, a wrong magic number, size or label, a file of MNIST.
pub fn read_folder(folder: &Path, rows: [usize; 2], source: &DataSource) -> Result<ImageData> {
    let mut check = Check::default();
    let mut read = |file: usize, sizes: &[usize]| -> Result<(PathBuf, Vec<u8>)> {
        let (name, _, sum) = FILES[file];
        let path = in_folder(folder, name).unwrap_or_else(|| folder.join(format!("{name}.gz")));
        let bytes = files::read(&path, idx::file_size(sizes))?;
        published::refuse(&path, &bytes, "Fashion-MNIST", &STRANGERS)?;
        check.file(name, &bytes, sum);
        Ok((path, bytes))
    };
    let mut part = |[images, labels]: [usize; 2], rows: usize| -> Result<Part> {
        let images = read(images, &[rows, SIDE, SIDE])?;
        let labels = read(labels, &[rows])?;
        part((&images.0, &images.1), (&labels.0, &labels.1), rows)
    };
    let (train, test) = (part([0, 1], rows[0])?, part([2, 3], rows[1])?);
    check.tell(NAME, folder, source);
    data(train, test, folder)
}

/// A part from the bytes of an image file and a label file, each with the path that errors name.
pub(crate) fn part(
    (images_path, images): (&Path, &[u8]),
    (labels_path, labels): (&Path, &[u8]),
    rows: usize,
) -> Result<Part> {
    let images = idx::elements(images, &[rows, SIDE, SIDE], images_path)?.to_vec();
    let labels = idx::elements(labels, &[rows], labels_path)?.to_vec();
    if let Some(row) = labels
        .iter()
        .position(|&label| usize::from(label) >= CLASSES.len())
    {
        let problem = format!("label {row} (from 0) is {}, labels are 0 to 9", labels[row]);
        return Err(files::corrupt(labels_path, problem));
    }
    Ok(Part {
        images: images.into(),
        labels: labels.into_iter().map(u16::from).collect(),
    })
}

pub(crate) fn data(train: Part, test: Part, path: &Path) -> Result<ImageData> {
    let task = Task {
        channels: 1,
        height: SIDE as i64,
        width: SIDE as i64,
        classes: 10,
    };
    let classes = CLASSES.map(String::from).to_vec();
    ImageData {
        task,
        train,
        test,
        split: None,
        mean: vec![MEAN],
        std: vec![STD],
        classes,
    }
    .check(path)
}
