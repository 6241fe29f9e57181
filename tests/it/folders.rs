//! Who may write to a run folder, and what becomes of those that are moved, taken over, read-only, or begun twice.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use nasfw::framework::run::{EVENTS, Process, RESULT, RunFolder};
use serde_json::Value;

use crate::kills::shim;
use crate::program::{nasfw, skipped};

const SHORT: &str = "run --strategy random --space toy-conv --out . --threads 1 --set strategy.samples=3 --epochs 2 \
                     --set trainer.checkpoint_every=1";

fn command(dir: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nasfw"));
    command
        .args(line.split_whitespace())
        .current_dir(dir)
        .env("NASFW_NO_PROGRESS", "1")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    command
}

fn typed(dir: &Path, line: &str) -> Output {
    let words: Vec<&str> = line.split_whitespace().collect();
    nasfw(dir, &words)
}

fn text(out: &Output) -> String {
    let all = [&out.stdout[..], &out.stderr].concat();
    let all = String::from_utf8_lossy(&all).into_owned();
    all.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn must_end(out: &Output, code: i32, words: &[&str]) {
    let text = text(out);
    assert_eq!(out.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

/// A process that works on the run `dir/long` until it is told to end, with that much of it done.
struct Working(Child);

impl Working {
    fn begin(dir: &Path, with: impl FnOnce(&mut Command)) -> Self {
        let line = "run --strategy random --space toy-conv --out . --name long --threads 1 --epochs 100000 --set \
                    strategy.samples=3 --set trainer.checkpoint_every=1";
        let mut command = command(dir, line);
        command.stdout(Stdio::null());
        command.stderr(File::create(dir.join("stderr.txt")).unwrap());
        with(&mut command);
        let mut working = Self(command.spawn().unwrap());
        let began = Instant::now();
        let lines = || fs::read(dir.join("long").join(EVENTS)).map_or(0, |b| b.len());
        while lines() < 2000 {
            let text = || fs::read_to_string(dir.join("stderr.txt")).unwrap();
            assert!(working.0.try_wait().unwrap().is_none(), "{}", text());
            assert!(began.elapsed() < Duration::from_secs(120), "{}", text());
            std::thread::sleep(Duration::from_millis(5));
        }
        working
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A run that was interrupted: there is something left to do.
fn stopped(dir: &Path) -> PathBuf {
    drop(Working::begin(dir, |_| {}));
    let run = dir.join("long");
    let config = fs::read_to_string(run.join("run.json")).unwrap();
    assert!(config.contains("100000"));
    run
}

fn sleep_until_gone(run: &Path) {
    let began = Instant::now();
    while RunFolder::holder(run).is_some() {
        assert!(began.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn two_processes_do_not_write_to_one_run_and_the_second_says_who_does() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // With the system's locks, and where they can't be had.
    for nolock in [false, true] {
        let fails = |c: &mut Command| {
            if let (true, Some(shim)) = (nolock, shim()) {
                c.env("LD_PRELOAD", shim).env("FAULTS_HOW", "nolock");
            }
        };
        let working = Working::begin(dir, fails);
        let lock: Value =
            serde_json::from_slice(&fs::read(dir.join("long/.lock")).unwrap()).unwrap();
        assert_eq!(lock["process"], working.0.id());
        let host = lock["host"].as_str().unwrap().to_owned();
        let who = format!("process {} on host {host}", working.0.id());
        for line in [
            "resume long",
            "run --strategy random --space toy-conv --out . --name long --threads 1 --epochs 100000 \
                     --set strategy.samples=3 --set trainer.checkpoint_every=1 --resume",
        ] {
            let mut second = command(dir, line);
            fails(&mut second);
            must_end(
                &second.output().unwrap(),
                4,
                &["another process is working on this run", &who],
            );
        }
        // Who only looks sees it at work; so does a look without the system's locks.
        let mut look = command(dir, "watch long --once");
        fails(&mut look);
        must_end(&look.output().unwrap(), 0, &["running"]);
        drop(working);
        sleep_until_gone(&dir.join("long"));
        let mut look = command(dir, "watch long --once");
        fails(&mut look);
        must_end(&look.output().unwrap(), 0, &["stopped"]);
        fs::remove_dir_all(dir.join("long")).unwrap();
    }
}

/// A lock of somebody whose death can't be seen from here holds for a while after the last sign of life; one that says
/// that its owner lives is believed, whatever the system's lock says: that can be local to a mount.
#[test]
fn a_lock_that_cannot_be_trusted_does_not_read_as_free() {
    let dir = tempfile::tempdir().unwrap();
    let run = stopped(dir.path());
    let lock = run.join(".lock");
    let me = serde_json::to_value(Process::this()).unwrap();
    let mut elsewhere = me.clone();
    elsewhere["host"] = "elsewhere".into();
    elsewhere["process"] = 7.into();
    fs::write(&lock, elsewhere.to_string()).unwrap();
    let who = "process 7 on host elsewhere";
    must_end(
        &typed(dir.path(), "resume long"),
        4,
        &[who, "last sign of life", "its lock counts no more in"],
    );
    assert!(RunFolder::holder(&run).unwrap().to_string().contains(who));
    let age = |seconds| {
        let then = SystemTime::now() - Duration::from_secs(seconds);
        File::options()
            .write(true)
            .open(&lock)
            .unwrap()
            .set_modified(then)
            .unwrap();
    };
    age(60);
    assert!(RunFolder::open(&run).is_err());
    age(120);
    assert!(RunFolder::holder(&run).is_none());
    drop(RunFolder::open(&run).unwrap());
    assert!(!lock.exists());

    // A process of this host that lives: this one, which holds no lock of the system's.
    fs::write(&lock, me.to_string()).unwrap();
    age(100_000);
    must_end(
        &typed(dir.path(), "resume long"),
        4,
        &[&format!("process {}", std::process::id())],
    );
    // An earlier version's says nothing and counts by the system's lock alone.
    let old = File::create(&lock).unwrap();
    old.try_lock().unwrap();
    assert!(RunFolder::open(&run).is_err());
    drop(old);
    drop(RunFolder::open(&run).unwrap());
}

/// A process that lost its lock to another one notices before it writes again.
#[test]
fn a_run_that_was_taken_over_is_left_to_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunFolder::at(&dir.path().join("run")).unwrap();
    run.write("a", b"mine").unwrap();
    let mut other = serde_json::to_value(Process::this()).unwrap();
    other["host"] = "elsewhere".into();
    fs::write(run.path().join(".lock"), other.to_string()).unwrap();
    let error = run.write("a", b"not mine").unwrap_err();
    assert_eq!(error.exit_code(), 4);
    assert!(
        error.to_string().contains("taken over by process"),
        "{error}"
    );
    let path = run.path().to_owned();
    assert!(run.discard().is_err());
    assert_eq!(fs::read(path.join("a")).unwrap(), b"mine");
    assert!(path.join(".lock").exists(), "it is the other's");
}

#[test]
fn a_run_that_is_moved_away_stops_and_builds_no_torso() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut working = Working::begin(dir, |_| {});
    fs::rename(dir.join("long"), dir.join("moved")).unwrap();
    let status = working.0.wait().unwrap();
    let said = fs::read_to_string(dir.join("stderr.txt")).unwrap();
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(status.code(), Some(4), "{said}");
    assert!(said.contains("moved away or removed"), "{said}");
    assert!(!dir.join("long").exists());
    // It can be gone on with where it is: nobody holds it.
    assert!(RunFolder::holder(&dir.join("moved")).is_none());
    drop(RunFolder::open(&dir.join("moved")).unwrap());
}

/// What a job types that may be started again: begin, go on, or say what was found; and never somebody else's folder.
#[test]
fn a_job_that_is_started_again_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let line = format!("{SHORT} --name job --resume");
    must_end(&typed(dir, &line), 0, &["result: "]);
    let result = fs::read(dir.join("job").join(RESULT)).unwrap();
    must_end(&typed(dir, &line), 0, &["this run is finished"]);
    // Killed before the result, and before anything at all.
    fs::remove_file(dir.join("job").join(RESULT)).unwrap();
    must_end(&typed(dir, &line), 0, &["result: "]);
    assert_eq!(fs::read(dir.join("job").join(RESULT)).unwrap(), result);
    fs::remove_dir_all(dir.join("job")).unwrap();
    fs::create_dir(dir.join("job")).unwrap();
    must_end(&typed(dir, &line), 0, &["result: "]);
    assert_eq!(fs::read(dir.join("job").join(RESULT)).unwrap(), result);

    must_end(
        &typed(dir, &format!("{line} --seed 9")),
        4,
        &["begun with other settings"],
    );
    must_end(&typed(dir, &format!("{SHORT} --resume")), 2, &["--name"]);
    // Nothing is ever overwritten without it.
    must_end(&typed(dir, &format!("{SHORT} --name job")), 0, &["job-2"]);
    fs::create_dir(dir.join("mine")).unwrap();
    fs::write(dir.join("mine/thesis.tex"), "x").unwrap();
    must_end(
        &typed(dir, &format!("{SHORT} --name mine --resume")),
        4,
        &["no run folder"],
    );
    assert_eq!(fs::read_dir(dir.join("mine")).unwrap().count(), 1);
}

/// A folder that can't be written to.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn mount(at: &Path) -> Option<Self> {
        let mount = |options: &str| {
            let mut mount = Command::new("mount");
            mount.args(["-o", options]);
            if options == "bind" {
                mount.arg(at);
            }
            mount.arg(at).output().is_ok_and(|o| o.status.success())
        };
        if !mount("bind") {
            return None;
        }
        let mounted = Self(at.to_owned());
        mount("remount,bind,ro").then_some(mounted)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Those who read take no lock and write nothing: finished runs in an archive can be used.
#[test]
fn finished_runs_can_be_read_where_nothing_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let archive = dir.join("archive");
    let network = "retrain |nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2| --preset quick --dataset \
                   synthetic --cells 1 --channels 2 --epochs 1 --out archive --name network --set dataset.images=16 \
                   --set dataset.size=8 --set trainer.batch_size=8";
    must_end(&typed(dir, network), 0, &[]);
    let search = "run --strategy darts --space toy-planted --epochs 1 --out archive --name search";
    must_end(&typed(dir, search), 0, &[]);
    let Some(mounted) = ReadOnly::mount(&archive) else {
        return skipped(
            "finished_runs_can_be_read_where_nothing_can_be_written",
            "nothing can be mounted here",
        );
    };
    assert!(fs::write(archive.join("x"), "x").is_err());
    for line in [
        "eval archive/network",
        "export archive/network --onnx n.onnx",
        "resume archive/network",
        "resume archive/search",
        "rank archive/search --architectures 4",
        "report archive/search archive/network -o report.html",
        "watch archive/search --once",
        "draw archive/search -o cell.svg",
        "genotype archive/search",
    ] {
        let out = typed(dir, line);
        assert!(out.status.success(), "{line}: {}", text(&out));
    }
    // Nor is anything written where it could be.
    drop(mounted);
    let names = |run: &str| -> Vec<_> {
        let mut all: Vec<_> = fs::read_dir(archive.join(run))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        all.sort();
        all
    };
    let before = names("network");
    must_end(&typed(dir, "eval archive/network"), 0, &[]);
    assert_eq!(names("network"), before);
}

/// A network that blew up after its last loss: its test loss is not a number, which is kept and shown.
#[test]
fn figures_that_are_not_finite_can_be_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let line = "retrain |nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2| --preset quick --dataset \
                synthetic --cells 1 --channels 2 --epochs 1 --out . --name run --set dataset.images=8 --set \
                dataset.size=8 --set trainer.batch_size=8 --set trainer.weights.lr=1e38 --set trainer.weights.clip=0";
    must_end(&typed(dir, line), 0, &["NaN"]);
    let result = fs::read_to_string(dir.join("run").join(RESULT)).unwrap();
    assert!(result.contains("\"NaN\""), "{result}");
    for line in [
        "eval run",
        "eval run --json",
        "resume run",
        "report run -o report.html",
        "watch run --once",
        "figure run -o figure.svg",
    ] {
        let out = typed(dir, line);
        assert!(out.status.success(), "{line}: {}", text(&out));
    }
    // Killed just before its result: the checkpoint keeps them, too.
    fs::remove_file(dir.join("run").join(RESULT)).unwrap();
    must_end(&typed(dir, "resume run"), 0, &["NaN"]);
    assert_eq!(
        fs::read_to_string(dir.join("run").join(RESULT)).unwrap(),
        result
    );
}

/// A run keeps its number of threads and says who worked on it.
#[test]
fn every_process_is_noted_and_takes_as_many_threads() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let line = SHORT.replace("--threads 1", "--name run");
    let mut first = command(dir, &line);
    first.env("OMP_NUM_THREADS", "1");
    must_end(&first.output().unwrap(), 0, &[]);
    fs::remove_file(dir.join("run").join(RESULT)).unwrap();
    let mut second = command(dir, "resume run");
    second.env("OMP_NUM_THREADS", "2");
    must_end(&second.output().unwrap(), 0, &[]);
    let manifest: Value =
        serde_json::from_slice(&fs::read(dir.join("run/manifest.json")).unwrap()).unwrap();
    let workers = manifest["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 2, "{manifest}");
    for worker in workers {
        assert_eq!(worker["threads"], 1, "{manifest}");
        assert!(!worker["host"].as_str().unwrap().is_empty());
    }
    assert_ne!(workers[0]["process"], workers[1]["process"]);
}
