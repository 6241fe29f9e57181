//! No step makes the host wait for the device: none calls an operator that has to read a tensor on the host.
//!
//! Every operator of every step is recorded by name, on a CPU. Reading a whole tensor into memory of Rust's
//! (`Vec::try_from`) calls no operator there, so this test can't see it.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use nasfw::framework::prelude::*;
use nasfw::framework::ranks::Ranks;
use nasfw::framework::registry::{Kind, Registry};
use nasfw::framework::run::RunFolder;
use nasfw::framework::trainer::Job;
use nasfw_kernels::profile;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::resume::UNTRAINED;
use crate::strategies::config;

/// Operators that wait for a GPU: they read a number on the host, or need one for the shape of their result.
const WAITING: [&str; 14] = [
    "aten::_local_scalar_dense",
    "aten::_unique",
    "aten::_unique2",
    "aten::allclose",
    "aten::argwhere",
    "aten::bincount",
    "aten::equal",
    "aten::is_nonzero",
    "aten::item",
    "aten::masked_select",
    "aten::nonzero",
    "aten::repeat_interleave",
    "aten::unique_consecutive",
    "aten::unique_dim",
];

/// Small searches of every kind of supernet that there is.
const SPACES: [&[&str]; 5] = [
    &["space.name=toy-conv"],
    &["space.name=toy-planted"],
    &["space.name=darts", "space.channels=4", "space.cells=3"],
    &[
        "space.name=nasbench201",
        "space.channels=4",
        "space.cells=1",
    ],
    &[
        "space.name=nasbench1shot1-s3",
        "space.channels=4",
        "space.cells=3",
    ],
];

/// Few, tiny images with every augmentation.
const IMAGES: [&str; 9] = [
    "dataset.name=synthetic",
    "dataset.images=16",
    "dataset.test_images=4",
    "dataset.size=8",
    "trainer.epochs=1",
    "trainer.batch_size=4",
    "trainer.augment.crop_padding=1",
    "trainer.augment.cutout=2",
    "trainer.augment.color_jitter=[0.4, 0.4, 0.4, 0.1]",
];

/// Calls of every operator, by name.
type Calls = BTreeMap<String, u64>;

/// What a step does on top of its strategy's.
type More = fn(&Tensor);

/// A strategy whose steps are recorded, one after the other.
#[derive(Debug, Serialize, Deserialize)]
struct Recorded {
    inner: Box<dyn StrategyConfig>,
    #[serde(skip)]
    more: Option<More>,
    #[serde(skip)]
    steps: Arc<Mutex<Vec<Calls>>>,
}

#[typetag::serde(name = "recorded")]
impl StrategyConfig for Recorded {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Recorder {
            inner: self.inner.build(cx)?,
            more: self.more,
            steps: Arc::clone(&self.steps),
        }))
    }
}

struct Recorder {
    inner: Box<dyn Strategy>,
    more: Option<More>,
    steps: Arc<Mutex<Vec<Calls>>>,
}

impl Strategy for Recorder {
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let (done, calls) = profile::names(|| {
            self.inner.step(search)?;
            if let Some(more) = self.more {
                more(&search.theta().detach());
            }
            Ok(())
        });
        self.steps.lock().unwrap().push(calls);
        done
    }

    fn base(&self) -> Option<&dyn Strategy> {
        Some(self.inner.as_ref())
    }

    fn base_mut(&mut self) -> Option<&mut dyn Strategy> {
        Some(self.inner.as_mut())
    }
}

/// The operators of every step of a search.
fn recorded(set: &[&str], more: Option<More>) -> Vec<Calls> {
    let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
    let mut config = config(&set).unwrap_or_else(|e| panic!("{set:?}: {e}"));
    let steps = Arc::default();
    config.strategy = Box::new(Recorded {
        inner: config.strategy,
        more,
        steps: Arc::clone(&steps),
    });
    let dir = tempfile::tempdir().unwrap();
    let run = RunFolder::create(dir.path(), "run").unwrap();
    let job = Job {
        config: &config,
        run: &run,
        listeners: vec![],
        interrupt: &AtomicBool::new(false),
        ranks: Ranks::alone(),
    };
    let outcome = config.trainer.search(job);
    outcome.unwrap_or_else(|e| panic!("{set:?}: {e}"));
    std::mem::take(&mut *steps.lock().unwrap())
}

/// Those of the operators that wait.
fn waiting(calls: &Calls) -> Vec<&str> {
    let names = calls.keys().map(String::as_str);
    names.filter(|name| WAITING.contains(name)).collect()
}

#[test]
fn no_step_of_any_strategy_waits_for_the_device() {
    let (toy, others) = SPACES.split_first().unwrap();
    for (i, plugin) in (Registry::load().unwrap().of(Kind::Strategy)).enumerate() {
        let name = format!("strategy.name={}", plugin.name);
        // One of the others in turn, or all where all pairs are asked for.
        let turn = [*toy, others[i % others.len()]];
        let spaces: &[&[&str]] = match plugin.name {
            "train" => &[&["space.name=standalone", "space.channels=2", "space.cells=3"]],
            // They look architectures up.
            "regularized-evolution" | "nsga2" => &[],
            // They read scores on the host.
            name if UNTRAINED.contains(&name) => &[],
            _ if super::spaces::all_pairs() => &SPACES,
            _ => &turn,
        };
        for space in spaces {
            // One architecture of `random`, which is scored in the last step, and may be: that ends its training.
            let own: &[&str] = match plugin.name {
                "random" => &["strategy.samples=1"],
                "enas" => &["strategy.controller_steps=2", "strategy.aggregate=2"],
                "arch2vec-bo" => super::strategies::short("arch2vec-bo"),
                // In the first epoch it aligns nothing; there are two reduction cells.
                "lambda-darts" => &["strategy.types=all", "trainer.epochs=2"],
                "r-darts-dp" => &["strategy.drop_paths=[0.2]"],
                "r-darts-l2" => &["strategy.weight_decays=[3e-4]"],
                _ => &[],
            };
            let images: &[&str] = if space[0] == "space.name=toy-planted" {
                &[]
            } else {
                &IMAGES[..]
            };
            let mut steps = recorded(&[&[name.as_str()][..], space, images, own].concat(), None);
            if plugin.name == "random" {
                assert_eq!(
                    waiting(&steps.pop().unwrap()),
                    ["aten::_local_scalar_dense", "aten::item"]
                );
            }
            assert!(!steps.is_empty(), "{name} {space:?}");
            for (step, calls) in steps.iter().enumerate() {
                assert!(
                    calls["aten::sub_"] > 0,
                    "{name} {space:?}: no update in step {step}"
                );
                let none: [&str; 0] = [];
                assert_eq!(waiting(calls), none, "{name} {space:?}: step {step}");
            }
        }
    }
}

#[test]
fn a_planted_wait_is_noticed() {
    let planted: [(More, &str); 4] = [
        (
            |theta| {
                let _ = theta.double_value(&[0]);
            },
            "aten::item",
        ),
        (
            |theta| {
                let _ = theta.equal(theta);
            },
            "aten::equal",
        ),
        (
            |theta| drop(theta.masked_select(&theta.gt(0.0))),
            "aten::masked_select",
        ),
        (
            |theta| drop(theta.index(&[Some(theta.gt(0.0))])),
            "aten::nonzero",
        ),
    ];
    for (more, name) in planted {
        let set = [&["strategy.name=darts", "space.name=toy-conv"], &IMAGES[..]].concat();
        let steps = recorded(&set, Some(more));
        assert!(
            steps.iter().all(|calls| waiting(calls).contains(&name)),
            "{name}"
        );
    }
}
