//! What `nasfw new` begins, outside the workspace: it passes its own tests, and its program takes a plugin through a search,
//! a kill, a resume, a training of what was found and an export.
//!
//! The crates share the workspace's target folder and what it has built. With `ALL_PAIRS=1`, which `cargo xtask test --all` sets,
//! they are built exactly as begun, and nasfw once more with them. Their programs are run from another place, where only the
//! rpath of their own build script finds libtorch.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A crate that `nasfw new` began, and its program.
struct Begun {
    dir: tempfile::TempDir,
    program: PathBuf,
}

/// A command that must succeed; its standard output.
fn good(command: &mut Command) -> String {
    let out: Output = command.stdin(Stdio::null()).output().unwrap();
    let (text, said) = (
        String::from_utf8_lossy(&out.stdout).into_owned(),
        String::from_utf8_lossy(&out.stderr).into_owned(),
    );
    assert!(out.status.success(), "{command:?}\n{text}\n{said}");
    text
}

/// The flags that the workspace is built with: with others, all dependencies would be built again.
fn flags(workspace: &Path) -> String {
    let config = fs::read_to_string(workspace.join(".cargo/config.toml")).unwrap();
    let config: toml::Table = toml::from_str(&config).unwrap();
    let flags = &config["target"]["cfg(target_os = \"linux\")"]["rustflags"];
    let flags: Vec<&str> = flags
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f.as_str().unwrap())
        .collect();
    flags.join("\u{1f}")
}

/// Lets a crate depend on whatever the workspace depends on: then all crates have the features that they were built with, and
/// none is built again.
fn share(workspace: &Path, begun: &Path) {
    let read = |file: &Path| -> toml::Table {
        toml::from_str(&fs::read_to_string(file).unwrap()).unwrap()
    };
    let root = read(&workspace.join("Cargo.toml"));
    let mut manifest = read(&begun.join("Cargo.toml"));
    let own = manifest["dependencies"].as_table_mut().unwrap();
    for (name, of) in root["workspace"]["dependencies"].as_table().unwrap() {
        let mut of = match of {
            toml::Value::String(version) => {
                toml::Table::from_iter([("version".to_owned(), version.as_str().into())])
            }
            of => of.as_table().unwrap().clone(),
        };
        if let Some(path) = of.get("path").and_then(|path| path.as_str()) {
            let path = workspace.join(path).to_str().unwrap().to_owned();
            of.insert("path".into(), path.into());
            of.remove("default-features");
        }
        // A build script's.
        if name != "cc" && !own.contains_key(name) {
            own.insert(name.clone(), of.into());
        }
    }
    fs::write(begun.join("Cargo.toml"), manifest.to_string()).unwrap();
    fs::copy(workspace.join("Cargo.lock"), begun.join("Cargo.lock")).unwrap();
}

/// Begins a crate with a plugin of a kind in an empty folder, tests it and builds its program.
fn begin(kind: &str) -> Begun {
    let began = Instant::now();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    // No name of the workspace: its programs lie in the same folder.
    let name = format!("begun-{kind}");
    let mut new = Command::new(env!("CARGO_BIN_EXE_nasfw"));
    let told = good(new.args(["new", kind, &name]).current_dir(dir.path()));
    assert!(
        told.contains(&format!("cd {name}\n    cargo test")),
        "{told}"
    );
    let as_begun = std::env::var("ALL_PAIRS").is_ok_and(|v| v == "1");
    if !as_begun {
        share(workspace, &dir.path().join(&name));
    }
    let cargo = |args: &[&str]| {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo
            .args(args)
            .arg("--offline")
            .current_dir(dir.path().join(&name));
        cargo.env("CARGO_TARGET_DIR", workspace.join("target"));
        if cfg!(target_os = "linux") {
            cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(workspace));
        }
        cargo
    };
    let tested = good(&mut cargo(&["test"]));
    assert!(tested.contains("it_conforms ... ok"), "{tested}");
    good(&mut cargo(&["build"]));
    let program = dir.path().join("bin").join(&name);
    fs::create_dir(dir.path().join("bin")).unwrap();
    fs::copy(workspace.join("target/debug").join(&name), &program).unwrap();
    println!(
        "{kind}: tested and built in {:.0} s",
        began.elapsed().as_secs_f64()
    );
    Begun { dir, program }
}

impl Begun {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(self.dir.path());
        command
            .env_remove("LD_LIBRARY_PATH")
            .env("NASFW_NO_PROGRESS", "1");
        command
    }

    fn good(&self, args: &[&str]) -> String {
        good(&mut self.command(args))
    }

    fn result(&self, run: &str) -> Value {
        let file = self.dir.path().join("runs").join(run).join("result.json");
        serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
    }

    /// Runs the same twice, once killed by force after some steps and gone on with: both find the same.
    fn survives(&self, args: &[&str], name: &str) {
        let (whole, killed) = (format!("{name}-whole"), format!("{name}-killed"));
        let run = |name: &str| self.command(&[args, &["--name", name]].concat());
        good(&mut run(&whole));
        let mut child = run(&killed)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let folder = self.dir.path().join("runs").join(&killed);
        let events = || fs::read_to_string(folder.join("events.jsonl"));
        while events().map_or(0, |t| t.matches("\"progress\"").count()) < 3 {
            assert!(
                child.try_wait().unwrap().is_none(),
                "{killed} ended before it could be killed"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!folder.join("result.json").exists());
        self.good(&["resume", &format!("runs/{killed}")]);
        assert_eq!(self.result(&whole), self.result(&killed));
    }

    /// From a search to an ONNX file, over two kills.
    fn through_everything(&self, search: &[&str], network: &[&str]) {
        let often = [
            "--threads",
            "1",
            "--set",
            "trainer.log_every=1",
            "--set",
            "trainer.checkpoint_every=2",
            "--set",
            "trainer.batch_size=16",
        ];
        self.survives(
            &[&["run", "--epochs", "2"], search, &often[..]].concat(),
            "search",
        );
        let retrain = ["retrain", "runs/search-killed", "--epochs", "2"];
        self.survives(&[&retrain[..], network, &often[..]].concat(), "training");
        let eval = self.good(&["eval", "runs/training-killed"]);
        assert!(eval.contains('%'), "{eval}");
        self.good(&["export", "runs/training-killed", "--onnx", "net.onnx"]);
        assert!(
            fs::metadata(self.dir.path().join("net.onnx"))
                .unwrap()
                .len()
                > 1000
        );
        self.good(&["report", "runs/search-killed", "runs/training-killed"]);
    }
}

/// A first-party space that is small enough.
const SMALL: [&str; 6] = [
    "--space",
    "nasbench201",
    "--set",
    "space.channels=2",
    "--set",
    "space.cells=1",
];
const IMAGES: [&str; 6] = [
    "--dataset",
    "synthetic",
    "--set",
    "dataset.images=128",
    "--set",
    "dataset.test_images=32",
];

#[test]
fn a_strategy_of_ones_own() {
    let begun = begin("strategy");
    assert!(
        begun
            .good(&["list", "strategies"])
            .contains("begun-strategy")
    );
    assert!(begun.good(&["--version"]).contains("begun-strategy 0.1.0"));
    let search = [&["--strategy", "begun-strategy"], &SMALL[..], &IMAGES].concat();
    begun.through_everything(&search, &["--channels", "2", "--cells", "1"]);
}

#[test]
fn a_space_of_ones_own() {
    let begun = begin("space");
    assert!(
        begun
            .good(&["describe", "begun-space"])
            .contains("begun-space run --strategy darts")
    );
    let search = [
        &["--strategy", "darts", "--space", "begun-space"],
        &IMAGES[..],
    ]
    .concat();
    begun.through_everything(&search, &["--channels", "4"]);
}

#[test]
fn a_dataset_of_ones_own() {
    let begun = begin("dataset");
    let search = [
        &["--strategy", "darts", "--dataset", "begun-dataset"],
        &SMALL[..],
    ]
    .concat();
    begun.through_everything(&search, &["--channels", "2", "--cells", "1"]);
}

#[test]
fn a_tracker_of_ones_own() {
    let begun = begin("tracker");
    let search = [
        "run",
        "--strategy",
        "darts",
        "--space",
        "toy-conv",
        "--epochs",
        "4",
        "--threads",
        "1",
    ];
    let often = [
        "--set",
        "trainer.log_every=1",
        "--set",
        "trainer.checkpoint_every=2",
        "--track",
        "begun-tracker",
    ];
    begun.survives(&[&search[..], &IMAGES, &often].concat(), "search");
    let lines = |run: &str| {
        let file = begun
            .dir
            .path()
            .join("runs")
            .join(run)
            .join("begun-tracker.csv");
        fs::read_to_string(file)
            .unwrap()
            .lines()
            .filter(|l| l.contains("loss/train"))
            .count()
    };
    assert!(lines("search-whole") > 3 && lines("search-killed") >= lines("search-whole"));
}
