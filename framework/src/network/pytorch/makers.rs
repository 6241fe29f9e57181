//! Modules as expressions, chains by functions that are given their numbers of channels.

use super::layer::Layer;
use super::text::{quoted, word};
use super::units::{Layers, Unit};

/// A function that makes a chain.
#[derive(Debug)]
struct Maker {
    name: String,
    /// Its lines after the first one.
    body: String,
    arguments: Vec<String>,
}

/// The functions of a file.
#[derive(Debug, Default)]
pub(super) struct Makers(Vec<Maker>);

impl Makers {
    /// The expression that makes a module; a chain's function is added where there is none like it.
    pub(super) fn expression(&mut self, unit: &Unit) -> String {
        let layers: Vec<&Layer> = match &unit.layers {
            Layers::One(layer) => return layer.text(&|n| n.to_string()),
            Layers::Row(layers) => layers.iter().collect(),
            Layers::Named(layers) => layers.iter().map(|(_, layer)| layer).collect(),
        };
        let mut channels: Vec<i64> = vec![];
        for n in layers.iter().flat_map(|layer| layer.channels()) {
            if !channels.contains(&n) {
                channels.push(n);
            }
        }
        let arguments: Vec<String> = match channels.len() {
            1 => vec!["channels".into()],
            2 => vec!["inputs".into(), "outputs".into()],
            n => (1..=n).map(|i| format!("c{i}")).collect(),
        };
        let say = |n: i64| {
            let known = channels.iter().position(|&c| c == n);
            known.map_or_else(|| n.to_string(), |i| arguments[i].clone())
        };
        let body = body(&unit.layers, &say);
        let known = self
            .0
            .iter()
            .find(|maker| (&maker.body, &maker.arguments) == (&body, &arguments));
        let name = match known {
            Some(maker) => maker.name.clone(),
            None => {
                let stride: i64 = layers.iter().map(|layer| layer.stride()).product();
                let name = self.free(&unit.path, stride);
                self.0.push(Maker {
                    name: name.clone(),
                    body,
                    arguments,
                });
                name
            }
        };
        let channels: Vec<String> = channels.iter().map(i64::to_string).collect();
        format!("{name}({})", channels.join(", "))
    }

    /// A name after the module's that no function has.
    fn free(&self, path: &str, stride: i64) -> String {
        let is_number = |part: &&str| part.chars().all(|c| c.is_ascii_digit());
        let part = path
            .rsplit('.')
            .find(|part| !is_number(part))
            .unwrap_or("layers");
        // What is counted, as `input0` and `input1`, is of one kind.
        let kind = match part.trim_end_matches(|c: char| c.is_ascii_digit()) {
            kind if kind.chars().all(|c| c.is_ascii_alphabetic()) => kind,
            _ => part,
        };
        let mut base = format!("make_{}", word(kind));
        if stride > 1 {
            base += &format!("_stride{stride}");
        }
        let is_free = |name: &String| self.0.iter().all(|maker| maker.name != *name);
        let numbered = (2..).map(|n| format!("{base}_{n}"));
        let mut names = std::iter::once(base.clone()).chain(numbered);
        names.find(is_free).unwrap_or(base)
    }

    /// The functions, in the order in which they are first used.
    pub(super) fn text(&self) -> String {
        let text = |maker: &Maker| {
            let arguments = maker.arguments.join(", ");
            format!("\n\ndef {}({arguments}):\n{}", maker.name, maker.body)
        };
        self.0.iter().map(text).collect()
    }
}

fn body(layers: &Layers, say: &dyn Fn(i64) -> String) -> String {
    match layers {
        Layers::One(layer) => format!("    return {}\n", layer.text(say)),
        Layers::Row(layers) => {
            let lines: String = layers
                .iter()
                .map(|layer| format!("        {},\n", layer.text(say)))
                .collect();
            format!("    return nn.Sequential(\n{lines}    )\n")
        }
        Layers::Named(layers) => {
            let lines: String = layers
                .iter()
                .map(|(name, layer)| format!("        {}: {},\n", quoted(name), layer.text(say)))
                .collect();
            format!("    return nn.Sequential(OrderedDict({{\n{lines}    }}))\n")
        }
    }
}
