//! Writes both indicators of TE-NAS beside the test accuracy of random cells of NAS-Bench-201, and prints how their orders
//! agree (docs/studies/proxies.md).
//!
//! ```text
//! cargo run --example te_nas -- CELLS DATA_DIR TABLE FILE.csv
//! ```
#![allow(clippy::print_stdout)]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use clap::Parser;
use nasfw::framework::config::{Layer, RunConfig, resolve};
use nasfw::framework::proxy::batch;
use nasfw::framework::registry::Registry;
use nasfw::framework::space::different;
use nasfw::prelude::*;
use nasfw_analysis::stats::kendall;
use nasfw_plugins::te_nas::{Fresh, crops};
use nasfw_spaces::formats::Format;
use tch::{Device, Kind};

/// Starts that each indicator is the mean over, and images, as in TE-NAS's search.
const REPEATS: u64 = 3;
const IMAGES: usize = 32;
const CROPS: usize = 3000;

#[derive(Parser)]
struct Arguments {
    cells: usize,
    data_dir: String,
    table: String,
    file: PathBuf,
}

fn main() -> Result<()> {
    let a = Arguments::parse();
    let registry = Registry::load()?;
    let set = [
        ("space.name", "\"nasbench201\"".to_owned()),
        ("dataset.name", "\"cifar10\"".into()),
        ("data_dir", format!("{:?}", a.data_dir)),
        ("benchmark.file", format!("{:?}", a.table)),
    ];
    let set = set.map(|(key, value)| (key.to_owned(), value, String::new()));
    let resolved = resolve(&registry, &[Layer::CommandLine(set.to_vec())])?;
    let config = RunConfig::new(&registry, &resolved)?;
    let (space, table) = (config.space.build()?, config.need_benchmark("this study")?);
    let data = config.dataset.load(&config.common.source())?;
    let options = (Kind::Float, Device::Cpu);
    let streams = Streams::new(0);
    let images = batch(&data, IMAGES, streams, options)?.images;
    let many = batch(&data, CROPS, streams.child("regions", 0), options)?.images;
    let small = crops(&many, 4, &mut streams.at("crops", 0))?;
    let sizes = |channels| SupernetOptions {
        channels: Some(channels),
        cells: Some(1),
        ..Default::default()
    };
    let task = Task {
        channels: 1,
        height: 4,
        width: 4,
        classes: data.task.classes,
    };
    let kernel = space.supernet(data.task, &sizes(4))?;
    let thin = space.supernet(task, &sizes(2))?;

    let opened = OpenOptions::new().create(true).append(true).open(&a.file);
    let mut file = opened.map_err(Error::io("open", &a.file))?;
    let mut columns: [Vec<f64>; 3] = Default::default();
    for (choice, genotype) in different(space.as_ref(), a.cells, &mut streams.at("ranking", 0)) {
        let arch = choice.one_hot(space.spec(), options.0, options.1);
        let (mut condition, mut regions) = (0.0, 0.0);
        for repeat in 0..REPEATS {
            let streams = streams.child("start", repeat);
            let fresh = |net: &dyn Supernet| {
                let weights = net.layout().init(streams, options.0, options.1);
                weights.set_requires_grad(true)
            };
            let (of_kernel, of_thin) = (fresh(kernel.as_ref()), fresh(thin.as_ref()));
            let one = Fresh::new(kernel.as_ref(), &of_kernel, streams);
            condition += one.condition(&images, &arch)? / REPEATS as f64;
            let one = Fresh::new(thin.as_ref(), &of_thin, streams);
            regions += one.regions(&small, &arch)? / REPEATS as f64;
        }
        let metrics = table.query(&genotype)?.unwrap_or_default().metrics;
        let accuracy = metrics.get("test/cifar10").copied().unwrap_or(f64::NAN);
        let name = Format::Nasbench201.write(&genotype).unwrap_or_default();
        let row = format!("{name},{accuracy},{condition},{regions}\n");
        file.write_all(row.as_bytes())
            .map_err(Error::io("write", &a.file))?;
        for (column, value) in columns.iter_mut().zip([accuracy, condition, regions]) {
            column.push(value);
        }
    }
    let [accuracy, condition, regions] = &columns;
    for (name, values) in [("condition", condition), ("regions", regions)] {
        if let Some(k) = kendall(values, accuracy) {
            println!("{name}: tau {:.3}, p {:.1e}", k.tau, k.p);
        }
    }
    Ok(())
}
