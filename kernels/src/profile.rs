//! Counts of libtorch's operator calls: on GPUs, a measure of kernel launches.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_void};
use std::sync::{Mutex, PoisonError};

unsafe extern "C" {
    fn nasfw_count_begin();
    fn nasfw_count_end(calls: *mut i64, leaf_calls: *mut i64);
    fn nasfw_names_begin();
    fn nasfw_names_end(context: *mut c_void, visit: extern "C" fn(*mut c_void, *const c_char, u64));
}

/// Operator calls of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Calls {
    /// All calls, also those that an operator makes to others.
    pub all: i64,
    /// Calls that called no other operator: those that do the work.
    pub leaves: i64,
}

/// Runs `f` and counts the operators that this thread calls meanwhile, backward passes included.
pub fn count<T>(f: impl FnOnce() -> T) -> (T, Calls) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut calls = Calls::default();
    // SAFETY: the two calls come in this order, on one thread, and one pair at a time.
    unsafe { nasfw_count_begin() };
    let value = f();
    // SAFETY: as above; the pointers are valid for the call.
    unsafe { nasfw_count_end(&mut calls.all, &mut calls.leaves) };
    (value, calls)
}

/// Runs `f` and counts by name the operators that this thread calls meanwhile, with those that they call and those of
/// backward passes: `aten::add`, say.
pub fn names<T>(f: impl FnOnce() -> T) -> (T, BTreeMap<String, u64>) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut names = BTreeMap::new();
    // SAFETY: the two calls come in this order, on one thread, and one pair at a time.
    unsafe { nasfw_names_begin() };
    let value = f();
    // SAFETY: as above; `keep` gets this very map.
    unsafe { nasfw_names_end((&raw mut names).cast(), keep) };
    (value, names)
}

extern "C" fn keep(names: *mut c_void, name: *const c_char, calls: u64) {
    // SAFETY: the map of `names`, which waits meanwhile, and a C string that is valid for this call.
    let (names, name) = unsafe {
        (
            &mut *names.cast::<BTreeMap<String, u64>>(),
            CStr::from_ptr(name),
        )
    };
    names.insert(name.to_string_lossy().into_owned(), calls);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    #[test]
    fn one_addition_is_one_call() {
        let x = Tensor::ones([3], (Kind::Float, tch::Device::Cpu));
        let (_, calls) = count(|| {
            let other = || drop(Tensor::ones([3], (Kind::Float, tch::Device::Cpu)).exp());
            std::thread::spawn(other).join().ok();
            &x + &x
        });
        assert_eq!(calls, Calls { all: 1, leaves: 1 });
    }

    #[test]
    fn calls_within_calls_are_told_apart() {
        let x = Tensor::ones([1, 1, 3, 3], (Kind::Float, tch::Device::Cpu));
        let (_, calls) = count(|| x.conv2d::<Tensor>(&x, None, [1, 1], [0, 0], [1, 1], 1));
        assert!(calls.all > calls.leaves && calls.leaves > 0, "{calls:?}");
    }
    #[test]
    fn names_are_those_of_this_thread_with_its_backward_pass() {
        let x = Tensor::ones([3], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
        let (_, names) = names(|| {
            let other = || drop(Tensor::ones([3], (Kind::Float, tch::Device::Cpu)).exp());
            std::thread::spawn(other).join().ok();
            x.sin().sum(Kind::Float).backward();
        });
        assert_eq!(names["aten::sin"], 1);
        assert_eq!(names["aten::cos"], 1, "{names:?}");
        assert!(!names.contains_key("aten::exp"), "{names:?}");
    }
}
