//! Published settings on families of spaces: what a strategy is given where nothing is set.

use nasfw_framework::config::{Layer, resolve};
use nasfw_spaces as _;

use super::*;

/// Strategy, space, and what stands in the resolved configuration.
type Published = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

const PUBLISHED: &[Published] = &[
    // Dong & Yang 2019: the paper and the authors' code for the NASNet space leave the other candidates out. Rates move with
    // every step there, and the architecture's images are drawn at random.
    (
        "gdas",
        "darts",
        &[
            ("strategy.gradient", "\"paper\""),
            ("strategy.tau_min", "0.1"),
            ("strategy.arch.clip", "0.0"),
            ("trainer.epochs", "250"),
            ("trainer.batch_size", "256"),
            ("trainer.schedule_by", "\"step\""),
            ("trainer.val_order", "\"fresh\""),
            ("trainer.weights.nesterov", "true"),
            ("trainer.weights.weight_decay", "0.0005"),
        ],
    ),
    ("gdas", "robust-s2", &[("strategy.gradient", "\"paper\"")]),
    // Dong & Yang 2020, `forward_gdas`.
    (
        "gdas",
        "nasbench201",
        &[
            ("strategy.gradient", "\"official\""),
            ("strategy.tau_min", "0.1"),
            ("trainer.batch_size", "64"),
            ("trainer.schedule_by", "\"step\""),
            ("trainer.weights.weight_decay", "0.0005"),
        ],
    ),
    // Zela et al. 2020, `optimizers/gdas` and `optimizers/pc_darts`.
    (
        "gdas",
        "nasbench1shot1-s1",
        &[
            ("strategy.gradient", "\"paper\""),
            ("strategy.tau_min", "1.09"),
            ("strategy.arch.clip", "5.0"),
            ("trainer.epochs", "100"),
            ("trainer.batch_size", "96"),
            ("trainer.schedule_by", "\"epoch\""),
            ("trainer.val_order", "\"shuffled\""),
            ("trainer.weights.nesterov", "false"),
        ],
    ),
    (
        "pc-darts",
        "nasbench1shot1-s3",
        &[
            ("strategy.arch_start", "0.0"),
            ("strategy.partial_channels", "4"),
            ("strategy.arch.lr", "0.0003"),
            ("trainer.epochs", "100"),
            ("trainer.batch_size", "96"),
            ("trainer.weights.lr", "0.025"),
            ("trainer.weights.lr_min", "0.001"),
        ],
    ),
    (
        "pc-darts",
        "darts",
        &[
            ("strategy.arch_start", "0.3"),
            ("strategy.arch.lr", "0.0006"),
            ("trainer.batch_size", "256"),
            ("trainer.weights.lr", "0.1"),
        ],
    ),
    // Chen & Hsieh 2020, `nasbench201/train_search.py` and `optimizers/darts/train_search.py`.
    (
        "sdarts-adv",
        "nasbench201",
        &[
            ("trainer.epochs", "100"),
            ("trainer.batch_size", "64"),
            ("trainer.schedule_by", "\"epoch\""),
            ("trainer.weights.nesterov", "false"),
            ("trainer.weights.weight_decay", "0.0003"),
        ],
    ),
    (
        "sdarts-rs",
        "nasbench201",
        &[
            ("trainer.epochs", "100"),
            ("trainer.weights.nesterov", "false"),
        ],
    ),
    (
        "sdarts-rs",
        "nasbench1shot1-s2",
        &[("trainer.epochs", "100"), ("trainer.batch_size", "96")],
    ),
    (
        "sdarts-rs",
        "darts",
        &[("trainer.epochs", "50"), ("trainer.batch_size", "64")],
    ),
    // Chen et al. 2021, `201-space/train_search.py`.
    (
        "drnas",
        "nasbench201",
        &[
            ("strategy.arch.lr", "0.0003"),
            ("trainer.epochs", "100"),
            ("trainer.schedule_by", "\"epoch\""),
            ("trainer.weights.nesterov", "false"),
            ("trainer.weights.weight_decay", "0.0003"),
        ],
    ),
];

#[test]
fn strategies_bring_published_settings_to_families_of_spaces() {
    let registry = Registry::load().unwrap();
    for (strategy, space, settings) in PUBLISHED {
        let given = [
            ("strategy.name", strategy),
            ("space.name", space),
            ("dataset.name", &"blots"),
        ];
        let options = given.map(|(key, name)| (key.into(), (*name).into(), format!("--{key}")));
        let resolved = resolve(&registry, &[Layer::CommandLine(options.into())]).unwrap();
        for (key, expected) in *settings {
            let found = key.split('.').fold(&resolved.value, |at, key| &at[key]);
            let expected: Value = serde_json::from_str(expected).unwrap();
            assert_eq!(found, &expected, "{strategy} on {space}: {key}");
        }
    }
}
