//! Fetching files: with progress, going on where an interrupted download stopped, and checked.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use md5::{Digest, Md5};
use nasfw_framework::{Error, Result};

/// A file on a server.
#[derive(Debug, Clone, Copy)]
pub struct Remote<'a> {
    /// Where it is.
    pub url: &'a str,
    /// Its published MD5 sum, lower-case hexadecimal.
    pub md5: &'a str,
}

/// How often a broken connection is taken up again before giving up.
const ATTEMPTS: usize = 5;
/// How long a server may take to accept a connection, and to begin its answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Keeps other processes from downloading into a folder, until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Creates the folder if need be, and waits until no other process downloads into it.
    ///
    /// # Errors
    /// A folder that can't be created or written to.
    pub fn wait(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
        let path = folder.join(".lock");
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        // Some network file systems can't lock. One download at a time is then up to the user.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            tracing::info!(
                "{}: waiting for another process that downloads here",
                folder.display()
            );
            file.lock().map_err(Error::io("lock", &path))?;
        }
        Ok(Self { _file: file })
    }
}

/// Fetches a file to `path`, unless it is there already. What arrived before a connection broke is
/// kept in `path.part`, and the next attempt, in this call or a later one, asks only for the rest.
/// The lock is that of the file's folder.
///
/// # Errors
/// No network, no space, a server that refuses, or other bytes than the published sum says.
pub fn fetch(remote: &Remote<'_>, path: &Path, _lock: &Lock) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let part = with_suffix(path, ".part");
    let failed = |problem: &str| Error::Data {
        path: path.into(),
        problem: format!("{} can't be fetched: {problem}", remote.url),
        help: "type the same command again to go on where it stopped; without a network, copy the \
               files here and point to them with `--data-dir DIR`"
            .into(),
    };
    let mut problem = String::new();
    for attempt in 1..=ATTEMPTS {
        match continue_download(remote.url, &part)? {
            Ok(()) => return accept(remote, &part, path),
            Err(Broken::Refused(status)) => {
                return Err(failed(&format!(
                    "the server refuses it (HTTP status {status})"
                )));
            }
            Err(Broken::Network(broken)) => problem = broken,
        }
        tracing::warn!(
            "{}: {problem} (attempt {attempt} of {ATTEMPTS})",
            remote.url
        );
    }
    Err(failed(&problem))
}

/// Why an attempt ended early.
enum Broken {
    /// Worth another attempt.
    Network(String),
    /// The server's answer will be the same next time.
    Refused(u16),
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Asks for the bytes that `part` lacks and appends them. The inner error is one of the network or
/// the server.
fn continue_download(url: &str, part: &Path) -> Result<Result<(), Broken>> {
    let have = fs::metadata(part).map_or(0, |m| m.len());
    let agent = ureq::Agent::config_builder()
        .timeout_connect(Some(TIMEOUT))
        .timeout_recv_response(Some(TIMEOUT))
        .build()
        .new_agent();
    let mut request = agent.get(url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let mut response = match request.call() {
        Ok(response) => response,
        // The server has nothing beyond what is here: the file is complete, or not the same.
        Err(ureq::Error::StatusCode(416)) => return Ok(Ok(())),
        // Time-outs and too many requests pass; whatever else is wrong with a request stays wrong.
        Err(ureq::Error::StatusCode(status @ 400..=499)) if ![408, 425, 429].contains(&status) => {
            return Ok(Err(Broken::Refused(status)));
        }
        Err(e) => return Ok(Err(Broken::Network(e.to_string()))),
    };
    let resumed = response.status().as_u16() == 206;
    let length = response.body().content_length();
    let total = length.map(|n| n + if resumed { have } else { 0 });
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .append(resumed)
        .truncate(!resumed)
        .open(part)
        .map_err(Error::io("write", part))?;
    let mut done = if resumed { have } else { 0 };
    let mut body = response.body_mut().as_reader();
    let mut buffer = vec![0; 1 << 16];
    let mut reported = done;
    loop {
        let n = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) => return Ok(Err(Broken::Network(e.to_string()))),
        };
        file.write_all(&buffer[..n])
            .map_err(Error::io("write", part))?;
        done += n as u64;
        if done - reported >= 8 << 20 {
            reported = done;
            let of = total.map_or(String::new(), |t| format!(" of {} MB", t >> 20));
            tracing::info!("{url}: {} MB{of}", done >> 20);
        }
    }
    file.sync_all().map_err(Error::io("write", part))?;
    Ok(match total {
        Some(total) if done < total => Err(Broken::Network(format!(
            "the connection broke after {done} of {total} bytes"
        ))),
        _ => Ok(()),
    })
}

/// Checks the sum and puts the file in its place.
fn accept(remote: &Remote<'_>, part: &Path, path: &Path) -> Result<()> {
    let found = md5_of(part)?;
    if found != remote.md5 {
        fs::remove_file(part).map_err(Error::io("remove", part))?;
        return Err(Error::Data {
            path: path.into(),
            problem: format!(
                "{} has the MD5 sum {found}, published is {}; what was fetched is deleted",
                remote.url, remote.md5
            ),
            help: "type the same command again, or copy good files here and point to them with \
                   `--data-dir DIR`"
                .into(),
        });
    }
    fs::rename(part, path).map_err(Error::io("rename", part))
}

fn md5_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let mut hasher = Md5::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = file.read(&mut buffer).map_err(Error::io("read", path))?;
        if n == 0 {
            return Ok(hasher
                .finalize()
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect());
        }
        hasher.update(&buffer[..n]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};

    /// A server of one file that hangs up after `per_connection` bytes of body; it honours ranges
    /// when told to. Returns its address and the ranges that were asked for.
    fn server(
        content: Vec<u8>,
        per_connection: usize,
        ranges: bool,
    ) -> (String, Arc<Mutex<Vec<u64>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(vec![]));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().take(20) {
                let mut stream = stream.unwrap();
                let mut from = 0;
                for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                    let line = line.unwrap().to_lowercase();
                    if let Some(range) = line.strip_prefix("range: bytes=") {
                        from = range.trim_end_matches('-').parse().unwrap();
                    }
                    if line.is_empty() {
                        break;
                    }
                }
                log.lock().unwrap().push(from as u64);
                let from = if ranges { from } else { 0 };
                if from >= content.len() {
                    let _ = stream.write_all(b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                    continue;
                }
                let rest = &content[from..];
                let status = if ranges && from > 0 {
                    "206 Partial Content"
                } else {
                    "200 OK"
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    rest.len()
                );
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(&rest[..rest.len().min(per_connection)]);
            }
        });
        (url, asked)
    }

    fn content() -> Vec<u8> {
        (0..100_000u32)
            .map(|i| (u64::from(i) * u64::from(i) % 251) as u8)
            .collect()
    }

    fn sum(bytes: &[u8]) -> String {
        Md5::digest(bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    }

    fn get(url: &str, md5: &str, path: &Path) -> Result<()> {
        let lock = Lock::wait(path.parent().unwrap())?;
        fetch(&Remote { url, md5 }, path, &lock)
    }

    #[test]
    fn a_broken_download_goes_on_where_it_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/file");
        let (url, asked) = server(content(), 40_000, true);
        get(&url, &sum(&content()), &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), content());
        let asked = asked.lock().unwrap().clone();
        assert!(
            asked.len() >= 3 && asked.windows(2).all(|w| w[0] < w[1]),
            "{asked:?}"
        );
        assert!(!with_suffix(&path, ".part").exists());
    }

    #[test]
    fn a_server_without_ranges_starts_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(with_suffix(&path, ".part"), b"left over").unwrap();
        let (url, _) = server(content(), usize::MAX, false);
        get(&url, &sum(&content()), &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), content());
    }

    #[test]
    fn other_bytes_than_published_are_refused_and_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let (url, _) = server(content(), usize::MAX, true);
        let error = get(&url, &sum(b"other"), &path).unwrap_err();
        assert!(error.to_string().contains("MD5 sum"), "{error}");
        assert!(!path.exists() && !with_suffix(&path, ".part").exists());
    }

    #[test]
    fn no_server_is_an_error_that_says_what_to_type() {
        let dir = tempfile::tempdir().unwrap();
        let closed = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let url = format!("http://{closed}/file");
        let error = get(&url, "", &dir.path().join("file")).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.help().unwrap().contains("--data-dir DIR"));
    }

    /// A server that answers every request with a status and nothing else; how often it was asked.
    fn refusing(status: &'static str) -> (String, Arc<Mutex<usize>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(0));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().take(20) {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                lines
                    .map_while(|line| line.ok().filter(|l| !l.is_empty()))
                    .for_each(drop);
                *log.lock().unwrap() += 1;
                let head =
                    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(head.as_bytes());
            }
        });
        (url, asked)
    }

    #[test]
    fn a_refusal_is_final_and_a_busy_server_is_asked_again() {
        for (status, times) in [
            ("404 Not Found", 1),
            ("403 Forbidden", 1),
            ("410 Gone", 1),
            ("429 Too Many Requests", ATTEMPTS),
            ("503 Service Unavailable", ATTEMPTS),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let (url, asked) = refusing(status);
            let error = get(&url, "", &dir.path().join("file")).unwrap_err();
            assert!(error.to_string().contains(&status[..3]), "{error}");
            assert_eq!(error.exit_code(), 3);
            assert_eq!(*asked.lock().unwrap(), times, "{status}");
        }
    }

    #[test]
    fn two_at_once_fetch_a_file_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let (url, asked) = server(content(), 30_000, true);
        std::thread::scope(|scope| {
            // Each has a file handle of its own, as two processes would.
            let all: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| get(&url, &sum(&content()), &path)))
                .collect();
            all.into_iter().for_each(|one| one.join().unwrap().unwrap());
        });
        assert_eq!(fs::read(&path).unwrap(), content());
        assert_eq!(*asked.lock().unwrap(), [0, 30_000, 60_000, 90_000]);
    }
}
