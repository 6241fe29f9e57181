//! Names and checks of plugins.
#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

fn plugin(name: &'static str, crate_name: &'static str, version: &'static str) -> &'static Plugin {
    Box::leak(Box::new(Plugin {
        name,
        summary: "",
        source: "",
        defaults: "",
        presets: &[],
        families: &[],
        example: "",
        spaces: &[],
        parse: Parse::Space(|_| Err(ConfigError::one("", "", None))),
        kept_as: name,
        crate_name,
        crate_version: version,
        file: "lib.rs",
    }))
}

#[test]
fn two_plugins_of_one_name_are_refused_naming_both_crates() {
    let error = Registry::check(vec![plugin("s", "a", "1.0.0"), plugin("s", "b", "2.0.0")])
        .err()
        .unwrap();
    let text = error.to_string();
    assert!(text.contains("two space plugins are called `s`"), "{text}");
    assert!(
        text.contains("a 1.0.0 (lib.rs)") && text.contains("b 2.0.0 (lib.rs)"),
        "{text}"
    );
}

#[test]
fn one_crate_in_two_versions_is_refused() {
    let error = Registry::check(vec![plugin("s", "a", "1.0.0"), plugin("t", "a", "1.1.0")])
        .err()
        .unwrap();
    let text = error.to_string();
    assert!(
        text.contains("`a` is linked twice, as 1.0.0 and 1.1.0"),
        "{text}"
    );
}

/// Settings that say that they are those of another plugin.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Renamed {}

#[typetag::serde(name = "old-name")]
impl SpaceConfig for Renamed {
    fn build(&self) -> Result<Box<dyn crate::space::SearchSpace>> {
        Err(Error::Registry("never built".into()))
    }
}

fn renamed(name: &'static str) -> Plugin {
    Plugin {
        parse: Parse::Space(|v| parse_section::<Renamed>(v).map(|c| Box::new(c) as _)),
        ..*plugin(name, "a", "1.0.0")
    }
}

#[test]
fn settings_that_are_kept_under_another_name_are_refused_naming_both() {
    let load = |name| {
        Registry::check(vec![Box::leak(Box::new(renamed(name)))])
            .unwrap()
            .check_names()
    };
    load("old-name").unwrap();
    let text = load("new-name").unwrap_err();
    assert!(
        text.contains("space `new-name` of a 1.0.0 (lib.rs)"),
        "{text}"
    );
    assert!(
        text.contains("registered as `new-name`, but its typetag name is `old-name`"),
        "{text}"
    );
}

const NAMES: [&str; 9] = [
    "vim",
    "darts",
    "pc-darts",
    "regularized-evolution",
    "nasbench1shot1-s3",
    "checkpoint_every",
    "weight_decay",
    "fashion-mnist-mini",
    "batch_size",
];

proptest! {
    /// A letter that is missing, doubled, changed or in the place of its neighbour.
    #[test]
    fn a_slip_finds_the_name(name in prop::sample::select(NAMES.to_vec()), at in 0usize..40, how in 0..4) {
        let mut letters: Vec<char> = name.chars().collect();
        let at = at % (letters.len() - 1);
        match how {
            0 => drop(letters.remove(at)),
            1 => letters.insert(at, letters[at]),
            2 => letters[at] = 'q',
            _ => letters.swap(at, at + 1),
        }
        let typed: String = letters.into_iter().collect();
        let found = similar(&typed, NAMES.into_iter());
        prop_assert_eq!(found.as_deref(), Some(name));
    }

    /// Letters that were not meant to be any of them; a word of eight has one in fewer than a hundred cases.
    #[test]
    fn other_words_find_none(typed in "[a-z]{8}") {
        let near = NAMES.iter().any(|n| strsim::damerau_levenshtein(n, &typed) <= 5);
        prop_assume!(!near);
        prop_assert_eq!(similar(&typed, NAMES.into_iter()), None);
    }
}

#[test]
fn what_was_meant_and_what_was_not() {
    let keys = [
        "tf32",
        "epochs",
        "fused",
        "memory",
        "regularized-evolution",
        "skip_connect",
    ];
    let found = |name| similar(name, keys.into_iter());
    for (typed, meant) in [
        ("epoch", "epochs"),
        ("Epochs", "epochs"),
        ("evolution", "regularized-evolution"),
        ("skip", "skip_connect"),
        ("mem", "memory"),
    ] {
        assert_eq!(found(typed).as_deref(), Some(meant), "{typed}");
    }
    for typed in ["foo", "frame", "x", "", "tune", "evaluate", "skipper", "ep"] {
        assert_eq!(found(typed), None, "{typed}");
    }
}

#[test]
fn plugins_are_sorted_whatever_the_linking_order() {
    let sorted = |plugins| -> Vec<&str> {
        Registry::check(plugins)
            .ok()
            .unwrap()
            .all()
            .iter()
            .map(|p| p.name)
            .collect()
    };
    let (a, b) = (plugin("a", "x", "1"), plugin("b", "y", "1"));
    assert_eq!(sorted(vec![b, a]), ["a", "b"]);
    assert_eq!(sorted(vec![a, b]), ["a", "b"]);
}
