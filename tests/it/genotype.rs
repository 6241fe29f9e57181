//! Genotypes on the command line: every way to name one, in every form, and what is said when it is wrong.

use std::fs;

use crate::program::{good, nasfw};

#[test]
fn a_name_a_file_a_run_and_a_text_are_the_same_architecture() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let json = good(dir, &["genotype", "pc-darts"]);
    let text = good(dir, &["genotype", "PC_DARTS_cifar", "--format", "darts"]);
    fs::write(dir.join("cell.json"), &json).unwrap();
    fs::write(dir.join("cell.txt"), format!("PC_DARTS = {text}")).unwrap();
    fs::create_dir(dir.join("run")).unwrap();
    let result = format!("{{\"genotype\": {json}, \"epochs\": 3}}");
    fs::write(dir.join("run/result.json"), result).unwrap();
    for what in [
        "cell.json",
        "cell.txt",
        "run",
        "run/result.json",
        text.trim(),
    ] {
        assert_eq!(good(dir, &["genotype", what]), json, "{what}");
        assert!(good(dir, &["draw", what]).starts_with("<svg"), "{what}");
    }
    // Into the current folder, by a bare name.
    assert_eq!(good(dir, &["draw", "run", "-o", "cell.svg"]), "");
    assert!(dir.join("cell.svg").exists());
    let bench = "|none~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|none~1|avg_pool_3x3~2|";
    assert_eq!(
        good(dir, &["genotype", bench, "--format", "nasbench201"]).trim(),
        bench
    );
    let list = good(dir, &["genotype", "--list"]);
    assert_eq!(list.lines().count(), 2 + 52, "{list}");
    assert!(
        list.contains("DARTS_V2 (DARTS)") && list.contains("C10 2.76±0.09%"),
        "{list}"
    );
}

#[test]
fn what_is_wrong_with_a_genotype_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("empty")).unwrap();
    fs::write(dir.join("bad.txt"), "Genotype(normal=[('sep_conv_3x3', 2)").unwrap();
    fs::write(dir.join("bytes"), [0xff, 0, 1, 0xfe]).unwrap();
    for (args, code, says) in [
        (&["genotype", "DARTS_V9"][..], 2, "did you mean `DARTS_V2`?"),
        (
            &["draw", "nasbench1shot1-s9"],
            2,
            "did you mean `nasbench1shot1-s",
        ),
        (
            &["genotype", "bad.txt"],
            3,
            "bad.txt: this is no DARTS genotype: line 1, column 37",
        ),
        (
            &["genotype", "|none~0"],
            2,
            "expected `|`, but the text ends",
        ),
        (
            &["genotype", "DARTS_V2", "--format", "nasbench201"],
            2,
            "it must have one cell",
        ),
        (
            &["genotype", "empty"],
            4,
            "there is no result in this folder yet",
        ),
        (
            &["genotype", "bytes"],
            3,
            "this is no text: it is a binary file",
        ),
        (&["genotype"], 2, "required"),
    ] {
        let out = nasfw(dir, args);
        let text = String::from_utf8_lossy(&out.stderr).replace("\n    ", " ");
        assert_eq!(out.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(says), "{args:?}: {text}");
    }
}
