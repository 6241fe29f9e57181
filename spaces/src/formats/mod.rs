//! Genotypes as text: nasfw's own JSON, and the forms in which papers, benchmarks and logs have their cells.
//!
//! | format | looks like | cells |
//! |---|---|---|
//! | JSON | `{"space": …, "cells": […]}` | any |
//! | DARTS | `Genotype(normal=[('sep_conv_3x3', 0), …], normal_concat=range(2, 6), reduce=…, reduce_concat=…)` | DARTS family |
//! | NAS-Bench-201 | `\|nor_conv_3x3~0\|+\|none~0\|skip_connect~1\|+…` | NAS-Bench-201 |
//! | NAS-Bench-101 | `{"matrix": [[0, 1, …], …], "ops": ["input", …, "output"]}` | NAS-Bench-101 and 1Shot1 |
//!
//! A text is read in three steps, none of which runs anything: `literal` makes values of what Python, JSON and NumPy
//! write; `find` looks where among log lines, comments, variables and keys there are values of a format; each format
//! reads its own from the value. Reading never panics, and what is wrong is said with its line and column. A text may
//! have up to [`MAX_BYTES`] bytes, 1,000,000 values, 10,000 genotypes, and brackets nested 64 deep; sizes of genotypes
//! are bounded by [`Genotype::MAX_EDGES`] and its like.

mod choose;
mod darts;
mod find;
mod form;
mod literal;
mod nasbench101;
mod nasbench201;
mod own;
#[cfg(test)]
mod tests;
mod text;
mod value;

use nasfw_framework::arch::Genotype;

pub use choose::{Chosen, choose};
pub use darts::OPERATIONS as DARTS_OPERATIONS;
pub use form::{Format, FormatError, MAX_BYTES};
pub use nasbench101::{genotype as nasbench101_genotype, spec as nasbench101_spec};
pub use nasbench201::OPERATIONS as NASBENCH201_OPERATIONS;
pub use text::decode;

impl Format {
    /// The format that a text resembles; none where it resembles no genotype at all, as a name does.
    pub fn of(text: &str) -> Option<Self> {
        let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
        if has(&["cells\"", "cells'"]) {
            Some(Self::Json)
        } else if has(&["Genotype(", "normal=", "normal\"", "normal'", "normal ="]) {
            Some(Self::Darts)
        } else if has(&["ModelSpec(", "matrix", "adjacency", "conv3x3-bn-relu"]) {
            Some(Self::Nasbench101)
        } else if has(&["|"]) || has(&OPERATIONS_OF_PAIRS) && has(&["("]) {
            Some(Self::Nasbench201)
        } else {
            text.trim_start().starts_with('{').then_some(Self::Json)
        }
    }

    /// An example of the format.
    fn example(self) -> &'static str {
        match self {
            Self::Json => r#"{"space": "darts", "cells": [{"name": "normal", …}, …]}"#,
            Self::Darts => {
                "Genotype(normal=[('sep_conv_3x3', 0), …], normal_concat=range(2, 6), reduce=[…], reduce_concat=range(2, 6))"
            }
            Self::Nasbench201 => "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|…~0|…~1|…~2|",
            Self::Nasbench101 => {
                r#"{"matrix": [[0, 1, …], …], "ops": ["input", "conv3x3-bn-relu", …, "output"]}"#
            }
        }
    }
}

/// Operations that a list of NAS-Bench-201 begins with.
const OPERATIONS_OF_PAIRS: [&str; 2] = ["nor_conv_", "avg_pool_3x3"];

impl Format {
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

/// Reads the one genotype that a text has, in whatever form it is and whatever is around it.
///
/// # Errors
/// What is wrong, and where; a text with several different genotypes.
pub fn read(text: &str) -> Result<Genotype, FormatError> {
    choose(text, None).map(|chosen| chosen.genotype)
}
