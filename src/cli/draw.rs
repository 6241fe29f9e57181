//! `nasfw draw`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use nasfw_analysis::figures::Format as Picture;
use nasfw_framework::command::quoted;
use nasfw_framework::config::{Layer, RunConfig, resolve};
use nasfw_framework::draw::{Direction, Drawing};
use nasfw_framework::registry::{Kind, Registry};
use nasfw_framework::{Error, Result};

use super::genotype;
use super::output::{format_of, millimetres, say, write_file};
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
    /// Which way the edges lead
    #[arg(long, default_value = "down")]
    direction: Towards,
    /// So many millimetres wide, for a column of a paper
    #[arg(long, value_name = "MM", value_parser = millimetres)]
    width: Option<f64>,
    /// Write to this file instead of standard output
    #[arg(long, short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Svg,
    Png,
    Pdf,
    Tikz,
    Dot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Towards {
    Down,
    Right,
}

impl Draw {
    /// Draws.
    pub fn carry_out(self) -> Result<()> {
        let format = self.format()?;
        let drawing = drawing(&self.what)?.towards(match self.direction {
            Towards::Down => Direction::Down,
            Towards::Right => Direction::Right,
        });
        let svg = |format: Picture| format.bytes(&drawing.svg(), self.width);
        let bytes = match format {
            Format::Svg => svg(Picture::Svg)?,
            Format::Png => svg(Picture::Png)?,
            Format::Pdf => svg(Picture::Pdf)?,
            Format::Tikz => drawing.tikz(self.width).into_bytes(),
            Format::Dot => drawing.dot().into_bytes(),
        };
        match &self.output {
            Some(path) => write_file(path, &bytes),
            None => {
                say(String::from_utf8_lossy(&bytes));
                Ok(())
            }
        }
    }

    /// The format that is asked for, by name and by the file's ending.
    fn format(&self) -> Result<Format> {
        let all = [
            ("svg", Format::Svg),
            ("png", Format::Png),
            ("pdf", Format::Pdf),
            ("tex", Format::Tikz),
            ("tikz", Format::Tikz),
            ("dot", Format::Dot),
            ("gv", Format::Dot),
        ];
        let ending = match &self.output {
            Some(file) => format_of("-o", file, &all)?,
            None => None,
        };
        let wrong = |what: String, why: &str, help: &str| {
            Err(Error::Incompatible {
                what,
                why: why.into(),
                help: help.into(),
            })
        };
        let option = || "--format".to_owned();
        match (self.format, ending, &self.output) {
            (Some(Format::Png | Format::Pdf), None, None) => wrong(
                option(),
                "a picture is no text",
                "write it to a file: `-o FILE.png` or `-o FILE.pdf`",
            ),
            (Some(format), Some(ending), _) if format != ending => wrong(
                option(),
                "the file's ending promises another format",
                "leave `--format` out, or name the file after it",
            ),
            (None, None, Some(file)) if file.extension().is_some() => wrong(
                format!("-o {}", quoted(file)),
                "nothing is known of a format of this ending",
                "let the file's name end with `.svg`, `.png`, `.pdf`, `.tex`, `.dot` or `.gv`, or choose `--format`",
            ),
            (_, _, _) if self.width.is_some() && self.format.or(ending) == Some(Format::Dot) => {
                wrong(
                    "--width".into(),
                    "Graphviz lays a graph out as it needs",
                    "leave it out, or choose `--format svg`, `png`, `pdf` or `tikz`",
                )
            }
            (format, ending, _) => Ok(format.or(ending).unwrap_or(Format::Svg)),
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
