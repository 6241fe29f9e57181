//! How the C++ part reports errors.

use std::ffi::{CStr, c_char};

use tch::TchError;

/// A message that the caller frees; null where nothing went wrong.
#[repr(transparent)]
pub struct Message(*mut c_char);

unsafe extern "C" {
    fn free(p: *mut c_char);
}

/// The message as an error.
pub fn check(message: Message) -> Result<(), TchError> {
    if message.0.is_null() {
        return Ok(());
    }
    // SAFETY: a message is a string of its own, ours to free.
    let text = unsafe {
        let text = CStr::from_ptr(message.0).to_string_lossy().into_owned();
        free(message.0);
        text
    };
    Err(TchError::Torch(text))
}
