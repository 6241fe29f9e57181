//! An option of a space that changes nothing is a promise that is not kept.

use serde_json::{Value, json};
use tch::{Device, Kind};

use super::report::{Report, Verdict};
use super::settings;
use nasfw_framework::arch::RelaxedArch;
use nasfw_framework::config::Validator;
use nasfw_framework::registry::{Parse, Plugin, Registry};
use nasfw_framework::rng::{self, Streams};
use nasfw_framework::space::Task;
use nasfw_framework::supernet::{BatchNormStats, Mode, SupernetOptions, Weights};
use nasfw_framework::{Error, Result};

/// Checks that every option of a space changes something that can be seen, starting from `section`: what there is to
/// decide, the supernet's parameters, its loss, an architecture, or what the space's benchmark says of it. Options
/// that are free text are not tried.
pub fn space_options(plugin: &Plugin, section: &Value, task: Task) -> Report {
    let mut report = Report::new(format!("options of space `{}`", plugin.name));
    report.check(
        "options-matter",
        "every option changes something that can be seen, or its other values are refused",
        || every_option_matters(plugin, section, task),
    );
    report
}

fn every_option_matters(plugin: &Plugin, section: &Value, task: Task) -> Result<Verdict> {
    let plain = seen(plugin, section, task)?;
    let mut idle = vec![];
    for option in settings::of(plugin, section)? {
        let (mut tried, mut matters) = (false, false);
        for other in option.others(&[]) {
            let changed = settings::with(section, &option.path, other);
            // A value that is refused has been seen to.
            if let Ok(now) = seen(plugin, &changed, task) {
                tried = true;
                matters |= now != plain;
            }
        }
        if tried && !matters {
            idle.push(format!("`{}`", option.name()));
        }
    }
    Ok(Verdict::of(idle.is_empty(), || {
        format!("no other value of {} changes anything", idle.join(", "))
    }))
}

/// What a space with these settings shows of itself.
fn seen(plugin: &Plugin, section: &Value, task: Task) -> Result<Value> {
    let Parse::Space(parse) = plugin.parse else {
        return Err(Error::Registry(format!("`{}` is no space", plugin.name)));
    };
    let config = parse(section).map_err(Box::new)?;
    let mut v = Validator::default();
    config.validate(&mut v);
    v.into_result().map_err(Box::new)?;
    let space = config.build()?;
    let streams = Streams::new(4);
    let net = space.supernet(task, &SupernetOptions::default())?;
    let (kind, device) = (Kind::Double, Device::Cpu);
    let params = net.init(streams, kind, device)?;
    let stats = net.init_stats(streams, kind, device)?;
    let shape = [4, task.channels, task.height, task.width];
    let images = rng::normal(&mut streams.at("images", 0), &shape, kind, device);
    let labels = tch::Tensor::arange(4, (Kind::Int64, device)).remainder(task.classes);
    let logits = rng::normal(
        &mut streams.at("logits", 0),
        &[space.spec().numel()],
        kind,
        device,
    );
    let arch = RelaxedArch::new(space.spec().softmax(&logits));
    let weights = Weights {
        params: &params,
        stats: &stats,
    };
    let output = net.forward(weights, &images, &arch, Mode::Train, streams)?;
    let loss = net.loss(&output, &labels).double_value(&[]);
    // What running statistics come to, where the supernet can keep them.
    let running = SupernetOptions {
        batch_norm: BatchNormStats::Running,
        ..SupernetOptions::default()
    };
    let tracked = match space.supernet(task, &running) {
        Ok(net) => {
            let stats = net.init_stats(streams, kind, device)?;
            let weights = Weights {
                params: &params,
                stats: &stats,
            };
            let _output = net.forward(weights, &images, &arch, Mode::Train, streams)?;
            stats.sum(kind).double_value(&[])
        }
        Err(_) => 0.0,
    };
    let genotypes: Vec<_> = (0..4)
        .map(|i| space.genotype(&space.random(&mut streams.at("choice", i))))
        .collect();
    let scores = match Registry::load()?.benchmark_for(plugin.name) {
        Some(benchmark) => scores(benchmark, section, &genotypes)?,
        None => Value::Null,
    };
    let layout: Vec<(&str, &[i64])> = net.layout().entries().collect();
    serde_json::to_value(json!({
        "spec": space.spec(), "layout": layout, "loss": loss, "tracked": tracked, "genotypes": genotypes, "scores": scores,
    }))
    .map_err(|e| Error::Registry(e.to_string()))
}

fn scores(
    benchmark: &Plugin,
    space: &Value,
    of: &[nasfw_framework::arch::Genotype],
) -> Result<Value> {
    let Parse::Benchmark(parse) = benchmark.parse else {
        return Ok(Value::Null);
    };
    let config = parse(&benchmark.default_section()?).map_err(Box::new)?;
    let Some(table) = config.open(space)? else {
        return Ok(Value::Null);
    };
    let scores = of
        .iter()
        .map(|g| table.query(g))
        .collect::<Result<Vec<_>>>()?;
    serde_json::to_value(scores).map_err(|e| Error::Registry(e.to_string()))
}
