//! `nasfw compare --on slurm`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nasfw::analysis::compare::{Comparison, State};
use nasfw::framework::run::RunFolder;

use crate::cluster::{ARRAY, Cluster, wait_for};
use crate::{events, going};

const PLAN: &str = r#"
name = "toys"
seeds = 3
strategies = ["darts"]
spaces = ["toy-planted"]
budgets = [{ unit = "steps", amount = 1500 }]
[set]
device = "cpu"
trainer.log_every = 1
trainer.checkpoint_every = 100000
"#;

/// Trials that are disturbed, by their numbers: of three seeds, `darts` and `random`.
const CANCELLED: usize = 0;
const REQUEUED: usize = 1;
const KILLED: usize = 3;
const LIMIT: usize = 4;
const WARNED: usize = 6;

fn compare(command: &mut Command, dir: &Path, options: &[&str]) -> Child {
    let out = |name: &str| fs::File::create(dir.join(name)).unwrap();
    command
        .args(["compare", "toys.toml"])
        .args(options)
        .current_dir(dir)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(out("stdout"))
        .stderr(out("stderr"))
        .spawn()
        .unwrap()
}

fn said(dir: &Path) -> String {
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let all = read("stdout") + &read("stderr");
    all.split_whitespace()
        .filter(|w| *w != "|")
        .collect::<Vec<_>>()
        .join(" ")
}

fn comparison(dir: &Path) -> Comparison {
    let text = fs::read_to_string(dir.join("runs/toys/comparison.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// An array of which a task is cancelled, one requeued, one killed, one warned, one ended by its time limit, and of which
/// the process that watches is killed, amounts to what one process amounts to.
pub fn a_comparison_loses_nothing(cluster: &Cluster, dir: &Path) {
    fs::write(dir.join("toys.toml"), PLAN).unwrap();
    let nasfw = || cluster.command(env!("CARGO_BIN_EXE_nasfw"));
    let on = [
        "--on",
        "slurm",
        "--slurm",
        "time=60",
        "--slurm",
        "cpus-per-task=1",
    ];

    // What Slurm does not take is said before anything is submitted.
    let status = compare(
        &mut nasfw(),
        dir,
        &["--on", "slurm", "--slurm", "partition=none"],
    )
    .wait();
    assert_eq!(status.unwrap().code(), Some(2));
    assert!(said(dir).contains("invalid partition"), "{}", said(dir));
    let of_ours = || {
        cluster
            .queue()
            .into_iter()
            .filter(|line| line.contains("toys-"))
            .count()
    };
    assert_eq!(of_ours(), 0);

    let mut watcher = compare(&mut nasfw(), dir, &on);
    let trials = dir.join("runs/toys/trials");
    let id = |n: usize| {
        format!(
            "{}-toy-planted-1500steps-s{}",
            ["darts", "random"][n % 3],
            n / 3
        )
    };
    let disturbed = [CANCELLED, REQUEUED, KILLED, LIMIT, WARNED];
    let mut processes: BTreeMap<usize, (String, u32)> = BTreeMap::new();
    wait_for("the steps of all of them", || {
        assert!(watcher.try_wait().unwrap().is_none(), "{}", said(dir));
        for n in disturbed {
            let run = trials.join(id(n));
            if processes.contains_key(&n) || events(&run, "progress") < 3 {
                continue;
            }
            let holder = RunFolder::holder(&run).unwrap().process.unwrap();
            // Long enough for all that follows.
            going(holder.process, false);
            let job = holder.job.unwrap();
            assert_eq!(job.engine, "slurm");
            assert!(job.id.ends_with(&format!("_{}", n % ARRAY)), "{n}: {job}");
            processes.insert(n, (job.id, holder.process));
        }
        processes.len() == disturbed.len()
    });
    let task = |n: usize| processes[&n].0.clone();
    // The last one is in an array of its own: there are too many for one.
    let array = |n: usize| task(n).split_once('_').unwrap().0.to_owned();
    assert!(array(WARNED) != array(LIMIT) && array(LIMIT) == array(CANCELLED));
    let process = |n: usize| processes[&n].1;
    cluster.scontrol(&[
        "update",
        &format!("JobId={}", task(LIMIT)),
        "EndTime=now+1second",
    ]);
    cluster.scontrol(&[
        "update",
        &format!("JobId={}", task(WARNED)),
        "EndTime=now+110seconds",
    ]);

    // The process that watches is killed. The next one finds the jobs.
    watcher.kill().unwrap();
    watcher.wait().unwrap();
    let mut watcher = compare(&mut nasfw(), dir, &on);
    wait_for("it", || said(dir).contains("already jobs of slurm"));

    cluster.scancel(&task(CANCELLED));
    // SAFETY: a process of a job of this test, which is stopped.
    unsafe { libc::kill(process(KILLED) as libc::pid_t, libc::SIGKILL) };
    requeue(cluster, &task(REQUEUED), || {
        cluster.scontrol(&["requeue", &task(REQUEUED)])
    });

    // Meanwhile, what one process makes of it.
    let local = dir.join("local");
    fs::create_dir(&local).unwrap();
    // One thread, as `cpus-per-task` said.
    let plan = PLAN.replace("[set]", "[set]\nthreads = 1");
    fs::write(local.join("toys.toml"), plan).unwrap();
    assert!(
        compare(&mut nasfw(), &local, &["--jobs", "2"])
            .wait()
            .unwrap()
            .success()
    );

    // One is warned when the other one is ended, and has itself requeued. So may the other: this close to its limit it
    // was warned in the same moment.
    let queued = |n: usize| {
        let own = |line: &String| line.starts_with(&format!("{n} ")) && line.contains(" toys-");
        cluster.queue().into_iter().find(own).unwrap_or_default()
    };
    wait_for("the time limit", || {
        let state = queued(LIMIT);
        !state.contains("RUNNING") && !state.contains("COMPLETING")
    });
    requeue(cluster, &task(WARNED), || going(process(WARNED), true));
    let mut undone = vec![CANCELLED, KILLED];
    match queued(LIMIT).contains("PENDING") {
        true => requeue(cluster, &task(LIMIT), || {}),
        false => undone.push(LIMIT),
    }

    let status = watcher.wait().unwrap();
    assert_eq!(status.code(), Some(4), "{}", said(dir));
    let words = said(dir);
    let left = format!(
        "{} of 9 trials are not done and have no job any more",
        undone.len()
    );
    for word in [&left, "ended by signal 9"] {
        assert!(words.contains(word), "{word}: {words}");
    }
    let so_far = comparison(dir);
    for trial in &so_far.trials {
        let undone = undone.iter().any(|n| trial.run.ends_with(id(*n)));
        assert_eq!(trial.state == State::Done, !undone, "{trial:?}");
    }
    // Saved when they were told to end, and gone on with.
    assert_eq!(events(&trials.join(id(CANCELLED)), "interrupted"), 1);
    for n in [REQUEUED, WARNED] {
        assert_eq!(events(&trials.join(id(n)), "started"), 2, "{n}");
    }
    let job = format!("runs/toys/jobs/{}.txt", task(LIMIT));
    let job = fs::read_to_string(dir.join(job)).unwrap();
    assert!(job.contains("DUE TO TIME LIMIT"), "{job}");

    let status = compare(&mut nasfw(), dir, &on).wait().unwrap();
    assert!(status.success(), "{}", said(dir));
    let done = format!("{} of 9 trials are done already", 9 - undone.len());
    assert!(said(dir).contains(&done), "{}", said(dir));
    assert_eq!(events(&trials.join(id(LIMIT)), "started"), 2);

    assert_eq!(comparison(dir), comparison(&local));
    for trial in comparison(dir).trials {
        let result =
            |dir: &Path| fs::read(dir.join("runs/toys").join(&trial.run).join("result.json"));
        assert_eq!(result(dir).unwrap(), result(&local).unwrap());
    }
    assert_eq!(of_ours(), 0);
}

/// Has a job requeued, and begun again at once: Slurm would wait for two minutes.
pub fn requeue(cluster: &Cluster, job: &str, ask: impl FnOnce()) {
    ask();
    cluster.wait_for(job, "PENDING");
    // A job that begins in the second in which it was killed is taken for the killed one.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let job = format!("JobId={job}");
    cluster.scontrol(&["update", &job, "StartTime=now", "TimeLimit=60"]);
}
