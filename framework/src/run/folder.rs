//! The folder of a run, and JSON files in it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::lock::{self, Holder};
use super::whole::{self, write_whole};
use crate::error::{Error, Result};
use crate::files::{CHECKPOINTS, CONFIG, RUN};
use crate::input;

/// The most bytes of a JSON file or a configuration in a run folder or a comparison's.
pub const FILE_LIMIT: u64 = 64 << 20;

/// How late other hosts may see what one has written.
const LATE: Duration = Duration::from_secs(60);

/// What to do about a file of a run that can't be understood.
pub(super) const HELP: &str = "it was made by another version of nasfw, by plugins that this binary lacks, or was edited; start a \
                    new run with `nasfw run`";

/// A run folder, this process's to write to, or that of the first of several processes. Those who only read need none:
/// [`need_run`], [`read_stored`].
#[derive(Debug)]
pub struct RunFolder {
    pub(super) path: PathBuf,
    /// None where another process of the run writes.
    pub(super) lock: Option<lock::Lock>,
    /// Whether this process made it.
    made: bool,
}

impl RunFolder {
    /// Makes a new folder `name`, or `name-2`, `name-3` …, in `out`.
    ///
    /// # Errors
    /// Whatever the disk has to say.
    pub fn create(out: &Path, name: &str) -> Result<Self> {
        let mut n = 1;
        loop {
            let path = out.join(if n == 1 {
                name.to_owned()
            } else {
                format!("{name}-{n}")
            });
            if make(&path)? {
                return Self::begin(path);
            }
            n += 1;
        }
    }

    /// Opens an existing run.
    ///
    /// # Errors
    /// A folder that is no run, or that another process works on.
    pub fn open(path: &Path) -> Result<Self> {
        need_run(path)?;
        Self::lock(path.to_owned(), false)
    }

    /// A run that another process of it, which has told this one of it, writes to: whatever is written here is written there.
    ///
    /// # Errors
    /// A folder that can't be seen from here.
    pub fn follow(path: &Path) -> Result<Self> {
        // A network file system may show what another host has just written a little later.
        let until = Instant::now() + LATE;
        while need_run(path).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(100));
        }
        need_run(path).map_err(|_| Error::Run {
            path: path.to_owned(),
            problem: "process 0 has this run folder, but here it can't be seen".into(),
            help: "give a folder that all hosts share, `--out DIR`".into(),
        })?;
        Ok(Self {
            path: path.to_owned(),
            lock: None,
            made: false,
        })
    }

    /// Whether this process writes to it.
    pub(crate) fn is_ours(&self) -> bool {
        self.lock.is_some()
    }

    /// Opens a folder of the caller's own, or makes it. Nothing need be in it.
    ///
    /// # Errors
    /// A folder that another process works on, or that can't be written to.
    pub fn at(path: &Path) -> Result<Self> {
        if make(path)? {
            return Self::begin(path.to_owned());
        }
        Self::lock(path.to_owned(), false)
    }

    /// Whether a folder holds nothing but what a process writes before [`RUN`]: nothing in it is lost when a run begins
    /// there.
    pub fn is_torso(path: &Path) -> bool {
        let ours = |name: &std::ffi::OsStr| {
            name == CONFIG || name == lock::LOCK || whole::is_unfinished(name)
        };
        fs::read_dir(path).is_ok_and(|entries| {
            entries
                .into_iter()
                .all(|entry| entry.is_ok_and(|e| ours(&e.file_name())))
        })
    }

    /// Who works on a folder; none if nobody does. Nothing in it is changed.
    pub fn holder(path: &Path) -> Option<Holder> {
        lock::holder(path)
    }

    /// Locks a folder that was just made. On a full disk nothing of it stays.
    fn begin(path: PathBuf) -> Result<Self> {
        Self::lock(path.clone(), true).inspect_err(|_| {
            // A folder that anything is in can't be removed like this.
            let _ = fs::remove_dir(&path);
        })
    }

    fn lock(path: PathBuf, made: bool) -> Result<Self> {
        let lock = lock::Lock::take(&path)?;
        for folder in [&path, &path.join(CHECKPOINTS)] {
            whole::remove_leftovers(folder);
        }
        Ok(Self {
            path,
            lock: Some(lock),
            made,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is still there, and still this process's. Everything that writes asks first.
    ///
    /// # Errors
    /// A folder that was moved, removed, or taken over by another process.
    pub fn check(&self) -> Result<()> {
        self.lock.as_ref().map_or(Ok(()), |l| l.check(&self.path))
    }

    /// The same for what is written all the time: it asks only where another process may have taken this one for dead.
    ///
    /// # Errors
    /// As [`RunFolder::check`].
    pub fn check_after_silence(&self) -> Result<()> {
        let lock = self.lock.as_ref();
        lock.map_or(Ok(()), |l| l.check_after_silence(&self.path))
    }

    /// Writes a file so that it is either there whole or as it was: temporary name, sync, rename.
    ///
    /// # Errors
    /// As [`RunFolder::check`]; whatever the disk has to say.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.put(&self.path.join(name), bytes)
    }

    /// The same of a file by its path, in this folder. Where it fails because the folder went away meanwhile, the error
    /// says that.
    pub(crate) fn put(&self, file: &Path, bytes: &[u8]) -> Result<()> {
        if !self.is_ours() {
            return Ok(());
        }
        self.check()?;
        write_whole(file, bytes).map_err(|failed| self.check().err().unwrap_or(failed))
    }

    /// Writes a value as indented JSON.
    ///
    /// # Errors
    /// As [`RunFolder::write`].
    pub fn write_json(&self, name: &str, value: &impl serde::Serialize) -> Result<()> {
        self.write(name, &to_json(name, value)?)
    }

    /// Reads a JSON file of this run.
    ///
    /// # Errors
    /// As [`read_stored`].
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        read_stored(&self.path, name)
    }

    /// Removes it with all that is in it, if this process made it: one that was there before stays.
    ///
    /// # Errors
    /// As [`RunFolder::check`], so that nobody else's folder goes; whatever the disk has to say.
    pub fn discard(self) -> Result<()> {
        self.check()?;
        if !self.made {
            return Ok(());
        }
        fs::remove_dir_all(&self.path).map_err(Error::io("remove", &self.path))
    }
}

/// Makes a folder and those around it. False if it is there already.
pub(super) fn make(path: &Path) -> Result<bool> {
    let failed = |path: &Path, e| Error::io("create the folder", path)(e);
    if let Some(around) = path.parent() {
        fs::create_dir_all(around).map_err(|e| failed(around, e))?;
    }
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(failed(path, e)),
    }
}

/// Name of a folder, also of `.` and `..`, which have none of their own.
pub fn name_of(folder: &Path) -> String {
    let whole = folder.canonicalize();
    let path = whole.as_deref().unwrap_or(folder);
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// Refuses a folder that is no run.
///
/// # Errors
/// [`Error::Run`] with what to type.
pub fn need_run(path: &Path) -> Result<()> {
    if path.join(RUN).is_file() {
        return Ok(());
    }
    Err(Error::Run {
        path: path.to_owned(),
        problem: format!("this is no run folder, it has no {RUN}"),
        help: "give the folder that `nasfw run` printed, for example `nasfw resume runs/NAME`"
            .into(),
    })
}

/// Reads a JSON file of a run folder, whoever works on that.
///
/// # Errors
/// A file that can't be read or understood.
pub fn read_stored<T: DeserializeOwned>(run: &Path, name: &str) -> Result<T> {
    read_json(&run.join(name), HELP)
}

/// A value as indented JSON; `what` names it in an error.
///
/// # Errors
/// A value that JSON can't hold.
pub fn to_json(what: &str, value: &impl serde::Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|e| Error::Invalid {
        what: what.into(),
        why: e.to_string(),
    })?;
    text.push(b'\n');
    Ok(text)
}

/// Reads a JSON file.
///
/// # Errors
/// A file that can't be read or has more than [`FILE_LIMIT`] bytes; one that can't be understood, with `help` as what to
/// type then.
pub fn read_json<T: DeserializeOwned>(path: &Path, help: &str) -> Result<T> {
    let bytes = input::read(path, FILE_LIMIT).map_err(Error::io("read", path))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Run {
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
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
