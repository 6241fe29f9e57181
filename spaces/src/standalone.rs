//! A space of one architecture, whose supernet is the network that this architecture is when it is trained alone. With
//! it retraining is a run like any other: same trainer, checkpoints, resume, events.

use nasfw_framework::network::{Network, NetworkOptions, Standalone};
use nasfw_framework::prelude::*;
use nasfw_framework::register;
use nasfw_framework::registry::{Kind, Parse, Registry};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ops::refuse_options;
use crate::{formats, published};

/// Settings of `standalone`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandaloneConfig {
    /// The architecture: a text in any form of [`formats`], or a published cell's name.
    pub genotype: String,
    /// Name of the space that builds the network; empty means the genotype's own.
    pub of: String,
    /// Text of the space's definition, for spaces that users define.
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
# Definition of the space, where that is one of the user's own.
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
        ("nasbench201", PLAIN),
        ("nasbench101", PLAIN),
        ("quick", "[space]\nchannels = 8\ncells = 3\n"),
    ],
}

const CIFAR: &str = "[space]\nauxiliary = 0.4\n";
const IMAGENET: &str = "[space]\nof = \"darts-imagenet\"\nauxiliary = 0.4\nlabel_smoothing = 0.1\n";
const PLAIN: &str = "[space]\nauxiliary = 0.0\n";

impl StandaloneConfig {
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
        let of = if self.of.is_empty() {
            &genotype.space
        } else {
            &self.of
        };
        let plugin = Registry::load()?.get(Kind::Space, of)?;
        let mut section = plugin.default_section()?;
        if !self.definition.is_empty() {
            section["definition"] = self.definition.as_str().into();
        }
        let Parse::Space(parse) = plugin.parse else {
            return Err(Error::Registry(format!("`{of}` is no space")));
        };
        let inner = parse(&section).map_err(Box::new)?.build()?;
        let row = Row {
            name: "architecture".into(),
            candidates: vec!["the one".into()],
            keep: 1,
        };
        let spec = ArchSpec::new(vec![Group {
            name: "network".into(),
            role: Role::Operations,
            rows: vec![row],
        }])?;
        Ok(Box::new(OneArchitecture {
            config: self.clone(),
            inner,
            spec,
            genotype,
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("space.channels", self.channels, 0, 4096);
        v.range("space.cells", self.cells, 0, 999);
        v.at_least("space.auxiliary", self.auxiliary, 0.0);
        v.below("space.label_smoothing", self.label_smoothing, 0.0, 1.0);
    }
}

struct OneArchitecture {
    config: StandaloneConfig,
    inner: Box<dyn SearchSpace>,
    spec: ArchSpec,
    genotype: Genotype,
}

impl SearchSpace for OneArchitecture {
    fn spec(&self) -> &ArchSpec {
        &self.spec
    }

    fn supernet(&self, task: Task, options: &SupernetOptions) -> Result<Box<dyn Supernet>> {
        refuse_options("standalone", options, &["channels", "cells"])?;
        let options = NetworkOptions {
            channels: options.channels,
            cells: options.cells,
            auxiliary: self.config.auxiliary > 0.0,
        };
        Ok(Box::new(Standalone::new(
            self.network(&self.genotype, task, &options)?,
            self.config.auxiliary,
            self.config.label_smoothing,
        )))
    }

    fn genotype(&self, _choice: &Choice) -> Genotype {
        self.genotype.clone()
    }

    /// The network of the sizes in the settings, where `options` ask for no others.
    fn network(
        &self,
        genotype: &Genotype,
        task: Task,
        options: &NetworkOptions,
    ) -> Result<Network> {
        let c = &self.config;
        let options = NetworkOptions {
            channels: options.channels.or((c.channels > 0).then_some(c.channels)),
            cells: options.cells.or((c.cells > 0).then_some(c.cells)),
            auxiliary: options.auxiliary,
        };
        self.inner.network(genotype, task, &options)
    }

    fn facts(&self, genotype: &Genotype) -> Map<String, Value> {
        self.inner.facts(genotype)
    }
}
