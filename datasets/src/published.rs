//! The content that a dataset was published with, by checksums of its files.

use std::path::Path;

use md5::{Digest, Md5};
use nasfw_framework::dataset::DataSource;
use nasfw_framework::{Error, Result};
use sha1::Sha1;

/// A published checksum of a file's content, uncompressed; lower-case hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sum {
    Md5(&'static str),
    Sha1(&'static str),
}

impl Sum {
    fn is_of(self, bytes: &[u8]) -> bool {
        match self {
            Self::Md5(sum) => hexadecimal(&Md5::digest(bytes)) == sum,
            Self::Sha1(sum) => hexadecimal(&Sha1::digest(bytes)) == sum,
        }
    }
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// Another dataset's files of the same names and sizes.
pub(crate) struct Stranger {
    pub name: &'static str,
    pub sums: &'static [Sum],
}

/// Which files of a dataset are the published ones.
#[derive(Debug, Default)]
pub(crate) struct Check {
    files: usize,
    others: Vec<&'static str>,
}

impl Check {
    /// Looks at a file's content.
    pub fn file(&mut self, name: &'static str, bytes: &[u8], sum: Sum) {
        self.files += 1;
        if !sum.is_of(bytes) {
            self.others.push(name);
        }
    }

    /// Warns of files with other content: they may be a re-encoding, a subset of other images, or another dataset
    /// altogether, and the results are theirs.
    pub fn tell(self, dataset: &str, place: &Path, source: &DataSource) {
        let Some(first) = self.others.first() else {
            return;
        };
        let which = match (self.others.len(), self.files) {
            (1, _) => format!("{first} is not"),
            (n, all) if n == all => format!("{first} and all other files are not"),
            (n, all) => format!("{first} and {} of {} other files are not", n - 1, all - 1),
        };
        source.notes.warn(format!(
            "{}: {which} what was published as {dataset} (checksum): results are not comparable to those of others",
            place.display()
        ));
    }
}

/// Refuses a file that is another dataset's.
///
/// # Errors
/// [`Error::Data`] that names both.
pub(crate) fn refuse(
    path: &Path,
    bytes: &[u8],
    dataset: &str,
    strangers: &[Stranger],
) -> Result<()> {
    match strangers
        .iter()
        .find(|s| s.sums.iter().any(|sum| sum.is_of(bytes)))
    {
        None => Ok(()),
        Some(Stranger { name, .. }) => Err(Error::Data {
            path: path.into(),
            problem: format!("this is a file of {name}, not of {dataset}"),
            help: format!(
                "point to the files of {dataset} with `--data-dir DIR`; {name} as image files in a folder for each class \
                 can be searched with `--dataset image-folder --data-dir DIR`"
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const NOTHING: Sum = Sum::Md5("d41d8cd98f00b204e9800998ecf8427e");
    const ABC: Sum = Sum::Sha1("a9993e364706816aba3e25717850c26c9cd0d89d");

    #[test]
    fn published_content_is_silent_and_any_other_is_noted() {
        let notes = |contents: [&[u8]; 3]| {
            let (source, mut check) = (DataSource::default(), Check::default());
            for (content, name) in contents.into_iter().zip(["a", "b", "c"]) {
                check.file(name, content, if name == "b" { ABC } else { NOTHING });
            }
            check.tell("letters", Path::new("x"), &source);
            source.notes.all().join("")
        };
        assert_eq!(notes([b"", b"abc", b""]), "");
        assert!(notes([b"", b"", b""]).starts_with("x: b is not what was published as letters"));
        assert!(notes([b"a", b"", b""]).starts_with("x: a and 1 of 2 other files are not"));
        assert!(notes([b"a", b"", b"."]).starts_with("x: a and all other files are not"));
    }

    #[test]
    fn the_files_of_another_dataset_are_refused_by_name() {
        let digits = Stranger {
            name: "Digits",
            sums: &[NOTHING, ABC],
        };
        let strangers = std::slice::from_ref(&digits);
        let refuse = |bytes: &[u8]| super::refuse(Path::new("f"), bytes, "letters", strangers);
        let error = refuse(b"abc").unwrap_err();
        assert_eq!(
            error.to_string(),
            "f: this is a file of Digits, not of letters"
        );
        assert!(error.help().unwrap().contains("--data-dir DIR"));
        assert!(refuse(b"abcd").is_ok());
    }
}
