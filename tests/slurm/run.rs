//! `nasfw run --on slurm`.

use std::fs;
use std::path::Path;

use nasfw::framework::run::RunFolder;

use crate::cluster::{Cluster, wait_for};
use crate::compare::requeue;
use crate::{SEARCH, events, going};

/// A run that is handed to Slurm, typed twice, requeued and cancelled is one run, and ends as one that was never disturbed.
pub fn a_run_is_never_begun_twice(cluster: &Cluster, dir: &Path) {
    let nasfw = |line: &str| {
        let mut command = cluster.command(env!("CARGO_BIN_EXE_nasfw"));
        let out = command
            .args(line.split_whitespace())
            .current_dir(dir)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{line}: {text}");
        String::from_utf8(out.stdout).unwrap()
    };
    let job = |said: &str| said.split_whitespace().nth(1).unwrap().to_owned();
    let search = SEARCH.replace("--threads 1", "");
    let line = format!("run --name mine --resume {search} --on slurm --slurm time=60");
    let run = dir.join("runs/mine");
    let id = job(&nasfw(&line));
    wait_for("its steps", || events(&run, "progress") >= 3);
    let stop = || {
        let holder = RunFolder::holder(&run).unwrap().process.unwrap();
        going(holder.process, false);
    };
    stop();
    assert_eq!(job(&nasfw(&line)), id, "there is one already");
    let steps = events(&run, "progress");
    requeue(cluster, &id, || cluster.scontrol(&["requeue", &id]));
    wait_for("its second process", || {
        events(&run, "progress") >= steps + 3
    });
    stop();
    cluster.scancel(&id);
    wait_for("the end of the job", || {
        !cluster.queue().iter().any(|line| line.contains("mine-"))
    });
    assert!(cluster.show(&id).contains("JobState=CANCELLED "));
    // Of the first interruption nothing is left where the second process went on.
    assert_eq!(events(&run, "interrupted"), 1);

    let again = job(&nasfw("resume runs/mine --on slurm"));
    assert_ne!(again, id);
    cluster.wait_for(&again, "COMPLETED");
    let said = fs::read_to_string(run.join("job.txt")).unwrap();
    assert_eq!(said.matches("going on from step").count(), 2, "{said}");
    nasfw(&format!("run --name whole {SEARCH}"));
    let result = |name: &str| fs::read(dir.join("runs").join(name).join("result.json")).unwrap();
    assert_eq!(result("mine"), result("whole"));
    assert_eq!(fs::read_dir(dir.join("runs")).unwrap().count(), 2);
}
