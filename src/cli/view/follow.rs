//! Follows a run's event file, whatever happens to it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use nasfw_framework::run::{EVENTS, RESULT, RunFolder};

use super::state::{About, State, Status};

/// So many bytes before the place where reading goes on must be as they were.
const MEMORY: usize = 256;

/// The state of a run, kept up to date.
#[derive(Debug)]
pub struct Follower {
    run: PathBuf,
    /// The state as of the last [`Follower::poll`].
    pub state: State,
    /// Bytes read: whole lines.
    offset: u64,
    /// The last of them.
    tail: Vec<u8>,
}

impl Follower {
    /// Nothing is read yet.
    pub fn new(run: &Path, about: About) -> Self {
        Self {
            run: run.to_owned(),
            state: State::new(about),
            offset: 0,
            tail: vec![],
        }
    }

    /// Reads what is new. A half-written line waits for its end; a file that a resumed run has cut is read afresh; a
    /// line that can't be understood (another version's) is left out.
    pub fn poll(&mut self) -> std::io::Result<()> {
        let mut file = match File::open(self.run.join(EVENTS)) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        let begin = self.offset - self.tail.len() as u64;
        let mut bytes = vec![];
        file.seek(SeekFrom::Start(begin))?;
        file.read_to_end(&mut bytes)?;
        let mut new = match bytes.strip_prefix(self.tail.as_slice()) {
            Some(new) => new,
            None => {
                self.state = State::new(std::mem::take(&mut self.state.about));
                (self.offset, self.tail) = (0, vec![]);
                file.seek(SeekFrom::Start(0))?;
                bytes.clear();
                file.read_to_end(&mut bytes)?;
                &bytes
            }
        };
        let end = new.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        new = &new[..end];
        for line in new.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            if let Ok(event) = serde_json::from_slice(line) {
                self.state.on_event(event);
            }
        }
        self.offset += new.len() as u64;
        self.tail
            .extend_from_slice(&new[new.len().saturating_sub(MEMORY)..]);
        let surplus = self.tail.len().saturating_sub(MEMORY);
        self.tail.drain(..surplus);
        Ok(())
    }

    /// Corrects what events can't say: whether a process is at work.
    pub fn look_for_process(&mut self) {
        let working = RunFolder::holder(&self.run).is_some();
        let over = self.run.join(RESULT).exists();
        match (&self.state.status, working) {
            (Status::Finished(_), _) if over => {}
            // The result is written last: a process died just before, and the next one will say it again.
            (Status::Finished(_), false) => self.state.status = Status::Stopped,
            (Status::Running | Status::Stopped, false) if over => {
                self.state.status = Status::Finished("its result is there".into());
            }
            (Status::Running, false) => self.state.status = Status::Stopped,
            // It goes on, but has not said so yet.
            (Status::Stopped, true) => self.state.status = Status::Running,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::state::tests::{about, progress, started};
    use super::*;
    use std::fs;
    use std::io::Write;

    fn line(event: &nasfw_framework::events::Event) -> String {
        serde_json::to_string(event).unwrap() + "\n"
    }

    #[test]
    fn half_lines_wait_cut_files_are_read_afresh_and_nonsense_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(EVENTS);
        let mut follower = Follower::new(dir.path(), about());
        follower.poll().unwrap();
        assert_eq!(follower.state.status, Status::Waiting);

        let text = line(&started(0, 0.0)) + &line(&progress(10, 2.0)) + "{\"event\":\"new\"}\n";
        let next = line(&progress(20, 1.0));
        let (head, rest) = next.split_at(30);
        fs::write(&path, text.clone() + head).unwrap();
        follower.poll().unwrap();
        assert_eq!(follower.state.step, 10);
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(rest.as_bytes()).unwrap();
        follower.poll().unwrap();
        follower.poll().unwrap();
        assert_eq!(follower.state.losses["train"], [(10.0, 2.0), (20.0, 1.0)]);

        // Cut to the checkpoint and grown beyond the old length.
        let cut =
            text + &line(&started(10, 0.1)) + &line(&progress(20, 7.0)) + &line(&progress(30, 6.0));
        fs::write(&path, cut).unwrap();
        follower.poll().unwrap();
        assert_eq!(
            follower.state.losses["train"],
            [(10.0, 2.0), (20.0, 7.0), (30.0, 6.0)]
        );
        assert_eq!(follower.state.about.seed, "7");
        follower.look_for_process();
        assert_eq!(follower.state.status, Status::Stopped);
        let lock = fs::File::create(dir.path().join(".lock")).unwrap();
        lock.try_lock().unwrap();
        follower.look_for_process();
        assert_eq!(follower.state.status, Status::Running);
    }
}
