//! Tests that could not run where they were: said, listed and counted, never silent.
//!
//! The harness hides what a passing test prints. So a test that finds its data or network absent
//! appends one line `SKIPPED: test: reason` to the file that the environment variable
//! `NASFW_SKIP_LOG` names, and returns.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// The variable that names the log to the tests.
pub const VARIABLE: &str = "NASFW_SKIP_LOG";

/// The file that the tests append to.
pub struct SkipLog {
    pub path: PathBuf,
}

impl SkipLog {
    /// An empty log in `folder`.
    pub fn create(folder: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(folder).map_err(|e| Failure::io("create", folder, &e))?;
        let path = folder.join("skipped-tests.log");
        fs::write(&path, "").map_err(|e| Failure::io("write", &path, &e))?;
        Ok(SkipLog { path })
    }

    /// The lines that tests left, sorted, each once.
    pub fn lines(&self) -> Result<Vec<String>, Failure> {
        let text = fs::read(&self.path).map_err(|e| Failure::io("read", &self.path, &e))?;
        let text = String::from_utf8_lossy(&text);
        let mut lines: Vec<String> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines.dedup();
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_of_several_writers_are_collected_and_an_old_log_is_emptied() {
        let dir = tempfile::TempDir::new().unwrap();
        let log = SkipLog::create(&dir.path().join("target")).unwrap();
        assert!(log.lines().unwrap().is_empty());
        for line in [
            "SKIPPED: b: no data\n",
            "SKIPPED: a: no network\n",
            "SKIPPED: b: no data\n",
        ] {
            let mut file = fs::OpenOptions::new().append(true).open(&log.path).unwrap();
            file.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(
            log.lines().unwrap(),
            ["SKIPPED: a: no network", "SKIPPED: b: no data"]
        );
        let log = SkipLog::create(&dir.path().join("target")).unwrap();
        assert!(log.lines().unwrap().is_empty());
    }
}
