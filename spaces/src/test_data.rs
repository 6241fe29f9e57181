//! Development data that is not part of the project, for tests where it is at hand.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use flate2::read::GzDecoder;

/// A file of the folder `NASFW_TEST_DATA`. Where it is absent the test, after whose name its thread is called, is
/// noted in the list that `cargo xtask test` prints at its end.
pub fn file(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("NASFW_TEST_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")),
        PathBuf::from,
    );
    let path = folder.join(name);
    if path.exists() {
        return Some(path);
    }
    let thread = std::thread::current();
    let line = format!(
        "SKIPPED: {}: {name} is not in {}; set NASFW_TEST_DATA to its folder\n",
        thread.name().unwrap_or("?"),
        folder.display()
    );
    print!("{line}");
    if let Some(log) = std::env::var_os("NASFW_SKIP_LOG") {
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        log.write_all(line.as_bytes()).unwrap();
    }
    None
}

/// The content of a gzip-compressed one.
pub fn unpacked(name: &str) -> Option<Vec<u8>> {
    let packed = std::fs::read(file(name)?).unwrap();
    let mut bytes = Vec::new();
    GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
    Some(bytes)
}
