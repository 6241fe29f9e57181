//! Our space: one hidden layer, whose width is a setting of the space.
//!
//! How wide it is is part of what an architecture means, so that `retrain` builds the network with the width of the search.
//! How many channels the search has is not: [`SpaceConfig::search_only`] says which settings are of that kind.

use nasfw_framework::network::Conv;
use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::Tensor;

const NAME: &str = "widened";
const OPERATIONS: [&str; 2] = ["relu", "identity"];

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Widened {
    channels: i64,
    widen: i64,
    form: Form,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    deep: bool,
}

register! {
    space "widened" => Widened,
    summary: "one hidden layer of channels × widen units, or two where it is deep",
    source: "this example",
    defaults: r#"[space]
# Channels of the search.
channels = 3
# How many units of the hidden layer a channel stands for.
widen = 1

[space.form]
# Whether there are two hidden layers.
deep = false
"#,
    example: "own-strategy run --strategy darts --space widened --dataset synthetic --set space.widen=4",
}

#[typetag::serde(name = "widened")]
impl SpaceConfig for Widened {
    fn build(&self) -> Result<Box<dyn SearchSpace>> {
        let row = Row {
            name: "hidden".into(),
            candidates: OPERATIONS.map(str::to_owned).to_vec(),
            keep: 1,
        };
        let group = Group {
            name: "layer".into(),
            role: Role::Operations,
            rows: vec![row],
            edges: None,
        };
        Ok(Box::new(WidenedSpace {
            spec: ArchSpec::new(vec![group])?,
            config: self.clone(),
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("space.channels", self.channels, 1, 1024);
        v.range("space.widen", self.widen, 1, 64);
    }
}

struct WidenedSpace {
    spec: ArchSpec,
    config: Widened,
}

impl WidenedSpace {
    fn layers(&self) -> usize {
        1 + usize::from(self.config.form.deep)
    }
}

impl SearchSpace for WidenedSpace {
    fn spec(&self) -> &ArchSpec {
        &self.spec
    }

    fn supernet(&self, task: Task, options: &SupernetOptions) -> Result<Box<dyn Supernet>> {
        let plain = SupernetOptions {
            channels: options.channels,
            cells: options.cells,
            plain: options.plain,
            ..SupernetOptions::default()
        };
        if *options != plain {
            return Err(Error::Incompatible {
                what: "this strategy on space `widened`".into(),
                why: "the strategy asks for what this supernet does not have".into(),
                help: "choose another space with `--space`".into(),
            });
        }
        let hidden = options.channels.unwrap_or(self.config.channels) * self.config.widen;
        let mut layout = ParamLayout::new();
        let mut inputs = task.channels;
        let mut layers = vec![];
        for i in 0..self.layers() {
            let (name, shape) = (format!("hidden{i}"), [hidden, inputs]);
            layers.push(layout.add(&name, &shape, Init::fan_in(inputs)));
            inputs = hidden;
        }
        let last = layout.add("last", &[task.classes, hidden], Init::fan_in(hidden));
        Ok(Box::new(Net {
            layout,
            layers,
            last,
        }))
    }

    /// There are no cells.
    fn without_effect(&self) -> Vec<&'static str> {
        vec!["cells"]
    }

    fn genotype(&self, choice: &Choice) -> Genotype {
        let op = choice.kept(0, 0).first().map(|&o| OPERATIONS[o].to_owned());
        let node = Node {
            op,
            inputs: vec![Edge { from: 0, op: None }],
        };
        Genotype {
            space: NAME.into(),
            cells: vec![Cell {
                name: "layer".into(),
                inputs: vec!["images".into()],
                nodes: vec![node],
                output: vec![1],
            }],
        }
    }

    fn network(
        &self,
        genotype: &Genotype,
        task: Task,
        options: &NetworkOptions,
    ) -> Result<Network> {
        let choice = self.choice(genotype)?;
        let (mut b, mut x) = NetworkBuilder::new(task);
        let hidden = options.channels.unwrap_or(8) * self.config.widen;
        for i in 0..self.layers() {
            x = b.conv(&format!("conv{i}"), x, hidden, Conv::same(1));
            x = b.batch_norm(&format!("norm{i}"), x, true);
            if choice.kept(0, 0) == [0] {
                x = b.relu(x);
            }
        }
        let x = b.global_average_pool(x);
        let logits = b.linear("classifier", x, task.classes);
        b.finish(logits, None)
    }
}

struct Net {
    layout: ParamLayout,
    layers: Vec<ParamId>,
    last: ParamId,
}

impl Supernet for Net {
    fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    fn forward(
        &self,
        weights: Weights<'_>,
        images: &Tensor,
        arch: &RelaxedArch,
        _mode: Mode,
        _noise: Streams,
    ) -> Result<Tensor> {
        let views = self.layout.views(weights.params);
        let mut x = images.mean_dim([2i64, 3].as_slice(), false, images.kind());
        for layer in &self.layers {
            x = x.linear(&views[*layer], None::<&Tensor>);
            let mut mixed = x.zeros_like();
            for (op, y) in [x.relu(), x].iter().enumerate() {
                if arch.is_active(0, 0, op) {
                    mixed += y * arch.weights[0].get(0).get(op as i64);
                }
            }
            if let Some(offsets) = &arch.offsets {
                mixed += offsets[0].get(0);
            }
            x = mixed;
        }
        Ok(x.linear(&views[self.last], None::<&Tensor>))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use nasfw_conformance as conformance;
    use nasfw_framework::registry::{Kind, Parse, Registry};

    use super::*;

    #[test]
    fn it_conforms() {
        let task = Task {
            channels: 3,
            height: 8,
            width: 8,
            classes: 3,
        };
        let registry = Registry::load().unwrap();
        let plugin = registry.get(Kind::Space, NAME).unwrap();
        let defaults = plugin.default_section().unwrap();
        let Parse::Space(parse) = plugin.parse else {
            panic!("kind")
        };
        let space = parse(&defaults).unwrap().build().unwrap();
        let net = space.supernet(task, &SupernetOptions::default()).unwrap();
        for report in [
            conformance::plugin(plugin),
            conformance::space(NAME, space.as_ref(), task),
            conformance::supernet(NAME, space.as_ref(), net.as_ref(), task),
            conformance::space_options(plugin, &defaults, task),
        ] {
            report.ok().unwrap();
        }
    }
}
