//! Every option of the defaults changes what a search finds, through the real trainer, on a space made for this.

use std::sync::atomic::AtomicBool;

use nasfw_framework::ranks::Ranks;
use nasfw_framework::register;
use nasfw_framework::run::RunFolder;
use nasfw_framework::trainer::Job;
use serde::{Deserialize, Serialize};

use super::*;

// ---- space: one logit, the sum of all architecture weights times a trained number each ------------------------

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SumConfig {}

register! {
    space "vim-test-sum" => SumConfig,
    summary: "a weighted sum of architecture weights",
    source: "tests",
    defaults: "[dataset]\nname = \"vim-test-data\"\n[trainer]\nbatch_size = 4\n[trainer.augment]\ncrop_padding = 0\nflip = false\n",
    example: "nasfw run --space vim-test-sum",
}

#[typetag::serde(name = "vim-test-sum")]
impl SpaceConfig for SumConfig {
    fn build(&self) -> Result<Box<dyn SearchSpace>> {
        Ok(Box::new(SumSpace { spec: mixed_spec() }))
    }
}

struct SumSpace {
    spec: ArchSpec,
}

impl SearchSpace for SumSpace {
    fn spec(&self) -> &ArchSpec {
        &self.spec
    }
    fn supernet(&self, _task: Task, _options: &SupernetOptions) -> Result<Box<dyn Supernet>> {
        let mut layout = ParamLayout::new();
        let init = Init::Normal { std: 1.0 };
        let groups = self.spec.groups().iter();
        let values = groups
            .map(|g| layout.add(g.name.clone(), &g.shape(), init))
            .collect();
        Ok(Box::new(SumNet { layout, values }))
    }
    fn genotype(&self, choice: &Choice) -> Genotype {
        Genotype {
            space: "vim-test-sum".into(),
            cells: vec![Cell {
                name: format!("{:?}", choice.groups()),
                inputs: vec!["input".into()],
                nodes: vec![],
                output: vec![0],
            }],
        }
    }
}

struct SumNet {
    layout: ParamLayout,
    values: Vec<ParamId>,
}

impl Supernet for SumNet {
    fn layout(&self) -> &ParamLayout {
        &self.layout
    }
    fn forward(
        &self,
        weights: Weights<'_>,
        images: &Tensor,
        arch: &RelaxedArch,
        _mode: Mode,
        _noise: Streams,
    ) -> Result<Tensor> {
        let views = self.layout.views(weights.params);
        let pairs = self.values.iter().zip(&arch.weights);
        let terms: Vec<Tensor> = pairs.map(|(v, a)| (&views[*v] * a).sum(a.kind())).collect();
        let x = images
            .flatten(1, -1)
            .mean_dim([1i64].as_slice(), false, images.kind());
        let logit = x * Tensor::stack(&terms, 0).sum(images.kind());
        Ok(Tensor::stack(&[&logit, &(-&logit)], 1))
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Greys {}

register! {
    dataset "vim-test-data" => Greys,
    summary: "grey images of two classes",
    source: "tests",
    defaults: "",
    example: "nasfw run --dataset vim-test-data",
}

#[typetag::serde(name = "vim-test-data")]
impl Dataset for Greys {
    fn load(&self, source: &DataSource) -> Result<ImageData> {
        let part = |n: usize| Part {
            images: (0..n)
                .flat_map(|i| [(i * 37 % 256) as u8; 4])
                .collect::<Vec<_>>()
                .into(),
            labels: (0..n).map(|i| (i % 2) as u16).collect(),
        };
        ImageData {
            task: Task {
                channels: 1,
                height: 2,
                width: 2,
                classes: 2,
            },
            train: part(24),
            test: part(4),
            split: None,
            mean: vec![0.5],
            std: vec![0.25],
            classes: vec!["a".into(), "b".into()],
        }
        .check(source.dir.clone().unwrap_or_default())
    }
}

// ---- the search -------------------------------------------------------------------------------------------------

/// What a search with some settings derives from, and how many steps it took.
fn found(set: &[&str]) -> (Marginals, u64) {
    let base = [
        "strategy.name=vim",
        "space.name=vim-test-sum",
        "device=cpu",
        "threads=1",
        "precision=double",
        "trainer.epochs=2",
        "trainer.schedule_epochs=2",
    ];
    let config = config_of(&[&base[..], set].concat());
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(folder.path(), "run").unwrap();
    let outcome = config.trainer.search(Job {
        config: &config,
        run: &run,
        listeners: vec![],
        interrupt: &AtomicBool::new(false),
        ranks: Ranks::alone(),
    });
    let outcome = outcome.unwrap();
    (outcome.marginals.unwrap(), outcome.steps)
}

/// For every key of `[strategy]`: another value, and what must hold for it to matter.
const OTHER: &[(&str, &str, &[&str])] = &[
    ("level", "alternating", &[]),
    ("data", "halves", &[]),
    ("samples", "2", &[]),
    ("parts", "2", &[]),
    ("warmup", "0.25", &[]),
    ("form", "point", &[]),
    ("noise", "0.5", &[]),
    ("temperature", "2.0", &[]),
    ("temperature_end", "0.5", &[]),
    ("input", "resampled", &[]),
    ("generators", "per-group", &[]),
    ("operations", "free", &[]),
    ("topology", "generated", &[]),
    ("topology_noise", "0.5", &[]),
    ("topology_temperature", "2.0", &[]),
    ("topology_temperature_end", "0.5", &[]),
    ("topology_rate", "3.0", &[]),
    ("k_hot", "true", &[]),
    ("free_init_std", "0.1", &[]),
    ("blocks", "3", &[]),
    ("width", "7", &[]),
    ("last_relu", "true", &[]),
    ("gamma", "2.0", &[]),
    ("arch.optimizer", "sgd", &[]),
    ("arch.lr", "0.05", &[]),
    ("arch.lr_min", "0.005", &[]),
    ("arch.schedule", "constant", &[]),
    ("arch.momentum", "0.5", &["strategy.arch.optimizer=sgd"]),
    ("arch.nesterov", "true", &["strategy.arch.optimizer=sgd"]),
    ("arch.betas", "[0.8, 0.99]", &[]),
    ("arch.weight_decay", "0.1", &[]),
    ("arch.clip", "0.001", &[]),
];

#[test]
fn every_option_changes_what_is_found() {
    let section = Registry::load().unwrap();
    let section = section
        .get(Plugins::Strategy, "vim")
        .unwrap()
        .default_section()
        .unwrap();
    let keys = |table: &Value, at: &str| -> Vec<String> {
        let keys = table.as_object().unwrap().iter();
        let plain = keys.filter(|(key, value)| !value.is_object() && *key != "name");
        plain.map(|(key, _)| format!("{at}{key}")).collect()
    };
    let mut all = keys(&section, "");
    all.extend(keys(&section["arch"], "arch."));
    let mut tried: Vec<&str> = OTHER.iter().map(|(key, ..)| *key).collect();
    all.sort();
    tried.sort();
    assert_eq!(
        all, tried,
        "an option without a trial, or a trial without an option"
    );

    let plain = found(&[]);
    assert_eq!(plain, found(&[]), "the search does not reproduce");
    for (key, value, given) in OTHER {
        let changed = format!("strategy.{key}={value}");
        let with: Vec<&str> = given.iter().copied().chain([changed.as_str()]).collect();
        let before = if given.is_empty() {
            plain.clone()
        } else {
            found(given)
        };
        assert_ne!(
            before.0,
            found(&with).0,
            "`{key} = {value}` changes nothing"
        );
    }
}

#[test]
fn data_decides_how_many_steps_an_epoch_has() {
    // 24 images in batches of 4, two epochs.
    assert_eq!(found(&["strategy.data=full"]).1, 12);
    assert_eq!(found(&["strategy.data=halves"]).1, 6);
}

#[test]
fn while_the_weights_warm_up_the_generator_stays_as_it_was() {
    let found = |set: &[&str]| {
        let constant = ["strategy.temperature=1", "strategy.temperature_end=1"];
        found(&[&constant, set].concat()).0
    };
    // Of twelve steps.
    let still = found(&["strategy.warmup=1"]);
    // A rate of zero leaves φ at its start too, by another way.
    let rate = ["strategy.arch.lr=0", "strategy.arch.lr_min=0"];
    assert_eq!(still, found(&rate));
    assert_ne!(still, found(&["strategy.warmup=0.9"]));
    assert_eq!(still, found(&["strategy.warmup=0.95"]));
}

/// Where nothing is sampled, a batch in parts gives the loss of the whole batch: its parts count by their images.
#[test]
fn without_noise_parts_of_a_batch_make_no_difference() {
    let with = |parts: &str| {
        let set = ["strategy.form=point", "trainer.batch_size=5", parts];
        let marginals = found(&set).0;
        marginals
            .into_iter()
            .flatten()
            .flatten()
            .collect::<Vec<f64>>()
    };
    let whole = with("strategy.parts=1");
    for parts in ["strategy.parts=2", "strategy.parts=3", "strategy.parts=5"] {
        super::distribution::assert_close(&whole, &with(parts), 1e-9, parts);
    }
}
