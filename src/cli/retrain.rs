//! `nasfw retrain`.

use std::path::Path;

use clap::Args;
use nasfw_framework::arch::Genotype;
use nasfw_framework::config::{RunConfig, flatten};
use nasfw_framework::device::load_cuda;
use nasfw_framework::registry::{Kind, Registry};
use nasfw_framework::run::{RESULT, RUN, read_json, read_stored};
use nasfw_framework::trainer::{Outcome, effects};
use nasfw_framework::{Error, Result};
use serde_json::Value;

use super::selection::{Pair, Settings, space_options, text};
use super::{genotype, logging, run};

/// Options of `retrain`.
#[derive(Debug, Args)]
pub struct Retrain {
    /// The architecture: a run folder, a file, FILE:NAME where a file has several, a published cell's name, or a genotype
    /// as text
    what: String,
    /// The space whose network is built, by name or TOML file [default: the architecture's own; `darts-imagenet` for
    /// the large network of a DARTS cell]
    #[arg(long, short = 'S', value_name = "NAME|FILE.toml")]
    space: Option<String>,
    /// Published settings [default: those of the architecture's space; see `nasfw describe train`]
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Initial channels [default: those of the space's paper, or the preset's]
    #[arg(long)]
    channels: Option<u64>,
    /// Number of cells [default: that of the space's paper, or the preset's]
    #[arg(long)]
    cells: Option<u64>,
    #[command(flatten)]
    place: run::Place,
    /// Show the training on a screen of its own
    #[arg(long)]
    tui: bool,
    #[command(flatten)]
    settings: Settings,
}

impl Retrain {
    /// Trains in a new run folder.
    pub fn carry_out(self) -> Result<()> {
        load_cuda();
        logging::to_terminal();
        let registry = Registry::load()?;
        let genotype = genotype::load(&self.what, &[])?;
        let origin = Origin::of(&self.what)?;

        let from = format!("retrain {}", self.what);
        let set = |key: &str, value: &Value| -> Result<Pair> {
            let value = toml::Value::try_from(value).map_err(|e| Error::Invalid {
                what: from.clone(),
                why: e.to_string(),
            })?;
            Ok((key.into(), value.to_string(), from.clone()))
        };
        // A run's data are what its architecture was found with; other data must be named.
        let mut weakest = vec![];
        if self.settings.dataset.is_none() && self.settings.config.is_none() {
            for (key, value) in &origin.data {
                weakest.push(set(key, value)?);
            }
        }
        let json = serde_json::to_string(&genotype).map_err(|e| Error::Invalid {
            what: "genotype".into(),
            why: e.to_string(),
        })?;
        let preset = self
            .preset
            .clone()
            .unwrap_or_else(|| default_preset(&genotype).into());
        // Published settings are stronger than what a dataset suggests for searches.
        for plugin in [
            registry.get(Kind::Strategy, "train")?,
            registry.get(Kind::Space, "standalone")?,
        ] {
            let toml = plugin.preset(&preset).unwrap_or_default();
            let tree: Value = toml::from_str(toml)
                .map_err(|e| Error::Registry(format!("preset `{preset}`: {e}")))?;
            for (key, value) in flatten(&tree) {
                let (key, value, _) = set(&key, &value)?;
                weakest.push((key, value, format!("preset {preset}")));
            }
        }
        let number = |key: &str, option: &str, value: Option<u64>| {
            value.map(|v| (key.into(), v.to_string(), format!("--{option} {v}")))
        };
        let mut parts = vec![
            set("strategy.name", &"train".into())?,
            set("space.name", &"standalone".into())?,
            set("space.genotype", &json.into())?,
        ];
        parts.extend(text("strategy.preset", "preset", &Some(preset.clone())));
        parts.extend(text("space.preset", "preset", &Some(preset)));
        parts.extend(number("space.channels", "channels", self.channels));
        parts.extend(number("space.cells", "cells", self.cells));
        match (&self.space, &origin.definition) {
            (Some(space), _) => parts.extend(space_options("space.of", space)?),
            (None, Some(definition)) => parts.push(set("space.definition", definition)?),
            (None, None) => {}
        }
        let resolved = self.settings.resolve(&registry, weakest, parts)?;
        let config = RunConfig::new(&registry, &resolved)?;
        let dataset = run::name_of(&resolved, Kind::Dataset);
        let parts = format!("retrain-{}-{dataset}", genotype.space);
        // Before hours of training.
        for doubt in doubts(&self.what, &genotype)? {
            tracing::warn!("{doubt}");
        }
        run::begin(&config, &resolved, self.place, &parts, self.tui)
    }
}

/// What makes an architecture doubtful; of a run also how undecided it was.
fn doubts(what: &str, genotype: &Genotype) -> Result<Vec<String>> {
    let run = Path::new(what);
    Ok(match run.join(RESULT).is_file() {
        true => read_stored::<Outcome>(run, RESULT)?.doubts(),
        false => effects(genotype),
    })
}

/// The published settings for architectures of a space.
fn default_preset(genotype: &Genotype) -> &'static str {
    match genotype.space.as_str() {
        "nasbench201" => "nasbench201",
        "darts-imagenet" => "darts-imagenet",
        space if space.starts_with("nasbench1") => "nasbench101",
        _ => "darts-cifar",
    }
}

/// What a run folder tells beside its architecture.
#[derive(Default)]
struct Origin {
    /// Leaves of the configuration that name its data.
    data: Vec<(String, Value)>,
    /// Text of its space, where users defined that.
    definition: Option<Value>,
}

impl Origin {
    fn of(what: &str) -> Result<Self> {
        let file = Path::new(what).join(RUN);
        if !file.is_file() {
            return Ok(Self::default());
        }
        let help =
            "give the run's result.json instead of its folder, and name the data with `--dataset`";
        let run: Value = read_json(&file, help)?;
        let mut data: Vec<(String, Value)> = flatten(&run["dataset"])
            .into_iter()
            .map(|(key, value)| (format!("dataset.{key}"), value))
            .collect();
        for key in ["data_dir", "download"] {
            data.push((key.into(), run["common"][key].clone()));
        }
        data.retain(|(_, value)| !value.is_null());
        let definition = run["space"]["definition"].as_str();
        Ok(Self {
            data,
            definition: definition.filter(|d| !d.is_empty()).map(Value::from),
        })
    }
}
