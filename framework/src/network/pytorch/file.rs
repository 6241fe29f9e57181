//! The class of a file: its layers and its methods.

use std::collections::{BTreeMap, BTreeSet};

use super::code::{Code, Writer, access};
use super::flow::{Flow, Segment, segments};
use super::makers::Makers;
use super::text::{is_attribute, quoted, word};
use super::units::Unit;
use crate::error::Result;

/// A file under way.
pub(super) struct File<'a> {
    pub(super) flow: &'a Flow<'a>,
}

/// A method for segments of the same code.
struct Method {
    name: String,
    arguments: Vec<String>,
    code: Code,
    roots: Vec<String>,
}

impl File<'_> {
    /// The lines that make all layers.
    pub(super) fn declarations(&self, makers: &mut Makers) -> String {
        let mut units: Vec<&Unit> = self.flow.units.iter().collect();
        // A layer that others stand below comes before them.
        let depth = |path: &str| path.matches('.').count();
        let above = |unit: &&Unit| {
            let below = format!("{}.", unit.path);
            self.flow
                .units
                .iter()
                .any(|other| other.path.starts_with(&below))
        };
        units.sort_by_key(|unit| match above(unit) {
            true => (0, depth(&unit.path)),
            false => (1, 0),
        });
        let network = self.flow.network;
        let outputs = std::iter::once(network.logits).chain(network.auxiliary);
        let needed = outputs.flat_map(|i| self.flow.needed(self.flow.source(i)));
        let needed: BTreeSet<usize> = needed.collect();
        let line = |unit: &Unit, makers: &mut Makers| {
            let made = makers.expression(unit);
            let idle = match needed.contains(&unit.output) {
                true => "",
                false => "  # the logits do not depend on it",
            };
            match is_attribute(&unit.path) {
                true => format!("        self.{} = {made}{idle}\n", unit.path),
                false => format!("        put(self, {}, {made}){idle}\n", quoted(&unit.path)),
            }
        };
        units.into_iter().map(|unit| line(unit, makers)).collect()
    }

    /// The methods that compute.
    pub(super) fn methods(&self) -> Result<String> {
        let flow = self.flow;
        let logits = flow.source(flow.network.logits);
        let main = flow.needed(logits);
        let auxiliary = flow.network.auxiliary.map(|i| flow.source(i));
        let aside: BTreeSet<usize> = auxiliary.map(|i| flow.needed(i)).unwrap_or_default();
        // What only the auxiliary classifier needs, and what it reads of the rest.
        let aside: Vec<usize> = aside.difference(&main).copied().collect();
        let read: BTreeSet<usize> = aside
            .iter()
            .flat_map(|&step| flow.inputs(step))
            .chain(auxiliary)
            .map(|step| flow.through(step))
            .filter(|step| main.contains(step))
            .collect();
        let outputs: Vec<usize> = std::iter::once(flow.through(logits)).chain(read).collect();
        // The images are there.
        let steps: Vec<usize> = main.into_iter().filter(|&step| step != 0).collect();
        let mut body = Body {
            logits,
            known: BTreeMap::from([(0, "images".into())]),
            ..Body::default()
        };
        for segment in segments(flow, &steps, &outputs) {
            self.segment(&segment, &steps, &outputs, &mut body)?;
        }
        let mut value = body.add(self.inline(&body), &[], &[logits])?.concat();
        if let Some(auxiliary) = auxiliary {
            if value != "logits" {
                body.lines.push(format!("logits = {value}"));
            }
            body.lines.push("if not self.training:".into());
            body.lines.push("    return logits".into());
            let aside = body.add(self.inline(&body), &aside, &[auxiliary])?;
            value = format!("logits, {}", aside.concat());
        }
        body.lines.push(format!("return {value}"));
        let methods: String = body.methods.iter().map(Method::text).collect();
        let lines = indented(&body.lines);
        Ok(format!(
            "{methods}\n    def forward(self, images):\n{lines}"
        ))
    }

    /// A writer in the middle of `forward`.
    fn inline(&self, body: &Body) -> Writer<'_> {
        Writer {
            flow: self.flow,
            root: ("", "self"),
            known: body.known.clone(),
            like: "images".into(),
            prefix: "x",
            next: body.next,
            lines: vec![],
            readers: BTreeMap::new(),
        }
    }

    /// Adds a segment: as a method of its own, or in place where it is short or no group's.
    fn segment(
        &self,
        segment: &Segment,
        all: &[usize],
        outputs: &[usize],
        body: &mut Body,
    ) -> Result<()> {
        let flow = self.flow;
        let own: BTreeSet<usize> = segment.steps.iter().copied().collect();
        let Some(&last) = segment.steps.last() else {
            return Ok(());
        };
        let mut inputs: Vec<usize> = vec![];
        for input in segment.steps.iter().flat_map(|&step| flow.inputs(step)) {
            let input = flow.through(input);
            if !own.contains(&input) && !inputs.contains(&input) {
                inputs.push(input);
            }
        }
        let later = all.iter().filter(|&&step| step > last);
        let later = later.flat_map(|&step| flow.inputs(step));
        let read: BTreeSet<usize> = later
            .chain(outputs.iter().copied())
            .map(|step| flow.through(step))
            .collect();
        let gives: Vec<usize> = own.intersection(&read).copied().collect();
        if inputs.is_empty() {
            inputs.push(0);
        }
        let arguments: Vec<String> = (0..inputs.len()).map(|i| format!("s{i}")).collect();
        let writer = Writer {
            root: (&segment.root, "part"),
            known: inputs
                .iter()
                .copied()
                .zip(arguments.iter().cloned())
                .collect(),
            like: "s0".into(),
            next: 1,
            ..self.inline(body)
        };
        let (code, _) = writer.write(&segment.steps, &gives)?;
        if segment.root.is_empty() || code.lines.is_empty() {
            let values = body.add(self.inline(body), &segment.steps, &gives)?;
            body.assign(&gives, &values);
            return Ok(());
        }
        let mut values = vec![access(flow, "self", "", &segment.root)];
        values.extend(
            inputs
                .iter()
                .filter_map(|input| body.known.get(input).cloned()),
        );
        let method = body.method(&segment.root, arguments, code);
        let call = format!("self.{method}({})", values.join(", "));
        body.call(&gives, &call);
        Ok(())
    }
}

/// The method `forward` under way.
#[derive(Default)]
struct Body {
    /// The step that has the logits.
    logits: usize,
    lines: Vec<String>,
    /// Names of values.
    known: BTreeMap<usize, String>,
    next: usize,
    methods: Vec<Method>,
}

impl Body {
    /// Writes steps down in here, and returns the expressions of what they give.
    fn add(&mut self, writer: Writer<'_>, steps: &[usize], gives: &[usize]) -> Result<Vec<String>> {
        let (code, next) = writer.write(steps, gives)?;
        self.next = next;
        self.lines.extend(code.lines);
        Ok(code.gives)
    }

    /// A new name for a step's value.
    fn name(&mut self, step: usize) -> String {
        if step == self.logits {
            return "logits".into();
        }
        self.next += 1;
        format!("x{}", self.next - 1)
    }

    /// Gives values names.
    fn assign(&mut self, steps: &[usize], values: &[String]) {
        for (&step, value) in steps.iter().zip(values) {
            let mut name = value.clone();
            if !value.chars().all(|c| c.is_ascii_alphanumeric()) {
                name = self.name(step);
                self.lines.push(format!("{name} = {value}"));
            }
            self.known.insert(step, name);
        }
    }

    /// Gives what a method returns names.
    fn call(&mut self, steps: &[usize], call: &str) {
        let names: Vec<String> = steps.iter().map(|&step| self.name(step)).collect();
        self.lines.push(format!("{} = {call}", names.join(", ")));
        self.known.extend(steps.iter().copied().zip(names));
    }

    /// The name of the method with this code.
    fn method(&mut self, root: &str, arguments: Vec<String>, code: Code) -> String {
        let same = |method: &&mut Method| method.arguments == arguments && method.code == code;
        if let Some(method) = self.methods.iter_mut().find(same) {
            method.roots.push(root.to_owned());
            return method.name.clone();
        }
        let base = format!("run_{}", word(root));
        let numbered = (2..).map(|n| format!("{base}_part{n}"));
        let mut names = std::iter::once(base.clone()).chain(numbered);
        let is_free = |name: &String| self.methods.iter().all(|method| method.name != *name);
        let name = names.find(is_free).unwrap_or(base);
        self.methods.push(Method {
            name: name.clone(),
            arguments,
            code,
            roots: vec![root.to_owned()],
        });
        name
    }
}

impl Method {
    fn text(&self) -> String {
        let mut lines = vec![];
        let mut comment = String::from("# For");
        for (i, root) in self.roots.iter().enumerate() {
            let word = format!(
                " {}{}",
                quoted(root),
                if i + 1 < self.roots.len() { "," } else { "" }
            );
            if comment.len() + word.len() > 108 {
                lines.push(std::mem::replace(&mut comment, "#".into()));
            }
            comment += &word;
        }
        lines.push(comment);
        lines.extend(self.code.lines.iter().cloned());
        lines.push(format!("return {}", self.code.gives.join(", ")));
        let arguments = self.arguments.join(", ");
        format!(
            "\n    def {}(self, part, {arguments}):\n{}",
            self.name,
            indented(&lines)
        )
    }
}

/// Lines of a method.
fn indented(lines: &[String]) -> String {
    lines
        .iter()
        .map(|line| format!("        {line}\n"))
        .collect()
}
