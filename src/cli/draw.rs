//! `nasfw draw`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use nasfw_framework::arch::Genotype;
use nasfw_framework::config::{Layer, RunConfig, resolve};
use nasfw_framework::draw::Drawing;
use nasfw_framework::registry::{Kind, Registry};
use nasfw_framework::run::{RESULT, write_whole};
use nasfw_framework::{Error, Result};
use serde_json::Value;

use super::output::say;

/// Options of `draw`.
#[derive(Debug, Args)]
pub struct Draw {
    /// A space's name, a run folder, or a JSON file with a genotype
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
            // A device or a pipe is written to; only a file can be replaced as a whole.
            Some(path) if path.exists() && !path.is_file() => {
                std::fs::write(path, text).map_err(Error::io("write", path))
            }
            Some(path) => write_whole(path, text.as_bytes()),
            None => {
                say(text);
                Ok(())
            }
        }
    }
}

fn drawing(what: &str) -> Result<Drawing> {
    let path = Path::new(what);
    if path.is_dir() {
        let result = path.join(RESULT);
        if !result.exists() {
            return Err(Error::Run {
                path: path.into(),
                problem: "this run has no result yet".into(),
                help: format!("finish it with `nasfw resume {what}`"),
            });
        }
        return Ok(Drawing::of_genotype(&genotype(&result)?));
    }
    if path.is_file() {
        return Ok(Drawing::of_genotype(&genotype(path)?));
    }
    let registry = Registry::load()?;
    registry.get(Kind::Space, what)?;
    let name = ("space.name".into(), format!("\"{what}\""), what.to_owned());
    let resolved = resolve(&registry, &[Layer::CommandLine(vec![name])])?;
    let config = RunConfig::new(&registry, &resolved)?;
    Ok(Drawing::of_space(config.space.build()?.as_ref()))
}

/// A genotype from its own JSON, or from that of a result.
fn genotype(path: &Path) -> Result<Genotype> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let wrong = |problem: String| Error::Data {
        path: path.into(),
        problem,
        help: "give a run folder, its result.json, or a file with its `genotype` part".into(),
    };
    let mut value: Value =
        serde_json::from_str(&text).map_err(|e| wrong(format!("this is not JSON: {e}")))?;
    if let Some(inner) = value.get_mut("genotype") {
        value = inner.take();
    }
    let genotype: Genotype =
        serde_json::from_value(value).map_err(|e| wrong(format!("this is no genotype: {e}")))?;
    genotype.check().map_err(|e| wrong(e.to_string()))?;
    Ok(genotype)
}
