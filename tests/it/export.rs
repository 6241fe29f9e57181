//! `nasfw export --pytorch`: of what, in which size, and what is refused. What the files compute is tested in `pytorch`.

use std::fs;
use std::path::Path;

use nasfw::{NetworkSize, network_source};

use crate::program::{good, nasfw};

const CELL: &str =
    "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|";

/// Exit code 2, and standard error without the line breaks of its box.
fn refused(dir: &Path, args: &[&str]) -> String {
    let out = nasfw(dir, args);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{args:?}: {text}");
    let words: Vec<&str> = text
        .split_whitespace()
        .filter(|w| *w != "|" && *w != "│")
        .collect();
    words.join(" ")
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// A short training on few, tiny images.
fn trained(dir: &Path, cell: &str, more: &[&str]) {
    let args = [
        "retrain", cell, "--name", "run", "--out=.", "--epochs", "1", "--device", "cpu",
    ];
    let data = [
        "--dataset",
        "synthetic",
        "--preset",
        "quick",
        "--set",
        "dataset.images=32",
    ];
    let size = ["--set", "trainer.batch_size=16", "--channels", "4"];
    good(dir, &[&args[..], &data, &size, more].concat());
}

#[test]
fn a_trained_network_is_written_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    trained(dir, CELL, &["--cells", "1", "--set", "dataset.size=12"]);
    let export = [
        "export",
        "run",
        "--pytorch",
        "network.py",
        "--safetensors",
        "w.safetensors",
    ];
    let said = good(dir, &export);
    says(
        &said,
        &[
            "network.py: PyTorch,",
            " parameters,",
            "w.safetensors: safetensors",
        ],
    );
    let text = fs::read_to_string(dir.join("network.py")).unwrap();
    says(
        &text,
        &[
            "IMAGE = (3, 12, 12)\n",
            "gives logits [n, 4]",
            "\nMEAN = (",
            "\nSTD = (",
            "\nCLASSES = (\"pattern 0\", ",
            "nothing is cropped",
        ],
    );
    let bytes = fs::read(dir.join("w.safetensors")).unwrap();
    let weights = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (name, _) in weights
        .tensors()
        .iter()
        .filter(|(name, _)| name.starts_with("stage"))
    {
        let layer = name.rsplit_once('.').unwrap().0.rsplit_once('.').unwrap().0;
        assert!(
            text.contains(&format!("put(self, \"{layer}")),
            "{name}: {text}"
        );
    }
    // Any of its checkpoints says the same, and so does the library; images are not asked for.
    let checkpoints = fs::read_dir(dir.join("run/checkpoints")).unwrap();
    let checkpoint = checkpoints
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .unwrap();
    let none = NetworkSize::default();
    assert_eq!(network_source(&checkpoint, &none).unwrap(), text);
    assert_eq!(network_source(dir.join("run"), &none).unwrap(), text);
    // A run of an earlier version does not say what its images are; its dataset does.
    let file = dir.join("run/manifest.json");
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    manifest.as_object_mut().unwrap().remove("inputs").unwrap();
    fs::write(&file, manifest.to_string()).unwrap();
    good(dir, &["export", "run", "--pytorch", "old.py"]);
    assert_eq!(fs::read_to_string(dir.join("old.py")).unwrap(), text);

    let text = refused(
        dir,
        &[
            "export",
            "run",
            "--pytorch",
            "x.py",
            "--channels",
            "8",
            "--auxiliary",
        ],
    );
    says(
        &text,
        &[
            "--channels, --auxiliary",
            "it is trained",
            "export run/result.json --pytorch FILE.py",
        ],
    );
    let text = refused(
        dir,
        &["export", "run", "--onnx", "x.onnx", "--classes", "8"],
    );
    says(&text, &["--classes", "leave it out"]);
    assert!(!dir.join("x.py").exists() && !dir.join("x.onnx").exists());
    // Its architecture, in another size.
    let other = ["--pytorch", "x.py", "--channels", "8", "--image", "1x12x8"];
    good(dir, &[&["export", "run/result.json"], &other[..]].concat());
    let text = fs::read_to_string(dir.join("x.py")).unwrap();
    says(
        &text,
        &["IMAGE = (1, 12, 8)", "logits [n, 10]", "It is not trained"],
    );
}

/// The auxiliary classifier of a run comes along, and its settings do.
#[test]
fn a_trained_network_keeps_its_auxiliary_classifier() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let more = [
        "--cells",
        "3",
        "--set",
        "space.auxiliary=0.4",
        "--set",
        "dataset.size=32",
    ];
    trained(dir, "DARTS_V2", &more);
    good(dir, &["export", "run", "--pytorch", "network.py"]);
    let text = fs::read_to_string(dir.join("network.py")).unwrap();
    says(
        &text,
        &[
            "of the auxiliary classifier",
            "return logits, self.auxiliary(",
        ],
    );
}

#[test]
fn architectures_are_written_in_any_form_and_size() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let text = network_source("DARTS_V2", &NetworkSize::default()).unwrap();
    says(
        &text,
        &[
            "It has 3349342 parameters.\n",
            "IMAGE = (3, 32, 32)",
            "gives logits [n, 10]",
        ],
    );
    // As text, from a file, and one of several in a file.
    let line = good(dir, &["genotype", "DARTS_V2", "--format", "darts"]);
    let other = good(dir, &["genotype", "PC_DARTS", "--format", "darts"]);
    let file = format!("PC_DARTS = {other}\nDARTS_V2 = {line}\n");
    fs::write(dir.join("cells.py"), file).unwrap();
    let json = good(dir, &["genotype", "DARTS_V2"]);
    fs::write(dir.join("cell.json"), json).unwrap();
    for what in [line.trim(), "cells.py:DARTS_V2", "cell.json", "darts-v2"] {
        good(dir, &["export", what, "--pytorch", "n.py"]);
        assert_eq!(
            fs::read_to_string(dir.join("n.py")).unwrap(),
            text,
            "{what}"
        );
    }
    let large = [
        "--space",
        "darts-imagenet",
        "--image",
        "3x224x224",
        "--classes",
        "1000",
    ];
    let said = good(
        dir,
        &[
            &["export", "DARTS_V2", "--pytorch", "n.py", "--auxiliary"],
            &large[..],
        ]
        .concat(),
    );
    let text = fs::read_to_string(dir.join("n.py")).unwrap();
    says(
        &text,
        &[
            "IMAGE = (3, 224, 224)",
            "gives logits [n, 1000]",
            "of the auxiliary classifier",
        ],
    );
    says(&said, &[&format!("{} bytes", text.len())]);
}

/// A search's data and the settings of its space come along.
#[test]
fn a_search_gives_its_architecture_for_its_images() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let custom = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/spaces/small.toml"),
    )
    .unwrap();
    fs::write(dir.join("mine.toml"), custom).unwrap();
    let search = [
        "run",
        "--strategy",
        "random",
        "--space",
        "mine.toml",
        "--epochs",
        "1",
    ];
    let data = [
        "--dataset",
        "synthetic",
        "--set",
        "dataset.images=16",
        "--set",
        "dataset.size=16",
    ];
    let place = [
        "--out=.",
        "--name",
        "search",
        "--device",
        "cpu",
        "--set",
        "trainer.batch_size=8",
    ];
    good(dir, &[&search[..], &data, &place].concat());
    good(
        dir,
        &["export", "search", "--pytorch", "n.py", "--channels", "4"],
    );
    let text = fs::read_to_string(dir.join("n.py")).unwrap();
    says(
        &text,
        &[
            "IMAGE = (3, 16, 16)",
            "gives logits [n, 4]",
            "It is not trained",
        ],
    );
    let text = refused(dir, &["export", "search", "--safetensors", "w.safetensors"]);
    says(&text, &["supernet", "nasfw retrain"]);
}

#[test]
fn what_can_not_be_written_is_refused_with_what_to_type() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (args, parts) in [
        (
            &["DARTS_V2", "--onnx", "n.onnx", "--pytorch", "n.py"][..],
            &[
                "--onnx of DARTS_V2",
                "without trained weights",
                "retrain DARTS_V2",
                "--pytorch FILE.py",
            ][..],
        ),
        (
            &["DARTS_V3", "--pytorch", "n.py"],
            &["did you mean", "--list"],
        ),
        (&["DARTS_V3", "--safetensors", "n"], &["did you mean"]),
        (&["DARTS_V2"], &["--onnx", "--pytorch"]),
        (&["DARTS_V2", "--pytorch", "n.onnx"], &["no ONNX", "`.py`"]),
        (&["DARTS_V2", "--onnx", "n.py"], &["no PY", "`.onnx`"]),
        (
            &["DARTS_V2", "--pytorch", "n.py", "--image", "3x0x32"],
            &["3x32x32"],
        ),
        (
            &["DARTS_V2", "--pytorch", "n.py", "--image", "32"],
            &["3x32x32"],
        ),
        (
            &[
                "DARTS_V2",
                "--pytorch",
                "n.py",
                "--image",
                "3x1x1",
                "--space",
                "darts-imagenet",
            ],
            &["at least 16×16 pixels", "`--image CHANNELSxROWSxCOLUMNS`"],
        ),
        (
            &["DARTS_V2", "--pytorch", "n.py", "--space", "darst"],
            &["did you mean `darts`"],
        ),
        (
            &[CELL, "--pytorch", "n.py", "--auxiliary"],
            &["an auxiliary classifier", "leave `--auxiliary` out"],
        ),
        (&[CELL, "--pytorch", "n.py", "--cells", "0"], &["--cells"]),
    ] {
        let text = refused(dir, &[&["export"], args].concat());
        says(&text, parts);
    }
    assert!(
        fs::read_dir(dir)
            .unwrap()
            .all(|e| e.unwrap().file_name() == "cache")
    );
    let wrong = network_source(
        "DARTS_V2",
        &NetworkSize {
            classes: Some(0),
            ..NetworkSize::default()
        },
    );
    says(
        &wrong.unwrap_err().to_string(),
        &["0 classes", "at least 1"],
    );
}
