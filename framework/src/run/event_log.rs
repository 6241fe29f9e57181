//! The event file: JSON, one line an event, appended.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::folder::RunFolder;
use crate::error::{Error, Result};
use crate::events::Event;
use crate::input;
use crate::listen::Listener;

/// The most bytes of an event.
pub const EVENT_LIMIT: u64 = 16 << 20;

/// How often a file is read that does not make sense, before it is given up.
const READS: u32 = 5;
/// How long to wait in between.
const PAUSE: Duration = Duration::from_millis(100);

/// A line of the file. When it was written is no part of the event: that two equal runs do not share.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    event: &'a Event,
    /// RFC 3339, UTC, to the millisecond.
    time: String,
}

/// Appends events to a file.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    /// None where another process of the run writes it.
    file: Option<File>,
    bytes: u64,
}

impl EventLog {
    /// Opens the file and forgets what lies beyond `bytes`: events after the checkpoint that a run goes on from.
    ///
    /// # Errors
    /// A file that is shorter than that; whatever the disk has to say.
    pub fn open(path: &Path, bytes: u64) -> Result<Self> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(Error::io("open", path))?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        if length < bytes {
            return Err(Error::Run {
                path: path.to_owned(),
                problem: format!(
                    "it has {length} bytes, but the checkpoint was written when it had {bytes}"
                ),
                help:
                    "the file was cut; put the whole one back, or start a new run with `nasfw run`"
                        .into(),
            });
        }
        file.set_len(bytes).map_err(Error::io("shorten", path))?;
        file.seek(SeekFrom::Start(bytes))
            .map_err(Error::io("read", path))?;
        Ok(Self {
            path: path.to_owned(),
            file: Some(file),
            bytes,
        })
    }

    /// The events of a run whose other process writes them.
    pub(crate) fn elsewhere() -> Self {
        Self {
            path: PathBuf::new(),
            file: None,
            bytes: 0,
        }
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes sure that everything is on disk.
    ///
    /// # Errors
    /// A file that something else has written to; whatever the disk has to say.
    pub fn sync(&self) -> Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let failed = || Error::io("write", &self.path);
        file.sync_data().map_err(failed())?;
        let length = file.metadata().map_err(failed())?.len();
        if length == self.bytes {
            return Ok(());
        }
        Err(Error::Run {
            path: self.path.clone(),
            problem: format!(
                "it has {length} bytes, but this process has written {}",
                self.bytes
            ),
            help: "something else has written to it; when nothing does any more, `nasfw resume` goes on from the \
                   last checkpoint"
                .into(),
        })
    }
}

impl Listener for EventLog {
    fn event(&mut self, event: &Event) -> Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let time = format!("{:.3}", Timestamp::now());
        let mut line = serde_json::to_vec(&Line { event, time }).map_err(|e| Error::Invalid {
            what: "event".into(),
            why: e.to_string(),
        })?;
        line.push(b'\n');
        file.write_all(&line)
            .map_err(Error::io("write", &self.path))?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

/// Reads an event file of events of at most [`EVENT_LIMIT`] bytes; a last line that was cut by a crash is left out. A
/// file that is being written can seem broken for a moment, on network file systems above all: it is read again then.
///
/// # Errors
/// A file that can't be read, or makes no sense however often it is read.
pub fn read_events(path: &Path) -> Result<Vec<Event>> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut reads = 1;
    loop {
        let file = File::open(path).map_err(Error::io("read", path))?;
        match parse_events(BufReader::new(file), path) {
            Err(_) if reads < READS && RunFolder::holder(folder).is_some() => {
                std::thread::sleep(PAUSE);
                reads += 1;
            }
            done => return done,
        }
    }
}

/// As [`read_events`], of what was read from `path`.
///
/// # Errors
/// As there.
pub fn parse_events(mut file: impl BufRead, path: &Path) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    let mut line = Vec::new();
    let mut wrong: Option<String> = None;
    for i in 1_u64.. {
        if !input::next_line(&mut file, &mut line, EVENT_LIMIT).map_err(Error::io("read", path))? {
            break;
        }
        // A line that another one follows was not cut by a crash.
        if let Some(problem) = wrong {
            return Err(Error::Run {
                path: path.to_owned(),
                problem,
                help: "the file was edited, written by two processes, or made by another version of nasfw".into(),
            });
        }
        match serde_json::from_slice(&line) {
            Ok(event) => events.push(event),
            Err(e) => wrong = Some(format!("line {i}: {e}")),
        }
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::fs;

    fn line(text: &str) -> Vec<u8> {
        let what = text.to_owned();
        let mut line = serde_json::to_vec(&Event::Control { epoch: 1, what }).unwrap();
        line.push(b'\n');
        line
    }

    /// Cut anywhere, in the middle of a character too, whole lines are read and the rest is left out.
    #[test]
    fn a_last_line_that_was_cut_is_left_out_wherever_it_was_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let whole = [line("ä→日本"), line("a"), line("φ = 日本 🦀")].concat();
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            // The last brace makes a line whole, with or without its end.
            let lines = [0, 1, 2]
                .map(|n| {
                    whole
                        .split_inclusive(|b| *b == b'\n')
                        .take(n + 1)
                        .map(<[u8]>::len)
                        .sum()
                })
                .into_iter()
                .filter(|end: &usize| cut + 1 >= *end)
                .count();
            assert_eq!(read_events(&path).unwrap().len(), lines, "{cut}");
        }
    }

    #[test]
    fn a_line_that_is_broken_for_a_moment_is_read_again_and_one_that_stays_broken_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let mut broken = [line("a"), line("b"), line("c")].concat();
        let middle = line("a").len() + 3;
        broken[middle..middle + 4].fill(0);
        fs::write(&path, &broken).unwrap();
        let error = read_events(&path).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert_eq!(error.exit_code(), 4);

        // Only somebody who works on it can mend it.
        let lock = File::create_new(dir.path().join(".lock")).unwrap();
        lock.lock().unwrap();
        let mended = [line("a"), line("b"), line("c")].concat();
        let other = path.clone();
        let writer = std::thread::spawn(move || {
            std::thread::sleep(PAUSE / 2);
            fs::write(other, mended).unwrap();
        });
        assert_eq!(read_events(&path).unwrap().len(), 3);
        writer.join().unwrap();
    }

    /// Every event stays what it is, also with numbers that JSON has no digits for, and says when it was.
    #[test]
    fn lines_say_when_and_events_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let mut log = EventLog::open(&path, 0).unwrap();
        let events = [
            Event::Control {
                epoch: 1,
                what: "a".into(),
            },
            Event::Finished {
                step: 3,
                reason: "b".into(),
                seconds: f64::INFINITY,
                peak_memory: None,
            },
        ];
        let before = Timestamp::now();
        events.iter().for_each(|event| log.event(event).unwrap());
        assert_eq!(read_events(&path).unwrap(), events);
        for line in fs::read_to_string(&path).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let time = line["time"].as_str().unwrap();
            assert_eq!(time.len(), "2026-01-01T00:00:00.000Z".len(), "{time}");
            let seconds = time.parse::<Timestamp>().unwrap().as_second() - before.as_second();
            assert!((0..10).contains(&seconds), "{time}");
        }
    }

    #[test]
    fn a_second_writer_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let mut log = EventLog::open(&path, 0).unwrap();
        let event = Event::Interrupted { step: 1 };
        log.event(&event).unwrap();
        log.sync().unwrap();
        let mut other = OpenOptions::new().append(true).open(&path).unwrap();
        other.write_all(&line("another")).unwrap();
        let error = log.sync().unwrap_err();
        assert_eq!(error.exit_code(), 4);
        assert!(error.to_string().contains("bytes"), "{error}");
    }
}
