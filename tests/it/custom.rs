//! A space of one's own, from its file to a trained network, through the real program.

use crate::program::{flat, good, nasfw};

#[test]
fn the_example_is_searched_drawn_and_retrained() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/spaces/small.toml");
    std::fs::copy(file, out.join("small.toml")).unwrap();

    let svg = good(out, &["draw", "small.toml"]);
    assert!(svg.contains("nor_conv_3x3") && svg.contains("reduce"));

    let data = ["--dataset", "synthetic", "--threads", "1", "--out", "."];
    let tiny = [
        "--set",
        "dataset.images=48",
        "--set",
        "trainer.batch_size=16",
    ];
    let run = [
        "run",
        "--strategy",
        "darts",
        "--space",
        "small.toml",
        "--name",
        "search",
        "--epochs",
        "1",
    ];
    let found = good(out, &[&run[..], &data, &tiny].concat());
    assert!(found.contains("nasfw retrain"), "{found}");

    // The run needs the file no more.
    std::fs::remove_file(out.join("small.toml")).unwrap();
    assert!(good(out, &["draw", "search"]).contains("</svg>"));
    let train = [
        "retrain",
        "search",
        "--preset",
        "quick",
        "--name",
        "network",
        "--epochs",
        "2",
        "--threads",
        "1",
        "--out",
        ".",
    ];
    let trained = good(out, &[&train[..], &tiny].concat());
    assert!(trained.contains("test-top1"), "{trained}");
    let again = good(out, &["eval", "network"]);
    assert!(
        again.contains("top-1") && again.contains("parameters"),
        "{again}"
    );
}

#[test]
fn a_mistake_in_the_file_is_said_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let text =
        include_str!("../../examples/spaces/small.toml").replace("\"skip_connect\"", "\"skip\"");
    std::fs::write(dir.path().join("my.toml"), text).unwrap();
    let output = nasfw(dir.path(), &["run", "--space", "my.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let message = flat(&output.stderr);
    for part in [
        "line 18",
        "no operation `skip`",
        "did you mean",
        "--space my.toml",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!dir.path().join("runs").exists());
}
