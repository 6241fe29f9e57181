#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::layout::{Rect, layout};
use super::{Direction, Drawing, Graph, Link, Style, Vertex};
use crate::arch::{ArchSpec, Cell, Choice, Edge, Genotype, Group, Node, Role, Row};
use crate::error::Result;
use crate::space::{SearchSpace, Task};
use crate::supernet::{Supernet, SupernetOptions};

fn edge(from: usize, op: Option<&str>) -> Edge {
    Edge {
        from,
        op: op.map(Into::into),
    }
}

fn cell(inputs: &[&str], nodes: Vec<Node>, output: &[usize]) -> Genotype {
    let inputs = inputs.iter().map(|&name| name.into()).collect();
    let cell = Cell {
        name: "cell <A>".into(),
        inputs,
        nodes,
        output: output.to_vec(),
    };
    Genotype {
        space: "test".into(),
        cells: vec![cell],
    }
}

/// Graphs of up to 9 nodes with labels of any length on nodes and edges; parallel edges occur.
fn graphs() -> impl Strategy<Value = Graph> {
    let label = proptest::collection::vec("[a-z]{1,16}", 0..3);
    (2usize..9)
        .prop_flat_map(move |n| {
            let nodes =
                proptest::collection::vec(proptest::collection::vec("[a-z]{1,16}", 1..4), n);
            let edge = (0..n - 1, 1..n, label.clone());
            (nodes, proptest::collection::vec(edge, 0..16))
        })
        .prop_map(|(labels, links)| {
            let last = labels.len() - 1;
            let style = |k| {
                if k == 0 || k == last {
                    Style::Terminal
                } else {
                    Style::Plain
                }
            };
            let nodes = labels.into_iter().enumerate();
            let nodes = nodes
                .map(|(k, label)| Vertex {
                    label,
                    op: None,
                    style: style(k),
                })
                .collect();
            let edges = links
                .into_iter()
                .filter(|(from, to, _)| from < to)
                .map(|(from, to, label)| Link {
                    from,
                    to,
                    label,
                    op: None,
                    style: Style::Plain,
                })
                .collect();
            Graph {
                title: String::new(),
                nodes,
                edges,
            }
        })
}

fn apart(a: Rect, b: Rect) -> bool {
    (a.x - b.x).abs() >= (a.width + b.width) / 2.0
        || (a.y - b.y).abs() >= (a.height + b.height) / 2.0
}

/// Points of the line from `a` to `b`.
fn along(a: (f64, f64), b: (f64, f64)) -> impl Iterator<Item = (f64, f64)> {
    (0..=32).map(move |k| {
        let t = f64::from(k) / 32.0;
        (a.0 + (b.0 - a.0) * t, a.1 + (b.1 - a.1) * t)
    })
}

fn inside(rect: Rect, (x, y): (f64, f64)) -> bool {
    (x - rect.x).abs() < rect.width / 2.0 - 1e-6 && (y - rect.y).abs() < rect.height / 2.0 - 1e-6
}

proptest! {
    #[test]
    fn nothing_overlaps_and_no_edge_runs_through_a_box(
        graph in graphs(),
        direction in prop::sample::select(vec![Direction::Down, Direction::Right]),
    ) {
        let layout = layout(&graph, direction);
        // How far along a point is, and half the length of a box that way.
        let far = |p: (f64, f64)| if direction == Direction::Down { p.1 } else { p.0 };
        let half = |r: Rect| far((r.width, r.height)) / 2.0;
        let labels: Vec<Rect> = layout.edges.iter().filter_map(|route| route.label).collect();
        prop_assert_eq!(labels.len(), graph.edges.iter().filter(|e| !e.label.is_empty()).count());
        let boxes: Vec<Rect> = layout.nodes.iter().copied().chain(labels).collect();
        for (k, &one) in boxes.iter().enumerate() {
            prop_assert!(one.x >= one.width / 2.0 - 1e-6, "left of the drawing");
            prop_assert!(one.x + one.width / 2.0 <= layout.width + 1e-6, "right of the drawing");
            prop_assert!(one.y + one.height / 2.0 <= layout.height + 1e-6, "below the drawing");
            for &other in &boxes[..k] {
                prop_assert!(apart(one, other), "{:?} overlaps {:?}", one, other);
            }
        }
        for (link, route) in graph.edges.iter().zip(&layout.edges) {
            let (from, to) = (layout.nodes[link.from], layout.nodes[link.to]);
            prop_assert_eq!(far(route.points[0]), far((from.x, from.y)) + half(from));
            prop_assert_eq!(far(route.points[route.points.len() - 1]), far((to.x, to.y)) - half(to));
            for pair in route.points.windows(2) {
                prop_assert!(far(pair[0]) <= far(pair[1]) + 1e-6, "an edge runs backwards");
                for point in along(pair[0], pair[1]) {
                    for &other in boxes.iter().filter(|&&other| Some(other) != route.label) {
                        prop_assert!(!inside(other, point), "an edge runs through {:?}", other);
                    }
                }
            }
        }
    }
}

#[test]
fn operations_on_nodes_and_what_is_unused() {
    let node = |op: &str, from: &[usize]| Node {
        op: Some(op.into()),
        inputs: from.iter().map(|&f| edge(f, None)).collect(),
    };
    let nodes = vec![
        node("conv", &[0]),
        node("pool", &[0, 1]),
        node("conv", &[1]),
    ];
    let drawing = Drawing::of_genotype(&cell(&["input"], nodes, &[0, 3]));
    assert_eq!(
        drawing.dot(),
        r#"digraph architecture {
  node [shape=box, style=rounded, fontname="sans-serif"];
  edge [fontname="sans-serif"];
  subgraph cluster_0 {
    label="cell <A>";
    c0_0 [label="input\nnode 0", shape=oval];
    c0_1 [label="node 1\nconv"];
    c0_2 [label="node 2\npool", color=gray, fontcolor=gray];
    c0_3 [label="node 3\nconv"];
    c0_4 [label="output", shape=oval];
    c0_0 -> c0_1 [label=""];
    c0_0 -> c0_2 [label="", color=gray, fontcolor=gray];
    c0_1 -> c0_2 [label="", color=gray, fontcolor=gray];
    c0_1 -> c0_3 [label=""];
    c0_0 -> c0_4 [label=""];
    c0_3 -> c0_4 [label=""];
  }
}
"#
    );
    let svg = drawing.svg();
    assert_eq!(
        svg.matches("<rect").count(),
        1 + 5,
        "the ground and one box per node:\n{svg}"
    );
    assert_eq!(
        svg.matches("<path").count(),
        2 * 6,
        "a line and a head per edge:\n{svg}"
    );
    for text in [
        "cell &lt;A&gt;",
        ">input<",
        ">node 2<",
        ">conv<",
        ">output<",
    ] {
        assert!(svg.contains(text), "{text} is not in\n{svg}");
    }
    assert!(!svg.contains("script") && !svg.contains("href"));
}

#[test]
fn operations_on_edges() {
    let nodes = vec![
        Node {
            op: None,
            inputs: vec![edge(0, Some("a\"b")), edge(1, Some("c&d"))],
        },
        Node {
            op: None,
            inputs: vec![edge(2, Some("c&d")), edge(2, Some("e"))],
        },
    ];
    let drawing = Drawing::of_genotype(&cell(&["one", "two"], nodes, &[2, 3]));
    let dot = drawing.dot();
    assert!(dot.contains("c0_0 -> c0_2 [label=\"a\\\"b\"];"), "{dot}");
    assert!(dot.contains("c0_2 -> c0_3 [label=\"e\"];"), "{dot}");
    let svg = drawing.svg();
    assert_eq!(
        svg.matches("<rect").count(),
        1 + 5 + 2 * 4,
        "boxes, and labels with the ground below them:\n{svg}"
    );
    assert!(svg.contains("a&quot;b") && svg.contains("c&amp;d"), "{svg}");
}

/// Two nodes with a choice of operations on their edges; the second reads one of two states.
struct Toy(ArchSpec);

impl Toy {
    fn new(operations: &[&str]) -> Self {
        let row = |name: &str, candidates: &[&str]| Row {
            name: name.into(),
            candidates: candidates.iter().map(|&c| c.into()).collect(),
            keep: 1,
        };
        let ops = vec![row("node 1", operations), row("node 2", operations)];
        let inputs = vec![row("node 2", &["input", "node 1"])];
        let group = |name: &str, role, rows| Group {
            name: name.into(),
            role,
            rows,
            edges: None,
        };
        let groups = vec![
            group("ops", Role::Operations, ops),
            group("inputs", Role::Topology, inputs),
        ];
        Self(ArchSpec::new(groups).unwrap())
    }
}

impl SearchSpace for Toy {
    fn spec(&self) -> &ArchSpec {
        &self.0
    }

    fn supernet(&self, _: Task, _: &SupernetOptions) -> Result<Box<dyn Supernet>> {
        unimplemented!("drawings need no network")
    }

    fn genotype(&self, choice: &Choice) -> Genotype {
        let op = |row: usize| {
            let candidates = &self.0.groups()[0].rows[row].candidates;
            Some(candidates[choice.kept(0, row)[0]].as_str())
        };
        let nodes = vec![
            Node {
                op: None,
                inputs: vec![edge(0, op(0))],
            },
            Node {
                op: None,
                inputs: vec![edge(choice.kept(1, 0)[0], op(1))],
            },
        ];
        cell(&["input"], nodes, &[2])
    }
}

#[test]
fn a_space_is_the_union_of_its_architectures() {
    let dot = Drawing::of_space(&Toy::new(&["a", "b"])).dot();
    for line in [
        r#"c0_0 -> c0_1 [label="a\nb", style="dashed"];"#,
        r#"c0_0 -> c0_2 [label="a\nb", style="dashed"];"#,
        r#"c0_1 -> c0_2 [label="a\nb", style="dashed"];"#,
        r#"c0_2 -> c0_3 [label=""];"#,
    ] {
        assert!(dot.contains(line), "{line} is not in\n{dot}");
    }
    assert_eq!(dot.matches("->").count(), 4, "{dot}");

    let dot = Drawing::of_space(&Toy::new(&["a", "b", "c"])).dot();
    assert!(dot.contains(r#"label="one of 3:\na, b, c";"#), "{dot}");
    assert_eq!(
        dot.matches(r#"[label="one of 3", style="dashed"]"#).count(),
        3,
        "{dot}"
    );

    let dot = Drawing::of_space(&Toy::new(&["a"])).dot();
    assert!(
        dot.contains(r#"c0_0 -> c0_1 [label="a"];"#),
        "never another: drawn plain\n{dot}"
    );
    assert!(
        dot.contains(r#"c0_1 -> c0_2 [label="a", style="dashed"];"#),
        "{dot}"
    );
}

#[test]
fn a_large_space_is_drawn_from_a_sample_that_misses_nothing() {
    let operations: Vec<String> = (0..60).map(|k| format!("op{k:02}")).collect();
    let operations: Vec<&str> = operations.iter().map(String::as_str).collect();
    let space = Toy::new(&operations);
    assert_eq!(space.spec().size(), 7_200.0, "drawn from all of them");
    let all = Drawing::of_space(&space);
    let sampled = Drawing::of(&space, 0);
    assert_eq!(sampled, all);
}

/// As large as what genotypes may have, and far beyond what anybody looks at: it must only come to an end soon.
#[test]
fn a_cell_of_thousands_of_edges_is_drawn() {
    let node = |k: usize| Node {
        op: None,
        inputs: (0..200)
            .map(|e| edge(e * 7 % (k + 2), Some("sep_conv_3x3")))
            .collect(),
    };
    let genotype = cell(&["one", "two"], (0..12).map(node).collect(), &[13]);
    let started = std::time::Instant::now();
    let svg = Drawing::of_genotype(&genotype).svg();
    assert_eq!(svg.matches(">sep_conv_3x3<").count(), 2400);
    // Some seconds where the machine is busy; it was hours.
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

proptest! {
    /// Whatever a file calls its cells and operations, the drawing is XML, and DOT is text.
    #[test]
    fn names_from_files_make_no_other_drawing(name in any::<String>(), op in any::<String>()) {
        let node = Node {
            op: None,
            inputs: vec![edge(0, Some(&op))],
        };
        let mut genotype = cell(&[&name], vec![node], &[1]);
        genotype.cells[0].name = name;
        let drawing = Drawing::of_genotype(&genotype);
        for text in [drawing.svg(), drawing.dot(), drawing.tikz(None)] {
            let illegal = |c: char| c < ' ' && c != '\n' && c != '\t' || ('\u{fffe}'..='\u{ffff}').contains(&c);
            prop_assert!(!text.contains(illegal), "{text:?}");
            prop_assert_eq!(&crate::printable::printable(&text), &text);
        }
        prop_assert_eq!(drawing.svg().matches("<svg").count(), 1);
    }
}

/// An operation is filled with its colour wherever it is, and what stands for its colour on dark ground is there, too.
#[test]
fn an_operation_has_one_colour_in_every_drawing() {
    let colour = crate::palette::LINES[0];
    let node = |op: &str| Node {
        op: Some(op.into()),
        inputs: vec![edge(0, None)],
    };
    for ops in [
        ["sep_conv_3x3", "skip_connect"],
        ["skip_connect", "sep_conv_3x3"],
    ] {
        let svg = Drawing::of_genotype(&cell(&["in"], ops.map(node).to_vec(), &[1, 2])).svg();
        assert!(
            svg.contains(&format!("fill=\"{}\" fill-opacity", colour.light)),
            "{svg}"
        );
        assert!(svg.contains(&format!("fill:{}", colour.dark)), "{svg}");
    }
}

/// Nine cells as wide as these two would be wider than any page.
#[test]
fn wide_cells_stand_below_each_other() {
    let node = |k: usize| Node {
        op: None,
        inputs: (0..4)
            .map(|e| edge(e * 3 % (k + 2), Some("a_very_long_operation")))
            .collect(),
    };
    let mut genotype = cell(&["one", "two"], (0..4).map(node).collect(), &[5]);
    let width = |genotype: &Genotype| super::svg::place(&Drawing::of_genotype(genotype)).width;
    let one = width(&genotype);
    assert!(one > 500.0);
    genotype.cells.push(genotype.cells[0].clone());
    assert_eq!(width(&genotype), one);
}

#[test]
fn tikz_has_a_box_per_node_and_text_without_commands() {
    let nodes = vec![Node {
        op: None,
        inputs: vec![edge(0, Some("sep_conv_3x3")), edge(1, Some("\\x{$}"))],
    }];
    let tikz = Drawing::of_genotype(&cell(&["c_{k-2}", "b"], nodes, &[2])).tikz(None);
    assert_eq!(tikz.matches("rectangle").count(), 4 + 2, "{tikz}");
    assert_eq!(tikz.matches("\\draw[->").count(), 3, "{tikz}");
    for text in [
        "sep\\_conv\\_3x3",
        "c\\_\\{k-2\\}",
        "\\textbackslash{}x\\{\\$\\}",
        "0067A8!16!white",
    ] {
        assert!(tikz.contains(text), "{text} is not in\n{tikz}");
    }
}
