//! A run is a folder: resolved configuration, manifest, events, checkpoints, result, drawings.

mod event_log;
mod manifest;
mod tensorboard;

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

pub use event_log::{EVENT_LIMIT, EventLog, read_events};
pub use manifest::Manifest;
pub use tensorboard::TensorBoard;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::input;

/// File of the resolved configuration, as TOML for people.
pub const CONFIG: &str = "config.toml";
/// File of the typed configuration, which `resume` reads.
pub const RUN: &str = "run.json";
/// File of versions, device and data checksum.
pub const MANIFEST: &str = "manifest.json";
/// File of events, one JSON object a line: the source of truth.
pub const EVENTS: &str = "events.jsonl";
/// File of what was found.
pub const RESULT: &str = "result.json";
/// Folder of TensorBoard event files.
pub const TENSORBOARD: &str = "tensorboard";
/// Folder of checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";

/// The most bytes of a JSON file or a configuration in a run folder or a comparison's.
pub const FILE_LIMIT: u64 = 64 << 20;

/// A run folder, locked for this process.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: File,
}

impl RunFolder {
    /// Makes a new folder `name`, or `name-2`, `name-3` …, in `out`.
    pub fn create(out: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(out).map_err(Error::io("create the folder", out))?;
        let mut n = 1;
        loop {
            let path = out.join(if n == 1 {
                name.to_owned()
            } else {
                format!("{name}-{n}")
            });
            match fs::create_dir(&path) {
                Ok(()) => return Self::lock(path),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => n += 1,
                Err(e) => return Err(Error::io("create the folder", &path)(e)),
            }
        }
    }

    /// Opens an existing run.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.join(RUN).is_file() {
            return Err(Error::Run {
                path: path.to_owned(),
                problem: format!("this is no run folder, it has no {RUN}"),
                help:
                    "give the folder that `nasfw run` printed, for example `nasfw resume runs/NAME`"
                        .into(),
            });
        }
        Self::lock(path.to_owned())
    }

    /// Opens a folder of the caller's own, or makes it. Nothing need be in it.
    pub fn at(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(Error::io("create the folder", path))?;
        Self::lock(path.to_owned())
    }

    /// Whether a process works on this run: it holds the folder's lock. None on file systems whose locks can't tell.
    pub fn is_busy(path: &Path) -> Option<bool> {
        // Not `create`: a folder that is only looked at stays as it is.
        let Ok(lock) = File::open(path.join(".lock")) else {
            return Some(false);
        };
        // Shared, so that those who look are not in each other's way; held for no longer than this function takes.
        match lock.try_lock_shared() {
            Ok(()) => Some(false),
            Err(TryLockError::WouldBlock) => Some(true),
            Err(TryLockError::Error(_)) => None,
        }
    }

    fn lock(path: PathBuf) -> Result<Self> {
        let file = path.join(".lock");
        let lock = File::create(&file).map_err(Error::io("create", &file))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::Run {
                path,
                problem: "another process is working on this run".into(),
                help: "wait until it is done, or end it; then type the command again".into(),
            }),
            // Some network file systems can't lock. One writer at a time is then up to the user.
            Err(TryLockError::Error(_)) => Ok(Self { path, _lock: lock }),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file so that it is either there whole or as it was: temporary name, sync, rename.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        write_whole(&self.path.join(name), bytes)
    }

    /// Writes a value as indented JSON.
    pub fn write_json(&self, name: &str, value: &impl serde::Serialize) -> Result<()> {
        let mut text = serde_json::to_string_pretty(value).map_err(|e| Error::Invalid {
            what: name.into(),
            why: e.to_string(),
        })?;
        text.push('\n');
        self.write(name, text.as_bytes())
    }

    /// Reads a JSON file of this run.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        read_json(
            &self.path.join(name),
            "it was made by another version of nasfw, by plugins that this binary lacks, or was edited; start a new \
             run with `nasfw run`",
        )
    }
}

/// Reads a JSON file.
///
/// # Errors
/// A file that can't be read or has more than [`FILE_LIMIT`] bytes; one that can't be understood, with `help` as what to type then.
pub fn read_json<T: DeserializeOwned>(path: &Path, help: &str) -> Result<T> {
    let text = input::read_text(path, FILE_LIMIT).map_err(Error::io("read", path))?;
    serde_json::from_str(&text).map_err(|e| Error::Run {
        path: path.to_owned(),
        problem: format!("it can't be understood: {e}"),
        help: help.into(),
    })
}

/// Reads a JSON file that need not be there.
///
/// # Errors
/// As [`read_json`], but for a file that is missing.
pub fn read_json_if_there<T: DeserializeOwned>(path: &Path, help: &str) -> Result<Option<T>> {
    match read_json(path, help) {
        Ok(value) => Ok(Some(value)),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Writes a file under a temporary name, syncs it and renames it into place.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let attempt = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // The parent of a bare name is the empty path.
        match path.parent().filter(|p| !p.as_os_str().is_empty()) {
            Some(folder) => File::open(folder)?.sync_all(),
            None => File::open(".")?.sync_all(),
        }
    };
    attempt().map_err(|e| {
        let _ = fs::remove_file(&temporary);
        Error::io("write", path)(e)
    })
}
