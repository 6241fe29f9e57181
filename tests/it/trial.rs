//! `nasfw trial`: a comparison that any engine can carry out, and claims that are asked after.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use nasfw::framework::run::Process;

use crate::program::{flat, good, kept, nasfw};

const PLAN: &str = r#"
name = "toys"
seeds = 2
strategies = ["darts"]
spaces = ["toy-planted"]
budgets = [{ unit = "steps", amount = 40 }]
rank = { architectures = 5, batches = 1 }
set = { device = "cpu", threads = 1 }
"#;

/// All at once, each twice, as an engine that knows no better would; and nothing else has begun the comparison.
#[test]
fn trials_by_their_numbers_amount_to_the_comparison() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("plan.toml"), PLAN).unwrap();
    assert_eq!(good(dir, &["trial", "plan.toml", "--count"]), "6\n");
    assert!(!dir.join("runs").exists());
    let begin = |number: &usize| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nasfw"));
        command
            .args(["trial", "plan.toml", &number.to_string()])
            .current_dir(dir)
            .env("NASFW_SEED", "77");
        kept(&mut command).spawn().unwrap()
    };
    let all: Vec<_> = (0..6)
        .chain(0..6)
        .collect::<Vec<_>>()
        .iter()
        .map(begin)
        .collect();
    for process in all {
        let out = process.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", flat(&out.stderr));
        assert!(
            flat(&out.stdout).contains("is done: runs/toys/trials/"),
            "{}",
            flat(&out.stdout)
        );
    }
    let listed = good(dir, &["compare", "plan.toml", "--dry-run"]);
    assert!(
        listed.contains("# trial 5 is done: random-architectures-toy-planted-40steps-s1"),
        "{listed}"
    );
    let said = good(dir, &["compare", "plan.toml", "--collect"]);
    let read = |dir: &Path| fs::read_to_string(dir.join("runs/toys/comparison.json")).unwrap();
    let whole = tempfile::tempdir().unwrap();
    fs::write(whole.path().join("plan.toml"), PLAN).unwrap();
    assert_eq!(good(whole.path(), &["compare", "plan.toml"]), said);
    assert_eq!(read(whole.path()), read(dir));

    // By the comparison's folder, without the plan's file.
    fs::remove_file(dir.join("plan.toml")).unwrap();
    good(dir, &["trial", "runs/toys", "0"]);
    for (words, code, why) in [
        (
            ["trial", "runs/toys", "6"],
            2,
            "there are 6 trials, and the first is 0",
        ),
        (["trial", "runs/none", "0"], 2, "can't be read"),
        (["trial", "runs/toys", "--out=x"], 2, "INDEX"),
    ] {
        let out = nasfw(dir, &words);
        assert_eq!(out.status.code(), Some(code), "{}", flat(&out.stderr));
        assert!(flat(&out.stderr).contains(why), "{}", flat(&out.stderr));
    }
    // A plan that is no longer the one that has begun.
    fs::write(
        dir.join("plan.toml"),
        PLAN.replace("threads = 1", "threads = 1, trainer.batch_size = 4"),
    )
    .unwrap();
    let out = nasfw(dir, &["trial", "plan.toml", "0"]);
    assert_eq!(out.status.code(), Some(4));
    assert!(
        flat(&out.stderr).contains("begun with another plan"),
        "{}",
        flat(&out.stderr)
    );
}

/// Nobody watches, and `comparison.json` says less than there is.
#[test]
fn a_report_is_of_the_trials_that_are_done_by_now() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("plan.toml"), PLAN).unwrap();
    let report = || {
        good(dir, &["report", "runs/toys", "-o", "toys.html"]);
        fs::read_to_string(dir.join("toys.html")).unwrap()
    };
    good(dir, &["trial", "plan.toml", "0"]);
    good(dir, &["compare", "plan.toml", "--collect"]);
    assert!(report().contains("of 6 trials 1 are done"));
    for number in ["1", "2", "3"] {
        good(dir, &["trial", "runs/toys", number]);
    }
    assert!(report().contains("of 6 trials 4 are done"));
}

/// The engine of a job is asked about a process elsewhere that has been silent for a while, and not before.
#[test]
fn the_claim_of_a_job_that_is_over_counts_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("plan.toml"), PLAN).unwrap();
    good(dir, &["trial", "plan.toml", "0"]);
    let run = dir.join("runs/toys/trials/darts-toy-planted-40steps-s0");
    fs::remove_file(run.join("result.json")).unwrap();

    let scontrol = dir.join("scontrol");
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    let resume = |silent: u64, engine: &str| {
        let mut process = serde_json::to_value(Process::this()).unwrap();
        process["host"] = "elsewhere".into();
        process["job"] = serde_json::json!({ "engine": "slurm", "id": "7_1", "attempt": 0 });
        fs::write(run.join(".lock"), process.to_string()).unwrap();
        let file = File::options().write(true).open(run.join(".lock")).unwrap();
        let then = SystemTime::now() - Duration::from_secs(silent);
        file.set_modified(then).unwrap();
        fs::write(
            &scontrol,
            format!("#!/bin/sh\necho \"$@\" >> asked\n{engine}\n"),
        )
        .unwrap();
        fs::set_permissions(&scontrol, fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_nasfw"));
        let command = command.args(["resume", "runs/toys/trials/darts-toy-planted-40steps-s0"]);
        command
            .current_dir(dir)
            .env("PATH", &path)
            .output()
            .unwrap()
    };
    let asked = || {
        fs::read_to_string(dir.join("asked"))
            .unwrap_or_default()
            .lines()
            .count()
    };
    let over = "echo JobId=8 JobState=NODE_FAIL Restarts=0";
    for (silent, engine, taken) in [
        (5, over, false),
        (40, "echo JobId=8 JobState=RUNNING Restarts=0", false),
        (40, "exit 1", false),
        (40, over, true),
        (40, "echo JobId=8 JobState=RUNNING Restarts=1", true),
        (
            40,
            "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1",
            true,
        ),
        (120, "exit 1", true),
    ] {
        let before = asked();
        let out = resume(silent, engine);
        let text = flat(&out.stderr);
        assert_eq!(out.status.success(), taken, "{silent} s, {engine}: {text}");
        assert_eq!(asked() > before, silent == 40, "{silent} s, {engine}");
        if taken {
            assert!(!run.join(".lock").exists());
            fs::remove_file(run.join("result.json")).unwrap();
        } else {
            assert!(
                text.contains("on host elsewhere") && text.contains("job 7_1 of slurm"),
                "{text}"
            );
        }
    }
    assert!(
        fs::read_to_string(dir.join("asked"))
            .unwrap()
            .contains("show job -o 7_1")
    );
}

/// A folder that was there before is not removed, whatever goes wrong in it.
#[test]
fn a_folder_that_somebody_else_made_stays() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let line = "run --strategy darts --space toy-conv --dataset cifar10 --data-dir none --out . --name mine --resume";
    let fails: Vec<&str> = line.split_whitespace().collect();
    fs::create_dir(dir.join("mine")).unwrap();
    assert_eq!(nasfw(dir, &fails).status.code(), Some(3));
    assert!(dir.join("mine").exists());
    fs::remove_dir_all(dir.join("mine")).unwrap();
    assert!(!nasfw(dir, &fails).status.success());
    assert!(!dir.join("mine").exists(), "this one was its own");
}

/// What a run would be submitted as, on a machine without Slurm.
#[test]
fn the_script_of_a_run_is_shown_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let words = |of: &'static str| of.split_whitespace().collect::<Vec<_>>();
    let toy = "run --strategy darts --space toy-planted --epochs 1 --name mine";
    let slurm = "--on slurm --slurm time=1:00:00 --slurm cpus-per-task=3 --dry-run";
    let script = good(dir, &[words(toy), words(slurm)].concat());
    for line in [
        "#!/bin/",
        "#SBATCH --time=1:00:00",
        "#SBATCH --cpus-per-task=3",
        "resume",
    ] {
        assert!(script.contains(line), "{line} is not in {script}");
    }
    assert!(!dir.join("runs").exists());
    good(dir, &[words(toy), words("--threads 2")].concat());
    let before = fs::read_dir(dir.join("runs/mine")).unwrap().count();
    let script = good(dir, &["resume", "runs/mine", "--on", "slurm", "--dry-run"]);
    assert!(script.contains("#SBATCH --cpus-per-task=2"), "{script}");
    assert_eq!(fs::read_dir(dir.join("runs/mine")).unwrap().count(), before);
    let alone = nasfw(dir, &[words(toy), words("--dry-run")].concat());
    assert_eq!(alone.status.code(), Some(2));
}
