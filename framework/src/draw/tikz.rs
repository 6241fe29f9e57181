//! TikZ output for LaTeX.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::layout::Rect;
use super::svg::{Look, Placed, place, radius, stroke};
use super::{Drawing, LINE, Style};
use crate::palette::TINT;
use crate::printable::printable;

pub(super) fn write(drawing: &Drawing) -> String {
    let Placed { cells, caption, .. } = place(drawing);
    let mut picture = Picture::default();
    for (graph, cell) in drawing.graphs.iter().zip(&cells) {
        picture.text(cell.title, "anchor=base, font=\\bfseries", &graph.title);
        picture.at = cell.at;
        for (edge, route) in graph.edges.iter().zip(&cell.layout.edges) {
            picture.edge(&route.points, edge.style);
        }
        for (edge, route) in graph.edges.iter().zip(&cell.layout.edges) {
            if let Some(rect) = route.label {
                let look = Look::of(edge.style, edge.op.as_deref());
                picture.node(rect, 7.0, &look, &edge.label);
            }
        }
        for (node, rect) in graph.nodes.iter().zip(&cell.layout.nodes) {
            picture.node(
                *rect,
                radius(node.style),
                &Look::of(node.style, node.op.as_deref()),
                &node.label,
            );
        }
        picture.at = (0.0, 0.0);
    }
    for (k, line) in drawing.caption.iter().enumerate() {
        let at = (caption.0, caption.1 + LINE * k as f64);
        picture.text(at, "anchor=base west", line);
    }
    // A pixel of an SVG is 0.75 pt of PostScript, and y grows downwards.
    let mut out = String::from(
        "% needs \\usepackage{tikz}\n\\begin{tikzpicture}[x=0.75bp, y=-0.75bp, font=\\sffamily\\scriptsize, inner sep=0pt]\n",
    );
    for colour in &picture.colours {
        let digits = colour.trim_start_matches('#').to_uppercase();
        let _ = writeln!(out, "  \\definecolor{{nasfw{digits}}}{{HTML}}{{{digits}}}");
    }
    out.push_str(&picture.body);
    out.push_str("\\end{tikzpicture}\n");
    out
}

#[derive(Default)]
struct Picture {
    body: String,
    colours: BTreeSet<&'static str>,
    /// Where the cell begins.
    at: (f64, f64),
}

impl Picture {
    /// The name of a colour, which is then defined.
    fn colour(&mut self, colour: &'static str) -> String {
        self.colours.insert(colour);
        format!("nasfw{}", colour.trim_start_matches('#').to_uppercase())
    }

    fn point(&self, (x, y): (f64, f64)) -> String {
        format!("({:.1},{:.1})", x + self.at.0, y + self.at.1)
    }

    fn text(&mut self, at: (f64, f64), options: &str, text: &str) {
        // Writing to a String can't fail.
        let _ = writeln!(
            self.body,
            "  \\node[{options}] at {} {{{}}};",
            self.point(at),
            escape(text)
        );
    }

    fn edge(&mut self, points: &[(f64, f64)], style: Style) {
        let colour = self.colour(stroke(style));
        let dash = if style == Style::Candidate {
            ", dashed"
        } else {
            ""
        };
        // A head needs a last piece that is longer than nothing.
        let mut kept: Vec<(f64, f64)> = points.to_vec();
        kept.dedup_by(|b, a| (a.0 - b.0).hypot(a.1 - b.1) < 0.5);
        let points: Vec<String> = kept.into_iter().map(|p| self.point(p)).collect();
        let _ = writeln!(
            self.body,
            "  \\draw[->, {colour}{dash}] {};",
            points.join(" -- ")
        );
    }

    fn node(&mut self, rect: Rect, radius: f64, look: &Look, lines: &[String]) {
        let frame = self.colour(look.frame);
        let text = self.colour(look.text);
        let fill = look.fill.map_or(", fill=white".to_owned(), |fill| {
            format!(", fill={}!{:.0}!white", self.colour(fill), 100.0 * TINT)
        });
        let dash = if look.dashed { ", dashed" } else { "" };
        let corner = |sign: f64| {
            (
                rect.x + sign * rect.width / 2.0,
                rect.y + sign * rect.height / 2.0,
            )
        };
        let (from, to) = (self.point(corner(-1.0)), self.point(corner(1.0)));
        let _ = writeln!(
            self.body,
            "  \\draw[{frame}{fill}{dash}, rounded corners={:.1}bp] {from} rectangle {to};",
            radius * 0.75
        );
        let lines: Vec<String> = lines.iter().map(|line| escape(line)).collect();
        let _ = writeln!(
            self.body,
            "  \\node[align=center, text={text}] at {} {{{}}};",
            self.point((rect.x, rect.y)),
            lines.join("\\\\")
        );
    }
}

/// Text in which LaTeX sees no command.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '#' | '$' | '%' | '&' | '_' | '{' | '}' => out.extend(['\\', c]),
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
