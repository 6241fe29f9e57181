//! Published cells of the DARTS family by name, with the figures printed with them.
//!
//! The list is `published.toml`: cells as their authors' repositories have them, sizes of the networks that they make.
//! Cells whose operations DARTS's own network lacks (PR-DARTS's, with channel multipliers) are not among them.

use nasfw_framework::arch::Genotype;
use nasfw_framework::registry::similar;
use nasfw_framework::{Error, Result};
use serde::Deserialize;

use crate::formats;

/// One published architecture.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// The name that its authors' code gives it, for example `DARTS_V2`.
    pub name: String,
    /// Other names that it can be asked for by.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// In words.
    pub label: String,
    /// Repository, commit and file.
    pub source: String,
    /// Figures as printed by the authors: errors (or accuracies) in percent, parameters, multiply-adds.
    #[serde(default)]
    pub figures: String,
    /// The space that it was found in.
    #[serde(default = "darts")]
    pub space: String,
    /// Size of the CIFAR-10 network of 36 channels and 20 cells: parameters without auxiliary head and multiply-adds.
    pub cifar: Option<(u64, u64)>,
    /// Size of the ImageNet network of 48 channels and 14 cells.
    pub imagenet: Option<(u64, u64)>,
    /// The cells in DARTS's form.
    pub genotype: String,
}

fn darts() -> String {
    "darts".into()
}

#[derive(Deserialize)]
struct List {
    cell: Vec<Published>,
}

impl Published {
    /// The architecture.
    pub fn genotype(&self) -> Result<Genotype> {
        let genotype = formats::read(&self.genotype)
            .map_err(|e| Error::Registry(format!("published cell {}: {e}", self.name)))?;
        Ok(Genotype {
            space: self.space.clone(),
            ..genotype
        })
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.name)
            .chain(&self.aliases)
            .map(String::as_str)
    }
}

/// All published cells, oldest method first.
pub fn all() -> Result<Vec<Published>> {
    toml::from_str::<List>(include_str!("published.toml"))
        .map(|list| list.cell)
        .map_err(|e| Error::Registry(format!("published cells: {e}")))
}

/// The published cell of this name; capitals do not matter, nor whether parts are joined by `-` or `_`.
pub fn find(name: &str) -> Result<Option<Published>> {
    let wanted = plain(name);
    Ok(all()?
        .into_iter()
        .find(|p| p.names().any(|n| plain(n) == wanted)))
}

/// The name most like `name`, of the published cells' and `others`, if any is like it.
pub fn nearest(name: &str, others: &[&str]) -> Result<Option<String>> {
    let all = all()?;
    let names: Vec<&str> = all
        .iter()
        .flat_map(Published::names)
        .chain(others.iter().copied())
        .collect();
    let plain_names: Vec<String> = names.iter().map(|n| plain(n)).collect();
    let nearest = similar(&plain(name), plain_names.iter().map(String::as_str));
    Ok(nearest.and_then(|n| {
        let at = plain_names.iter().position(|p| *p == n)?;
        Some(names[at].to_owned())
    }))
}

fn plain(name: &str) -> String {
    name.to_lowercase().replace(['-', ' '], "_")
}
