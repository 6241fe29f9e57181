//! One run by the processes of a step of `srun`, in a job that is requeued in the middle of it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::cluster::{Cluster, wait_for};
use crate::{SEARCH, events};

pub fn a_step_of_several_processes_gives_the_bits_of_one(cluster: &Cluster, dir: &Path) {
    let nasfw = env!("CARGO_BIN_EXE_nasfw");
    let script = format!(
        "#!/bin/bash
#SBATCH --ntasks=2 --output={dir}/several.out --open-mode=append --requeue
cd {dir}
srun --ntasks=2 --mpi=none --kill-on-bad-exit=0 {nasfw} run --name several --resume --ranks slurm {SEARCH}
",
        dir = dir.display()
    );
    let file = dir.join("several.sh");
    fs::write(&file, script).unwrap();
    let job = cluster.submit(&file.display().to_string(), &[]);
    let run = dir.join("runs/several");
    let said = || fs::read_to_string(dir.join("several.out")).unwrap_or_default();
    wait_for("its steps", || events(&run, "progress") >= 5);
    cluster.scontrol(&["requeue", &job]);
    cluster.wait_for(&job, "PENDING");
    wait_for("its end", || events(&run, "interrupted") == 1);
    // Slurm counts in seconds, and would wait for two minutes.
    std::thread::sleep(std::time::Duration::from_secs(2));
    cluster.scontrol(&["update", &format!("JobId={job}"), "StartTime=now"]);
    wait_for("the result", || {
        assert!(
            !cluster.show(&job).contains("JobState=FAILED"),
            "{}",
            said()
        );
        run.join("result.json").exists()
    });
    cluster.wait_for(&job, "COMPLETED");
    let one = Command::new(nasfw)
        .args(["run", "--name", "one", "--set", "trainer.micro_batch=32"])
        .args(SEARCH.split_whitespace())
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(one.status.success());
    let result = |name: &str| fs::read(dir.join("runs").join(name).join("result.json")).unwrap();
    assert_eq!(result("several"), result("one"), "{}", said());
    assert_eq!(events(&run, "started"), 2);
}
