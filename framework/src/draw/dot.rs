//! DOT output for Graphviz.

use std::fmt::Write as _;

use super::{Drawing, Style};
use crate::printable::printable;

pub(super) fn write(drawing: &Drawing) -> String {
    let mut out = String::from("digraph architecture {\n");
    out.push_str("  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n");
    out.push_str("  edge [fontname=\"sans-serif\"];\n");
    if !drawing.caption.is_empty() {
        let _ = writeln!(out, "  label={};", quote(&drawing.caption));
    }
    // Writing to a String can't fail.
    for (c, graph) in drawing.graphs.iter().enumerate() {
        let _ = writeln!(out, "  subgraph cluster_{c} {{");
        let _ = writeln!(
            out,
            "    label={};",
            quote(std::slice::from_ref(&graph.title))
        );
        for (k, node) in graph.nodes.iter().enumerate() {
            let look = look(node.style, "rounded,");
            let _ = writeln!(out, "    c{c}_{k} [label={}{look}];", quote(&node.label));
        }
        for edge in &graph.edges {
            let look = look(edge.style, "");
            let label = quote(&edge.label);
            let _ = writeln!(
                out,
                "    c{c}_{} -> c{c}_{} [label={label}{look}];",
                edge.from, edge.to
            );
        }
        out.push_str("  }\n");
    }
    out.push_str("}\n");
    out
}

fn look(style: Style, base: &str) -> String {
    match style {
        Style::Plain => String::new(),
        Style::Terminal => ", shape=oval".into(),
        Style::Candidate => format!(", style=\"{base}dashed\""),
        Style::Unused => ", color=gray, fontcolor=gray".into(),
    }
}

fn quote(lines: &[String]) -> String {
    let lines: Vec<String> = lines
        .iter()
        .map(|l| printable(l).replace('\\', "\\\\").replace('"', "\\\""))
        .collect();
    format!("\"{}\"", lines.join("\\n"))
}
