//! The event file: JSON, one line an event, appended.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::events::{Event, Subscriber};
use crate::input;

/// The most bytes of an event.
pub const EVENT_LIMIT: u64 = 16 << 20;

/// Appends events to a file.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl EventLog {
    /// Opens the file and forgets what lies beyond `bytes`: events after the checkpoint that a run goes on from.
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
            file,
            bytes,
        })
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes sure that everything is on disk.
    pub fn sync(&self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(Error::io("write", &self.path))
    }
}

impl Subscriber for EventLog {
    fn on_event(&mut self, event: &Event) -> Result<()> {
        let mut line = serde_json::to_vec(event).map_err(|e| Error::Invalid {
            what: "event".into(),
            why: e.to_string(),
        })?;
        line.push(b'\n');
        self.file
            .write_all(&line)
            .map_err(Error::io("write", &self.path))?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

/// Reads an event file of events of at most [`EVENT_LIMIT`] bytes; a last line that was cut by a crash is left out.
pub fn read_events(path: &Path) -> Result<Vec<Event>> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let mut events = Vec::new();
    let mut file = BufReader::new(file);
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
                help: "the file was edited or made by another version of nasfw".into(),
            });
        }
        match serde_json::from_slice(&line) {
            Ok(event) => events.push(event),
            Err(e) => wrong = Some(format!("line {i}: {e}")),
        }
    }
    Ok(events)
}
