//! SVG output.

use std::fmt::Write as _;

use crate::printable::printable;

use super::layout::{Layout, Rect, layout};
use super::{CHARACTER, Drawing, FONT_SIZE, Graph, LINE, Style};

const MARGIN: f64 = 20.0;
const CELL_GAP: f64 = 48.0;
const TITLE: f64 = 30.0;
const ARROW: (f64, f64) = (3.5, 7.0);

/// Soft fills that dark text stands out from; operations take them in the order in which they occur.
const PALETTE: [&str; 10] = [
    "#cfe2f3", "#fde2c4", "#d5ead0", "#f6d1d5", "#e3d7f1", "#fff2b3", "#d0ecec", "#ead9c8",
    "#e3e8c0", "#f3d3ea",
];
const INK: &str = "#222222";
const FAINT: &str = "#bbbbbb";

pub(super) fn write(drawing: &Drawing) -> String {
    let colours = Colours::of(drawing);
    let layouts: Vec<Layout> = drawing.graphs.iter().map(layout).collect();
    let caption_width = drawing
        .caption
        .iter()
        .map(|l| l.chars().count())
        .max()
        .unwrap_or(0);
    let wide = |graph: &Graph, layout: &Layout| {
        layout
            .width
            .max(CHARACTER * 1.2 * graph.title.chars().count() as f64)
    };
    let widths: Vec<f64> = drawing
        .graphs
        .iter()
        .zip(&layouts)
        .map(|(g, l)| wide(g, l))
        .collect();
    let gaps = CELL_GAP * widths.len().saturating_sub(1) as f64;
    let width = (widths.iter().sum::<f64>() + gaps).max(CHARACTER * caption_width as f64);
    let tallest = layouts.iter().map(|l| l.height).fold(0.0, f64::max);
    let caption_top = MARGIN + TITLE + tallest + MARGIN;
    let height = caption_top
        + LINE * drawing.caption.len() as f64
        + if drawing.caption.is_empty() {
            0.0
        } else {
            MARGIN
        };
    let (width, height) = ((width + 2.0 * MARGIN).ceil(), height.ceil());

    let mut out = String::new();
    // Writing to a String can't fail.
    let _ = writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="{FONT_SIZE}">"#
    );
    let _ = writeln!(
        out,
        r##"<rect width="{width}" height="{height}" fill="#ffffff"/>"##
    );
    let mut left = MARGIN;
    for ((graph, layout), wide) in drawing.graphs.iter().zip(&layouts).zip(widths) {
        let middle = left + wide / 2.0;
        let _ = writeln!(
            out,
            r#"<text x="{middle:.1}" y="{:.1}" text-anchor="middle" font-size="14" font-weight="bold" fill="{INK}">{}</text>"#,
            MARGIN + 12.0,
            escape(&graph.title)
        );
        let _ = writeln!(
            out,
            r#"<g transform="translate({:.1} {:.1})">"#,
            middle - layout.width / 2.0,
            MARGIN + TITLE
        );
        write_graph(&mut out, graph, layout, &colours);
        out.push_str("</g>\n");
        left += wide + CELL_GAP;
    }
    for (k, line) in drawing.caption.iter().enumerate() {
        let y = caption_top + LINE * k as f64 + 12.0;
        let _ = writeln!(
            out,
            r#"<text x="{MARGIN}" y="{y:.1}" fill="{INK}">{}</text>"#,
            escape(line)
        );
    }
    out.push_str("</svg>\n");
    out
}

fn write_graph(out: &mut String, graph: &Graph, layout: &Layout, colours: &Colours) {
    for (edge, route) in graph.edges.iter().zip(&layout.edges) {
        let (ink, dash) = stroke(edge.style);
        let _ = writeln!(
            out,
            r#"<path d="{}" fill="none" stroke="{ink}" stroke-width="1.2"{dash}/>"#,
            curve(&route.points)
        );
        if let Some(&(x, y)) = route.points.last() {
            let (half, long) = ARROW;
            let _ = writeln!(
                out,
                r#"<path d="M{:.1} {:.1}L{:.1} {:.1}L{x:.1} {y:.1}Z" fill="{ink}"/>"#,
                x - half,
                y - long,
                x + half,
                y - long
            );
        }
    }
    for (edge, route) in graph.edges.iter().zip(&layout.edges) {
        if let Some(rect) = route.label {
            let fill = colours.fill(edge.op.as_deref(), "#ffffff");
            write_box(out, rect, 7.0, fill, stroke(edge.style), &edge.label);
        }
    }
    for (node, &rect) in graph.nodes.iter().zip(&layout.nodes) {
        let (radius, plain) = match node.style {
            Style::Terminal => (rect.height / 2.0, "#eeeeee"),
            _ => (4.0, "#ffffff"),
        };
        let fill = colours.fill(node.op.as_deref(), plain);
        write_box(out, rect, radius, fill, stroke(node.style), &node.label);
    }
}

/// Colour of the line, and the attribute that makes it dashed or not.
fn stroke(style: Style) -> (&'static str, &'static str) {
    match style {
        Style::Plain | Style::Terminal => ("#444444", ""),
        Style::Candidate => ("#777777", r#" stroke-dasharray="4 3""#),
        Style::Unused => (FAINT, ""),
    }
}

fn write_box(
    out: &mut String,
    rect: Rect,
    radius: f64,
    fill: &str,
    (ink, dash): (&str, &str),
    lines: &[String],
) {
    let (faint, fill) = if ink == FAINT {
        ("#999999", "#ffffff")
    } else {
        (INK, fill)
    };
    let _ = writeln!(
        out,
        r#"<rect x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}" rx="{radius:.1}" fill="{fill}" stroke="{ink}"{dash}/>"#,
        rect.x - rect.width / 2.0,
        rect.y - rect.height / 2.0,
        rect.width,
        rect.height
    );
    let top = rect.y - LINE * lines.len() as f64 / 2.0;
    for (k, line) in lines.iter().enumerate() {
        let _ = writeln!(
            out,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle" fill="{faint}">{}</text>"#,
            rect.x,
            // The baseline lies about a third of the font size below the middle of a line.
            top + LINE * (k as f64 + 0.5) + FONT_SIZE * 0.35,
            escape(line)
        );
    }
}

/// A path through `points` of which every piece leaves and arrives vertically.
fn curve(points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (k, &(x, y)) in points.iter().enumerate() {
        let _ = match k.checked_sub(1).map(|before| points[before]) {
            None => write!(path, "M{x:.1} {y:.1}"),
            Some((from, _)) if from == x => write!(path, "L{x:.1} {y:.1}"),
            Some((from, top)) => {
                let middle = f64::midpoint(top, y);
                write!(
                    path,
                    "C{from:.1} {middle:.1} {x:.1} {middle:.1} {x:.1} {y:.1}"
                )
            }
        };
    }
    path
}

/// Which operation is filled in which colour.
struct Colours(Vec<String>);

impl Colours {
    fn of(drawing: &Drawing) -> Self {
        let mut seen: Vec<String> = Vec::new();
        for graph in &drawing.graphs {
            let nodes = graph.nodes.iter().filter_map(|node| node.op.as_ref());
            for op in nodes.chain(graph.edges.iter().filter_map(|edge| edge.op.as_ref())) {
                if !seen.contains(op) {
                    seen.push(op.clone());
                }
            }
        }
        Self(seen)
    }

    fn fill(&self, op: Option<&str>, otherwise: &'static str) -> &'static str {
        let at = op.and_then(|op| self.0.iter().position(|seen| seen == op));
        at.map_or(otherwise, |k| PALETTE[k % PALETTE.len()])
    }
}

fn escape(text: &str) -> String {
    printable(text)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
