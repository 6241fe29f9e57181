//! Ctrl-C and signals: a real process saves, says so, ends with 130, and goes on when asked.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nasfw::framework::trainer::PATIENCE;

#[test]
fn signals_save_first_and_resume_goes_on() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let dir = tempfile::tempdir().unwrap();
        let nasfw = |args: &[&str]| {
            let mut c = Command::new(env!("CARGO_BIN_EXE_nasfw"));
            c.args(args)
                .current_dir(dir.path())
                .env("NASFW_NO_PROGRESS", "1");
            c
        };
        let args = |name: &'static str| {
            [
                "run",
                "--strategy",
                "vim",
                "--space",
                "toy-conv",
                "--epochs",
                "12",
                "--threads",
                "1",
                "--name",
                name,
                "--set",
                "trainer.checkpoint_every=100000",
                "--set",
                "trainer.log_every=1",
            ]
        };
        let whole = nasfw(&args("whole")).output().unwrap();
        assert!(
            whole.status.success(),
            "{}",
            String::from_utf8_lossy(&whole.stderr)
        );

        let mut child = nasfw(&args("r"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let events = dir.path().join("runs/r/events.jsonl");
        while fs::read_to_string(&events).map_or(0, |t| t.matches("\"progress\"").count()) < 5 {
            std::thread::sleep(Duration::from_millis(2));
            assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        }
        // SAFETY: the process is ours and still running or a zombie; its number can't have been given away.
        unsafe { libc::kill(child.id() as libc::pid_t, signal) };
        let out = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(130), "{text}");
        assert!(
            text.contains("everything up to it is saved") && text.contains("nasfw resume runs/r"),
            "{text}"
        );

        let resumed = nasfw(&["resume", "runs/r"]).output().unwrap();
        assert!(
            resumed.status.success(),
            "{}",
            String::from_utf8_lossy(&resumed.stderr)
        );
        let text = String::from_utf8_lossy(&resumed.stderr);
        let step = text
            .split("going on from step ")
            .nth(1)
            .expect("it says where it goes on");
        let step: u64 = step.split_whitespace().next().unwrap().parse().unwrap();
        assert!(
            step >= 5,
            "the checkpoint is that of the signal, not the first one: {step}"
        );
        let result =
            |run: &str| fs::read_to_string(dir.path().join(run).join("result.json")).unwrap();
        assert_eq!(result("runs/whole"), result("runs/r"));

        let again = nasfw(&["resume", "runs/r"]).output().unwrap();
        assert!(String::from_utf8_lossy(&again.stdout).contains("this run is finished"));
    }
}

/// A search that takes some seconds, one thread, with a progress event every step.
fn search(dir: &Path, name: &str) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_nasfw"));
    c.args(["run", "--strategy", "darts", "--space", "toy-conv"])
        .args(["--epochs", "25", "--threads", "1", "--name", name])
        .args(["--set", "trainer.checkpoint_every=100000"])
        .args(["--set", "trainer.log_every=1"])
        .current_dir(dir)
        .env("NASFW_NO_PROGRESS", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    // Whoever started the tests may have had it ignored, as `nohup` does.
    // SAFETY: it only sets what a signal does, which is allowed between fork and exec.
    unsafe {
        c.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        });
    }
    c
}

fn events(run: &Path, kind: &str) -> usize {
    let text = fs::read_to_string(run.join("events.jsonl")).unwrap_or_default();
    text.matches(&format!("\"event\":\"{kind}\"")).count()
}

/// Waits until a run has done so many steps.
fn wait_for_steps(run: &Path, child: &mut Child, steps: usize) {
    let began = Instant::now();
    while events(run, "progress") < steps {
        std::thread::sleep(Duration::from_millis(1));
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        assert!(began.elapsed() < Duration::from_secs(100), "no step");
    }
}

fn send(pid: u32, signal: i32) {
    // SAFETY: a process of this test that has not been waited for.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

/// Everything that people and clusters send, once or several times: the step is saved, the code is 130, the end the same.
#[test]
fn whatever_is_sent_and_however_often_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let whole = search(dir.path(), "whole").output().unwrap();
    assert!(whole.status.success());
    let result =
        |run: &str| fs::read(dir.path().join("runs").join(run).join("result.json")).unwrap();
    let (pause, none) = (Duration::from_millis(1), Duration::ZERO);
    let cases: [(&str, &[i32], Duration); 8] = [
        ("USR1", &[libc::SIGUSR1], none),
        ("USR2", &[libc::SIGUSR2], none),
        ("HUP", &[libc::SIGHUP], none),
        ("XCPU", &[libc::SIGXCPU], none),
        ("TERM, TERM", &[libc::SIGTERM; 2], none),
        ("TERM, TERM, TERM", &[libc::SIGTERM; 3], pause),
        ("INT, INT", &[libc::SIGINT; 2], pause),
        (
            "USR1, TERM, INT, HUP",
            &[libc::SIGUSR1, libc::SIGTERM, libc::SIGINT, libc::SIGHUP],
            pause,
        ),
    ];
    for (i, (what, signals, pause)) in cases.into_iter().enumerate() {
        let name = format!("r{i}");
        let run = dir.path().join("runs").join(&name);
        let mut child = search(dir.path(), &name).spawn().unwrap();
        wait_for_steps(&run, &mut child, 5);
        for signal in signals {
            send(child.id(), *signal);
            std::thread::sleep(pause);
        }
        let out = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert_eq!(
            out.status.code(),
            Some(130),
            "{what}: {:?} {text}",
            out.status
        );
        assert!(
            text.contains("everything up to it is saved"),
            "{what}: {text}"
        );
        assert_eq!(events(&run, "interrupted"), 1, "{what}");
        let steps = events(&run, "progress");

        let resumed = Command::new(env!("CARGO_BIN_EXE_nasfw"))
            .args(["resume", &format!("runs/{name}")])
            .current_dir(dir.path())
            .env("NASFW_NO_PROGRESS", "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&resumed.stderr);
        assert!(
            text.contains(&format!("going on from step {steps}")),
            "{what}: no step is done twice: {text}"
        );
        assert_eq!(result("whole"), result(&name), "{what}");
    }
}

/// A second request, seconds after the first, ends a program that is not getting to its next step; `last` words first.
#[test]
fn a_late_second_request_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    // Data that never come: it waits for somebody who writes into the pipe.
    let pipe = dir.path().join("data_batch_1.bin");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    for n in 2..=5 {
        fs::write(dir.path().join(format!("data_batch_{n}.bin")), "").unwrap();
    }
    fs::write(dir.path().join("test_batch.bin"), "").unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_nasfw"))
        .args([
            "run",
            "--space",
            "toy-conv",
            "--dataset",
            "cifar10",
            "--data-dir",
            ".",
            "--name",
            "r",
        ])
        .current_dir(dir.path())
        .env("NASFW_NO_PROGRESS", "1")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = dir.path().join("runs/r/log.jsonl");
    while !log.exists() {
        std::thread::sleep(Duration::from_millis(5));
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
    }
    std::thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    send(child.id(), libc::SIGTERM);
    while began.elapsed() < PATIENCE - Duration::from_secs(1) {
        send(child.id(), libc::SIGTERM);
        std::thread::sleep(Duration::from_millis(100));
        assert!(
            child.try_wait().unwrap().is_none(),
            "a request that came too soon ended it"
        );
    }
    std::thread::sleep(PATIENCE + Duration::from_millis(100) - began.elapsed());
    // Not a notice of a cluster, though.
    send(child.id(), libc::SIGUSR1);
    std::thread::sleep(Duration::from_millis(100));
    assert!(child.try_wait().unwrap().is_none());
    send(child.id(), libc::SIGTERM);
    let out = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(130), "{:?} {text}", out.status);
    assert!(
        text.contains("again after 5 seconds to end at once"),
        "{text}"
    );
    assert_eq!(text.matches("SIGTERM").count(), 1, "{text}");
}

/// As `nohup` does: a program that was started with SIGHUP ignored outlives its terminal.
#[test]
fn nohup_is_respected() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = search(dir.path(), "r");
    // SAFETY: signal is async-signal-safe, and nothing else happens between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            Ok(())
        });
    }
    let mut child = command.spawn().unwrap();
    let run = dir.path().join("runs/r");
    wait_for_steps(&run, &mut child, 5);
    send(child.id(), libc::SIGHUP);
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{out:?}");
    assert_eq!(events(&run, "interrupted"), 0);
}
