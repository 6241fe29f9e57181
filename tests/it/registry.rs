//! What is registered, and that all of it can be named, configured and described.

use std::process::Command;

use nasfw::framework::config::{Layer, RunConfig, resolve};
use nasfw::framework::registry::{Kind, Registry};

use super::spaces::all_pairs;

#[test]
fn the_registry_is_what_it_was() {
    let registry = Registry::load().unwrap();
    let names: Vec<String> = registry
        .all()
        .iter()
        .map(|p| format!("{} {}", p.kind().name(), p.name))
        .collect();
    insta::assert_snapshot!("registry", names.join("\n"));
}

#[test]
fn all_defaults_and_presets_parse() {
    Registry::load().unwrap().check_defaults().unwrap();
}

/// Every strategy, with every preset, on every space, each with a dataset in turn; with all of them where all pairs are
/// asked for.
#[test]
fn every_strategy_has_a_configuration_on_every_space_and_dataset() {
    let registry = Registry::load().unwrap();
    let datasets: Vec<_> = registry.of(Kind::Dataset).collect();
    let mut turn = 0;
    for strategy in registry.of(Kind::Strategy) {
        let presets = strategy
            .presets
            .iter()
            .map(|(name, _)| Some(*name))
            .chain([None]);
        for preset in presets {
            turn += 1;
            for (i, space) in registry.of(Kind::Space).enumerate() {
                let one = (i + turn) % datasets.len();
                let some = match all_pairs() {
                    true => &datasets[..],
                    false => &datasets[one..=one],
                };
                for dataset in some {
                    let mut options = vec![
                        ("strategy.name", strategy.name),
                        ("space.name", space.name),
                        ("dataset.name", dataset.name),
                    ];
                    options.extend(preset.map(|p| ("strategy.preset", p)));
                    let options = options
                        .into_iter()
                        .map(|(k, v)| (k.to_owned(), format!("\"{v}\""), format!("--{k}")))
                        .collect();
                    let resolved = resolve(&registry, &[Layer::CommandLine(options)]).unwrap();
                    // And what a run keeps of it, which names no preset, is the same configuration.
                    let kept = Layer::File("config.toml".into(), resolved.to_toml());
                    let again = resolve(&registry, &[kept]).unwrap();
                    assert_eq!(again.value, resolved.value);
                    for resolved in [resolved, again] {
                        RunConfig::new(&registry, &resolved).unwrap_or_else(|e| {
                            panic!(
                                "{} ({preset:?}) on {} with {}: {e}",
                                strategy.name, space.name, dataset.name
                            )
                        });
                    }
                }
            }
        }
    }
}

/// The example of every plugin is a command that `nasfw` understands: with `config show` in place of `run`.
#[test]
fn every_example_can_be_typed() {
    for plugin in Registry::load().unwrap().all() {
        if plugin.kind() == Kind::Proxy {
            // Those are scored, tiny, in tests/it/score.rs.
            let example = format!("nasfw score DARTS_V2 --proxy {}", plugin.name);
            assert_eq!(plugin.example, example);
            continue;
        }
        let words: Vec<&str> = plugin.example.split_whitespace().collect();
        assert_eq!(words[..2], ["nasfw", "run"], "{}", plugin.name);
        let out = Command::new(env!("CARGO_BIN_EXE_nasfw"))
            .args(["config", "show"])
            .args(&words[2..])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "`{}`: {text}", plugin.example);
    }
}

#[test]
fn what_config_show_writes_can_be_run() {
    let dir = tempfile::tempdir().unwrap();
    let nasfw = |args: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_nasfw"))
            .args(args)
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap()
    };
    let toml = nasfw(&[
        "config",
        "show",
        "--toml",
        "--strategy",
        "darts",
        "--space",
        "toy-conv",
        "--seed",
        "7",
    ]);
    std::fs::write(dir.path().join("my.toml"), &toml).unwrap();
    assert_eq!(
        nasfw(&["config", "show", "--toml", "--config", "my.toml"]),
        toml
    );
    assert!(nasfw(&["config", "show", "--config", "my.toml"]).contains("# my.toml, line "));
}

/// What the defaults say, or a preset, or `config.toml` of a run, which has every value, stands in nobody's way where another
/// option leaves it nothing to do; what else is typed is a mistake there, on every space. And the preset that is the paper's
/// text is it on every space.
#[test]
fn options_that_change_nothing_are_refused_where_they_were_set() {
    let dir = tempfile::tempdir().unwrap();
    let shown = |args: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_nasfw"))
            .args(["config", "show", "--toml"])
            .args(args)
            .current_dir(dir.path())
            .output()
            .unwrap();
        let said = [out.stdout, out.stderr].concat();
        (out.status.success(), String::from_utf8(said).unwrap())
    };
    // Options for `strategy.…` of a strategy on a space.
    let show = |strategy: &str, space: &str, args: &[&str]| {
        shown(&[&["--strategy", strategy, "--space", space], args].concat())
    };
    let s3 = "nasbench1shot1-s3";
    let set = |options: &[&str]| -> Vec<String> {
        let set = options.iter().map(|o| format!("--set=strategy.{o}"));
        set.collect()
    };
    let (good, plain) = show("vim", s3, &[]);
    for decides in ["rate = 5.0", "noise = 1.0"] {
        assert!(
            good && plain.contains(&format!("topology_{decides}")),
            "{plain}"
        );
    }
    assert!(plain.contains("k_hot = true"), "{plain}");
    let (good, literal) = show("vim", s3, &["--preset", "literal"]);
    assert!(good, "{literal}");
    for (option, value) in [("noise", "0.0"), ("temperature", "1.0"), ("rate", "1.0")] {
        assert!(
            literal.contains(&format!("topology_{option} = {value}")),
            "{literal}"
        );
    }
    assert!(literal.contains("k_hot = false"), "{literal}");

    let generated = "topology=generated";
    for (strategy, space, args) in [
        ("vim", s3, set(&[generated])),
        ("vim", s3, set(&[generated, "topology_rate=5"])),
        ("vim", s3, set(&[generated, "preset=literal"])),
        ("vim", s3, set(&["preset=p"])),
        ("vim", s3, set(&["preset=d", "noise=1"])),
        // Its own momentum, whatever the rule.
        ("sparse-nas", "darts", set(&["arch.momentum=0.5"])),
        ("vim", s3, set(&["preset=literal", "operations=free"])),
        (
            "oles",
            s3,
            set(&["base.name=vim", "base.topology=generated"]),
        ),
        (
            "darts",
            "toy-conv",
            set(&["order=2", "hessian_product=exact"]),
        ),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (good, toml) = show(strategy, space, &args);
        assert!(good, "{strategy} {args:?}: {toml}");
        std::fs::write(dir.path().join("again.toml"), &toml).unwrap();
        let again = shown(&["--config", "again.toml"]);
        assert_eq!(again, (true, toml), "{strategy} {args:?}");
    }
    for (strategy, space, args, key) in [
        (
            "vim",
            s3,
            set(&[generated, "topology_rate=3"]),
            "topology_rate",
        ),
        (
            "vim",
            s3,
            set(&[generated, "topology_noise=0.7"]),
            "topology_noise",
        ),
        (
            "vim",
            s3,
            set(&["form=point", "topology_noise=0.7"]),
            "topology_noise",
        ),
        ("vim", s3, set(&["form=point", "samples=2"]), "samples"),
        ("vim", s3, set(&["form=point", "noise=0.5"]), "noise"),
        ("vim", s3, set(&["form=dropout", "noise=0.5"]), "noise"),
        ("vim", s3, set(&["operations=free", "blocks=3"]), "blocks"),
        (
            "vim",
            s3,
            set(&["operations=free", "input=resampled"]),
            "input",
        ),
        (
            "vim",
            s3,
            set(&[generated, "free_init_std=0.1"]),
            "free_init_std",
        ),
        // A default there, and none here.
        (
            "vim",
            "darts",
            set(&[generated, "topology_rate=5"]),
            "topology_rate",
        ),
        (
            "vim",
            "darts",
            set(&[generated, "topology_temperature_end=0.2"]),
            "topology_temperature_end",
        ),
        (
            "oles",
            "darts",
            set(&[
                "base.name=vim",
                "base.topology=generated",
                "base.topology_rate=5",
            ]),
            "base.topology_rate",
        ),
        (
            "darts",
            "toy-conv",
            set(&["hessian_product=exact"]),
            "hessian_product",
        ),
        ("random", "toy-conv", set(&["reference=2"]), "reference"),
        (
            "random",
            "toy-conv",
            set(&["score=none", "samples=3"]),
            "samples",
        ),
        (
            "random",
            "toy-conv",
            set(&["score=benchmark", "eval_batches=3"]),
            "eval_batches",
        ),
        (
            "darts-plus",
            "darts",
            set(&["criterion=skips", "patience=3"]),
            "patience",
        ),
        (
            "darts-plus",
            "darts",
            set(&["criterion=ranking", "skips=3"]),
            "skips",
        ),
        (
            "zero-cost",
            "darts",
            set(&["candidates=random", "population=3"]),
            "population",
        ),
        (
            "vdnas",
            "darts",
            set(&["semi_implicit=false", "init_spread=0.3"]),
            "init_spread",
        ),
        (
            "rank-nosh",
            "darts",
            set(&["score=train", "metric=test"]),
            "metric",
        ),
        (
            "rank-nosh",
            "darts",
            set(&["levels=[3]", "promoted=0.3"]),
            "promoted",
        ),
        (
            "arch2vec-bo",
            "darts",
            set(&["score=train", "fidelity=lowest"]),
            "fidelity",
        ),
        (
            "arch2vec-bo",
            "nasbench201",
            set(&["score=benchmark", "epochs=3"]),
            "epochs",
        ),
        (
            "darts-minus",
            "darts",
            set(&["auxiliary_start=0", "decay=cosine"]),
            "decay",
        ),
        ("vim", "darts", set(&["arch.momentum=0.5"]), "arch.momentum"),
        (
            "vim",
            "darts",
            set(&["arch.optimizer=sgd", "arch.betas=[0.8, 0.99]"]),
            "arch.betas",
        ),
        (
            "oles",
            "darts",
            set(&["base.arch.schedule=constant", "base.arch.lr_min=1e-5"]),
            "base.arch.lr_min",
        ),
        (
            "constrained",
            "toy-conv",
            set(&["network.cells=3"]),
            "network.cells",
        ),
        (
            "constrained",
            "toy-conv",
            set(&["rate=0.5", "cost={ macs = \"1M\" }"]),
            "rate",
        ),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (good, said) = show(strategy, space, &args);
        let named = said.contains(&format!("strategy.{key}"));
        let why = said.contains("would change nothing");
        assert!(!good && named && why, "{strategy} {args:?}: {said}");
    }
    for (args, key) in [
        (
            &["--set=trainer.augment.cutout_probability=0.5"][..],
            "trainer.augment.cutout_probability",
        ),
        (
            &[
                "--set=trainer.sync_batch_norm=true",
                "--set=trainer.fused=false",
            ],
            "trainer.fused",
        ),
    ] {
        let (good, said) = show("darts", "darts", args);
        let why = said.contains("would change nothing");
        assert!(!good && said.contains(key) && why, "{args:?}: {said}");
    }
}
