//! The view's frame, from the state alone.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::HumanDuration;
use nasfw_framework::command::command;
use nasfw_framework::printable::{counted, printable};
use nasfw_framework::registry::cost_in_words;
use nasfw_framework::trainer::PATIENCE;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Borders, Chart, Clear, Dataset, GraphType, Paragraph, Widget};

use super::collapse::warnings;
use super::state::{Curve, Edge, State, Status};

/// What the user has chosen to see.
#[derive(Debug, Clone, Copy, Default)]
pub struct Look {
    /// Whether there are colours.
    pub colour: bool,
    /// Number of the first edge shown.
    pub scroll: usize,
    /// Whether the help lies on top.
    pub help: bool,
    /// Whether this process runs the search.
    pub own: bool,
    /// Whether that has been asked to stop.
    pub stopping: bool,
}

impl Look {
    fn paint(self, colour: Color) -> Style {
        if self.colour {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn bold(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }
}

/// Draws everything into `area`, however small it is.
pub fn draw(state: &State, look: Look, area: Rect, buf: &mut Buffer) {
    let area = area.intersection(buf.area);
    if area.is_empty() {
        return;
    }
    let warnings = warnings(state);
    let roomy = area.width >= 72 && area.height >= 18;
    let header = header(state, look, area.width, roomy);
    let figures = figures(state, look, area.width, roomy);
    let most = if roomy { 3 } else { 1 };
    let heights = [
        header.len() as u16,
        1,
        figures.len() as u16,
        warnings.len().min(most) as u16,
    ];
    let [top, bar, middle, alarm, body, foot] = Layout::vertical([
        Constraint::Length(heights[0]),
        Constraint::Length(heights[1]),
        Constraint::Length(heights[2]),
        Constraint::Length(heights[3]),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    Paragraph::new(header).render(top, buf);
    Paragraph::new(progress(state, look, bar.width)).render(bar, buf);
    Paragraph::new(figures).render(middle, buf);
    let alarms: Vec<Line> = warnings
        .into_iter()
        .map(|w| Line::styled(w, look.paint(Color::Yellow).add_modifier(Modifier::BOLD)))
        .collect();
    Paragraph::new(alarms).render(alarm, buf);
    if roomy {
        let [left, right] =
            Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)])
                .spacing(1)
                .areas(body);
        let [loss, accuracy] =
            Layout::vertical([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(left);
        curves(
            "loss, training batches of the supernet",
            &state.losses,
            look,
            loss,
            buf,
        );
        curves(
            "accuracy in %, the same batches",
            &state.accuracies,
            look,
            accuracy,
            buf,
        );
        decisions(state, look, right, buf);
    } else {
        decisions(state, look, body, buf);
    }
    let keys = if look.stopping {
        let patience = PATIENCE.as_secs();
        format!("saving, then the end; Ctrl-C again after {patience} seconds ends at once")
    } else if look.own {
        "q leave the view  ↑↓ scroll  ? help  Ctrl-C save and stop".into()
    } else {
        "q quit  ↑↓ scroll  ? help".into()
    };
    Paragraph::new(Line::styled(keys, look.faint())).render(foot, buf);
    if look.help {
        help(look, area, buf);
    }
    // Names come from files, and a mark that turns the direction of writing takes no cell of its own.
    for cell in &mut buf.content {
        if matches!(printable(cell.symbol()), Cow::Owned(_)) {
            cell.set_char('\u{fffd}');
        }
    }
}

fn header<'a>(state: &'a State, look: Look, width: u16, roomy: bool) -> Vec<Line<'a>> {
    let [strategy, space, dataset] = &state.about.parts;
    let (word, colour) = match &state.status {
        Status::Waiting => ("waiting".to_owned(), Color::Yellow),
        Status::Running => ("running".into(), Color::Green),
        Status::Stopped => ("stopped".into(), Color::Red),
        Status::Finished(_) => ("finished".into(), Color::Cyan),
    };
    let title = format!(
        "{strategy} on {space}, {dataset}, seed {}",
        state.about.seed
    );
    // The end of a title that is too long goes, not the status.
    let room = usize::from(width).saturating_sub(word.len() + 1);
    let shown: String = title.chars().take(room).collect();
    let gap = " ".repeat(usize::from(width).saturating_sub(shown.chars().count() + word.len()));
    let mut lines = vec![Line::from(vec![
        Span::styled(shown, look.bold()),
        Span::raw(gap),
        Span::styled(word, look.paint(colour).add_modifier(Modifier::BOLD)),
    ])];
    if roomy {
        let mut parts = vec![state.about.run.clone()];
        if !state.device.is_empty() {
            let (weights, arch) = state.params;
            parts.push(state.device.clone());
            parts.push(format!(
                "{}, {}",
                counted(weights, "weight"),
                counted(arch, "architecture parameter")
            ));
        }
        let memory = state.memory.map(|bytes| bytes as f64 / 1e9);
        parts.extend(memory.map(|gb| format!("memory {gb:.2} GB")));
        lines.push(Line::styled(whole(&parts, "; ", width), look.faint()));
    }
    lines
}

/// Parts behind each other, as many as fit whole; a mark says that there are more.
fn whole(parts: &[String], between: &str, width: u16) -> String {
    let all = parts.join(between);
    let fits = |text: &str| text.chars().count() <= usize::from(width);
    if fits(&all) {
        return all;
    }
    let some = (1..parts.len())
        .rev()
        .map(|n| parts[..n].join(between) + between + "…");
    some.into_iter().find(|text| fits(text)).unwrap_or(all)
}

/// The bar, and in words where the run stands.
fn progress<'a>(state: &State, look: Look, width: u16) -> Line<'a> {
    let done = state.done.clamp(0.0, 1.0);
    let cells = usize::from(width / 4).min(24);
    let full = (done * cells as f64).round() as usize;
    let mut text = format!(
        " {:3.0}% step {} epoch {}",
        done * 100.0,
        state.step,
        state.epoch
    );
    if let Some(left) = state.left() {
        // A pace of minutes says nothing of years.
        let left = Duration::from_secs_f64(left.clamp(0.0, 1e9));
        text += &format!(", {} left", HumanDuration(left));
    }
    match &state.status {
        Status::Finished(reason) => text += &format!(", {reason}"),
        Status::Stopped => text += &format!("; {}", command(["resume", &state.about.run])),
        _ => {}
    }
    Line::from(vec![
        Span::styled("━".repeat(full), look.paint(Color::Green)),
        Span::styled("─".repeat(cells.saturating_sub(full)), look.faint()),
        Span::raw(text),
    ])
}

/// Numbers: last loss and accuracy, entropy; metrics and regret.
fn figures<'a>(state: &State, look: Look, width: u16, roomy: bool) -> Vec<Line<'a>> {
    let mut now = vec![];
    for (part, curve) in &state.losses {
        let accuracy = state.accuracies.get(part).and_then(|c| c.last());
        if let (Some((_, loss)), Some((_, accuracy))) = (curve.last(), accuracy) {
            now.push(format!("{part} loss {loss:.3} acc {accuracy:.1}%"));
        }
    }
    now.extend(state.entropy.map(|e| format!("entropy {e:.3}")));
    let mut found = vec![];
    if state.known == Some(false) {
        found.push("not in the benchmark's table".to_owned());
    }
    // A benchmark's figures of short trainings (`…@12`) only fill the line.
    for (name, value) in state.metrics.iter().filter(|(n, _)| !n.contains('@')) {
        let regret = state.regret.get(name);
        let regret = regret.map_or(String::new(), |r| format!(" (regret {r:.3})"));
        let value = cost_in_words(name, *value).unwrap_or_else(|| format!("{value:.3}"));
        found.push(format!("{} {value}{regret}", state.trust.shown(name)));
    }
    if roomy {
        found.extend(state.control.clone());
    }
    [now, found]
        .into_iter()
        .filter(|part| !part.is_empty())
        .map(|part| Line::styled(whole(&part, "  ", width), look.paint(Color::White)))
        .collect()
}

fn curves(title: &str, curves: &BTreeMap<String, Curve>, look: Look, area: Rect, buf: &mut Buffer) {
    let points = || curves.values().flatten();
    let bounds = |values: &mut dyn Iterator<Item = f64>| {
        values.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], v| {
            [low.min(v), high.max(v)]
        })
    };
    let block = Block::new()
        .borders(Borders::TOP)
        .border_style(look.faint())
        .title(title.to_owned());
    if points().next().is_none() {
        Paragraph::new("nothing yet").block(block).render(area, buf);
        return;
    }
    let [first, last] = bounds(&mut points().map(|p| p.0));
    let [mut low, mut high] = bounds(&mut points().map(|p| p.1));
    if high - low < 1e-9 * high.abs().max(1e-9) {
        (low, high) = (low - 0.5, high + 0.5);
    }
    let colours = [Color::Cyan, Color::Magenta, Color::Yellow, Color::Green];
    let markers = [Marker::Braille, Marker::Dot];
    let datasets = curves
        .iter()
        .enumerate()
        .map(|(i, (part, curve))| {
            // Without colours, marks tell the parts apart.
            let marker = if look.colour {
                Marker::Braille
            } else {
                markers[i % markers.len()]
            };
            Dataset::default()
                .name(part.clone())
                .marker(marker)
                .graph_type(GraphType::Line)
                .style(look.paint(colours[i % colours.len()]))
                .data(curve)
        })
        .collect();
    let x = Axis::default()
        .bounds([first, last.max(first + 1.0)])
        .labels([format!("{first}"), format!("step {last}")])
        .style(look.faint());
    let y = Axis::default()
        .bounds([low, high])
        .labels([format!("{low:.2}"), format!("{high:.2}")])
        .style(look.faint());
    Chart::new(datasets)
        .block(block)
        .x_axis(x)
        .y_axis(y)
        .render(area, buf);
}

/// The edges above, below the architecture with what to know of it.
fn decisions(state: &State, look: Look, area: Rect, buf: &mut Buffer) {
    let width = usize::from(area.width);
    let wrapped = |lines: &[String]| -> Vec<String> {
        lines.iter().flat_map(|line| wrap(line, width)).collect()
    };
    let mut remarks = wrapped(&state.remarks());
    let genotype = state.genotype.as_ref().map(ToString::to_string);
    let genotype = genotype.iter().flat_map(|g| g.lines());
    let genotype = wrapped(&genotype.map(str::to_owned).collect::<Vec<_>>());
    let edges = state.edges.len() as u16 + 1;
    let wanted = (remarks.len() + genotype.len()) as u16 + 1;
    // Each gets half where both can't have what they want.
    let upper = match area.height {
        height if state.edges.is_empty() => height.min(2),
        height if edges + wanted <= height => edges,
        height => edges.min(height - wanted.min(height / 2)),
    };
    let [above, below] =
        Layout::vertical([Constraint::Length(upper), Constraint::Min(0)]).areas(area);
    bars(state, look, above, buf);
    let block = Block::new()
        .borders(Borders::TOP)
        .border_style(look.faint())
        .title("architecture now");
    // Here, too, each gets half where both can't have what they want.
    let rows = usize::from(below.height.saturating_sub(1));
    remarks.truncate(rows.saturating_sub(genotype.len()).max(rows / 2));
    let remarks = remarks
        .into_iter()
        .map(|line| Line::styled(line, look.paint(Color::Yellow)));
    let lines: Vec<Line> = remarks.chain(genotype.into_iter().map(Line::raw)).collect();
    Paragraph::new(lines).block(block).render(below, buf);
}

/// A line in pieces of at most `width` characters, the later ones indented, cut at blanks where there are any.
fn wrap(line: &str, width: usize) -> Vec<String> {
    let (mut pieces, mut piece) = (vec![], String::new());
    let indent = line.chars().take_while(|c| *c == ' ').count().min(8) + 4;
    for word in line.trim_start().split(' ') {
        let length = piece.chars().count();
        if piece.is_empty() {
            piece = " ".repeat(indent - 4) + word;
        } else if length + 1 + word.chars().count() > width && width > indent {
            pieces.push(std::mem::replace(&mut piece, " ".repeat(indent) + word));
        } else {
            piece = piece + " " + word;
        }
    }
    pieces.push(piece);
    pieces
}

/// First edge shown: scrolling ends where the last one is at the bottom.
pub fn clamp(scroll: usize, edges: usize, rows: usize) -> usize {
    scroll.min(edges.saturating_sub(rows.max(1)))
}

fn bars(state: &State, look: Look, area: Rect, buf: &mut Buffer) {
    let rows = usize::from(area.height.saturating_sub(1));
    let all = &state.edges;
    let first = clamp(look.scroll, all.len(), rows);
    let shown: &[Edge] = all
        .get(first..(first + rows).min(all.len()))
        .unwrap_or_default();
    let title = match shown.len() {
        0 => "entropy per edge: no distribution".to_owned(),
        n if n == all.len() => "entropy per edge, and what weighs most".into(),
        n => format!(
            "entropy per edge {}–{} of {}",
            first + 1,
            first + n,
            all.len()
        ),
    };
    let width = |text: fn(&Edge) -> &str| {
        let longest = shown.iter().map(|e| text(e).chars().count()).max();
        longest.unwrap_or(0)
    };
    let name = width(|e| &e.name).min(usize::from(area.width) / 3);
    let bar = usize::from(area.width)
        .saturating_sub(name + width(|e| &e.best) + 13)
        .clamp(4, 20);
    let lines: Vec<Line> = shown
        .iter()
        .map(|edge| {
            let full = (edge.entropy * bar as f64).round() as usize;
            let label: String = edge.name.chars().take(name).collect();
            Line::from(vec![
                Span::raw(format!("{label:name$} ")),
                Span::styled("█".repeat(full), look.paint(Color::Blue)),
                Span::styled("░".repeat(bar.saturating_sub(full)), look.faint()),
                Span::raw(format!(
                    " {:.2} {:.2} {}",
                    edge.entropy, edge.weight, edge.best
                )),
            ])
        })
        .collect();
    let block = Block::new()
        .borders(Borders::TOP)
        .border_style(look.faint())
        .title(title);
    Paragraph::new(lines).block(block).render(area, buf);
}

fn help(look: Look, area: Rect, buf: &mut Buffer) {
    let quit = if look.own {
        "q  Esc     leave the view; the search goes on"
    } else {
        "q  Esc     quit; the run goes on"
    };
    let stop = if look.own {
        "Ctrl-C     save and stop the search"
    } else {
        "Ctrl-C     quit"
    };
    let text = [
        quit,
        stop,
        "↑ ↓        scroll the edges",
        "PgUp PgDn  by ten, Home End to the ends",
        "?          this help",
        "",
        "Bars: entropy of an edge's weights, 1",
        "undecided, 0 decided; then the largest",
        "weight and whose it is.",
        "Collapse: two or more skips in a normal",
        "cell (DARTS+), or mostly skip and none.",
    ];
    let [width, height] = [area.width.min(50), area.height.min(text.len() as u16 + 2)];
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    Clear.render(place, buf);
    let lines: Vec<Line> = text.into_iter().map(Line::raw).collect();
    Paragraph::new(lines)
        .block(Block::bordered().title("help"))
        .render(place, buf);
}

/// One frame as text, lines without blanks at their ends.
pub fn to_text(state: &State, width: u16, height: u16) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buf = Buffer::empty(area);
    draw(state, Look::default(), area, &mut buf);
    let mut text = String::new();
    for y in 0..height {
        let row: String = (0..width).map(|x| buf[(x, y)].symbol()).collect();
        text += row.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::state::tests::{about, architecture, genotype, progress, started};
    use super::*;
    use proptest::prelude::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn state(steps: u64) -> State {
        let mut state = State::new(about());
        if steps > 0 {
            state.on_event(started(0, 0.0));
        }
        for step in 1..steps {
            state.on_event(progress(step * 10, 2.0 / step as f64));
        }
        if steps > 1 {
            let ops = ["skip_connect", "skip_connect", "conv"];
            state.on_event(architecture(
                steps * 10,
                [0.1, 0.2, 0.7],
                genotype("normal", &ops),
            ));
        }
        state
    }

    #[test]
    fn everything_is_there_at_80_by_24_and_the_most_at_40_by_12() {
        let large = to_text(&state(10), 80, 24);
        for part in [
            "darts on toy-conv, fashion-mnist-mini, seed 7",
            "running",
            "1000 weights",
            "left",
            "train loss 0.222 acc 50.0%",
            "entropy 0.500",
            "test 93.000 (regret 1.250)",
            "2 of 3 operations of cell normal skip",
            "normal 0->0",
            "0.70 conv",
            "node 1 = skip_connect(in)",
            "accuracy",
            "q quit",
        ] {
            assert!(large.contains(part), "{part}:\n{large}");
        }
        let small = to_text(&state(10), 40, 12);
        for part in [
            "darts on toy-conv",
            "running",
            "%",
            "collapse",
            "normal 0->0",
            "q quit",
        ] {
            assert!(small.contains(part), "{part}:\n{small}");
        }
    }

    #[test]
    fn figures_are_shown_whole_or_not_at_all() {
        let parts = ["test 93.0", "valid 91.5", "params 3M"].map(str::to_owned);
        for (width, shown) in [
            (32, "test 93.0  valid 91.5  params 3M"),
            (31, "test 93.0  valid 91.5  …"),
            (24, "test 93.0  valid 91.5  …"),
            (23, "test 93.0  …"),
        ] {
            assert_eq!(whole(&parts, "  ", width), shown);
        }
        // What nothing of fits is cut, as everything that is too wide.
        assert_eq!(whole(&parts, "  ", 5), parts.join("  "));
    }

    /// The coin toss that it is, the dead node, the rank, and another dataset: beside the charts, and where it is narrow.
    #[test]
    fn how_far_to_trust_the_architecture_is_shown() {
        let mut state = state(10);
        state.entropy = Some(0.97);
        if let Some(genotype) = &mut state.genotype {
            let cell = &mut genotype.cells[0];
            cell.nodes.push(cell.nodes[0].clone());
            cell.output = vec![2];
        }
        insta::assert_snapshot!("trust-100x36", to_text(&state, 100, 36));
        insta::assert_snapshot!("trust-60x20", to_text(&state, 60, 20));
    }

    #[test]
    fn without_colours_nothing_is_coloured() {
        for colour in [false, true] {
            let mut terminal = Terminal::new(TestBackend::new(100, 30)).unwrap();
            let look = Look {
                colour,
                ..Look::default()
            };
            terminal
                .draw(|f| draw(&state(10), look, f.area(), f.buffer_mut()))
                .unwrap();
            let cells = &terminal.backend().buffer().content;
            let any = cells
                .iter()
                .any(|c| c.fg != Color::Reset || c.bg != Color::Reset);
            assert_eq!(any, colour);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn no_size_is_too_small_or_large(
            width in 0..220u16, height in 0..70u16, scroll in 0..40usize, help: bool, steps in 0..30u64,
        ) {
            let look = Look { colour: true, scroll, help, own: help, stopping: help };
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|f| draw(&state(steps), look, f.area(), f.buffer_mut())).unwrap();
        }

        #[test]
        fn wrapped_lines_keep_their_words(line in "( {0,3}[a-z]{1,9}){0,9}", width in 0..60usize) {
            let pieces = wrap(&line, width);
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(words(&pieces.join(" ")), words(&line));
        }
    }
}
