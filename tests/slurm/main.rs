//! Searches and comparisons inside real Slurm jobs that are cancelled, requeued, warned, killed and timed out: no step is
//! lost or done twice, and the end has the bits of one that was never disturbed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

use nasfw as _;

mod cluster;
mod compare;
mod processes;
#[expect(dead_code, reason = "the program's other tests need more")]
#[path = "../it/program.rs"]
mod program;
mod run;

use std::fs;
use std::path::Path;
use std::process::Command;

use cluster::{Cluster, wait_for};

/// The search, for about a second.
const SEARCH: &str = "--strategy darts --space toy-conv --epochs 40 --threads 1 --set trainer.log_every=1 \
                      --set trainer.checkpoint_every=100000";

/// What one writes for a job that goes on where it was: it runs, or it resumes.
fn script(name: &str) -> String {
    let nasfw = env!("CARGO_BIN_EXE_nasfw");
    format!(
        "#!/bin/bash
#SBATCH --job-name={name} --output={name}.out --open-mode=append --requeue
echo $$ > {name}.pid
if [ -e runs/{name}/checkpoints ]; then exec {nasfw} resume runs/{name}; fi
exec {nasfw} run --name {name} {SEARCH}
"
    )
}

fn events(run: &Path, kind: &str) -> usize {
    let text = fs::read_to_string(run.join("events.jsonl")).unwrap_or_default();
    text.matches(&format!("\"event\":\"{kind}\"")).count()
}

/// All at once: Slurm looks at limits twice a minute only.
#[test]
fn jobs_that_are_cancelled_requeued_warned_killed_and_timed_out_lose_nothing() {
    if let Some(why) = Cluster::missing() {
        return program::skipped(
            "jobs_that_are_cancelled_requeued_warned_killed_and_timed_out_lose_nothing",
            &why,
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::up(dir.path());
    let folder = |name: &str| {
        let folder = dir.path().join(name);
        fs::create_dir(&folder).unwrap();
        folder
    };
    std::thread::scope(|scope| {
        scope.spawn(|| searches_lose_nothing(&cluster, dir.path()));
        scope.spawn(|| compare::a_comparison_loses_nothing(&cluster, &folder("compare")));
        scope.spawn(|| {
            processes::a_step_of_several_processes_gives_the_bits_of_one(
                &cluster,
                &folder("several"),
            );
        });
        scope.spawn(|| run::a_run_is_never_begun_twice(&cluster, &folder("run")));
    });
}

fn searches_lose_nothing(cluster: &Cluster, dir: &Path) {
    let run = |name: &str| dir.join("runs").join(name);
    let submit = |name: &str, options: &[&str]| {
        fs::write(dir.join(format!("{name}.sh")), script(name)).unwrap();
        cluster.submit(&format!("{name}.sh"), options)
    };
    let signal = |name: &str, signal: i32| {
        let pid = fs::read_to_string(dir.join(format!("{name}.pid"))).unwrap();
        // SAFETY: a job of this test that is known to run.
        unsafe { libc::kill(pid.trim().parse().unwrap(), signal) };
    };
    let begun = |name: &str| wait_for("its steps", || events(&run(name), "progress") >= 5);

    // Slurm looks at limits twice a minute. The jobs that wait for that are stopped meanwhile; Slurm lets them go on
    // before it sends its signal.
    let limit = submit("limit", &[]);
    begun("limit");
    signal("limit", libc::SIGSTOP);
    cluster.scontrol(&["update", &format!("JobId={limit}"), "EndTime=now+1second"]);
    let warned = submit("warned", &["--time=10", "--signal=B:USR1@600"]);
    begun("warned");
    signal("warned", libc::SIGSTOP);

    let cancelled = submit("cancelled", &[]);
    begun("cancelled");
    cluster.scancel(&cancelled);
    cluster.wait_for(&cancelled, "CANCELLED");

    let requeued = submit("requeued", &[]);
    begun("requeued");
    cluster.scontrol(&["requeue", &requeued]);
    // Slurm would wait for two minutes.
    cluster.wait_for(&requeued, "PENDING");
    let steps = events(&run("requeued"), "progress");
    // Slurm counts in seconds: a job that begins in the second in which it was killed is taken for the killed one.
    std::thread::sleep(std::time::Duration::from_secs(2));
    cluster.scontrol(&["update", &format!("JobId={requeued}"), "StartTime=now"]);
    cluster.wait_for(&requeued, "COMPLETED");
    assert_goes_on(dir, "requeued", steps);

    let whole = Command::new(env!("CARGO_BIN_EXE_nasfw"))
        .args(["run", "--name", "whole"])
        .args(SEARCH.split_whitespace())
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(whole.status.success());

    cluster.wait_for(&limit, "TIMEOUT");
    cluster.wait_for(&warned, "FAILED");
    assert!(cluster.show(&warned).contains("ExitCode=130:0"));
    let again = ["cancelled", "limit", "warned"].map(|name| {
        assert_eq!(events(&run(name), "interrupted"), 1, "{name}");
        let steps = events(&run(name), "progress");
        (name, steps, submit(name, &[]))
    });
    for (name, steps, job) in again {
        cluster.wait_for(&job, "COMPLETED");
        assert_goes_on(dir, name, steps);
    }
    let result = |name: &str| fs::read(run(name).join("result.json")).unwrap();
    for name in ["cancelled", "requeued", "limit", "warned"] {
        assert_eq!(result(name), result("whole"), "{name}");
    }
}

/// Stops a process of a job, or lets it go on.
fn going(process: u32, on: bool) {
    let signal = if on { libc::SIGCONT } else { libc::SIGSTOP };
    // SAFETY: a process of a job of this test that is known to run.
    unsafe { libc::kill(process as libc::pid_t, signal) };
}

/// What a job's second process says is where its first one ended.
fn assert_goes_on(dir: &Path, name: &str, steps: usize) {
    let said = fs::read_to_string(dir.join(format!("{name}.out"))).unwrap();
    assert!(
        said.contains(&format!("going on from step {steps}")),
        "{name}, {steps}: {said}"
    );
}
