//! `nasfw retrain`.

use clap::Args;
use nasfw_framework::arch::Genotype;
use nasfw_framework::config::{RunConfig, flatten};
use nasfw_framework::device::load_cuda;
use nasfw_framework::registry::{Kind, Plugin, Registry, similar};
use nasfw_framework::{Error, Result};
use serde_json::Value;

use super::origin::Origin;
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
        let origin = Origin::of(&self.what, &genotype)?;

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
        let standalone = registry.get(Kind::Space, "standalone")?;
        for plugin in [registry.get(Kind::Strategy, "train")?, standalone] {
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
        if let Some(space) = &self.space {
            parts.extend(space_options("space.of", SETTINGS, space)?);
        }
        let mut settings = self.settings;
        // Of cells of NAS-Bench-101 there is no such space, of misspelt ones neither; the network's builder says so.
        let of = of(&settings, &registry, &weakest, &parts, &genotype);
        if let Ok(space) = registry.get(Kind::Space, &of) {
            for (key, value) in origin.carried(&registry, space)? {
                weakest.push(set(&format!("{SETTINGS}.{key}"), &value)?);
            }
            let (inner, own) = take_inner(settings.set, space, standalone)?;
            parts.extend(inner);
            settings.set = own;
        }
        let resolved = settings.resolve(&registry, weakest, parts)?;
        let config = RunConfig::new(&registry, &resolved)?;
        let dataset = run::name_of(&resolved, Kind::Dataset);
        let parts = format!("retrain-{}-{dataset}", genotype.space);
        // Before hours of training.
        for doubt in origin.doubts(&genotype)? {
            tracing::warn!("{doubt}");
        }
        run::begin(&config, &resolved, self.place, &parts, self.tui)
    }
}

/// Where `standalone` keeps the settings of the space that builds the network.
const SETTINGS: &str = "space.settings";

/// Name of the space that builds the network, wherever it is chosen.
fn of(
    settings: &Settings,
    registry: &Registry,
    weakest: &[Pair],
    parts: &[Pair],
    genotype: &Genotype,
) -> String {
    let mut settings = settings.clone();
    let is_name = |pair: &String| pair.trim_start().starts_with("space.of");
    settings.set.retain(is_name);
    // What is wrong with the others is said where they all are.
    let chosen = settings.resolve(registry, weakest.to_vec(), parts.to_vec());
    let of = chosen.ok().and_then(|resolved| {
        let of = resolved.section(Kind::Space)["of"].as_str()?.to_owned();
        (!of.is_empty()).then_some(of)
    });
    of.unwrap_or_else(|| genotype.space.clone())
}

/// Divides `--set` pairs: `space.KEY` is an option of the space that builds the network unless it is one of `standalone`,
/// or looks like one.
fn take_inner(
    set: Vec<String>,
    space: &Plugin,
    standalone: &Plugin,
) -> Result<(Vec<Pair>, Vec<String>)> {
    let (theirs, ours) = (space.default_section()?, standalone.default_section()?);
    let options = || ours.as_object().into_iter().flatten().map(|(key, _)| key);
    let (mut inner, mut own) = (vec![], vec![]);
    for pair in set {
        let moved = pair.split_once('=').and_then(|(key, value)| {
            let key = key.trim().strip_prefix("space.")?;
            let option = key.split('.').next()?;
            let is_theirs = match (ours.get(option), theirs.get(option)) {
                (Some(_), _) => false,
                (None, Some(_)) => true,
                (None, None) => {
                    option != "preset" && similar(option, options().map(String::as_str)).is_none()
                }
            };
            is_theirs.then(|| (format!("{SETTINGS}.{key}"), value.trim().to_owned()))
        });
        match moved {
            Some((key, value)) => inner.push((key, value, format!("--set {pair}"))),
            None => own.push(pair),
        }
    }
    Ok((inner, own))
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
