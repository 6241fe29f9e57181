//! `nasfw draw`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use nasfw_framework::Result;
use nasfw_framework::config::{Layer, RunConfig, resolve};
use nasfw_framework::draw::Drawing;
use nasfw_framework::registry::{Kind, Registry};

use super::genotype;
use super::output::{say, write_file};
use super::selection::space_options;

/// Options of `draw`.
#[derive(Debug, Args)]
pub struct Draw {
    /// A space's name, a TOML file that declares a space, a run folder, a file with a genotype, FILE:NAME where a file has
    /// several, a published cell's name, or a genotype as text
    what: String,
    /// Format [default: by the ending of FILE, else svg]
    #[arg(long)]
    format: Option<Format>,
    /// Write to this file instead of standard output
    #[arg(long, short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Svg,
    Dot,
}

impl Draw {
    /// Draws.
    pub fn carry_out(self) -> Result<()> {
        let drawing = drawing(&self.what)?;
        let ending = self
            .output
            .as_ref()
            .and_then(|p| p.extension())
            .and_then(|e| e.to_str());
        let format = self.format.unwrap_or(match ending {
            Some("dot" | "gv") => Format::Dot,
            _ => Format::Svg,
        });
        let text = match format {
            Format::Svg => drawing.svg(),
            Format::Dot => drawing.dot(),
        };
        match &self.output {
            Some(path) => write_file(path, text.as_bytes()),
            None => {
                say(text);
                Ok(())
            }
        }
    }
}

fn drawing(what: &str) -> Result<Drawing> {
    let registry = Registry::load()?;
    let spaces: Vec<&str> = registry.of(Kind::Space).map(|p| p.name).collect();
    let declared = what.ends_with(".toml");
    if !declared && (Path::new(what).exists() || !spaces.contains(&what)) {
        return Ok(Drawing::of_genotype(&genotype::load(what, &spaces)?));
    }
    let options = space_options("space.name", what)?;
    let resolved = resolve(&registry, &[Layer::CommandLine(options)])?;
    let config = RunConfig::new(&registry, &resolved)?;
    Ok(Drawing::of_space(config.space.build()?.as_ref()))
}
