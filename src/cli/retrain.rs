//! `nasfw retrain`.

use clap::Args;
use nasfw_framework::arch::Genotype;
use nasfw_framework::config::{Resolved, RunConfig, flatten};
use nasfw_framework::registry::{Kind, Plugin, Registry, similar};
use nasfw_framework::{Error, Result};
use nasfw_spaces::standalone;
use serde_json::{Map, Value};

use super::origin::Origin;
use super::processes::Processes;
use super::ready::ready;
use super::selection::{Pair, Settings, pair, space_options};
use super::submission::Handover;
use super::{genotype, run};
use crate::host::Host;

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
    /// Published settings [default: the recipe of the space whose network is built; see `nasfw describe train`]
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
    #[command(flatten)]
    handover: Handover,
    #[command(flatten)]
    processes: Processes,
    /// Show the training on a screen of its own
    #[arg(long, conflicts_with = "on")]
    tui: bool,
    #[command(flatten)]
    settings: Settings,
}

impl Retrain {
    /// Trains in a new run folder.
    pub fn carry_out(self, host: &Host) -> Result<()> {
        let registry = ready()?;
        let genotype = genotype::load(&self.what, &[])?;
        let origin = Origin::of(&self.what, &genotype)?;

        let mut resolved = self.resolve(&registry, &genotype, &origin)?;
        self.handover.fix_threads(&mut resolved);
        let config = RunConfig::new(&registry, &resolved)?;
        let dataset = run::name_of(&resolved, Kind::Dataset);
        let parts = format!("retrain-{}-{dataset}", genotype.space);
        // Before hours of training.
        for doubt in origin.doubts(&genotype)? {
            tracing::warn!("{doubt}");
        }
        run::begin(
            host,
            &config,
            &resolved,
            self.place,
            &parts,
            self.tui,
            &run::Carriers {
                handover: &self.handover,
                processes: &self.processes,
            },
        )
    }

    /// All settings: those that are asked for, over those that the architecture was found with, over its recipe.
    fn resolve(
        &self,
        registry: &Registry,
        genotype: &Genotype,
        origin: &Origin,
    ) -> Result<Resolved> {
        let from = format!("retrain {}", self.what);
        let set = |key: &str, value: &Value| pair(key, value, &from);
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
        let number = |key: &str, option: &str, value: Option<u64>| {
            value.map(|v| (key.into(), v.to_string(), format!("--{option} {v}")))
        };
        let mut parts = vec![
            set("strategy.name", &"train".into())?,
            set("space.name", &"standalone".into())?,
            set("space.genotype", &json.into())?,
        ];
        parts.extend(number("space.channels", "channels", self.channels));
        parts.extend(number("space.cells", "cells", self.cells));
        match &self.space {
            Some(space) => parts.extend(space_options("space.of", SETTINGS, space)?),
            None if origin.space_of(genotype) != genotype.space => {
                parts.push(set("space.of", &origin.space_of(genotype).into())?);
            }
            None => {}
        }
        // Published settings are stronger than what a dataset suggests for searches.
        let recipe = match &self.preset {
            Some(preset) => Recipe::preset(preset),
            None => {
                let of = of(&self.settings, registry, &weakest, &parts, genotype);
                Recipe::of(&of, &standalone::recipe(registry, &of)?)?
            }
        };
        weakest.extend(recipe.settings(registry)?);
        parts.extend(recipe.presets()?);
        let mut settings = self.settings.clone();
        // Of cells of NAS-Bench-101 there is no such space, of misspelt ones neither; the network's builder says so.
        let of = of(&settings, registry, &weakest, &parts, genotype);
        if let Ok(space) = registry.get(Kind::Space, &of) {
            for (key, value) in origin.carried(registry, space)? {
                weakest.push(set(&format!("{SETTINGS}.{key}"), &value)?);
            }
            let standalone = registry.get(Kind::Space, "standalone")?;
            let (inner, own) = take_inner(settings.set, space, standalone)?;
            parts.extend(inner);
            settings.set = own;
        }
        settings.resolve(registry, weakest, parts)
    }
}

/// How a network is trained: what its space says ([`nasfw_framework::space::SearchSpace::recipe`]), or a preset alone.
struct Recipe {
    /// Settings by their sections, without presets.
    tree: Value,
    /// Name of a preset of the strategy `train` and the space `standalone`.
    preset: Option<String>,
    /// Where the settings come from, and where the preset's name does.
    from: [String; 2],
}

impl Recipe {
    /// Published settings that are asked for, whatever a space says.
    fn preset(name: &str) -> Self {
        Self {
            tree: Value::Object(Map::new()),
            preset: Some(name.into()),
            from: [format!("preset {name}"), format!("--preset {name}")],
        }
    }

    /// What space `name` says.
    fn of(name: &str, text: &str) -> Result<Self> {
        let from = format!("recipe of {name}");
        let wrong = |why: String| Error::Registry(format!("{from}: {why}"));
        let mut tree: Value = toml::from_str(text).map_err(|e| wrong(e.to_string()))?;
        let sections = tree.as_object().into_iter().flatten();
        for (section, _) in sections {
            if !["strategy", "trainer", "space"].contains(&section.as_str()) {
                return Err(wrong(format!("`{section}` is not the space's to say")));
            }
        }
        let strategy = tree.get_mut("strategy").and_then(Value::as_object_mut);
        let preset = strategy.and_then(|section| section.remove("preset"));
        // A section of nothing is no setting.
        if let Some(sections) = tree.as_object_mut() {
            sections.retain(|_, section| section.as_object().is_none_or(|s| !s.is_empty()));
        }
        Ok(Self {
            preset: preset.as_ref().and_then(Value::as_str).map(str::to_owned),
            tree,
            from: [from.clone(), from],
        })
    }

    /// The settings, the preset's first.
    fn settings(&self, registry: &Registry) -> Result<Vec<Pair>> {
        let [from, _] = &self.from;
        let mut settings = vec![];
        for plugin in [
            registry.get(Kind::Strategy, "train")?,
            registry.get(Kind::Space, "standalone")?,
        ] {
            let toml = self.preset.as_ref().and_then(|name| plugin.preset(name));
            let tree: Value = toml::from_str(toml.unwrap_or_default())
                .map_err(|e| Error::Registry(format!("{from}: {e}")))?;
            settings.extend(flatten(&tree));
        }
        settings.extend(flatten(&self.tree));
        settings
            .iter()
            .map(|(key, value)| pair(key, value, from))
            .collect()
    }

    /// The preset's name, as an option of both.
    fn presets(&self) -> Result<Vec<Pair>> {
        let [_, from] = &self.from;
        let keys = ["strategy.preset", "space.preset"].into_iter();
        let pairs = keys.zip(std::iter::repeat(&self.preset));
        pairs
            .filter_map(|(key, name)| Some(pair(key, &name.as_deref()?.into(), from)))
            .collect()
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::collections::BTreeSet;

    use clap::Parser;
    use nasfw_spaces::published;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        retrain: Retrain,
    }

    fn resolved(space: &str, more: &[&str]) -> Resolved {
        let genotype = Genotype {
            space: space.into(),
            cells: vec![],
        };
        let line = [&["retrain", "it", "--dataset=synthetic"], more].concat();
        let retrain = Line::parse_from(line).retrain;
        let registry = Registry::load().unwrap();
        retrain
            .resolve(&registry, &genotype, &Origin::default())
            .unwrap()
    }

    /// The presets that each space's paper publishes, by hand.
    fn published_for(space: &str) -> &'static str {
        match space {
            "nasbench201" => "nasbench201",
            "darts-imagenet" => "darts-imagenet",
            "mobile" => "proxyless-imagenet",
            "nasbench101" | "nasbench1shot1-s1" | "nasbench1shot1-s2" | "nasbench1shot1-s3" => {
                "nasbench101"
            }
            _ => "darts-cifar",
        }
    }

    #[test]
    fn first_party_spaces_are_trained_as_published() {
        let registry = Registry::load().unwrap();
        let mut spaces: BTreeSet<String> =
            registry.of(Kind::Space).map(|p| p.name.into()).collect();
        for cell in published::all().unwrap() {
            spaces.insert(cell.genotype().unwrap().space);
        }
        spaces.extend(["nasbench101", "no-such-space"].map(String::from));
        for space in [
            "darts",
            "robust-s4",
            "custom",
            "toy-conv",
            "nasbench1shot1-s3",
        ] {
            assert!(spaces.contains(space), "{spaces:?}");
        }
        for space in &spaces {
            let preset = format!("--preset={}", published_for(space));
            let (own, asked) = (resolved(space, &[]), resolved(space, &[&preset]));
            assert_eq!(own.value, asked.value, "{space}");
            assert_eq!(own.origins.len(), asked.origins.len());
            let says = |resolved: &Resolved| resolved.origin("trainer.epochs").unwrap().to_string();
            assert_eq!(says(&own), format!("recipe of {space}"));
            assert_eq!(says(&asked), format!("preset {}", published_for(space)));
        }
    }

    #[test]
    fn the_recipe_is_that_of_the_space_that_builds_the_network() {
        let large = resolved("darts", &["--space=darts-imagenet"]);
        assert_eq!(
            large.value,
            resolved(
                "darts",
                &["--space=darts-imagenet", "--preset=darts-imagenet"]
            )
            .value
        );
        // What is asked for is stronger.
        let few = resolved(
            "nasbench201",
            &["--epochs=3", "--set=trainer.weights.lr=0.5"],
        );
        assert_eq!(few.value["trainer"]["epochs"], 3);
        assert_eq!(few.value["trainer"]["weights"]["lr"], 0.5);
        assert_eq!(few.value["trainer"]["batch_size"], 256);
    }

    #[test]
    fn a_recipe_lies_over_the_preset_that_it_names() {
        let registry = Registry::load().unwrap();
        let text = "[strategy]\npreset = \"quick\"\ndrop_path = 0.4\n[space]\nauxiliary = 0.3\n";
        let recipe = Recipe::of("mine", text).unwrap();
        let settings = recipe.settings(&registry).unwrap();
        let last = |key: &str| settings.iter().rfind(|(k, ..)| k == key).unwrap().clone();
        let from = "recipe of mine".to_owned();
        assert_eq!(
            last("strategy.drop_path"),
            ("strategy.drop_path".into(), "0.4".into(), from.clone())
        );
        assert_eq!(last("space.auxiliary").1, "0.3");
        // Of the preset, which both have.
        assert_eq!(last("space.cells").1, "3");
        let presets = recipe.presets().unwrap();
        assert_eq!(
            presets[1],
            ("space.preset".into(), "\"quick\"".into(), from)
        );
        assert!(
            Recipe::of("mine", "")
                .unwrap()
                .presets()
                .unwrap()
                .is_empty()
        );

        for (text, says) in [
            ("[dataset]\nname = \"x\"\n", "`dataset`"),
            ("[strategy", "recipe of mine"),
        ] {
            let said = Recipe::of("mine", text).err().unwrap().to_string();
            assert!(
                said.contains(says) && said.contains("recipe of mine"),
                "{said}"
            );
        }
    }
}
