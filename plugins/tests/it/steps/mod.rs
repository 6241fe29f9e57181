//! Whole update steps through the real trainer against the papers' equations in plain operators, in double precision: the
//! weights, the architecture and both optimizers' states after every step. Batches, random numbers and the start are the
//! search's own; the networks ([`plain`]) and the rules ([`rules`]) are written down here once more.

mod plain;
mod rules;

use std::cell::RefCell;

use nasfw_framework::register;
use nasfw_framework::trainer::advance;
use nasfw_spaces as _;
use serde::{Deserialize, Serialize};
use tch::no_grad;

use super::*;
use rules::{Reference, State, Step};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Blots {}

register! {
    dataset "blots" => Blots,
    summary: "coloured noise in three classes",
    source: "tests",
    defaults: "",
    example: "nasfw run --dataset blots",
}

#[typetag::serde(name = "blots")]
impl Dataset for Blots {
    fn load(&self, source: &DataSource) -> Result<ImageData> {
        let part = |n: usize, seed: u64| {
            let rng = &mut Streams::new(seed).at("pixels", 0);
            let pixels =
                nasfw_framework::rng::uniform(rng, &[n as i64 * 192], Kind::Float, Device::Cpu)
                    * 255.0;
            Part {
                images: Vec::<u8>::try_from(pixels.to_kind(Kind::Uint8))
                    .unwrap()
                    .into(),
                labels: (0..n).map(|i| (i % 3) as u16).collect(),
            }
        };
        let task = Task {
            channels: 3,
            height: 8,
            width: 8,
            classes: 3,
        };
        ImageData {
            task,
            train: part(16, 1),
            test: part(4, 2),
            split: None,
            mean: vec![0.5; 3],
            std: vec![0.25; 3],
            classes: ["a", "b", "c"].map(String::from).to_vec(),
        }
        .check(source.dir.clone().unwrap_or_default())
    }
}

/// A search on these images, in double precision.
pub fn config(set: &[&str]) -> RunConfig {
    let base = [
        "device=cpu",
        "threads=1",
        "precision=double",
        "dataset.name=blots",
        "trainer.batch_size=4",
        "trainer.epochs=3",
    ];
    config_of(&[&base[..], set].concat())
}

/// Largest difference relative to the largest number.
fn off(ours: &Tensor, expected: &Tensor) -> f64 {
    let largest = |t: &Tensor| t.abs().max().double_value(&[]);
    largest(&(ours - expected)) / largest(expected).max(1e-300)
}

/// Steps of a search: two epochs' worth of schedules, two steps each.
const STEPS: u64 = 3;
const LIMIT: f64 = 1e-10;

fn steps_are_the_papers(space: &str, small: &[&str], strategy: &[&str]) {
    let name = format!("space.name={space}");
    let config = config(&[&[name.as_str()], small, strategy].concat());
    let (mut search, mut strategy) = config.trainer.start(&config).unwrap();
    // Where nothing is symmetric and no term has a slope of zero.
    search.update_phi(|phi| {
        let rng = &mut Streams::new(7).at("start", 0);
        let away = nasfw_framework::rng::normal(rng, &phi.size(), Kind::Double, Device::Cpu);
        let _ = phi.g_add_(&(away * 0.5));
    });
    // The same search once more gives the batches.
    let (twin, _) = config.trainer.start(&config).unwrap();
    let settings = |value: serde_json::Result<Value>| value.unwrap();
    let twin = RefCell::new(twin);
    let next = |split| twin.borrow_mut().batch(split).unwrap();
    let trainer = settings(serde_json::to_value(&config.trainer));
    let of_strategy = settings(serde_json::to_value(&config.strategy));
    let of_space = settings(serde_json::to_value(&config.space));
    let spec = search.space().spec().clone();
    let layout = search.supernet().layout().clone();
    let reference = Reference {
        spec: &spec,
        layout: &layout,
        space,
        cells: of_space["cells"].as_u64().unwrap() as usize,
        trainer: &trainer,
        strategy: &of_strategy,
    };
    let zeros = |t: &Tensor| t.detach().zeros_like();
    let (w, alpha) = (search.theta().detach().copy(), search.phi().detach().copy());
    let mut state = State {
        momentum: zeros(&w),
        moments: [zeros(&alpha), zeros(&alpha)],
        proximal: zeros(&alpha),
        alive: alpha.ones_like().to_kind(Kind::Bool),
        w,
        alpha,
        steps: 0,
    };
    let start = state.alpha.copy();
    for number in 0..STEPS {
        let per_epoch = search.steps_per_epoch();
        assert_eq!(per_epoch, 2);
        let draw = |alpha: &Tensor, stream: &str| {
            let distribution = of(&*strategy);
            let arch = no_grad(|| distribution.sample(alpha, &mut search.rng(stream)));
            arch.unwrap().weights
        };
        reference.step(
            &mut state,
            &Step {
                train: next(Split::Train),
                val: &|| next(Split::Val),
                epoch: search.epoch() as f64,
                within: (number % per_epoch) as f64 / per_epoch as f64,
                rng: &|stream| search.rng(stream),
                draw: &draw,
            },
        );
        advance(&mut search, strategy.as_mut()).unwrap();
        let (theta, phi) = (search.theta(), search.phi());
        let momentum = search.theta_optimizer().momentum_buffer();
        let mut pairs = vec![
            ("weights", &theta, &state.w),
            ("momentum", momentum, &state.momentum),
            ("architecture", &phi, &state.alpha),
        ];
        if let Some(optimizer) = search.phi_optimizer() {
            let ([(_, first), (_, second)], taken) = optimizer.state();
            assert_eq!(taken, i64::from(state.steps));
            let [m, v] = &state.moments;
            pairs.extend([("first moment", first, m), ("second moment", second, v)]);
        }
        for (what, ours, expected) in pairs {
            let off = off(ours, expected);
            println!(
                "{space} {} step {number}: {what} off by {off:.1e}",
                of_strategy["name"]
            );
            assert!(
                off < LIMIT,
                "{space}, {}, step {number}: {what} off by {off:.3e}",
                of_strategy["name"]
            );
        }
    }
    let moved = !no_grad(|| start.equal(&state.alpha));
    assert!(moved, "the architecture has not moved");
}

const SPACES: [(&str, &[&str]); 3] = [
    ("darts", &["space.channels=4", "space.cells=3"]),
    ("nasbench201", &["space.channels=4", "space.cells=1"]),
    ("nasbench1shot1-s1", &["space.channels=4", "space.cells=3"]),
];

macro_rules! steps {
    ($($test:ident: $($set:literal),+;)+) => {$(
        #[test]
        fn $test() {
            for (space, small) in SPACES {
                steps_are_the_papers(space, small, &[$($set),+]);
            }
        }
    )+};
}

steps! {
    darts: "strategy.name=darts";
    darts_of_second_order: "strategy.name=darts", "strategy.order=2";
    pc_darts: "strategy.name=pc-darts", "strategy.partial_channels=2", "strategy.arch_start=0.1";
    fair_darts: "strategy.name=fair-darts";
    sdarts_rs: "strategy.name=sdarts-rs";
    sdarts_adv: "strategy.name=sdarts-adv", "strategy.attack_steps=3";
    drnas: "strategy.name=drnas";
    gdas: "strategy.name=gdas";
    data: "strategy.name=data", "strategy.draws=3";
    dso_nas: "strategy.name=dso-nas", "strategy.gamma=1.0", "strategy.clip=0.2", "strategy.prune_every=1", "trainer.weights.schedule=cosine";
    sparse_nas: "strategy.name=sparse-nas", "strategy.arch.lr=0.01", "strategy.l1=0.01", "strategy.l2=0.02";
    vdnas: "strategy.name=vdnas", "strategy.semi_implicit=true", "strategy.arch.lr=0.01";
}

/// The form of the gradient that is not the default of each space.
#[test]
fn gdas_the_other_way() {
    let of = ["official", "paper", "official"].map(|form| format!("strategy.gradient={form}"));
    for ((space, small), form) in SPACES.into_iter().zip(&of) {
        let set = ["strategy.name=gdas", form];
        steps_are_the_papers(space, small, &set);
    }
}
