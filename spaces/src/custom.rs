//! Cell spaces that users declare in a TOML file: nodes, edges, candidates by name, and how cells are stacked.

use std::collections::BTreeMap;
use std::ops::Range;

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use nasfw_framework::registry::similar;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::cells::{self, CellSpace, CellType, Skeleton, Stem};
use crate::layers::Op;

/// Settings of `custom`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Custom {
    /// Channels of the first cells, instead of the definition's; 0 keeps those.
    pub channels: i64,
    /// Number of cells, instead of the definition's; 0 keeps that.
    pub cells: usize,
    /// Text of the definition, so that a run folder needs no other file.
    pub definition: String,
}

/// The defaults: an example of a definition.
const DEFAULTS: &str = concat!(
    "[space]\n",
    "# Channels of the first cells, instead of the definition's; 0 keeps those.\n",
    "channels = 0\n",
    "# Number of cells, instead of the definition's; 0 keeps that.\n",
    "cells = 0\n",
    "# The space. `--space FILE.toml` reads a file with such a text.\n",
    "definition = '''\n",
    include_str!("custom.toml"),
    "'''\n"
);

register! {
    space "custom" => Custom,
    summary: "a cell space of your own, declared in a TOML file: `--space FILE.toml`",
    source: "yours",
    defaults: DEFAULTS,
    example: "nasfw run --strategy darts --space examples/spaces/small.toml",
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Definition {
    network: Network,
    cell: Vec<Spanned<CellDefinition>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Network {
    skeleton: Stack,
    channels: Spanned<i64>,
    cells: Spanned<usize>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Stack {
    Darts,
    DartsImagenet,
    Nasbench201,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CellDefinition {
    name: Spanned<String>,
    inputs: Spanned<usize>,
    nodes: Spanned<usize>,
    #[serde(default)]
    keep: usize,
    output: Output,
    candidates: Vec<Spanned<String>>,
    edges: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    only: BTreeMap<Spanned<String>, Vec<Spanned<String>>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Output {
    Concat,
    Last,
}

/// What is wrong, and which bytes of the text are meant.
type Wrong = (Range<usize>, String);

impl Custom {
    fn space(&self) -> Result<CellSpace, String> {
        let text = &self.definition;
        let definition: Definition =
            toml::from_str(text).map_err(|e| place(text, e.span(), e.message()))?;
        self.build_from(definition)
            .map_err(|(span, message)| place(text, Some(span), &message))
    }

    fn build_from(&self, d: Definition) -> Result<CellSpace, Wrong> {
        if d.cell.is_empty() {
            return Err((0..0, "there is no cell: add a part `[[cell]]`".into()));
        }
        let types: Vec<CellType> = d
            .cell
            .iter()
            .map(|cell| cell.get_ref().cell_type())
            .collect::<Result<_, _>>()?;
        for (i, cell) in d.cell.iter().enumerate() {
            let name = &cell.get_ref().name;
            if types[..i].iter().any(|t| t.name == *name.get_ref()) {
                return Err((name.span(), "two cells have this name".into()));
            }
        }
        let skeleton = match d.network.skeleton {
            Stack::Darts => Skeleton::Darts(Stem::Cifar),
            Stack::DartsImagenet => Skeleton::Darts(Stem::ImageNet),
            Stack::Nasbench201 => Skeleton::Residual,
        };
        let (mut channels, mut cells) = (*d.network.channels.get_ref(), *d.network.cells.get_ref());
        if !(2..=1024).contains(&channels) || channels % 2 != 0 {
            let message = "channels must be an even number from 2 to 1024".into();
            return Err((d.network.channels.span(), message));
        }
        if !(1..=99).contains(&cells) {
            return Err((d.network.cells.span(), "cells must be from 1 to 99".into()));
        }
        if self.channels > 0 {
            channels = self.channels;
        }
        if self.cells > 0 {
            cells = self.cells;
        }
        let whole = d.cell.first().map_or(0..0, Spanned::span);
        CellSpace::new("custom", types, skeleton, channels, cells)
            .map_err(|e| (whole, e.to_string()))
    }
}

impl CellDefinition {
    fn cell_type(&self) -> Result<CellType, Wrong> {
        let (inputs, nodes) = (*self.inputs.get_ref(), *self.nodes.get_ref());
        if !(1..=2).contains(&inputs) {
            let message = "a cell reads 1 or 2 preceding cells".into();
            return Err((self.inputs.span(), message));
        }
        if !(1..=12).contains(&nodes) {
            return Err((self.nodes.span(), "a cell has 1 to 12 nodes".into()));
        }
        let output = match self.output {
            Output::Concat => cells::Output::Concat,
            Output::Last => cells::Output::Last,
        };
        let candidates = operations(&self.candidates)?;
        let name = self.name.get_ref();
        let keep = (self.keep > 0).then_some(self.keep);
        let mut cell = CellType::dense(name, inputs, nodes, &candidates, keep, output);
        let label = |e: &cells::CellEdge| format!("{}->{}", e.from, e.to);
        let unknown = |edge: &Spanned<String>, all: &[cells::CellEdge]| {
            let labels: Vec<String> = all.iter().map(label).collect();
            let message = format!(
                "there is no edge `{}`; edges lead forward to the states {inputs} to {}: {}",
                edge.get_ref(),
                inputs + nodes - 1,
                labels.join(", ")
            );
            (edge.span(), message)
        };
        let all = cell.edges.clone();
        let exists = |edge: &Spanned<String>| all.iter().any(|e| label(e) == *edge.get_ref());
        if let Some(edges) = &self.edges {
            if let Some(edge) = edges.iter().find(|e| !exists(e)) {
                return Err(unknown(edge, &all));
            }
            cell.edges
                .retain(|e| edges.iter().any(|l| *l.get_ref() == label(e)));
        }
        for (edge, candidates) in &self.only {
            let Some(found) = cell.edges.iter_mut().find(|e| label(e) == *edge.get_ref()) else {
                return Err(unknown(edge, &cell.edges));
            };
            found.candidates = operations(candidates)?;
        }
        Ok(cell)
    }
}

fn operations(names: &[Spanned<String>]) -> Result<Vec<Op>, Wrong> {
    let look_up = |name: &Spanned<String>| {
        Op::from_name(name.get_ref()).ok_or_else(|| {
            let all = Op::ALL.map(Op::name);
            let hint = match similar(name.get_ref(), all.into_iter()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", all.join(", ")),
            };
            let message = format!("there is no operation `{}`; {hint}", name.get_ref());
            (name.span(), message)
        })
    };
    names.iter().map(look_up).collect()
}

/// The message with the line that it is about.
fn place(text: &str, span: Option<Range<usize>>, message: &str) -> String {
    let Some(start) = span.map(|s| s.start.min(text.len())) else {
        return message.trim().to_owned();
    };
    let line = text.as_bytes()[..start]
        .iter()
        .filter(|b| **b == b'\n')
        .count();
    let code = text.lines().nth(line).unwrap_or_default().trim();
    format!("line {}, `{code}`: {}", line + 1, message.trim())
}

#[typetag::serde(name = "custom")]
impl SpaceConfig for Custom {
    fn build(&self) -> Result<Box<dyn SearchSpace>> {
        let space = self.space().map_err(|why| Error::Invalid {
            what: "definition of a space".into(),
            why,
        })?;
        Ok(Box::new(space))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("space.channels", self.channels, 0, 1024);
        if self.channels % 2 != 0 {
            v.problem("space.channels", "reductions need an even number");
        }
        v.range("space.cells", self.cells, 0, 99);
        if let Err(message) = self.space() {
            v.problem("space.definition", message);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: &str = include_str!("custom.toml");

    fn custom(definition: &str) -> Custom {
        Custom {
            channels: 0,
            cells: 0,
            definition: definition.into(),
        }
    }

    #[test]
    fn the_example_is_the_space_that_it_says() {
        let space = custom(EXAMPLE).space().unwrap();
        let groups = space.spec().groups();
        assert_eq!(groups.len(), 2);
        assert_eq!((groups[0].shape(), groups[1].shape()), ([9, 5], [9, 4]));
        let row = &groups[1].rows[0];
        assert_eq!((row.name.as_str(), row.candidates.len()), ("0->2", 2));
    }

    #[test]
    fn the_example_without_none_is_darts_space_but_for_it() {
        let file = include_str!("../../examples/spaces/darts-without-none.toml");
        let space = custom(file).space().unwrap();
        let darts = crate::cells::tests::registered("darts");
        for (ours, darts) in space.spec().groups().iter().zip(darts.spec().groups()) {
            assert_eq!((&ours.name, &ours.edges), (&darts.name, &darts.edges));
            for (ours, darts) in ours.rows.iter().zip(&darts.rows) {
                assert_eq!(darts.candidates[0], "none");
                assert_eq!(ours.candidates, darts.candidates[1..]);
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (from, to, says) in [
            (
                "channels = 8",
                "channels = 7",
                "line 7, `channels = 7`: channels must be an even number",
            ),
            ("channels = 8", "chanels = 8", "unknown field `chanels`"),
            ("cells = 3", "cells = 0", "from 1 to 99"),
            (
                "skeleton = \"darts\"",
                "skeleton = \"resnet\"",
                "unknown variant `resnet`",
            ),
            ("nodes = 3", "nodes = 0", "1 to 12 nodes"),
            ("inputs = 2", "inputs = 3", "1 or 2 preceding cells"),
            (
                "\"sep_conv_3x3\"",
                "\"sep_conv_3\"",
                "did you mean `sep_conv_3x3`?",
            ),
            ("\"0->2\" = ", "\"2->0\" = ", "there is no edge `2->0`"),
            (
                "name = \"reduce\"",
                "name = \"normal\"",
                "two cells have this name",
            ),
            ("output = \"concat\"", "output = concat", "line"),
        ] {
            let text = EXAMPLE.replace(from, to);
            assert_ne!(text, EXAMPLE, "{from}");
            let message = custom(&text).space().unwrap_err();
            assert!(message.contains(says), "{message}");
        }
        assert!(custom("").space().unwrap_err().contains("missing field"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

        /// Whatever is cut, doubled or changed: a space or a message, never a panic.
        #[test]
        fn damaged_definitions_never_panic(at in 0..EXAMPLE.len(), len in 0usize..60, with in ".{0,8}") {
            let end = (at + len).min(EXAMPLE.len());
            if EXAMPLE.is_char_boundary(at) && EXAMPLE.is_char_boundary(end) {
                let text = format!("{}{with}{}", &EXAMPLE[..at], &EXAMPLE[end..]);
                let _ = custom(&text).space();
            }
        }
    }
}
