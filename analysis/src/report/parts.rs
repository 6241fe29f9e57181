//! Pieces that several parts of a report are made of.

use std::borrow::Cow;

use maud::{Markup, PreEscaped, html};
use nasfw_framework::arch::{Cell, Genotype};
use nasfw_framework::draw::Drawing;
use nasfw_framework::printable::printable;
use nasfw_framework::registry::cost_in_words;

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

/// A metric's value, or a dash: what a network costs with its unit, all else as [`marked`].
pub(super) fn valued(metric: &str, x: Option<f64>, predicted: bool) -> String {
    match x.and_then(|x| cost_in_words(metric, x)) {
        Some(cost) if predicted => format!("{cost} (predicted)"),
        Some(cost) => cost,
        None => marked(x, predicted),
    }
}

/// A p-value.
pub(super) fn p_value(p: f64) -> String {
    match p {
        p if p < 1e-4 => "< 0.0001".into(),
        p => format!("{p:.4}"),
    }
}

/// Mean and standard deviation, and below them the interval, as one cell of a table.
pub(super) fn summary_cell(summary: Option<&Summary>, best: bool) -> Markup {
    let Some(s) = summary else {
        return html! { td.num { "–" } };
    };
    html! {
        td.num data-value=(s.mean) {
            @if best { b { (number(s.mean)) } } @else { (number(s.mean)) }
            @if let Some(sd) = s.sd { " ± " (number(sd)) }
            @if let Some([low, high]) = s.interval { br; span.soft { (number(low)) " to " (number(high)) } }
        }
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
                ul.legend { @for entry in &figure.legend { li data-line=(entry.look) {
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
    // One direction for all cells, the one that suits phones.
    let drawing = Drawing::of_genotype(genotype).narrow();
    html! {
        figure {
            div.cells { @for (cell, (title, part)) in genotype.cells.iter().zip(drawing.parts()) {
                div.scroll tabindex="0" role="region" aria-label={ "Drawing of " (clean(title)) }
                    style={ "--width:" (part.width()) "px" } {
                    (PreEscaped(part.inline(&in_a_line(&only(genotype, cell)))))
                }
            } }
            figcaption { (clean(caption)) }
        }
        details {
            summary { "The same as text" }
            pre { (clean(&genotype.to_string())) }
        }
    }
}

fn only(genotype: &Genotype, cell: &Cell) -> Genotype {
    Genotype {
        space: genotype.space.clone(),
        cells: vec![cell.clone()],
    }
}

/// An architecture in words, for those who can't see its drawing.
fn in_a_line(genotype: &Genotype) -> String {
    genotype.to_string().replace('\n', "; ")
}
