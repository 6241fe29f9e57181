#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use roxmltree::Document;

use super::*;
use crate::compare::*;
use crate::record::tests::record;
use crate::state::State as RunState;

/// A comparison of three strategies over three seeds, made up.
pub(crate) fn comparison() -> Comparison {
    let strategies = ["vim<b>", "darts", "random"].map(str::to_owned);
    let summary = |base: f64| Summary {
        values: vec![base, base + 0.1, base + 0.2],
        mean: base + 0.1,
        sd: Some(0.1),
        interval: Some([base, base + 0.2]),
    };
    let figures = |(k, name): (usize, &String)| StrategyFigures {
        strategy: name.clone(),
        metric: summary(0.5 + k as f64 / 100.0),
        regret: Some(summary(0.2)),
        anytime: Some(Anytime {
            mean: vec![0.5, 0.3, 0.2 + k as f64 / 10.0],
            low: vec![0.4, 0.2, 0.1],
            high: vec![0.6, 0.5, 0.5],
            area: summary(0.3),
        }),
        tau: None,
        verdicts: vec![],
        sentence: "not distinguishable from random (p = 0.5)".into(),
    };
    let ranks = Ranks {
        average: strategies
            .iter()
            .cloned()
            .zip([1.3333, 2.0, 2.6667])
            .collect(),
        blocks: 3,
        chi_squared: 2.6667,
        p: 0.2636,
        critical_difference: 1.913,
    };
    let budget = Budget {
        unit: Unit::Steps,
        amount: 100,
    };
    let setting = Setting {
        space: "toy".into(),
        dataset: None,
        budget,
        metric: Some("value".into()),
        benchmark: Some("a formula".into()),
        predicted: false,
        seeds: vec![0, 1, 2],
        partial: true,
        notes: vec!["few seeds".into()],
        strategies: strategies.iter().enumerate().map(figures).collect(),
        pairs: vec![Pair {
            a: strategies[0].clone(),
            b: strategies[1].clone(),
            difference: -0.01,
            p: 0.25,
            p_holm: 0.75,
            n: 3,
            rank_biserial: -1.0,
            cohen_dz: None,
        }],
        ranks: Some(ranks),
        grid: vec![0.0, 50.0, 100.0],
    };
    let trial = |strategy: &String, state| TrialResult {
        strategy: strategy.clone(),
        space: "toy".into(),
        dataset: None,
        budget,
        seed: 3,
        run: "trials/x".into(),
        state,
        metric: None,
        regret: None,
        error: (state == TrialState::Failed).then(|| "it <broke>".into()),
    };
    Comparison {
        name: "a & b".into(),
        level: 0.05,
        partial: true,
        controls: vec!["random".into()],
        settings: vec![setting],
        trials: vec![
            trial(&strategies[0], TrialState::Done),
            trial(&strategies[1], TrialState::Failed),
            trial(&strategies[2], TrialState::Missing),
        ],
        strategies: strategies.to_vec(),
        overall: None,
    }
}

/// The page as XML: maud closes all but the void elements.
fn checked(html: &str) -> String {
    let mut xml = html
        .replace("<!DOCTYPE html>", "")
        // No XML, as scripts are; that there is this one alone is what the policy says.
        .replace(&format!("<script>{SCRIPT}</script>"), "")
        .replace("<br>", "<br/>")
        .replace("<details open>", "<details open=\"\">");
    for void in ["meta "] {
        let mut at = 0;
        while let Some(found) = xml[at..].find(&format!("<{void}")) {
            let end = at + found + xml[at + found..].find('>').unwrap();
            xml.insert(end, '/');
            at = end;
        }
    }
    let document = Document::parse(&xml).unwrap_or_else(|e| panic!("{e}"));
    let mut level = 0;
    let mut ids = std::collections::BTreeSet::new();
    for node in document.descendants().filter(roxmltree::Node::is_element) {
        let name = node.tag_name().name();
        assert!(!["script", "link", "img", "iframe", "b-"].contains(&name));
        for attribute in node.attributes() {
            let value = attribute.value();
            match attribute.name() {
                "href" => assert!(value.starts_with('#'), "{value}"),
                "src" | "onload" | "onclick" => panic!("{}", attribute.name()),
                "id" => assert!(ids.insert(value.to_owned()), "twice: {value}"),
                _ => {}
            }
        }
        if let Some(h) = name.strip_prefix('h').and_then(|h| h.parse::<u32>().ok()) {
            assert!(h <= level + 1, "h{h} after h{level}");
            level = h;
        }
        if name == "th" {
            assert!(node.attribute("scope").is_some(), "a header without scope");
        }
        if name == "table" {
            assert!(node.children().any(|c| c.has_tag_name("caption")));
        }
        if name == "figure" {
            assert!(node.children().any(|c| c.has_tag_name("figcaption")));
        }
        if name == "svg" && node.attribute("aria-hidden").is_none() {
            assert_eq!(node.attribute("role"), Some("img"));
            assert!(!node.attribute("aria-label").unwrap().is_empty());
        }
    }
    for node in document.descendants() {
        if let Some(link) = node.attribute("href") {
            assert!(ids.contains(&link[1..]), "a link to nowhere: {link}");
        }
    }
    xml
}

#[test]
fn a_run_has_all_parts() {
    let report = Report::Runs(vec![record()]);
    let html = report.html();
    checked(&html);
    assert!(html == report.html(), "the same run gave another page");
    for part in [
        "On the test images",
        "What is taken for what",
        "Ranking of the supernet",
        "Architecture",
        "Metrics",
        "Weights of normal",
        "Settings",
        "Provenance",
        "How to reproduce it",
        "nasfw run --config",
    ] {
        assert!(html.contains(part), "{part}");
    }
    assert!(!html.contains("still going"));
}

#[test]
fn an_unfinished_run_says_so() {
    for (state, says) in [
        (RunState::Running, "still going"),
        (RunState::Stopped, "nasfw resume"),
        (RunState::Failed, "not finished: failed"),
    ] {
        let unfinished = Record {
            state,
            outcome: None,
            manifest: None,
            ..record()
        };
        let html = Report::Runs(vec![unfinished]).html();
        checked(&html);
        assert!(html.contains(says), "{says}");
        assert!(html.contains("would be derived now"));
    }
}

/// Of the result, and before there is one of the newest architecture.
#[test]
fn how_far_to_trust_an_architecture_is_said() {
    let said = |record: Record| {
        let xml = checked(&Report::Runs(vec![record]).html());
        let document = Document::parse(&xml).unwrap();
        let lists = document.descendants().filter(|n| n.has_tag_name("ul"));
        let items = lists
            .filter(|l| {
                let before = l.prev_sibling_element().and_then(|n| n.text());
                before == Some("How far to trust it:")
            })
            .flat_map(|l| l.children())
            .map(|i| i.text().unwrap().to_owned());
        items.collect::<Vec<_>>()
    };
    let mut toss = record();
    let outcome = toss.outcome.as_mut().unwrap();
    outcome.entropy = Some(0.99);
    let remarks = outcome.remarks();
    assert_eq!(remarks.len(), 3);
    let sentences: Vec<String> = remarks.iter().map(|r| format!("{r}.")).collect();
    assert_eq!(said(toss), sentences);
    let going = Record {
        state: RunState::Running,
        outcome: None,
        ..record()
    };
    assert_eq!(
        said(going),
        ["value: rank 50 of the 90 in the table, whose mean is 0.2500."]
    );
    let silent = Record {
        events: vec![],
        outcome: None,
        ..record()
    };
    assert!(said(silent).is_empty());
}

#[test]
fn several_runs_stand_side_by_side() {
    let mut other = record();
    other.path = "runs/<script>alert(1)</script> & \"x\"".into();
    other
        .settings
        .insert("strategy.lr".into(), serde_json::json!("</td><b>"));
    other.command = Some("run <img src=x onerror=alert(1)>".into());
    let html = Report::Runs(vec![record(), other]).html();
    let xml = checked(&html);
    assert!(html.contains("2 runs side by side"));
    let document = Document::parse(&xml).unwrap();
    assert!(document.descendants().any(|n| n.text() == Some("</td><b>")));
    assert!(
        html.contains("Settings in which the runs differ"),
        "strategy.lr differs"
    );
}

#[test]
fn a_comparison_has_tables_figures_and_trials() {
    let runs = vec![Some(Ok(record())), None, None];
    let report = Report::Comparison {
        comparison: Box::new(comparison()),
        folder: "cmp".into(),
        runs,
    };
    let html = report.html();
    let xml = checked(&html);
    let document = Document::parse(&xml).unwrap();
    let texts: Vec<&str> = document.descendants().filter_map(|n| n.text()).collect();
    for part in [
        "Comparison a & b",
        "it <broke>",
        "few seeds",
        "Wilcoxon",
        "1.33",
        "–",
        "0.7500",
        "not complete",
        "vim<b>",
    ] {
        assert!(texts.iter().any(|t| t.contains(part)), "{part}");
    }
    let sentences = texts
        .iter()
        .filter(|t| t.contains("not distinguishable from"));
    // Of every strategy, and of the best one at the top.
    assert_eq!(sentences.count(), 4);
}

/// The answer comes before what it is based on, and that before the settings.
#[test]
fn the_answer_comes_first() {
    let html = Report::Runs(vec![record()]).html();
    let at = |what: &str| html.find(what).unwrap_or_else(|| panic!("{what}"));
    let parts = [
        "class=\"answer\"",
        ">Architecture<",
        ">How it went<",
        ">Settings<",
        ">Provenance<",
    ];
    assert!(parts.map(at).is_sorted());
    assert!(
        html[at("class=\"answer\"")..].starts_with(
            "class=\"answer\"><p><b>vim</b> on toy: <b>0.8000</b> value, regret 0.2000."
        )
    );
}

#[test]
fn classes_are_told_with_what_they_are_taken_for() {
    let xml = checked(&Report::Runs(vec![record()]).html());
    let document = Document::parse(&xml).unwrap();
    let rows = document.descendants().filter(|n| n.has_tag_name("tr"));
    let cells = rows.map(|row| {
        row.children()
            .map(|c| c.text().unwrap_or_default())
            .collect::<Vec<_>>()
    });
    let rows: Vec<Vec<&str>> = cells.collect();
    assert!(rows.contains(&vec!["<dog>", "10", "20.00", "cat (8)"]));
    assert!(rows.contains(&vec!["ship", "10", "100.00", ""]));
}

/// The one script is allowed by its hash, and nothing else: no word of it can change without the policy.
#[test]
fn the_policy_allows_this_script_alone() {
    let html = Report::Runs(vec![record()]).html();
    let start = html.find("<script>").unwrap() + "<script>".len();
    let script = &html[start..start + html[start..].find("</script>").unwrap()];
    let hash = STANDARD.encode(Sha256::digest(script));
    let policy =
        format!("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hash}'");
    assert!(html.contains(&format!("content=\"{policy}\"")), "{policy}");
    assert_eq!(html.matches("<script").count(), 1);
}

/// Everything that has a colour has one of the palette, whose contrast is checked.
#[test]
fn all_colours_are_of_the_palette() {
    let runs = vec![Some(Ok(record())), None, None];
    let comparison = Report::Comparison {
        comparison: Box::new(comparison()),
        folder: "cmp".into(),
        runs,
    };
    let known: std::collections::BTreeSet<&str> = palette::all()
        .flat_map(|tone| [tone.light, tone.dark])
        .chain(["#000", "#fff"])
        .collect();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    for html in [
        Report::Runs(vec![record(), record()]).html(),
        comparison.html(),
    ] {
        let style = html
            .split("<style>")
            .nth(1)
            .unwrap()
            .split("</style>")
            .next()
            .unwrap();
        let attributes = ["fill=\"", "stroke=\"", "stop-color=\""].into_iter();
        let painted = attributes.flat_map(|a| {
            html.split(a)
                .skip(1)
                .map(|rest| rest.split('"').next().unwrap())
        });
        let named =
            |colour: &&str| colour.starts_with('#') || !["none", "currentColor"].contains(colour);
        for colour in painted.filter(named) {
            assert!(known.contains(colour), "{colour} is not of the palette");
        }
        for rest in style.split('#').skip(1) {
            let digits = &rest[..rest.find(|c| !word(c)).unwrap()];
            assert!(
                known.contains(format!("#{digits}").as_str()),
                "#{digits} is not of the palette"
            );
        }
    }
    assert!(
        !STYLE.contains('#'),
        "a colour that the palette does not know"
    );
}

#[test]
fn seeds_are_one_line_and_strategies_several() {
    let of = |strategy: &str, seed: u64| {
        let mut run = record();
        run.settings
            .insert("strategy.name".into(), serde_json::json!(strategy));
        run.settings.insert("seed".into(), serde_json::json!(seed));
        run
    };
    let runs = vec![of("vim", 0), of("darts", 0), of("vim", 1)];
    let html = Report::Runs(runs).html();
    let xml = checked(&html);
    let document = Document::parse(&xml).unwrap();
    let curves = document
        .descendants()
        .find(|n| n.attribute("id") == Some("side-by-side-curves"));
    let entries = curves
        .unwrap()
        .descendants()
        .filter(|n| n.has_tag_name("li"));
    let names: Vec<&str> = entries
        .map(|n| n.last_child().unwrap().text().unwrap())
        .collect();
    assert_eq!(names, ["vim", "darts"]);
}
