//! Errors of both sides.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use nasfw::{Failure, error_text};
use nasfw_framework::Error;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;

thread_local! {
    /// The exception that went into Rust last, by the message that it became, to come out as it was.
    static LAST: RefCell<Option<(String, PyErr)>> = const { RefCell::new(None) };
    /// Whether a panic of this thread becomes an exception, so that nothing needs to be printed.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// An exception of a plugin in Python as an error of the framework, with the place where it was raised.
pub fn inward(plugin: &str, e: PyErr) -> Error {
    let message = Python::attach(|py| {
        let trace = e.traceback(py).and_then(|t| t.format().ok());
        format!("{e}\n{}", trace.unwrap_or_default())
    });
    LAST.set(Some((message.clone(), e)));
    Error::Plugin {
        plugin: plugin.into(),
        message,
    }
}

/// The exception that an error was made of, if it is the last one that went in.
fn original(error: &Error) -> Option<PyErr> {
    let Error::Plugin { message, .. } = error else {
        return None;
    };
    let (said, e) = LAST.take()?;
    (said == *message).then_some(e)
}

/// An error of the framework as an exception; one that came from Python comes out as it was.
pub fn outward(error: Error) -> PyErr {
    match original(&error) {
        Some(e) => e,
        None => raised(error.exit_code(), &error_text(&error)),
    }
}

/// What a verb failed with as an exception.
pub fn of_verb(failure: Failure) -> PyErr {
    match failure {
        Failure::Verb(error, text) => match original(&error) {
            Some(e) => e,
            None => raised(error.exit_code(), &text),
        },
        Failure::Usage(text) => raised(2, &text),
    }
}

/// The exception for an exit code of the command line.
fn raised(code: u8, text: &str) -> PyErr {
    let text = text.trim().to_owned();
    if code == 130 {
        return PyKeyboardInterrupt::new_err(text);
    }
    let made = |py: Python<'_>| -> PyResult<PyErr> {
        let e = py
            .import("nasfw._errors")?
            .call_method1("of_code", (code, text))?;
        Ok(PyErr::from_value(e))
    };
    Python::attach(|py| made(py).unwrap_or_else(|e| e))
}

/// Carries out something of which a panic becomes an exception: tch panics where libtorch complains.
pub fn guarded<T>(f: impl FnOnce() -> T) -> PyResult<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !CAUGHT.get() {
                before(info);
            }
        }));
    });
    let outer = CAUGHT.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(f));
    CAUGHT.set(outer);
    outcome.map_err(|panic| raised(1, &said(panic.as_ref())))
}

/// What a panic said, without libtorch's C++ stack.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("a panic without a reason");
    let text = text.split("\\nException raised from").next();
    let text = text.and_then(|t| t.split("\nException raised from").next());
    text.unwrap_or_default().to_owned()
}
