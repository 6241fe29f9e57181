//! Ctrl-C and SIGTERM: a real process saves, says so, ends with 130, and goes on when asked.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

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
                "25",
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
