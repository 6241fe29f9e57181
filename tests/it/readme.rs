//! README.md says what is there: its table of support is that of the registry, and what it tells to type exists.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use nasfw::framework::registry::{Kind, Registry};

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// The text between two marks.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let start = text
        .find(from)
        .unwrap_or_else(|| panic!("no `{from}` in README.md"))
        + from.len();
    let end = text[start..]
        .find(to)
        .unwrap_or_else(|| panic!("no `{to}` in README.md"));
    &text[start..start + end]
}

#[test]
fn the_table_of_support_is_the_registry() {
    let registry = Registry::load().unwrap();
    let mut table = String::from("\n| kind | name | what | source |\n|---|---|---|---|\n");
    for kind in Kind::ALL {
        for p in registry.of(kind) {
            writeln!(
                table,
                "| {} | `{}` | {} | {} |",
                kind.name(),
                p.name,
                p.summary,
                p.source
            )
            .unwrap();
        }
    }
    let text = readme();
    let found = between(&text, "<!-- supported -->", "<!-- /supported -->");
    assert_eq!(
        found, table,
        "put this between the marks of README.md:\n{table}"
    );
}

#[test]
fn the_strategy_in_the_readme_is_the_one_in_examples() {
    let text = readme();
    let shown = between(
        &text,
        "<!-- own-strategy -->\n```rust\n",
        "```\n<!-- /own-strategy -->",
    );
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/own-strategy/src");
    let sources: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|e| fs::read_to_string(e.unwrap().path()).unwrap())
        .collect();
    assert!(
        sources.iter().any(|s| s.contains(shown.trim())),
        "README.md shows a strategy that is not in examples"
    );
}

#[test]
fn files_that_the_readme_links_to_exist() {
    let text = readme();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let links: Vec<&str> = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|l| !l.starts_with("http") && !l.starts_with('#'))
        .collect();
    assert!(links.len() > 3);
    for link in links {
        let file = link.split('#').next().unwrap_or(link);
        assert!(
            root.join(file).exists(),
            "README.md links to {link}, which is not there"
        );
    }
}

#[test]
fn every_strategy_says_what_was_verified() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/strategies.md"))
        .unwrap();
    let table = between(&text, "<!-- verified -->", "<!-- /verified -->");
    for plugin in Registry::load().unwrap().of(Kind::Strategy) {
        let named = table.lines().any(|row| {
            let first = row.split('|').nth(1).unwrap_or_default();
            first.contains(&format!("`{}`", plugin.name))
        });
        assert!(
            named || plugin.name == "train",
            "docs/strategies.md lacks `{}`",
            plugin.name
        );
    }
}
