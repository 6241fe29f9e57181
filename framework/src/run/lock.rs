//! Who works on a folder: one process at a time, on whichever host.
//!
//! The file `.lock` says who, and is there from the moment on that somebody does; it goes when they are done. It appears
//! whole, by a link that only one process can make. A dead process's is taken over. Whether its owner is dead is known
//! on the same host; on another one it is believed when the file has not been touched for a while, since its owner
//! touches it every few seconds; sooner where the engine of the job that it belonged to says that this is over. The
//! system's lock on the file (`flock`) is one more witness: where it says that somebody holds it, somebody does; where
//! it says nothing, as on some network file systems, the rest decides.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
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
/// After how long without a sign of life of its own a process doubts that its lock is still its own: one is missing.
const DOUBT: Duration = Duration::from_secs(15);
/// After how long without a sign of life an engine is asked whether the owner's job is over.
const SILENCE: Duration = Duration::from_secs(30);
/// How often a lock is tried that seems to be held, by somebody who only looks at it.
const LOOKS: u32 = 20;
/// How long to wait in between.
const PAUSE: Duration = Duration::from_millis(10);
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
    /// Nobody's.
    Stale(Stale),
}

/// A dead process's lock.
struct Stale {
    /// What it says.
    record: Vec<u8>,
    /// Holds the system's lock on it, where there is one.
    _file: File,
}

/// How a file is locked for a look at it.
type TryLock = fn(&File) -> std::result::Result<(), TryLockError>;

/// A folder's lock, held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    record: Vec<u8>,
    /// Holds the system's lock.
    _file: File,
    /// When this process last showed that it is alive.
    alive: Arc<Mutex<SystemTime>>,
    beat: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Lock {
    /// Takes the lock of a folder.
    ///
    /// # Errors
    /// [`Error::Run`] where somebody works on it; a folder that can't be written to.
    pub fn take(folder: &Path) -> Result<Self> {
        Self::take_by(folder, File::try_lock)
    }

    fn take_by(folder: &Path, lock: TryLock) -> Result<Self> {
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
            let _ = lock(&file);
            let mut tries = 0;
            loop {
                // The clock of whoever keeps the files, which is not always this host's.
                let now = file.metadata().and_then(|m| m.modified()).ok();
                let placed = match find(&path, now, lock)? {
                    Some(Found::Held(holder)) => return Err(held(folder, &holder)),
                    Some(Found::Stale(stale)) => take_over(&temporary, &path, &stale, now),
                    None => place(&temporary, &path),
                };
                if placed.map_err(failed)? {
                    break;
                }
                tries += 1;
                if tries == 5 * LOOKS {
                    let (process, silent) = (None, None);
                    return Err(held(folder, &Holder { process, silent }));
                }
            }
            let alive = Arc::new(Mutex::new(SystemTime::now()));
            let lock = Self {
                beat: beat(
                    &path,
                    file.try_clone().map_err(failed)?,
                    record.clone(),
                    alive.clone(),
                ),
                path: path.clone(),
                record: record.clone(),
                _file: file,
                alive,
            };
            // A file system can show what was, for a moment.
            lock.check(folder).map(|()| lock)
        };
        let taken = take();
        let _ = fs::remove_file(&temporary);
        taken
    }

    /// As [`Lock::check`], but only where another process may have taken this one for dead: it was stopped for a while, or
    /// could not write. It costs nothing else.
    ///
    /// # Errors
    /// As there.
    pub fn check_after_silence(&self, folder: &Path) -> Result<()> {
        let alive = *self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back says nothing.
        match alive.elapsed() {
            Ok(silent) if silent < DOUBT => Ok(()),
            _ => self.check(folder),
        }
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
fn find(path: &Path, now: Option<SystemTime>, lock: TryLock) -> Result<Option<Found>> {
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
                std::thread::sleep(PAUSE);
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
        let job = process.as_ref().and_then(|p| p.job.as_ref());
        let silent = match dead {
            Some(true) => return Ok(Some(Found::stale(record, file))),
            Some(false) => None,
            None => {
                let silent = age(&file, now);
                let is_over = || job.is_some_and(|job| job.is_over() == Some(true));
                if silent.is_some_and(|s| s >= PATIENCE || (s >= SILENCE && is_over())) {
                    return Ok(Some(Found::stale(record, file)));
                }
                silent
            }
        };
        return Ok(Some(Found::Held(Holder { process, silent })));
    }
}

impl Found {
    fn stale(record: Vec<u8>, file: File) -> Self {
        Self::Stale(Stale {
            record,
            _file: file,
        })
    }
}

/// How long ago a file was touched, where that is known.
fn age(file: &File, now: Option<SystemTime>) -> Option<Duration> {
    let touched = file.metadata().and_then(|m| m.modified()).ok()?;
    Some(now?.duration_since(touched).unwrap_or_default())
}

/// Puts a file in the place of a dead process's lock. Of all that want to, on whichever host, one may: whoever gives its
/// file the name that stands for that lock. False if that is not this process.
fn take_over(
    temporary: &Path,
    path: &Path,
    stale: &Stale,
    now: Option<SystemTime>,
) -> std::io::Result<bool> {
    // Left behind by a dead process, it goes as any other unfinished file does.
    let hash = blake3::hash(&stale.record).to_hex();
    let claim = path.with_file_name(format!(".{LOCK}.{}.0.0.tmp", &hash[..16]));
    if !place(temporary, &claim)? {
        if let (Ok(file), Ok(record)) = (File::open(&claim), fs::read(&claim)) {
            let process: Option<Process> = serde_json::from_slice(&record).ok();
            let dead = process.and_then(|p| p.is_alive()) == Some(false);
            if dead || age(&file, now).is_some_and(|age| age >= PATIENCE) {
                let _ = fs::remove_file(&claim);
            }
        }
        std::thread::sleep(PAUSE);
        return Ok(false);
    }
    match fs::read(path) {
        Ok(record) if record == stale.record => fs::rename(&claim, path).map(|()| true),
        // Somebody was through with it since this process looked.
        _ => {
            let _ = fs::rename(&claim, temporary);
            let _ = fs::remove_file(&claim);
            Ok(false)
        }
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

/// Writes the same record again and again, which dates the file anew by the clock of whoever keeps it; no longer once it
/// is another process's.
fn beat(
    path: &Path,
    file: File,
    record: Vec<u8>,
    alive: Arc<Mutex<SystemTime>>,
) -> Option<(Sender<()>, JoinHandle<()>)> {
    let (stop, stopped) = channel();
    let path = path.to_owned();
    let thread = std::thread::Builder::new()
        .name("lock".into())
        .spawn(move || {
            while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                let now = SystemTime::now();
                let owned = fs::read(&path).is_ok_and(|there| there == record);
                let written = || {
                    file.write_all_at(&record, 0)
                        .and_then(|()| file.sync_data())
                };
                if owned && written().is_ok() {
                    *alive.lock().unwrap_or_else(PoisonError::into_inner) = now;
                }
            }
        });
    thread.ok().map(|thread| (stop, thread))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// The system's lock where it can't be had.
    fn none(_: &File) -> std::result::Result<(), TryLockError> {
        Err(TryLockError::Error(ErrorKind::Unsupported.into()))
    }

    /// The system's lock where it is another one on every host: it can always be had.
    fn local(_: &File) -> std::result::Result<(), TryLockError> {
        Ok(())
    }

    /// Leaves the lock of a process elsewhere that died.
    fn leave(folder: &Path, silent: Duration) {
        let mut process = serde_json::to_value(Process::this()).unwrap();
        process["host"] = "elsewhere".into();
        fs::write(folder.join(LOCK), process.to_string()).unwrap();
        let file = File::options().write(true).open(folder.join(LOCK)).unwrap();
        file.set_modified(SystemTime::now() - silent).unwrap();
    }

    /// Whatever the system's lock is worth, and whether the folder was free or a dead process's.
    #[test]
    fn of_many_that_want_a_folder_at_once_one_gets_it() {
        for (round, lock) in [File::try_lock as TryLock, none, local]
            .into_iter()
            .cycle()
            .take(90)
            .enumerate()
        {
            let dir = tempfile::tempdir().unwrap();
            if round % 2 == 0 {
                leave(dir.path(), 2 * PATIENCE);
            }
            let (inside, won) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let barrier = std::sync::Barrier::new(8);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        barrier.wait();
                        let Ok(taken) = Lock::take_by(dir.path(), lock) else {
                            return;
                        };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                        won.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(2));
                        taken.check(dir.path()).unwrap();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(taken);
                    });
                }
            });
            assert!(won.into_inner() > 0, "round {round}: nobody got it");
            let left: Vec<_> = fs::read_dir(dir.path())
                .unwrap()
                .map(|e| e.unwrap().file_name())
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }

    /// What is left by a process that died while it took a dead process's lock over holds nobody up who can see that.
    #[test]
    fn a_taking_over_that_was_cut_off_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        leave(dir.path(), 2 * PATIENCE);
        let stale = fs::read(dir.path().join(LOCK)).unwrap();
        let hash = blake3::hash(&stale).to_hex();
        let claim = dir.path().join(format!(".{LOCK}.{}.0.0.tmp", &hash[..16]));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let mut dead = serde_json::to_value(Process::this()).unwrap();
        dead["process"] = child.id().into();
        child.wait().unwrap();
        fs::write(&claim, dead.to_string()).unwrap();
        drop(Lock::take(dir.path()).unwrap());

        // Of one elsewhere nobody knows for a while.
        leave(dir.path(), 2 * PATIENCE);
        dead["host"] = "elsewhere".into();
        fs::write(&claim, dead.to_string()).unwrap();
        let stale = fs::read(dir.path().join(LOCK)).unwrap();
        let hash = blake3::hash(&stale).to_hex();
        let other = dir.path().join(format!(".{LOCK}.{}.0.0.tmp", &hash[..16]));
        fs::rename(&claim, &other).unwrap();
        assert!(Lock::take(dir.path()).is_err());
        let file = File::options().write(true).open(&other).unwrap();
        file.set_modified(SystemTime::now() - 2 * PATIENCE).unwrap();
        drop(Lock::take(dir.path()).unwrap());
    }
}
