//! Processes that end at every single operation on a run's files, and disks that are full from every single one on.
//!
//! A library that is preloaded (`kills/shim.c`) counts what a process does to the files of its run, and ends it by
//! SIGKILL at operation k, in the middle of it where it is a write. Whatever k, the run goes on and ends with the bits of
//! one that was left alone. `cargo test` tries a few k, other ones every time; `KILLS=all cargo test --test it
//! kills -- --nocapture` tries all of them, and 60 random moments for each kind of work.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use nasfw::analysis::record::Record;
use nasfw::analysis::state::State;
use nasfw::framework::rng::{Rng, Streams};
use nasfw::framework::run::{CHECKPOINTS, EVENTS, RESULT, RUN};
use rand::RngExt;

use crate::program::skipped;
use crate::resume::{events, tensors};

/// Name of all runs, so that their files can be compared as they are.
const NAME: &str = "toil";
/// Random kills of each kind of work where everything is tried.
const RANDOM: usize = 60;

/// Work that leaves a run.
struct Work {
    label: String,
    arguments: Vec<&'static str>,
}

/// Every way in which a run writes: with the history of all epochs and going back in it, with stages, with TensorBoard's
/// files, without a supernet, and training one network.
fn work(label: &str) -> Work {
    const TOY: &str = "run --space toy-conv --dataset synthetic --set dataset.images=32 --set dataset.size=8 \
                       --set trainer.batch_size=8 --strategy";
    let (before, more) = match label {
        "darts-ada" => (
            TOY,
            "darts-ada --epochs 5 --set strategy.alarm.every=1 --set strategy.alarm.window=1 --set \
             strategy.alarm.apart=2 --set strategy.alarm.factor=0.0 --set strategy.alarm.earliest=1 --set \
             strategy.most=0.03 --set strategy.raise=10.0 --set trainer.weights.weight_decay=3e-4",
        ),
        "r-darts-l2" => (
            TOY,
            "r-darts-l2 --epochs 5 --set strategy.weight_decays=[3e-4,9e-4]",
        ),
        "vim" => (
            TOY,
            "vim --epochs 2 --tensorboard --set trainer.checkpoint_every=1",
        ),
        "regularized-evolution" => (
            "",
            "run --strategy regularized-evolution --space toy-planted --epochs 2 --set strategy.cycles=6 --set \
             strategy.population=3 --set trainer.checkpoint_every=1",
        ),
        _ => (
            "",
            "retrain |nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2| --preset quick \
             --dataset synthetic --cells 1 --channels 2 --epochs 2 --set dataset.images=16 --set dataset.size=8 --set \
             trainer.batch_size=8 --set trainer.checkpoint_every=1",
        ),
    };
    Work {
        label: label.to_owned(),
        arguments: before
            .split_whitespace()
            .chain(more.split_whitespace())
            .collect(),
    }
}

fn all() -> bool {
    std::env::var("KILLS").is_ok_and(|v| v == "all")
}

/// The library, compiled once; none where there is no C compiler or nothing can be preloaded.
pub fn shim() -> Option<&'static Path> {
    static SHIM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let made = SHIM.get_or_init(|| {
        if !cfg!(target_os = "linux") {
            return None;
        }
        let at = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("faults-{}.so", std::process::id()));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/kills/shim.c");
        let cc = Command::new("cc")
            .args([
                "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o",
            ])
            .args([&at, &source])
            .output();
        match cc {
            Err(_) => None,
            Ok(done) => {
                let said = String::from_utf8_lossy(&done.stderr);
                assert!(done.status.success(), "the shim does not compile: {said}");
                Some(at)
            }
        }
    });
    if made.is_none() {
        skipped("kills", "there is no C compiler, or this is not Linux");
    }
    made.as_deref()
}

/// A process in a folder, with the library's variables.
fn command(dir: &Path, arguments: &[&str], faults: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nasfw"));
    command
        .args(arguments)
        .current_dir(dir)
        .env("NASFW_NO_PROGRESS", "1")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    if let (Some(shim), false) = (shim(), faults.is_empty()) {
        command
            .env("LD_PRELOAD", shim)
            .env("FAULTS_IN", format!("/{NAME}"));
        command.envs(faults.iter().copied());
    }
    command
}

fn run(dir: &Path, arguments: &[&str], faults: &[(&str, &str)]) -> Output {
    command(dir, arguments, faults).output().unwrap()
}

/// What a process said, in one line.
fn said(out: &Output) -> String {
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a finished run leaves, but for times and for who made it.
#[derive(PartialEq)]
struct Left {
    files: Vec<String>,
    result: Vec<u8>,
    events: Vec<nasfw::framework::events::Event>,
    /// Of every checkpoint.
    weights: Vec<(String, Vec<u8>)>,
}

impl Left {
    fn of(run: &Path) -> Self {
        let mut files = vec![];
        for folder in [run.to_owned(), run.join(CHECKPOINTS)] {
            for entry in fs::read_dir(folder).unwrap() {
                files.push(entry.unwrap().file_name().into_string().unwrap());
            }
        }
        // Of a process that was killed as its very last operation.
        files.retain(|f| f != ".lock");
        files.sort();
        let checkpoints = files.iter().filter(|f| f.ends_with(".safetensors"));
        let weights = checkpoints.flat_map(|file| {
            let tensors = tensors(&run.join(CHECKPOINTS).join(file)).into_iter();
            tensors.map(move |(name, bytes)| (format!("{file} {name}"), bytes))
        });
        Self {
            weights: weights.collect(),
            result: fs::read(run.join(RESULT)).unwrap(),
            events: events(run),
            files,
        }
    }

    fn must_be(&self, other: &Self, label: &str) {
        assert_eq!(self.files, other.files, "{label}");
        let text = |of: &Self| String::from_utf8_lossy(&of.result).into_owned();
        assert_eq!(text(self), text(other), "{label}");
        assert_eq!(self.events, other.events, "{label}");
        let differs = self
            .weights
            .iter()
            .zip(&other.weights)
            .find(|(a, b)| a != b);
        assert!(self == other, "{label}: {:?}", differs.map(|(a, _)| &a.0));
    }
}

/// A kind of work with what it leaves when nobody disturbs it.
struct Bench {
    work: Work,
    dir: tempfile::TempDir,
    /// How many operations it takes.
    operations: usize,
    left: Left,
    took: Duration,
}

impl Bench {
    fn new(work: Work) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let whole = dir.path().join("whole");
        fs::create_dir(&whole).unwrap();
        let mut bench = Self {
            work,
            dir,
            operations: 0,
            left: Left {
                files: vec![],
                result: vec![],
                events: vec![],
                weights: vec![],
            },
            took: Duration::ZERO,
        };
        let (began, count) = (Instant::now(), whole.join("count"));
        let out = run(
            &whole,
            &bench.begin(false),
            &[("FAULTS_COUNT", count.to_str().unwrap())],
        );
        assert!(out.status.success(), "{}: {}", bench.work.label, said(&out));
        bench.took = began.elapsed();
        bench.operations = fs::read_to_string(&count).unwrap().parse().unwrap();
        bench.left = Left::of(&whole.join(NAME));
        assert!(bench.operations > 60, "{}", bench.operations);
        bench
    }

    /// What begins it, or what a job types that may be started again.
    fn begin(&self, again: bool) -> Vec<&'static str> {
        let mut arguments = self.work.arguments.clone();
        let more = "--out . --device cpu --threads 1 --set trainer.log_every=1 --name";
        arguments.extend(more.split_whitespace());
        arguments.push(NAME);
        if again {
            arguments.push("--resume");
        }
        arguments
    }

    /// A folder for one try.
    fn folder(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join(name);
        fs::create_dir(&dir).unwrap();
        dir
    }

    /// What is typed after a process has ended before its time.
    fn go_on(&self, dir: &Path, resume: bool) -> Vec<&'static str> {
        match resume && dir.join(NAME).join(RUN).is_file() {
            true => vec!["resume", NAME],
            false => self.begin(true),
        }
    }

    /// Whoever looks at the run sees the same.
    fn agree(&self, dir: &Path, label: &str) {
        let at = dir.join(NAME);
        if !at.join(RUN).is_file() {
            return;
        }
        let state = Record::read(&at)
            .unwrap_or_else(|e| panic!("{label}: {e}"))
            .state;
        let over = at.join(RESULT).exists();
        let expected = match (over, at.join(EVENTS).exists()) {
            (true, _) => State::Done,
            (false, true) => State::Stopped,
            // Killed before its first event, it has not begun.
            (false, false) => State::Waiting,
        };
        assert_eq!(state, expected, "{label}");
        // It takes as long as to go on.
        if !label.len().is_multiple_of(3) {
            return;
        }
        let out = run(dir, &["watch", NAME, "--once"], &[]);
        assert!(out.status.success(), "{label}: {}", said(&out));
        let seen = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(seen.contains("finished"), over, "{label}: {seen}");
    }

    /// Ends a process at operation `k`, and goes on.
    fn kill_at(&self, k: usize) {
        let label = format!(
            "{}, killed at operation {k} of {}",
            self.work.label, self.operations
        );
        let dir = self.folder(&format!("kill-{k}"));
        let faults = [("FAULTS_HOW", "kill"), ("FAULTS_AT", &k.to_string())];
        let out = run(&dir, &self.begin(false), &faults);
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(
            out.status.signal(),
            Some(libc::SIGKILL),
            "{label}: {}",
            said(&out)
        );
        self.agree(&dir, &label);
        let out = run(&dir, &self.go_on(&dir, k.is_multiple_of(2)), &[]);
        assert!(out.status.success(), "{label}: {}", said(&out));
        Left::of(&dir.join(NAME)).must_be(&self.left, &label);
        fs::remove_dir_all(dir).unwrap();
    }

    /// Lets everything that needs space fail from operation `k` on, and goes on when there is some.
    fn full_from(&self, k: usize) {
        let label = format!(
            "{}, full from operation {k} of {}",
            self.work.label, self.operations
        );
        let dir = self.folder(&format!("full-{k}"));
        let faults = [("FAULTS_HOW", "full"), ("FAULTS_AT", &k.to_string())];
        let out = run(&dir, &self.begin(false), &faults);
        said_full(&out, &dir, &label);
        self.agree(&dir, &label);
        let out = run(&dir, &self.go_on(&dir, k.is_multiple_of(2)), &[]);
        assert!(out.status.success(), "{label}: {}", said(&out));
        // What only helps may be lacking: what to type next, of a run that was over.
        let mut left = Left::of(&dir.join(NAME));
        if !left.files.contains(&"next.txt".to_owned()) {
            left.files.push("next.txt".into());
            left.files.sort();
        }
        left.must_be(&self.left, &label);
        fs::remove_dir_all(dir).unwrap();
    }

    /// Kills processes at random moments, one after the other, until the run is over; and again.
    fn kill_at_random(&self, kills: usize, rng: &mut Rng) -> usize {
        let mut deaths = 0;
        for chain in 0.. {
            if deaths >= kills {
                break;
            }
            let dir = self.folder(&format!("random-{chain}"));
            let label = format!("{}, chain {chain}", self.work.label);
            let mut arguments = self.begin(false);
            let most = self.took.as_millis() as u64 * 6 / 5;
            loop {
                let mut child = command(&dir, &arguments, &[])
                    .stdout(Stdio::null())
                    .stderr(fs::File::create(dir.join("stderr.txt")).unwrap())
                    .spawn()
                    .unwrap();
                std::thread::sleep(Duration::from_millis(rng.random_range(0..=most)));
                let ended = child.try_wait().unwrap();
                if ended.is_none() {
                    child.kill().unwrap();
                    deaths += 1;
                }
                let status = child.wait().unwrap();
                let text = fs::read_to_string(dir.join("stderr.txt")).unwrap();
                match ended {
                    Some(_) => assert!(status.success(), "{label}: {text}"),
                    None => self.agree(&dir, &label),
                }
                if dir.join(NAME).join(RESULT).exists() && ended.is_some() {
                    break;
                }
                arguments = self.go_on(&dir, rng.random());
            }
            Left::of(&dir.join(NAME)).must_be(&self.left, &label);
            fs::remove_dir_all(dir).unwrap();
        }
        deaths
    }
}

/// A full disk is said, with its exit code and what to type; a run that was over by then has ended well.
pub fn said_full(out: &Output, dir: &Path, label: &str) {
    let text = said(out);
    if out.status.success() {
        assert!(dir.join(NAME).join(RESULT).exists(), "{label}: {text}");
        return;
    }
    assert_eq!(out.status.code(), Some(5), "{label}: {text}");
    assert!(
        text.contains("the disk is full: free some space"),
        "{label}: {text}"
    );
    // Advice that can be followed: the run is there and has a checkpoint, or it is not spoken of.
    let begun = dir.join(NAME).join(CHECKPOINTS).is_dir();
    assert!(begun || !text.contains("resume"), "{label}: {text}");
}

/// Another one every time.
fn seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |d| d.as_nanos() as u64)
}

/// Tries one kind of work: all operations, or a few. `full`: how many operations are tried from which the disk is full,
/// where not all are.
fn survives(label: &str, full: usize) {
    if shim().is_none() {
        return;
    }
    let bench = Bench::new(work(label));
    let n = bench.operations;
    let mut rng = Streams::new(seed()).at(label, 0);
    let mut some = |count: usize| -> Vec<usize> {
        match all() {
            true => (1..=n).collect(),
            false => (0..count).map(|_| rng.random_range(1..=n)).collect(),
        }
    };
    let (mut kills, fulls) = (some(2), some(full));
    kills.dedup();
    let began = Instant::now();
    for k in &kills {
        bench.kill_at(*k);
    }
    println!(
        "{label}: {n} operations, killed at {}: 0 differences, 0 that can't go on",
        kills.len()
    );
    let random = match all() {
        true => bench.kill_at_random(RANDOM, &mut rng),
        false => 0,
    };
    println!("{label}: killed at {random} random moments: 0 differences, 0 that can't go on");
    for k in &fulls {
        bench.full_from(*k);
    }
    println!(
        "{label}: disk full from {} operations on: nothing lost; {:.0} s",
        fulls.len(),
        began.elapsed().as_secs_f64()
    );
}

/// The history of every epoch, and going back in it.
#[test]
fn rollbacks_survive_a_kill_at_any_operation() {
    survives("darts-ada", 0);
}

#[test]
fn stages_survive_a_kill_at_any_operation() {
    survives("r-darts-l2", 0);
}

#[test]
fn plain_searches_survive_a_kill_at_any_operation() {
    survives("vim", 1);
}

#[test]
fn evolution_survives_a_kill_at_any_operation() {
    survives("regularized-evolution", 0);
}

#[test]
fn retraining_survives_a_kill_at_any_operation() {
    survives("retraining", 0);
}

/// A file system of so many KiB in memory, as long as this lives.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, kib: u64) -> Option<Self> {
        let size = format!("size={kib}k");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(at)
            .output();
        done.is_ok_and(|d| d.status.success())
            .then(|| Self(at.to_owned()))
    }

    fn grow(&self) {
        let done = Command::new("mount")
            .args(["-o", "remount,size=64m"])
            .arg(&self.0)
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", said(&done));
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Bytes that a folder takes in pages.
fn pages(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap());
    entries
        .map(|e| match e.metadata().unwrap() {
            m if m.is_dir() => pages(&e.path()),
            m => m.len().div_ceil(4096),
        })
        .sum()
}

#[test]
fn a_full_disk_loses_nothing() {
    if shim().is_none() {
        return;
    }
    for label in ["darts-ada", "retraining"] {
        if label == "retraining" && !all() {
            continue;
        }
        let bench = Bench::new(work(label));
        let whole = pages(&bench.dir.path().join("whole").join(NAME)) * 4;
        // From nothing to more than is needed.
        let tries = if all() { 24 } else { 2 };
        let (mut refused, mut done) = (0, 0);
        for i in 0..tries {
            let kib = match all() {
                true => 4 + whole * 5 / 4 * i / (tries - 1),
                false => Streams::new(seed()).at(label, i).random_range(4..whole),
            };
            let at = bench.folder(&format!("small-{kib}-{i}"));
            let Some(small) = Small::mount(&at, kib) else {
                skipped(
                    "a_full_disk_loses_nothing",
                    "file systems can't be mounted here",
                );
                return;
            };
            let name = format!("{label} on a disk of {kib} KiB");
            let out = run(&at, &bench.begin(false), &[]);
            said_full(&out, &at, &name);
            match out.status.success() {
                true => done += 1,
                false => refused += 1,
            }
            bench.agree(&at, &name);
            // A second try meets the same disk, and makes nothing worse.
            let out = run(&at, &bench.go_on(&at, true), &[]);
            said_full(&out, &at, &name);
            small.grow();
            let out = run(&at, &bench.go_on(&at, i % 2 == 0), &[]);
            assert!(out.status.success(), "{name}: {}", said(&out));
            let mut left = Left::of(&at.join(NAME));
            if !left.files.contains(&"next.txt".to_owned()) {
                left.files.push("next.txt".into());
                left.files.sort();
            }
            left.must_be(&bench.left, &name);
        }
        println!(
            "{label}: {tries} disks of up to {whole} KiB, {refused} full, {done} large enough: nothing lost"
        );
        assert!(refused > 0);
    }
}
