//! Finding and reading a dataset's files, and the errors that name them.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use nasfw_framework::Error;
use nasfw_framework::dataset::{DataSource, cache_folder};
use nasfw_framework::prelude::Result;

/// The folders where a dataset's files may lie, best first: `--data-dir` and `subfolder` in it, or,
/// where none is given, nasfw's own cache and the system's folders.
pub fn folders(source: &DataSource, subfolder: &str, system: &[&str]) -> Vec<PathBuf> {
    match &source.dir {
        Some(dir) => vec![dir.clone(), dir.join(subfolder)],
        None => {
            let cache = cache_folder().map(|cache| cache.join(subfolder));
            cache
                .into_iter()
                .chain(system.iter().map(PathBuf::from))
                .collect()
        }
    }
}

/// The folder that downloads go to: `--data-dir`, or nasfw's own cache.
pub fn download_folder(source: &DataSource, subfolder: &str) -> Option<PathBuf> {
    source
        .dir
        .clone()
        .or_else(|| cache_folder().map(|cache| cache.join(subfolder)))
}

/// The bytes of a file, uncompressed if it is gzip-compressed. At most `limit + 1` bytes are read:
/// more than `limit` is too long in any case.
pub fn read(path: &Path, limit: usize) -> Result<Vec<u8>> {
    let unreadable = |error: io::Error| Error::Data {
        path: path.into(),
        problem: format!("cannot be read: {error}"),
        help: match error.kind() {
            io::ErrorKind::NotFound => format!(
                "put the file there, or point to a complete copy of the dataset with \
                 `--data-dir DIR`{OR_DOWNLOAD}"
            ),
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::InvalidData => again(path),
            _ => "check that the file may be read".into(),
        },
    };
    let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut start = Vec::new();
    file.by_ref()
        .take(2)
        .read_to_end(&mut start)
        .map_err(unreadable)?;
    let gzipped = start == [0x1f, 0x8b];
    let file = io::Cursor::new(start).chain(file);
    if gzipped {
        take(MultiGzDecoder::new(BufReader::new(file)), limit).map_err(unreadable)
    } else {
        take(file, limit).map_err(unreadable)
    }
}

/// At most `limit + 1` bytes of a stream.
pub fn take(stream: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// How a length differs from the expected one.
pub fn length_problem(found: usize, expected: usize, what: &str) -> String {
    if found < expected {
        format!("holds {found} of {expected} {what}: it is truncated")
    } else {
        format!("holds at least {found} {what}, {expected} are expected")
    }
}

/// A file whose content is wrong.
pub fn corrupt(path: &Path, problem: String) -> Error {
    Error::Data {
        path: path.into(),
        problem,
        help: again(path),
    }
}

fn again(path: &Path) -> String {
    format!(
        "delete {} and get it again, or point to a good copy with `--data-dir DIR`{OR_DOWNLOAD}",
        path.display()
    )
}

const OR_DOWNLOAD: &str = "; with `--set download=true` nasfw fetches what is missing";

/// No folder holds the dataset.
pub fn missing(dataset: &str, first_file: &str, folders: &[PathBuf], source: &DataSource) -> Error {
    let places: Vec<String> = folders
        .iter()
        .map(|folder| folder.display().to_string())
        .collect();
    let absent = source.dir.as_ref().is_some_and(|folder| !folder.is_dir());
    Error::Data {
        path: folders
            .first()
            .cloned()
            .unwrap_or_else(|| PathBuf::from(dataset)),
        problem: if absent {
            "there is no such folder".into()
        } else {
            format!("no {first_file} of {dataset} in {}", places.join(", "))
        },
        help: format!(
            "say where the files are: `nasfw run --dataset {dataset} --data-dir DIR`, \
             or have them fetched: `nasfw run --dataset {dataset} --set download=true`"
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    #[test]
    fn compressed_or_not_the_bytes_are_the_same_and_limited() {
        let dir = tempfile::TempDir::new().unwrap();
        let content: Vec<u8> = (0..=255).cycle().take(5000).collect();
        let plain = dir.path().join("plain");
        std::fs::write(&plain, &content).unwrap();
        let packed = dir.path().join("packed");
        let mut encoder = GzEncoder::new(File::create(&packed).unwrap(), Compression::fast());
        encoder.write_all(&content).unwrap();
        encoder.finish().unwrap();
        for path in [plain, packed] {
            assert_eq!(read(&path, 5000).unwrap(), content);
            assert_eq!(read(&path, 100).unwrap(), content[..101]);
        }
        let short = dir.path().join("short");
        std::fs::write(&short, [0x1f]).unwrap();
        assert_eq!(read(&short, 10).unwrap(), [0x1f]);
    }

    #[test]
    fn a_missing_file_and_a_broken_archive_say_what_to_type() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("train.bin");
        let error = read(&path, 10).unwrap_err();
        assert!(
            error.to_string().contains("train.bin: cannot be read"),
            "{error}"
        );
        assert!(error.help().unwrap().contains("--data-dir DIR"));
        std::fs::write(&path, [0x1f, 0x8b, 8, 0, 1, 2]).unwrap();
        let error = read(&path, 10).unwrap_err();
        assert!(
            error.help().unwrap().starts_with("delete "),
            "{error}: {:?}",
            error.help()
        );
        assert_eq!(error.exit_code(), 3);
    }

    #[test]
    fn a_given_folder_is_the_only_place_to_look() {
        let source = DataSource {
            dir: Some("/d".into()),
            ..DataSource::default()
        };
        assert_eq!(
            folders(&source, "sub", &["/usr/share/x"]),
            [PathBuf::from("/d"), PathBuf::from("/d/sub")]
        );
        let anywhere = folders(&DataSource::default(), "sub", &["/usr/share/x"]);
        assert!(anywhere.contains(&PathBuf::from("/usr/share/x")));
    }
}
