//! The process that has PyTorch.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::cases::Case;
use crate::program::{pytorch, skipped};

/// Why a test is skipped.
pub const NO_PYTORCH: &str = "no Python with torch and safetensors in target/python";

/// A Python that checks one folder after the other.
pub struct Checker {
    process: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    folder: TempDir,
}

impl Checker {
    /// None, which is said, where there is no Python with PyTorch.
    pub fn start(test: &str) -> Option<Self> {
        let Some(python) = pytorch() else {
            skipped(test, NO_PYTORCH);
            return None;
        };
        let mut process = Command::new(python)
            .args(["-c", include_str!("check.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Some(Self {
            asks: process.stdin.take().unwrap(),
            answers: BufReader::new(process.stdout.take().unwrap()),
            process,
            folder: tempfile::tempdir().unwrap(),
        })
    }

    /// What it finds.
    pub fn check(&mut self, case: &Case) -> Value {
        case.write(self.folder.path());
        writeln!(self.asks, "{}", self.folder.path().display()).unwrap();
        self.asks.flush().unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        if let Some(error) = answer["error"].as_str() {
            let kept = std::env::temp_dir().join("nasfw-pytorch-failed.py");
            std::fs::write(&kept, &case.source).unwrap();
            panic!("{}: {error}\n{}", case.name, kept.display());
        }
        answer
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        // It ends by itself when there is nothing more to read, but not while it is in the middle of something.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
