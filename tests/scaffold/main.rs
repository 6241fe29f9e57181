//! What `nasfw new` begins, outside the workspace: it passes its own tests, and its program takes a plugin through a search,
//! a kill, a resume, a training of what was found and an export.
//!
//! The compiler is called as Cargo would, with the libraries that the workspace has built: Cargo itself would build nasfw
//! once more, which is two minutes' work. With `ALL_PAIRS=1`, which `cargo xtask test --all` sets, Cargo does it, as for whoever
//! types what `nasfw new` says. Programs are run from another place, where only the rpath of their own build script finds
//! libtorch.
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
use std::sync::OnceLock;
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

/// Cargo, as from a shell: what it says of the package under test would be taken for a change by build scripts that look at it.
fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|n| {
        let n = n.to_string_lossy();
        n.starts_with("CARGO_PKG_") || n.starts_with("CARGO_MANIFEST_") || n == "OUT_DIR"
    }) {
        cargo.env_remove(name);
    }
    cargo
}

/// Words for the compiler that name what the workspace has built.
fn built() -> &'static [String] {
    static BUILT: OnceLock<Vec<String>> = OnceLock::new();
    BUILT.get_or_init(|| {
        // With the features of the tests, so that all of it is there already.
        let messages = good(
            cargo()
                .args(["build", "--workspace", "--lib", "--bins", "--examples"])
                .args(["--offline", "--message-format=json"])
                .current_dir(env!("CARGO_MANIFEST_DIR")),
        );
        let mut words = vec![];
        let mut folder =
            |kind: &str, path: &str| words.extend(["-L".into(), format!("{kind}={path}")]);
        let target = Path::new(env!("CARGO_BIN_EXE_nasfw")).parent().unwrap();
        folder("dependency", target.join("deps").to_str().unwrap());
        let mut libraries = vec![];
        for line in messages.lines() {
            let said: Value = serde_json::from_str(line).unwrap();
            for path in said["linked_paths"].as_array().into_iter().flatten() {
                let path = path.as_str().unwrap();
                folder(
                    "native",
                    path.rsplit_once('=').map_or(path, |(_, path)| path),
                );
            }
            let name = said["target"]["name"].as_str().unwrap_or_default();
            // What runs while something is built is not optimised, and something else.
            let wanted = ["nasfw", "nasfw_conformance", "serde", "typetag"].contains(&name)
                && said["profile"]["opt_level"] == "1";
            let files = said["filenames"].as_array().into_iter().flatten();
            let mut files = files
                .filter_map(|f| f.as_str())
                .filter(|f| f.ends_with(".rlib"));
            if let (true, Some(file)) = (wanted, files.next()) {
                libraries.push(format!("{name}={file}"));
            }
        }
        assert_eq!(libraries.len(), 4, "{libraries:?}");
        words.extend(libraries.into_iter().flat_map(|l| ["--extern".into(), l]));
        words
    })
}

/// Compiles a crate that was begun: its tests, or its program. Gives the file.
fn compiled(dir: &Path, name: &str, tests: bool) -> PathBuf {
    let out = dir.join("bin").join(if tests { "tests" } else { name });
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
    rustc
        .args([
            "--edition=2024",
            "--crate-type=bin",
            "-Copt-level=1",
            "-Dwarnings",
        ])
        .args(["--crate-name", &name.replace('-', "_")])
        .arg(dir.join(name).join("src/main.rs"))
        .arg("-o")
        .arg(&out)
        .args(built())
        .env("CARGO_PKG_NAME", name)
        .env("CARGO_PKG_VERSION", "0.1.0");
    // What the crate's build script says.
    let libtorch = std::env::var("LIBTORCH").unwrap();
    rustc.arg(format!("-Clink-arg=-Wl,-rpath,{libtorch}/lib"));
    if tests {
        rustc.arg("--test");
    }
    good(&mut rustc);
    out
}

/// Whether Cargo is to build crates, as for everybody who begins one.
fn by_cargo() -> bool {
    std::env::var("ALL_PAIRS").is_ok_and(|v| v == "1")
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
    let in_it = |args: &[&str]| {
        let mut cargo = cargo();
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
    fs::create_dir(dir.path().join("bin")).unwrap();
    let program = match by_cargo() {
        true => {
            let tested = good(&mut in_it(&["test"]));
            assert!(tested.contains("it_conforms ... ok"), "{tested}");
            good(&mut in_it(&["build"]));
            let program = dir.path().join("bin").join(&name);
            fs::copy(workspace.join("target/debug").join(&name), &program).unwrap();
            program
        }
        false => {
            // What it depends on can be had.
            good(&mut in_it(&["tree"]));
            let tests = compiled(dir.path(), &name, true);
            let tested = good(Command::new(tests).current_dir(dir.path().join(&name)));
            assert!(tested.contains("it_conforms ... ok"), "{tested}");
            compiled(dir.path(), &name, false)
        }
    };
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
