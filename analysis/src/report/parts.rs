//! Pieces that several parts of a report are made of.

use std::borrow::Cow;

use maud::{Markup, PreEscaped, html};
use nasfw_framework::arch::Genotype;
use nasfw_framework::draw::Drawing;
use nasfw_framework::printable::printable;

use crate::compare::Summary;
use crate::figures::Figure;

/// Text without the characters that HTML does not have.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    printable(text)
}

/// A number with four decimals, or in powers of ten where these would not show it.
pub(super) fn number(x: f64) -> String {
    match x.abs() {
        s if s == 0.0 || (1e-3..1e5).contains(&s) => format!("{x:.4}"),
        _ => format!("{x:.2e}"),
    }
}

/// A number, or a dash.
pub(super) fn maybe(x: Option<f64>) -> String {
    x.map_or("–".into(), number)
}

/// A number, or a dash, and whether a model predicted it.
pub(super) fn marked(x: Option<f64>, predicted: bool) -> String {
    match x {
        Some(x) if predicted => format!("{} (predicted)", number(x)),
        x => maybe(x),
    }
}

/// A p-value.
pub(super) fn p_value(p: f64) -> String {
    match p {
        p if p < 1e-4 => "< 0.0001".into(),
        p => format!("{p:.4}"),
    }
}

/// Mean, standard deviation and interval as three cells of a table.
pub(super) fn summary_cells(summary: Option<&Summary>) -> Markup {
    let interval = summary.and_then(|s| s.interval);
    html! {
        td.num { (maybe(summary.map(|s| s.mean))) }
        td.num { (maybe(summary.and_then(|s| s.sd))) }
        td.num { @match interval {
            Some([low, high]) => { (number(low)) " to " (number(high)) }
            None => { "–" }
        } }
    }
}

/// A table of names and values.
pub(super) fn pairs(caption: &str, rows: &[(&str, Markup)]) -> Markup {
    html! {
        div.scroll {
            table.pairs {
                caption { (caption) }
                tbody { @for (name, value) in rows { tr { th scope="row" { (name) } td { (value) } } } }
            }
        }
    }
}

/// A box that scrolls sideways on its own if what is in it is too wide; reachable by keyboard.
pub(super) fn scroll(label: &str, inner: &Markup) -> Markup {
    html! { div.scroll tabindex="0" role="region" aria-label=(clean(label)) { (inner) } }
}

/// A figure with legend, panels and caption below its title; `id` must be unique in the page.
pub(super) fn figure(figure: &Figure, id: &str) -> Markup {
    let columns = match figure.rows {
        true => figure.columns,
        false => figure.panels.len(),
    };
    html! {
        figure id=(id) class=[(figure.panels.len() > 20).then_some("small")] {
            figcaption { strong { (clean(&figure.title)) } br; (clean(&figure.caption)) }
            @if !figure.legend.is_empty() {
                ul.legend { @for entry in &figure.legend { li {
                    svg width="28" height="12" viewBox="0 0 28 12" aria-hidden="true" { (PreEscaped(entry.swatch())) }
                    (clean(&entry.name))
                } } }
            }
            @for (r, row) in figure.panels.chunks(columns.max(1)).enumerate() {
                div.panels style={ "--columns:" (figure.columns) } { @for (k, panel) in row.iter().enumerate() {
                    div.panel {
                        @if !panel.title.is_empty() { p { (clean(&panel.title)) } }
                        (PreEscaped(panel.inline(&format!("{id}-{r}-{k}"))))
                    }
                } }
            }
        }
    }
}

/// The cells of an architecture, drawn.
pub(super) fn cells(genotype: &Genotype, caption: &str) -> Markup {
    let text = genotype.to_string().replace('\n', "; ");
    let label = html! { (clean(&text)) }.into_string();
    let svg = Drawing::of_genotype(genotype).svg();
    let svg = svg.replacen(
        "<svg ",
        &format!(r#"<svg role="img" aria-label="{label}" "#),
        1,
    );
    html! {
        figure {
            div.cell { (scroll("Drawing of the cells", &PreEscaped(svg))) }
            figcaption { (clean(caption)) }
        }
        details {
            summary { "The same as text" }
            pre { (clean(&genotype.to_string())) }
        }
    }
}
