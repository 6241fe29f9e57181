//! Writes what the supernet of a space computes, to be checked against PyTorch (benches/peer/README.md): initial weights,
//! a batch, an architecture, and the loss with its gradients, of a weight step and of a pass that also gives the
//! architecture's gradients.
//!
//! ```text
//! cargo run --example peer -- SPACE CHANNELS CELLS PIXELS BATCH float|double SEED FILE.safetensors
//! ```

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use nasfw::framework::registry::{Kind as Plugins, Parse, Registry};
use nasfw::framework::rng;
use nasfw::prelude::*;
use nasfw_kernels::profile;
use tch::{Device, Kind, Tensor};

#[derive(Parser)]
struct Arguments {
    space: String,
    channels: i64,
    cells: usize,
    pixels: i64,
    batch: i64,
    precision: Precision,
    seed: u64,
    file: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Precision {
    Float,
    Double,
}

fn main() -> Result<()> {
    let a = Arguments::parse();
    let kind = match a.precision {
        Precision::Float => Kind::Float,
        Precision::Double => Kind::Double,
    };
    let plugin = Registry::load()?.get(Plugins::Space, &a.space)?;
    let Parse::Space(parse) = plugin.parse else {
        return Err(Error::Registry(format!("`{}` is no space", a.space)));
    };
    let space = parse(&plugin.default_section()?)
        .map_err(Box::new)?
        .build()?;
    let task = Task {
        channels: 3,
        height: a.pixels,
        width: a.pixels,
        classes: 10,
    };
    let options = SupernetOptions {
        channels: Some(a.channels),
        cells: Some(a.cells),
        ..Default::default()
    };
    let net = space.supernet(task, &options)?;

    // Both precisions start from the same numbers.
    let streams = Streams::new(a.seed);
    let normal = |name: &str, shape: &[i64]| {
        rng::normal(&mut streams.at(name, 0), shape, Kind::Float, Device::Cpu)
    };
    let weights = net
        .layout()
        .init(streams, Kind::Float, Device::Cpu)
        .to_kind(kind);
    let stats = net
        .stats_layout()
        .init(streams, Kind::Float, Device::Cpu)
        .to_kind(kind);
    let images = normal("images", &[a.batch, 3, a.pixels, a.pixels]).to_kind(kind);
    let labels = Tensor::arange(a.batch, (Kind::Int64, Device::Cpu)).remainder(task.classes);
    let logits = normal("logits", &[space.spec().numel()]);
    let architecture: Vec<Tensor> = space
        .spec()
        .softmax(&logits)
        .iter()
        .map(|t| t.to_kind(kind))
        .collect();

    let leaf = |t: &Tensor, requires: bool| t.copy().set_requires_grad(requires);
    let mut written: Vec<(String, Tensor)> = vec![
        ("images".into(), images.shallow_clone()),
        ("labels".into(), labels.shallow_clone()),
        ("operators".into(), operators()),
    ];
    let named = net.layout().named(&weights);
    written.extend(named.map(|(name, t)| (format!("weights/{name}"), t)));
    let groups = architecture.iter().enumerate();
    written.extend(groups.map(|(g, t)| (format!("architecture/{g}"), t.shallow_clone())));
    for (run, both) in [("step", false), ("both", true)] {
        let params = leaf(&weights, true);
        let arch = RelaxedArch::new(architecture.iter().map(|t| leaf(t, both)).collect());
        let at = Weights {
            params: &params,
            stats: &stats,
        };
        let output = net.forward(at, &images, &arch, Mode::Train, streams)?;
        let loss = net.loss(&output, &labels);
        loss.f_backward()?;
        written.push((format!("{run}/loss"), loss.detach()));
        let gradient = params.grad();
        let named = net.layout().named(&gradient);
        written.extend(named.map(|(name, t)| (format!("{run}/gradients/{name}"), t.contiguous())));
        if both {
            let groups = arch.weights.iter().enumerate();
            written.extend(
                groups.map(|(g, t)| (format!("{run}/gradients/architecture.{g}"), t.grad())),
            );
        }
    }
    Tensor::write_safetensors(&written, &a.file)?;
    Ok(())
}

/// Operator calls, all and leaves, of an example that PyTorch counts too.
fn operators() -> Tensor {
    let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
    let (x, w) = (
        ones(&[2, 3, 8, 8]),
        ones(&[4, 3, 3, 3]).set_requires_grad(true),
    );
    let example = || {
        let y = x.conv2d::<Tensor>(&w, None, [1, 1], [0, 0], [1, 1], 1);
        y.relu().sum(None).backward();
    };
    let (_, calls) = profile::count(example);
    Tensor::from_slice(&[calls.all, calls.leaves])
}
