//! Bad input of every kind: a clear message with what to type, the documented exit code, and no damage.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A folder to work in, and what a command said in it.
struct Place {
    dir: tempfile::TempDir,
}

struct Said {
    code: i32,
    stderr: String,
    stdout: String,
}

/// Settings that make a run take a moment.
const TINY: &str =
    "strategy.name=darts space.name=toy-conv trainer.epochs=2 dataset.images=64 threads=1";

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(env!("CARGO_BIN_EXE_nasfw"));
        c.args(args)
            .current_dir(self.dir.path())
            .env("NASFW_NO_PROGRESS", "1")
            .env("NASFW_LOG", "warn");
        c
    }

    /// What a command says, with the folder's name and other changing parts taken out.
    fn say(&self, args: &[&str]) -> Said {
        let out = self.command(args).output().unwrap();
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            text.replace(self.dir.path().to_str().unwrap(), "DIR")
        };
        Said {
            code: out.status.code().unwrap(),
            stderr: text(&out.stderr),
            stdout: text(&out.stdout),
        }
    }

    fn tiny(&self, name: &str, extra: &[&str]) -> Said {
        let mut args = vec!["run", "--name", name];
        for set in TINY.split(' ') {
            args.extend(["--set", set]);
        }
        args.extend(extra);
        self.say(&args)
    }

    /// A run that was interrupted in the middle: all but the last step are done.
    fn interrupted(&self) -> PathBuf {
        let done = self.tiny("whole", &[]);
        assert_eq!(done.code, 0, "{}", done.stderr);
        let mut args = vec!["run", "--name", "r", "--set", "trainer.checkpoint_every=1"];
        for set in TINY.split(' ') {
            args.extend(["--set", set]);
        }
        args.extend(["--set", "trainer.epochs=300"]);
        let mut child = self
            .command(&args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let run = self.path("runs/r");
        // Two whole checkpoints: the newest, and the one to fall back to.
        let enough = || run.join("checkpoints").is_dir() && checkpoints(&run).len() >= 2;
        while !enough() {
            std::thread::sleep(Duration::from_millis(5));
            assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // It may have died after a third was written and before the oldest was removed.
        for oldest in checkpoints(&run).iter().rev().skip(2) {
            fs::remove_file(oldest).unwrap();
        }
        run
    }
}

/// The whole checkpoints; files may come and go while a process is at work.
fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(run.join("checkpoints")).unwrap();
    let mut all: Vec<_> = entries.flatten().map(|e| e.path()).collect();
    all.retain(|p| p.extension().is_some_and(|e| e == "safetensors"));
    all.sort();
    all
}

/// Everything in a folder, for "nothing was damaged".
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = vec![];
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if !path.ends_with("log.jsonl") && !path.ends_with(".lock") {
                all.push((path.clone(), fs::read(path).unwrap()));
            }
        }
    }
    all.sort();
    all
}

macro_rules! snapshot {
    ($said:expr, $code:expr, $name:literal) => {{
        let said: Said = $said;
        assert_eq!(said.code, $code, "{}", said.stderr);
        insta::assert_snapshot!($name, said.stderr);
    }};
}

#[test]
fn unknown_names_are_suggested() {
    let place = Place::new();
    snapshot!(place.say(&["run", "--strategy", "vmi"]), 2, "strategy");
    snapshot!(
        place.say(&["run", "--space", "nasbench1shot1-s4"]),
        2,
        "space"
    );
    snapshot!(place.say(&["run", "--dataset", "cifar-10"]), 2, "dataset");
    snapshot!(place.say(&["run", "--preset", "xl"]), 2, "preset");
    snapshot!(place.say(&["describe", "dart"]), 2, "describe");
    snapshot!(
        place.say(&[
            "run",
            "--set",
            "strategy.nois=0.5",
            "--set",
            "trainer.epoch=3"
        ]),
        2,
        "keys"
    );
    assert!(!place.path("runs").exists(), "nothing was written");
}

#[test]
fn wrong_values_are_located() {
    let place = Place::new();
    snapshot!(
        place.say(&[
            "run",
            "--epochs",
            "0",
            "--set",
            "strategy.arch.momentum=1.5"
        ]),
        2,
        "range"
    );
    snapshot!(
        place.say(&["run", "--set", "strategy.level=joined"]),
        2,
        "choice"
    );
    snapshot!(place.say(&["run", "--set", "epochs"]), 2, "no-equals-sign");
    snapshot!(
        place.say(&["run", "--strategy", "darts", "--set", "strategy.order=3"]),
        2,
        "second-order"
    );
    let file = "[strategy]\nname = \"darts\"\n\n[strategy.arch]\nlr = \"fast\"\n";
    fs::write(place.path("my.toml"), file).unwrap();
    snapshot!(
        place.say(&["run", "--config", "my.toml"]),
        2,
        "wrong-type-in-file"
    );
    fs::write(
        place.path("range.toml"),
        "[trainer]\nbatch_size = 1\nepochz = 2\n",
    )
    .unwrap();
    snapshot!(
        place.say(&["run", "--config", "range.toml"]),
        2,
        "several-in-file"
    );
    fs::write(place.path("broken.toml"), "[trainer\nepochs = 2\n").unwrap();
    snapshot!(
        place.say(&["run", "--config", "broken.toml"]),
        2,
        "broken-toml"
    );
    snapshot!(
        place.say(&["run", "--config", "nowhere.toml"]),
        2,
        "no-such-file"
    );
    assert!(!place.path("runs").exists(), "nothing was written");
}

#[test]
fn devices_that_are_not_there() {
    let place = Place::new();
    let said = place.tiny("r", &["--device", "cuda:99"]);
    assert_eq!(said.code, 6, "{}", said.stderr);
    assert!(
        said.stderr.contains("device `cuda:99` can't be used"),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr.contains("--device cpu") && said.stderr.contains("nasfw doctor"),
        "{}",
        said.stderr
    );
    snapshot!(place.tiny("r", &["--device", "quantum"]), 6, "device");
    assert!(!place.path("runs/r").exists(), "no half run is left");
}

#[test]
fn data_that_is_missing_or_damaged() {
    let place = Place::new();
    let cifar = |dir: &str| {
        let base = ["run", "--space", "toy-conv", "--dataset", "cifar10"];
        place.say(&[&base[..], &["--data-dir", dir]].concat())
    };
    let folder = place.path("cifar");
    snapshot!(cifar("nowhere"), 3, "no-data");
    fs::create_dir(&folder).unwrap();
    for name in [
        "data_batch_1",
        "data_batch_2",
        "data_batch_3",
        "data_batch_4",
        "data_batch_5",
        "test_batch",
    ] {
        fs::write(folder.join(format!("{name}.bin")), vec![0; 3073 * 10]).unwrap();
    }
    snapshot!(cifar("cifar"), 3, "truncated-data");
    let mut bytes = vec![0; 3073 * 10_000];
    bytes[3073 * 7] = 12;
    fs::write(folder.join("data_batch_1.bin"), &bytes).unwrap();
    snapshot!(cifar("cifar"), 3, "bad-label");
    // `dataset.images` of TINY belongs to the synthetic data.
    let said = place.tiny("r", &["--dataset", "cifar10", "--data-dir", "cifar"]);
    assert_eq!(
        said.code, 2,
        "an option of another dataset is refused: {}",
        said.stderr
    );
    let runs = place.path("runs");
    assert!(
        !runs.exists() || fs::read_dir(runs).unwrap().next().is_none(),
        "no half run is left"
    );
}

#[test]
fn folders_that_are_no_runs() {
    let place = Place::new();
    fs::create_dir(place.path("empty")).unwrap();
    snapshot!(place.say(&["resume", "empty"]), 4, "no-run");
    snapshot!(place.say(&["resume", "nowhere"]), 4, "nowhere");
    fs::write(place.path("empty/run.json"), "{ \"common\": 3").unwrap();
    snapshot!(place.say(&["resume", "empty"]), 4, "broken-run-json");
    snapshot!(place.say(&["draw", "nowhere"]), 2, "draw-nowhere");
    fs::write(place.path("g.json"), "{\"space\":\"x\",\"cells\":[{\"name\":\"c\",\"inputs\":[\"i\"],\"nodes\":[{\"inputs\":[{\"from\":5}]}],\"output\":[1]}]}").unwrap();
    snapshot!(place.say(&["draw", "g.json"]), 3, "draw-nonsense");
}

#[test]
fn damaged_checkpoints() {
    let place = Place::new();
    let run = place.interrupted();
    let files = checkpoints(&run);
    assert!(files.len() >= 2);
    let good: Vec<Vec<u8>> = files.iter().map(|f| fs::read(f).unwrap()).collect();

    // All damaged: an error, and nothing is touched.
    for file in &files {
        fs::write(file, &good[0][..200]).unwrap();
    }
    let before = contents(&run);
    let said = place.say(&["resume", "runs/r"]);
    assert_eq!(said.code, 4, "{}", said.stderr);
    assert!(
        said.stderr.contains("not a whole checkpoint") && said.stderr.contains("help:"),
        "{}",
        said.stderr
    );
    assert_eq!(contents(&run), before);

    // The settings changed since: refused, nothing touched.
    for (file, bytes) in files.iter().zip(&good) {
        fs::write(file, bytes).unwrap();
    }
    let json = fs::read_to_string(run.join("run.json")).unwrap();
    fs::write(
        run.join("run.json"),
        json.replace("\"seed\": 0", "\"seed\": 1"),
    )
    .unwrap();
    let before = contents(&run);
    let said = place.say(&["resume", "runs/r"]);
    assert_eq!(said.code, 4, "{}", said.stderr);
    assert!(
        said.stderr.contains("belongs to another configuration"),
        "{}",
        said.stderr
    );
    assert_eq!(contents(&run), before);
}

/// The newest checkpoint is damaged: the one before takes over, with a warning, and the end is the same.
#[test]
fn a_damaged_newest_checkpoint_gives_way() {
    let place = Place::new();
    let run = place.interrupted();
    let newest = checkpoints(&run).pop().unwrap();
    let bytes = fs::read(&newest).unwrap();
    fs::write(&newest, &bytes[..bytes.len() / 2]).unwrap();
    let said = place.say(&["resume", "runs/r"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(
        said.stderr.contains("trying the checkpoint before it"),
        "{}",
        said.stderr
    );
    let whole = place.tiny("undisturbed", &["--set", "trainer.epochs=300"]);
    assert_eq!(whole.code, 0, "{}", whole.stderr);
    let result = |run: &str| fs::read_to_string(place.path(run).join("result.json")).unwrap();
    assert_eq!(result("runs/r"), result("runs/undisturbed"));
}

#[test]
fn one_process_a_run() {
    let place = Place::new();
    let run = place.interrupted();
    let events = || fs::metadata(run.join("events.jsonl")).map_or(0, |m| m.len());
    let mut first = place
        .command(&["resume", "runs/r"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It has cut off what lies behind its checkpoint and written on: it holds the run.
    let before = events();
    while events() <= before {
        std::thread::sleep(Duration::from_millis(2));
        assert!(first.try_wait().unwrap().is_none(), "it ended too early");
    }
    let mut said = place.say(&["resume", "runs/r"]);
    // Which process it is, where and since when, in as many lines as that takes.
    let who = format!("process {} on host ", first.id());
    let line = said.stderr.replace("\n  | ", " ");
    let (before, after) = line.split_once(&who).expect(&line);
    let (_, after) = after.split_once(", since ").expect(&line);
    let (_, after) = after.split_once('\n').expect(&line);
    said.stderr = format!("{before}PROCESS\n{after}");
    snapshot!(said, 4, "locked");
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn output_that_can_not_be_written() {
    let place = Place::new();
    fs::write(place.path("file"), "").unwrap();
    snapshot!(place.tiny("r", &["--out", "file/runs"]), 5, "unwritable");
    let said = place.tiny("r", &["--out", "/proc/runs"]);
    assert_eq!(said.code, 5, "{}", said.stderr);
}

/// A disk that fills up in the middle of a search: a clear error, and what was saved before can be resumed. The limit
/// on the size of a file stands in for the disk; the checkpoint of the second epoch does not fit any more.
#[test]
fn a_full_disk_loses_nothing() {
    let place = Place::new();
    let mut args = vec!["run", "--name", "full", "--set", "trainer.log_every=1"];
    for set in TINY.split(' ') {
        args.extend(["--set", set]);
    }
    args.extend(["--set", "trainer.epochs=40"]);
    let mut command = place.command(&args);
    let limit = libc::rlimit {
        rlim_cur: 30_000,
        rlim_max: 30_000,
    };
    // SAFETY: setrlimit and signal are async-signal-safe, and nothing else happens between fork and exec.
    unsafe {
        command.pre_exec(move || {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            match libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    let out = command.output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(5), "{text}");
    assert!(text.contains("cannot write"), "{text}");
    let run = place.path("runs/full");
    assert!(
        !contents(&run)
            .iter()
            .any(|(p, _)| p.extension().is_some_and(|e| e == "tmp")),
        "no leftovers"
    );
    assert!(
        !checkpoints(&run).is_empty(),
        "what was saved before is still there"
    );
    let said = place.say(&["resume", "runs/full"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("40 epochs"), "{}", said.stdout);
}

/// The same on a file system that is really full, where this user may make one.
#[test]
fn a_full_file_system_loses_nothing() {
    let place = Place::new();
    let disk = place.path("disk");
    fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=120k", "none"])
        .arg(&disk)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success());
    if !mounted {
        return crate::program::skipped(
            "a_full_file_system_loses_nothing",
            "this user can't mount a small file system",
        );
    }
    let full = place.tiny(
        "r",
        &[
            "--out",
            "disk",
            "--set",
            "trainer.epochs=400",
            "--set",
            "trainer.log_every=1",
        ],
    );
    let kept = checkpoints(&disk.join("r")).len();
    let bigger = Command::new("mount")
        .args(["-o", "remount,size=4m"])
        .arg(&disk)
        .status()
        .unwrap();
    let resumed = place.say(&["resume", "disk/r"]);
    let unmounted = Command::new("umount").arg(&disk).status().unwrap();
    assert!(bigger.success() && unmounted.success());
    assert_eq!(full.code, 5, "{}", full.stderr);
    assert!(
        full.stderr.contains("is full: free some space"),
        "{}",
        full.stderr
    );
    assert!(full.stderr.contains("nasfw resume"), "{}", full.stderr);
    assert!(kept > 0, "what was saved before is still there");
    assert_eq!(resumed.code, 0, "{}", resumed.stderr);
    assert!(resumed.stdout.contains("400 epochs"), "{}", resumed.stdout);
}
