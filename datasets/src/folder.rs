//! Folders of JPEG and PNG files, one folder a class: ImageNet (Deng et al. 2009; Russakovsky et al. 2015) and any
//! dataset of one's own. Images are decoded when a batch needs them.

#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;
use nasfw_framework::config::Validator;
use nasfw_framework::dataset::{DataSource, Dataset, ImageData, ImageSource, Images, Part};
use nasfw_framework::rng::Rng;
use nasfw_framework::space::Task;
use nasfw_framework::{Error, Result, register};
use rand::RngExt;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::files;

/// Mean and deviation of ImageNet's channels, which other photographs are normalised with too.
const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const STD: [f64; 3] = [0.229, 0.224, 0.225];
/// Classes, training images and validation images of ILSVRC 2012.
const IMAGENET: (usize, usize, usize) = (1_000, 1_281_167, 50_000);
/// Aspect ratios of random crops.
const ASPECT: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];

/// How images in folders are used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Folders {
    /// Rows and columns of an image as the network sees it.
    pub size: u32,
    /// Length of the shorter side that test images are scaled to before their middle is cut out.
    pub resize: u32,
    /// Smallest and largest fraction of a training image's area that a random crop covers.
    pub crop_scale: [f64; 2],
    /// Fraction of each class's training images that the weights learn from where a strategy splits them.
    pub weights_fraction: f64,
    /// Fraction that the architecture learns from; what both leave over is not used.
    pub arch_fraction: f64,
    /// Whether every file is decoded once before the search begins.
    pub check: bool,
}

/// ImageNet (ILSVRC 2012) with its 1,000 classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageNet(pub Folders);

/// Images of one's own, a folder for each class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageFolder(pub Folders);

macro_rules! defaults {
    () => {
        "[dataset]\n\
        # Rows and columns of an image as the network sees it.\n\
        size = 224\n\
        # Length of the shorter side that test images are scaled to before their middle is cut out.\n\
        resize = 256\n\
        # Smallest and largest fraction of a training image's area that a random crop covers.\n\
        crop_scale = [0.08, 1.0]\n\
        # Fraction of each class's training images that the weights learn from where a strategy splits them\n\
        # (PC-DARTS: 0.1)\n\
        weights_fraction = 0.5\n\
        # and that the architecture learns from (PC-DARTS: 0.025); what both leave over is not used.\n\
        arch_fraction = 0.5\n\
        # Decode every file once before the search begins: finds bad ones, takes as long as an epoch.\n\
        check = false\n\
        [trainer.augment]\n\
        # The dataset's own random crop takes the place of this one.\n\
        crop_padding = 0\n"
    };
}

register! {
    dataset "imagenet" => ImageNet,
    summary: "ImageNet: 1,281,167 + 50,000 photographs, 1,000 classes, from folders of JPEG files",
    source: "Russakovsky et al. 2015, arXiv:1409.0575",
    defaults: defaults!(),
    example: "nasfw run --dataset imagenet --data-dir DIR --set dataset.weights_fraction=0.1 --set dataset.arch_fraction=0.025",
}

register! {
    dataset "image-folder" => ImageFolder,
    summary: "your own JPEG and PNG files: DIR/train/CLASS/… and DIR/val/CLASS/…",
    source: "nasfw",
    defaults: defaults!(),
    example: "nasfw run --dataset image-folder --data-dir DIR --set dataset.size=64 --set dataset.resize=72",
}

#[typetag::serde(name = "imagenet")]
impl Dataset for ImageNet {
    fn load(&self, source: &DataSource) -> Result<ImageData> {
        let folder = find("imagenet", source)?;
        let data = self.0.load(&folder)?;
        let (classes, train, test) = IMAGENET;
        if data.classes.len() != classes {
            return Err(Error::Data {
                path: folder.join("train"),
                problem: format!("holds {} class folders, ImageNet has 1,000", data.classes.len()),
                help: "unpack all of ILSVRC2012_img_train.tar there, one folder a class; for other classes type \
                       `--dataset image-folder`"
                    .into(),
            });
        }
        let complete = self.0.weights_fraction + self.0.arch_fraction == 1.0;
        if (complete && data.train.len() != train) || data.test.len() != test {
            tracing::warn!(
                "{}: {} + {} images, ImageNet has {train} + {test}",
                folder.display(),
                data.train.len(),
                data.test.len()
            );
        }
        Ok(data)
    }

    fn validate(&self, v: &mut Validator) {
        self.0.validate(v);
    }
}

#[typetag::serde(name = "image-folder")]
impl Dataset for ImageFolder {
    fn load(&self, source: &DataSource) -> Result<ImageData> {
        self.0.load(&find("image-folder", source)?)
    }

    fn validate(&self, v: &mut Validator) {
        self.0.validate(v);
    }
}

/// The folder that has a folder `train`.
fn find(dataset: &str, source: &DataSource) -> Result<PathBuf> {
    let folders = files::folders(source, dataset, &[]);
    let found = folders.iter().find(|f| f.join("train").is_dir());
    found.cloned().ok_or_else(|| Error::Data {
        path: folders.first().cloned().unwrap_or_else(|| dataset.into()),
        problem: "there is no folder `train` with a folder of images for each class in it".into(),
        help: format!(
            "say which folder holds `train` and `val`: `nasfw run --dataset {dataset} --data-dir DIR`; \
             docs/datasets.md shows how they are laid out"
        ),
    })
}

impl Folders {
    fn validate(&self, v: &mut Validator) {
        v.range("dataset.size", self.size, 8, 1024);
        v.range("dataset.resize", self.resize, self.size, 4096);
        let [from, to] = self.crop_scale;
        if !(0.0 < from && from <= to && to <= 1.0) {
            let problem =
                format!("[{from}, {to}] is no range of fractions, for example [0.08, 1.0]");
            v.problem("dataset.crop_scale", problem);
        }
        for (key, value) in [
            ("dataset.weights_fraction", self.weights_fraction),
            ("dataset.arch_fraction", self.arch_fraction),
        ] {
            if !(0.0 < value && value < 1.0) {
                v.problem(
                    key,
                    format!("{value} is out of range, it must be above 0 and below 1"),
                );
            }
        }
        if self.weights_fraction + self.arch_fraction > 1.0 {
            v.problem(
                "dataset.arch_fraction",
                "the fractions of the weights and of the architecture are more than 1 together",
            );
        }
    }

    /// Finds the files; decodes none of them unless `check` says so.
    ///
    /// # Errors
    /// Missing folders, classes without images, empty files and files that are no images.
    fn load(&self, folder: &Path) -> Result<ImageData> {
        let train = folder.join("train");
        let test = ["val", "test"]
            .map(|name| folder.join(name))
            .into_iter()
            .find(|path| path.is_dir())
            .ok_or_else(|| Error::Data {
                path: folder.join("val"),
                problem: "there is no folder `val` or `test` beside `train`".into(),
                help: "put a folder of test images for each class there: docs/datasets.md shows how they are laid out"
                    .into(),
            })?;
        let classes = class_folders(&train)?;
        if let Some(other) = class_folders(&test)?
            .into_iter()
            .find(|c| !classes.contains(c))
        {
            return Err(Error::Data {
                path: test.join(other),
                problem: "there is no class of this name among the training images".into(),
                help: format!("rename or remove it, or add {}", train.display()),
            });
        }
        let images = |folder: &Path| -> Result<Vec<Vec<File>>> {
            classes
                .par_iter()
                .map(|class| images(folder, class))
                .collect()
        };
        let (train_files, test_files) = (images(&train)?, images(&test)?);
        // The part of the weights comes first, then that of the architecture, each with all classes in it.
        let (mut weights, mut arch) = (vec![], vec![]);
        for (class, files) in train_files.into_iter().enumerate() {
            let count = |fraction: f64| (files.len() as f64 * fraction).round().max(1.0) as usize;
            let [first, second] = [count(self.weights_fraction), count(self.arch_fraction)];
            // Halves that add up to one leave nothing over.
            let all = self.weights_fraction + self.arch_fraction == 1.0;
            let last = if all { files.len() } else { first + second };
            for (i, file) in files.into_iter().enumerate().take(last) {
                let part = if i < first { &mut weights } else { &mut arch };
                part.push((class as u16, file));
            }
        }
        let split = weights.len();
        weights.extend(arch);
        let test_files = test_files.into_iter().enumerate();
        let test_files =
            test_files.flat_map(|(c, files)| files.into_iter().map(move |f| (c as u16, f)));
        let data = ImageData {
            task: Task {
                channels: 3,
                height: i64::from(self.size),
                width: i64::from(self.size),
                classes: classes.len() as i64,
            },
            train: self.part(&train, weights)?,
            test: self.part(&test, test_files.collect())?,
            split: Some(split),
            mean: MEAN.to_vec(),
            std: STD.to_vec(),
            classes,
        };
        data.check(folder)
    }

    fn part(&self, folder: &Path, files: Vec<(u16, File)>) -> Result<Part> {
        let (labels, files): (_, Vec<File>) = files.into_iter().unzip();
        let source = Files {
            settings: self.clone(),
            folder: folder.to_owned(),
            files,
        };
        if self.check {
            tracing::info!(
                "decoding {} images of {}",
                source.files.len(),
                folder.display()
            );
            let check = |file: &File| source.read(file).map(|_| ());
            source.files.par_iter().try_for_each(check)?;
        }
        Ok(Part {
            images: Images::Source(Arc::new(source)),
            labels,
        })
    }
}

/// The sorted names of the folders in a folder.
fn class_folders(folder: &Path) -> Result<Vec<String>> {
    let mut names = vec![];
    let mut images = 0;
    for (name, path) in entries(folder)? {
        if path.is_dir() {
            names.push(name);
        } else {
            images += usize::from(is_image(&path));
        }
    }
    names.sort();
    let problem = match names.len() {
        0 | 1 if images > 0 => format!("holds {images} images but no folders of classes"),
        0 => "holds no folders of classes".to_owned(),
        1 => format!("holds only one class, `{}`", names[0]),
        n if n > usize::from(u16::MAX) => {
            format!("holds {n} folders of classes, at most 65,535 are possible")
        }
        _ => return Ok(names),
    };
    Err(Error::Data {
        path: folder.into(),
        problem,
        help: "put the images of each class into a folder of their own; docs/datasets.md shows how they are laid out"
            .into(),
    })
}

/// An image file: its path below the part's folder, and its bytes.
#[derive(Debug)]
struct File {
    path: Box<Path>,
    bytes: u64,
}

/// The images of a class, sorted by name.
fn images(folder: &Path, class: &str) -> Result<Vec<File>> {
    let wrong = |path: &Path, problem: &str, help: String| {
        Err(Error::Data {
            path: path.into(),
            problem: problem.into(),
            help,
        })
    };
    let class_folder = folder.join(class);
    if !class_folder.is_dir() {
        let help = format!("put images of `{class}` there, or remove its other folder");
        return wrong(&class_folder, "this class has no folder here", help);
    }
    let mut files = vec![];
    for (name, path) in entries(&class_folder)? {
        if !is_image(&path) {
            let help = format!("move {} out of this folder, or convert it", path.display());
            return wrong(
                &path,
                "is neither a JPEG nor a PNG file (.jpg, .jpeg, .png)",
                help,
            );
        }
        let bytes = fs::metadata(&path).map_err(Error::io("read", &path))?.len();
        if bytes == 0 {
            return Err(files::corrupt(&path, "is empty".into()));
        }
        files.push(File {
            path: Path::new(class).join(name).into(),
            bytes,
        });
    }
    if files.is_empty() {
        let help = "put images there, or remove the folder (from `train` and `val`)".into();
        return wrong(&class_folder, "holds no images", help);
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Names and paths in a folder, without hidden ones.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let unreadable = |e| Error::io("read", folder)(e);
    let mut all = vec![];
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry
            .file_name()
            .into_string()
            .map_err(|name| Error::Data {
                path: folder.join(name),
                problem: "its name is no text".into(),
                help: "rename it".into(),
            })?;
        if !name.starts_with('.') {
            all.push((name, entry.path()));
        }
    }
    Ok(all)
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str());
    extension.is_some_and(|e| {
        ["jpg", "jpeg", "png"]
            .iter()
            .any(|known| e.eq_ignore_ascii_case(known))
    })
}

/// The image files of one part.
#[derive(Debug)]
struct Files {
    settings: Folders,
    folder: PathBuf,
    files: Vec<File>,
}

impl ImageSource for Files {
    fn decode(&self, index: usize, random: Option<&mut Rng>, out: &mut [u8]) -> Result<()> {
        let file = &self.files[index];
        let image = self.read(file)?;
        let Folders {
            size,
            resize,
            crop_scale,
            ..
        } = self.settings;
        let view = match random {
            Some(rng) => random_view(image.dimensions(), crop_scale, size, rng),
            None => middle_view(image.dimensions(), resize, size),
        };
        let pixels = view
            .of(&image)
            .map_err(|e| self.problem(file, e.to_string()))?;
        // From pixel after pixel to plane after plane.
        let planes = (size * size) as usize;
        for (i, pixel) in pixels.as_chunks::<3>().0.iter().enumerate() {
            for (channel, value) in pixel.iter().enumerate() {
                out[channel * planes + i] = *value;
            }
        }
        Ok(())
    }

    /// BLAKE3 of the sorted paths and lengths of the files: reading all bytes would take as long as an epoch.
    fn checksum(&self) -> String {
        let mut names: Vec<&File> = self.files.iter().collect();
        names.sort_by(|a, b| a.path.cmp(&b.path));
        let mut hash = blake3::Hasher::new();
        for file in names {
            hash.update(file.path.to_string_lossy().as_bytes());
            hash.update(format!("\0{}\n", file.bytes).as_bytes());
        }
        hash.finalize().to_hex().to_string()
    }
}

impl Files {
    fn problem(&self, file: &File, problem: String) -> Error {
        let path = self.folder.join(&file.path);
        Error::Data {
            help: format!(
                "replace {} by a good copy or remove it, then start a new run; `--set dataset.check=true` finds all \
                 bad files before a search begins",
                path.display()
            ),
            path,
            problem,
        }
    }

    /// The pixels of a file, whatever its name says of the format.
    fn read(&self, file: &File) -> Result<RgbImage> {
        let bytes = fs::read(self.folder.join(&file.path))
            .map_err(|e| self.problem(file, format!("cannot be read: {e}")))?;
        if is_cut_jpeg(&bytes) {
            return Err(self.problem(file, "this JPEG file is truncated".into()));
        }
        let image = image::load_from_memory(&bytes)
            .map_err(|e| self.problem(file, format!("is no image that can be decoded: {e}")))?;
        if image.width() == 0 || image.height() == 0 {
            return Err(self.problem(file, "this image has no pixels".into()));
        }
        Ok(image.into_rgb8())
    }
}

/// Whether a JPEG file ends before its image does: no end marker follows the last scan. Decoders fill what is missing
/// with grey and say nothing.
fn is_cut_jpeg(bytes: &[u8]) -> bool {
    let is = |marker: u8| move |pair: &[u8]| pair == [0xff, marker];
    let end = bytes.windows(2).rposition(is(0xd9));
    let open = end.is_none_or(|end| bytes[end..].windows(2).any(is(0xda)));
    bytes.starts_with(&[0xff, 0xd8]) && open
}

/// A square view of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
struct View {
    /// Left, top, width, height of the pixels that may be seen.
    seen: [u32; 4],
    /// Left, top, width, height, within those, of what becomes the square.
    part: [f64; 4],
    /// Rows and columns of the square.
    size: u32,
}

/// The view of torchvision's `RandomResizedCrop`: a random part of the area with a random aspect ratio, the middle
/// where ten tries do not fit.
fn random_view((width, height): (u32, u32), scale: [f64; 2], size: u32, rng: &mut Rng) -> View {
    let (w, h) = (f64::from(width), f64::from(height));
    let view = |seen: [u32; 4]| View {
        seen,
        part: [0.0, 0.0, f64::from(seen[2]), f64::from(seen[3])],
        size,
    };
    for _ in 0..10 {
        let area = w * h * rng.random_range(scale[0]..=scale[1]);
        let aspect = rng.random_range(ASPECT[0].ln()..=ASPECT[1].ln()).exp();
        let crop_w = (area * aspect).sqrt().round_ties_even();
        let crop_h = (area / aspect).sqrt().round_ties_even();
        if (1.0..=w).contains(&crop_w) && (1.0..=h).contains(&crop_h) {
            let (crop_w, crop_h) = (crop_w as u32, crop_h as u32);
            let top = rng.random_range(0..=height - crop_h);
            let left = rng.random_range(0..=width - crop_w);
            return view([left, top, crop_w, crop_h]);
        }
    }
    let crop_w = w.min((h * ASPECT[1]).round_ties_even()).max(1.0) as u32;
    let crop_h = h.min((w / ASPECT[0]).round_ties_even()).max(1.0) as u32;
    view([(width - crop_w) / 2, (height - crop_h) / 2, crop_w, crop_h])
}

/// The view of torchvision's `Resize(resize)` and `CenterCrop(size)`. Only the middle is computed.
fn middle_view((width, height): (u32, u32), resize: u32, size: u32) -> View {
    let short = f64::from(width.min(height));
    let sides = [width, height].map(f64::from);
    let scaled = sides.map(|side| (f64::from(resize) * side / short).floor());
    let corner = scaled.map(|side| ((side - f64::from(size)) / 2.0).round_ties_even());
    // Where the whole side is seen, rounding must not put the end beyond it.
    let [(left, w), (top, h)] = [0, 1].map(|i| {
        let ratio = sides[i] / scaled[i];
        let begin = corner[i] * ratio;
        (begin, (f64::from(size) * ratio).min(sides[i] - begin))
    });
    View {
        seen: [0, 0, width, height],
        part: [left, top, w, h],
        size,
    }
}

impl View {
    /// The pixels of this view, scaled bilinearly with antialiasing as Pillow does.
    fn of(self, image: &RgbImage) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        let [left, top, width, height] = self.seen;
        // Of one type of pixels: the untyped call would compile the resizer of all thirteen into this crate.
        let pixels =
            TypedImageRef::<U8x3>::from_buffer(image.width(), image.height(), image.as_raw())?;
        let seen = TypedCroppedImage::from_ref(&pixels, left, top, width, height)?;
        let mut square = TypedImage::<U8x3>::new(self.size, self.size);
        let [left, top, width, height] = self.part;
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
            .crop(left, top, width, height);
        Resizer::new().resize_typed(&seen, &mut square, &options)?;
        Ok(square.pixels().iter().flat_map(|pixel| pixel.0).collect())
    }
}
