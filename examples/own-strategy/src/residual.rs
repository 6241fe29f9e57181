//! Our macro space: a chain of residual blocks (ResNet's), each with a kernel and a width of its own, or left out where it would
//! change no shape.
//!
//! The network is written once, in [`ResidualChain::layers`]: with every decision open it is the supernet, with an
//! architecture chosen the network of that architecture.

use nasfw_framework::network::{Conv, Value};
use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

const NAME: &str = "residual-chain";
/// Every candidate with its kernel and how many times wider it is inside than what it puts out; what is left out comes last.
const OPERATIONS: [(&str, i64, i64); 4] = [
    ("conv3_x1", 3, 1),
    ("conv5_x1", 5, 1),
    ("conv3_x2", 3, 2),
    ("conv5_x2", 5, 2),
];
const SKIP: &str = "skip";

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    channels: i64,
    stages: usize,
    layers: usize,
}

register! {
    space "residual-chain" => Settings,
    summary: "a chain of residual blocks, each with a kernel and a width of its own, or left out",
    source: "this example, after He et al. 2016, CVPR, arXiv:1512.03385 (ResNet)",
    defaults: "[space]
# Channels of the search.
channels = 8
# Stages: each has half the size and twice the channels of the one before.
stages = 2
# Layers of a stage.
layers = 2
",
    example: "own-strategy run --strategy gdas --space residual-chain --dataset synthetic --epochs 2",
}

#[typetag::serde(name = "residual-chain")]
impl SpaceConfig for Settings {
    fn build(&self) -> Result<Box<dyn SearchSpace>> {
        let rows = (0..self.stages * self.layers).map(|i| {
            let names = OPERATIONS.iter().map(|(name, ..)| *name);
            // The first layer of a stage changes the shape.
            let skip = (i % self.layers > 0).then_some(SKIP);
            Row {
                name: format!("layer {i}"),
                candidates: names.chain(skip).map(str::to_owned).collect(),
                keep: 1,
            }
        });
        let group = Group {
            name: "layers".into(),
            role: Role::Operations,
            rows: rows.collect(),
            edges: None,
        };
        Ok(Box::new(ResidualChain {
            spec: ArchSpec::new(vec![group])?,
            settings: self.clone(),
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("space.channels", self.channels, 1, 1024);
        v.range("space.stages", self.stages, 1, 8);
        v.range("space.layers", self.layers, 1, 32);
    }
}

struct ResidualChain {
    spec: ArchSpec,
    settings: Settings,
}

impl ResidualChain {
    /// The logits: a stem, the layers, a classifier.
    fn layers(&self, b: &mut NetworkBuilder, images: Value, channels: i64) -> Value {
        let x = normed(b, "stem", images, channels, Conv::same(3));
        let mut x = b.relu(x);
        for i in 0..self.spec.groups()[0].rows.len() {
            let (stage, place) = (i / self.settings.layers, i % self.settings.layers);
            let (outputs, stride) = (channels << stage, if place == 0 { 2 } else { 1 });
            x = b.decide(
                &format!("layer{i}"),
                (0, i),
                |b, candidate| match OPERATIONS.get(candidate) {
                    Some(&(_, kernel, wider)) => {
                        let conv = Conv::same(kernel);
                        residual(b, x, wider * outputs, outputs, (conv.stride(stride), conv))
                    }
                    None => x,
                },
            );
        }
        let x = b.global_average_pool(x);
        b.linear("classifier", x, b.task().classes)
    }
}

/// Convolution and batch norm.
fn normed(b: &mut NetworkBuilder, name: &str, x: Value, outputs: i64, conv: Conv) -> Value {
    let y = b.conv(&format!("{name}.conv"), x, outputs, conv);
    b.batch_norm(&format!("{name}.norm"), y, true)
}

/// Two convolutions, and beside them the identity where the shape stays.
fn residual(
    b: &mut NetworkBuilder,
    x: Value,
    inside: i64,
    outputs: i64,
    (first, second): (Conv, Conv),
) -> Value {
    let y = normed(b, "first", x, inside, first);
    let y = b.relu(y);
    let mut y = normed(b, "second", y, outputs, second);
    if b.shape(y) == b.shape(x) {
        y = b.drop_path(y);
        y = b.add(&[x, y]);
    }
    b.relu(y)
}

impl SearchSpace for ResidualChain {
    fn spec(&self) -> &ArchSpec {
        &self.spec
    }

    fn supernet(&self, task: Task, options: &SupernetOptions) -> Result<Box<dyn Supernet>> {
        let (mut b, images) = NetworkBuilder::open(&self.spec, options, task);
        let channels = options.channels.unwrap_or(self.settings.channels);
        let logits = self.layers(&mut b, images, channels);
        Ok(Box::new(b.finish_open(logits)?))
    }

    fn network(
        &self,
        genotype: &Genotype,
        task: Task,
        options: &NetworkOptions,
    ) -> Result<Network> {
        let choice = self.choice(genotype)?;
        let (mut b, images) = NetworkBuilder::chosen(&self.spec, &choice, task);
        let logits = self.layers(&mut b, images, options.channels.unwrap_or(16));
        b.finish(logits, None)
    }

    /// There are no cells.
    fn without_effect(&self) -> Vec<&'static str> {
        vec!["cells"]
    }

    /// Much as ResNet's paper trains on CIFAR-10 (section 4.2), with smoothed labels.
    fn recipe(&self) -> &'static str {
        "[strategy]
drop_path = 0.0

[trainer]
epochs = 160
batch_size = 128

[trainer.weights]
lr = 0.1
lr_min = 1e-4
weight_decay = 1e-4
clip = 0.0

[space]
label_smoothing = 0.1
"
    }

    fn genotype(&self, choice: &Choice) -> Genotype {
        let rows = self.spec.groups()[0].rows.iter().enumerate();
        let node = |(i, row): (usize, &Row)| Node {
            op: choice
                .kept(0, i)
                .first()
                .map(|&c| row.candidates[c].clone()),
            inputs: vec![Edge { from: i, op: None }],
        };
        Genotype {
            space: NAME.into(),
            cells: vec![Cell {
                name: "chain".into(),
                inputs: vec!["stem".into()],
                nodes: rows.map(node).collect(),
                output: vec![self.spec.groups()[0].rows.len()],
            }],
        }
    }

    /// Layer by layer: a chain may be too long to look its architectures through.
    fn choice(&self, genotype: &Genotype) -> Result<Choice> {
        let nodes = genotype.cells.first().map_or(&[][..], |cell| &cell.nodes);
        let rows = self.spec.groups()[0].rows.iter().zip(nodes);
        let kept = rows.filter_map(|(row, node)| Some(vec![row.column(node.op.as_deref()?)?]));
        let choice = Choice::new(vec![kept.collect()]);
        match choice.check(&self.spec).is_ok() && self.genotype(&choice) == *genotype {
            true => Ok(choice),
            false => Err(Error::Invalid {
                what: "genotype".into(),
                why: "it is not in this space".into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use nasfw_conformance as conformance;
    use nasfw_framework::registry::{Kind, Parse, Registry};

    use super::*;

    const TASK: Task = Task {
        channels: 3,
        height: 8,
        width: 8,
        classes: 3,
    };

    fn space(change: impl FnOnce(&mut Settings)) -> Box<dyn SearchSpace> {
        let mut settings = Settings {
            channels: 4,
            stages: 2,
            layers: 2,
        };
        change(&mut settings);
        settings.build().unwrap()
    }

    #[test]
    fn it_conforms() {
        let registry = Registry::load().unwrap();
        let plugin = registry.get(Kind::Space, NAME).unwrap();
        let defaults = plugin.default_section().unwrap();
        let Parse::Space(parse) = plugin.parse else {
            panic!("kind")
        };
        let space = parse(&defaults).unwrap().build().unwrap();
        let net = space.supernet(TASK, &SupernetOptions::default()).unwrap();
        for report in [
            conformance::plugin(plugin),
            conformance::space(NAME, space.as_ref(), TASK),
            conformance::supernet(NAME, space.as_ref(), net.as_ref(), TASK),
            conformance::space_options(plugin, &defaults, TASK),
        ] {
            report.ok().unwrap();
        }
    }

    /// Weights of a network by hand: stem, layers and classifier, a scale and a shift behind every convolution.
    #[test]
    fn networks_have_the_sizes_that_the_layers_add_up_to() {
        let space = space(|_| ());
        let choice = Choice::new(vec![vec![vec![0], vec![4], vec![3], vec![1]]]);
        let options = NetworkOptions {
            channels: Some(4),
            ..Default::default()
        };
        let network = space.network(&space.genotype(&choice), TASK, &options);
        let normed = |weights: i64, outputs: i64| weights + 2 * outputs;
        let block = |inputs: i64, outputs: i64, kernel: i64, wider: i64| {
            let inside = wider * outputs;
            normed(kernel * kernel * inputs * inside, inside)
                + normed(kernel * kernel * inside * outputs, outputs)
        };
        let layers = block(4, 4, 3, 1) + block(4, 8, 5, 2) + block(8, 8, 5, 1);
        let whole = normed(9 * 3 * 4, 4) + layers + 8 * 3 + 3;
        assert_eq!(network.unwrap().size().params, whole);
    }

    #[test]
    fn what_the_supernet_does_not_have_is_refused_by_name() {
        let refused = |layers: usize, options: SupernetOptions| {
            let space = space(|s| s.layers = layers);
            space.supernet(TASK, &options).err().map(|e| e.to_string())
        };
        let none = SupernetOptions::default;
        for (name, options) in [
            (
                "partial_channels",
                SupernetOptions {
                    partial_channels: Some(2),
                    ..none()
                },
            ),
            (
                "auxiliary_skip",
                SupernetOptions {
                    auxiliary_skip: true,
                    ..none()
                },
            ),
            (
                "skip_dropout",
                SupernetOptions {
                    skip_dropout: true,
                    ..none()
                },
            ),
        ] {
            let said = refused(2, options).unwrap();
            assert!(said.contains(&format!("`{name}`")), "{said}");
        }
        // Where every layer changes the shape, there is no path beside one.
        let drop_path = SupernetOptions {
            drop_path: true,
            ..none()
        };
        assert_eq!(refused(2, drop_path.clone()), None);
        let said = refused(1, drop_path).unwrap();
        assert!(said.contains("`drop_path`"), "{said}");
    }

    #[test]
    fn a_chain_too_long_to_look_through_leads_back_to_its_choice() {
        let space = space(|s| s.layers = 12);
        assert!(space.spec().size() > 1e15);
        let choice = space.random(&mut Streams::new(1).at("choice", 0));
        let mut genotype = space.genotype(&choice);
        assert_eq!(space.choice(&genotype).unwrap(), choice);
        genotype.cells[0].nodes.pop();
        assert!(space.choice(&genotype).is_err());
    }
}
