//! A space of one architecture, whose supernet is the network that this architecture is when it is trained alone. With
//! it retraining is a run like any other: same trainer, checkpoints, resume, events.

use nasfw_framework::network::{DROP_PATH, LossOptions, Network, NetworkOptions, Standalone};
use nasfw_framework::prelude::*;
use nasfw_framework::register;
use nasfw_framework::registry::{Kind, Registry};
use nasfw_framework::space::RECIPE;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::nasbench101::{self, ModelSpec};
use crate::{formats, published};

/// Cells of this benchmark are found in other spaces, it is none itself.
const NASBENCH101: &str = "nasbench101";

/// Settings of `standalone`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandaloneConfig {
    /// The architecture: a text in any form of [`formats`], or a published cell's name.
    pub genotype: String,
    /// Name of the space that builds the network; empty means the genotype's own.
    pub of: String,
    /// Settings of that space beside its defaults: what the architecture was found with. Runs of older versions lack it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub settings: Map<String, Value>,
    /// The setting `definition` of that space, where older versions kept it.
    pub definition: String,
    /// Initial channels; 0 means those that the space's paper evaluates with.
    pub channels: i64,
    /// Number of cells; 0 means that of the space's paper.
    pub cells: usize,
    /// Weight of the auxiliary classifier's loss; 0 means that there is none.
    pub auxiliary: f64,
    /// Share of the labels that is spread over all classes.
    pub label_smoothing: f64,
}

register! {
    space "standalone" => StandaloneConfig,
    summary: "one architecture as the network that it is when it is trained alone (`nasfw retrain`)",
    source: "the evaluation phase of each space's paper",
    defaults: r#"[space]
# The architecture: a text in any form that `nasfw genotype` prints, or a published cell's name.
genotype = "DARTS_V2"
# The space that builds the network; empty means the genotype's own.
of = ""
# Settings of that space beside its defaults: what the architecture was found with.
settings = {}
# The setting `definition` of that space, where older versions kept it.
definition = ""
# Initial channels; 0 means those that the space's paper evaluates with.
channels = 0
# Number of cells; 0 means that of the space's paper.
cells = 0
# Weight of the auxiliary classifier's loss; 0 means that there is none.
auxiliary = 0.0
# Share of the labels that is spread over all classes.
label_smoothing = 0.0
"#,
    example: "nasfw run --strategy train --space standalone --preset quick --set space.preset=quick",
    presets: &[
        ("darts-cifar", CIFAR),
        ("pdarts-cifar", CIFAR),
        ("pc-darts-cifar", CIFAR),
        ("drnas-cifar", CIFAR),
        ("darts-imagenet", IMAGENET),
        ("pc-darts-imagenet", IMAGENET),
        ("proxyless-imagenet", "[space]\nlabel_smoothing = 0.1\n"),
        ("nasbench201", PLAIN),
        ("nasbench101", PLAIN),
        ("quick", "[space]\nchannels = 8\ncells = 3\n"),
    ],
}

const CIFAR: &str = "[space]\nauxiliary = 0.4\n";
const IMAGENET: &str = "[space]\nof = \"darts-imagenet\"\nauxiliary = 0.4\nlabel_smoothing = 0.1\n";
const PLAIN: &str = "[space]\nauxiliary = 0.0\n";

/// How networks that space `of` builds are trained ([`SearchSpace::recipe`]). Cells of NAS-Bench-101 need no space. A
/// name that no space has is refused where the network is to be built.
///
/// # Errors
/// Defaults of the space with which it can't be built.
pub fn recipe(registry: &Registry, of: &str) -> Result<String> {
    if of == NASBENCH101 {
        return Ok(nasbench101::RECIPE.into());
    }
    let Ok(plugin) = registry.get(Kind::Space, of) else {
        return Ok(RECIPE.into());
    };
    let space = plugin.space(&plugin.default_section()?)?.build()?;
    Ok(space.recipe().to_owned())
}

impl StandaloneConfig {
    /// Name of the space that builds the network.
    fn of<'a>(&'a self, genotype: &'a Genotype) -> &'a str {
        match self.of.as_str() {
            "" => &genotype.space,
            of => of,
        }
    }

    /// That space, with its settings.
    fn inner(&self, genotype: &Genotype) -> Result<Box<dyn SpaceConfig>> {
        let plugin = Registry::load()?.get(Kind::Space, self.of(genotype))?;
        let mut settings = self.settings.clone();
        if !self.definition.is_empty() {
            settings.insert("definition".into(), self.definition.as_str().into());
        }
        plugin.space(&plugin.section_with(&settings)?)
    }

    /// Checks the settings of that space. What else is wrong with it is said when the network is built.
    fn validate_inner(&self, v: &mut Validator) {
        let Ok(genotype) = self.architecture() else {
            return;
        };
        if self.of(&genotype) == NASBENCH101 {
            for key in self.settings.keys() {
                let problem = "NAS-Bench-101's network has no such option";
                v.problem(&format!("space.settings.{key}"), problem);
            }
            return;
        }
        match self.inner(&genotype) {
            Ok(inner) => {
                v.inner("space.", "space.settings.", |v| inner.validate(v));
                let idle = inner.search_only().iter();
                for key in idle.filter(|key| self.settings.contains_key(**key)) {
                    let problem = "it shapes the network of a search; one that is trained alone does not have it";
                    v.problem(&format!("space.settings.{key}"), problem);
                }
            }
            Err(Error::Config(wrong)) => v.take_in(wrong.problems, "", "space.settings."),
            Err(_) => {}
        }
    }

    fn architecture(&self) -> Result<Genotype> {
        if let (None, Some(cell)) = (
            formats::Format::of(&self.genotype),
            published::find(&self.genotype)?,
        ) {
            return cell.genotype();
        }
        formats::read(&self.genotype).map_err(|e| Error::Incompatible {
            what: "space.genotype".into(),
            why: e.to_string(),
            help: "`nasfw retrain RUN|FILE|NAME` reads a genotype from wherever it is; `nasfw genotype --list` shows \
                   the published ones"
                .into(),
        })
    }
}

#[typetag::serde(name = "standalone")]
impl SpaceConfig for StandaloneConfig {
    fn build(&self) -> Result<Box<dyn SearchSpace>> {
        let genotype = self.architecture()?;
        let builder = match (self.of(&genotype), genotype.cells.as_slice()) {
            (NASBENCH101, [cell]) => Builder::NasBench101(cell.try_into()?),
            _ => Builder::Space(self.inner(&genotype)?.build()?),
        };
        let row = Row {
            name: "architecture".into(),
            candidates: vec!["the one".into()],
            keep: 1,
        };
        let spec = ArchSpec::new(vec![Group {
            name: "network".into(),
            role: Role::Operations,
            rows: vec![row],
            edges: None,
        }])?;
        Ok(Box::new(OneArchitecture {
            config: self.clone(),
            builder,
            spec,
            genotype,
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("space.channels", self.channels, 0, 4096);
        v.range("space.cells", self.cells, 0, 999);
        v.at_least("space.auxiliary", self.auxiliary, 0.0);
        v.below("space.label_smoothing", self.label_smoothing, 0.0, 1.0);
        self.validate_inner(v);
    }
}

/// Refuses what only a network with several candidates has.
fn refuse(options: &SupernetOptions) -> Result<()> {
    let asked = [
        ("allowed", options.allowed.is_some()),
        ("partial_channels", options.partial() != 1),
        ("auxiliary_skip", options.auxiliary_skip),
        ("skip_dropout", options.skip_dropout),
        ("drop_path", options.drop_path),
    ];
    match asked.iter().find(|(_, asked)| *asked) {
        None => Ok(()),
        Some((name, _)) => Err(Error::Incompatible {
            what: "this strategy on space `standalone`".into(),
            why: format!(
                "the strategy needs the supernet option `{name}`, which the network of one architecture does not have"
            ),
            help: "choose another space with `--space`; `nasfw list spaces` shows all".into(),
        }),
    }
}

/// Who builds the network.
enum Builder {
    Space(Box<dyn SearchSpace>),
    NasBench101(ModelSpec),
}

struct OneArchitecture {
    config: StandaloneConfig,
    builder: Builder,
    spec: ArchSpec,
    genotype: Genotype,
}

impl OneArchitecture {
    /// The sizes in the settings, where `options` ask for no others.
    fn sized(&self, options: &NetworkOptions) -> NetworkOptions {
        let c = &self.config;
        NetworkOptions {
            channels: options.channels.or((c.channels > 0).then_some(c.channels)),
            cells: options.cells.or((c.cells > 0).then_some(c.cells)),
            auxiliary: options.auxiliary,
        }
    }
}

impl SearchSpace for OneArchitecture {
    fn spec(&self) -> &ArchSpec {
        &self.spec
    }

    fn supernet(&self, task: Task, options: &SupernetOptions) -> Result<Box<dyn Supernet>> {
        refuse(options)?;
        let options = NetworkOptions {
            channels: options.channels,
            cells: options.cells,
            auxiliary: self.config.auxiliary > 0.0,
        };
        let loss = LossOptions {
            auxiliary: self.config.auxiliary,
            label_smoothing: self.config.label_smoothing,
        };
        self.alone(&self.genotype, task, &options, loss)
    }

    /// There is one network, whatever an architecture brings along.
    fn without_effect(&self) -> Vec<&'static str> {
        vec!["active", "offsets"]
    }

    /// Drop path is part of how networks are trained alone.
    fn scalars(&self) -> Vec<&'static str> {
        vec![DROP_PATH]
    }

    fn genotype(&self, _choice: &Choice) -> Genotype {
        self.genotype.clone()
    }

    fn network(
        &self,
        genotype: &Genotype,
        task: Task,
        options: &NetworkOptions,
    ) -> Result<Network> {
        let options = self.sized(options);
        match &self.builder {
            Builder::Space(space) => space.network(genotype, task, &options),
            Builder::NasBench101(spec) => nasbench101::network(spec, task, &options),
        }
    }

    fn alone(
        &self,
        genotype: &Genotype,
        task: Task,
        options: &NetworkOptions,
        loss: LossOptions,
    ) -> Result<Box<dyn Supernet>> {
        let options = self.sized(options);
        match &self.builder {
            Builder::Space(space) => space.alone(genotype, task, &options, loss),
            Builder::NasBench101(spec) => {
                let network = nasbench101::network(spec, task, &options)?;
                Ok(Box::new(Standalone::new(network, loss)?))
            }
        }
    }

    fn facts(&self, genotype: &Genotype) -> Map<String, Value> {
        match &self.builder {
            Builder::Space(space) => space.facts(genotype),
            Builder::NasBench101(spec) => {
                Map::from_iter([("nasbench101".into(), serde_json::json!(spec))])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use nasfw_framework::registry::Parse;

    use super::*;

    const TASK: Task = Task {
        channels: 3,
        height: 32,
        width: 32,
        classes: 10,
    };

    fn default_config() -> StandaloneConfig {
        let registry = Registry::load().unwrap();
        let plugin = registry.get(Kind::Space, "standalone").unwrap();
        let mut section = plugin.default_section().unwrap();
        section.as_object_mut().unwrap().remove("name");
        serde_json::from_value(section).unwrap()
    }

    fn built(
        genotype: &str,
        change: impl FnOnce(&mut StandaloneConfig),
    ) -> Result<Box<dyn SearchSpace>> {
        let mut config = default_config();
        config.genotype = genotype.into();
        change(&mut config);
        config.build()
    }

    fn weights(space: &dyn SearchSpace) -> i64 {
        let supernet = space.supernet(TASK, &SupernetOptions::default()).unwrap();
        supernet.layout().numel()
    }

    #[test]
    fn networks_have_their_published_sizes() {
        let darts = built("DARTS_V2", |_| {}).unwrap();
        assert_eq!(weights(darts.as_ref()), 3_349_342);
        let choice = darts.derive(&vec![vec![vec![1.0]]]);
        assert_eq!(darts.genotype(&choice).space, "darts");
        assert_eq!(darts.choice(&darts.genotype(&choice)).unwrap(), choice);
        let auxiliary = built("DARTS_V2", |c| c.auxiliary = 0.4).unwrap();
        assert_eq!(weights(auxiliary.as_ref()), 3_349_342 + 476_426);
        let small = built("DARTS_V2", |c| (c.channels, c.cells) = (8, 5)).unwrap();
        assert!(weights(small.as_ref()) < 100_000);
    }

    /// A run of an older version is read, and written again to the letter: its checkpoints know it by that.
    #[test]
    fn settings_of_older_versions_stay_as_they_were() {
        let small = include_str!("custom.toml");
        for definition in ["", small] {
            let text = serde_json::json!({ "name": "standalone", "genotype": "DARTS_V2", "of": "custom",
                "definition": definition, "channels": 8, "cells": 5, "auxiliary": 0.0, "label_smoothing": 0.0 })
            .to_string();
            let config: Box<dyn SpaceConfig> = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&config).unwrap(), text);
        }
    }

    /// Of every space, whatever is set that is not the search's alone.
    #[test]
    fn the_space_that_builds_the_network_has_the_settings_that_it_is_given() {
        let registry = Registry::load().unwrap();
        let mut others = 0;
        for plugin in registry.of(Kind::Space) {
            if plugin.name == "standalone" {
                continue;
            }
            let Parse::Space(parse) = plugin.parse else {
                panic!("kind")
            };
            let defaults = plugin.default_section().unwrap();
            let idle = parse(&defaults).unwrap().search_only();
            for (key, default) in defaults.as_object().unwrap() {
                let changed: Value = match default {
                    _ if key == "name" => continue,
                    Value::Bool(b) => (!b).into(),
                    Value::Number(n) if n.is_f64() => (n.as_f64().unwrap() / 2.0).into(),
                    Value::Number(n) => (n.as_i64().unwrap() + 2).into(),
                    Value::String(text) => format!("{text}\n# other").into(),
                    Value::Array(list) => list[1..].into(),
                    _ => panic!("{}: `{key}` is of another type", plugin.name),
                };
                let genotype = Genotype {
                    space: plugin.name.into(),
                    cells: vec![],
                };
                let config = StandaloneConfig {
                    genotype: serde_json::to_string(&genotype).unwrap(),
                    settings: Map::from_iter([(key.clone(), changed.clone())]),
                    ..default_config()
                };
                let mut wanted = defaults.clone();
                wanted[key] = changed;
                let inner = config.inner(&genotype).unwrap();
                assert_eq!(serde_json::to_value(&inner).unwrap(), wanted);
                // What a network that is trained alone does not have is refused.
                let problems = problems(&config);
                let said = problems
                    .iter()
                    .any(|p| p.contains("the network of a search"));
                assert_eq!(said, idle.contains(&key.as_str()), "{key}: {problems:?}");
                others += usize::from(!said);
            }
        }
        assert!(
            others >= 3,
            "custom has a definition, the toys have options"
        );
    }

    #[test]
    fn settings_that_a_space_lacks_are_named_where_they_are_kept() {
        let with = |of: &str, settings: Value| {
            problems(&StandaloneConfig {
                of: of.into(),
                settings: serde_json::from_value(settings).unwrap(),
                ..default_config()
            })
        };
        let said = with(
            "custom",
            serde_json::json!({ "definitoin": "", "name": "x" }),
        );
        let hint = "space.settings.definitoin: space `custom` has no such option, did you mean `definition`?";
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said.iter().any(|p| p == hint), "{said:?}");
        let said = with("custom", serde_json::json!({ "definition": "[network]" }));
        assert!(
            said[0].starts_with("space.settings.definition: line 1"),
            "{said:?}"
        );
        let said = with("custom", serde_json::json!({ "definition": 3 }));
        assert!(said[0].contains("invalid type"), "{said:?}");
        let said = with("darts", serde_json::json!({ "widen": 2 }));
        assert!(
            said[0].contains("space `darts` has no such option"),
            "{said:?}"
        );
        let said = with(NASBENCH101, serde_json::json!({ "widen": 2 }));
        assert!(said[0].contains("no such option"), "{said:?}");
        assert!(with("custom", serde_json::json!({})).is_empty());
    }

    fn problems(config: &StandaloneConfig) -> Vec<String> {
        let mut v = Validator::default();
        config.validate(&mut v);
        let said = v.into_problems().into_iter();
        said.map(|p| {
            [Some(format!("{}: {}", p.key, p.message)), p.hint]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(", ")
        })
        .collect()
    }

    #[test]
    fn an_architecture_that_sees_nothing_is_not_trained() {
        let blind = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|";
        let space = built(blind, |c| (c.channels, c.cells) = (4, 1)).unwrap();
        let refused = space.supernet(TASK, &SupernetOptions::default());
        let refused = refused.err().unwrap().to_string();
        assert!(refused.contains("no path leads"), "{refused}");
        let sees = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|";
        let space = built(sees, |c| (c.channels, c.cells) = (4, 1)).unwrap();
        assert!(space.supernet(TASK, &SupernetOptions::default()).is_ok());
    }

    #[test]
    fn a_cell_of_nasbench101_needs_no_space() {
        let text = r#"{"matrix": [[0, 1, 1], [0, 0, 1], [0, 0, 0]], "ops": ["input", "conv3x3-bn-relu", "output"]}"#;
        let space = built(text, |c| c.channels = 16).unwrap();
        let spec = ModelSpec::from_matrix(
            &[vec![0, 1, 1], vec![0, 0, 1], vec![0, 0, 0]],
            &["input", "conv3x3-bn-relu", "output"],
        )
        .unwrap();
        let options = NetworkOptions {
            channels: Some(16),
            ..Default::default()
        };
        let network = nasbench101::network(&spec, TASK, &options).unwrap();
        assert_eq!(weights(space.as_ref()), network.size().params);
        let genotype = space.genotype(&Choice::new(vec![vec![vec![0]]]));
        assert_eq!(space.facts(&genotype)["nasbench101"]["hash"], spec.hash());
    }

    #[test]
    fn what_only_several_candidates_have_is_refused() {
        let space = built("DARTS_V2", |c| (c.channels, c.cells) = (8, 5)).unwrap();
        let refused = |options: &SupernetOptions| space.supernet(TASK, options).err();
        let partial = |k| SupernetOptions {
            partial_channels: Some(k),
            ..Default::default()
        };
        assert!(refused(&partial(1)).is_none());
        let error = refused(&partial(4)).unwrap();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("`partial_channels`"), "{error}");
    }

    #[test]
    fn what_is_no_architecture_or_no_space_is_refused() {
        let refused = |genotype: &str, of: &str| {
            let error = built(genotype, |c| c.of = of.into()).err().unwrap();
            (error.exit_code(), error.to_string())
        };
        let (code, text) = refused("DARTS_V22", "");
        assert_eq!(code, 2);
        assert!(text.contains("no genotype in any form"), "{text}");
        let (code, text) = refused("DARTS_V2", "dart");
        assert_eq!(code, 2);
        assert!(text.contains("no space is called `dart`"), "{text}");
    }
}
