//! Figures as SVG: what all of them share.

use std::fmt::Write as _;

use nasfw_framework::palette::{GROUND, INK, dark_rules};
use nasfw_framework::printable::printable;

use super::{Entry, Figure, Panel};

/// DejaVu Sans first: the PNGs have it, and the widths are worked out for it.
const FONTS: &str = "DejaVu Sans, Verdana, Liberation Sans, Arial, sans-serif";
/// Font size in pixels.
pub(super) const FONT: f64 = 12.0;
const MARGIN: f64 = 16.0;
const GAP: f64 = 18.0;
const LINE: f64 = 18.0;

/// Text for an element or an attribute, on one line.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Width of text in pixels: an estimate on the safe side.
pub(super) fn width(text: &str) -> f64 {
    text.chars().count() as f64 * FONT * 0.62
}

/// Text that is at most `pixels` wide, cut with an ellipsis.
pub(super) fn fit(text: &str, pixels: f64) -> String {
    if width(text) <= pixels {
        return text.to_owned();
    }
    let keep = (pixels / (FONT * 0.62)).max(2.0) as usize - 1;
    text.chars().take(keep).chain(['…']).collect()
}

/// A number as people write it: at most four digits that count, powers of ten where it is very large or small.
pub(super) fn number(x: f64) -> String {
    let size = x.abs();
    if x == 0.0 {
        return "0".into();
    }
    if !(1e-3..1e6).contains(&size) {
        return format!("{x:.1e}").replace(".0e", "e");
    }
    let decimals = match size {
        s if s >= 1000.0 => 0,
        s if s >= 100.0 => 1,
        s if s >= 10.0 => 2,
        s if s >= 0.1 => 3,
        _ => 4,
    };
    let text = format!("{x:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A panel as an SVG element of its own. Identifiers get `id` before them.
pub(super) fn inline(panel: &Panel, id: &str) -> String {
    let (w, h) = (panel.width, panel.height);
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img" aria-label="{}" font-family="{FONTS}" font-size="{FONT}" fill="currentColor">{}</svg>"#,
        escape(panel.description.as_str()),
        panel.body.replace("kuva-", &format!("{}-", escape(id)))
    )
}

/// All panels below title and legend.
pub(super) fn document(figure: &Figure) -> String {
    let columns = figure.columns.clamp(1, figure.panels.len().max(1));
    let column = figure.panels.iter().map(|p| p.width).fold(0.0, f64::max);
    let inner = (column * columns as f64 + GAP * (columns - 1) as f64).max(320.0);
    let mut body = String::new();
    let mut y = MARGIN + 14.0;
    // Writing to a String can't fail.
    let _ = writeln!(
        body,
        r#"<text x="{MARGIN}" y="{y}" font-size="15" font-weight="bold">{}</text>"#,
        escape(&fit(&figure.title, inner * 0.8))
    );
    y += 12.0;
    y = legend(&mut body, &figure.legend, y, inner);
    for row in figure.panels.chunks(columns) {
        let titled = row.iter().any(|p| !p.title.is_empty());
        if titled {
            y += LINE;
        }
        for (k, panel) in row.iter().enumerate() {
            let x = MARGIN + (column + GAP) * k as f64;
            if titled {
                let _ = writeln!(
                    body,
                    r#"<text x="{x}" y="{:.1}" font-weight="bold">{}</text>"#,
                    y - 4.0,
                    escape(&fit(&panel.title, panel.width))
                );
            }
            let own = panel.body.replace("kuva-", &format!("p{y:.0}-{k}-"));
            let _ = writeln!(body, r#"<g transform="translate({x} {y:.1})">{own}</g>"#);
        }
        y += row.iter().map(|p| p.height).fold(0.0, f64::max) + GAP;
    }
    let (w, h) = ((inner + 2.0 * MARGIN).ceil(), (y - GAP + MARGIN).ceil());
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" role="img" aria-labelledby="title description" font-family="{FONTS}" font-size="{FONT}" color="{}" fill="currentColor">
<title id="title">{}</title>
<desc id="description">{}</desc>
<style>@media screen and (prefers-color-scheme: dark) {{ svg {{ color: {}; }} {} }}</style>
<rect width="{w}" height="{h}" fill="{}"/>
{body}</svg>
"#,
        INK.light,
        escape(&figure.title),
        escape(&format!("{} {}", figure.caption, figure.description())),
        INK.dark,
        dark_rules(),
        GROUND.light,
    )
}

/// Writes the legend in lines that fit, and returns where it ends.
fn legend(body: &mut String, entries: &[Entry], top: f64, inner: f64) -> f64 {
    if entries.is_empty() {
        return top;
    }
    let (mut x, mut y) = (0.0, top);
    for entry in entries {
        let name = fit(&entry.name, inner - 40.0);
        let wide = 36.0 + width(&name) + 10.0;
        if x > 0.0 && x + wide > inner {
            (x, y) = (0.0, y + LINE);
        }
        let _ = writeln!(
            body,
            r#"<g transform="translate({:.1} {y:.1})">{}<text x="34" y="10">{}</text></g>"#,
            MARGIN + x,
            entry.swatch(),
            escape(&name)
        );
        x += wide;
    }
    y + LINE + 4.0
}
