//! Which files belong to which class: a folder for each, or Tiny ImageNet's lists.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use nasfw_framework::{Error, Result};
use rayon::prelude::*;

use crate::files;

/// What systems, archives and viewers leave behind in folders; hidden files are passed over too.
const LEFT_BEHIND: [&str; 9] = [
    "Thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "Icon\r",
    "__MACOSX",
    "@eaDir",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
];
/// Endings of the files that are read.
const ENDINGS: [&str; 8] = ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "jfif"];
/// Tiny ImageNet's list of its validation images, and the folder that they lie in.
const ANNOTATIONS: &str = "val_annotations.txt";
const IMAGES: &str = "images";
/// The longest list that is read; the real one has 0.4 MB.
const LONGEST_LIST: usize = 64 << 20;

/// An image file: its path below the part's folder, and its bytes.
#[derive(Debug)]
pub(super) struct File {
    pub path: Box<Path>,
    pub bytes: u64,
}

/// A dataset's folder.
pub(super) struct Layout {
    /// Folder of the training images.
    pub train: PathBuf,
    /// Folder of the test images.
    pub test: PathBuf,
    /// Sorted names.
    pub classes: Vec<String>,
    /// Training images of every class, sorted by name.
    pub train_files: Vec<Vec<File>>,
    /// Test images of every class, sorted by name.
    pub test_files: Vec<Vec<File>>,
}

impl Layout {
    /// Finds the files; decodes none of them.
    ///
    /// # Errors
    /// Missing folders, classes without images, empty files and files that are no images.
    pub(super) fn of(folder: &Path) -> Result<Self> {
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
        let classes = classes(&train)?;
        Ok(Self {
            test_files: test_images(&test, &classes, &train)?,
            train_files: images(&train, &classes)?,
            train,
            test,
            classes,
        })
    }
}

/// Something in a folder; of a link, what it leads to.
struct Entry {
    name: String,
    path: PathBuf,
    is: Metadata,
}

fn wrong<T>(path: &Path, problem: impl Into<String>, help: impl Into<String>) -> Result<T> {
    Err(Error::Data {
        path: path.into(),
        problem: problem.into(),
        help: help.into(),
    })
}

/// The sorted names of the classes of the training images.
fn classes(folder: &Path) -> Result<Vec<String>> {
    let entries = entries(folder)?;
    let images = entries.iter().filter(|e| is_image(&e.path)).count();
    let names: Vec<String> = entries
        .into_iter()
        .filter(|e| e.is.is_dir())
        .map(|e| e.name)
        .collect();
    let problem = match names.len() {
        0 | 1 if images > 0 => format!("holds {images} images but no folders of classes"),
        0 => "holds no folders of classes".to_owned(),
        1 => format!("holds only one class, `{}`", names[0]),
        n if n > usize::from(u16::MAX) => {
            format!("holds {n} folders of classes, at most 65,535 are possible")
        }
        _ => return Ok(names),
    };
    wrong(
        folder,
        problem,
        "put the images of each class into a folder of their own; docs/datasets.md shows how they are laid out",
    )
}

/// The test images of every class of the training images in `train`, sorted by name.
fn test_images(folder: &Path, classes: &[String], train: &Path) -> Result<Vec<Vec<File>>> {
    if folder.join(ANNOTATIONS).is_file() {
        return listed(folder, classes);
    }
    match self::classes(folder)?
        .into_iter()
        .find(|c| classes.binary_search(c).is_err())
    {
        None => images(folder, classes),
        Some(other) => wrong(
            &folder.join(other),
            "there is no class of this name among the training images",
            format!("rename or remove it, or add {}", train.display()),
        ),
    }
}

/// The images of every class, sorted by name.
fn images(folder: &Path, classes: &[String]) -> Result<Vec<Vec<File>>> {
    classes
        .par_iter()
        .map(|class| class_images(folder, class))
        .collect()
}

/// The images in a class's folder, or, as Tiny ImageNet has them, in `images` there.
fn class_images(folder: &Path, class: &str) -> Result<Vec<File>> {
    let class_folder = folder.join(class);
    if !class_folder.is_dir() {
        let help = format!("put images of `{class}` there, or remove its other folder");
        return wrong(&class_folder, "this class has no folder here", help);
    }
    let (mut inner, mut found) = (Path::new(class).to_owned(), entries(&class_folder)?);
    let nested = found.iter().any(|e| e.name == IMAGES && e.is.is_dir());
    if nested && !found.iter().any(|e| is_image(&e.path)) {
        inner.push(IMAGES);
        found = entries(&class_folder.join(IMAGES))?;
    }
    let files: Vec<File> = found
        .into_iter()
        .map(|entry| image(&inner, entry))
        .collect::<Result<_>>()?;
    if files.is_empty() {
        let help = "put images there, or remove the folder (from `train` and `val`)";
        return wrong(&folder.join(inner), "holds no images", help);
    }
    Ok(files)
}

/// An entry of a folder of images.
fn image(folder: &Path, Entry { name, path, is }: Entry) -> Result<File> {
    if !is_image(&path) || is.is_dir() {
        let what = if is.is_dir() {
            "is neither an image file nor the only folder, `images`: images lie directly in their class's folder"
        } else {
            "is neither a JPEG nor a PNG, WebP, BMP or TIFF file (.jpg, .jpeg, .png, .webp, .bmp, .tif, .tiff)"
        };
        let help = format!("move {} out of this folder, or convert it", path.display());
        return wrong(&path, what, help);
    }
    if !is.is_file() {
        return wrong(
            &path,
            "is no file",
            format!("move {} out of this folder", path.display()),
        );
    }
    if is.len() == 0 {
        return Err(files::corrupt(&path, "is empty".into()));
    }
    Ok(File {
        path: folder.join(name).into(),
        bytes: is.len(),
    })
}

/// Tiny ImageNet's validation images: all in one folder, and a list of their classes.
fn listed(folder: &Path, classes: &[String]) -> Result<Vec<Vec<File>>> {
    let list = folder.join(ANNOTATIONS);
    let text = String::from_utf8(files::read(&list, LONGEST_LIST)?)
        .map_err(|_| files::corrupt(&list, "is no text".into()))?;
    let mut there: HashMap<String, Entry> = entries(&folder.join(IMAGES))?
        .into_iter()
        .map(|entry| (entry.name.clone(), entry))
        .collect();
    let mut files: Vec<Vec<File>> = classes.iter().map(|_| vec![]).collect();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.is_empty()) {
        let bad = |problem: String| files::corrupt(&list, format!("line {}: {problem}", i + 1));
        let mut fields = line.split('\t');
        let (Some(name), Some(class)) = (fields.next(), fields.next()) else {
            return Err(bad(
                "a file and its class are expected, with a tabulator between".into(),
            ));
        };
        let class = classes
            .binary_search_by(|c| c.as_str().cmp(class))
            .map_err(|_| bad(format!("there are no training images of `{class}`")))?;
        let entry = there.remove(name).ok_or_else(|| {
            bad(format!(
                "there is no {IMAGES}/{name}, or it has been listed before"
            ))
        })?;
        files[class].push(image(Path::new(IMAGES), entry)?);
    }
    if let Some(entry) = there.into_values().next() {
        let help = format!("remove it, or add its class to {}", list.display());
        return wrong(&entry.path, format!("is not listed in {ANNOTATIONS}"), help);
    }
    if let Some(none) = files.iter().position(Vec::is_empty) {
        let problem = format!("lists no images of `{}`", classes[none]);
        return wrong(&list, problem, "add some, or remove its training images");
    }
    for class in &mut files {
        class.sort_by(|a, b| a.path.cmp(&b.path));
    }
    Ok(files)
}

/// What is in a folder, sorted by name, without hidden files and what systems leave behind.
fn entries(folder: &Path) -> Result<Vec<Entry>> {
    let unreadable = |e| Error::io("read", folder)(e);
    let mut all = vec![];
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = match entry.file_name().into_string() {
            Ok(name) => name,
            Err(name) => return wrong(&folder.join(name), "its name is no text", "rename it"),
        };
        let left = LEFT_BEHIND
            .iter()
            .any(|left| name.eq_ignore_ascii_case(left));
        if left || name.starts_with('.') {
            continue;
        }
        let path = entry.path();
        match (fs::metadata(&path), fs::read_link(&path)) {
            (Ok(is), _) => all.push(Entry { name, path, is }),
            (Err(_), Ok(to)) => {
                let problem = format!("is a link to {}, which is not there", to.display());
                return wrong(&path, problem, "mend the link or remove it");
            }
            (Err(e), Err(_)) => return Err(Error::io("read", &path)(e)),
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str());
    extension.is_some_and(|e| ENDINGS.iter().any(|known| e.eq_ignore_ascii_case(known)))
}
