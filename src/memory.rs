//! Freed memory stays with the process.
//!
//! A training step frees gigabytes of activations that the next one asks for again. By default glibc gives large blocks
//! back at once, so that the kernel has to find and clear every page in every step (docs/performance-loop.md).

/// Tells glibc's `malloc` to keep freed blocks for later. Does nothing on other systems, and nothing where the user
/// tunes it through the environment.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if !is_tuned(std::env::vars_os()) {
        // SAFETY: the program begins, and no other thread allocates yet.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
            libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD);
        }
    }
}

/// Blocks from so many bytes on are mapped one by one, and given back when they are freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MMAP_THRESHOLD: libc::c_int = 64 << 20;

/// So many free bytes may lie at the end of the heap.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TRIM_THRESHOLD: libc::c_int = 1 << 30;

/// Whether variables of the environment tune glibc's `malloc`.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn is_tuned(variables: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>) -> bool {
    variables.into_iter().any(|(name, value)| {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        let tunable = name == "GLIBC_TUNABLES" && value.contains("glibc.malloc.");
        tunable || (name.starts_with("MALLOC_") && name.ends_with('_'))
    })
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_tunes_is_left_alone() {
        let tuned = |name: &str, value: &str| is_tuned([(name.into(), value.into())]);
        assert!(tuned("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1000"));
        assert!(tuned("MALLOC_MMAP_THRESHOLD_", "1000"));
        assert!(!tuned("GLIBC_TUNABLES", "glibc.rtld.nns=8"));
        assert!(!tuned("MALLOC_PATH", "x") && !tuned("PATH", "MALLOC_TOP_PAD_"));
    }
}
