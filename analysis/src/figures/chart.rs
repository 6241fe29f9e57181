//! Lines over an axis of steps, drawn by kuva.

use kuva::prelude::{
    BandPlot, Layout, LinePlot, LineStyle, Plot, ScatterPlot, SvgBackend, Theme, TickFormat,
    render_multiple,
};
use nasfw_framework::palette::{LINES, RULE};

use super::svg::{escape, number};
use super::{Panel, look};

/// A line is drawn through at most this many points, spread evenly over it: more can't be told apart.
pub(super) const POINTS: usize = 400;
/// A logarithmic axis has ticks at powers of ten: below this ratio of its ends there may be none.
const DECADES: f64 = 20.0;
/// Width of a line, and of one that is only there to be compared with.
const WIDTH: f64 = 1.8;
const FAINT: f64 = 0.7;
/// Beyond this nothing is drawn to scale.
const LARGEST: f64 = 1e12;

/// A line.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    /// What it stands for.
    pub name: String,
    /// Which look it has.
    pub look: usize,
    /// Its points; those that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// Lower and upper bound at each of the points; empty without a band.
    pub band: Vec<(f64, f64)>,
    /// How the points are drawn.
    pub style: LineKind,
}

/// How the points of a line are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum LineKind {
    /// Joined.
    #[default]
    Joined,
    /// Joined by a thin grey line: there to be compared with.
    Faint,
    /// Each on its own.
    Marks,
}

/// Axes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axes<'a> {
    /// Label of the horizontal axis.
    pub x: &'a str,
    /// Label of the vertical axis.
    pub y: &'a str,
    /// Ends of the vertical axis; none to fit the lines.
    pub range: Option<(f64, f64)>,
    /// Whether the vertical axis is logarithmic where that helps: all points above zero, over more than [`DECADES`].
    pub log: bool,
    /// Width and height in pixels.
    pub size: (f64, f64),
}

impl Axes<'_> {
    /// A panel of these lines.
    pub(super) fn panel(&self, title: impl Into<String>, lines: &[Line]) -> Panel {
        let lines: Vec<Line> = lines.iter().map(cleaned).collect();
        let drawn = || lines.iter().filter(|l| !l.points.is_empty());
        let values = || {
            drawn().flat_map(|l| {
                let bounds = l.band.iter().flat_map(|b| [b.0, b.1]);
                l.points.iter().map(|p| p.1).chain(bounds)
            })
        };
        let (low, high) = ends(values());
        let log = self.log && low > 0.0 && high > DECADES * low;
        let steps = || drawn().flat_map(|l| l.points.iter().map(|p| p.0));
        // The axis of steps ends where the data end.
        let across = ends(steps());
        let x = axis(across, Some(across));
        let y = match (log, self.range) {
            (true, _) => log_axis((low, high)),
            (false, range) => axis(range.unwrap_or((low, high)), range),
        };
        let plots: Vec<Plot> = drawn().map(|l| l.plot(y.min, y.max)).collect();
        let mut layout = Layout::new((x.min, x.max), (y.min, y.max))
            .with_width(self.size.0)
            .with_height(self.size.1)
            .with_x_label(self.x)
            .with_y_label(self.y)
            .with_x_label_offset(0.0, -8.0)
            .with_label_size(12)
            .with_tick_size(11)
            .with_theme(theme())
            .with_tick_format(TickFormat::Custom(std::sync::Arc::new(number)))
            .with_x_axis_min(x.min)
            .with_x_axis_max(x.max)
            .with_x_tick_step(x.step)
            .with_y_axis_min(y.min)
            .with_y_axis_max(y.max);
        layout = match log {
            true => layout.with_log_y(),
            false => layout.with_y_tick_step(y.step),
        };
        let svg = SvgBackend::new().render_scene(&render_multiple(plots, layout));
        Panel {
            title: title.into(),
            description: describe(&lines),
            width: self.size.0,
            height: self.size.1,
            body: told(&numbered_anew(content(&svg)), drawn(), (&x, &y, log)),
        }
    }
}

/// A chart that says its lines and the ends of its axes in attributes: who hovers over it can be told its values.
fn told<'a>(
    body: &str,
    lines: impl Iterator<Item = &'a Line>,
    (x, y, log): (&Scale, &Scale, bool),
) -> String {
    let mark = format!(r#" stroke-width="{WIDTH}""#);
    let mut parts = body.split(&mark);
    let mut out = format!(
        r#"<g data-x="{} {}" data-y="{} {}"{}>"#,
        x.min,
        x.max,
        y.min,
        y.max,
        if log { r#" data-log="""# } else { "" }
    );
    out.push_str(parts.next().unwrap_or_default());
    let named = lines.filter(|l| l.style == LineKind::Joined && l.points.len() > 1);
    for (part, line) in parts.zip(named) {
        out.push_str(&format!(
            r#"{mark} data-line="{}" data-name="{}"{part}"#,
            line.look,
            escape(&line.name)
        ));
    }
    out.push_str("</g>");
    out
}

impl Line {
    fn plot(&self, low: f64, high: f64) -> Plot {
        let points = self.points.iter().copied();
        let colour = look::colour(self.look);
        let plot = LinePlot::new().with_data(points.clone());
        match self.style {
            // A line of one point would not be seen.
            _ if self.points.len() == 1 => {
                let mark = ScatterPlot::new().with_data(points).with_color(colour);
                return mark.with_size(3.0).into();
            }
            LineKind::Marks => {
                let marks = ScatterPlot::new().with_data(points).with_color(colour);
                return marks.with_size(3.0).with_marker_opacity(0.7).into();
            }
            LineKind::Faint => {
                let grey = LINES[LINES.len() - 1].light;
                return plot.with_color(grey).with_stroke_width(FAINT).into();
            }
            LineKind::Joined => {}
        }
        let plot = plot
            .with_color(colour)
            .with_stroke_width(WIDTH)
            .with_line_style(match look::dash(self.look) {
                "" => LineStyle::Solid,
                dash => LineStyle::Custom(dash.into()),
            });
        let bound = |y: f64| y.clamp(low, high);
        // Fainter than kuva's own, since bands lie upon each other.
        let band = (!self.band.is_empty()).then(|| {
            BandPlot::new(
                self.points.iter().map(|p| p.0),
                self.band.iter().map(|b| bound(b.0)),
                self.band.iter().map(|b| bound(b.1)),
            )
            .with_color(look::colour(self.look))
            .with_opacity(0.13)
        });
        LinePlot { band, ..plot }.into()
    }
}

/// Without what is not finite, and with at most [`POINTS`] points.
fn cleaned(line: &Line) -> Line {
    let banded = line.band.len() == line.points.len();
    let kept: Vec<usize> = (0..line.points.len())
        .filter(|&i| {
            let (x, y) = line.points[i];
            let bounds = !banded || (line.band[i].0.is_finite() && line.band[i].1.is_finite());
            x.is_finite() && y.is_finite() && bounds
        })
        .collect();
    let some: Vec<usize> = match kept.len() {
        n if n <= POINTS => kept,
        n => (0..POINTS)
            .map(|k| kept[k * (n - 1) / (POINTS - 1)])
            .collect(),
    };
    let bounded = |(a, b): (f64, f64)| (a.clamp(-LARGEST, LARGEST), b.clamp(-LARGEST, LARGEST));
    Line {
        points: some.iter().map(|&i| bounded(line.points[i])).collect(),
        band: match banded {
            true => some.iter().map(|&i| bounded(line.band[i])).collect(),
            false => Vec::new(),
        },
        ..line.clone()
    }
}

/// Smallest and largest value, 0 and 1 if there is none.
fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
        (low.min(v), high.max(v))
    });
    if low <= high { (low, high) } else { (0.0, 1.0) }
}

struct Scale {
    min: f64,
    max: f64,
    step: f64,
}

/// Ends and steps that are round numbers; ends that are asked for stay as they are.
fn axis((low, high): (f64, f64), fixed: Option<(f64, f64)>) -> Scale {
    let apart = high - low > 1e-9 * low.abs().max(high.abs()).max(1e-3);
    let (low, high) = if apart {
        (low, high)
    } else {
        let half = (low.abs() * 0.1).max(0.5);
        (low - half, high + half)
    };
    let step = round_step((high - low) / 5.0);
    match fixed {
        Some(_) => Scale {
            min: low,
            max: high,
            step,
        },
        None => Scale {
            min: (low / step).floor() * step,
            max: (high / step).ceil() * step,
            step,
        },
    }
}

/// Ends between which a logarithmic axis has a few ticks.
fn log_axis((low, high): (f64, f64)) -> Scale {
    Scale {
        min: low.max(1e-12) / 1.15,
        max: high.max(2e-12) * 1.15,
        step: 1.0,
    }
}

/// 1, 2 or 5 times a power of ten, at least `x`.
fn round_step(x: f64) -> f64 {
    let power = 10f64.powf(x.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|m| m * power)
        .find(|s| *s >= x * 0.999)
        .unwrap_or(10.0 * power)
}

fn theme() -> Theme {
    let ink = || "currentColor".to_owned();
    Theme {
        background: "none".into(),
        axis_color: ink(),
        tick_color: ink(),
        text_color: ink(),
        grid_color: RULE.light.into(),
        ..Theme::light()
    }
}

/// What lies between the first tag of an SVG document and its last.
fn content(svg: &str) -> &str {
    let start = svg.find('>').map_or(0, |i| i + 1);
    let end = svg.rfind("</svg>").unwrap_or(svg.len());
    let inner = svg.get(start..end).unwrap_or_default();
    // A stamp of kuva's version.
    match inner.strip_prefix("<!--").and_then(|c| c.split_once("-->")) {
        Some((_, rest)) => rest,
        None => inner,
    }
}

/// Identifiers of clip paths counted from 0: kuva counts them over the whole life of the process.
fn numbered_anew(svg: &str) -> String {
    const CLIP: &str = "kuva-clip-";
    let mut seen: Vec<&str> = Vec::new();
    let mut parts = svg.split(CLIP);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let (id, rest) = part.split_at(digits);
        let at = seen.iter().position(|s| *s == id).unwrap_or_else(|| {
            seen.push(id);
            seen.len() - 1
        });
        out.push_str(&format!("{CLIP}{at}{rest}"));
    }
    out
}

/// Where every line begins and ends.
fn describe(lines: &[Line]) -> String {
    let one = |line: &Line| match (line.points.first(), line.points.last()) {
        (Some(first), Some(last)) if first != last => {
            format!(
                "{} from {} to {}",
                line.name,
                number(first.1),
                number(last.1)
            )
        }
        (Some(only), _) => format!("{} {}", line.name, number(only.1)),
        _ => format!("{} without values", line.name),
    };
    let shown = lines.iter().filter(|l| l.style == LineKind::Joined);
    let all: Vec<String> = shown.map(one).collect();
    format!("{}.", all.join(", "))
}
