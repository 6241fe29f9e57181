//! How xtask talks.
#![allow(clippy::unwrap_used, missing_docs)]

#[cfg(unix)]
#[test]
fn a_reader_that_has_gone_away_makes_no_panic() {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    let xtask = |out: Stdio| {
        let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
        xtask.arg("help").stdout(out).stderr(Stdio::piped());
        let mut child = xtask.spawn().unwrap();
        drop(child.stdout.take());
        child.wait_with_output().unwrap()
    };
    assert!(xtask(Stdio::null()).status.success());
    // Its end for reading is closed before the program writes or while it does.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let out = xtask(writer.into());
    assert_eq!(String::from_utf8_lossy(&out.stderr), "");
    assert_eq!(out.status.signal(), Some(13), "SIGPIPE");
}
