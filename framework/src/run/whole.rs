//! Files that are there whole or not at all.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::host;
use crate::error::{Error, Result};

/// How the names of unfinished files end.
const SUFFIX: &str = ".tmp";
/// An unfinished file of another host that is as old as this is a dead process's.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Writes a file under a temporary name, syncs it and renames it into place.
///
/// # Errors
/// Whatever the disk has to say. The file is then as it was before.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = unfinished(path);
    let attempt = || -> io::Result<()> {
        let mut file = File::create_new(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_folder(path)
    };
    attempt().map_err(|e| {
        let _ = fs::remove_file(&temporary);
        Error::io("write", path)(e)
    })
}

/// Makes sure that a file's name is on disk.
fn sync_folder(file: &Path) -> io::Result<()> {
    // The parent of a bare name is the empty path.
    let folder = match file.parent().filter(|p| !p.as_os_str().is_empty()) {
        Some(folder) => folder,
        None => Path::new("."),
    };
    match File::open(folder).and_then(|f| f.sync_all()) {
        // Some file systems can't sync folders, and a folder may be written to but not read: the file is there.
        Err(e) if cannot(&e) || e.kind() == ErrorKind::PermissionDenied => Ok(()),
        done => done,
    }
}

/// Whether a file system refuses a thing because it can't do it, not because it failed.
pub(super) fn cannot(error: &io::Error) -> bool {
    error
        .raw_os_error()
        .is_some_and(|e| [libc::EINVAL, libc::ENOTSUP, libc::EOPNOTSUPP, libc::ENOSYS].contains(&e))
}

/// The name of a file while it is written: no other process on any host has the same one, and it says whose it is.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name: String = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .chars()
        .take(60)
        .collect();
    path.with_file_name(format!(
        ".{name}.{}.{}.{}{SUFFIX}",
        short_host(),
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    ))
}

/// The host as a part of a file's name.
fn short_host() -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    host::host().chars().map(plain).take(40).collect()
}

/// Removes what dead processes left unfinished in a folder. What can't be removed stays.
pub(super) fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.filter_map(io::Result::ok) {
        let name = entry.file_name();
        let dead = name.to_str().and_then(writer).is_some_and(|(at, number)| {
            let age = || {
                let changed = entry.metadata().ok()?.modified().ok()?;
                SystemTime::now().duration_since(changed).ok()
            };
            let here = at == short_host();
            here && !host::exists(number) || age().is_some_and(|age| age > ABANDONED)
        });
        if dead {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether a name is that of an unfinished file.
pub(super) fn is_unfinished(name: &OsStr) -> bool {
    name.to_str().and_then(writer).is_some()
}

/// Host and process in the name of an unfinished file.
fn writer(name: &str) -> Option<(&str, u32)> {
    let mut parts = name
        .strip_prefix('.')?
        .strip_suffix(SUFFIX)?
        .rsplitn(4, '.');
    let (_count, process, host) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next()?;
    Some((host, process.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn leftovers_of_the_dead_go_and_everything_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        let (host, me) = (short_host(), std::process::id());
        let mine = unfinished(&dir.path().join("a.json"));
        let keep = [
            mine.file_name().unwrap().to_str().unwrap().to_owned(),
            format!(".a.json.elsewhere.{dead}.0.tmp"),
            format!(".a.json.{host}.{me}.9.tmp"),
            "a.json".into(),
            "a.json.tmp".into(),
            ".lock".into(),
        ];
        for name in &keep {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let gone = dir.path().join(format!(".a.json.{host}.{dead}.0.tmp"));
        fs::write(&gone, "x").unwrap();
        let old = dir.path().join(format!(".a.json.elsewhere.{dead}.1.tmp"));
        fs::write(&old, "x").unwrap();
        let long_ago = SystemTime::now() - 2 * ABANDONED;
        File::options()
            .write(true)
            .open(&old)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        remove_leftovers(dir.path());
        assert!(!gone.exists() && !old.exists());
        for name in &keep {
            assert!(dir.path().join(name).exists(), "{name}");
        }
    }

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a".repeat(250));
        for text in ["one", "two"] {
            write_whole(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        // A name that a folder has can't be given to a file.
        fs::create_dir(dir.path().join("folder")).unwrap();
        assert!(write_whole(&dir.path().join("folder"), b"x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
