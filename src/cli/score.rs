//! `nasfw score`.

use std::collections::BTreeMap;

use clap::Args;
use nasfw_framework::Result;
use nasfw_framework::arch::Genotype;
use nasfw_framework::registry::Kind;
use serde::Serialize;

use super::builder::{builder, space_of};
use super::genotype;
use super::origin::Origin;
use super::output::{say, say_json};
use super::ready::ready;
use super::scoring::Scoring;
use super::selection::{pair, space_options};

/// Options of `score`.
#[derive(Debug, Args)]
pub struct Score {
    /// Architectures: run folders, files, FILE:NAME where a file has several, published cells' names, or genotypes as text
    #[arg(required = true, value_name = "ARCHITECTURE")]
    what: Vec<String>,
    /// The space whose networks are built, by name or TOML file [default: each architecture's own]
    #[arg(long, short = 'S', value_name = "NAME|FILE.toml")]
    space: Option<String>,
    /// Seed of weights and images
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: u64,
    #[command(flatten)]
    scoring: Scoring,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// An architecture with its scores, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Scored<'a> {
    /// As it was asked for.
    architecture: &'a str,
    genotype: Genotype,
    /// By the proxies' names.
    #[serde(with = "nasfw_framework::lossless")]
    scores: BTreeMap<String, f64>,
}

impl Score {
    /// Scores and prints.
    pub fn carry_out(self) -> Result<()> {
        let registry = ready()?;
        let mut architectures = vec![];
        for what in &self.what {
            let genotype = genotype::load(what, &[])?;
            let origin = Origin::of(what, &genotype)?;
            architectures.push((what, genotype, origin));
        }
        let of = space_of(
            &architectures[0].1,
            &Origin::default(),
            self.space.as_deref(),
        )?;
        let of = match registry.get(Kind::Space, &of.0) {
            Ok(_) => space_options(
                "space.name",
                "space",
                self.space.as_deref().unwrap_or(&of.0),
            )?,
            // Cells of NAS-Bench-101 have none.
            Err(_) => vec![],
        };
        let mut weakest = vec![];
        if self.scoring.dataset.is_none() {
            for (key, value) in &architectures[0].2.data {
                weakest.push(pair(key, value, self.what[0].as_str())?);
            }
        }
        let config = self.scoring.config(&registry, weakest, of, self.seed)?;
        let scorer = self.scoring.ready(&registry, &config, self.seed)?;
        let names: Vec<String> = scorer.names().map(str::to_owned).collect();
        let width = self
            .what
            .iter()
            .map(|w| w.chars().count())
            .max()
            .unwrap_or(0)
            .min(72);
        if !self.json {
            let heads: Vec<String> = names.iter().map(|name| format!("{name:>12}")).collect();
            say(format!("{:width$}  {}", "", heads.join("  ")));
        }
        let mut all = vec![];
        for (what, genotype, origin) in architectures {
            let space = builder(&registry, &genotype, &origin, self.space.as_deref())?;
            let network = space.network(&genotype, scorer.task, &scorer.options)?;
            let scores = scorer.scores(&network)?;
            if !self.json {
                let scores: Vec<String> = scores.iter().map(|s| format!("{s:>12.6}")).collect();
                let name: String = what.chars().take(width).collect();
                say(format!("{name:width$}  {}", scores.join("  ")));
            }
            all.push(Scored {
                architecture: what,
                genotype,
                scores: names.iter().cloned().zip(scores).collect(),
            });
        }
        match self.json {
            true => say_json("scores", &all),
            false => Ok(()),
        }
    }
}
