//! `nasfw doctor`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::program::{good, skipped};

/// It knows the libtorch that is loaded: the version that the program was built with is the one that lies there.
#[test]
fn doctor_names_the_libtorch_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let said = good(dir.path(), &["doctor"]);
    let line = |name: &str| {
        let mut lines = said.lines().filter_map(|l| l.strip_prefix(name));
        lines.next().unwrap_or_else(|| panic!("{said}")).trim()
    };
    let version = line("nasfw").rsplit_once("for libtorch ").unwrap().1;
    let parts: Vec<_> = version.split('.').map(str::parse::<u32>).collect();
    assert!(
        parts.len() == 3 && parts.iter().all(Result::is_ok),
        "{said}"
    );
    // Python packages of libtorch say what they are; other forms need not.
    let beside = Path::new(line("libtorch")).join("../version.py");
    match fs::read_to_string(beside) {
        Ok(text) => {
            let local = format!("__version__ = '{version}+");
            let plain = format!("__version__ = '{version}'");
            assert!(text.contains(&local) || text.contains(&plain), "{text}");
        }
        Err(_) => skipped("doctor", "this libtorch is no Python package"),
    }
    assert!(dir.path().join("runs").is_dir());
}

/// What `cargo install --path .` does: the program lies elsewhere, and nothing says where libtorch is.
#[test]
fn the_program_starts_from_any_folder() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = dir.path().join("nasfw");
    fs::copy(env!("CARGO_BIN_EXE_nasfw"), &elsewhere).unwrap();
    let mut command = Command::new(elsewhere);
    let out = command
        .arg("--version")
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
}
