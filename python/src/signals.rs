//! Ctrl-C and requests to end while a run is at work: it saves first.

use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, Ordering};

use libc::{SIGINT, SIGTERM, c_int, sigaction};
use nasfw_framework::trainer::Interrupt;

/// What is set when somebody asks; null when no run is at work.
static ASKED: AtomicPtr<AtomicBool> = AtomicPtr::new(null_mut());
/// Who asked last.
static LAST: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: c_int) {
    LAST.store(signal, Ordering::SeqCst);
    let asked = ASKED.load(Ordering::SeqCst);
    if !asked.is_null() {
        // SAFETY: `Taken` keeps what it points to until the old handlers are back.
        unsafe { (*asked).store(true, Ordering::SeqCst) };
    }
}

/// While it lives, signals ask the run to save and end, and Python's own handlers are not called.
pub struct Taken {
    before: [(c_int, sigaction); 2],
    _interrupt: Interrupt,
}

impl Taken {
    /// Takes the signals for a run.
    pub fn by(interrupt: &Interrupt) -> Self {
        LAST.store(0, Ordering::SeqCst);
        ASKED.store(
            std::ptr::from_ref(interrupt.flag()).cast_mut(),
            Ordering::SeqCst,
        );
        let take = |signal: c_int| {
            // SAFETY: plain structures; the handler only stores to atomics.
            unsafe {
                let mut new: sigaction = std::mem::zeroed();
                let mut old: sigaction = std::mem::zeroed();
                new.sa_sigaction = note as *const () as usize;
                libc::sigaction(signal, &raw const new, &raw mut old);
                (signal, old)
            }
        };
        Self {
            before: [take(SIGINT), take(SIGTERM)],
            _interrupt: interrupt.clone(),
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        for (signal, before) in &self.before {
            // SAFETY: what was there before.
            unsafe { libc::sigaction(*signal, before, null_mut()) };
        }
        ASKED.store(null_mut(), Ordering::SeqCst);
        if LAST.load(Ordering::SeqCst) == SIGTERM {
            // It is for the program around as well, now that all is saved.
            // SAFETY: as any signal.
            unsafe { libc::raise(SIGTERM) };
        }
    }
}
