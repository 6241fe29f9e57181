#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod forms;
mod layouts;

use nasfw_framework::arch::{Cell, Edge, Genotype, Node};
use proptest::prelude::*;

use super::*;
use crate::nasbench101::{ModelSpec, Operation};
use crate::published;
use crate::test_data;

const V2: &str = "DARTS_V2 = Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), \
    ('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], \
    normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), \
    ('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], \
    reduce_concat=[2, 3, 4, 5])";

fn edge(from: usize, op: &str) -> Edge {
    Edge {
        from,
        op: Some(op.into()),
    }
}

fn message(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

#[test]
fn the_cell_of_the_darts_paper() {
    let g = read(V2).unwrap();
    let names: Vec<&str> = g.cells.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(
        (g.space.as_str(), names),
        ("darts", vec!["normal", "reduce"])
    );
    let normal = &g.cells[0];
    assert_eq!(normal.inputs, ["c_{k-2}", "c_{k-1}"]);
    assert_eq!(
        normal.nodes[3].inputs,
        [edge(0, "skip_connect"), edge(2, "dil_conv_3x3")]
    );
    assert_eq!(normal.output, [2, 3, 4, 5]);
    let text = Format::Darts.write(&g).unwrap();
    assert!(
        text.starts_with("Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1)"),
        "{text}"
    );
    assert!(text.ends_with("reduce_concat=range(2, 6))"), "{text}");
    assert_eq!(
        published::find("darts-v2")
            .unwrap()
            .unwrap()
            .genotype()
            .unwrap(),
        g
    );
}

#[test]
fn triples_leave_out_nodes_that_do_not_exist_and_none_is_no_edge() {
    let g = read(
        "Genotype(normal=[('sep_conv_3x3', 2, 0), (\"sep_conv_5x5\", 2, 1), ('noise', 4, 0)], normal_concat=range(2, 6), \
         reduce=[('none', 0), ('skip_connect', 1), ('none', 2), ('none', 1)], reduce_concat=[3, 2])",
    )
    .unwrap();
    assert_eq!(g.space, "robust-s4");
    let counts = |c: &Cell| c.nodes.iter().map(|n| n.inputs.len()).collect::<Vec<_>>();
    assert_eq!(
        (counts(&g.cells[0]), g.cells[0].output.as_slice()),
        (vec![2, 0, 1, 0], &[2, 4][..])
    );
    assert_eq!(
        (counts(&g.cells[1]), g.cells[1].output.as_slice()),
        (vec![1, 0], &[3, 2][..])
    );
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let tail = ", normal_concat=[2], reduce=[('noise', 0), ('noise', 1)], reduce_concat=[2])";
    let normal = |list: &str| format!("Genotype(\n  normal=[{list}]{tail}");
    for (text, expected) in [
        (
            normal("('sep_conv_3x3', 0), ('sepconv_3x3', 1)"),
            "line 2, column 34: there is no operation `sepconv_3x3`; did you mean `sep_conv_3x3`?",
        ),
        (
            normal("('noise', 0)"),
            "line 2, column 11: `normal` has 1 pairs, but every node needs two",
        ),
        (
            normal("('noise', 0), ('noise', 2)"),
            "line 2, column 25: state 2 reads state 2, which is not before it",
        ),
        (
            normal("('noise', 0), ('noise', 2, 1)"),
            "line 2, column 25: a list has either pairs",
        ),
        (
            normal("('noise', 1, 0)"),
            "line 2, column 11: it leads to state 1, which is an input",
        ),
        (
            normal("('noise', 0), ('noise', 4000000000000000000000)"),
            "line 2, column 35: 4000000000000000000000 is too large",
        ),
        (
            normal("('noise', -1), ('noise', 1)"),
            "line 2, column 21: expected a state's number, found `-1), ('noise`",
        ),
        (
            normal("('conv', {'k': 3}, 0)"),
            "line 2, column 13: there is no operation `conv`",
        ),
        (
            normal("(noise, 0)"),
            "line 2, column 12: expected an operation's name in quotes",
        ),
        (
            "Genotype(normal=[".into(),
            "line 1, column 18: expected a value or `]`, but the text ends",
        ),
        (
            "Genotype(normal=[], normal_concat=[0])".into(),
            "column 39: `reduce` is missing",
        ),
        (
            "Genotype(normal=[], normal=[])".into(),
            "column 21: `normal` is given twice",
        ),
        (
            "Genotype(normal_concat=range(2, 2))".into(),
            "column 24: the cell puts out nothing",
        ),
        (
            "Genotype(normal_concat=range(0, 1000000000))".into(),
            "1000000000 is too large",
        ),
        (
            V2.replace("reduce_concat=[2, 3, 4, 5]", "reduce_concat=[2, 3, 3]"),
            "state 3 is put out twice",
        ),
        (
            V2.replace("reduce_concat=[2, 3, 4, 5]", "reduce_concat=[7]"),
            "`reduce` puts out state 7, but its last state is 5",
        ),
        (
            "|nor_conv_3x3~0|+|none~0|".into(),
            "column 26: expected the operation from node 1 to node 2, but the text ends",
        ),
        (
            "|nor_conv_3x3~0|+|none~1|none~0|+".into(),
            "column 24: node 2 reads nodes 0 to 1 in this order",
        ),
        ("|skip_conect~0|".into(), "did you mean `skip_connect`?"),
        (
            r#"{"matrix": [[0, 1], [1, 0]], "ops": ["input", "output"]}"#.into(),
            "edge 1 -> 0 doesn't lead forward",
        ),
        (
            r#"{"matrix": [[0, 1], [0, 0]], "ops": ["input", "output"], "hash": "0"}"#.into(),
            "but 0 is written beside it",
        ),
        (
            r#"{"matrix": [[0, 256]], "ops": []}"#.into(),
            "line 1, column 17: 256 is no entry of an adjacency matrix",
        ),
        (
            r#"{"space": "s", "cells": [{"name": 1}]}"#.into(),
            "line 1, column 35: expected a string, found `1}]}`",
        ),
        (
            r#"{"genotype": {"space": 1}}"#.into(),
            "line 1, column 24: expected a string, found `1}}`",
        ),
        ("no".into(), "no genotype in any form"),
    ] {
        let message = message(&text);
        assert!(
            message.contains(expected),
            "{text}\n{message}\ninstead of\n{expected}"
        );
    }
}

#[test]
fn what_a_form_cannot_say_is_refused() {
    let darts = read(V2).unwrap();
    let bench = read("|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|").unwrap();
    for (format, genotype, expected) in [
        (Format::Darts, &bench, "not `normal` and `reduce`"),
        (Format::Nasbench201, &darts, "one cell"),
        (Format::Nasbench101, &bench, "nodes have them here"),
    ] {
        let message = format.write(genotype).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    let mut two = bench.clone();
    two.cells[0].nodes[2].inputs.push(edge(0, "nor_conv_1x1"));
    assert!(
        Format::Nasbench201
            .write(&two)
            .unwrap_err()
            .to_string()
            .contains("several")
    );
    let mut renamed = darts.clone();
    renamed.cells[0].inputs[0] = "x".into();
    assert!(
        Format::Darts
            .write(&renamed)
            .unwrap_err()
            .to_string()
            .contains("can't say")
    );
}

#[test]
fn every_published_cell_reads_and_round_trips() {
    let all = published::all().unwrap();
    assert_eq!(all.len(), 52);
    let mut names: Vec<String> = all
        .iter()
        .flat_map(|p| {
            p.aliases
                .iter()
                .chain([&p.name])
                .map(|n| n.to_lowercase().replace('-', "_"))
        })
        .collect();
    names.sort();
    assert!(
        names.windows(2).all(|w| w[0] != w[1]),
        "two cells of one name: {names:?}"
    );
    for p in &all {
        let g = p.genotype().unwrap();
        let back = read(&Format::Darts.write(&g).unwrap()).unwrap();
        assert_eq!(back.cells, g.cells, "{}", p.name);
        assert_eq!(read(&Format::Json.write(&g).unwrap()).unwrap(), g);
    }
    let text = |name: &str| published::find(name).unwrap().unwrap().genotype().unwrap();
    assert_eq!(text("FairDARTS_a").cells[0].output, [2, 4, 5]);
    assert_eq!(text("nasnet").cells[1].output, [4, 5, 6]);
    assert_eq!(text("cifar10_s2_0").space, "robust-s2");
    assert_eq!(
        published::nearest("DARTS_V3", &[]).unwrap().as_deref(),
        Some("DARTS_V2")
    );
    assert_eq!(published::find("DARTS-").unwrap().map(|p| p.name), None);
    assert_eq!(published::nearest("zzz", &["darts"]).unwrap(), None);
}

/// The cells are those of the list that this project's facts come from, where it is at hand.
#[test]
fn published_cells_are_the_shared_ones() {
    let Some(file) = test_data::file("genotypes.json") else {
        return;
    };
    let text = std::fs::read_to_string(file).unwrap();
    let facts: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let mut compared = 0;
    for fact in &facts {
        let name = fact["name"].as_str().unwrap();
        let Some(ours) = published::find(name).unwrap() else {
            assert!(name.starts_with("PR_DARTS"), "{name} is missing");
            continue;
        };
        for (what, size) in [
            ("cifar_C36_L20", ours.cifar),
            ("imagenet_C48_L14", ours.imagenet),
        ] {
            assert_eq!(size.map(|s| s.0), fact[what]["params"].as_u64(), "{name}");
            assert_eq!(size.map(|s| s.1), fact[what]["macs"].as_u64(), "{name}");
        }
        let g = ours.genotype().unwrap();
        for cell in &g.cells {
            let mut edges: Vec<(usize, usize, String)> = cell
                .nodes
                .iter()
                .enumerate()
                .flat_map(|(k, n)| {
                    n.inputs
                        .iter()
                        .map(move |e| (k + 2, e.from, e.op.clone().unwrap()))
                })
                .collect();
            edges.sort();
            let mut expected: Vec<(usize, usize, String)> = fact["genotype"][&cell.name]
                .as_array()
                .unwrap()
                .iter()
                .enumerate()
                .map(|(k, e)| {
                    let n = |i: usize| e[i].as_u64().unwrap() as usize;
                    let (to, from) = if e[2].is_u64() {
                        (n(1), n(2))
                    } else {
                        (k / 2 + 2, n(1))
                    };
                    (to, from, e[0].as_str().unwrap().to_owned())
                })
                .filter(|e| e.2 != "none")
                .collect();
            expected.sort();
            assert_eq!(edges, expected, "{name}");
        }
        compared += 1;
    }
    assert_eq!(compared, 51);
}

/// A cell of the DARTS family: any number of nodes and inputs, several operations on an edge, any output.
fn ragged_cell(name: &'static str, most: usize) -> impl Strategy<Value = Cell> {
    let edge = (any::<prop::sample::Index>(), 1..DARTS_OPERATIONS.len());
    prop::collection::vec(prop::collection::vec(edge, 0..=most), 1..7)
        .prop_flat_map(move |nodes| {
            let states: Vec<usize> = (0..nodes.len() + 2).collect();
            let subset = prop::sample::subsequence(states, 1..=nodes.len() + 2).prop_shuffle();
            (Just(nodes), subset)
        })
        .prop_map(move |(nodes, output)| Cell {
            name: name.into(),
            inputs: vec!["c_{k-2}".into(), "c_{k-1}".into()],
            nodes: nodes
                .into_iter()
                .enumerate()
                .map(|(k, edges)| Node {
                    op: None,
                    inputs: edges
                        .into_iter()
                        .map(|(from, op)| self::edge(from.index(k + 2), DARTS_OPERATIONS[op]))
                        .collect(),
                })
                .collect(),
            output,
        })
}

fn darts_genotype(most: usize) -> impl Strategy<Value = Genotype> {
    (ragged_cell("normal", most), ragged_cell("reduce", most)).prop_map(|(n, r)| Genotype {
        space: "darts".into(),
        cells: vec![n, r],
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn darts_round_trips(g in prop_oneof![darts_genotype(2), darts_genotype(5)]) {
        let text = Format::Darts.write(&g).unwrap();
        let back = read(&text).unwrap();
        prop_assert_eq!(&back.cells, &g.cells, "{}", text);
        let spread = text.replace(' ', "").replace(',', " ,\n\t").replace('\'', "\"");
        prop_assert_eq!(&read(&format!("G1 = {spread}\n")).unwrap(), &back);
        prop_assert_eq!(read(&Format::Json.write(&g).unwrap()).unwrap(), g);
    }

    #[test]
    fn nasbench201_round_trips_and_is_what_the_ops_say(ops in prop::array::uniform6(0usize..5)) {
        let name = |k: usize| NASBENCH201_OPERATIONS[ops[k]];
        let text = format!("|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|", name(0), name(1), name(2), name(3), name(4), name(5));
        let g = read(&text).unwrap();
        prop_assert_eq!(Format::Nasbench201.write(&g).unwrap(), text);
        let edges: usize = g.cells[0].nodes.iter().map(|n| n.inputs.len()).sum();
        prop_assert_eq!(edges, ops.iter().filter(|o| **o != 0).count());
    }

    #[test]
    fn nasbench101_round_trips(bits in any::<u32>(), ops in prop::collection::vec(0usize..3, 0..=5)) {
        let ops: Vec<Operation> = ops.into_iter().map(|o| Operation::ALL[o]).collect();
        let bits = bits & ((1 << ((ops.len() + 2) * (ops.len() + 1) / 2)) - 1);
        if let Ok(spec) = ModelSpec::new(bits, &ops) {
            let text = serde_json::to_string(&spec).unwrap();
            let g = read(&text).unwrap();
            g.check().unwrap();
            prop_assert_eq!(Format::Nasbench101.write(&g).unwrap(), text);
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,60}", head in prop::sample::select(vec!["", "Genotype(", "{", "|", "x = Genotype(normal=["])) {
        let _ = read(&format!("{head}{text}"));
    }

    /// One to three pieces of a good text are cut out, doubled or replaced.
    #[test]
    fn no_mutation_makes_it_panic(
        which in 0usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0usize..3, ".{0,4}"), 1..4),
    ) {
        let v2 = read(V2).unwrap();
        let bench = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|";
        let matrix = r#"{"matrix": [[0, 1, 1], [0, 0, 1], [0, 0, 0]], "ops": ["input", "maxpool3x3", "output"]}"#;
        let mut text = [V2.to_owned(), bench.into(), matrix.into(), Format::Json.write(&v2).unwrap()][which].clone();
        for (a, b, what, with) in changes {
            let places: Vec<usize> = text.char_indices().map(|c| c.0).chain([text.len()]).collect();
            let (a, b) = (places[a.index(places.len())], places[b.index(places.len())]);
            let (a, b) = (a.min(b), a.max(b).min(a.min(b) + 40));
            let b = (a..=b).rev().find(|b| text.is_char_boundary(*b)).unwrap();
            let piece = text[a..b].to_owned();
            match what {
                0 => text.replace_range(a..b, ""),
                1 => text.insert_str(a, &piece),
                _ => text.replace_range(a..b, &with),
            }
        }
        if let Ok(g) = read(&text) {
            g.check().unwrap();
            for format in [Format::Json, Format::Darts, Format::Nasbench201, Format::Nasbench101] {
                let _ = format.write(&g);
            }
        }
    }
}
