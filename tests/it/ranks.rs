//! One run on several processes: real ones, started as `torchrun` starts them.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use nasfw::framework::config::RunConfig;
use nasfw::framework::events::Event;
use nasfw::framework::run::{EVENTS, MANIFEST, Manifest, RunFolder, read_events, read_stored};
use nasfw::framework::trainer::digest;

use crate::program::{flat, kept, skipped};
use crate::resume::searches;
use crate::spaces::all_pairs;
use crate::strategies::short;

/// The processes of one run.
struct Together(Vec<Child>);

/// What `rank` of `world` is started with.
fn process(
    program: impl AsRef<std::ffi::OsStr>,
    dir: &Path,
    [rank, world]: [usize; 2],
    port: u16,
    args: &[&str],
) -> Command {
    let mut command = Command::new("timeout");
    command.args(["100".as_ref(), program.as_ref()]);
    command
        .args(args)
        .args(["--ranks", "torchrun"])
        .current_dir(dir)
        .env("RANK", rank.to_string())
        .env("WORLD_SIZE", world.to_string())
        .env("XDG_CACHE_HOME", dir.join("cache"))
        .env("MASTER_ADDR", "127.0.0.1")
        .env("MASTER_PORT", port.to_string());
    kept(&mut command);
    command
}

const NASFW: &str = env!("CARGO_BIN_EXE_nasfw");

fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

impl Together {
    fn start(dir: &Path, world: usize, args: &[&str]) -> Self {
        let port = free_port();
        let start = |rank| process(NASFW, dir, [rank, world], port, args).spawn();
        Self((0..world).map(|rank| start(rank).unwrap()).collect())
    }

    /// The process below `timeout`.
    fn signal(&self, rank: usize, signal: libc::c_int) {
        let parent = self.0[rank].id();
        let children = format!("/proc/{parent}/task/{parent}/children");
        let child = fs::read_to_string(children).unwrap();
        let child: libc::pid_t = child.trim().parse().unwrap();
        // SAFETY: a process that this test has started.
        unsafe { libc::kill(child, signal) };
    }

    fn end(self) -> Vec<(Option<i32>, String, String)> {
        self.0
            .into_iter()
            .map(|c| said(&c.wait_with_output().unwrap()))
            .collect()
    }

    /// All of them do it.
    fn good(self) {
        for (rank, (code, out, err)) in self.end().into_iter().enumerate() {
            assert_eq!(code, Some(0), "process {rank}: {err}");
            // One of them speaks for all.
            assert_eq!(out.is_empty(), rank > 0, "process {rank}: {out}");
        }
    }
}

fn said(out: &Output) -> (Option<i32>, String, String) {
    (out.status.code(), flat(&out.stdout), flat(&out.stderr))
}

/// All numbers of a run: every tensor of its last checkpoint, and what its events say but for times.
fn numbers(run: &Path) -> (String, Vec<String>) {
    let config = RunConfig::of_run(run).unwrap();
    let digest = digest(run, &config.fingerprint().unwrap())
        .unwrap()
        .unwrap();
    let events = read_events(&run.join(EVENTS)).unwrap().into_iter();
    let of_processes = |e: &Event| matches!(e, Event::Started { .. } | Event::Interrupted { .. });
    let events = events.filter(|e| !of_processes(e));
    let events = events.map(|e| format!("{:?}", e.reproducible()));
    (digest, events.collect())
}

fn assert_same(a: &(String, Vec<String>), b: &(String, Vec<String>), what: &str) {
    for (a, b) in a.1.iter().zip(&b.1) {
        assert_eq!(a, b, "{what}");
    }
    assert_eq!((a.1.len(), &a.0), (b.1.len(), &b.0), "{what}");
}

fn words(of: &str) -> Vec<&str> {
    of.split_whitespace().collect()
}

const TOY: &str = "run --space toy-conv --threads 1 --device cpu --epochs 2 --set trainer.batch_size=12 --set \
                   trainer.log_every=1 --out .";

fn options<'a>(strategy: &'a str, more: &'a str) -> Vec<&'a str> {
    let mut args = words(TOY);
    args.extend(["--strategy", strategy]);
    args.extend(short(strategy).iter().flat_map(|set| ["--set", *set]));
    args.extend(words(more));
    args
}

fn by_one(dir: &Path, args: &[&str]) {
    crate::program::good(dir, args);
}

/// What it is all for: the number of processes changes no bit. Their number divides the batch, or does not; some have no part
/// of the last batches, or of any. Second order, perturbed architectures, hard samples, controllers, subsets, paths, scores. With `ALL_PAIRS=1` every strategy.
#[test]
fn as_many_processes_as_you_like_give_the_bits_of_one() {
    let mut cases = vec![
        ("darts", 2, 6),
        ("vim", 2, 6),
        ("gdas", 2, 6),
        ("sdarts-adv", 2, 6),
        ("pc-darts", 4, 3),
        ("snas", 2, 6),
        ("drnas", 2, 6),
        ("enas", 2, 6),
        ("parsec", 2, 6),
        ("asng", 2, 6),
        ("rsps", 3, 4),
        ("data", 2, 6),
        // Parts smaller than they need be, and more of them than processes; fewer of them than processes.
        ("oles", 2, 2),
        ("darts", 4, 5),
    ];
    if all_pairs() {
        let others = searches().into_iter();
        let others = others.filter(|name| cases.iter().all(|case| case.0 != *name));
        let others: Vec<_> = others.map(|name| (name, 2, 6)).collect();
        cases.extend(others);
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (i, (strategy, world, part)) in cases.into_iter().enumerate() {
        let second = match strategy {
            "darts" => "--set strategy.order=2",
            _ => "",
        };
        let parts = format!("--set trainer.micro_batch={part} {second}");
        let one = format!("one-{i}");
        let several = format!("several-{i}");
        by_one(dir, &options(strategy, &format!("{parts} --name {one}")));
        let more = match part * world >= 12 && part * (world - 1) < 12 {
            // It follows from the number of processes.
            true => second.to_owned(),
            false => parts,
        };
        let more = format!("{more} --name {several}");
        Together::start(dir, world, &options(strategy, &more)).good();
        // The settings are not the same, but all else is.
        let (one, several) = (numbers(&dir.join(one)), numbers(&dir.join(several)));
        assert_same(&several, &one, &format!("{strategy} by {world}"));
    }
}

/// A search of some hundred steps.
fn long(name: &str) -> Vec<&str> {
    let mut args = crate::program::short_search(name, &[]);
    args.extend(["--out", ".", "--set", "trainer.micro_batch=4"]);
    args
}

fn wait_for_steps(run: &Path, steps: usize) {
    let began = Instant::now();
    let found =
        || fs::read_to_string(run.join(EVENTS)).map_or(0, |t| t.matches("\"progress\"").count());
    while found() < steps {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "no step in {}",
            run.display()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whoever is killed, the others notice, and the run goes on from its checkpoint: by two, by three, by one alone.
#[test]
fn who_is_killed_is_noticed_and_the_run_goes_on_with_any_number() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    by_one(dir, &long("whole"));
    let whole = numbers(&dir.join("whole"));
    let mut args = long("mine");
    args.extend(["--resume", "--ranks-timeout", "20"]);
    let run = dir.join("mine");
    for (killed, steps) in [(0, 5), (1, 12)] {
        let together = Together::start(dir, 2, &args);
        wait_for_steps(&run, steps);
        together.signal(killed, libc::SIGKILL);
        let began = Instant::now();
        let (code, _, text) = together.end().swap_remove(1 - killed);
        assert!(began.elapsed() < Duration::from_secs(19), "{text}");
        assert_eq!(code, Some(8), "{text}");
        assert!(
            text.contains("has lost another one") && text.contains("--resume"),
            "{text}"
        );
        assert!(!text.contains("frame #"), "{text}");
    }
    // Asked to stop, one or the other, they all do after the same step.
    let together = Together::start(dir, 3, &args);
    wait_for_steps(&run, 20);
    together.signal(2, libc::SIGTERM);
    for (code, _, text) in together.end() {
        assert_eq!(code, Some(130), "{text}");
    }
    let workers = read_stored::<Manifest>(&run, MANIFEST).unwrap().workers;
    let ranks: Vec<Option<usize>> = workers.iter().map(|w| w.rank).collect();
    let expected = [0, 1, 0, 1, 0, 1, 2].map(Some);
    assert_eq!(ranks, expected);
    by_one(dir, &["resume", "mine"]);
    assert_same(&numbers(&run), &whole, "killed and stopped");
    // What is finished is said again, by the first one.
    Together::start(dir, 2, &["resume", "mine"]).good();
}

/// One that stops answering is given up after the time that was set.
#[test]
fn who_does_not_answer_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut args = long("mine");
    args.extend(["--ranks-timeout", "3"]);
    let together = Together::start(dir, 2, &args);
    wait_for_steps(&dir.join("mine"), 3);
    together.signal(1, libc::SIGSTOP);
    let began = Instant::now();
    let mut children = together.0.into_iter();
    let first = children.next().unwrap().wait_with_output().unwrap();
    let (code, _, text) = said(&first);
    assert_eq!(code, Some(8), "{text}");
    assert!(began.elapsed() < Duration::from_secs(30), "{text}");
    let second = Together(children.collect());
    second.signal(0, libc::SIGCONT);
    assert_eq!(second.end()[0].0, Some(8));
    // One that never comes, too.
    let began = Instant::now();
    let alone = process(NASFW, dir, [0, 2], free_port(), &args)
        .output()
        .unwrap();
    let (code, _, text) = said(&alone);
    assert_eq!(code, Some(8), "{text}");
    assert!(text.contains("were to meet at 127.0.0.1:"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(30));
}

/// Before anything is written, whatever differs: what is asked for, the images, the program.
#[test]
fn processes_that_would_not_do_the_same_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (folder, images) in [("a", 8), ("b", 9)] {
        for (part, count) in [("train", images), ("val", 2)] {
            for class in ["cat", "dog"] {
                let folder = dir.join(folder).join(part).join(class);
                fs::create_dir_all(&folder).unwrap();
                for i in 0..count {
                    let image = image::GrayImage::from_pixel(8, 8, image::Luma([90 + i]));
                    image.save(folder.join(format!("{i}.png"))).unwrap();
                }
            }
        }
    }
    let files = words("--dataset image-folder --set dataset.size=8 --data-dir");
    let pair = |programs: [PathBuf; 2], more: [Vec<&str>; 2]| {
        let port = free_port();
        let start = |rank: usize| {
            let mut args = long("mine");
            args.extend(&more[rank]);
            process(&programs[rank], dir, [rank, 2], port, &args)
                .spawn()
                .unwrap()
        };
        let ended = Together([0, 1].map(start).into()).end();
        assert!(!RunFolder::is_torso(&dir.join("mine")), "it left a folder");
        ended
    };
    let own = PathBuf::from(NASFW);
    let same = [own.clone(), own.clone()];
    let with = |dir| [&files[..], &[dir]].concat();
    let mut cases = vec![
        (
            same.clone(),
            [vec!["--seed", "1"], vec!["--seed", "2"]],
            "the settings differs",
        ),
        (same, [with("a"), with("b")], "the dataset differs"),
    ];
    // Beside this program where all of the workspace is built.
    let stranger = own.with_file_name("own-strategy");
    match stranger.is_file() {
        true => cases.push(([own, stranger], [vec![], vec![]], "the list of plugins")),
        false => skipped(
            "processes_that_would_not_do_the_same_are_refused",
            "own-strategy is not built",
        ),
    }
    for (programs, more, why) in cases {
        for (code, _, text) in pair(programs, more) {
            assert_eq!(code, Some(2), "{text}");
            assert!(text.contains(why), "{text}");
        }
    }
    // A run in whole batches has no parts to share out.
    let mut args = crate::program::short_search("whole", &["--out", "."]);
    crate::program::killed(dir, &args, &dir.join("whole").join(EVENTS), 4);
    args.push("--resume");
    for (code, _, text) in Together::start(dir, 2, &args).end() {
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("would all compute the same"), "{text}");
    }
    let (code, _, text) = said(&crate::program::nasfw(
        dir,
        &["resume", "whole", "--ranks", "mpi"],
    ));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("mpirun -n 2"), "{text}");
    // NCCL is looked for when it is asked for.
    let nccl = ["resume", "whole", "--ranks", "mpi", "--ranks-over", "nccl"];
    let (code, _, text) = said(&crate::program::nasfw(dir, &nccl));
    assert_eq!(code, Some(2), "{text}");
    let found = text.contains("mpirun -n 2");
    assert!(found || text.contains("libnccl.so.2"), "{text}");
}

/// The losses of every step.
fn losses(run: &Path) -> Vec<f64> {
    let events = read_events(&run.join(EVENTS)).unwrap();
    let of = |e| match e {
        Event::Progress { meters, .. } => meters.values().map(|m| m.loss).collect(),
        _ => vec![],
    };
    events.into_iter().flat_map(of).collect()
}

/// With statistics over all parts, steps are those of whole batches but for rounding: in a search, with hard samples, and where
/// running statistics and drop path are trained with; by two, by four for a while, and then by one.
#[test]
fn synchronised_batch_norm_is_that_of_whole_batches() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let fixed = "--threads 1 --device cpu --set precision=double --set trainer.log_every=1 --out . --set \
                 trainer.batch_size=16 --set trainer.sync_batch_norm=true --dataset synthetic --set dataset.images=80 \
                 --set dataset.size=8 --set dataset.test_images=20";
    let cell = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|";
    let search =
        "run --space nasbench201 --set space.channels=4 --set space.cells=1 --epochs 2 --strategy";
    for (i, begin) in [
        [&words(search)[..], &["darts"]].concat(),
        [&words(search)[..], &["gdas"]].concat(),
        [
            &["retrain", cell][..],
            &words("--preset quick --channels 4 --cells 1 --epochs 2"),
        ]
        .concat(),
    ]
    .into_iter()
    .enumerate()
    {
        let (whole, several) = (format!("whole-{i}"), format!("several-{i}"));
        let args = |name| [&begin[..], &words(fixed), &["--name", name]].concat();
        by_one(dir, &args(&whole));
        let together = Together::start(dir, 2, &args(&several));
        wait_for_steps(&dir.join(&several), 2);
        together.signal(0, libc::SIGTERM);
        together.end();
        let together = Together::start(dir, 4, &["resume", &several]);
        wait_for_steps(&dir.join(&several), 4);
        together.signal(3, libc::SIGTERM);
        together.end();
        by_one(dir, &["resume", &several]);
        let (a, b) = (losses(&dir.join(&whole)), losses(&dir.join(&several)));
        assert!(a.len() >= 6 && a.len() == b.len(), "{a:?} {b:?}");
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() < 1e-8, "{i}: {a} {b}");
        }
        assert_ne!(a[a.len() - 1], a[0], "it learns nothing");
    }
    // Wherever in a pass it is, forward or backward.
    let long = search.replace("--epochs 2", "--epochs 2000");
    let args = [
        &words(&long)[..],
        &["darts", "--name", "killed"],
        &words(fixed),
    ]
    .concat();
    let together = Together::start(dir, 2, &args);
    wait_for_steps(&dir.join("killed"), 3);
    together.signal(1, libc::SIGKILL);
    let (code, _, text) = together.end().swap_remove(0);
    assert_eq!(code, Some(8), "{text}");
}

/// A network of this test's own, that ends with it.
struct Network(Vec<String>);

impl Network {
    /// Two hosts with an address each and a cable between; none where nothing like it can be made.
    fn new() -> Option<Self> {
        let names = ["a", "b"].map(|n| format!("nasfw-{}-{n}", std::process::id()));
        let network = Self(names.to_vec());
        let ip = |words: &str| {
            let out = Command::new("ip").args(words.split_whitespace()).output();
            out.is_ok_and(|o| o.status.success()).then_some(())
        };
        let [a, b] = &names;
        for name in &names {
            ip(&format!("netns add {name}"))?;
        }
        ip(&format!(
            "-n {a} link add cable type veth peer name cable netns {b}"
        ))?;
        for (name, address) in [(a, "10.77.0.1/24"), (b, "10.77.0.2/24")] {
            ip(&format!("-n {name} addr add {address} dev cable"))?;
            ip(&format!("-n {name} link set cable up"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        Some(network)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
        }
    }
}

/// Two hosts that reach each other by a cable: neither is the other's loopback.
#[test]
fn two_hosts_give_the_bits_of_one() {
    let test = "two_hosts_give_the_bits_of_one";
    let Some(network) = Network::new() else {
        return skipped(
            test,
            "no network of one's own can be made here (needs root, and `ip` of iproute2)",
        );
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    by_one(
        dir,
        &options("darts", "--set trainer.micro_batch=6 --name one"),
    );
    let args = options("darts", "--name two");
    let start = |rank: usize| {
        let inner = process(NASFW, dir, [rank, 2], 29500, &args);
        let mut outer = Command::new("ip");
        outer
            .args(["netns", "exec", &network.0[rank]])
            .arg(inner.get_program())
            .args(inner.get_args())
            .current_dir(dir);
        kept(&mut outer);
        for (key, value) in inner.get_envs() {
            outer.env(key, value.unwrap_or_default());
        }
        outer.env("MASTER_ADDR", "10.77.0.1").spawn().unwrap()
    };
    Together([0, 1].map(start).into()).good();
    assert_same(
        &numbers(&dir.join("two")),
        &numbers(&dir.join("one")),
        "two hosts",
    );
}
