//! Counts memory, and refuses more than a limit: an input that asks for it ends the process as on a machine that has
//! no more.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

impl Counting {
    fn take(bytes: usize) -> bool {
        let now = NOW.fetch_add(bytes, Relaxed).saturating_add(bytes);
        if now > LIMIT.load(Relaxed) {
            NOW.fetch_sub(bytes, Relaxed);
            return false;
        }
        PEAK.fetch_max(now, Relaxed);
        true
    }
}

// SAFETY: every call goes on to the system's allocator, or gives null, which says that there is no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !Self::take(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !Self::take(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: as the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > layout.size() && !Self::take(size - layout.size()) {
            return std::ptr::null_mut();
        }
        if size < layout.size() {
            NOW.fetch_sub(layout.size() - size, Relaxed);
        }
        // SAFETY: as the caller's.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// From now on there are only so many bytes more than now.
pub fn limit(bytes: usize) {
    LIMIT.store(NOW.load(Relaxed).saturating_add(bytes), Relaxed);
}

/// Runs something; the most bytes that it had at once.
pub fn peak_of(run: impl FnOnce()) -> usize {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    run();
    PEAK.load(Relaxed).saturating_sub(before)
}
