//! Who works on a folder: one process at a time, on whichever host.
//!
//! The file `.lock` says who, and is there from the moment on that somebody does; it goes when they are done. It appears
//! whole, by a link that only one process can make. A dead process's is taken over. Whether its owner is dead is known
//! on the same host; on another one it is believed when the file has not been touched for a while, since its owner
//! touches it every few seconds. The system's lock on the file (`flock`) is one more witness: where it says that
//! somebody holds it, somebody does; where it says nothing, as on some network file systems, the rest decides.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use super::host::Process;
use super::whole::{cannot, unfinished};
use crate::error::{Error, Result};

/// The file that says who works on a folder.
pub(super) const LOCK: &str = ".lock";
/// How often the owner of a lock shows that it is alive.
const BEAT: Duration = Duration::from_secs(10);
/// After how long without a sign of life the owner of a lock on another host is taken for dead. Network file systems
/// show some changes only after a minute.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often a lock is tried that seems to be held, by somebody who only looks at it.
const LOOKS: u32 = 20;
/// Longest `.lock` that is read.
const LONGEST: u64 = 4096;

/// Somebody works on a folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Holder {
    /// Who, where `.lock` says so.
    pub process: Option<Process>,
    /// How long ago it showed that it is alive, where that is what it is judged by.
    pub silent: Option<Duration>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.process {
            Some(process) => write!(f, "{process}")?,
            None => write!(f, "a process that the file {LOCK} does not name")?,
        }
        match self.silent {
            Some(silent) => write!(f, ", last sign of life {} s ago", silent.as_secs()),
            None => Ok(()),
        }
    }
}

/// What a `.lock` that is there amounts to.
enum Found {
    /// Somebody's.
    Held(Holder),
    /// Nobody's. The system's lock on it, where there is one, is held by this value.
    Stale(File),
}

/// A folder's lock, held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    record: Vec<u8>,
    /// Holds the system's lock.
    _file: File,
    beat: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Lock {
    /// Takes the lock of a folder.
    ///
    /// # Errors
    /// [`Error::Run`] where somebody works on it; a folder that can't be written to.
    pub fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(LOCK);
        let failed = |e| Error::io("create", &path)(e);
        let record = serde_json::to_vec(&Process::this()).map_err(|e| Error::Invalid {
            what: LOCK.into(),
            why: e.to_string(),
        })?;
        let temporary = unfinished(&path);
        let take = || -> Result<Self> {
            let mut file = File::create_new(&temporary).map_err(failed)?;
            file.write_all(&record)
                .and_then(|()| file.sync_all())
                .map_err(failed)?;
            // Nobody else knows this file yet. Where the system can't lock, the record alone counts.
            let _ = file.try_lock();
            loop {
                // The clock of whoever keeps the files, which is not always this host's.
                let now = file.metadata().and_then(|m| m.modified()).ok();
                let placed = match find(&path, now, File::try_lock)? {
                    Some(Found::Held(holder)) => return Err(held(folder, &holder)),
                    // The system's lock on it keeps others on this host from doing the same.
                    Some(Found::Stale(_locked)) => fs::rename(&temporary, &path).map(|()| true),
                    None => place(&temporary, &path),
                };
                if placed.map_err(failed)? {
                    break;
                }
            }
            let beat = beat(file.try_clone().map_err(failed)?, record.clone());
            let lock = Self {
                path: path.clone(),
                record: record.clone(),
                _file: file,
                beat,
            };
            // Another host may have judged the same lock at the same moment.
            lock.check(folder).map(|()| lock)
        };
        let taken = take();
        let _ = fs::remove_file(&temporary);
        taken
    }

    /// Whether the folder is still there, and still this process's.
    ///
    /// # Errors
    /// [`Error::Run`] where it was moved or removed, or another process took it over.
    pub fn check(&self, folder: &Path) -> Result<()> {
        let wrong = |problem: String, help: &str| Error::Run {
            path: folder.to_owned(),
            problem,
            help: help.into(),
        };
        match fs::read(&self.path) {
            Ok(record) if record == self.record => Ok(()),
            Ok(record) => Err(wrong(
                match serde_json::from_slice::<Process>(&record) {
                    Ok(other) => format!("it was taken over by {other}"),
                    Err(_) => format!("its {LOCK} was written over"),
                },
                "this process took too long to show that it is alive, and left the run to the other one",
            )),
            Err(e) if e.kind() == ErrorKind::NotFound => Err(wrong(
                if folder.exists() {
                    format!("its {LOCK} was removed while a process was working on it")
                } else {
                    "it was moved away or removed while a process was working on it".into()
                },
                "everything up to the last checkpoint is in the folder, wherever it is now: go on with \
                 `nasfw resume` there",
            )),
            Err(e) => Err(Error::io("read", &self.path)(e)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.beat.take() {
            drop(stop);
            let _ = thread.join();
        }
        if fs::read(&self.path).is_ok_and(|record| record == self.record) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Who works on a folder; none if nobody does. Nothing is written.
pub(super) fn holder(folder: &Path) -> Option<Holder> {
    // Shared, so that those who look are not in each other's way.
    let now = Some(SystemTime::now());
    match find(&folder.join(LOCK), now, File::try_lock_shared) {
        Ok(None | Some(Found::Stale(_))) => None,
        Ok(Some(Found::Held(holder))) => Some(holder),
        // What can't be read can't be taken for free.
        Err(_) => Some(Holder {
            process: None,
            silent: None,
        }),
    }
}

/// What there is at `path`; none for nothing. `now` is what the clock says that files are dated by.
fn find(
    path: &Path,
    now: Option<SystemTime>,
    lock: fn(&File) -> std::result::Result<(), TryLockError>,
) -> Result<Option<Found>> {
    let failed = |e| Error::io("read", path)(e);
    let mut looks = 0;
    loop {
        // On some network file systems only a file that may be written to can be locked.
        let opened = match File::options().read(true).write(true).open(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => File::open(path),
            opened => opened,
        };
        let mut file = match opened {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let mut record = vec![];
        let read = Read::by_ref(&mut file)
            .take(LONGEST)
            .read_to_end(&mut record);
        read.map_err(failed)?;
        let process: Option<Process> = serde_json::from_slice(&record).ok();
        let alive = process.as_ref().and_then(Process::is_alive);
        let locked = match lock(&file) {
            Ok(()) => Some(true),
            Err(TryLockError::WouldBlock) => {
                // Whoever looks at a dead process's lock holds it for a moment.
                if alive == Some(true) || looks == LOOKS {
                    let silent = None;
                    return Ok(Some(Found::Held(Holder { process, silent })));
                }
                looks += 1;
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
            Err(TryLockError::Error(_)) => None,
        };
        if !is_at(&file, path) {
            // It was replaced or removed in between.
            continue;
        }
        // Locks can be local to a host, or to one of several mounts: that it could be had says nothing of others.
        let dead = match (alive, &process, locked) {
            (Some(alive), ..) => Some(!alive),
            // An earlier version's, which says nothing, or one that was never written to the end.
            (None, None, Some(true)) => Some(true),
            (None, ..) => None,
        };
        let silent = match dead {
            Some(true) => return Ok(Some(Found::Stale(file))),
            Some(false) => None,
            None => {
                let touched = file.metadata().and_then(|m| m.modified()).ok();
                let silent = now
                    .zip(touched)
                    .map(|(now, touched)| now.duration_since(touched).unwrap_or_default());
                if silent.is_some_and(|silent| silent >= PATIENCE) {
                    return Ok(Some(Found::Stale(file)));
                }
                silent
            }
        };
        return Ok(Some(Found::Held(Holder { process, silent })));
    }
}

/// Whether a path still leads to an open file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.metadata()) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Gives a file the name of the lock, unless another process was faster.
fn place(temporary: &Path, path: &Path) -> std::io::Result<bool> {
    match fs::hard_link(temporary, path) {
        Ok(()) => Ok(true),
        // Without links: claim the name, then give it to the file.
        Err(e) if cannot(&e) || e.kind() == ErrorKind::PermissionDenied => {
            match File::create_new(path) {
                Ok(_) => fs::rename(temporary, path).map(|()| true),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
                // The loser of a race is sometimes told something else.
                Err(_) if path.exists() => Ok(false),
                Err(e) => Err(e),
            }
        }
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    }
}

fn held(folder: &Path, holder: &Holder) -> Error {
    Error::Run {
        path: folder.to_owned(),
        problem: format!("another process is working on this run: {holder}"),
        help: match holder.silent {
            None => "wait until it is done, or end it; then type the command again".into(),
            Some(silent) => format!(
                "wait until it is done, or end it; then type the command again. If it is dead, its lock counts no more in \
                 {} s",
                PATIENCE.saturating_sub(silent).as_secs() + 1
            ),
        },
    }
}

/// Writes the same record again and again, which dates the file anew by the clock of whoever keeps it.
fn beat(file: File, record: Vec<u8>) -> Option<(Sender<()>, JoinHandle<()>)> {
    let (stop, stopped) = channel();
    let thread = std::thread::Builder::new()
        .name("lock".into())
        .spawn(move || {
            while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                let _ = file
                    .write_all_at(&record, 0)
                    .and_then(|()| file.sync_data());
            }
        });
    thread.ok().map(|thread| (stop, thread))
}
