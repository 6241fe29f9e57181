//! Micro-batches: the gradient of a batch, part by part.

use std::cell::RefCell;

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assume, proptest};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::fixture::{comparable, config, folder, search, tensors};

/// A strategy that keeps the loss and the gradients of its first batch for the test.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GradientsConfig {
    /// So many losses are taken, one for each part of the batch, and their mean over images is differentiated.
    parts: i64,
    /// Weights that need no gradient are detached, as a step that only moves the architecture may do.
    detach: bool,
    /// The gradient is differentiated once more.
    twice: bool,
    arch: OptimizerConfig,
}

register! {
    strategy "fixture-gradients" => GradientsConfig,
    summary: "keeps gradients",
    source: "tests",
    defaults: "[strategy]\nparts = 1\ndetach = false\ntwice = false\n[strategy.arch]\noptimizer = \"sgd\"\nlr = 0.1\nlr_min = 0.0\nschedule = \"constant\"\nmomentum = 0.0\nnesterov = false\nbetas = [0.5, 0.999]\nweight_decay = 0.0\nclip = 0.0\n[trainer]\nepochs = 1\n",
    example: "nasfw run --strategy fixture-gradients",
}

#[typetag::serde(name = "fixture-gradients")]
impl StrategyConfig for GradientsConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Gradients {
            config: self.clone(),
            softmax: IndependentSoftmax::new(cx.spec, 0.5),
        }))
    }
}

struct Gradients {
    config: GradientsConfig,
    softmax: IndependentSoftmax,
}

#[derive(Debug, Default, Clone, PartialEq)]
struct Found {
    kind: Option<Kind>,
    loss: f64,
    theta: Vec<f64>,
    phi: Vec<f64>,
}

thread_local! {
    static FOUND: RefCell<Found> = RefCell::default();
}

fn numbers(t: &Tensor) -> Vec<f64> {
    Vec::try_from(t.to_kind(Kind::Double).view([-1])).unwrap()
}

impl Strategy for Gradients {
    fn step(&mut self, s: &mut Search) -> Result<()> {
        let (theta, phi) = (s.theta(), s.phi());
        let weights = if self.config.detach {
            theta.detach()
        } else {
            theta.shallow_clone()
        };
        let batch = s.batch(Split::Full)?;
        let parts = self.config.parts.min(batch.len());
        let images = batch.images.tensor_split(parts, 0);
        let labels = batch.labels.tensor_split(parts, 0);
        let arch = self.softmax.sample(&phi, &mut s.rng("a"))?;
        let mut mean = Tensor::zeros([], (s.kind(), s.device()));
        for (images, labels) in images.into_iter().zip(labels) {
            let part = Batch {
                images,
                labels,
                split: batch.split,
            };
            let share = part.len() as f64 / batch.len() as f64;
            mean += s.loss(&weights, &arch, &part)? * share;
        }
        if self.config.twice {
            let slope = Tensor::f_run_backward(&[&mean], &[&phi], true, true)?;
            let curved =
                Tensor::f_run_backward(&[slope[0].square().sum(None)], &[&phi], false, false)?;
            assert!(curved[0].abs().sum(None).double_value(&[]) > 0.0);
            return Ok(());
        }
        let grads = s.gradients(&mean, &[&theta, &phi])?;
        if s.clock().step == 0 {
            FOUND.set(Found {
                kind: Some(grads[0].kind()),
                loss: mean.double_value(&[]),
                theta: numbers(&grads[0]),
                phi: numbers(&grads[1]),
            });
        }
        s.descend_theta(&grads[0]);
        Ok(())
    }
    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.softmax)
    }
    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }
    fn data(&self) -> DataPlan {
        DataPlan::Full
    }
}

/// Loss and gradients of the first batch.
fn found(settings: &[&str]) -> Found {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&[&["strategy.name=fixture-gradients"], settings].concat()).unwrap();
    search(&config, &folder(dir.path(), &config), false).unwrap();
    FOUND.take()
}

/// Largest difference between two findings, relative to the largest number of the first.
fn difference(a: &Found, b: &Found) -> f64 {
    let pairs = |a: &[f64], b: &[f64]| {
        assert_eq!(a.len(), b.len());
        let scale = a.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        assert!(scale > 1e-6, "nothing to compare with: {a:?}");
        let most = a.iter().zip(b).map(|(a, b)| (a - b).abs());
        most.fold(0.0, f64::max) / scale
    };
    [
        pairs(&[a.loss], &[b.loss]),
        pairs(&a.theta, &b.theta),
        pairs(&a.phi, &b.phi),
    ]
    .into_iter()
    .fold(0.0, f64::max)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Without batch statistics, loss and gradients are those of the whole batch, whatever the parts.
    #[test]
    fn without_batch_statistics_the_gradient_is_the_same(batch in 2usize..=26, micro in 1usize..=26, seed in any::<u32>()) {
        let (batch, seed) = (format!("trainer.batch_size={batch}"), format!("seed={seed}"));
        let whole = found(&[&batch, &seed]);
        let parts = found(&[&batch, &seed, &format!("trainer.micro_batch={micro}")]);
        prop_assert!(difference(&whole, &parts) < 1e-12, "{:?} {:?}", whole, parts);
    }

    /// With them, they are the means over the micro-batches, each normalised by itself.
    #[test]
    fn with_batch_statistics_it_is_the_mean_over_micro_batches(batch in 4usize..=26, micro in 2usize..=13, seed in any::<u32>()) {
        prop_assume!(micro < batch);
        let parts = format!("strategy.parts={}", batch.div_ceil(micro));
        let (batch, seed) = (format!("trainer.batch_size={batch}"), format!("seed={seed}"));
        let common = ["space.batch_norm=true", &batch, &seed];
        let micro = format!("trainer.micro_batch={micro}");
        let micro = found(&[&common[..], &[&micro]].concat());
        let one_by_one = found(&[&common[..], &[&parts]].concat());
        let whole = found(&common);
        prop_assert!(difference(&one_by_one, &micro) < 1e-12, "{:?} {:?}", one_by_one, micro);
        prop_assert!(difference(&whole, &micro) > 1e-3, "{:?} {:?}", whole, micro);
    }
}

#[test]
fn a_gradient_that_nobody_asks_for_is_zero_and_the_others_stay() {
    let micro = "trainer.micro_batch=2";
    let (all, some) = (found(&[micro]), found(&[micro, "strategy.detach=true"]));
    assert!(some.theta.iter().all(|v| *v == 0.0));
    assert_eq!((all.loss, all.phi), (some.loss, some.phi));
}

/// Metered losses, accuracies and images are those of whole batches, also in the last, smaller batch.
#[test]
fn a_run_in_micro_batches_is_that_of_whole_batches() {
    let run = |micro: &str| {
        let dir = tempfile::tempdir().unwrap();
        let config = config(&["trainer.batch_size=6", micro]).unwrap();
        let run = folder(dir.path(), &config);
        search(&config, &run, false).unwrap();
        (tensors(&run), comparable(&run))
    };
    let (whole, parts) = (run("trainer.micro_batch=0"), run("trainer.micro_batch=4"));
    for ((name, a), (_, b)) in whole.0.iter().zip(&parts.0) {
        let same = a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(same, "{name}: {a:?} {b:?}");
    }
    assert!(whole.0 != parts.0, "another order of sums leaves traces");
    assert_eq!(whole.1.len(), parts.1.len());
}

#[test]
fn a_second_derivative_is_refused_with_what_to_type() {
    let dir = tempfile::tempdir().unwrap();
    let run = |micro: &str| {
        let set = [
            "strategy.name=fixture-gradients",
            "strategy.twice=true",
            micro,
        ];
        let config = config(&set).unwrap();
        search(&config, &folder(dir.path(), &config), false)
    };
    run("trainer.micro_batch=0").unwrap();
    let error = run("trainer.micro_batch=2").unwrap_err().to_string();
    assert!(
        error.contains("twice") && error.contains("trainer.micro_batch = 0"),
        "{error}"
    );
}

#[test]
fn a_micro_batch_and_a_limit_of_memory_exclude_each_other() {
    let error = config(&["trainer.micro_batch=2", "trainer.memory=4GiB"]).unwrap_err();
    assert!(error.to_string().contains("set either"), "{error}");
    let error = config(&["trainer.memory=lots"]).unwrap_err();
    assert!(error.to_string().contains("\"4GiB\""), "{error}");
    config(&["trainer.memory=4000000000"]).unwrap();
}

// ---- autocast -----------------------------------------------------------------------------------------------------

/// bfloat16 has 8 bits of mantissa: every product is off by up to 2^-8 of its factors, the sums less.
#[test]
fn autocast_rounds_products_and_nothing_else() {
    let full = found(&["precision=float"]);
    let low = found(&["precision=float", "trainer.autocast=bf16"]);
    assert_eq!(low.kind, Some(Kind::Float));
    let d = difference(&full, &low);
    assert!(d > 1e-5 && d < 0.03, "{d}");
    assert_eq!(
        full,
        found(&["precision=float"]),
        "it leaves nothing behind"
    );
    let micro = found(&[
        "precision=float",
        "trainer.autocast=bf16",
        "trainer.micro_batch=2",
    ]);
    let d = difference(&low, &micro);
    assert!(d < 0.03, "{d}");
}

#[test]
fn autocast_of_64_bits_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&["trainer.autocast=bf16"]).unwrap();
    let error = search(&config, &folder(dir.path(), &config), false).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.help().unwrap().contains("precision=float"));
}
