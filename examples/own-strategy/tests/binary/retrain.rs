//! What shaped the network in the search shapes it when it is trained alone, in a space that no other crate knows.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::own;

const TINY: [&str; 12] = [
    "--dataset=synthetic",
    "--out=.",
    "--threads=1",
    "--device=cpu",
    "--epochs=1",
    "--set=dataset.images=32",
    "--set=dataset.test_images=8",
    "--set=dataset.classes=4",
    "--set=dataset.size=8",
    "--set=trainer.batch_size=16",
    "--set=trainer.augment.cutout=0",
    "--set=trainer.augment.crop_padding=0",
];

/// What is said by a command that must succeed.
fn good(dir: &Path, args: &[&str]) -> (String, String) {
    let out = own(dir, args);
    let [said, warned] = [out.stdout, out.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(out.status.success(), "{args:?}: {warned}");
    (said, flat(&warned))
}

/// Without the lines that messages are broken into.
fn flat(text: &str) -> String {
    text.replace("\n  | ", " ")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// Number of weights that a run trains, as its first event says.
fn weights_of(dir: &Path, run: &str) -> i64 {
    let events = fs::read_to_string(dir.join(run).join("events.jsonl")).unwrap();
    let first: Value = serde_json::from_str(events.lines().next().unwrap()).unwrap();
    first["weights"].as_i64().unwrap()
}

/// Weights of a network on images of 3 channels: a convolution with its batch norm, perhaps both again, a classifier of 4.
fn weights(channels: i64, widen: i64, deep: bool) -> i64 {
    let hidden = channels * widen;
    let second = hidden * hidden + 2 * hidden;
    3 * hidden + 2 * hidden + if deep { second } else { 0 } + hidden * 4 + 4
}

fn retrain(dir: &Path, what: &str, name: &str, more: &[&str]) -> Output {
    let name = format!("--name={name}");
    // The preset says 8 channels.
    let args = ["retrain", what, &name, "--preset=quick"];
    own(dir, &[&args[..], &TINY, more].concat())
}

fn trained(dir: &Path, what: &str, name: &str, more: &[&str]) -> (i64, String) {
    let out = retrain(dir, what, name, more);
    let warned = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.success(), "{what} {more:?}: {warned}");
    (weights_of(dir, name), flat(&warned))
}

/// A search with a wide and deep network, in the folder `search`.
fn searched() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "run",
        "--strategy=darts",
        "--space=widened",
        "--name=search",
        "--set=space.widen=4",
        "--set=space.form.deep=true",
        "--set=space.channels=5",
    ];
    good(dir.path(), &[&args[..], &TINY].concat());
    let hidden = 5 * 4;
    assert_eq!(
        weights_of(dir.path(), "search"),
        3 * hidden + hidden * hidden + hidden * 4
    );
    dir
}

#[test]
fn settings_of_a_space_come_along_when_its_architecture_is_trained() {
    let dir = searched();
    let dir = dir.path();
    let trained = |what: &str, name: &str, more: &[&str]| trained(dir, what, name, more).0;
    let wide = weights(8, 4, true);
    assert_eq!(trained("search", "one", &[]), wide);
    // What is set is stronger, and one that is not set stays.
    let narrow = ["--set=space.widen=2", "--channels=6"];
    assert_eq!(trained("search", "two", &narrow), weights(6, 2, true));
    // Of a retraining; of a result, in its run or copied away; with the space named.
    assert_eq!(trained("one", "three", &[]), wide);
    fs::copy(dir.join("search/result.json"), dir.join("copy.json")).unwrap();
    assert_eq!(trained("copy.json", "four", &[]), wide);
    assert_eq!(
        trained("copy.json:last", "five", &["--space=widened"]),
        wide
    );
    fs::copy(dir.join("one/result.json"), dir.join("again.json")).unwrap();
    assert_eq!(trained("again.json", "six", &[]), wide);
    assert_eq!(trained("search/events.jsonl:last", "seven", &[]), wide);
    // By the configuration alone.
    let again = [
        "run",
        "--config=one/config.toml",
        "--seed=1",
        "--name=eight",
    ];
    good(dir, &again);
    assert_eq!(weights_of(dir, "eight"), wide);

    // The same network is measured and exported.
    let (found, _) = good(dir, &["eval", "one", "--json"]);
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["cost"]["params"], wide);
    good(dir, &["export", "one", "--safetensors", "n.safetensors"]);
    let bytes = fs::read(dir.join("n.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let second = tensors.tensor("conv1.weight").unwrap();
    assert_eq!(second.shape(), [32, 32, 1, 1]);
}

/// Settings of a run as its folder keeps them.
fn settings_of(dir: &Path, run: &str) -> toml::Table {
    let text = fs::read_to_string(dir.join(run).join("config.toml")).unwrap();
    toml::from_str(&text).unwrap()
}

#[test]
fn a_space_of_ours_brings_its_recipe() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let search = [
        "run",
        "--strategy=gdas",
        "--space=residual-chain",
        "--name=search",
        "--set=space.channels=4",
    ];
    good(dir, &[&search[..], &TINY].concat());
    // How long it takes and how large it is, but no preset.
    let trained = |name: &str, more: &[&str]| {
        let name_option = format!("--name={name}");
        let args = ["retrain", "search", &name_option, "--channels=4"];
        good(dir, &[&args[..], &TINY, more].concat());
        let settings = settings_of(dir, name);
        let number = |path: [&str; 3]| {
            let section = settings[path[0]].as_table().unwrap();
            let section = match path[1] {
                "" => section,
                inner => section[inner].as_table().unwrap(),
            };
            let value = &section[path[2]];
            let number = value.as_float();
            number.unwrap_or_else(|| value.as_integer().unwrap() as f64)
        };
        [
            ["trainer", "weights", "lr"],
            ["trainer", "weights", "weight_decay"],
            ["trainer", "weights", "clip"],
            ["strategy", "", "drop_path"],
            ["space", "", "auxiliary"],
            ["space", "", "label_smoothing"],
            ["trainer", "", "epochs"],
        ]
        .map(number)
    };
    // The recipe; DARTS would have 0.025, 3e-4, 5, 0.2, 0.4 and 0.
    let recipe = [0.1, 1e-4, 0.0, 0.0, 0.0, 0.1];
    let found = trained("one", &[]);
    assert_eq!(found[..6], recipe);
    assert_eq!(found[6], 1.0, "what is asked for is stronger");
    assert_eq!(
        trained("two", &["--set=trainer.weights.lr=0.01"])[..3],
        [0.01, 1e-4, 0.0]
    );
    let preset = trained("three", &["--preset=nasbench201"]);
    assert_eq!(preset[..6], [0.1, 5e-4, 0.0, 0.0, 0.0, 0.0]);

    // Too low a rate for the recipe's lowest: a message says where a setting is from.
    let out = own(
        dir,
        &[
            "retrain",
            "search",
            "--dataset=synthetic",
            "--set=trainer.weights.lr=0.0",
        ],
    );
    let text = flat(&String::from_utf8(out.stderr).unwrap());
    assert!(
        text.contains("trainer.weights.lr_min") && text.contains("recipe of residual-chain"),
        "{text}"
    );
}

#[test]
fn a_genotype_alone_has_the_defaults_and_what_is_set() {
    let dir = searched();
    let dir = dir.path();
    let (genotype, warned) = good(dir, &["genotype", "search"]);
    fs::write(dir.join("cell.json"), genotype).unwrap();
    let says = "found with `form.deep = true`, `widen = 4` on space `widened`";
    assert!(warned.contains(says), "{warned}");
    assert!(!warned.contains("channels"), "{warned}");
    let trained = |what: &str, name: &str, more: &[&str]| trained(dir, what, name, more);
    let none: [&str; 0] = [];
    assert_eq!(trained("cell.json", "one", &none).0, weights(8, 1, false));
    let set = ["--space=widened", "--set=space.widen=4"];
    assert_eq!(trained("cell.json", "two", &set).0, weights(8, 4, false));

    // A result of an older version has no more than the genotype, unless it is where its run is.
    let path = dir.join("search/result.json");
    let mut result: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(result["space"]["widen"], 4);
    result.as_object_mut().unwrap().remove("space");
    for path in [&path, &dir.join("old.json")] {
        fs::write(path, result.to_string()).unwrap();
    }
    let (found, warned) = trained("search/result.json", "three", &none);
    assert_eq!(found, weights(8, 4, true));
    assert!(!warned.contains("older version"), "{warned}");
    let (found, warned) = trained("old.json", "four", &none);
    assert_eq!(found, weights(8, 1, false));
    assert!(
        warned.contains("an older version wrote this result"),
        "{warned}"
    );
}

#[test]
fn settings_that_can_not_be_are_refused_with_a_suggestion() {
    let dir = searched();
    let dir = dir.path();
    for (set, says) in [
        ("space.widn=4", "did you mean `widen`?"),
        ("space.form.dep=true", "did you mean `form.deep`?"),
        ("space.nothing=4", "space `widened` has no such option"),
        ("space.widen=99", "99 is out of range"),
        ("space.widen=wide", "invalid type"),
        ("space.auxilary=1", "did you mean `space.auxiliary`?"),
        (
            "space.settings.channels=4",
            "it shapes the network of a search",
        ),
    ] {
        let out = retrain(dir, "search", "bad", &["--set", set]);
        let text = flat(&String::from_utf8(out.stderr).unwrap());
        assert_eq!(out.status.code(), Some(2), "{set}: {text}");
        let typed = format!("--set {set}");
        assert!(
            text.contains(says) && text.contains(&typed),
            "{set}: {text}"
        );
    }
    assert!(!dir.join("bad").exists());
}
