//! The real program in a folder of its own.

use std::path::Path;
use std::process::{Command, Output};

/// Runs `nasfw` in a folder, with its cache in there, too. A case that should be refused but trains for 600 epochs must
/// not hang the tests.
pub fn nasfw(dir: &Path, args: &[&str]) -> Output {
    Command::new("timeout")
        .args(["120", env!("CARGO_BIN_EXE_nasfw")])
        .args(args)
        .current_dir(dir)
        .env("NASFW_NO_PROGRESS", "1")
        .env("NO_COLOR", "1")
        .env("XDG_CACHE_HOME", dir.join("cache"))
        .output()
        .unwrap()
}

/// Standard output of a command that must succeed.
pub fn good(dir: &Path, args: &[&str]) -> String {
    let out = nasfw(dir, args);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{args:?}: {text}");
    String::from_utf8(out.stdout).unwrap()
}

/// Says that a test could not run here, and in the file that `cargo xtask test` lists such tests from.
pub fn skipped(test: &str, why: &str) {
    let line = format!("SKIPPED: {test}: {why}");
    println!("{line}");
    if let Some(log) = std::env::var_os("NASFW_SKIP_LOG") {
        use std::io::Write;
        let mut log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        writeln!(log, "{line}").unwrap();
    }
}
