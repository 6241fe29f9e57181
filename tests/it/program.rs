//! The real program in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

/// Runs `nasfw` in a folder, with its cache in there, too. A case that should be refused but trains for 600 epochs must
/// not hang the tests.
pub fn nasfw(dir: &Path, args: &[&str]) -> Output {
    Command::new("timeout")
        .args(["120", env!("CARGO_BIN_EXE_nasfw")])
        .args(args)
        .current_dir(dir)
        .env("NASFW_NO_PROGRESS", "1")
        .env("NO_COLOR", "1")
        .env("XDG_CACHE_HOME", dir.join("cache"))
        .output()
        .unwrap()
}

/// Standard output of a command that must succeed.
pub fn good(dir: &Path, args: &[&str]) -> String {
    let out = nasfw(dir, args);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{args:?}: {text}");
    String::from_utf8(out.stdout).unwrap()
}

/// A search of a moment, in the run folder `name`, with further options.
pub fn tiny(dir: &Path, name: &str, more: &[&str]) -> Output {
    let search = "run --strategy darts --space toy-conv --epochs 1 --threads 1 --set dataset.images=64 --name";
    let search: Vec<&str> = search.split_whitespace().chain([name]).collect();
    nasfw(dir, &[&search, more].concat())
}

/// What a program said, on one line and without the bar at which a message was broken.
pub fn flat(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let words = text.split_whitespace().filter(|w| *w != "|");
    words.collect::<Vec<_>>().join(" ")
}

/// A program that asks for nothing, and whose words are kept, plain as they are.
pub fn kept(command: &mut Command) -> &mut Command {
    command
        .env("NASFW_NO_PROGRESS", "1")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
}

/// A search of some seconds with many reports, in the run folder `name`, with further options.
pub fn short_search<'a>(name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let search = [
        "run",
        "--strategy",
        "darts",
        "--space",
        "toy-conv",
        "--epochs",
        "12",
    ];
    let reports = [
        "trainer.log_every=1",
        "trainer.architecture_every=2",
        "trainer.checkpoint_every=3",
    ];
    let set = reports.iter().flat_map(|setting| ["--set", *setting]);
    let own = ["--threads", "1", "--name", name];
    search
        .into_iter()
        .chain(set)
        .chain(own)
        .chain(more.iter().copied())
        .collect()
}

/// Starts a search, and ends it by force after some reports in its event file.
pub fn killed(dir: &Path, args: &[&str], events: &Path, reports: usize) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_nasfw"))
        .args(args)
        .current_dir(dir)
        .env("NASFW_NO_PROGRESS", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let found = || fs::read_to_string(events).map_or(0, |t| t.matches("\"progress\"").count());
    while found() < reports {
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A Python that has a package: that which the variable names, or what `cargo xtask test` installs in the target folder.
pub fn python(package: &str, variable: &str) -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let own = target.join(package).join("bin/python");
    let python = std::env::var_os(variable).map_or(own, PathBuf::from);
    let ask =
        format!("import importlib.util as u, sys; sys.exit(u.find_spec('{package}') is None)");
    let asked = Command::new(&python)
        .args(["-c", &ask])
        .stderr(Stdio::null())
        .status();
    asked.is_ok_and(|s| s.success()).then_some(python)
}

/// A Python that has PyTorch and safetensors: that which the variable names, or what `cargo xtask test` makes in the target
/// folder.
pub fn pytorch() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    let python = std::env::var_os("PYTORCH_PYTHON").map_or(own, PathBuf::from);
    let asked = Command::new(&python)
        .args(["-c", "import torch, safetensors.torch"])
        .stderr(Stdio::null())
        .status();
    asked.is_ok_and(|s| s.success()).then_some(python)
}

/// Says that a test could not run here, and in the file that `cargo xtask test` lists such tests from.
pub fn skipped(test: &str, why: &str) {
    let line = format!("SKIPPED: {test}: {why}");
    println!("{line}");
    if let Some(log) = std::env::var_os("NASFW_SKIP_LOG") {
        use std::io::Write;
        let mut log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        writeln!(log, "{line}").unwrap();
    }
}

/// A space whose cells have 27 architectures.
pub const TOY_SPACE: &str = r#"
[network]
skeleton = "nasbench201"
channels = 4
cells = 1
[[cell]]
name = "cell"
inputs = 1
nodes = 2
keep = 0
output = "last"
candidates = ["skip_connect", "nor_conv_1x1", "nor_conv_3x3"]
"#;

/// A folder with the space as `toy.toml`.
pub fn toy_folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("toy.toml"), TOY_SPACE).unwrap();
    dir
}

/// What a run in the folder `runs` of a folder found.
pub fn result(dir: &Path, run: &str) -> Value {
    let text = fs::read_to_string(dir.join("runs").join(run).join("result.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}
