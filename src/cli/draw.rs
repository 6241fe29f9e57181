//! `nasfw draw`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use nasfw_analysis::figures::png;
use nasfw_framework::config::{Layer, RunConfig, resolve};
use nasfw_framework::draw::Drawing;
use nasfw_framework::registry::{Kind, Registry};
use nasfw_framework::{Error, Result};

use super::genotype;
use super::output::{format_of, say, write_file};
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
    Png,
    Dot,
}

impl Draw {
    /// Draws.
    pub fn carry_out(self) -> Result<()> {
        let format = self.format()?;
        let drawing = drawing(&self.what)?;
        let text = match format {
            Format::Svg | Format::Png => drawing.svg(),
            Format::Dot => drawing.dot(),
        };
        match &self.output {
            Some(path) if format == Format::Png => write_file(path, &png(&text)?),
            Some(path) => write_file(path, text.as_bytes()),
            None => {
                say(text);
                Ok(())
            }
        }
    }

    /// The format that is asked for, by name and by the file's ending.
    fn format(&self) -> Result<Format> {
        let all = [
            ("svg", Format::Svg),
            ("png", Format::Png),
            ("dot", Format::Dot),
            ("gv", Format::Dot),
        ];
        let ending = match &self.output {
            Some(file) => format_of("-o", file, &all)?,
            None => None,
        };
        let wrong = |why: &str, help: &str| {
            Err(Error::Incompatible {
                what: "--format".into(),
                why: why.into(),
                help: help.into(),
            })
        };
        match (self.format, ending) {
            (Some(Format::Png), None) if self.output.is_none() => {
                wrong("a PNG is no text", "write it to a file: `-o FILE.png`")
            }
            (Some(format), Some(ending)) if format != ending => wrong(
                "the file's ending promises another format",
                "leave `--format` out, or name the file after it",
            ),
            (format, ending) => Ok(format.or(ending).unwrap_or(Format::Svg)),
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
    let options = space_options("space.name", "space", what)?;
    let resolved = resolve(&registry, &[Layer::CommandLine(options)])?;
    let config = RunConfig::new(&registry, &resolved)?;
    Ok(Drawing::of_space(config.space.build()?.as_ref()))
}
