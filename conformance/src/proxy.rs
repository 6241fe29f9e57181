//! What every zero-cost proxy must hold.

use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::report::{Report, Verdict};
use super::settings;
use nasfw_framework::batches::Batch;
use nasfw_framework::network::{Conv, Network, NetworkBuilder};
use nasfw_framework::proxy::{Proxy, Start};
use nasfw_framework::registry::Plugin;
use nasfw_framework::rng::{self, Streams};
use nasfw_framework::space::Task;
use nasfw_framework::{Error, Result};

const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);
const IMAGES: i64 = 8;
const TASK: Task = Task {
    channels: 2,
    height: 8,
    width: 8,
    classes: 3,
};

/// A small network with everything that networks have: batch norms, a ReLU that two layers share, a branch, a classifier.
pub(super) fn network(channels: i64, blocks: usize) -> Result<Network> {
    let (mut b, images) = NetworkBuilder::new(TASK);
    let stem = b.conv("stem", images, channels, Conv::same(3));
    let mut x = b.batch_norm("stem.norm", stem, true);
    for i in 0..blocks {
        let branch = |b: &mut NetworkBuilder, kernel| {
            let bent = b.relu(x);
            let y = b.conv(
                &format!("{i}.conv{kernel}"),
                bent,
                channels,
                Conv::same(kernel),
            );
            b.batch_norm(&format!("{i}.norm{kernel}"), y, true)
        };
        let branches = [branch(&mut b, 3), branch(&mut b, 1)];
        x = b.add(&[branches[0], branches[1], x]);
    }
    let bent = b.relu(x);
    let pooled = b.global_average_pool(bent);
    let logits = b.linear("classifier", pooled, TASK.classes);
    b.finish(logits, None)
}

fn batch(kind: Kind) -> Batch {
    let shape = [IMAGES, TASK.channels, TASK.height, TASK.width];
    let images = rng::normal(
        &mut Streams::new(5).at("images", 0),
        &shape,
        kind,
        Device::Cpu,
    );
    let labels: Vec<i64> = (0..IMAGES).map(|i| i % TASK.classes).collect();
    Batch {
        images,
        labels: Tensor::from_slice(&labels),
        split: None,
    }
}

fn near(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * (1.0 + a.abs().max(b.abs()))
}

/// Checks a proxy with the settings of `section` on networks of the suite's own.
pub fn proxy(plugin: &Plugin, section: &Value) -> Report {
    let mut report = Report::new(format!("proxy `{}`", plugin.name));
    let mut built = None;
    report.check("settings", "its settings are accepted", || {
        built = Some((plugin.proxy(section)?, network(4, 2)?));
        Ok(Verdict::Held)
    });
    let Some((proxy, small)) = built else {
        return report;
    };
    let proxy = proxy.as_ref();
    let streams = Streams::new(1);
    let score =
        |network: &Network, batch: &Batch| proxy.score(&Start::new(network, batch, streams)?);
    report.check(
        "scores",
        "a network with all that networks have gets a finite score",
        || {
            let found = score(&small, &batch(Kind::Double))?;
            Ok(Verdict::of(found.is_finite(), || format!("it is {found}")))
        },
    );
    report.check(
        "is-a-function",
        "the same start has the same score, to the bit, whatever was scored before and on whatever thread",
        || is_a_function(proxy, &small, streams),
    );
    report.check(
        "leaves-the-start",
        "images and labels stay as they are, and whether gradients are recorded",
        || {
            let batch = batch(Kind::Double);
            let (images, labels) = (batch.images.copy(), batch.labels.copy());
            let records = || {
                let x = Tensor::ones([1], DOUBLE).set_requires_grad(true);
                (x * 2.0).requires_grad()
            };
            // Whether gradients are recorded is a matter of the thread: on a new one they are.
            let small = &small;
            let (done, records) = std::thread::scope(|s| {
                let run = s.spawn(move || (score(small, &batch).map(|_| batch), records()));
                run.join().map_err(|_| panicked())
            })?;
            let batch = done?;
            let same = batch.images.equal(&images) && batch.labels.equal(&labels);
            let same = same && !batch.images.requires_grad();
            Ok(Verdict::of(same && records, || match same {
                true => "gradients are no longer recorded".into(),
                false => "the batch was changed".into(),
            }))
        },
    );
    report.check(
        "image-order",
        "a batch is a set: its images may come in any order",
        || {
            let ordered = batch(Kind::Double);
            let turned = Batch {
                images: ordered.images.flip([0]),
                labels: ordered.labels.flip([0]),
                split: None,
            };
            let [a, b] = [&ordered, &turned].map(|batch| score(&small, batch));
            let (a, b) = (a?, b?);
            Ok(Verdict::of(near(a, b, 1e-7), || {
                format!("{a} became {b} with the images in the opposite order")
            }))
        },
    );
    report.check(
        "tells-networks-apart",
        "networks of other widths and depths have other scores",
        || {
            let sizes = [(4, 2), (6, 2), (4, 3)];
            let scores = sizes.map(|(c, n)| score(&network(c, n)?, &batch(Kind::Double)));
            let scores = scores.into_iter().collect::<Result<Vec<f64>>>()?;
            let differ = scores[0] != scores[1] && scores[0] != scores[2];
            Ok(Verdict::of(differ, || format!("they are {scores:?}")))
        },
    );
    report.check(
        "single-precision",
        "the score in single precision is that in double but for rounding",
        || {
            let [a, b] = [Kind::Double, Kind::Float].map(|kind| score(&small, &batch(kind)));
            let (a, b) = (a?, b?);
            Ok(Verdict::of(near(a, b, 1e-2), || {
                format!("{a} in double precision, {b} in single")
            }))
        },
    );
    report.check(
        "options-matter",
        "every option changes the score, or its other values are refused",
        || {
            let here = score(&small, &batch(Kind::Double))?;
            for option in settings::of(plugin, section)? {
                let (mut accepted, mut matters) = (false, false);
                for other in option.others(&[]) {
                    let changed = settings::with(section, &option.path, other);
                    let Ok(other) = plugin.proxy(&changed) else {
                        continue;
                    };
                    accepted = true;
                    let (batch, start) = (batch(Kind::Double), Streams::new(1));
                    matters |= other.score(&Start::new(&small, &batch, start)?)? != here;
                }
                if accepted && !matters {
                    return Ok(Verdict::Broken(format!(
                        "no other value of `{}` changes anything",
                        option.name()
                    )));
                }
            }
            Ok(Verdict::Held)
        },
    );
    report
}

fn panicked() -> Error {
    Error::Plugin {
        plugin: "proxy".into(),
        message: "it panicked on another thread".into(),
    }
}

fn is_a_function(proxy: &dyn Proxy, small: &Network, streams: Streams) -> Result<Verdict> {
    let once = |network: &Network| {
        let batch = batch(Kind::Double);
        proxy.score(&Start::new(network, &batch, streams)?)
    };
    let first = once(small)?;
    let other = once(&network(6, 1)?)?;
    let again = once(small)?;
    let elsewhere = std::thread::scope(|s| {
        let done = s.spawn(|| once(small)).join();
        done.map_err(|_| panicked())
    })??;
    let bits = [first, again, elsewhere].map(f64::to_bits);
    Ok(Verdict::of(
        bits[0] == bits[1] && bits[0] == bits[2],
        || {
            format!(
                "{first}, {again} after another network ({other}), {elsewhere} on another thread"
            )
        },
    ))
}
