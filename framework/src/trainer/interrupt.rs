//! Requests to stop: a search finishes its step, writes a checkpoint and ends.
//!
//! People press Ctrl-C, terminals close, clusters send a signal before a time limit and often to every process of a job
//! at once. So the first request saves, those that come right after it are the same request, and only a later one is
//! somebody who does not want to wait.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

use crate::error::{Error, Result};

/// From so long after the first request on, another one ends the program at once.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What people and systems end programs with.
const STOPS: [c_int; 3] = [SIGINT, SIGTERM, SIGHUP];

/// What clusters send some time before they end a job (Slurm's `--signal`, Grid Engine's `-notify` and `s_cpu`). More
/// may follow, so these never end the program at once.
const NOTICES: [c_int; 3] = [SIGUSR1, SIGUSR2, libc::SIGXCPU];

/// Requests to stop, from signals and keys.
#[derive(Debug, Clone)]
pub struct Interrupt {
    asked: Arc<AtomicBool>,
    /// When the first request came that a later one can follow.
    first: Arc<Mutex<Option<Instant>>>,
    last: fn(),
}

/// What a request to stop amounts to.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Stop,
    Wait,
    End,
}

impl Interrupt {
    /// Requests that come from elsewhere alone: no signal is taken. `last` is called before the program ends at once.
    pub fn by_hand(last: fn()) -> Self {
        Self {
            asked: Arc::new(AtomicBool::new(false)),
            first: Arc::new(Mutex::new(None)),
            last,
        }
    }

    /// Takes signals from now on. `last` is called before the program ends at once; it gives a terminal back, say. Call
    /// it once per program.
    ///
    /// A closed terminal stops nothing where SIGHUP was ignored before, as `nohup` does.
    ///
    /// # Errors
    /// When signals can't be taken.
    pub fn on_signals(last: fn()) -> Result<Self> {
        let interrupt = Self::by_hand(last);
        let failed = |e: std::io::Error| Error::Invalid {
            what: "signal handler".into(),
            why: e.to_string(),
        };
        let taken = STOPS.into_iter().chain(NOTICES);
        let taken = taken.filter(|s| *s != SIGHUP || !is_ignored(SIGHUP));
        let mut signals = Signals::new(taken).map_err(failed)?;
        let taker = interrupt.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in &mut signals {
                    let name = signal_name(signal).unwrap_or("a signal");
                    match NOTICES.contains(&signal) {
                        true => taker.notice(name),
                        false => taker.stop(name),
                    }
                }
            })
            .map_err(failed)?;
        Ok(interrupt)
    }

    /// Set as soon as somebody has asked.
    pub fn flag(&self) -> &AtomicBool {
        &self.asked
    }

    /// Whether somebody has asked.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Somebody wants the program to end; `how` says it in a word. A second time, after [`PATIENCE`], it ends at once:
    /// the checkpoint on disk is whole, since it was renamed into place.
    pub fn stop(&self, how: &str) {
        match self.answer(Instant::now()) {
            Answer::Stop => tracing::warn!(
                "{how}: saving, then the end; press Ctrl-C (or send a signal) again after {} seconds to end at once",
                PATIENCE.as_secs()
            ),
            Answer::Wait => {}
            Answer::End => {
                (self.last)();
                // Not `exit`, which takes libtorch down under the threads that compute.
                // SAFETY: it only ends the process.
                unsafe { libc::_exit(130) }
            }
        }
    }

    /// The program is to save and end, however often this is said; `how` says it in a word.
    pub fn notice(&self, how: &str) {
        if !self.asked.swap(true, Ordering::SeqCst) {
            tracing::warn!("{how}: saving, then the end");
        }
    }

    fn answer(&self, now: Instant) -> Answer {
        self.asked.store(true, Ordering::SeqCst);
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        match *first {
            None => {
                *first = Some(now);
                Answer::Stop
            }
            Some(before) if now.saturating_duration_since(before) < PATIENCE => Answer::Wait,
            Some(_) => Answer::End,
        }
    }
}

/// Whether whoever started this program wants a signal to be ignored.
fn is_ignored(signal: c_int) -> bool {
    // SAFETY: all bytes zero is a valid value, which the call then fills; it changes nothing.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut now) == 0
            && now.sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_late_second_request_ends_at_once() {
        let interrupt = Interrupt::by_hand(|| {});
        let now = Instant::now();
        interrupt.notice("SIGUSR1");
        assert!(interrupt.is_asked());
        // However long ago a notice was, the request after it is the first.
        assert_eq!(interrupt.answer(now + 60 * PATIENCE), Answer::Stop);
        assert_eq!(interrupt.answer(now + 60 * PATIENCE), Answer::Wait);
        let nearly = PATIENCE - Duration::from_millis(1);
        assert_eq!(interrupt.answer(now + 60 * PATIENCE + nearly), Answer::Wait);
        assert_eq!(interrupt.answer(now + 61 * PATIENCE), Answer::End);
    }
}
