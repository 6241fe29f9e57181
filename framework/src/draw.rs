//! Drawings of architectures and search spaces, as SVG, as TikZ (LaTeX) and as DOT (Graphviz).

mod dot;
mod layout;
mod svg;
#[cfg(test)]
mod tests;
mod tikz;

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::arch::{Cell, Genotype};
use crate::space::SearchSpace;

/// Up to this many architectures a space is drawn from all of them, beyond from as many random ones.
/// An edge with an operation that one in a hundred architectures has is missed with probability
/// below 10⁻³⁰.
const ARCHITECTURES: usize = 8_000;

/// Up to this many candidate operations are written at the edge, longer lists below the drawing.
const CANDIDATES_AT_EDGE: usize = 2;

/// Graphs to draw side by side, one per cell type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawing {
    graphs: Vec<Graph>,
    /// Lines below the graphs.
    caption: Vec<String>,
    direction: Direction,
}

/// Which way a cell's edges lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// From top to bottom.
    #[default]
    Down,
    /// From left to right.
    Right,
}

/// One directed acyclic graph.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Graph {
    title: String,
    nodes: Vec<Vertex>,
    edges: Vec<Link>,
}

/// A node of a drawing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Vertex {
    /// Lines of text.
    label: Vec<String>,
    /// What to colour it by: an operation.
    op: Option<String>,
    style: Style,
}

/// An edge of a drawing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    from: usize,
    to: usize,
    /// Lines of text; none means no label.
    label: Vec<String>,
    op: Option<String>,
    style: Style,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    /// Input or output of the cell.
    Terminal,
    /// Not decided: drawn dashed.
    Candidate,
    /// Without effect on the cell's output: drawn faintly.
    Unused,
}

impl Drawing {
    /// The cells of an architecture. What has no effect on the output is drawn faintly.
    pub fn of_genotype(genotype: &Genotype) -> Self {
        Self {
            graphs: genotype.cells.iter().map(cell_graph).collect(),
            caption: Vec::new(),
            direction: Direction::Down,
        }
    }

    /// The same in another direction.
    #[must_use]
    pub fn towards(self, direction: Direction) -> Self {
        Self { direction, ..self }
    }

    /// A drawing per graph, with its title, none of them with the caption.
    pub fn parts(&self) -> impl Iterator<Item = (&str, Self)> {
        self.graphs.iter().map(|graph| {
            let part = Self {
                graphs: vec![graph.clone()],
                caption: Vec::new(),
                direction: self.direction,
            };
            (graph.title.as_str(), part)
        })
    }

    /// Everything that the architectures of a space can have; what only some have is dashed.
    ///
    /// The drawing is the union of the space's architectures (of a large sample of them where there
    /// are many), so a space need not describe itself in any other way than by
    /// [`SearchSpace::genotype`].
    pub fn of_space(space: &dyn SearchSpace) -> Self {
        Self::of(space, ARCHITECTURES)
    }

    /// [`Drawing::of_space`] from all architectures if there are at most `enumerable`.
    fn of(space: &dyn SearchSpace, enumerable: usize) -> Self {
        let spec = space.spec();
        let genotypes: Vec<Genotype> = if spec.size() <= enumerable as f64 {
            spec.enumerate()
                .map(|choice| space.genotype(&choice))
                .collect()
        } else {
            let mut rng = ChaCha8Rng::seed_from_u64(0);
            (0..ARCHITECTURES)
                .map(|_| space.genotype(&space.random(&mut rng)))
                .collect()
        };
        let mut unions: Vec<Union> = Vec::new();
        for cell in genotypes.iter().flat_map(|g| &g.cells) {
            let known = unions.iter().position(|u| u.cell.name == cell.name);
            let at = known.unwrap_or_else(|| {
                unions.push(Union::new(cell));
                unions.len() - 1
            });
            unions[at].add(cell);
        }
        let mut lists = Lists::default();
        let graphs = unions.iter().map(|union| union.graph(&mut lists)).collect();
        Self {
            graphs,
            caption: lists.caption(),
            direction: Direction::Down,
        }
    }

    /// The width in pixels, in which text is 12 pixels high.
    pub fn width(&self) -> f64 {
        svg::place(self).width
    }

    /// The same in the direction in which it is less wide, for narrow pages.
    #[must_use]
    pub fn narrow(self) -> Self {
        let width = |direction| self.clone().towards(direction).width();
        match width(Direction::Right) < width(Direction::Down) {
            true => self.towards(Direction::Right),
            false => self.towards(Direction::Down),
        }
    }

    /// A self-contained SVG document: no scripts, no external files or fonts. It is light or dark as the viewer is.
    pub fn svg(&self) -> String {
        svg::document(self)
    }

    /// The same as an element of a page, which has the rules for dark ground ([`crate::palette::dark_rules`]); `label` says
    /// in words what can be seen.
    pub fn inline(&self, label: &str) -> String {
        svg::inline(self, label)
    }

    /// The same as a TikZ picture for LaTeX, which needs the package `tikz` and none of its libraries; so many millimetres wide
    /// if that is asked for.
    pub fn tikz(&self, millimetres: Option<f64>) -> String {
        let picture = tikz::write(self);
        match millimetres {
            None => picture,
            Some(width) => format!("\\resizebox{{{width}mm}}{{!}}{{%\n{picture}}}\n"),
        }
    }

    /// The same graphs in Graphviz's DOT language, one cluster per cell type.
    pub fn dot(&self) -> String {
        dot::write(self)
    }
}

/// Inputs and output as vertices around a cell's nodes: vertex k is state k, the output comes last. All states have their
/// numbers, by which rows are named (`0->2`).
fn vertices(cell: &Cell, node: impl Fn(usize) -> Vertex) -> Vec<Vertex> {
    let terminal = |label| Vertex {
        label,
        op: None,
        style: Style::Terminal,
    };
    let input = |(k, name): (usize, &String)| terminal(vec![name.clone(), format!("node {k}")]);
    let inputs = cell.inputs.iter().enumerate().map(input);
    inputs
        .chain((0..cell.nodes.len()).map(node))
        .chain([terminal(vec!["output".to_owned()])])
        .collect()
}

fn cell_graph(cell: &Cell) -> Graph {
    let output = cell.inputs.len() + cell.nodes.len();
    let used = cell.used();
    let style = |state: usize| {
        if used[state] {
            Style::Plain
        } else {
            Style::Unused
        }
    };
    let nodes = vertices(cell, |k| {
        let state = cell.inputs.len() + k;
        let op = cell.nodes[k].op.clone();
        let name = cell.state_name(state);
        // The sum of nothing.
        let name = match (cell.nodes[k].inputs.is_empty(), &op) {
            (true, None) => format!("{name} = 0"),
            _ => name,
        };
        let label = std::iter::once(name).chain(op.clone()).collect();
        Vertex {
            label,
            op,
            style: style(state),
        }
    });
    let mut edges = Vec::new();
    for (k, node) in cell.nodes.iter().enumerate() {
        let to = cell.inputs.len() + k;
        edges.extend(node.inputs.iter().filter(|e| e.from < to).map(|edge| Link {
            from: edge.from,
            to,
            label: edge.op.iter().cloned().collect(),
            op: edge.op.clone(),
            style: style(to),
        }));
    }
    edges.extend(
        cell.output
            .iter()
            .filter(|&&s| s < output)
            .map(|&from| Link {
                from,
                to: output,
                label: Vec::new(),
                op: None,
                style: Style::Plain,
            }),
    );
    Graph {
        title: cell.name.clone(),
        nodes,
        edges,
    }
}

/// All that the cells of one type were seen to have, and how often.
struct Union {
    /// The first one seen: names and number of nodes.
    cell: Cell,
    count: usize,
    /// Per node, the operations that it had.
    ops: Vec<BTreeSet<String>>,
    /// Per (source, target), in how many cells it was and the operations that it carried. The
    /// output's state comes after the last node's.
    edges: BTreeMap<(usize, usize), (usize, BTreeSet<String>)>,
}

impl Union {
    fn new(cell: &Cell) -> Self {
        let ops = vec![BTreeSet::new(); cell.nodes.len()];
        Self {
            cell: cell.clone(),
            count: 0,
            ops,
            edges: BTreeMap::new(),
        }
    }

    fn add(&mut self, cell: &Cell) {
        self.count += 1;
        let output = self.cell.inputs.len() + self.ops.len();
        let mut seen = BTreeSet::new();
        for (k, node) in cell.nodes.iter().enumerate().take(self.ops.len()) {
            self.ops[k].extend(node.op.clone());
            let to = self.cell.inputs.len() + k;
            for edge in node.inputs.iter().filter(|e| e.from < to) {
                let entry = self.edges.entry((edge.from, to)).or_default();
                entry.0 += usize::from(seen.insert((edge.from, to)));
                entry.1.extend(edge.op.clone());
            }
        }
        for &from in cell.output.iter().filter(|&&s| s < output) {
            self.edges.entry((from, output)).or_default().0 += 1;
        }
    }

    fn graph(&self, lists: &mut Lists) -> Graph {
        let single = |ops: &BTreeSet<String>| ops.first().filter(|_| ops.len() == 1).cloned();
        let nodes = vertices(&self.cell, |k| {
            let ops = &self.ops[k];
            let mut label = vec![self.cell.state_name(self.cell.inputs.len() + k)];
            label.extend(ops.iter().cloned());
            let style = if ops.len() > 1 {
                Style::Candidate
            } else {
                Style::Plain
            };
            Vertex {
                label,
                op: single(ops),
                style,
            }
        });
        let edges = self
            .edges
            .iter()
            .map(|(&(from, to), (count, ops))| {
                let sure = *count == self.count && ops.len() <= 1;
                let style = if sure { Style::Plain } else { Style::Candidate };
                Link {
                    from,
                    to,
                    label: lists.label(ops),
                    op: single(ops),
                    style,
                }
            })
            .collect();
        Graph {
            title: self.cell.name.clone(),
            nodes,
            edges,
        }
    }
}

/// Lists of operations too long to be written at every edge.
#[derive(Default)]
struct Lists(Vec<BTreeSet<String>>);

impl Lists {
    fn label(&mut self, ops: &BTreeSet<String>) -> Vec<String> {
        if ops.len() <= CANDIDATES_AT_EDGE {
            return ops.iter().cloned().collect();
        }
        let known = self.0.iter().position(|list| list == ops);
        let at = known.unwrap_or_else(|| {
            self.0.push(ops.clone());
            self.0.len() - 1
        });
        vec![self.name(at)]
    }

    /// Such as `one of 8`, with a number where another list is as long.
    fn name(&self, at: usize) -> String {
        let long = self.0[at].len();
        match self.0[..at]
            .iter()
            .filter(|list| list.len() == long)
            .count()
        {
            0 => format!("one of {long}"),
            earlier => format!("one of {long} ({})", earlier + 1),
        }
    }

    fn caption(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (at, ops) in self.0.iter().enumerate() {
            let ops: Vec<&str> = ops.iter().map(String::as_str).collect();
            lines.push(format!("{}:", self.name(at)));
            lines.extend(ops.chunks(4).map(|four| four.join(", ")));
        }
        lines
    }
}

/// Height of a line of text in pixels, at a font size of [`FONT_SIZE`].
const LINE: f64 = 15.0;
/// Font size in pixels.
const FONT_SIZE: f64 = 12.0;
/// Width of an average character of a wide sans-serif font, in pixels.
const CHARACTER: f64 = 7.3;

/// Width and height of lines of text in pixels: an estimate on the safe side, since the font that a
/// viewer takes isn't known.
fn text_size(lines: &[String]) -> (f64, f64) {
    let longest = lines
        .iter()
        .map(|line| line.chars().count())
        .max()
        .unwrap_or(0);
    (CHARACTER * longest as f64, LINE * lines.len() as f64)
}
