//! TensorBoard's own reader says what the event file says, also after a kill and a resume.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use nasfw::framework::events::Event;
use nasfw::framework::run::{EVENTS, read_events};
use serde_json::Value;

use crate::program::{good, killed, python, short_search, skipped};

/// Prints every scalar, histogram and text of a folder as JSON.
const READER: &str = r#"
import json, struct, sys
from google.protobuf import json_format
from tensorboard.plugins.hparams import metadata
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
a = EventAccumulator(sys.argv[1], size_guidance={k: 0 for k in ("scalars", "histograms", "images", "tensors")})
a.Reload()
t = a.Tags()
start = "_hparams_/session_start_info"
settings = metadata.parse_session_start_info_plugin_data(a.SummaryMetadata(start).plugin_data.content)
print(json.dumps({
    "scalars": {k: [[e.step, e.value] for e in a.Scalars(k)] for k in t["scalars"]},
    "histograms": {k: [[e.step, e.histogram_value.num, e.histogram_value.sum, sum(e.histogram_value.bucket)]
                       for e in a.Histograms(k)] for k in t["histograms"]},
    "texts": {k: [[e.step, e.tensor_proto.string_val[0].decode()] for e in a.Tensors(k)] for k in t["tensors"] if k != start},
    "images": {k: [[e.step, e.encoded_image_string[:8].hex(), e.width, e.height,
                    *struct.unpack(">II", e.encoded_image_string[16:24])] for e in a.Images(k)] for k in t["images"]},
    "settings": json_format.MessageToDict(settings)["hparams"],
    "group": settings.group_name,
}))
"#;

/// Scalars by name and step, sums of histograms by step, genotypes by step.
type Written = (Vec<(String, u64, f64)>, Vec<(u64, f64)>, Vec<(u64, String)>);

/// What the reader must find, from the events.
fn expected(run: &Path) -> Written {
    let (mut scalars, mut sums, mut texts) = (vec![], vec![], vec![]);
    let mut groups = vec![];
    for event in read_events(&run.join(EVENTS)).unwrap() {
        let mut add = |name: String, step: u64, v: f64| scalars.push((name, step, v));
        match event {
            Event::Started { groups: named, .. } => groups = named,
            Event::Progress {
                step,
                meters,
                entropy,
                lr,
                scalars,
                ..
            } => {
                for (part, m) in meters {
                    add(format!("loss/{part}"), step, m.loss);
                    add(format!("accuracy/{part}"), step, m.accuracy);
                }
                add("lr".into(), step, lr);
                add("entropy".into(), step, entropy.unwrap());
                for (name, v) in scalars {
                    add(format!("strategy/{name}"), step, v);
                }
            }
            Event::Architecture {
                step,
                marginals,
                entropy,
                sharpness,
                genotype,
                metrics,
                regret,
                ..
            } => {
                add("architecture/entropy".into(), step, entropy.unwrap());
                add("architecture/sharpness".into(), step, sharpness.unwrap());
                for (name, v) in metrics.into_iter().flatten() {
                    add(format!("metrics/{name}"), step, v);
                }
                for (name, v) in regret.into_iter().flatten() {
                    add(format!("regret/{name}"), step, v);
                }
                for (group, rows) in groups.iter().zip(marginals.unwrap()) {
                    sums.push((step, rows.iter().flatten().sum()));
                    for (row, weights) in group.rows.iter().zip(rows) {
                        for (candidate, weight) in row.candidates.iter().zip(weights) {
                            let name = format!("weights/{}/{}/{candidate}", group.name, row.name);
                            scalars.push((name, step, weight));
                        }
                    }
                }
                texts.push((step, genotype.to_string()));
            }
            _ => {}
        }
    }
    (scalars, sums, texts)
}

fn compare(python: &Path, run: &Path) {
    let out = Command::new(python)
        .args(["-c", READER])
        .arg(run.join("tensorboard"))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{stderr}");
    let read: Value = serde_json::from_slice(&out.stdout).unwrap();
    let (scalars, mut sums, texts) = expected(run);
    assert_eq!(read["settings"]["strategy.name"], "darts");
    assert_eq!(read["settings"]["common.threads"], 1.0);
    assert_eq!(read["settings"]["common.download"], false);
    assert_eq!(read["group"], run.file_name().unwrap().to_str().unwrap());
    assert!(!scalars.is_empty() && !sums.is_empty() && !texts.is_empty());

    let points = |kind: &str| -> Vec<(String, u64, Value)> {
        let tags = read[kind].as_object().unwrap();
        tags.iter()
            .flat_map(|(tag, points)| {
                points
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(move |p| (tag.clone(), p[0].as_u64().unwrap(), p.clone()))
            })
            .collect()
    };
    // Scalars have 32 bits there.
    let mut found: Vec<(String, u64, f32)> = points("scalars")
        .into_iter()
        .map(|(tag, step, p)| (tag, step, p[1].as_f64().unwrap() as f32))
        .collect();
    let mut wanted: Vec<(String, u64, f32)> = scalars
        .into_iter()
        .map(|(tag, step, v)| (tag, step, v as f32))
        .collect();
    found.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    wanted.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    assert_eq!(found, wanted);

    let mut found: Vec<(u64, f64)> = vec![];
    for (tag, step, p) in points("histograms") {
        assert!(tag.starts_with("marginals/"), "{tag}");
        assert_eq!(p[1], p[3], "every weight is in a bucket");
        found.push((step, p[2].as_f64().unwrap()));
    }
    let order = |a: &(u64, f64), b: &(u64, f64)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1));
    found.sort_by(order);
    sums.sort_by(order);
    assert_eq!(found, sums);

    let mut found: Vec<(u64, String)> = points("texts")
        .into_iter()
        .map(|(_, step, p)| {
            let lines = p[1].as_str().unwrap().lines();
            let text: Vec<&str> = lines.map(|l| l.strip_prefix("    ").unwrap()).collect();
            (step, text.join("\n"))
        })
        .collect();
    if fs::read_dir(run.join("tensorboard")).unwrap().count() > 1 {
        // This reader, unlike TensorBoard itself, drops no texts where a run went on from before them: the last one counts.
        let last: BTreeMap<u64, String> = found.into_iter().collect();
        found = last.into_iter().collect();
    }
    assert_eq!(found, texts);

    // An image of each architecture that is another one than before, in PNG's own words as large as is said beside it.
    let drawn: Vec<u64> = points("images")
        .into_iter()
        .map(|(tag, step, p)| {
            assert_eq!(
                (tag.as_str(), &p[1]),
                ("cell", &Value::from("89504e470d0a1a0a"))
            );
            assert!(
                p[2].as_u64().unwrap() > 100 && p[2] == p[4] && p[3] == p[5],
                "{p}"
            );
            step
        })
        .collect();
    let mut changes = vec![];
    let mut last = None;
    for (step, text) in &texts {
        if last != Some(text) {
            changes.push(*step);
        }
        last = Some(text);
    }
    assert!(
        changes.iter().all(|step| drawn.contains(step)),
        "{changes:?} {drawn:?}"
    );
    if fs::read_dir(run.join("tensorboard")).unwrap().count() == 1 {
        assert_eq!(drawn, changes);
    }
}

#[test]
fn the_real_reader_finds_what_the_events_say_also_after_a_kill() {
    let Some(python) = python("tensorboard", "TENSORBOARD_PYTHON") else {
        return skipped(
            "the_real_reader_finds_what_the_events_say_also_after_a_kill",
            "no Python with tensorboard in target/tensorboard",
        );
    };
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str| dir.path().join("runs").join(name);
    good(dir.path(), &short_search("whole", &["--tensorboard"]));
    compare(&python, &run("whole"));

    let args = short_search("killed", &["--tensorboard"]);
    killed(dir.path(), &args, &run("killed").join(EVENTS), 8);
    good(dir.path(), &["resume", "runs/killed"]);
    assert_eq!(
        fs::read_dir(run("killed").join("tensorboard"))
            .unwrap()
            .count(),
        2
    );
    compare(&python, &run("killed"));
    let result = |name: &str| fs::read_to_string(run(name).join("result.json")).unwrap();
    assert_eq!(result("whole"), result("killed"));
}

#[test]
fn runs_of_older_versions_load_and_are_the_same_search() {
    let dir = tempfile::tempdir().unwrap();
    let args = &[
        "run",
        "--strategy",
        "darts",
        "--space",
        "toy-conv",
        "--epochs",
        "1",
        "--name",
    ];
    good(dir.path(), &[&args[..], &["a"]].concat());
    good(dir.path(), &[&args[..], &["b", "--tensorboard"]].concat());
    let run = |name: &str| dir.path().join("runs").join(name);
    let json = |name: &str, file: &str| -> Value {
        serde_json::from_str(&fs::read_to_string(run(name).join(file)).unwrap()).unwrap()
    };
    let fingerprint = |name: &str| json(name, "manifest.json")["fingerprint"].clone();
    assert_eq!(fingerprint("a"), fingerprint("b"));
    assert!(!run("a").join("tensorboard").exists() && run("b").join("tensorboard").exists());

    // Older versions kept a switch instead of a list, the oldest none.
    let files = |name: &str| fs::read_dir(run(name).join("tensorboard")).map_or(0, Iterator::count);
    for (name, on, before, after) in [
        ("a", None, 0, 0),
        ("a", Some(false), 0, 0),
        ("b", Some(true), 1, 2),
    ] {
        assert_eq!(files(name), before);
        let mut old = json(name, "run.json");
        old.as_object_mut().unwrap().remove("trackers");
        old["common"]
            .as_object_mut()
            .unwrap()
            .extend(on.map(|on| ("tensorboard".into(), on.into())));
        fs::write(run(name).join("run.json"), old.to_string()).unwrap();
        fs::remove_file(run(name).join("result.json")).unwrap();
        good(dir.path(), &["resume", &format!("runs/{name}")]);
        assert_eq!(files(name), after, "{on:?}");
    }
}
