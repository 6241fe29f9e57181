//! The forms that genotypes are written in, and why a text is none.

use thiserror::Error;

/// The longest text that is read, in bytes.
pub const MAX_BYTES: usize = 8 << 20;

/// A text form of genotypes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// nasfw's own: keeps everything.
    Json,
    /// The tuples of DARTS's code (`cnn/genotypes.py`) and of everything built on it.
    Darts,
    /// The strings of NAS-Bench-201.
    Nasbench201,
    /// The two arguments of NAS-Bench-101's `ModelSpec`, as JSON.
    Nasbench101,
}

impl Format {
    /// The format's name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Darts => "DARTS",
            Self::Nasbench201 => "NAS-Bench-201",
            Self::Nasbench101 => "NAS-Bench-101",
        }
    }

    pub(super) fn whole(self, message: impl Into<String>) -> FormatError {
        FormatError::Whole {
            format: self,
            message: message.into(),
        }
    }
}

/// Why a text is no genotype, or a genotype can't be written in a format.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FormatError {
    /// The text is not of the format.
    #[error("this is no {} genotype: line {line}, column {column}: {message}", format.name())]
    Text {
        /// The format that it was read as.
        format: Format,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// The text, or the genotype, is wrong as a whole.
    #[error("this is no {} genotype: {message}", format.name())]
    Whole {
        /// The format that it was read as or should be written in.
        format: Format,
        /// What is wrong.
        message: String,
    },
    /// There is no genotype in the text.
    #[error("this is no genotype in any form: {0}")]
    Unknown(String),
    /// The text has several.
    #[error("there are {count} different genotypes: {list}")]
    Several {
        /// How many.
        count: usize,
        /// Their names and lines.
        list: String,
        /// What to ask [`choose`](super::choose) for to get one of them.
        example: String,
    },
    /// The text has none of this name.
    #[error("there is no genotype `{which}`, but {list}")]
    NoSuch {
        /// What was asked for.
        which: String,
        /// Names and lines of those that are there.
        list: String,
    },
    /// The text is too long.
    #[error("it is longer than {} MB; give the part that has the genotype", MAX_BYTES >> 20)]
    TooLong,
    /// The file is no text.
    #[error("this is no text: {0}")]
    NoText(&'static str),
}

/// `there is no operation …`, with what may have been meant.
pub(super) fn no_operation(name: &str, known: &[&str]) -> String {
    match nasfw_framework::registry::similar(name, known.iter().copied()) {
        Some(s) => format!("there is no operation `{name}`; did you mean `{s}`?"),
        None => format!(
            "there is no operation `{name}`; there are {}",
            known.join(", ")
        ),
    }
}
