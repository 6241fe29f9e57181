//! Small pickles, byte by byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;

fn encode(text: &[u8]) -> Vec<u8> {
    [b"c_codecs\nencode\n", text, b"X\x06\0\0\0latin1\x86R"].concat()
}

/// What took the stack or gigabytes: values in each other without end, one value recalled again and again, calls of
/// calls, a list that holds itself.
#[test]
fn what_nests_or_repeats_without_end_takes_no_more_than_its_length() {
    let begin = b"\x80\x02";
    let nested = [
        &begin[..],
        &b"]".repeat(500_000),
        &b"a".repeat(499_999),
        b".",
    ]
    .concat();
    let pickle = read(&nested).unwrap();
    assert_eq!(pickle.root().items().unwrap().len(), 1);
    let tuples = [&begin[..], b")", &b"\x85".repeat(500_000), b"."].concat();
    assert!(read(&tuples).is_ok());
    // A text of a megabyte, a million times.
    let text = [&b"X\0\0\x10\0"[..], &vec![b'a'; 1 << 20], b"q\0"].concat();
    let recalled = [&begin[..], b"](", &text, &b"h\0".repeat(1 << 20), b"e."].concat();
    let pickle = read(&recalled).unwrap();
    assert_eq!(pickle.root().items().unwrap().len(), 1 + (1 << 20));
    // A dictionary whose keys are that text, or calls of calls.
    let keys = b"h\0N".repeat(1 << 19);
    let dict = [&begin[..], b"}(", &text, b"N", &keys, b"u."].concat();
    let pickle = read(&dict).unwrap();
    assert!(pickle.root().get("data").is_none());
    let mut calls = begin.to_vec();
    calls.extend(b"}(");
    calls.extend(b"c_codecs\nencode\n".repeat(100_000));
    calls.extend(b"X\x04\0\0\0data");
    calls.extend(b"X\x06\0\0\0latin1\x86R".repeat(100_000));
    calls.extend(b"Nu.");
    assert!(read(&calls).unwrap().root().get("data").is_none());
    // In itself.
    let cycle = read(b"\x80\x02]q\0h\0a.").unwrap();
    assert_eq!(cycle.root().items().unwrap()[0].items().unwrap().len(), 1);
    let long = [&begin[..], &b"N0".repeat(MOST_INSTRUCTIONS / 2), b"N."].concat();
    assert!(read(&long).unwrap_err().contains("4 million instructions"));
}

#[test]
fn names_are_short_texts_of_any_python() {
    let name = |bytes: &[u8]| {
        let bytes = [b"\x80\x02", bytes, b"."].concat();
        let pickle = read(&bytes).unwrap();
        pickle.root().name().map(str::to_owned)
    };
    let data = b"X\x04\0\0\0data";
    for bytes in [&data[..], b"U\x04data", b"C\x04data", &encode(data)] {
        assert_eq!(name(bytes).as_deref(), Some("data"));
    }
    let long = [&b"X\x65\0\0\0"[..], &[b'a'; 101]].concat();
    for bytes in [
        &long[..],
        &encode(&long),
        &encode(&encode(data)),
        b"K\x01",
        b"U\x01\xff",
    ] {
        assert_eq!(name(bytes), None);
    }
}

/// Calls are read and not carried out; what would need more than that is refused.
#[test]
fn nothing_is_called() {
    let call = read(b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.").unwrap();
    let (by, from, state) = call.root().made().unwrap();
    assert_eq!(
        (by, from.items().unwrap()[0].name()),
        ("system", Some("ls"))
    );
    assert!(state.is_none());
    for (bytes, words) in [
        (&b"\x80\x02(ios\nsystem\n."[..], "byte 3: instruction 0x69"),
        (b"\x80\x02\x82\x01.", "instruction 0x82"),
        (b"\x80\x02P1\n.", "instruction 0x50"),
        (b"\x80\x02a.", "a value is missing"),
        (b"\x80\x02](a.", "a value is missing"),
        (b"\x80\x02e.", "a mark is missing"),
        (b"\x80\x02h\x07.", "refers to what is not there"),
        (b"\x80\x02X\xff\xff\xff\xff.", "truncated"),
        (b"(lp0\n.", "protocol 2"),
        (b"", "protocol 2"),
    ] {
        let error = read(bytes).unwrap_err();
        assert!(error.contains(words), "{words}: {error}");
    }
}
