//! Inputs in batches, each batch in a process of its own, so that whatever an input does ends no more than that.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::readers::{self, Reader};
use super::{input_of, memory};

/// The most memory that an input may need.
pub const MEMORY: usize = 1 << 30;
/// The most time of a processor that an input may need, in seconds.
pub const SECONDS: i64 = 10;
/// The most time, waiting included, that an input may need.
const WALL: Duration = Duration::from_secs(120);
/// After so many findings a reader is left alone.
const ENOUGH: usize = 20;
/// A child reads here what to do: reader, seed, first input and the one after the last.
pub const JOB: &str = "FUZZ_JOB";
/// A child says here how far it is: five numbers of 64 bits.
pub const STATUS: &str = "FUZZ_STATUS";

/// So many inputs of a reader.
#[derive(Debug, Clone)]
pub struct Job {
    pub reader: &'static Reader,
    pub from: u64,
    pub to: u64,
}

/// What inputs came to.
#[derive(Debug, Default)]
pub struct Tally {
    pub inputs: u64,
    /// The most bytes that one of them needed.
    pub peak: u64,
    /// The longest that one of them took, in microseconds.
    pub slowest: u64,
    /// Its number.
    pub slowest_number: u64,
    /// Those that were found good.
    pub good: u64,
    pub seconds: f64,
    pub findings: Vec<Finding>,
}

/// An input that did what none may do.
#[derive(Debug)]
pub struct Finding {
    pub number: u64,
    /// How the process ended, and what it said last.
    pub how: String,
    /// Where the input is kept.
    pub file: PathBuf,
}

/// Carries jobs of one reader out in children, one after the other.
pub fn run(job: &Job, seed: u64) -> Tally {
    let folder = tempfile::tempdir().unwrap();
    let mut tally = Tally::default();
    let began = Instant::now();
    let mut from = job.from;
    while from < job.to && tally.findings.len() < ENOUGH {
        let rest = Job {
            from,
            ..job.clone()
        };
        let (ended, [at, peak, slowest, good, number], said) = child(&rest, seed, folder.path());
        tally.peak = tally.peak.max(peak);
        if slowest > tally.slowest {
            (tally.slowest, tally.slowest_number) = (slowest, number);
        }
        tally.good += good;
        if ended.is_some_and(|status| status.success()) {
            from = job.to;
            break;
        }
        let file = keep(job.reader, seed, at);
        let how = ended.map_or("it waited for something".to_owned(), explain);
        tally.findings.push(Finding {
            number: at,
            how: format!("{how}: {said}"),
            file,
        });
        from = at + 1;
    }
    tally.inputs = from - job.from;
    tally.seconds = began.elapsed().as_secs_f64();
    tally
}

/// Runs a child; how it ended (none: it had to be killed), how far it was, the last that it said.
fn child(job: &Job, seed: u64, folder: &Path) -> (Option<ExitStatus>, [u64; 5], String) {
    let (status, log) = (folder.join("status"), folder.join("log"));
    // Where nothing is written, it did not come to its first input.
    fs::write(
        &status,
        [&job.from.to_le_bytes()[..], &[0; 32][..]].concat(),
    )
    .unwrap();
    let errors = File::create(&log).unwrap();
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args([
            "child",
            "--exact",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(
            JOB,
            format!("{} {seed} {} {}", job.reader.name, job.from, job.to),
        )
        .env(STATUS, &status)
        // Nothing of this machine is read.
        .env("XDG_CACHE_HOME", folder)
        .env("RUST_BACKTRACE", "0")
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .unwrap();
    let state = || -> [u64; 5] {
        let bytes = fs::read(&status).unwrap_or_default();
        let number = |i: usize| {
            bytes
                .get(8 * i..8 * i + 8)
                .map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap()))
        };
        [0, 1, 2, 3, 4].map(number)
    };
    let (mut last, mut since) = (u64::MAX, Instant::now());
    let ended = loop {
        if let Some(status) = process.try_wait().unwrap() {
            break Some(status);
        }
        let at = state()[0];
        if at != last {
            (last, since) = (at, Instant::now());
        } else if since.elapsed() > WALL {
            process.kill().unwrap();
            process.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let said = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
    let about = |line: &&str| !line.trim().is_empty() && !line.contains("RUST_BACKTRACE");
    let said: Vec<&str> = said.lines().filter(about).take(3).collect();
    (ended, state(), said.join(" "))
}

fn explain(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (_, Some(libc::SIGPROF)) => format!("more than {SECONDS} s"),
        (_, Some(libc::SIGABRT)) => "abort".into(),
        (_, Some(libc::SIGSEGV)) => "segmentation fault".into(),
        (_, Some(signal)) => format!("signal {signal}"),
        (code, _) => format!("panic (exit code {})", code.unwrap_or(-1)),
    }
}

/// Keeps an input where builds don't remove it.
fn keep(reader: &Reader, seed: u64, number: u64) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("findings");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join(format!("{}-{seed}-{number}", reader.name));
    fs::write(&file, input_of(reader, &reader.corpus(), seed, number)).unwrap();
    file
}

/// What a child does.
pub fn carry_out(job: &str, status: &Path) {
    let mut words = job.split(' ');
    let reader = readers::named(words.next().unwrap());
    let [seed, from, to]: [u64; 3] = [(); 3].map(|()| words.next().unwrap().parse().unwrap());
    let status = OpenOptions::new().write(true).open(status).unwrap();
    let corpus = reader.corpus();
    let folder = tempfile::tempdir_in(".").unwrap();
    let read = (reader.prepare)(folder.path());
    memory::limit(MEMORY);
    let (mut peak, mut slowest, mut good) = (0, 0, 0_u64);
    for number in from..to {
        status.write_at(&number.to_le_bytes(), 0).unwrap();
        limit_time();
        let input = input_of(reader, &corpus, seed, number);
        let began = Instant::now();
        let mut was_good = false;
        let bytes = memory::peak_of(|| was_good = read(&input)) as u64;
        let took = began.elapsed().as_micros() as u64;
        if took > slowest {
            status.write_at(&number.to_le_bytes(), 32).unwrap();
        }
        if bytes > peak || took > slowest {
            (peak, slowest) = (peak.max(bytes), slowest.max(took));
            let both = [peak.to_le_bytes(), slowest.to_le_bytes()].concat();
            status.write_at(&both, 8).unwrap();
        }
        if was_good {
            good += 1;
            status.write_at(&good.to_le_bytes(), 24).unwrap();
        }
    }
}

/// The process ends by SIGPROF unless this is called again in time.
fn limit_time() {
    let time = |seconds| libc::timeval {
        tv_sec: seconds,
        tv_usec: 0,
    };
    let timer = libc::itimerval {
        it_interval: time(0),
        it_value: time(SECONDS),
    };
    // SAFETY: both pointers are valid for the call, and null says that the old value is not wanted.
    let set = unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, std::ptr::null_mut()) };
    assert_eq!(set, 0);
}
