//! The live view in a real terminal: a pseudo-terminal that this test reads and types into.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::program::{good, nasfw};

const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

/// A program in a terminal of its own.
struct Pty {
    child: Child,
    keys: File,
    /// Kept open, so that its modes can be asked for after the program has ended.
    terminal: OwnedFd,
    output: Arc<Mutex<Vec<u8>>>,
    closed: Arc<AtomicBool>,
    reader: JoinHandle<()>,
}

impl Pty {
    fn start(dir: &Path, args: &[&str]) -> Self {
        Self::begin(dir, args, false)
    }

    /// With `controlling` it is the session's terminal, whose end the system tells of by SIGHUP.
    fn begin(dir: &Path, args: &[&str], controlling: bool) -> Self {
        let size = libc::winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let (ours, theirs) = terminal(size);
        let end = || Stdio::from(theirs.try_clone().unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_nasfw"));
        command
            .args(args)
            .current_dir(dir)
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .stdin(end())
            .stdout(end())
            .stderr(end());
        if controlling {
            // SAFETY: both are system calls that may be made between fork and exec.
            unsafe {
                command.pre_exec(|| {
                    if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY as _, 0) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                    Ok(())
                });
            }
        }
        let child = command.spawn().unwrap();
        // Its copies of the terminal are the command's until it is gone.
        drop(command);
        let keys = File::from(ours);
        let screen = keys.try_clone().unwrap();
        let output = Arc::new(Mutex::new(vec![]));
        let closed = Arc::new(AtomicBool::new(false));
        let (sink, over) = (Arc::clone(&output), Arc::clone(&closed));
        let reader = std::thread::spawn(move || copy(screen, &sink, &over));
        Self {
            child,
            keys,
            terminal: theirs,
            output,
            closed,
            reader,
        }
    }

    /// Closes the terminal, as closing its window does, and waits for the program's end.
    fn close(self) -> Option<i32> {
        let Self {
            mut child,
            keys,
            terminal,
            closed,
            reader,
            ..
        } = self;
        closed.store(true, Ordering::SeqCst);
        reader.join().unwrap();
        drop((keys, terminal));
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            if began.elapsed() > Duration::from_secs(20) {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("it goes on without a terminal");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap()).into_owned()
    }

    fn wait_for(&self, part: &str) {
        let began = Instant::now();
        while !self.text().contains(part) {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "no {part:?}: {:?}",
                self.text()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, signal: i32) {
        // SAFETY: the child was not waited for, so its number is still its own.
        unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
    }

    /// Waits for the end: the exit code, once the terminal is found to be as it was.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        let began = Instant::now();
        while self.text().matches(LEAVE).count() == 0 && began.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let text = self.text();
        assert_eq!(text.matches(ENTER).count(), 1, "{text:?}");
        assert_eq!(text.matches(LEAVE).count(), 1, "{text:?}");
        assert!(
            text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l"),
            "the cursor is back"
        );
        // SAFETY: all bytes zero is a valid value, which the call then fills.
        let modes = unsafe {
            let mut modes: libc::termios = std::mem::zeroed();
            assert_eq!(libc::tcgetattr(self.terminal.as_raw_fd(), &mut modes), 0);
            modes.c_lflag
        };
        let cooked = libc::ICANON | libc::ECHO | libc::ISIG;
        assert_eq!(
            modes & cooked,
            cooked,
            "line editing, echo and signals are back"
        );
        (code, text)
    }
}

/// Both ends of a new terminal. No other process ever has them: while one holds our end, the terminal is not closed.
fn terminal(size: libc::winsize) -> (OwnedFd, OwnedFd) {
    let mut name = [0; 128];
    // SAFETY: the pointers are valid for the calls; the new end belongs to nobody else.
    let ours = unsafe {
        let ours = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        assert!(ours >= 0);
        let ours = OwnedFd::from_raw_fd(ours);
        let fd = ours.as_raw_fd();
        assert_eq!(libc::grantpt(fd), 0);
        assert_eq!(libc::unlockpt(fd), 0);
        assert_eq!(libc::ptsname_r(fd, name.as_mut_ptr(), name.len()), 0);
        assert_eq!(libc::ioctl(fd, libc::TIOCSWINSZ, &raw const size), 0);
        ours
    };
    // SAFETY: the call above ended it with a zero.
    let name = unsafe { std::ffi::CStr::from_ptr(name.as_ptr()) };
    let theirs = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(name.to_str().unwrap())
        .unwrap();
    (ours, theirs.into())
}

/// Copies what a program writes, until `over`.
fn copy(mut screen: File, sink: &Mutex<Vec<u8>>, over: &AtomicBool) {
    let mut bytes = [0; 4096];
    while !over.load(Ordering::SeqCst) {
        let mut fd = libc::pollfd {
            fd: screen.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: it is one valid entry, for the time of the call.
        if unsafe { libc::poll(&raw mut fd, 1, 20) } <= 0 {
            continue;
        }
        match screen.read(&mut bytes) {
            Ok(n @ 1..) => sink.lock().unwrap().extend_from_slice(&bytes[..n]),
            _ => return,
        }
    }
}

fn search(epochs: &'static str, more: &[&'static str]) -> Vec<&'static str> {
    let run = [
        "run",
        "--strategy",
        "darts",
        "--space",
        "toy-conv",
        "--threads",
        "1",
        "--name",
        "r",
        "--set",
        "trainer.log_every=1",
        "--epochs",
        epochs,
    ];
    [&run[..], more].concat()
}

#[test]
fn q_leaves_the_view_and_the_search_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut pty = Pty::start(dir.path(), &search("60", &["--tui"]));
    pty.wait_for("darts on toy-conv");
    pty.wait_for("entropy per edge");
    pty.keys.write_all(b"?").unwrap();
    // Only what changes is written, so that words come one by one.
    pty.wait_for("this");
    pty.keys.write_all(b"q").unwrap();
    let (code, text) = pty.end();
    assert_eq!(code, Some(0), "{text}");
    let after = text.rsplit(LEAVE).next().unwrap();
    assert!(
        after.contains("result: ") && text.contains("run folder: "),
        "{after}"
    );
    assert!(dir.path().join("runs/r/result.json").is_file());
}

#[test]
fn ctrl_c_and_signals_save_and_restore_the_terminal() {
    for how in [None, Some(libc::SIGTERM)] {
        let dir = tempfile::tempdir().unwrap();
        let mut pty = Pty::start(dir.path(), &search("100000", &["--tui"]));
        pty.wait_for("entropy per edge");
        match how {
            None => pty.keys.write_all(b"\x03").unwrap(),
            Some(signal) => pty.signal(signal),
        }
        let (code, text) = pty.end();
        assert_eq!(code, Some(130), "{text}");
        let after = text.rsplit(LEAVE).next().unwrap();
        assert!(after.contains("nasfw resume runs/r"), "{after}");
    }
}

/// Two SIGINT a millisecond apart, as an impatient hand or a terminal with its group gives them. `TRIES` is how
/// often that is tried, with the view and without.
#[test]
fn two_interrupts_a_moment_apart_save_as_one_does() {
    let tries = std::env::var("TRIES").map_or(2, |n| n.parse().unwrap());
    for n in 0..tries {
        for view in [&["--tui"][..], &[]] {
            let dir = tempfile::tempdir().unwrap();
            let pty = Pty::start(dir.path(), &search("100000", view));
            let run = dir.path().join("runs/r");
            let events = || std::fs::read_to_string(run.join("events.jsonl")).unwrap_or_default();
            let began = Instant::now();
            // Not always in the same part of a step.
            while events().matches("\"progress\"").count() < 3 + n % 5 {
                assert!(began.elapsed() < Duration::from_secs(60), "{}", pty.text());
                std::thread::sleep(Duration::from_millis(2));
            }
            pty.signal(libc::SIGINT);
            std::thread::sleep(Duration::from_millis(1));
            pty.signal(libc::SIGINT);
            let Pty {
                mut child, output, ..
            } = pty;
            let status = child.wait().unwrap();
            let said = String::from_utf8_lossy(&output.lock().unwrap()).into_owned();
            assert_eq!(status.code(), Some(130), "{status}: {said}");
            assert!(!run.join(".lock").exists());
            let text = events();
            let last: serde_json::Value =
                serde_json::from_str(text.lines().last().unwrap()).unwrap();
            assert_eq!(last["event"], "interrupted", "{text}");
            assert_eq!(text.matches("\"interrupted\"").count(), 1, "{text}");
            // What goes on, goes on from that step.
            let mut resumed = Command::new(env!("CARGO_BIN_EXE_nasfw"))
                .args(["resume", "runs/r"])
                .current_dir(dir.path())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let begins = format!("{{\"event\":\"started\",\"step\":{},", last["step"]);
            while events().matches("\"started\"").count() < 2 {
                assert!(resumed.try_wait().unwrap().is_none(), "it does not go on");
                std::thread::sleep(Duration::from_millis(5));
            }
            resumed.kill().unwrap();
            resumed.wait().unwrap();
            assert!(events().contains(&begins), "{begins}: {}", events());
        }
    }
}

/// Whether the terminal is the session's or only where it reads and writes.
#[test]
fn a_closed_terminal_ends_the_view_and_saves_the_search() {
    for controlling in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let args = search("100000", &["--tui"]);
        let pty = Pty::begin(dir.path(), &args, controlling);
        pty.wait_for("entropy per edge");
        let watching = Pty::begin(dir.path(), &["watch", "runs/r"], controlling);
        watching.wait_for("running");
        assert_eq!(watching.close(), Some(130));
        assert_eq!(pty.close(), Some(130));
        let run = dir.path().join("runs/r");
        assert!(!run.join(".lock").exists());
        let events = std::fs::read_to_string(run.join("events.jsonl")).unwrap();
        assert_eq!(events.matches("\"interrupted\"").count(), 1);
        assert!(events.lines().last().unwrap().contains("\"interrupted\""));
    }
}

#[test]
fn a_running_run_is_found_and_watched_and_a_signal_restores_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Command::new(env!("CARGO_BIN_EXE_nasfw"))
        .args(search("100000", &[]))
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let events = dir.path().join("runs/r/events.jsonl");
    while std::fs::metadata(&events).map_or(0, |m| m.len()) < 10_000 {
        assert!(running.try_wait().unwrap().is_none(), "it ended too early");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut pty = Pty::start(dir.path(), &["watch"]);
    pty.wait_for("running");
    pty.wait_for("entropy per edge");
    pty.keys.write_all(b"q").unwrap();
    assert_eq!(pty.end().0, Some(0));
    let pty = Pty::start(dir.path(), &["watch", "runs/r"]);
    pty.wait_for("running");
    pty.signal(libc::SIGTERM);
    assert_eq!(pty.end().0, Some(130));
    running.kill().unwrap();
    running.wait().unwrap();

    let frame = good(dir.path(), &["watch", "runs/r", "--once"]);
    assert!(
        frame.contains("stopped") && frame.contains("nasfw resume runs/r"),
        "{frame}"
    );
    let none = nasfw(dir.path(), &["watch"]);
    let text = String::from_utf8_lossy(&none.stderr);
    assert_eq!(none.status.code(), Some(4));
    assert!(text.contains("nasfw watch runs/r"), "{text}");
}

#[test]
fn without_a_terminal_it_says_what_to_type() {
    let dir = tempfile::tempdir().unwrap();
    good(dir.path(), &search("1", &[]));
    let refused = nasfw(dir.path(), &["watch", "runs/r"]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{text}");
    assert!(text.contains("--once"), "{text}");
    let frame = good(dir.path(), &["watch", "runs/r", "--once"]);
    assert!(
        frame.contains("finished") && frame.contains("darts on toy-conv"),
        "{frame}"
    );
    let refused = nasfw(
        dir.path(),
        &["run", "--space", "toy-conv", "--tui", "--name", "x"],
    );
    assert_eq!(refused.status.code(), Some(2));
    assert!(!dir.path().join("runs/x").exists());
    let missing = nasfw(dir.path(), &["watch", "nowhere"]);
    assert_eq!(missing.status.code(), Some(4));
}
