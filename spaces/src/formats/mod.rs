//! Genotypes as text: nasfw's own JSON, and the forms in which papers and benchmarks print their cells.
//!
//! | format | looks like | cells |
//! |---|---|---|
//! | JSON | `{"space": …, "cells": […]}` | any |
//! | DARTS | `Genotype(normal=[('sep_conv_3x3', 0), …], normal_concat=range(2, 6), reduce=…, reduce_concat=…)` | DARTS family |
//! | NAS-Bench-201 | `\|nor_conv_3x3~0\|+\|none~0\|skip_connect~1\|+…` | NAS-Bench-201 |
//! | NAS-Bench-101 | `{"matrix": [[0, 1, …], …], "ops": ["input", …, "output"]}` | NAS-Bench-101 and 1Shot1 |
//!
//! Reading is strict and never panics; what is wrong is said with its line and column.

mod darts;
mod nasbench101;
mod nasbench201;
mod scan;
#[cfg(test)]
mod tests;

use nasfw_framework::arch::Genotype;
use thiserror::Error;

pub use darts::OPERATIONS as DARTS_OPERATIONS;
pub use nasbench101::spec as nasbench101_spec;
pub use nasbench201::OPERATIONS as NASBENCH201_OPERATIONS;

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

    /// The format that a text looks like, by how it begins; none where it looks like no genotype at all.
    pub fn of(text: &str) -> Option<Self> {
        let text = text.trim_start();
        if text.starts_with('{') {
            let about = |key| text.contains(&format!("\"{key}\""));
            let bench = about("matrix") && !about("cells");
            Some(if bench { Self::Nasbench101 } else { Self::Json })
        } else if text.starts_with('|') {
            Some(Self::Nasbench201)
        } else {
            text.contains("Genotype(").then_some(Self::Darts)
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
    /// The text looks like none of the formats.
    #[error("this is no genotype in any form: {0}")]
    Unknown(&'static str),
}

impl Format {
    fn whole(self, message: impl Into<String>) -> FormatError {
        FormatError::Whole {
            format: self,
            message: message.into(),
        }
    }

    /// Writes a genotype without a newline at the end. What is written reads back as the same cells; the name of the
    /// space is kept by JSON only.
    ///
    /// # Errors
    /// Cells that the format can't say.
    pub fn write(self, genotype: &Genotype) -> Result<String, FormatError> {
        let text = match self {
            Self::Json => {
                return serde_json::to_string_pretty(genotype)
                    .map_err(|e| self.whole(e.to_string()));
            }
            Self::Darts => darts::write(genotype)?,
            Self::Nasbench201 => nasbench201::write(genotype)?,
            Self::Nasbench101 => return nasbench101::write(genotype),
        };
        // The last word: a reader must get the same cells.
        match read(&text) {
            Ok(back) if back.cells == genotype.cells => Ok(text),
            Ok(_) => Err(self.whole("it has names or an order of edges that the format can't say")),
            Err(e) => Err(e),
        }
    }
}

/// Reads a genotype in whatever form it is.
///
/// # Errors
/// What is wrong, and where.
pub fn read(text: &str) -> Result<Genotype, FormatError> {
    match Format::of(text) {
        None => Err(FormatError::Unknown(
            "it begins neither with `{` (JSON) nor with `|` (NAS-Bench-201), and has no `Genotype(` (DARTS)",
        )),
        Some(Format::Json) => Genotype::from_json(text).map_err(|e| Format::Json.whole(e)),
        Some(Format::Darts) => darts::read(text),
        Some(Format::Nasbench201) => nasbench201::read(text),
        Some(Format::Nasbench101) => nasbench101::read(text),
    }
}
