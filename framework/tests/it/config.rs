//! Layers, origins and errors of configurations.

use nasfw_framework::config::{Layer, Origin, RunConfig, resolve};
use nasfw_framework::registry::Registry;
use nasfw_framework::run::RUN;
use nasfw_framework::{Error, Result};
use serde_json::json;

use super::fixture;

const BASE: &str = "[strategy]\nname = \"fixture-script\"\n[space]\nname = \"fixture-linear\"\n";

fn load(
    file: &str,
    env: &[(&str, &str)],
    set: &[(&str, &str)],
) -> Result<(RunConfig, nasfw_framework::config::Resolved)> {
    let registry = Registry::load()?;
    let layers = [
        Layer::File("my.toml".into(), format!("{BASE}{file}")),
        Layer::Environment(
            env.iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
        ),
        Layer::CommandLine(
            set.iter()
                .map(|(k, v)| ((*k).into(), (*v).into(), format!("--set {k}={v}")))
                .collect(),
        ),
    ];
    let resolved = resolve(&registry, &layers)?;
    Ok((RunConfig::new(&registry, &resolved)?, resolved))
}

fn problems(result: Result<(RunConfig, nasfw_framework::config::Resolved)>) -> String {
    match result {
        Err(e @ Error::Config(_)) => format!("{e} | {}", e.help().unwrap_or_default()),
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("it was accepted"),
    }
}

#[test]
fn stronger_layers_win_and_origins_are_remembered() {
    let (config, r) = load(
        "[trainer]\nbatch_size = 5\nepochs = 7\nlog_every = 9\n",
        &[
            ("NASFW_TRAINER__EPOCHS", "8"),
            ("NASFW_TRAINER__LOG_EVERY", "10"),
            ("NASFW_LOG", "debug"),
            ("HOME", "/x"),
        ],
        &[("trainer.log_every", "11")],
    )
    .unwrap();
    let t = &r.value["trainer"];
    assert_eq!(
        (&t["batch_size"], &t["epochs"], &t["log_every"]),
        (&json!(5), &json!(8), &json!(11))
    );
    assert_eq!(t["eval_batch_size"], 256);
    assert_eq!(t["checkpoint_every"], 2, "set by the space");
    assert_eq!(
        r.value["dataset"]["name"], "fixture-data",
        "the space's own dataset"
    );
    assert!(matches!(
        r.origin("trainer.batch_size"),
        Some(Origin::File { line: 6, .. })
    ));
    assert_eq!(
        r.origin("trainer.epochs"),
        Some(&Origin::Environment("NASFW_TRAINER__EPOCHS".into()))
    );
    assert_eq!(
        r.origin("trainer.log_every"),
        Some(&Origin::CommandLine("--set trainer.log_every=11".into()))
    );
    assert_eq!(
        r.origin("trainer.checkpoint_every"),
        Some(&Origin::Plugin("space fixture-linear".into()))
    );
    assert_eq!(r.origin("seed"), Some(&Origin::Default));
    assert_eq!(config.common.seed, 0);
}

#[test]
fn a_preset_is_weaker_than_what_the_user_says() {
    let (_, r) = load("", &[], &[("strategy.preset", "stop")]).unwrap();
    assert_eq!(r.value["strategy"]["script"], "stop");
    assert!(r.value["strategy"].get("preset").is_none());
    let (_, r) = load(
        "",
        &[],
        &[("strategy.preset", "stop"), ("strategy.script", "set")],
    )
    .unwrap();
    assert_eq!(r.value["strategy"]["script"], "set");
    let text = problems(load("", &[], &[("strategy.preset", "go")]));
    assert!(
        text.contains("no preset `go`") && text.contains("stop"),
        "{text}"
    );
}

#[test]
fn unknown_keys_are_all_reported_with_suggestions() {
    let text = problems(load(
        "[trainer]\nepoch = 7\n",
        &[("NASFW_SED", "1")],
        &[("strategy.arch.lrr", "1")],
    ));
    assert!(text.contains("`trainer.epoch`: there is no such option (my.toml, line 6); did you mean `trainer.epochs`?"), "{text}");
    assert!(
        text.contains(
            "`sed`: there is no such option (environment variable NASFW_SED); did you mean `seed`?"
        ),
        "{text}"
    );
    assert!(text.contains("did you mean `strategy.arch.lr`?"), "{text}");
}

#[test]
fn wrong_types_point_at_their_line() {
    let text = problems(load("[trainer.weights]\nlr = \"fast\"\n", &[], &[]));
    assert!(
        text.contains("`trainer.weights.lr`") && text.contains("my.toml, line 6"),
        "{text}"
    );
    let text = problems(load("", &[], &[("trainer.weights.schedule", "zigzag")]));
    assert!(
        text.contains("trainer.weights.schedule") && text.contains("cosine"),
        "{text}"
    );
    let text = problems(load("", &[], &[("seed", "-1")]));
    assert!(
        text.contains("`seed`") && text.contains("--set seed=-1"),
        "{text}"
    );
}

#[test]
fn values_out_of_range_are_all_reported() {
    let text = problems(load(
        "[trainer]\nepochs = 0\nbatch_size = 1\n[trainer.weights]\nmomentum = 1.5\n",
        &[],
        &[("space.rows", "99"), ("strategy.arch.lr", "-0.1")],
    ));
    for part in [
        "trainer.epochs",
        "my.toml, line 6",
        "trainer.batch_size",
        "momentum`: 1.5",
        "space.rows`: 99",
        "strategy.arch.lr`: -0.1",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn broken_toml_names_its_line() {
    let text = problems(load("[trainer\nepochs = 1\n", &[], &[]));
    assert!(
        text.contains("not valid TOML") && text.contains("my.toml, line 5"),
        "{text}"
    );
}

#[test]
fn unknown_plugins_are_suggested() {
    for (key, name, says) in [
        ("strategy.name", "fixture-scrpt", "fixture-script"),
        ("space.name", "fixture-liner", "fixture-linear"),
        ("dataset.name", "fixture-dat", "fixture-data"),
    ] {
        match load("", &[], &[(key, name)]) {
            Err(e @ Error::UnknownPlugin { .. }) => {
                assert_eq!(e.exit_code(), 2);
                assert!(e.help().unwrap().contains(&format!("`{says}`")));
            }
            other => panic!("{:?}", other.err()),
        }
    }
}

#[test]
fn the_typed_configuration_survives_the_run_folder() {
    let config = fixture::config(&["strategy.arch.lr=0.123", "seed=5"]).unwrap();
    let text = serde_json::to_string(&config).unwrap();
    let back: RunConfig = serde_json::from_str(&text).unwrap();
    assert_eq!(back.to_value().unwrap(), config.to_value().unwrap());
    assert_eq!(back.fingerprint().unwrap(), config.fingerprint().unwrap());
}

#[test]
fn the_fingerprint_covers_numbers_and_not_places() {
    let print = |set: &[&str]| fixture::config(set).unwrap().fingerprint().unwrap();
    let base = print(&[]);
    assert_eq!(base, print(&["out=/elsewhere", "data_dir=/data"]));
    for change in [
        "seed=1",
        "strategy.arch.lr=0.06",
        "space.rows=3",
        "dataset.images=30",
        "trainer.weights.momentum=0.8",
    ] {
        assert_ne!(base, print(&[change]), "{change}");
    }
}

/// A run of a version that knew fewer settings keeps its fingerprint, and is the search that these settings stand for.
#[test]
fn settings_that_came_later_change_no_fingerprint_of_before() {
    let config = fixture::config(&[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let run = fixture::folder(folder.path(), &config);
    let read = || RunConfig::of_run(run.path()).unwrap();
    let now = read();
    assert!(now.lacks.is_empty());
    assert_eq!(now.fingerprint().unwrap(), config.fingerprint().unwrap());

    let mut before = config.to_value().unwrap();
    let taken = [("/trainer", "sync_batch_norm"), ("/trainer/weights", "eps")];
    for (section, key) in taken {
        let section = before.pointer_mut(section).unwrap();
        let gone = section.as_object_mut().unwrap().shift_remove(key);
        assert!(gone.is_some(), "{key}");
    }
    run.write_json(RUN, &before).unwrap();
    // As that version computed it.
    let mut text = before;
    text.as_object_mut().unwrap().remove("trackers");
    let common = text["common"].as_object_mut().unwrap();
    for key in ["out", "data_dir", "download"] {
        common.remove(key);
    }
    let expected = blake3::hash(text.to_string().as_bytes()).to_hex();
    let old = read();
    assert_eq!(old.fingerprint().unwrap(), expected.as_str());
    assert_ne!(old.fingerprint().unwrap(), now.fingerprint().unwrap());
    assert!(old.is_same_search(&now).unwrap() && now.is_same_search(&old).unwrap());
    let other = fixture::config(&["trainer.sync_batch_norm=true"]).unwrap();
    assert!(!old.is_same_search(&other).unwrap());
}

#[test]
fn the_registry_checks_itself() {
    let registry = Registry::load().unwrap();
    registry.check_defaults().unwrap();
    let names: Vec<&str> = registry.all().iter().map(|p| p.name).collect();
    let mut sorted: Vec<_> = registry.all().iter().map(|p| (p.kind(), p.name)).collect();
    sorted.sort_unstable();
    assert_eq!(names, sorted.iter().map(|(_, n)| *n).collect::<Vec<_>>());
}
