//! CIFAR-10 and CIFAR-100 (Krizhevsky 2009), from their binary files (per image one label byte, of CIFAR-100 a coarse and
//! a fine one, and 3,072 bytes, the red, green and blue planes) or from the pickled batches of their Python version, which
//! torchvision leaves; each in a folder or in the archive as it is published.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use nasfw_framework::dataset::{DataSource, Dataset, ImageData, Part};
use nasfw_framework::space::Task;
use nasfw_framework::{Error, Result, register};
use serde::{Deserialize, Serialize};

use crate::download::{Lock, Remote, fetch};
use crate::published::{Check, Sum};
use crate::{files, numpy, subset};

/// Bytes of an image.
const IMAGE: usize = 3 * 32 * 32;
/// The longest pickled file that is read; the longest real one has 155 MB.
const LONGEST: usize = 256 << 20;
/// The most bytes that an archive is unpacked to; the real ones have less than 190 MB.
const LARGEST: u64 = 512 << 20;

/// What tells one CIFAR from the other.
struct Format {
    name: &'static str,
    /// How it is published.
    versions: [Version; 2],
    /// Label bytes before an image in the binary version; the last one is the class.
    label_bytes: usize,
    /// What the labels are called in the Python version.
    label_key: &'static str,
    /// Their names as published, with a space between.
    classes: &'static str,
    mean: [f64; 3],
    std: [f64; 3],
    /// The binary version.
    archive: Remote<'static>,
}

impl Format {
    fn classes(&self) -> Vec<&'static str> {
        self.classes.split_whitespace().collect()
    }
}

/// The binary version or that for Python: names of folder, archive and files.
struct Version {
    folder: &'static str,
    archive: &'static str,
    train: &'static [(&'static str, Sum)],
    test: (&'static str, Sum),
    /// The file with the names of the classes.
    names: &'static str,
    /// What the list of names is called there; none where the file is plain text.
    names_key: Option<&'static str>,
}

impl Version {
    /// All files but that of names.
    fn files(&self) -> impl Iterator<Item = &(&'static str, Sum)> {
        self.train.iter().chain([&self.test])
    }
}

const CIFAR10: Format = Format {
    name: "cifar10",
    versions: [
        Version {
            folder: "cifar-10-batches-bin",
            archive: "cifar-10-binary.tar.gz",
            train: &[
                (
                    "data_batch_1.bin",
                    Sum::Sha1("aadd24acce27caa71bf4b10992e9e7b2d74c2540"),
                ),
                (
                    "data_batch_2.bin",
                    Sum::Sha1("c0ba65cce70568cd57b4e03e9ac8d2a5367c1795"),
                ),
                (
                    "data_batch_3.bin",
                    Sum::Sha1("1dd00a74ab1d17a6e7d73e185b69dbf31242f295"),
                ),
                (
                    "data_batch_4.bin",
                    Sum::Sha1("aab85764eb3584312d3c7f65fd2fd016e36a258e"),
                ),
                (
                    "data_batch_5.bin",
                    Sum::Sha1("26e2849e66a845b7f1e4614ae70f4889ae604628"),
                ),
            ],
            test: (
                "test_batch.bin",
                Sum::Sha1("67eb016db431130d61cd03c7ad570b013799c88c"),
            ),
            names: "batches.meta.txt",
            names_key: None,
        },
        Version {
            folder: "cifar-10-batches-py",
            archive: "cifar-10-python.tar.gz",
            train: &[
                ("data_batch_1", Sum::Md5("c99cafc152244af753f735de768cd75f")),
                ("data_batch_2", Sum::Md5("d4bba439e000b95fd0a9bffe97cbabec")),
                ("data_batch_3", Sum::Md5("54ebc095f3ab1f0389bbae665268c751")),
                ("data_batch_4", Sum::Md5("634d18415352ddfa80567beed471001a")),
                ("data_batch_5", Sum::Md5("482c414d41f54cd18b22e5b47cb7c3cb")),
            ],
            test: ("test_batch", Sum::Md5("40351d587109b95175f43aff81a1287e")),
            names: "batches.meta",
            names_key: Some("label_names"),
        },
    ],
    label_bytes: 1,
    label_key: "labels",
    classes: "airplane automobile bird cat deer dog frog horse ship truck",
    mean: [0.491_399_68, 0.482_158_27, 0.446_531_24],
    std: [0.247_032_33, 0.243_485_05, 0.261_587_68],
    archive: Remote {
        url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        md5: "c32a1d4ab5d03f1284b67883e8d87530",
    },
};

const CIFAR100: Format = Format {
    name: "cifar100",
    versions: [
        Version {
            folder: "cifar-100-binary",
            archive: "cifar-100-binary.tar.gz",
            train: &[(
                "train.bin",
                Sum::Sha1("e207cd2e05b73b1393c74c7f5e7bea451d63e08e"),
            )],
            test: (
                "test.bin",
                Sum::Sha1("8fb6623e830365ff53cf14adec797474f5478006"),
            ),
            names: "fine_label_names.txt",
            names_key: None,
        },
        Version {
            folder: "cifar-100-python",
            archive: "cifar-100-python.tar.gz",
            train: &[("train", Sum::Md5("16019d7e3df5f24257cddd939b257f8d"))],
            test: ("test", Sum::Md5("f0ef6b0ae62326f3e7ffdfab6717acfc")),
            names: "meta",
            names_key: Some("fine_label_names"),
        },
    ],
    label_bytes: 2,
    label_key: "fine_labels",
    classes: "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly \
        camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup \
        dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower \
        leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid \
        otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray \
        road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar \
        sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle \
        wardrobe whale willow_tree wolf woman worm",
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

impl Cifar10 {
    /// Reads a folder or an archive of either version. `rows` are the numbers of training and test images that it must
    /// hold: 50,000 and 10,000 in the real ones.
    ///
    /// # Errors
    /// A missing, truncated or corrupt file, another number of images, a wrong label.
    pub fn read_folder(path: &Path, rows: [usize; 2], source: &DataSource) -> Result<ImageData> {
        read_folder(&CIFAR10, path, rows, source)
    }
}

impl Cifar100 {
    /// As [`Cifar10::read_folder`].
    ///
    /// # Errors
    /// As there.
    pub fn read_folder(path: &Path, rows: [usize; 2], source: &DataSource) -> Result<ImageData> {
        read_folder(&CIFAR100, path, rows, source)
    }
}

#[typetag::serde(name = "cifar10")]
impl Dataset for Cifar10 {
    fn load(&self, source: &DataSource) -> Result<ImageData> {
        load(&CIFAR10, source, self.per_class)
    }

    fn place(&self, source: &DataSource) -> Option<PathBuf> {
        place(&CIFAR10, source)
    }
}

#[typetag::serde(name = "cifar100")]
impl Dataset for Cifar100 {
    fn load(&self, source: &DataSource) -> Result<ImageData> {
        load(&CIFAR100, source, self.per_class)
    }

    fn place(&self, source: &DataSource) -> Option<PathBuf> {
        place(&CIFAR100, source)
    }
}

const DEFAULTS: &str = "[dataset]\n\
    # Training images of each class to use, the first in the files; 0 uses all.\n\
    per_class = 0\n";

register! {
    dataset "cifar10" => Cifar10,
    summary: "CIFAR-10: 50,000 + 10,000 colour images of 32×32 pixels, 10 classes, from its binary or Python files",
    source: "Krizhevsky 2009",
    defaults: DEFAULTS,
    example: "nasfw run --dataset cifar10 --data-dir DIR",
}

register! {
    dataset "cifar100" => Cifar100,
    summary: "CIFAR-100: 50,000 + 10,000 colour images of 32×32 pixels, 100 classes, from its binary or Python files",
    source: "Krizhevsky 2009",
    defaults: DEFAULTS,
    example: "nasfw run --dataset cifar100 --data-dir DIR",
}

/// Where a version's files are: a folder that holds them, or an archive.
struct Place<'a> {
    version: &'a Version,
    path: PathBuf,
}

impl Place<'_> {
    /// How many of the files are there; an archive has all of them.
    fn held(&self) -> usize {
        let files = self.version.files();
        if self.path.is_file() {
            return files.count();
        }
        files
            .filter(|(name, _)| self.path.join(name).exists())
            .count()
    }

    fn complete(&self) -> bool {
        self.held() == self.version.files().count()
    }

    /// The files in an archive by name; none of a folder, whose files are read one by one.
    fn unpacked(&self) -> Result<HashMap<String, Vec<u8>>> {
        let mut found = HashMap::new();
        if !self.path.is_file() {
            return Ok(found);
        }
        let broken = |e: std::io::Error| files::corrupt(&self.path, e.to_string());
        let file = File::open(&self.path).map_err(Error::io("read", &self.path))?;
        let mut tar = tar::Archive::new(GzDecoder::new(file).take(LARGEST));
        let wanted = |name: &str| {
            name == self.version.names || self.version.files().any(|(file, _)| *file == name)
        };
        for entry in tar.entries().map_err(broken)? {
            let entry = entry.map_err(broken)?;
            let path = entry.path().map_err(broken)?.into_owned();
            let name = path
                .file_name()
                .and_then(|n| n.to_str())
                .unwrap_or_default();
            if wanted(name) && entry.header().entry_type().is_file() {
                let bytes = files::take(entry, LONGEST).map_err(broken)?;
                found.insert(name.to_owned(), bytes);
            }
        }
        Ok(found)
    }
}

/// Where all files of a dataset are.
fn place(format: &Format, source: &DataSource) -> Option<PathBuf> {
    let mut places = places(format, source).into_iter();
    places.find(Place::complete).map(|place| place.path)
}

/// Everywhere that the files may be: the folders and archives of both versions, the binary one first.
fn places<'a>(format: &'a Format, source: &DataSource) -> Vec<Place<'a>> {
    let of = |version: &'a Version| {
        let folders = files::folders(source, version.folder, &[]);
        let beside = source.dir.clone().or_else(|| {
            let cache = files::download_folder(source, version.folder)?;
            Some(cache.parent()?.to_owned())
        });
        let archive = beside.map(|folder| folder.join(version.archive));
        folders
            .into_iter()
            .chain(archive.filter(|path| path.is_file()))
            .map(move |path| Place { version, path })
    };
    let [binary, python] = &format.versions;
    of(binary).chain(of(python)).collect()
}

fn load(format: &Format, source: &DataSource, per_class: usize) -> Result<ImageData> {
    let places = places(format, source);
    let [binary, _] = &format.versions;
    let missing = || {
        let first = format!("{} or {}", binary.test.0, format.versions[1].test.0);
        let folders: Vec<PathBuf> = places.iter().map(|p| p.path.clone()).collect();
        files::missing(format.name, &first, &folders, source)
    };
    let found = places.iter().find(|p| p.complete());
    let mut data = match found {
        Some(place) => read(format, place, ROWS, source)?,
        None if source.download => {
            let folder = files::download_folder(source, binary.folder).ok_or_else(missing)?;
            let place = Place {
                version: binary,
                path: download(format, &folder)?,
            };
            read(format, &place, ROWS, source)?
        }
        // Reading names the file that is missing.
        None => {
            let begun = places.iter().rev().max_by_key(|p| p.held());
            let begun = begun.filter(|p| p.held() > 0).ok_or_else(missing)?;
            read(format, begun, ROWS, source)?
        }
    };
    data.train = subset::first_of_each_class(data.train, per_class);
    Ok(data)
}

/// Reads the version that `path` holds most files of.
fn read_folder(
    format: &Format,
    path: &Path,
    rows: [usize; 2],
    source: &DataSource,
) -> Result<ImageData> {
    let [binary, python] = format.versions.each_ref().map(|version| Place {
        version,
        path: path.into(),
    });
    let name = path.file_name().unwrap_or_default();
    let place = if name == python.version.archive || python.held() > binary.held() {
        python
    } else {
        binary
    };
    read(format, &place, rows, source)
}

/// Training and test images.
const ROWS: [usize; 2] = [50_000, 10_000];

/// Fetches the archive into `folder` and unpacks the files that are needed there.
fn download(format: &Format, folder: &Path) -> Result<PathBuf> {
    let lock = Lock::wait(folder)?;
    let archive = folder.join("archive.tar.gz");
    fetch(&format.archive, &archive, &lock)?;
    let [version, _] = &format.versions;
    let files = Place {
        version,
        path: archive,
    }
    .unpacked()?;
    for (name, bytes) in files {
        // Whole files only: an interrupted run must not leave half of one.
        let (partial, path) = (folder.join("unpacking"), folder.join(name));
        fs::write(&partial, bytes).map_err(Error::io("write", &partial))?;
        fs::rename(&partial, &path).map_err(Error::io("rename", &partial))?;
    }
    Ok(folder.to_owned())
}

/// Reads all files of a version, `rows` training and test images.
fn read(
    format: &Format,
    place: &Place<'_>,
    rows: [usize; 2],
    source: &DataSource,
) -> Result<ImageData> {
    let Place { version, path } = place;
    let mut unpacked = place.unpacked()?;
    let mut check = Check::default();
    let mut file = |name: &str, limit: usize| -> Result<(PathBuf, Vec<u8>)> {
        let file = path.join(name);
        if !path.is_file() {
            let bytes = files::read(&file, limit)?;
            return Ok((file, bytes));
        }
        match unpacked.remove(name) {
            Some(bytes) => Ok((file, bytes)),
            None => Err(files::corrupt(path, format!("holds no file {name}"))),
        }
    };
    let classes = format.classes().len();
    let mut part = |names: &[(&'static str, Sum)], rows: usize| -> Result<Part> {
        let (mut images, mut labels) = (vec![], vec![]);
        let each = rows / names.len();
        for &(name, sum) in names {
            let limit = match version.names_key {
                Some(_) => LONGEST,
                None => each * (format.label_bytes + IMAGE),
            };
            let (path, bytes) = file(name, limit)?;
            check.file(name, &bytes, sum);
            let (batch, batch_labels) = match version.names_key {
                Some(_) => pickled(format, &bytes, each),
                None => binary(format, &bytes, each),
            }
            .map_err(|problem| files::corrupt(&path, problem))?;
            images.extend(batch);
            for (i, found) in batch_labels.into_iter().enumerate() {
                let label = u16::try_from(found).ok();
                let label = label.filter(|l| usize::from(*l) < classes);
                labels.push(label.ok_or_else(|| {
                    let problem = format!(
                        "image {i} (from 0) has label {found}, labels are 0 to {}",
                        classes - 1
                    );
                    files::corrupt(&path, problem)
                })?);
            }
        }
        Ok(Part {
            images: images.into(),
            labels,
        })
    };
    let (train, test) = (
        part(version.train, rows[0])?,
        part(&[version.test], rows[1])?,
    );
    // Whatever is wrong with the names, the published ones are known.
    let names = file(version.names, 1 << 20).ok();
    let names = names.and_then(|(_, bytes)| class_names(format, version, &bytes));
    check.tell(format.name, path, source);
    let task = Task {
        channels: 3,
        height: 32,
        width: 32,
        classes: classes as i64,
    };
    let data = ImageData {
        task,
        train,
        test,
        split: None,
        mean: format.mean.to_vec(),
        std: format.std.to_vec(),
        classes: names.unwrap_or_else(|| format.classes().into_iter().map(Into::into).collect()),
    };
    data.check(path)
}

/// Names from the file beside the images; none if they are not one for each class, all different.
fn class_names(format: &Format, version: &Version, bytes: &[u8]) -> Option<Vec<String>> {
    let names: Vec<String> = match version.names_key {
        Some(key) => numpy::names(bytes, key).ok()?,
        None => {
            let lines = std::str::from_utf8(bytes).ok()?.lines().map(str::trim);
            lines.filter(|l| !l.is_empty()).map(str::to_owned).collect()
        }
    };
    let different: std::collections::BTreeSet<&String> = names.iter().collect();
    (different.len() == format.classes().len() && names.len() == different.len()).then_some(names)
}

/// Images and labels of a binary file of `rows` images.
fn binary(format: &Format, bytes: &[u8], rows: usize) -> Result<(Vec<u8>, Vec<i64>), String> {
    let row = format.label_bytes + IMAGE;
    if bytes.len() != rows * row {
        return Err(files::length_problem(bytes.len(), rows * row, "bytes"));
    }
    let (mut images, mut labels) = (vec![], vec![]);
    for row in bytes.chunks_exact(row) {
        let (row_labels, image) = row.split_at(format.label_bytes);
        labels.push(row_labels[format.label_bytes - 1].into());
        images.extend_from_slice(image);
    }
    Ok((images, labels))
}

/// Images and labels of a pickled batch of `rows` images.
fn pickled(format: &Format, bytes: &[u8], rows: usize) -> Result<(Vec<u8>, Vec<i64>), String> {
    let (images, labels) = numpy::batch(bytes, IMAGE, &[format.label_key])?;
    if labels.len() != rows {
        return Err(format!(
            "holds {} images, {rows} are expected",
            labels.len()
        ));
    }
    Ok((images, labels))
}
