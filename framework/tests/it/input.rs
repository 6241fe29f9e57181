//! Whatever is named as a file, reading it ends, within a limit.

use std::fs;
use std::io::{Cursor, ErrorKind, Write};
use std::path::Path;
use std::process::Command;

use nasfw_framework::{Error, input};
use proptest::prelude::*;

#[test]
fn files_up_to_the_limit_are_read_and_larger_ones_name_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    fs::write(&path, vec![b'a'; 2048]).unwrap();
    assert_eq!(input::read(&path, 2048).unwrap().len(), 2048);
    let error = input::read(&path, 1024).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FileTooLarge);
    let said = Error::io("read", &path)(error).to_string();
    assert!(
        said.contains("x: it is larger than 1 KiB, the most"),
        "{said}"
    );
}

#[test]
fn what_has_no_end_or_no_content_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    for (path, kind, says) in [
        (
            Path::new("/dev/zero"),
            ErrorKind::FileTooLarge,
            "larger than 1 MiB",
        ),
        (&pipe, ErrorKind::InvalidInput, "nobody writes to"),
        (dir.path(), ErrorKind::IsADirectory, "it is a folder"),
        (&dir.path().join("no"), ErrorKind::NotFound, "No such file"),
    ] {
        let error = input::read_text(path, 1 << 20).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    assert!(input::read(Path::new("/dev/null"), 10).unwrap().is_empty());
}

/// As `nasfw run --config <(nasfw config show --toml)` does, and with a writer that takes its time.
#[test]
fn a_pipe_is_read_to_the_end_of_what_is_written_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    // To open it for both never waits, and stands for a writer that has begun.
    let mut writer = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    writer.write_all(b"first ").unwrap();
    let text = std::thread::scope(|scope| {
        let reader = scope.spawn(|| input::read_text(&pipe, 100));
        std::thread::sleep(std::time::Duration::from_millis(100));
        writer.write_all(b"second").unwrap();
        drop(writer);
        reader.join().unwrap()
    });
    assert_eq!(text.unwrap(), "first second");
}

#[test]
fn bytes_that_are_no_text_are_placed() {
    let error = input::text(b"good\nb\xffd".to_vec()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_eq!(
        error.to_string(),
        "line 2 is not UTF-8 text (byte 0xff); save the file as UTF-8"
    );
    // Cut inside a character.
    assert!(input::text("ü".as_bytes()[..1].to_vec()).is_err());
}

#[test]
fn an_endless_line_is_refused() {
    let mut line = vec![];
    let mut stream = std::io::BufReader::new(fs::File::open("/dev/zero").unwrap());
    let error = input::next_line(&mut stream, &mut line, 1000).unwrap_err();
    assert!(
        error.to_string().contains("longer than 1000 bytes"),
        "{error}"
    );
}

#[test]
fn the_end_of_a_log_begins_with_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, b"one\ntwo\nthree\xff\n").unwrap();
    assert_eq!(input::last_lines(&path, 9).unwrap(), "three\u{fffd}\n");
    assert_eq!(
        input::last_lines(&path, 100).unwrap(),
        "one\ntwo\nthree\u{fffd}\n"
    );
}

proptest! {
    /// Lines are those of `str::lines`, each of them up to the limit.
    #[test]
    fn lines_are_those_of_the_text(text in "[a-c\n\r]{0,60}") {
        let longest = text.lines().map(str::len).max().unwrap_or(0) as u64;
        let mut stream = Cursor::new(&text);
        let (mut line, mut lines) = (vec![], vec![]);
        while input::next_line(&mut stream, &mut line, longest).unwrap() {
            lines.push(String::from_utf8(line.clone()).unwrap());
        }
        prop_assert_eq!(lines, text.lines().collect::<Vec<_>>());
    }
}
