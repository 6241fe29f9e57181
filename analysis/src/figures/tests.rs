#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use nasfw_framework::events::{Event, Meter};
use proptest::prelude::*;
use roxmltree::{Document, Node};

use super::chart::{Axes, Line, POINTS};
use super::ranks::groups;
use super::*;
use crate::record::tests::{COLUMNS, ROWS, record, weights};
use crate::report::tests::comparison;

/// An SVG document that a reader of XML takes, without what no number may be.
fn parsed(text: &str) -> Document<'_> {
    let document = Document::parse(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    for node in document.descendants() {
        for attribute in node.attributes() {
            let value = attribute.value();
            assert!(
                !["NaN", "inf"].iter().any(|bad| value.contains(bad)),
                "{}={value}",
                attribute.name()
            );
        }
    }
    document
}

/// Lines of a chart: paths with the width that lines are drawn with.
fn lines<'a>(document: &'a Document<'_>) -> Vec<Node<'a, 'a>> {
    document
        .descendants()
        .filter(|n| n.has_tag_name("path") && n.attribute("stroke-width") == Some("1.8"))
        .collect()
}

/// Number of points of a path of straight lines.
fn points(path: &Node<'_, '_>) -> usize {
    let d = path.attribute("d").unwrap();
    d.matches(['M', 'L']).count()
}

fn all(record: &Record) -> Vec<Figure> {
    Kind::ALL
        .iter()
        .filter_map(|k| k.draw(record, None).unwrap())
        .collect()
}

/// As a file says that was edited: there is nothing to draw then.
#[test]
fn a_critical_difference_that_is_none_has_no_diagram() {
    for difference in [-1.0, f64::NEG_INFINITY, f64::NAN] {
        let mut comparison = comparison();
        for setting in &mut comparison.settings {
            setting.ranks.as_mut().unwrap().critical_difference = difference;
        }
        let drawn = ComparisonKind::Ranks.draw(&comparison, &[], None);
        assert!(drawn.unwrap().is_none(), "{difference}");
    }
}

#[test]
fn a_line_per_candidate_and_a_point_per_event() {
    let record = record();
    let svg = Kind::Weights.draw(&record, None).unwrap().unwrap().svg();
    let document = parsed(&svg);
    let lines = lines(&document);
    assert_eq!(lines.len(), ROWS * COLUMNS);
    let moments = record.moments().len();
    assert!(lines.iter().all(|l| points(l) == moments), "{moments}");
    // Colour and dash tell the candidates of a row apart.
    let looks: BTreeSet<_> = lines[..COLUMNS]
        .iter()
        .map(|l| (l.attribute("stroke"), l.attribute("stroke-dasharray")))
        .collect();
    assert_eq!(looks.len(), COLUMNS);
}

#[test]
fn one_row_is_one_panel() {
    let record = record();
    for edge in ["0->2", "normal/0->2"] {
        let figure = Kind::Weights.draw(&record, Some(edge)).unwrap().unwrap();
        assert_eq!(figure.panels.len(), 1);
        assert_eq!(lines(&parsed(&figure.svg())).len(), COLUMNS);
    }
    let error = Kind::Weights.draw(&record, Some("9->9")).unwrap_err();
    assert!(error.help().unwrap().contains("normal/0->2"));
}

#[test]
fn heat_maps_have_a_field_per_weight_at_every_landmark() {
    let record = record();
    let svg = Kind::Distribution
        .draw(&record, None)
        .unwrap()
        .unwrap()
        .svg();
    let document = parsed(&svg);
    let titles: Vec<&str> = document
        .descendants()
        .filter(|n| n.has_tag_name("rect"))
        .filter_map(|n| n.children().find(|c| c.has_tag_name("title"))?.text())
        .collect();
    // Before training, after an epoch, at the end.
    assert_eq!(titles.len(), 3 * ROWS * COLUMNS);
    let first = weights(0)[0][0][0];
    assert!(titles.contains(&format!("0->2, none: {}", svg::number(first)).as_str()));
}

#[test]
fn what_was_rolled_back_is_left_out() {
    let mut record = record();
    let before = record.moments().len();
    let again: Vec<Event> = record
        .events
        .iter()
        .filter(|e| matches!(e, Event::Architecture { step, .. } if *step >= 20))
        .cloned()
        .collect();
    assert!(!again.is_empty());
    record.events.extend(again);
    assert_eq!(record.moments().len(), before);
    let steps: Vec<u64> = record.moments().iter().map(|m| m.step).collect();
    assert!(steps.is_sorted());
}

#[test]
fn a_comparison_gives_bands_and_a_diagram() {
    let comparison = comparison();
    let regret = ComparisonKind::Regret
        .draw(&comparison, &[], None)
        .unwrap()
        .unwrap()
        .svg();
    let document = parsed(&regret);
    assert_eq!(lines(&document).len(), comparison.strategies.len());
    let bands = document
        .descendants()
        .filter(|n| n.has_tag_name("path") && n.attribute("stroke-width") != Some("1.8"))
        .count();
    assert_eq!(bands, comparison.strategies.len());
    let ranks = ComparisonKind::Ranks
        .draw(&comparison, &[], None)
        .unwrap()
        .unwrap();
    let text = ranks.svg();
    let document = parsed(&text);
    for name in &comparison.strategies {
        let named = |n: &Node<'_, '_>| n.text().is_some_and(|t| t.contains(name.as_str()));
        assert!(
            document
                .descendants()
                .any(|n| n.has_tag_name("text") && named(&n)),
            "{name}"
        );
    }
    assert!(ranks.description().contains("Critical difference"));
}

#[test]
fn figures_of_a_comparison_say_what_is_predicted() {
    let mut comparison = comparison();
    let text = |kind: ComparisonKind, comparison: &Comparison| {
        kind.draw(comparison, &[], None).unwrap().unwrap().svg()
    };
    for kind in [ComparisonKind::Regret, ComparisonKind::Ranks] {
        assert!(!text(kind, &comparison).contains("predicted"));
    }
    comparison.settings[0].predicted = true;
    for kind in [ComparisonKind::Regret, ComparisonKind::Ranks] {
        assert!(text(kind, &comparison).contains("predicted"));
    }
}

/// A metric is one line, though a model predicts some of its values and a table knows the others, and is marked; so it is where
/// only another run of the same panel has such values.
#[test]
fn a_line_of_which_a_value_is_predicted_is_whole_and_marked() {
    let mut record = record();
    let known = record.clone();
    let all = record.moments().len();
    let mut guessed = 0;
    for (i, event) in record.events.iter_mut().enumerate() {
        if let Event::Architecture { trust, .. } = event
            && i % 2 == 0
        {
            let metric = known.main_regret().unwrap().to_owned();
            trust.predicted.insert(metric, [0.0, 1.0]);
            guessed += 1;
        }
    }
    assert!(guessed > 0 && guessed < all);
    let of = |figure: Figure| {
        let regret = figure.panels.into_iter();
        let regret: Vec<Panel> = regret.filter(|p| p.title.contains("Regret")).collect();
        assert_eq!(regret.len(), 1);
        regret.into_iter().next().unwrap()
    };
    let drawn = |record: &Record| of(Kind::Curves.draw(record, None).unwrap().unwrap());
    let (panel, as_known) = (drawn(&record), drawn(&known));
    assert!(panel.title.ends_with("(predicted)"), "{}", panel.title);
    assert!(!as_known.title.contains("predicted"));
    assert_eq!(panel.body.replace(" (predicted)", ""), as_known.body);
    let both = vec![("a".to_owned(), vec![&known, &record])];
    assert_eq!(of(curves::together(&both).unwrap()).title, panel.title);
    let trajectory = Kind::Trajectory.draw(&record, None).unwrap().unwrap();
    assert!(trajectory.caption.contains("(predicted)"));
}

/// Panels of the same values have the same axes, however wide the band is that is drawn in one of them.
#[test]
fn panels_of_a_strategy_each_have_the_same_axes() {
    let mut comparison = comparison();
    let first = comparison.settings[0].strategies[0].clone();
    for i in 0..8 {
        let mut figures = first.clone();
        figures.strategy = format!("other {i}");
        let anytime = figures.anytime.as_mut().unwrap();
        if i == 3 {
            anytime.high.iter_mut().for_each(|high| *high += 5.0);
        }
        comparison.settings[0].strategies.push(figures.clone());
        comparison.strategies.push(figures.strategy);
    }
    let figure = ComparisonKind::Regret
        .draw(&comparison, &[], None)
        .unwrap()
        .unwrap();
    assert!(figure.panels.len() > 8);
    let text = figure.svg();
    let document = parsed(&text);
    let axes: BTreeSet<_> = document
        .descendants()
        .filter_map(|n| n.attribute("data-y"))
        .collect();
    assert_eq!(axes.len(), 1, "{axes:?}");
}

#[test]
fn weights_of_strategies_stand_beside_each_other() {
    let (comparison, with, mut without) = (comparison(), record(), record());
    without.events.clear();
    let mut comparison = comparison;
    for (trial, name) in comparison.trials.iter_mut().zip(["one", "nothing", "two"]) {
        (trial.state, trial.strategy) = (crate::compare::State::Done, name.into());
    }
    let runs = [Some(&with), Some(&without), Some(&with)];
    let draw = |edge| ComparisonKind::Weights.draw(&comparison, &runs, edge);
    let figure = draw(None).unwrap().unwrap();
    let titles: Vec<&str> = figure.panels.iter().map(|p| p.title.as_str()).collect();
    assert_eq!(titles, ["one", "two"]);
    let svg = figure.svg();
    assert_eq!(lines(&parsed(&svg)).len(), 2 * COLUMNS);
    // One row, as in a figure of the run alone.
    let row = format!("{}/{}", with.groups[0].name, with.groups[0].rows[0].name);
    assert_eq!(draw(Some(&row)).unwrap(), Some(figure));
    assert!(draw(Some("nowhere")).is_err());
    let nothing = [None, Some(&without)];
    let none = ComparisonKind::Weights.draw(&comparison, &nothing, None);
    assert_eq!(none.unwrap(), None);
}

/// Demšar's own example (section 3.2.2): ranks 3.143, 2.000, 2.893, 1.964 of four classifiers on 14 data sets, CD 1.25
/// at 0.05 by the Nemenyi test: "the post-hoc test is not powerful enough to detect any significant differences".
#[test]
fn groups_are_those_of_demsar() {
    let sorted = [1.964, 2.000, 2.893, 3.143];
    assert_eq!(groups(&sorted, 1.25), [(0, 3)]);
    // With the smaller difference of 0.1 less than a pair's distance, two groups overlap.
    assert_eq!(groups(&sorted, 0.95), [(0, 2), (2, 3)]);
    assert_eq!(groups(&sorted, 0.01), []);
}

#[test]
fn every_figure_says_in_words_what_it_shows() {
    let record = record();
    let figures = all(&record);
    assert_eq!(figures.len(), Kind::ALL.len());
    for figure in figures {
        let text = figure.svg();
        let document = parsed(&text);
        let root = document.root_element();
        assert_eq!(root.attribute("role"), Some("img"));
        let child = |tag: &str| root.children().find(|n| n.has_tag_name(tag)).unwrap();
        assert!(!child("title").text().unwrap().is_empty());
        assert!(child("desc").text().unwrap().len() > 40);
        for (k, panel) in figure.panels.iter().enumerate() {
            let text = panel.inline(&format!("x{k}"));
            let label = parsed(&text);
            assert!(label.root_element().attribute("aria-label").unwrap().len() > 5);
        }
        assert_eq!(figure.svg(), figure.svg());
        assert_eq!(&Format::Png.bytes(&text, None).unwrap()[1..4], b"PNG");
        let pdf = Format::Pdf.bytes(&text, Some(85.0)).unwrap();
        assert_eq!(&pdf[..5], b"%PDF-");
        assert!(
            pdf == Format::Pdf.bytes(&text, Some(85.0)).unwrap(),
            "other bytes"
        );
    }
}

#[test]
fn a_run_without_events_has_no_figures() {
    let mut record = record();
    record.events.clear();
    record.groups.clear();
    (record.evaluation, record.ranking) = (None, None);
    record.outcome.as_mut().unwrap().front = None;
    assert!(all(&record).is_empty());
}

#[test]
fn long_lines_are_thinned_and_keep_their_ends() {
    let line = Line {
        name: "x".into(),
        points: (0..5000)
            .map(|i| (f64::from(i), f64::from(i % 7)))
            .collect(),
        ..Line::default()
    };
    let figure = Figure {
        panels: vec![AXES.panel("", &[line])],
        ..bare()
    };
    let text = figure.svg();
    assert_eq!(points(&lines(&parsed(&text))[0]), POINTS);
    assert!(figure.description().contains("from 0 to 1"), "4999 % 7 = 1");
}

const AXES: Axes<'static> = Axes {
    x: "step",
    y: "value",
    range: None,
    log: false,
    size: (340.0, 220.0),
};

fn bare() -> Figure {
    Figure {
        kind: "test",
        title: "Test".into(),
        caption: String::new(),
        legend: Vec::new(),
        panels: Vec::new(),
        columns: 1,
        rows: false,
    }
}

/// Any number, the odd ones often.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -10.0..10.0f64,
        2 => any::<f64>(),
        1 => prop::sample::select(vec![
            0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 1e-300,
        ]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_data_gives_well_formed_svg(
        rows in prop::collection::vec(prop::collection::vec((number(), number()), 0..6), 0..4),
        name in ".{0,12}",
        log in any::<bool>(),
        range in prop::option::of(Just((0.0, 1.0))),
    ) {
        let of = |(look, points): (usize, &Vec<(f64, f64)>)| Line {
            name: name.clone(),
            look,
            points: points.clone(),
            band: points.iter().map(|p| (p.1 - 1.0, p.1 + 1.0)).collect(),
            ..Line::default()
        };
        let lines: Vec<Line> = rows.iter().enumerate().map(of).collect();
        let values: Vec<Vec<f64>> = rows.iter().map(|r| r.iter().map(|p| p.1).collect()).collect();
        let heat = heat::Heat {
            rows: std::slice::from_ref(&name),
            columns: &[],
            values: &values,
            range: rows.first().and_then(|r| r.first()).copied().unwrap_or((0.0, 1.0)),
            field: (20.0, 20.0),
            numbers: true,
            colours: &[],
        };
        let figure = Figure {
            title: name.clone(),
            legend: look::legend([name.clone()]),
            panels: vec![
                Axes { log, range, ..AXES }.panel(name.clone(), &lines),
                heat.panel(name.clone()),
            ],
            ..bare()
        };
        parsed(&figure.svg());
        for panel in &figure.panels {
            parsed(&panel.inline("id"));
        }
    }

    #[test]
    fn groups_hold_exactly_the_pairs_that_are_near(
        mut ranks in prop::collection::vec(1.0..9.0f64, 2..9),
        difference in 0.0..9.0f64,
    ) {
        ranks.sort_by(f64::total_cmp);
        let found = groups(&ranks, difference);
        for i in 0..ranks.len() {
            for j in i + 1..ranks.len() {
                let near = ranks[j] - ranks[i] <= difference;
                let joined = found.iter().any(|(a, b)| *a <= i && j <= *b);
                prop_assert_eq!(near, joined);
            }
        }
    }
}

/// Names from users stay text.
#[test]
fn names_are_escaped() {
    let mut record = record();
    for group in &mut record.groups {
        group.name = "<script>alert(1)</script>\u{0}&\"'".into();
        for row in &mut group.rows {
            row.name.push_str("]]><b>\u{1b}$x$");
        }
    }
    let mut meters = BTreeMap::new();
    meters.insert("<i>".to_owned(), Meter::default());
    record.events.push(Event::Progress {
        step: 99,
        epoch: 9,
        meters,
        entropy: None,
        lr: 0.0,
        scalars: BTreeMap::new(),
        done: 1.0,
        seconds: 0.0,
    });
    for figure in all(&record) {
        let text = figure.svg();
        let document = parsed(&text);
        for tag in ["script", "b", "i"] {
            assert!(
                !document.descendants().any(|n| n.has_tag_name(tag)),
                "{tag}"
            );
        }
    }
}

/// A candidate looks the same in every figure, whatever stands before it.
#[test]
fn operations_keep_their_colours() {
    let looks = |names: &[&str]| look::operations(names);
    let colour = |names: &[&str], k: usize| look::colour(looks(names)[k]);
    assert_eq!(
        colour(&["none", "skip_connect"], 1),
        colour(&["skip_connect"], 0)
    );
    // Two of one colour have dashes of their own.
    let same = looks(&["conv3x3", "sep_conv_3x3"]);
    assert_eq!(look::colour(same[0]), look::colour(same[1]));
    assert_ne!(look::dash(same[0]), look::dash(same[1]));
}

/// More strategies than a panel can hold have one each, the best first and the others thin behind it.
#[test]
fn many_strategies_stand_in_small_panels() {
    let mut comparison = comparison();
    let strategies = &mut comparison.settings[0].strategies;
    let first = strategies[0].clone();
    for k in 0..8 {
        let mut other = first.clone();
        other.strategy = format!("s{k}");
        if let Some(anytime) = &mut other.anytime {
            anytime.mean = vec![0.5, 0.3, 1.0 - f64::from(k) / 10.0];
        }
        strategies.push(other);
        comparison.strategies.push(format!("s{k}"));
    }
    let figure = ComparisonKind::Regret
        .draw(&comparison, &[], None)
        .unwrap()
        .unwrap();
    assert_eq!(figure.panels.len(), 3 + 8);
    assert_eq!(figure.panels[0].title, "vim<b> (best)");
    assert_eq!(figure.panels[10].title, "s0");
    assert_eq!(
        lines(&parsed(&figure.svg())).len(),
        11,
        "one full line each"
    );
}

/// The axis of steps ends with the data.
#[test]
fn the_axis_of_steps_ends_where_the_data_end() {
    let line = Line {
        name: "x".into(),
        points: vec![(0.0, 0.0), (813.0, 1.0)],
        ..Line::default()
    };
    let panel = AXES.panel("", &[line]);
    assert!(
        panel.inline("x").contains(r#"data-x="0 813""#),
        "{}",
        panel.inline("x")
    );
}

#[test]
fn a_width_on_paper_keeps_the_shape() {
    let svg = r#"<svg width="200" height="100" viewBox="0 0 200 100"><rect width="200" height="100"/></svg>"#;
    assert_eq!(
        in_millimetres(svg, 85.0),
        r#"<svg width="85mm" height="42.50mm" viewBox="0 0 200 100"><rect width="200" height="100"/></svg>"#
    );
}
