//! SVG output.

use std::fmt::Write as _;

use crate::palette::{EDGE, GROUND, INK, LINES, OPEN, TINT, UNUSED, dark_rules, of_operation};
use crate::printable::printable;

use super::layout::{Layout, Rect, layout};
use super::{CHARACTER, Drawing, FONT_SIZE, LINE, Style};

const MARGIN: f64 = 20.0;
const CELL_GAP: f64 = 48.0;
const TITLE: f64 = 30.0;
const ARROW: (f64, f64) = (3.5, 7.0);
/// Cells stand beside each other up to this width, else below each other.
const WIDE: f64 = 1000.0;

/// Where everything is, in pixels.
pub(super) struct Placed {
    pub width: f64,
    pub height: f64,
    pub cells: Vec<PlacedCell>,
    /// Baseline of the caption's first line, and its left end.
    pub caption: (f64, f64),
}

/// Where a cell is.
pub(super) struct PlacedCell {
    /// Middle of the title's baseline.
    pub title: (f64, f64),
    /// Where the layout begins.
    pub at: (f64, f64),
    pub layout: Layout,
}

pub(super) fn place(drawing: &Drawing) -> Placed {
    let layouts = drawing.graphs.iter().map(|graph| {
        let layout = layout(graph, drawing.direction);
        let title = CHARACTER * 1.2 * graph.title.chars().count() as f64;
        (layout.width.max(title), layout)
    });
    let layouts: Vec<(f64, Layout)> = layouts.collect();
    let beside = layouts.iter().map(|(wide, _)| wide + CELL_GAP).sum::<f64>() - CELL_GAP <= WIDE;
    let widest = layouts.iter().map(|(wide, _)| *wide).fold(0.0, f64::max);
    let (mut left, mut top): (f64, f64) = (MARGIN, MARGIN);
    let (mut width, mut bottom) = (0.0_f64, MARGIN + TITLE);
    let mut cells = Vec::new();
    for (wide, layout) in layouts {
        let wide = if beside { wide } else { widest };
        let middle = left + wide / 2.0;
        width = width.max(left + wide - MARGIN);
        bottom = f64::max(bottom, top + TITLE + layout.height);
        let (title, at) = (
            (middle, top + 12.0),
            (middle - layout.width / 2.0, top + TITLE),
        );
        match beside {
            true => left += wide + CELL_GAP,
            false => top = bottom + CELL_GAP / 2.0,
        }
        cells.push(PlacedCell { title, at, layout });
    }
    let longest = drawing.caption.iter().map(|l| l.chars().count()).max();
    let width = width.max(CHARACTER * longest.unwrap_or(0) as f64);
    let caption = match drawing.caption.len() {
        0 => 0.0,
        lines => LINE * lines as f64 + MARGIN,
    };
    Placed {
        width: (width + 2.0 * MARGIN).ceil(),
        height: (bottom + MARGIN + caption).ceil(),
        cells,
        caption: (MARGIN, bottom + MARGIN + 12.0),
    }
}

pub(super) fn document(drawing: &Drawing) -> String {
    let titles: Vec<&str> = drawing.graphs.iter().map(|g| g.title.as_str()).collect();
    let label = format!("Drawing of {}", titles.join(", "));
    let before = format!(
        r#"<title>{}</title>
<style>@media screen and (prefers-color-scheme: dark) {{ {} }}</style>
<rect width="100%" height="100%" fill="{}"/>
"#,
        escape(&label),
        dark_rules(),
        GROUND.light,
    );
    element(drawing, &label, &before)
}

pub(super) fn inline(drawing: &Drawing, label: &str) -> String {
    element(drawing, label, "")
}

fn element(drawing: &Drawing, label: &str, before: &str) -> String {
    let placed = place(drawing);
    let (width, height) = (placed.width, placed.height);
    // Writing to a String can't fail.
    let mut out = String::new();
    let _ = writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" aria-label="{}" font-family="sans-serif" font-size="{FONT_SIZE}" fill="{}">"#,
        escape(label),
        INK.light
    );
    out.push_str(before);
    for (graph, cell) in drawing.graphs.iter().zip(&placed.cells) {
        let ((x, y), (left, top)) = (cell.title, cell.at);
        let _ = writeln!(
            out,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="middle" font-size="14" font-weight="bold">{}</text>
<g transform="translate({left:.1} {top:.1})">"#,
            escape(&graph.title)
        );
        for (edge, route) in graph.edges.iter().zip(&cell.layout.edges) {
            write_edge(&mut out, &route.points, edge.style);
        }
        for (edge, route) in graph.edges.iter().zip(&cell.layout.edges) {
            if let Some(rect) = route.label {
                // The edge runs below its label, and the label's filling is seen through.
                let (x, y) = (rect.x - rect.width / 2.0, rect.y - rect.height / 2.0);
                let _ = writeln!(
                    out,
                    r#"<rect x="{x:.1}" y="{y:.1}" width="{:.1}" height="{:.1}" rx="7" fill="{}"/>"#,
                    rect.width, rect.height, GROUND.light
                );
                write_box(
                    &mut out,
                    rect,
                    7.0,
                    &Look::of(edge.style, edge.op.as_deref()),
                    &edge.label,
                );
            }
        }
        for (node, &rect) in graph.nodes.iter().zip(&cell.layout.nodes) {
            write_box(
                &mut out,
                rect,
                radius(node.style),
                &Look::of(node.style, node.op.as_deref()),
                &node.label,
            );
        }
        out.push_str("</g>\n");
    }
    let (x, y) = placed.caption;
    for (k, line) in drawing.caption.iter().enumerate() {
        let y = y + LINE * k as f64;
        let _ = writeln!(out, r#"<text x="{x}" y="{y:.1}">{}</text>"#, escape(line));
    }
    out.push_str("</svg>\n");
    out
}

/// Radius of a node's corners; edges leave between them.
pub(super) fn radius(style: Style) -> f64 {
    if style == Style::Terminal { 12.0 } else { 4.0 }
}

/// How a box looks: colours of frame, filling and text on light ground.
pub(super) struct Look {
    pub frame: &'static str,
    pub fill: Option<&'static str>,
    pub text: &'static str,
    pub dashed: bool,
}

impl Look {
    pub(super) fn of(style: Style, op: Option<&str>) -> Self {
        let colour = op.map(|op| LINES[of_operation(op)].light);
        let terminal = (style == Style::Terminal).then_some(EDGE.light);
        match style {
            Style::Unused => Self {
                frame: UNUSED[0].light,
                fill: None,
                text: UNUSED[1].light,
                dashed: false,
            },
            _ => Self {
                frame: colour.unwrap_or(stroke(style)),
                fill: colour.or(terminal),
                text: INK.light,
                dashed: style == Style::Candidate,
            },
        }
    }
}

/// Colour of an edge.
pub(super) fn stroke(style: Style) -> &'static str {
    match style {
        Style::Plain | Style::Terminal => EDGE.light,
        Style::Candidate => OPEN.light,
        Style::Unused => UNUSED[0].light,
    }
}

/// `stroke-dasharray` of what is not decided.
fn dash(dashed: bool) -> &'static str {
    if dashed {
        r#" stroke-dasharray="4 3""#
    } else {
        ""
    }
}

fn write_edge(out: &mut String, points: &[(f64, f64)], style: Style) {
    let ink = stroke(style);
    let mut path = String::new();
    for (k, (x, y)) in points.iter().enumerate() {
        let _ = write!(path, "{}{x:.1} {y:.1}", if k == 0 { 'M' } else { 'L' });
    }
    let dash = dash(style == Style::Candidate);
    let _ = writeln!(
        out,
        r#"<path d="{path}" fill="none" stroke="{ink}" stroke-width="1.2"{dash}/>"#
    );
    // The head lies along the last piece that is longer than nothing.
    let Some(&(x, y)) = points.last() else { return };
    let away = points.iter().rev().find(|p| (p.0 - x).hypot(p.1 - y) > 0.5);
    let Some(&(from_x, from_y)) = away else {
        return;
    };
    let long = (x - from_x).hypot(y - from_y);
    let (along_x, along_y) = ((x - from_x) / long, (y - from_y) / long);
    let (half, length) = ARROW;
    let (back_x, back_y) = (x - along_x * length, y - along_y * length);
    let _ = writeln!(
        out,
        r#"<path d="M{:.1} {:.1}L{:.1} {:.1}L{x:.1} {y:.1}Z" fill="{ink}"/>"#,
        back_x - along_y * half,
        back_y + along_x * half,
        back_x + along_y * half,
        back_y - along_x * half
    );
}

fn write_box(out: &mut String, rect: Rect, radius: f64, look: &Look, lines: &[String]) {
    let fill = match look.fill {
        Some(fill) => format!(r#"fill="{fill}" fill-opacity="{TINT}""#),
        None => r#"fill="none""#.to_owned(),
    };
    let _ = writeln!(
        out,
        r#"<rect x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}" rx="{radius:.1}" {fill} stroke="{}"{}/>"#,
        rect.x - rect.width / 2.0,
        rect.y - rect.height / 2.0,
        rect.width,
        rect.height,
        look.frame,
        dash(look.dashed)
    );
    let top = rect.y - LINE * lines.len() as f64 / 2.0;
    for (k, line) in lines.iter().enumerate() {
        let _ = writeln!(
            out,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle" fill="{}">{}</text>"#,
            rect.x,
            // The baseline lies about a third of the font size below the middle of a line.
            top + LINE * (k as f64 + 0.5) + FONT_SIZE * 0.35,
            look.text,
            escape(line)
        );
    }
}

fn escape(text: &str) -> String {
    printable(text)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
