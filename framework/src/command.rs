//! Commands of this program, as one types them: by the program's own name, and with words quoted for a shell.
//!
//! Texts that name a command without a path write it as `` `nasfw list` ``, whichever program they end up in; where they
//! are shown, [`by_own_name`] puts the program's name in. Commands with paths are made by [`command`].

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use crate::printable::printable;

/// The name that texts use.
const NASFW: &str = "nasfw";

static PROGRAM: OnceLock<String> = OnceLock::new();

/// Says what this program is called: `program` is how it was started, of which the file's name counts. Only the first
/// call does anything.
pub fn set_program(program: impl AsRef<OsStr>) {
    let name = Path::new(program.as_ref()).file_name();
    if let Some(name) = name.filter(|n| !n.is_empty()) {
        let _ = PROGRAM.set(quoted(name));
    }
}

/// What this program is called: `nasfw`, unless [`set_program`] said something else.
pub fn program() -> &'static str {
    PROGRAM.get().map_or(NASFW, String::as_str)
}

static ITSELF: OnceLock<Vec<OsString>> = OnceLock::new();

/// Says how this program is started once more, where that is not its own file: inside an interpreter, say. Only the first
/// call does anything.
pub fn set_itself(words: Vec<OsString>) {
    let _ = ITSELF.set(words);
}

/// This program to be started once more; words that follow the program's name are to be added.
///
/// # Errors
/// When the system does not say which file this program is.
pub fn itself() -> std::io::Result<Command> {
    match ITSELF.get().map(Vec::as_slice) {
        Some([program, words @ ..]) => {
            let mut command = Command::new(program);
            command.args(words);
            Ok(command)
        }
        _ => Ok(Command::new(std::env::current_exe()?)),
    }
}

/// A line of a shell that starts this program once more with words, also in another folder and on another machine.
///
/// # Errors
/// As [`itself`].
pub fn itself_with<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> std::io::Result<String> {
    let itself = itself()?;
    let own = std::iter::once(itself.get_program()).chain(itself.get_args());
    let own = own.map(quoted).collect::<Vec<_>>();
    Ok(words
        .into_iter()
        .fold(own.join(" "), |line, word| line + " " + &quoted(word)))
}

/// A command of this program that can be pasted into a shell.
///
/// ```
/// use nasfw_framework::command::command;
/// assert_eq!(command(["resume", "runs/my run"]), "nasfw resume 'runs/my run'");
/// ```
pub fn command<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> String {
    words.into_iter().fold(program().to_owned(), |line, word| {
        line + " " + &quoted(word)
    })
}

/// The command that goes on with a run.
pub fn resume(run: &Path) -> String {
    command([OsStr::new("resume"), run.as_os_str()])
}

/// A word as a shell reads it.
pub fn quoted(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    match word.to_str() {
        Some(text) if !text.is_empty() && text.chars().all(plain) => text.to_owned(),
        Some(text) if matches!(printable(text), Cow::Borrowed(_)) && !text.contains('\n') => {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
        _ => dollar_quoted(word.as_encoded_bytes()),
    }
}

/// `$'…'`, the form of bash, zsh and POSIX 2024 that can say any byte.
fn dollar_quoted(bytes: &[u8]) -> String {
    let mut word = String::from("$'");
    for &b in bytes {
        match b {
            b'\'' | b'\\' => word.extend(['\\', b.into()]),
            b' '..=b'~' => word.push(b.into()),
            b => word += &format!("\\{b:03o}"),
        }
    }
    word + "'"
}

/// The text with the commands in it (`` `nasfw list` ``, or a line that begins with `nasfw `) by this program's name.
pub fn by_own_name(text: &str) -> Cow<'_, str> {
    renamed(text, program())
}

fn renamed<'t>(text: &'t str, name: &str) -> Cow<'t, str> {
    if name == NASFW || !text.contains(NASFW) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(NASFW) {
        let (before, after) = (&rest[..at], &rest[at + NASFW.len()..]);
        let line = before.rsplit('\n').next().unwrap_or(before);
        // At the beginning of a text, or after the last find in a line, `before` says less than it seems to.
        let begins = line.trim_start().is_empty() && (before.contains('\n') || shown.is_empty());
        let command = (before.ends_with('`') || begins) && after.starts_with([' ', '`']);
        shown.push_str(before);
        shown.push_str(if command { name } else { NASFW });
        rest = after;
    }
    shown.push_str(rest);
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// A shell reads what was meant, whatever is in the words.
        #[test]
        fn a_shell_reads_the_words_back(words in prop::collection::vec(prop::collection::vec(1u8.., 0..12), 1..4)) {
            let words: Vec<_> = words.into_iter().map(std::ffi::OsString::from_vec).collect();
            let line: Vec<String> = words.iter().map(quoted).collect();
            prop_assert!(line.iter().all(|w| matches!(printable(w), Cow::Borrowed(_)) && !w.contains('\n')));
            let script = format!("printf '%s\\0' {}", line.join(" "));
            let out = Command::new("bash").args(["-c", &script]).output().unwrap();
            let wanted: Vec<u8> = words.iter().flat_map(|w| [w.as_bytes(), b"\0"].concat()).collect();
            prop_assert_eq!(out.stdout, wanted, "{}", script);
        }
    }

    #[test]
    fn commands_in_texts_get_the_name() {
        for (text, shown) in [
            (
                "type `nasfw list`, or `nasfw`",
                "type `mine list`, or `mine`",
            ),
            ("nasfw run\n  nasfw draw x", "mine run\n  mine draw x"),
            (
                "a bug in nasfw or in a plugin",
                "a bug in nasfw or in a plugin",
            ),
            ("runs/nasfw run/x", "runs/nasfw run/x"),
            ("`nasfw-two list`", "`nasfw-two list`"),
            ("nasfw nasfw list", "mine nasfw list"),
            ("`run nasfw`", "`run nasfw`"),
        ] {
            assert_eq!(renamed(text, "mine"), shown);
            assert_eq!(renamed(text, NASFW), text);
        }
    }

    #[test]
    fn plain_words_stay_plain() {
        assert_eq!(quoted("runs/a-b_1.toml"), "runs/a-b_1.toml");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("my run"), "'my run'");
        assert_eq!(quoted("runs/a-1"), "runs/a-1");
        assert_eq!(quoted("it's; rm"), r"'it'\''s; rm'");
        assert_eq!(quoted("\u{1b}[2J"), "$'\\033[2J'");
    }
}
