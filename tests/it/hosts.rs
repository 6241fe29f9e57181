//! Two hosts that share files and nothing else: two mounts of one folder, each with locks of its own, and two names.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant, SystemTime};

use nasfw::framework::run::{RunFolder, read_events};

use crate::program::{flat, good, kept, short_search, skipped};

struct Host {
    name: &'static str,
    mount: PathBuf,
}

impl Host {
    /// A host that has `files`; none where nothing like it can be made.
    fn new(files: &Path, around: &Path, name: &'static str) -> Option<Self> {
        let mount = around.join(name);
        fs::create_dir(&mount).unwrap();
        let mounted = Command::new("bindfs").arg(files).arg(&mount).output();
        mounted
            .is_ok_and(|o| o.status.success())
            .then_some(Self { name, mount })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        let named = format!(
            "echo {} > /proc/sys/kernel/hostname && exec \"$0\" \"$@\"",
            self.name
        );
        command
            .args(["--uts", "sh", "-c", &named, env!("CARGO_BIN_EXE_nasfw")])
            .args(words)
            .current_dir(&self.mount);
        kept(&mut command);
        command
    }

    fn start(&self, words: &[&str]) -> Child {
        self.command(words).spawn().unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.mount).output();
    }
}

fn text(out: &Output) -> String {
    flat(&out.stderr)
}

fn wait_for(what: &str, so: impl Fn() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(
            began.elapsed() < Duration::from_secs(100),
            "waited in vain for {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: a child that has not been waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, signal) };
}

/// One writes, the other is refused. One that was silent for too long is taken over; when it wakes up it writes nothing
/// more, and the run is as if there had been one process.
#[test]
fn of_two_hosts_with_locks_of_their_own_one_writes() {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("files");
    fs::create_dir(&files).unwrap();
    let hosts = ["alpha", "beta"].map(|name| Host::new(&files, dir.path(), name));
    let [Some(alpha), Some(beta)] = hosts else {
        return skipped(
            "of_two_hosts_with_locks_of_their_own_one_writes",
            "bindfs is not installed, or nothing can be mounted here",
        );
    };
    let lock = |host: &Host| {
        let mut file = File::options();
        file.write(true).create(true).truncate(false);
        file.open(host.mount.join("lock")).unwrap()
    };
    let (ours, theirs) = (lock(&alpha), lock(&beta));
    ours.try_lock().unwrap();
    theirs.try_lock().unwrap();

    good(&files, &short_search("whole", &[]));
    let run = files.join("runs/mine");
    let progress = || {
        let text = fs::read_to_string(run.join("events.jsonl")).unwrap_or_default();
        text.matches("\"progress\"").count()
    };
    let first = alpha.start(&short_search("mine", &[]));
    wait_for("steps", || progress() >= 5);
    signal(&first, libc::SIGSTOP);
    let refused = beta.command(&["resume", "runs/mine"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(4));
    assert!(
        text(&refused).contains("on host alpha"),
        "{}",
        text(&refused)
    );

    // As after 40 seconds, and after two minutes.
    let silent = |seconds| {
        let file = File::options().write(true).open(run.join(".lock")).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds))
            .unwrap();
    };
    silent(40);
    let refused = beta.command(&["resume", "runs/mine"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(4), "{}", text(&refused));
    silent(120);
    let second = beta.start(&["resume", "runs/mine"]);
    let holder = || {
        RunFolder::holder(&run)
            .and_then(|h| h.process)
            .map(|p| p.host)
    };
    wait_for("the second host", || holder().is_some_and(|h| h == "beta"));
    signal(&second, libc::SIGSTOP);
    // What a process knows of its own silence goes by the clock.
    std::thread::sleep(Duration::from_secs(16));
    signal(&first, libc::SIGCONT);
    let first = first.wait_with_output().unwrap();
    assert_eq!(first.status.code(), Some(4), "{}", text(&first));
    let words = text(&first);
    assert!(
        words.contains("taken over by process") && words.contains("on host beta"),
        "{words}"
    );
    signal(&second, libc::SIGCONT);
    let second = second.wait_with_output().unwrap();
    assert!(second.status.success(), "{}", text(&second));
    read_events(&run.join("events.jsonl")).unwrap();
    let result = |name: &str| fs::read(files.join("runs").join(name).join("result.json")).unwrap();
    assert_eq!(result("mine"), result("whole"));
    assert!(!run.join(".lock").exists());
}
