//! A space, a dataset and a strategy that exist for these tests, registered like any plugin.

use std::sync::atomic::AtomicBool;

use nasfw_framework::config::{Layer, Resolved, RunConfig, resolve};
use nasfw_framework::prelude::*;
use nasfw_framework::ranks::Ranks;
use nasfw_framework::registry::Registry;
use nasfw_framework::run::{self, RunFolder, read_events};
use nasfw_framework::trainer::{Job, Outcome};
use nasfw_framework::{events::Event, register};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

// ---- space: logits are a weighted sum of linear maps, one per candidate ---------------------------------------

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearConfig {
    rows: usize,
    /// Pixels are normalised by the mean and variance over the batch.
    batch_norm: bool,
}

register! {
    space "fixture-linear" => LinearConfig,
    summary: "a mixture of linear maps",
    source: "tests",
    defaults: "[space]\n# Rows.\nrows = 2\nbatch_norm = false\n[dataset]\nname = \"fixture-data\"\n[trainer]\nepochs = 3\nbatch_size = 4\nlog_every = 2\ncheckpoint_every = 2\n[trainer.augment]\ncrop_padding = 1\n",
    example: "nasfw run --space fixture-linear",
}

#[typetag::serde(name = "fixture-linear")]
impl SpaceConfig for LinearConfig {
    fn build(&self) -> Result<Box<dyn SearchSpace>> {
        let rows = (0..self.rows)
            .map(|r| Row {
                name: format!("row {r}"),
                candidates: ["a", "b", "c"].map(Into::into).to_vec(),
                keep: 1,
            })
            .collect();
        let spec = ArchSpec::new(vec![Group {
            name: "ops".into(),
            role: Role::Operations,
            rows,
            edges: None,
        }])?;
        Ok(Box::new(LinearSpace {
            spec,
            batch_norm: self.batch_norm,
        }))
    }
    fn validate(&self, v: &mut Validator) {
        v.range("space.rows", self.rows, 1, 9);
    }
}

struct LinearSpace {
    spec: ArchSpec,
    batch_norm: bool,
}

impl SearchSpace for LinearSpace {
    fn spec(&self) -> &ArchSpec {
        &self.spec
    }
    fn supernet(&self, task: Task, options: &SupernetOptions) -> Result<Box<dyn Supernet>> {
        let features = task.channels * task.height * task.width;
        let mut layout = ParamLayout::new();
        let maps = (0..self.spec.groups()[0].rows.len())
            .map(|r| {
                (0..3)
                    .filter(|&c| options.allowed.as_ref().is_none_or(|a| a[0][r][c]))
                    .map(|c| {
                        let name = format!("map {r} {c}");
                        (
                            c,
                            layout.add(name, &[task.classes, features], Init::fan_in(features)),
                        )
                    })
                    .collect()
            })
            .collect();
        // A running statistic, so that checkpoints have one to keep.
        let mut stats = ParamLayout::new();
        let seen = stats.add("seen", &[1], Init::Zeros);
        Ok(Box::new(LinearNet {
            layout,
            maps,
            stats,
            seen,
            batch_norm: self.batch_norm,
        }))
    }
    fn genotype(&self, choice: &Choice) -> Genotype {
        let names = ["a", "b", "c"];
        let nodes = choice.groups()[0]
            .iter()
            .map(|kept| Node {
                op: Some(names[kept[0]].into()),
                inputs: vec![Edge { from: 0, op: None }],
            })
            .collect();
        Genotype {
            space: "fixture-linear".into(),
            cells: vec![Cell {
                name: "cell".into(),
                inputs: vec!["input".into()],
                nodes,
                output: vec![1],
            }],
        }
    }
}

struct LinearNet {
    layout: ParamLayout,
    maps: Vec<Vec<(usize, ParamId)>>,
    stats: ParamLayout,
    seen: ParamId,
    batch_norm: bool,
}

impl Supernet for LinearNet {
    fn layout(&self) -> &ParamLayout {
        &self.layout
    }
    fn stats_layout(&self) -> ParamLayout {
        self.stats.clone()
    }
    fn forward(
        &self,
        weights: Weights<'_>,
        images: &Tensor,
        arch: &RelaxedArch,
        mode: Mode,
        _noise: Streams,
    ) -> Result<Tensor> {
        let views = self.layout.views(weights.params);
        let mut x = images.flatten(1, -1);
        if self.batch_norm {
            let mean = |t: &Tensor| t.mean_dim(Some(0i64), true, None);
            x = &x - mean(&x);
            x = &x / (mean(&x.square()) + 1.0).sqrt();
        }
        let mut out: Option<Tensor> = None;
        for (r, row) in self.maps.iter().enumerate() {
            for &(c, map) in row {
                if arch.is_active(0, r, c) {
                    let weight = arch.weights[0].get(r as i64).get(c as i64);
                    let term = x.matmul(&views[map].tr()) * weight;
                    out = Some(match out {
                        Some(sum) => sum + term,
                        None => term,
                    });
                }
            }
        }
        if mode == Mode::Train {
            tch::no_grad(|| {
                let mut seen = self.stats.views(weights.stats)[self.seen].shallow_clone();
                let moved = &seen * 0.9 + images.mean(images.kind()) * 0.1;
                seen.copy_(&moved);
            });
        }
        out.ok_or_else(|| Error::Invalid {
            what: "architecture".into(),
            why: "nothing is active".into(),
        })
    }
}

// ---- data: two classes of striped images ------------------------------------------------------------------------

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stripes {
    images: usize,
    /// "no": in memory; "plain": decoded; "random": decoded with random changes; "bad": image 7 can't be decoded.
    decoded: String,
    classes: i64,
}

#[derive(Debug)]
struct Decoded {
    bytes: Vec<u8>,
    how: String,
}

impl ImageSource for Decoded {
    fn decode(&self, index: usize, random: Option<&mut Rng>, image: &mut [u8]) -> Result<()> {
        if self.how == "bad" && index == 7 {
            return Err(Error::Data {
                path: "stripes/7.jpg".into(),
                problem: "is no image".into(),
                help: "replace it".into(),
            });
        }
        image.copy_from_slice(&self.bytes[16 * index..][..16]);
        if let Some(rng) = random.filter(|_| self.how == "random") {
            image.rotate_left(rand::RngExt::random_range(rng, 0..16));
        }
        Ok(())
    }

    fn checksum(&self) -> String {
        format!("{self:?}")
    }
}

register! {
    dataset "fixture-data" => Stripes,
    summary: "stripes",
    source: "tests",
    defaults: "[dataset]\n# Training images.\nimages = 26\n# Kind.\ndecoded = \"no\"\nclasses = 2\n",
    example: "nasfw run --dataset fixture-data",
}

#[typetag::serde(name = "fixture-data")]
impl Dataset for Stripes {
    fn load(&self, source: &DataSource) -> Result<ImageData> {
        let part = |n: usize| {
            let bytes: Vec<u8> = (0..n)
                .flat_map(|i| (0..16).map(move |p| ((p / 4 + p % 4 * (i % 2)) * 40 + i) as u8))
                .collect();
            let how = self.decoded.clone();
            Part {
                images: match how.as_str() {
                    "no" => bytes.into(),
                    _ => Images::Source(std::sync::Arc::new(Decoded { bytes, how })),
                },
                labels: (0..n).map(|i| (i as i64 % self.classes) as u16).collect(),
            }
        };
        let task = Task {
            channels: 1,
            height: 4,
            width: 4,
            classes: self.classes,
        };
        ImageData {
            task,
            train: part(self.images),
            test: part(10),
            split: None,
            mean: vec![0.5],
            std: vec![0.25],
            classes: vec!["a".into(), "b".into()],
        }
        .check(source.dir.clone().unwrap_or_default())
    }
}

// ---- strategy: first-order DARTS that carries out a script of controls ---------------------------------------

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptConfig {
    /// What to ask for at the end of the second epoch.
    pub script: String,
    pub arch: OptimizerConfig,
}

register! {
    strategy "fixture-script" => ScriptConfig,
    summary: "does as the script says",
    source: "tests",
    defaults: "[strategy]\n# Script.\nscript = \"\"\n[strategy.arch]\n# Rule.\noptimizer = \"adam\"\nlr = 0.05\nlr_min = 0.0\nschedule = \"constant\"\nmomentum = 0.0\nnesterov = false\nbetas = [0.5, 0.999]\nweight_decay = 0.001\nclip = 0.0\n",
    example: "nasfw run --strategy fixture-script",
    presets: &[("stop", "[strategy]\nscript = \"stop\"\n")],
}

#[typetag::serde(name = "fixture-script")]
impl StrategyConfig for ScriptConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Script {
            config: self.clone(),
            softmax: IndependentSoftmax::new(cx.spec, 1e-3),
            controls: 0,
            memory: Tensor::zeros([2], (cx.kind, cx.device)),
            rows: cx.spec.groups()[0].rows.len(),
        }))
    }
    fn validate(&self, v: &mut Validator) {
        self.arch.validate("strategy.arch", v);
    }
}

struct Script {
    config: ScriptConfig,
    softmax: IndependentSoftmax,
    controls: u64,
    memory: Tensor,
    rows: usize,
}

impl Strategy for Script {
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let (theta, phi) = (search.theta(), search.phi());
        let noise = nasfw_framework::rng::normal(
            &mut search.rng("noise"),
            &[2],
            search.kind(),
            search.device(),
        );
        self.memory = &self.memory * 0.9 + noise;
        let batch = search.batch(Split::Val)?;
        let arch = self.softmax.sample(&phi, &mut search.rng("sample"))?;
        let loss = search.loss(&theta, &arch, &batch)?;
        let grad = search.gradients(&loss, &[&phi])?;
        search.descend_phi(&grad[0])?;
        let batch = search.batch(Split::Train)?;
        let arch = self
            .softmax
            .sample(&phi, &mut search.rng("sample"))?
            .detach();
        let loss = search.loss(&theta, &arch, &batch)?;
        let grad = search.gradients(&loss, &[&theta])?;
        search.descend_theta(&grad[0]);
        search.log("memory", self.memory.double_value(&[0]));
        Ok(())
    }
    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.softmax)
    }
    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }
    fn supernet_options(&self) -> SupernetOptions {
        let shrink = self.controls > 0 && self.config.script == "rebuild";
        let row = vec![true, true, false];
        SupernetOptions {
            allowed: shrink.then(|| vec![vec![row; self.rows]]),
            ..Default::default()
        }
    }
    fn needs_history(&self) -> bool {
        self.config.script == "rollback"
    }
    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        if search.epoch() != 1 || self.controls > 0 {
            return Ok(Control::Continue);
        }
        let changes = Changes {
            batch_size: Some(6),
            weight_decay: Some(0.1),
        };
        let control = match self.config.script.as_str() {
            "stop" => Control::Stop("the script says so".into()),
            "set" => Control::Set(changes),
            "rollback" => Control::Rollback { epoch: 1, changes },
            "rebuild" => Control::Rebuild {
                carry_weights: true,
            },
            "bad-rollback" => Control::Rollback { epoch: 1, changes },
            _ => Control::Continue,
        };
        self.controls += 1;
        Ok(control)
    }
    fn state(&self) -> Result<StrategyState> {
        Ok(StrategyState {
            values: self.controls.into(),
            tensors: [("memory".to_owned(), self.memory.copy())].into(),
        })
    }
    fn restore(&mut self, mut state: StrategyState) -> Result<()> {
        self.controls = state.values.as_u64().unwrap_or_default();
        if let Some(memory) = state.tensors.remove("memory") {
            self.memory = memory;
        }
        Ok(())
    }
}

// ---- running ------------------------------------------------------------------------------------------------------

/// Resolves settings given as `key=value`, on the fixture's own plugins.
pub fn resolved(set: &[&str]) -> Result<Resolved> {
    let base = [
        "strategy.name=fixture-script",
        "space.name=fixture-linear",
        "device=cpu",
        "threads=1",
        "precision=double",
    ];
    let options = base
        .iter()
        .chain(set)
        .map(|s| {
            let (k, v) = s.split_once('=').unwrap();
            (k.to_owned(), v.to_owned(), format!("--set {s}"))
        })
        .collect();
    resolve(&Registry::load()?, &[Layer::CommandLine(options)])
}

pub fn config(set: &[&str]) -> Result<RunConfig> {
    RunConfig::new(&Registry::load()?, &resolved(set)?)
}

/// A fresh run folder with its configuration in it.
pub fn folder(at: &std::path::Path, config: &RunConfig) -> RunFolder {
    let run = RunFolder::create(at, "run").unwrap();
    run.write_json(run::RUN, config).unwrap();
    run
}

/// Runs to the end; interrupted after the step at which `interrupt` is already set.
pub fn search(config: &RunConfig, run: &RunFolder, interrupt: bool) -> Result<Outcome> {
    let flag = AtomicBool::new(interrupt);
    config.trainer.search(Job {
        config,
        run,
        listeners: vec![],
        interrupt: &flag,
        ranks: Ranks::alone(),
    })
}

pub fn events(run: &RunFolder) -> Vec<Event> {
    read_events(&run.path().join(run::EVENTS)).unwrap()
}

/// Events without what can't be reproduced: seconds, and where a process began or was interrupted.
pub fn comparable(run: &RunFolder) -> Vec<Event> {
    events(run)
        .into_iter()
        .filter(|e| !matches!(e, Event::Started { .. } | Event::Interrupted { .. }))
        .map(Event::reproducible)
        .collect()
}

/// All tensors of the newest checkpoint, by name.
pub fn tensors(run: &RunFolder) -> Vec<(String, Vec<f64>)> {
    let mut files: Vec<_> = std::fs::read_dir(run.path().join(run::CHECKPOINTS))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| {
            !p.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("epoch")
        })
        .collect();
    files.sort();
    let mut all: Vec<_> = Tensor::read_safetensors(files.last().unwrap())
        .unwrap()
        .into_iter()
        .map(|(name, t)| {
            (
                name,
                Vec::try_from(t.to_kind(Kind::Double).view([-1])).unwrap(),
            )
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}
