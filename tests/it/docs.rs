//! README and the pages of docs say what is there: tables are those of the registry, what is shown comes from where it says,
//! and every link leads somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Component, Path, PathBuf};

use nasfw::framework::registry::{Kind, Registry};
use serde_json::Value;

use crate::program::good;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: impl AsRef<Path>) -> String {
    let page = page.as_ref();
    fs::read_to_string(root().join(page)).unwrap_or_else(|e| panic!("{}: {e}", page.display()))
}

/// The text between two marks of a page.
fn between(page: &str, from: &str, to: &str) -> String {
    let text = read(page);
    let start = text
        .find(from)
        .unwrap_or_else(|| panic!("no `{from}` in {page}"))
        + from.len();
    let length = text[start..]
        .find(to)
        .unwrap_or_else(|| panic!("no `{to}` in {page}"));
    text[start..start + length].to_owned()
}

#[test]
fn the_table_of_plugins_is_the_registry() {
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
    let page = "docs/plugins.md";
    let found = between(page, "<!-- supported -->", "<!-- /supported -->");
    assert_eq!(
        found, table,
        "put this between the marks of {page}:\n{table}"
    );
}

#[test]
fn the_strategy_of_the_page_is_the_one_in_examples() {
    let page = "docs/own-strategy.md";
    let shown = between(
        page,
        "<!-- own-strategy -->\n```rust\n",
        "```\n<!-- /own-strategy -->",
    );
    let sources: Vec<String> = fs::read_dir(root().join("examples/own-strategy/src"))
        .unwrap()
        .map(|e| fs::read_to_string(e.unwrap().path()).unwrap())
        .collect();
    assert!(
        sources.iter().any(|s| s.contains(shown.trim())),
        "{page} shows a strategy that is not in examples"
    );
}

#[test]
fn every_strategy_says_what_was_verified() {
    let table = between(
        "docs/strategies.md",
        "<!-- verified -->",
        "<!-- /verified -->",
    );
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

/// The picture of README: its lines are the numbers of recorded runs, its cell is the one that they found.
#[test]
fn the_picture_comes_from_recorded_runs() {
    let picture = read("docs/search.svg");
    let svg = roxmltree::Document::parse(&picture).unwrap();
    let run = |seed: u32| root().join(format!("docs/studies/vim/confirmation-{seed}"));
    let line = |id: &str, seed: u32, top: f64, value: &dyn Fn(&Value) -> f64| {
        let drawn = svg
            .descendants()
            .find(|n| n.attribute("id") == Some(id))
            .unwrap_or_else(|| panic!("no line {id}"));
        let events = fs::read_to_string(run(seed).join("events.jsonl")).unwrap();
        let points: Vec<String> = events
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|event| event["event"] == "architecture")
            .map(|event| {
                let step = event["step"].as_f64().unwrap();
                let (x, y) = (
                    46.0 + 290.0 * step / 800.0,
                    66.0 + 230.0 * (1.0 - value(&event) / top),
                );
                format!("{x:.1},{y:.1}")
            })
            .collect();
        assert!(points.len() > 30, "{id}");
        assert_eq!(
            drawn.attribute("points"),
            Some(points.join(" ").as_str()),
            "{id}"
        );
    };
    for seed in 104..=107 {
        line(&format!("regret-{seed}"), seed, 20.0, &|event| {
            event["regret"]["test/cifar10"].as_f64().unwrap()
        });
    }
    let candidates = [
        "none",
        "skip_connect",
        "nor_conv_1x1",
        "nor_conv_3x3",
        "avg_pool_3x3",
    ];
    for (i, candidate) in candidates.into_iter().enumerate() {
        line(&format!("weight-{candidate}"), 104, 1.0, &|event| {
            event["marginals"][0][3][i].as_f64().unwrap()
        });
    }

    let dir = tempfile::tempdir().unwrap();
    for seed in [104, 105, 107] {
        let drawing = good(dir.path(), &["draw", run(seed).to_str().unwrap()]);
        let cell =
            &drawing[drawing.find("<g transform").unwrap()..drawing.rfind("</svg>").unwrap()];
        assert!(
            picture.contains(cell.trim()),
            "the cell of seed {seed} is another one"
        );
    }
}

/// README, the pages at the root, and every page below docs, by paths from the root.
fn pages() -> Vec<PathBuf> {
    let mut found = vec![];
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                found.push(path);
            }
        }
    }
    found.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(PathBuf::from));
    found.sort();
    found
}

/// The lines of a page that are no code.
fn prose(text: &str) -> Vec<&str> {
    let mut code = false;
    text.lines()
        .filter(|line| {
            let fence = line.trim_start().starts_with("```");
            code ^= fence;
            !code && !fence
        })
        .collect()
}

/// Where the links and pictures of a page lead, as written; those to other sites and to interfaces of crates are left out.
fn links(text: &str) -> Vec<String> {
    let lines = prose(text).join("\n");
    let plain: String = lines.split('`').step_by(2).collect();
    let targets = plain
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    targets
        // What rustdoc writes is only on the site, where `cargo xtask book` checks it.
        .filter(|target| !target.contains("://") && !target.starts_with("api/"))
        .map(str::to_owned)
        .collect()
}

/// The anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut times = BTreeMap::new();
    let headings = prose(text).into_iter().filter_map(|line| {
        let heading = line.trim_start_matches('#');
        (heading.len() < line.len()).then(|| heading.strip_prefix(' '))?
    });
    headings
        .map(|heading| {
            // `[text](address)` shows as its text.
            let mut parts = heading.split("](");
            let first = parts.next().unwrap_or_default().to_owned();
            let shown = parts.fold(first, |shown, rest| {
                shown + rest.split_once(')').map_or("", |(_, after)| after)
            });
            let kept = shown.trim().to_lowercase().replace(' ', "-");
            let slug: String = kept
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
                .collect();
            let before = times.entry(slug.clone()).or_insert(0);
            *before += 1;
            match *before {
                1 => slug,
                n => format!("{slug}-{}", n - 1),
            }
        })
        .collect()
}

/// A path without `..`, or none where it leaves the root.
fn resolved(path: &Path) -> Option<PathBuf> {
    let mut whole = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => whole.pop().then_some(())?,
            Component::Normal(name) => whole.push(name),
            _ => {}
        }
    }
    Some(whole)
}

/// What is wrong with the links of a page.
fn dead_links(page: &Path, text: &str) -> Vec<String> {
    let folder = page.parent().unwrap();
    let dead = links(text).into_iter().filter(|link| {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let there = match file {
            "" => Some(text.to_owned()),
            file => resolved(&folder.join(file))
                .map(|path| root().join(path))
                .filter(|path| path.exists())
                .map(|path| fs::read_to_string(path).unwrap_or_default()),
        };
        there.is_none_or(|there| !anchor.is_empty() && !anchors(&there).contains(anchor))
    });
    dead.map(|link| format!("{}: {link}", page.display()))
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let all = pages();
    assert!(all.len() > 40, "{all:?}");
    let found: usize = all.iter().map(|page| links(&read(page)).len()).sum();
    assert!(found > 200, "{found} links");
    let dead: Vec<String> = all
        .iter()
        .flat_map(|page| dead_links(page, &read(page)))
        .collect();
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

#[test]
fn a_dead_link_is_seen() {
    let text = "# A page\n\n## What `is` [here](runs.md), twice?\n## What is here, twice?\n\n[a](gone.md) [b](runs.md#gone)\n\
                [c](#a-page) [d](#what-is-here-twice-1) [e](#what-is-here) ![f](../docs/runs.md)\n[g](../../README.md)\n\
                `[h](code.md)`\n```\n[i](code.md)\n# A comment\n```\n[j](#a-comment) [k](https://example.org/x) \
                [l](runs.md#events)\n";
    let dead = dead_links(Path::new("docs/page.md"), text);
    let wanted = [
        "gone.md",
        "runs.md#gone",
        "#what-is-here",
        "../../README.md",
        "#a-comment",
    ];
    assert_eq!(dead, wanted.map(|link| format!("docs/page.md: {link}")));
}

/// All that stands in the files of the program below a folder, with broken texts on one line.
fn source(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &source(&path);
        } else if path.extension().is_some_and(|e| e == "rs" || e == "py") {
            let file = fs::read_to_string(&path).unwrap();
            let mut pieces = file.split("\\\n");
            text += pieces.next().unwrap_or_default();
            pieces.for_each(|piece| text += piece.trim_start());
        }
    }
    text
}

/// A message of the page of troubles is one that the program has.
#[test]
fn the_program_says_what_the_page_of_troubles_explains() {
    let program: String = [
        "analysis/src",
        "datasets/src",
        "framework/src",
        "python/nasfw",
        "spaces/src",
        "src",
        "xtask/src",
    ]
    .iter()
    .map(|folder| source(&root().join(folder)))
    .collect();
    let page = read("docs/faq.md");
    let messages: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'))
        .collect();
    assert!(messages.len() > 20, "{messages:?}");
    for message in messages {
        for part in message.split('…').map(str::trim) {
            assert!(
                program.contains(part),
                "`{message}`: the program does not say `{part}`"
            );
        }
    }
}

/// Sizes of libtorch are those that `cargo xtask setup` announces, in all pages and in its own help.
#[test]
fn libtorch_is_as_large_everywhere() {
    let size = |before| between("xtask/src/setup.rs", before, "\"");
    let known = ["Form::Lean { \"", "} else { \""].map(size);
    assert!(known.iter().all(|size| size.ends_with(" GB")), "{known:?}");
    let mut seen = BTreeSet::new();
    for page in [
        "README.md",
        "docs/start.md",
        "docs/python.md",
        "docs/faq.md",
        "docs/decisions/0005-libtorch.md",
        "xtask/src/cli.rs",
    ] {
        let text = read(page);
        let before = text.split(" GB").map(|text| {
            let digits = text.rfind(|c: char| !c.is_ascii_digit() && c != '.');
            &text[digits.map_or(0, |at| at + 1)..]
        });
        // Behind the last one nothing follows, and what a search took is less.
        let mut sizes: Vec<&str> = before.collect();
        sizes.pop();
        for size in sizes {
            if size.parse::<f64>().unwrap() > 1.0 {
                let size = format!("{size} GB");
                assert!(known.contains(&size), "{page}: {size}");
                seen.insert(size);
            }
        }
    }
    assert_eq!(seen, BTreeSet::from(known));
}

/// docs/SUMMARY.md is what mdBook makes the site of: a page that it does not name is not there.
#[test]
fn every_page_is_in_the_summary() {
    let summary = PathBuf::from("docs/SUMMARY.md");
    let mut named: Vec<PathBuf> = links(&read(&summary))
        .iter()
        .map(|link| Path::new("docs").join(link))
        .collect();
    named.sort();
    let wanted: Vec<PathBuf> = pages()
        .into_iter()
        .filter(|page| page.starts_with("docs") && *page != summary)
        .collect();
    assert_eq!(
        named, wanted,
        "docs/SUMMARY.md names each page of docs once"
    );
    let book: toml::Table = read("book.toml").parse().unwrap();
    assert_eq!(book["book"]["src"].as_str(), Some("docs"));
}
