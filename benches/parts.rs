//! How long the parts of a search take: `cargo bench --bench parts --profile dev` (docs/performance.md).
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use nasfw as _;
use nasfw::framework::arch::Choice;
use nasfw::framework::config::{Layer, RunConfig, resolve};
use nasfw::framework::optim::Rule;
use nasfw::framework::registry::Registry;
use nasfw::framework::run::RunFolder;
use nasfw::framework::search::Search;
use nasfw::framework::strategy::{Split, Strategy};
use nasfw::framework::trainer::save;
use nasfw_spaces::tables::{Builder, Measure};
use tch::{Kind, Tensor};

const IMAGES: &str = "dataset.name=synthetic dataset.size=32 dataset.classes=10 dataset.images=256";

fn config(settings: &str) -> RunConfig {
    let options = settings.split_whitespace().map(|pair| {
        let (key, value) = pair.split_once('=').unwrap();
        (key.to_owned(), value.to_owned(), pair.to_owned())
    });
    let layers = [Layer::CommandLine(options.collect())];
    let registry = Registry::load().unwrap();
    RunConfig::new(&registry, &resolve(&registry, &layers).unwrap()).unwrap()
}

fn start(settings: &str) -> (Search, Box<dyn Strategy>) {
    let config = config(&format!("{IMAGES} device=cpu {settings}"));
    config.trainer.start(&config).unwrap()
}

/// The network of one cell of DARTS, forward and backward, with one candidate on all edges.
fn cells(c: &mut Criterion) {
    let settings = "space.name=darts space.cells=1 strategy.name=darts trainer.batch_size=16";
    let (mut search, _) = start(settings);
    let batch = search.batch(Split::Full).unwrap();
    let groups = search.space().spec().groups().to_vec();
    let mut group = c.benchmark_group("one cell of DARTS, 16 images, forward and backward");
    for (i, name) in groups[0].rows[0].candidates.iter().enumerate() {
        let all = groups.iter().map(|g| vec![vec![i]; g.rows.len()]);
        let arch = search.one_hot(&Choice::new(all.collect()));
        group.bench_function(name, |b| {
            b.iter(|| {
                let theta = search.theta();
                let loss = search.loss(&theta, &arch, &batch).unwrap();
                search.gradients(&loss, &[&theta]).unwrap()
            });
        });
    }
}

fn batches(c: &mut Criterion) {
    let (mut search, _) =
        start("space.name=toy-conv strategy.name=darts trainer.augment.crop_padding=4");
    c.bench_function(
        "batch of 64 images of 3×32×32, drawn, cropped, flipped",
        |b| {
            b.iter(|| search.batch(Split::Full).unwrap());
        },
    );
}

fn distributions(c: &mut Criterion) {
    for strategy in ["darts", "vim"] {
        let (search, own) = start(&format!(
            "space.name=darts space.channels=2 strategy.name={strategy}"
        ));
        let (phi, distribution) = (search.phi(), own.distribution().unwrap());
        let name =
            format!("sample of {strategy}'s distribution on DARTS's space, and its gradient");
        c.bench_function(&name, |b| {
            b.iter(|| {
                let arch = distribution
                    .sample(&phi, &mut search.rng("sample"))
                    .unwrap();
                let squares: Vec<Tensor> = arch
                    .weights
                    .iter()
                    .map(|w| w.square().sum(Kind::Float))
                    .collect();
                let sum = Tensor::stack(&squares, 0).sum(Kind::Float);
                search.gradients(&sum, &[&phi]).unwrap()
            });
        });
    }
}

fn optimizers(c: &mut Criterion) {
    let (search, _) = start("space.name=toy-conv strategy.name=darts");
    let mut params = Tensor::randn([2_000_000], (Kind::Float, search.device()));
    let gradient = params.ones_like();
    for rule in [Rule::Sgd, Rule::Adam] {
        let mut settings = search.theta_optimizer().config().clone();
        settings.optimizer = rule;
        let mut optimizer = settings.build(&params);
        c.bench_function(
            &format!("{rule:?} on 2,000,000 weights, clipped, decayed"),
            |b| {
                b.iter(|| optimizer.step(&mut params, &gradient, 1e-3));
            },
        );
    }
}

/// A table of NAS-Bench-201's size with made-up numbers.
fn tables(c: &mut Criterion) {
    let keys = (0..15_625_u32).map(|i| {
        let digit = |d: u32| b'0' + u8::try_from(i / 5_u32.pow(d) % 5).unwrap();
        (
            (0..6).map(digit).collect(),
            vec![Some(f64::from(i) / 200.0)],
        )
    });
    let table = Builder {
        name: "nasbench201",
        source: "made-up numbers".into(),
        of: 15_625,
        key_bytes: 6,
        measures: vec![Measure {
            name: "test/cifar10".into(),
            unit: "%",
            score: true,
            repeats: 1,
        }],
        rows: keys.collect::<BTreeMap<_, _>>(),
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nasbench201.table");
    table.write(&file).unwrap();
    let benchmark = format!(
        "benchmark.name=nasbench201 benchmark.file={}",
        file.display()
    );
    let (search, strategy) = start(&format!(
        "space.name=nasbench201 space.channels=2 strategy.name=darts {benchmark}"
    ));
    let genotype = search.space().genotype(&strategy.derive(&search).unwrap());
    c.bench_function(
        "regret of an architecture of NAS-Bench-201 by its table",
        |b| {
            b.iter(|| search.query(black_box(&genotype)).unwrap().unwrap());
        },
    );
}

fn searches(c: &mut Criterion) {
    let (mut search, strategy) = start("space.name=darts strategy.name=vim");
    c.bench_function("genotype of DARTS's space from VIM's distribution", |b| {
        b.iter(|| search.space().genotype(&strategy.derive(&search).unwrap()));
    });
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::at(folder.path()).unwrap();
    c.bench_function(
        "checkpoint of DARTS's supernet, 16 channels, 8 cells",
        |b| {
            b.iter(|| save(&run, &mut search, strategy.as_ref(), "fingerprint").unwrap());
        },
    );
}

criterion_group! {
    name = parts;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(10);
    targets = cells, batches, distributions, optimizers, tables, searches
}
criterion_main!(parts);
