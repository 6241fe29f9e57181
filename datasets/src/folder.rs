//! Folders of image files, one folder a class: ImageNet (Deng et al. 2009; Russakovsky et al. 2015) and any dataset of
//! one's own. Images are decoded when a batch needs them.

mod layout;
mod pictures;
mod pixels;
mod settings;
#[cfg(test)]
mod tests;
mod view;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nasfw_framework::config::Validator;
use nasfw_framework::dataset::{CenterCrop, DataSource, Dataset, ImageData, Images, Part};
use nasfw_framework::space::Task;
use nasfw_framework::{Error, Result, register};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::files;
use layout::{File, Layout};
pub use pictures::pictures;
use pixels::{Files, Shape};
pub use settings::Folders;
use view::{COLOURS, GREY, LONGEST_SIDE, square};

/// Mean and deviation of ImageNet's channels, which other photographs are normalised with too.
const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const STD: [f64; 3] = [0.229, 0.224, 0.225];
/// Classes, training images and validation images of ILSVRC 2012.
const IMAGENET: (usize, usize, usize) = (1_000, 1_281_167, 50_000);

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
        # Length of the shorter side that test images are scaled to before their middle is cut out;\n\
        # 0 is 8/7 of the size: 256 of 224.\n\
        resize = 0\n\
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
    summary: "your own image files (JPEG, PNG, WebP, BMP, TIFF): DIR/train/CLASS/… and DIR/val/CLASS/…",
    source: "nasfw",
    defaults: defaults!(),
    example: "nasfw run --dataset image-folder --data-dir DIR --set dataset.size=64",
}

impl ImageNet {
    /// Checks that images are ImageNet's.
    fn complete(&self, folder: &Path, source: &DataSource, data: ImageData) -> Result<ImageData> {
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
            source.notes.warn(format!(
                "{}: {} + {} images, ImageNet has {train} + {test}",
                folder.display(),
                data.train.len(),
                data.test.len()
            ));
        }
        Ok(data)
    }
}

#[typetag::serde(name = "imagenet")]
impl Dataset for ImageNet {
    fn load(&self, source: &DataSource) -> Result<ImageData> {
        let folder = find("imagenet", source)?;
        self.complete(&folder, source, self.0.load(&folder, source)?)
    }

    fn place(&self, source: &DataSource) -> Option<PathBuf> {
        find("imagenet", source).ok()
    }

    fn crop(&self) -> Option<CenterCrop> {
        Some(self.0.crop())
    }

    fn load_as(&self, source: &DataSource, channels: i64, crop: CenterCrop) -> Result<ImageData> {
        let folder = find("imagenet", source)?;
        self.complete(&folder, source, self.0.load_as(&folder, channels, crop)?)
    }

    fn validate(&self, v: &mut Validator) {
        self.0.validate(v);
    }
}

#[typetag::serde(name = "image-folder")]
impl Dataset for ImageFolder {
    fn load(&self, source: &DataSource) -> Result<ImageData> {
        self.0.load(&find("image-folder", source)?, source)
    }

    fn place(&self, source: &DataSource) -> Option<PathBuf> {
        find("image-folder", source).ok()
    }

    fn crop(&self) -> Option<CenterCrop> {
        Some(self.0.crop())
    }

    fn load_as(&self, source: &DataSource, channels: i64, crop: CenterCrop) -> Result<ImageData> {
        let folder = find("image-folder", source)?;
        self.0.load_as(&folder, channels, crop)
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
    /// Length of the shorter side that test images are scaled to.
    fn resize(&self) -> u32 {
        match self.resize {
            0 => (8 * self.size + 3) / 7,
            set => set,
        }
    }

    fn validate(&self, v: &mut Validator) {
        v.range("dataset.size", self.size, 8, 1024);
        v.range(
            "dataset.resize",
            self.resize(),
            self.size,
            LONGEST_SIDE as u32,
        );
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

    fn crop(&self) -> CenterCrop {
        CenterCrop {
            size: [self.size; 2].map(i64::from),
            resize: i64::from(self.resize()),
        }
    }

    /// Colours, as these settings say; nothing is decoded unless `check` says so.
    ///
    /// # Errors
    /// As [`Layout::of`].
    fn load(&self, folder: &Path, source: &DataSource) -> Result<ImageData> {
        let layout = Layout::of(folder)?;
        if let Some(shape) = Shape::of(self, &layout) {
            self.tell(shape, &layout.test, source);
        }
        self.data(folder, layout, COLOURS)
    }

    /// As a network takes them, whatever size these settings say.
    ///
    /// # Errors
    /// As [`Layout::of`], and shapes that are neither square nor grey nor of three colours.
    fn load_as(&self, folder: &Path, channels: i64, crop: CenterCrop) -> Result<ImageData> {
        let help = "choose a dataset whose images have that shape";
        let (rows, resize) = square(channels, crop, ("a folder of pictures", help))?;
        let seen = Self {
            size: rows,
            resize,
            ..self.clone()
        };
        let layout = Layout::of(folder)?;
        if let Some(shape) = Shape::of(&seen, &layout) {
            tracing::info!(
                "{}: images of {}; the network sees {rows}×{rows}, cut out after the shorter side is scaled to {resize}",
                layout.test.display(),
                shape.words()
            );
        }
        seen.data(folder, layout, channels)
    }

    fn data(&self, folder: &Path, layout: Layout, channels: i64) -> Result<ImageData> {
        let Layout {
            train,
            test,
            classes,
            train_files,
            test_files,
        } = layout;
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
                channels,
                height: i64::from(self.size),
                width: i64::from(self.size),
                classes: classes.len() as i64,
            },
            train: self.part(&train, weights, channels)?,
            test: self.part(&test, test_files.collect(), channels)?,
            split: Some(split),
            mean: MEAN[..channels as usize].to_vec(),
            std: STD[..channels as usize].to_vec(),
            classes,
        };
        data.check(folder)
    }

    /// Says what the images are, and warns where the network gets to see something very different: images that are
    /// scaled up, or of which testing sees less than half.
    fn tell(&self, shape: Shape, folder: &Path, source: &DataSource) {
        let (size, folder, words) = (self.size, folder.display(), shape.words());
        let larger = (f64::from(size) / f64::from(shape.short)).powi(2);
        if larger < 2.0 {
            tracing::info!("{folder}: images of {words}; the network sees {size}×{size}");
        } else {
            source.notes.warn(format!(
                "{folder}: images of {words} are scaled up to {size}×{size}, which takes {larger:.0} times the time and \
                 memory; `--set dataset.size={}` keeps their size",
                shape.short.max(8)
            ));
        }
        if shape.seen < 0.5 {
            let follows = Self {
                resize: 0,
                ..self.clone()
            }
            .resize();
            let better = if follows < self.resize() {
                follows
            } else {
                size
            };
            source.notes.warn(format!(
                "{folder}: testing sees {:.0} % of an image's area: the shorter side is scaled to {}, and {size}×{size} \
                 are cut out of the middle; `--set dataset.resize={better}` shows more",
                100.0 * shape.seen,
                self.resize()
            ));
        }
    }

    fn part(&self, folder: &Path, files: Vec<(u16, File)>, channels: i64) -> Result<Part> {
        let (labels, files): (_, Vec<File>) = files.into_iter().unzip();
        let source = Files {
            settings: self.clone(),
            grey: channels == GREY,
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
