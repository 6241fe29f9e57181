//! Figures of runs and comparisons, as SVG, PNG and PDF. One file per figure.

mod chart;
mod confusion;
pub(crate) mod curves;
mod distribution;
mod entropy;
mod front;
mod heat;
mod look;
mod output;
mod pictures;
mod rank;
mod ranks;
pub(crate) mod regret;
mod svg;
#[cfg(test)]
mod tests;
mod trajectory;
mod weights;

use nasfw_framework::Result;

use crate::compare::Comparison;
use crate::record::Record;
pub use look::Entry;
pub use output::{Format, in_millimetres};

/// A figure: panels that share a legend.
///
/// Equal data gives equal bytes. Every colour comes with a dash or a number of its own, and text, axes and frames take
/// the colour of the text around them, so that a figure is readable on light and on dark ground.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Short name for file names and anchors.
    pub kind: &'static str,
    /// What is shown, in a few words.
    pub title: String,
    /// How to read it, in a sentence or two.
    pub caption: String,
    /// Names of the lines; empty where there are none.
    pub legend: Vec<Entry>,
    /// The panels, in reading order.
    pub panels: Vec<Panel>,
    /// Panels beside each other in a file of its own.
    pub columns: usize,
    /// Whether the panels of such a row belong together and begin a new line wherever they stand.
    pub rows: bool,
}

/// One drawing of a figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// Title, empty if the figure's says all.
    pub title: String,
    /// What can be seen, in words: the alternative for those who can't see it.
    pub description: String,
    /// Width in pixels.
    pub width: f64,
    /// Height in pixels.
    pub height: f64,
    /// SVG elements.
    body: String,
}

/// What can be drawn of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComparisonKind {
    /// Regret over the budget with confidence bands (VIM-NAS figure 4).
    Regret,
    /// Critical-difference diagrams (Demšar 2006).
    Ranks,
    /// Loss, accuracy and regret over the steps, strategies over each other.
    Curves,
    /// Weights of one row over the steps, strategies beside each other (VIM-NAS figures 6, 7 and 9).
    Weights,
    /// Fronts of metric and cost, strategies over each other.
    Front,
}

impl ComparisonKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Regret,
        Self::Ranks,
        Self::Front,
        Self::Curves,
        Self::Weights,
    ];

    /// Whether it shows the runs of one seed, a run per strategy.
    pub fn is_of_one_seed(self) -> bool {
        matches!(self, Self::Weights | Self::Front)
    }

    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Regret => "regret",
            Self::Ranks => "ranks",
            Self::Curves => "curves",
            Self::Weights => "weights",
            Self::Front => "front",
        }
    }

    /// What it shows.
    pub fn summary(self) -> &'static str {
        match self {
            Self::Front => "fronts of metric and cost over each other, of one seed",
            Self::Regret => "regret over the budget with confidence bands, a panel per setting",
            Self::Ranks => "average ranks and critical difference",
            Self::Curves => {
                "loss, accuracy and regret over the steps, mean and deviation over the seeds"
            }
            Self::Weights => "weights of one row over the steps, a panel per strategy",
        }
    }

    /// The figure, or none if the comparison has no data for it (yet). `runs` are the trials' runs in their order, as far as
    /// they are there, and `edge` is a row of them, for the figure that shows rows.
    ///
    /// # Errors
    /// An `edge` that is no row and no group.
    pub fn draw(
        self,
        comparison: &Comparison,
        runs: &[Option<&Record>],
        edge: Option<&str>,
    ) -> Result<Option<Figure>> {
        Ok(match self {
            Self::Regret => regret::draw(comparison),
            Self::Ranks => ranks::draw(comparison),
            Self::Curves => curves::of_comparison(comparison, runs),
            Self::Weights => weights::beside(&of_one_seed(comparison, runs), edge)?,
            Self::Front => front::together(&of_one_seed(comparison, runs)),
        })
    }
}

/// The fronts of several runs over each other, each with its name; none where no run has one. Runs whose criteria are not those of
/// the first one with a front are left out.
pub fn fronts(runs: &[(&str, &Record)]) -> Option<Figure> {
    front::together(runs)
}

/// A metric's name as figures show it.
fn shown(metric: &str, predicted: bool) -> String {
    match predicted {
        true => format!("{metric} (predicted)"),
        false => metric.to_owned(),
    }
}

/// A run per strategy, with the strategy's label.
fn of_one_seed<'a>(
    comparison: &'a Comparison,
    runs: &[Option<&'a Record>],
) -> Vec<(&'a str, &'a Record)> {
    let shown = comparison.of_one_seed().into_iter();
    let named = |i: usize| {
        let run = runs.get(i).copied().flatten()?;
        Some((comparison.trials[i].strategy.as_str(), run))
    };
    shown.filter_map(named).collect()
}

/// What can be drawn of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Weights of the candidates of a row over the steps (VIM-NAS figures 2, 6, 7 and 9).
    Weights,
    /// All weights at the start, after an epoch and at the end (VIM-NAS figure 3).
    Distribution,
    /// Matrices that the strategy shows of itself, such as a generator's feature maps (VIM-NAS figure 1).
    Pictures,
    /// Normalised entropy of every row over the steps.
    Entropy,
    /// Loss and accuracy over the steps, and metrics of the benchmark where there are some.
    Curves,
    /// What the search reached by the benchmark.
    Trajectory,
    /// Metric against cost: all that was looked at, and the front.
    Front,
    /// Accuracy in the supernet against the benchmark's metric.
    Rank,
    /// Which classes are taken for which others.
    Confusion,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Front,
        Self::Trajectory,
        Self::Curves,
        Self::Confusion,
        Self::Weights,
        Self::Distribution,
        Self::Entropy,
        Self::Pictures,
        Self::Rank,
    ];

    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Distribution => "distribution",
            Self::Pictures => "pictures",
            Self::Entropy => "entropy",
            Self::Curves => "curves",
            Self::Trajectory => "trajectory",
            Self::Front => "front",
            Self::Rank => "rank",
            Self::Confusion => "confusion",
        }
    }

    /// What it shows.
    pub fn summary(self) -> &'static str {
        match self {
            Self::Weights => "weight of every candidate over the steps, a panel per row",
            Self::Distribution => "all weights at the start, after an epoch and at the end",
            Self::Pictures => "what the strategy shows of itself, at the start and after an epoch",
            Self::Entropy => "entropy of every row over the steps",
            Self::Curves => "loss and accuracy over the steps",
            Self::Trajectory => "what the search reached, and the best so far",
            Self::Front => "metric against cost: all that was looked at, and the front",
            Self::Rank => "accuracy in the supernet against the benchmark's metric (`nasfw rank`)",
            Self::Confusion => "which classes are taken for which others (`nasfw eval --keep`)",
        }
    }

    /// The figure, or none if the run has no data for it (yet). `edge` is a row (`0->2`, `normal/0->2`) or a group
    /// (`normal`) for the figures that show rows.
    ///
    /// # Errors
    /// An `edge` that is no row and no group.
    pub fn draw(self, record: &Record, edge: Option<&str>) -> Result<Option<Figure>> {
        Ok(match self {
            Self::Weights => weights::draw(record, edge)?,
            Self::Distribution => distribution::draw(record),
            Self::Pictures => pictures::draw(record),
            Self::Entropy => entropy::draw(record, edge)?,
            Self::Curves => curves::draw(record),
            Self::Trajectory => trajectory::draw(record),
            Self::Front => front::together(&[(record.name().as_str(), record)]),
            Self::Rank => rank::draw(record),
            Self::Confusion => confusion::draw(record),
        })
    }
}

impl Figure {
    /// A self-contained SVG document: no scripts, no external files or fonts. It is light or dark as the viewer is.
    pub fn svg(&self) -> String {
        svg::document(self)
    }

    /// What can be seen, in words, over all panels.
    pub fn description(&self) -> String {
        let panels: Vec<String> = self
            .panels
            .iter()
            .map(|p| match p.title.as_str() {
                "" => p.description.clone(),
                title => format!("{title}: {}", p.description),
            })
            .collect();
        panels.join(" ")
    }
}

impl Panel {
    /// The panel alone, to stand within an HTML page; `id` must be unique in it.
    pub fn inline(&self, id: &str) -> String {
        svg::inline(self, id)
    }
}
