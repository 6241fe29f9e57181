//! `nasfw bench perf` through the binary, and the multiply-adds that it counts.

use std::fs;
use std::path::Path;

use nasfw::framework::config::{Layer, RunConfig, resolve};
use nasfw::framework::network::NetworkOptions;
use nasfw::framework::perf::supernet_macs;
use nasfw::framework::registry::Registry;
use nasfw::framework::space::Task;
use serde_json::Value;

use crate::program::{good, nasfw};

const QUICK: [&str; 6] = ["--steps", "2", "--warmup", "1", "--threads", "1"];
const SMALL: [&str; 8] = [
    "--space",
    "darts",
    "--set",
    "space.channels=2",
    "--set",
    "space.cells=3",
    "--batch",
    "4",
];

fn perf<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["bench", "perf"], &QUICK[..], more].concat()
}

fn measured(dir: &Path, more: &[&str]) -> Value {
    let args = [&perf(more)[..], &["--json", "-"]].concat();
    serde_json::from_str(&good(dir, &args)).unwrap()
}

fn number(value: &Value, path: &str) -> f64 {
    let number = value.pointer(path).and_then(Value::as_f64);
    number.unwrap_or_else(|| panic!("no number at {path} in {value:#}"))
}

/// Times, ratios and counts of a kind of step are what they are called.
fn check_step(step: &Value) {
    let samples: Vec<f64> = serde_json::from_value(step["samples"].clone()).unwrap();
    assert_eq!(samples.len(), 2, "{step:#}");
    assert!(samples.iter().all(|s| s.is_finite() && *s > 0.0));
    for path in ["/seconds", "/images_per_second", "/ratio"] {
        let value = number(step, path);
        assert!(value.is_finite() && value > 0.0, "{path} is {value}");
    }
    let middle = (samples[0] + samples[1]) / 2.0;
    assert!((number(step, "/seconds") - middle).abs() < 1e-9);
    let (all, leaves) = (
        number(step, "/operators/all"),
        number(step, "/operators/leaves"),
    );
    assert!(all > leaves && leaves > 0.0, "{all} {leaves}");
    // The step and its phases were timed together.
    let phases = ["data", "forward", "backward", "optimizer"];
    let phases = phases.map(|p| number(step, &format!("/phases/{p}")));
    assert!(phases.iter().all(|p| *p >= 0.0) && phases[1..].iter().all(|p| *p > 0.0));
    assert!(phases.iter().sum::<f64>() <= middle, "{step:#}");
    let rest = number(step, "/phases/rest");
    assert!((phases.iter().sum::<f64>() + rest - middle).abs() < 1e-9);
}

#[test]
fn strategies_are_measured_beside_the_bare_supernet() {
    let dir = tempfile::tempdir().unwrap();
    let strategies = ["-s", "darts", "-s", "vim", "-s", "random"];
    let report = measured(dir.path(), &[&SMALL[..], &strategies].concat());
    assert_eq!(report["space"], "darts");
    assert_eq!(report["batch"], 4);
    assert_eq!(report["threads"], 1);
    assert_eq!(report["images"], serde_json::json!([4, 3, 32, 32]));
    assert!(number(&report, "/parameters") > 1000.0);
    assert!(number(&report, "/plain/peak_bytes") > number(&report, "/plain/libraries_bytes"));
    assert_eq!(number(&report, "/plain/ratio"), 1.0);
    assert_eq!(number(&report, "/joint/ratio_joint"), 1.0);
    let [plain, joint, darts, vim, random] = [
        "/plain",
        "/joint",
        "/strategies/darts",
        "/strategies/vim",
        "/strategies/random",
    ]
    .map(|path| report.pointer(path).unwrap());
    for step in [plain, joint, darts, vim, random] {
        check_step(step);
        assert!(number(step, "/ratio_joint") > 0.0);
    }
    assert_eq!(
        number(plain, "/phases/data"),
        0.0,
        "its batch is drawn once"
    );
    assert!(number(vim, "/phases/data") > 0.0);
    // Counts do not depend on how busy the machine is: two passes, one pass a part of the batch, one candidate an edge.
    let calls = |step: &Value| number(step, "/operators/leaves");
    assert!(calls(joint) > calls(plain));
    assert!(calls(darts) > 1.6 * calls(joint) && calls(darts) < 2.4 * calls(joint));
    assert!(calls(vim) > 3.0 * calls(joint) && calls(vim) < 5.0 * calls(joint));
    assert!(calls(random) < calls(plain));
    for path in ["sampled", "everywhere", "ratio", "of_all"] {
        let value = number(&report, &format!("/single_path/{path}"));
        assert!(value.is_finite() && value > 0.0);
    }
}

#[test]
fn toy_spaces_are_measured_on_images_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    for space in ["toy-planted", "toy-conv"] {
        let args = ["--space", space, "--batch", "8", "--json", "perf.json"];
        let table = good(dir.path(), &perf(&args));
        for row in ["plain ", "joint ", "darts ", "vim ", "single path: "] {
            assert!(
                table.lines().any(|l| l.starts_with(row)),
                "no {row}in {table}"
            );
        }
        let report: Value =
            serde_json::from_str(&fs::read_to_string(dir.path().join("perf.json")).unwrap())
                .unwrap();
        assert_ne!(
            report["images"],
            serde_json::json!([8, 3, 32, 32]),
            "{space}"
        );
        assert!(report["macs"].is_null() && report["machine"].is_null());
        for name in ["darts", "vim"] {
            check_step(&report["strategies"][name]);
        }
    }
}

#[test]
fn without_strategies_and_without_a_space() {
    let dir = tempfile::tempdir().unwrap();
    let report = measured(dir.path(), &["-S", "toy-conv", "-s", "none", "--machine"]);
    assert_eq!(report["strategies"], serde_json::json!({}));
    assert!(report["joint"].is_null() && report["single_path"].is_null());
    check_step(&report["plain"]);
    let alone = measured(dir.path(), &["--machine"]);
    for report in [&report, &alone] {
        assert!(number(report, "/machine/gflops") > 0.1);
        assert!(number(report, "/machine/gbytes") > 0.1);
    }
    assert!(alone.get("plain").is_none());
}

#[test]
fn what_can_not_be_measured_is_refused_with_what_to_type() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&[&str], i32, &str); 7] = [
        (&[], 2, "--space"),
        (&["-S", "dartz"], 2, "darts"),
        (&["-S", "toy-conv", "-s", "dats"], 2, "darts"),
        (
            &["-S", "toy-conv", "-s", "train"],
            2,
            "nasfw list strategies",
        ),
        (
            &["-S", "toy-conv", "--set", "space.chanels=2"],
            2,
            "space.channels",
        ),
        (
            &["-S", "toy-conv", "--set", "space.channels"],
            2,
            "KEY=VALUE",
        ),
        (&["-S", "toy-conv", "--batch", "4096"], 2, "only 512"),
    ];
    for (more, code, says) in cases {
        let out = nasfw(dir.path(), &perf(more));
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{more:?}: {stderr}");
        assert!(stderr.contains(says), "{more:?}: {stderr}");
    }
}

fn macs(space: &str, channels: i64, cells: usize) -> Option<i64> {
    let registry = Registry::load().unwrap();
    let option = ("space.name".to_owned(), space.to_owned(), String::new());
    let resolved = resolve(&registry, &[Layer::CommandLine(vec![option])]).unwrap();
    let space = RunConfig::new(&registry, &resolved)
        .unwrap()
        .space
        .build()
        .unwrap();
    let task = Task {
        channels: 3,
        height: 32,
        width: 32,
        classes: 10,
    };
    let options = NetworkOptions {
        channels: Some(channels),
        cells: Some(cells),
        auxiliary: false,
    };
    supernet_macs(space.as_ref(), task, &options)
}

#[test]
fn multiply_adds_of_a_supernet_are_those_of_all_its_candidates() {
    // Six edges of a 3×3 and a 1×1 convolution; each of the three stages costs the same.
    let more = macs("nasbench201", 16, 5).unwrap() - macs("nasbench201", 16, 4).unwrap();
    assert_eq!(more, 3 * 6 * (9 + 1) * 16 * 16 * 32 * 32);
    // Nine and ten cells reduce at the same places, so the last one is a normal cell more: 14 edges of four separable
    // convolutions, two of which are applied twice, and two 1×1 convolutions that bring the inputs to 64 channels.
    let (c, pixels) = (64, 8 * 8);
    let edge = (2 * 9 + 2 * 25 + 9 + 25) * c + (2 + 2 + 1 + 1) * c * c;
    let more = macs("darts", 16, 10).unwrap() - macs("darts", 16, 9).unwrap();
    assert_eq!(more, pixels * (14 * edge + 2 * 4 * c * c));
    // Sources are chosen there, and their costs don't add up.
    assert_eq!(macs("nasbench1shot1-s3", 16, 9), None);
}
