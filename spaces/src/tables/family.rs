//! What the benchmarks that are tables have in common.

use std::path::{Path, PathBuf};

use nasfw_framework::arch::Genotype;
use nasfw_framework::dataset::cache_folder;
use nasfw_framework::{Error, Result};

use super::format::{Builder, Table};

/// The bytes that a row is found by.
pub type Key = Vec<u8>;

/// A benchmark that is a table: its keys, and how published files become rows.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Name of the benchmark, and of its file without the ending.
    pub name: &'static str,
    /// Spaces whose architectures it knows.
    pub spaces: &'static [&'static str],
    /// The datasets that its numbers were measured on, by nasfw's names.
    pub datasets: &'static [&'static str],
    /// Epochs of the training that metrics without `@` are taken after.
    pub epochs: u32,
    /// What `nasfw bench import` takes.
    pub takes: &'static str,
    /// Reads published files.
    pub import: fn(&[PathBuf]) -> Result<Builder>,
    /// The key of a genotype of one of the spaces; none where the benchmark can't contain it.
    pub key: fn(&Genotype) -> Result<Option<Vec<u8>>>,
    /// The key that a text spells out, if it does.
    pub parse_key: fn(&str) -> Option<Vec<u8>>,
    /// The architectures of keys, in their order; none of a key that is no architecture's.
    pub genotypes: fn(&[Key]) -> Result<Vec<Option<Genotype>>>,
    /// A key for people.
    pub show_key: fn(&[u8]) -> String,
}

impl Family {
    /// Where its table lies unless something else is said: `tables/NAME.table` in nasfw's cache.
    ///
    /// # Errors
    /// On a system that has neither `XDG_CACHE_HOME` nor `HOME`.
    pub fn default_file(&self) -> Result<PathBuf> {
        let cache = cache_folder().ok_or_else(|| Error::Incompatible {
            what: format!("the table of {}", self.name),
            why: "this system has no folder for it: neither XDG_CACHE_HOME nor HOME is set".into(),
            help: "say where: `--set benchmark.file=FILE`, `nasfw bench import … -o FILE`".into(),
        })?;
        Ok(cache.join("tables").join(format!("{}.table", self.name)))
    }

    /// Opens a table and checks that it is one of this family.
    ///
    /// # Errors
    /// As [`Table::open`]; a table of another benchmark.
    pub fn open(&self, path: &Path) -> Result<Table> {
        let table = Table::open(path)?;
        if table.header().name == self.name {
            return Ok(table);
        }
        Err(Error::Data {
            path: path.into(),
            problem: format!(
                "this is a table of {}, not of {}",
                table.header().name,
                self.name
            ),
            help: format!(
                "give another file, or make one: `nasfw bench import {} FILE`",
                self.name
            ),
        })
    }
}

/// A genotype of a space that a benchmark does not know.
pub(super) fn foreign(family: &Family, genotype: &Genotype) -> Error {
    Error::Incompatible {
        what: format!("an architecture of space `{}`", genotype.space),
        why: format!("benchmark `{}` knows {}", family.name, family.spaces.join(", ")),
        help: "`nasfw list benchmarks` shows which there are; `--set benchmark.name=none` runs without".into(),
    }
}
