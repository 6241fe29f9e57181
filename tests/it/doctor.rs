//! `nasfw doctor`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::program::{good, nasfw, skipped};

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

/// It says which tables and datasets there are, and a table that can't be used is not passed over.
#[test]
fn doctor_names_tables_and_datasets() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let said = good(dir, &["doctor"]);
    assert!(said.contains("tables     none is imported"), "{said}");
    assert!(said.contains("datasets   none that needs files"), "{said}");

    let files = [
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte.gz",
    ];
    let data = dir.join("data");
    fs::create_dir_all(&data).unwrap();
    for (i, file) in files.iter().enumerate() {
        let said = good(dir, &["doctor", "--data-dir", "data"]);
        assert!(!said.contains("fashion-mnist in"), "{i}: {said}");
        fs::write(data.join(file), "").unwrap();
    }
    let said = good(dir, &["doctor", "--data-dir", "data"]);
    assert!(
        said.contains("datasets   fashion-mnist in data\n"),
        "{said}"
    );

    let list: serde_json::Value =
        serde_json::from_str(&good(dir, &["bench", "list", "--json"])).unwrap();
    let file = Path::new(list[0]["file"].as_str().unwrap());
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, "no table").unwrap();
    let out = nasfw(dir, &["doctor"]);
    assert_eq!(out.status.code(), Some(3), "{out:?}");
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
