//! Chains of inverted residuals (MobileNetV2's layers), each with a kernel and an expansion of its own, or left out where that
//! changes no shape: the space of ProxylessNAS (Cai et al. 2019) and, by its stages, of FBNet (Wu et al. 2019).
//!
//! The network is written once, in `Mobile::chain`: with every decision open it is the supernet, with an architecture chosen
//! that architecture's network. Readings: activations are ReLU, where the papers have ReLU6; FBNet's grouped convolutions
//! and expansions of 1 are no candidates.

use nasfw_framework::network::{Conv, Value};
use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

const NAME: &str = "mobile";
/// Leaving a layer out.
const SKIP: &str = "skip_connect";
/// Where channels are multiplied, they are multiples of this, or of half of it below it (Sandler et al. 2018).
const DIVISOR: i64 = 8;

/// Settings of `mobile`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MobileConfig {
    /// Channels of the stem.
    pub stem: i64,
    /// Channels of the first, fixed layer.
    pub first: i64,
    /// Step of the stem.
    pub stem_stride: i64,
    /// Channels, number of layers and first step of every stage.
    pub stages: Vec<[i64; 3]>,
    /// Channels of the last convolution.
    pub head: i64,
    /// Names of the candidates.
    pub candidates: Vec<String>,
    /// Whether layers may be left out.
    pub skip: bool,
}

register! {
    space "mobile" => MobileConfig,
    summary: "a chain of inverted residuals, each with a kernel and an expansion of its own, or left out",
    source: "Cai et al. 2019, ICLR, arXiv:1812.00332 (ProxylessNAS); Wu et al. 2019, CVPR, arXiv:1812.03443 (FBNet)",
    defaults: include_str!("mobile.toml"),
    example: "nasfw run --strategy darts --space mobile --limit macs=2M",
    presets: &[
        ("proxyless", PROXYLESS),
        ("fbnet", FBNET),
        ("mobilenet-v2", MOBILENET_V2),
    ],
}

/// For photographs of 224 × 224 pixels: 21 layers.
const PROXYLESS: &str = "[space]
stem = 32
first = 16
stem_stride = 2
stages = [[24, 4, 2], [40, 4, 2], [80, 4, 2], [96, 4, 1], [192, 4, 2], [320, 1, 1]]
head = 1280
";
/// FBNet's stages behind its first one; 21 layers.
const FBNET: &str = "[space]
stem = 16
first = 16
stem_stride = 2
stages = [[24, 4, 2], [32, 4, 2], [64, 4, 2], [112, 4, 1], [184, 4, 2], [352, 1, 1]]
head = 1984
candidates = [\"mb3_e3\", \"mb5_e3\", \"mb3_e6\", \"mb5_e6\"]
";
/// MobileNetV2's stages: with mb3_e6 in every layer the network is MobileNetV2.
const MOBILENET_V2: &str = "[space]
stem = 32
first = 16
stem_stride = 2
stages = [[24, 2, 2], [32, 3, 2], [64, 4, 2], [96, 3, 1], [160, 3, 2], [320, 1, 1]]
head = 1280
";

/// An inverted residual's kernel and expansion.
#[derive(Debug, Clone, Copy, PartialEq)]
struct MbConv {
    kernel: i64,
    expansion: i64,
}

impl MbConv {
    /// `mb5_e3` is a kernel of 5 and an expansion of 3.
    fn parse(name: &str) -> Option<Self> {
        let (kernel, expansion) = name.strip_prefix("mb")?.split_once("_e")?;
        let this = Self {
            kernel: kernel.parse().ok()?,
            expansion: expansion.parse().ok()?,
        };
        let fits = matches!(this.kernel, 1 | 3 | 5 | 7 | 9) && (1..=12).contains(&this.expansion);
        fits.then_some(this)
    }
}

#[typetag::serde(name = "mobile")]
impl SpaceConfig for MobileConfig {
    fn build(&self) -> Result<Box<dyn SearchSpace>> {
        let mut rows = vec![];
        let mut inputs = self.first;
        for (s, &[channels, layers, stride]) in self.stages.iter().enumerate() {
            for i in 0..layers {
                let keeps_shape = i > 0 || (stride == 1 && inputs == channels);
                let skip = (self.skip && keeps_shape).then(|| SKIP.to_owned());
                rows.push(Row {
                    name: format!("stage {} layer {}", s + 1, i + 1),
                    candidates: self.candidates.iter().cloned().chain(skip).collect(),
                    keep: 1,
                });
                inputs = channels;
            }
        }
        let candidates = self.candidates.iter().map(|name| {
            MbConv::parse(name).ok_or_else(|| Error::Invalid {
                what: format!("candidate `{name}` of space `{NAME}`"),
                why: "it is not of the form `mb3_e6`".into(),
            })
        });
        Ok(Box::new(Mobile {
            candidates: candidates.collect::<Result<_>>()?,
            spec: ArchSpec::new(vec![Group {
                name: "layers".into(),
                role: Role::Operations,
                rows,
                edges: None,
            }])?,
            settings: self.clone(),
        }))
    }

    fn search_only(&self) -> &'static [&'static str] {
        &[]
    }

    fn validate(&self, v: &mut Validator) {
        for (key, channels) in [
            ("stem", self.stem),
            ("first", self.first),
            ("head", self.head),
        ] {
            v.range(&format!("space.{key}"), channels, 1, 8192);
        }
        v.range("space.stem_stride", self.stem_stride, 1, 2);
        if self.stages.is_empty() {
            v.problem("space.stages", "there must be one at least");
        }
        for (i, [channels, layers, stride]) in self.stages.iter().enumerate() {
            v.range(&format!("space.stages[{i}][0]"), *channels, 1, 8192);
            v.range(&format!("space.stages[{i}][1]"), *layers, 1, 100);
            v.range(&format!("space.stages[{i}][2]"), *stride, 1, 2);
        }
        if self.candidates.is_empty() {
            v.problem("space.candidates", "there must be one at least");
        }
        for (i, name) in self.candidates.iter().enumerate() {
            if MbConv::parse(name).is_none() {
                let wrong = "it must be of the form `mb3_e6`, with a kernel of 1, 3, 5, 7 or 9 and an expansion of 1 to 12";
                v.problem(&format!("space.candidates[{i}]"), wrong);
            }
            if self.candidates[..i].contains(name) {
                v.problem(&format!("space.candidates[{i}]"), "it is there twice");
            }
        }
    }
}

struct Mobile {
    spec: ArchSpec,
    candidates: Vec<MbConv>,
    settings: MobileConfig,
}

impl Mobile {
    /// The logits: stem, the fixed layer, the layers, the last convolution. `channels` of the stem, where given, multiply all.
    fn chain(&self, b: &mut NetworkBuilder, images: Value, channels: Option<i64>) -> Value {
        let s = &self.settings;
        let width = |n: i64| channels.map_or(n, |stem| scaled(n, stem as f64 / s.stem as f64));
        let stem = Conv::same(3).stride(s.stem_stride);
        let x = normed(b, "stem", images, channels.unwrap_or(s.stem), stem);
        let x = b.relu(x);
        let fixed = MbConv {
            kernel: 3,
            expansion: 1,
        };
        let mut x = inverted_residual(b, "first", x, width(s.first), fixed, 1);
        let mut row = 0;
        for &[outputs, layers, stride] in &s.stages {
            for i in 0..layers {
                let stride = if i == 0 { stride } else { 1 };
                x = b.decide(&format!("layer{row}"), (0, row), |b, candidate| match self
                    .candidates
                    .get(candidate)
                {
                    Some(&of) => inverted_residual(b, "mb", x, width(outputs), of, stride),
                    None => x,
                });
                row += 1;
            }
        }
        // MobileNetV2 widens the last convolution and never narrows it.
        let head = width(s.head).max(s.head);
        let x = normed(b, "head", x, head, Conv::same(1));
        let x = b.relu(x);
        let x = b.global_average_pool(x);
        b.linear("classifier", x, b.task().classes)
    }
}

/// Channels times a factor, as a multiple of eight that is at least nine tenths of it.
fn scaled(channels: i64, factor: f64) -> i64 {
    let exact = channels as f64 * factor;
    let divisor = if exact < DIVISOR as f64 {
        1.0
    } else {
        DIVISOR as f64
    };
    let near = ((exact + divisor / 2.0) / divisor).floor() * divisor;
    let enough = if near < 0.9 * exact {
        near + divisor
    } else {
        near
    };
    (enough as i64).max(1)
}

/// Convolution and batch norm.
fn normed(b: &mut NetworkBuilder, name: &str, x: Value, outputs: i64, conv: Conv) -> Value {
    let y = b.conv(&format!("{name}.conv"), x, outputs, conv);
    b.batch_norm(&format!("{name}.bn"), y, true)
}

/// To more channels (unless the expansion is 1), a convolution of each by itself, to the outputs; beside it the identity where the
/// shape stays.
fn inverted_residual(
    b: &mut NetworkBuilder,
    name: &str,
    x: Value,
    outputs: i64,
    of: MbConv,
    stride: i64,
) -> Value {
    let hidden = of.expansion * b.shape(x)[0];
    let mut y = x;
    if of.expansion > 1 {
        y = normed(b, &format!("{name}.expand"), y, hidden, Conv::same(1));
        y = b.relu(y);
    }
    let depthwise = Conv::same(of.kernel).stride(stride).groups(hidden);
    y = normed(b, &format!("{name}.depthwise"), y, hidden, depthwise);
    y = b.relu(y);
    y = normed(b, &format!("{name}.project"), y, outputs, Conv::same(1));
    if b.shape(y) != b.shape(x) {
        return y;
    }
    y = b.drop_path(y);
    b.add(&[x, y])
}

impl SearchSpace for Mobile {
    fn spec(&self) -> &ArchSpec {
        &self.spec
    }

    fn supernet(&self, task: Task, options: &SupernetOptions) -> Result<Box<dyn Supernet>> {
        let (mut b, images) = NetworkBuilder::open(&self.spec, options, task);
        let logits = self.chain(&mut b, images, options.channels);
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
        let logits = self.chain(&mut b, images, options.channels);
        b.finish(logits, None)
    }

    /// There are no cells, and what is added to all numbers that a layer puts out the next batch norm takes out again.
    fn without_effect(&self) -> Vec<&'static str> {
        vec!["cells", "offsets"]
    }

    /// ProxylessNAS's on ImageNet.
    fn recipe(&self) -> &'static str {
        "[strategy]\npreset = \"proxyless-imagenet\"\n"
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

    fn choice(&self, genotype: &Genotype) -> Result<Choice> {
        let nodes = genotype.cells.first().map_or(&[][..], |cell| &cell.nodes);
        let rows = self.spec.groups()[0].rows.iter().zip(nodes);
        let kept = rows.filter_map(|(row, node)| Some(vec![row.column(node.op.as_deref()?)?]));
        let choice = Choice::new(vec![kept.collect()]);
        match choice.check(&self.spec).is_ok() && self.genotype(&choice) == *genotype {
            true => Ok(choice),
            false => Err(Error::Invalid {
                what: "genotype".into(),
                why: "it is not of this space: other stages have other layers (`--set space.stages=…`, or \
                      `--set space.preset=NAME`)"
                    .into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nasfw_framework::registry::{Kind, Registry};
    use proptest::prelude::*;

    fn space(toml: &str) -> Box<dyn SearchSpace> {
        let registry = Registry::load().unwrap();
        let plugin = registry.get(Kind::Space, NAME).unwrap();
        let over: toml::Table = toml::from_str(toml).unwrap();
        let over = serde_json::to_value(&over["space"]).unwrap();
        let section = plugin.section_with(over.as_object().unwrap()).unwrap();
        plugin.space(&section).unwrap().build().unwrap()
    }

    const PHOTOGRAPHS: Task = Task {
        channels: 3,
        height: 224,
        width: 224,
        classes: 1000,
    };

    /// All layers alike, none left out.
    fn alike(space: &dyn SearchSpace, name: &str) -> Choice {
        let rows = space.spec().groups()[0].rows.iter();
        Choice::new(vec![
            rows.map(|row| vec![row.column(name).unwrap()]).collect(),
        ])
    }

    /// Published: 3.4 million parameters and 300 million multiply-adds (Sandler et al. 2018, table 4); torchvision's has 3,504,872.
    /// Half as wide, its last convolution as wide: 2.0 million and 97 million; torchvision's mobilenet_v2(width_mult=0.5)
    /// has 1,968,680.
    #[test]
    fn mobilenet_v2_has_its_published_size() {
        let space = space(MOBILENET_V2);
        let genotype = space.genotype(&alike(space.as_ref(), "mb3_e6"));
        let size = |channels| {
            let options = NetworkOptions {
                channels,
                ..NetworkOptions::default()
            };
            space
                .network(&genotype, PHOTOGRAPHS, &options)
                .unwrap()
                .size()
        };
        assert_eq!(size(None).params, 3_504_872);
        assert_eq!((size(None).macs as f64 / 1e6).round(), 301.0);
        assert_eq!(size(Some(16)).params, 1_968_680);
        assert_eq!((size(Some(16)).macs as f64 / 1e6).round(), 97.0);
    }

    /// ProxylessNAS and FBNet search 21 or 22 layers; the first layer of a stage that changes the shape can't be left out.
    #[test]
    fn published_stages_have_their_layers() {
        for (toml, sizes) in [(PROXYLESS, (21, 6)), (FBNET, (21, 4))] {
            let space = space(toml);
            let rows = &space.spec().groups()[0].rows;
            let fixed = rows.iter().filter(|row| row.column(SKIP).is_none());
            assert_eq!(rows.len(), sizes.0);
            assert_eq!(fixed.count(), 6);
            assert!(rows.iter().all(|row| row.candidates.len()
                - row.candidates.contains(&SKIP.into()) as usize
                == sizes.1));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, ..ProptestConfig::default() })]

        /// Weights layer by layer, by hand.
        #[test]
        fn networks_have_the_sizes_that_layers_add_up_to(seed in any::<u64>()) {
            let space = space("[space]\nstem = 8\nfirst = 4\nstages = [[6, 2, 2], [6, 2, 1]]\nhead = 20\n");
            let choice = space.random(&mut Streams::new(seed).at("choice", 0));
            let task = Task { channels: 3, height: 8, width: 8, classes: 5 };
            let network = space.network(&space.genotype(&choice), task, &NetworkOptions::default()).unwrap();
            prop_assert_eq!(&space.choice(&space.genotype(&choice)).unwrap(), &choice);
            let normed = |weights: i64, outputs: i64| weights + 2 * outputs;
            let mut params = normed(3 * 8 * 9, 8) + normed(8 * 9, 8) + normed(8 * 4, 4);
            let mut macs = 64 * (3 * 8 * 9 + 8 * 9 + 8 * 4);
            let mut inputs = 4;
            for (i, row) in space.spec().groups()[0].rows.iter().enumerate() {
                let name = &row.candidates[choice.kept(0, i)[0]];
                if name == SKIP {
                    continue;
                }
                let number = |at: usize| name[at..=at].parse::<i64>().unwrap();
                let (kernel, hidden) = (number(2), number(5) * inputs);
                let before = if i == 0 { 64 } else { 16 };
                params += normed(inputs * hidden, hidden) + normed(kernel * kernel * hidden, hidden) + normed(hidden * 6, 6);
                macs += before * inputs * hidden + 16 * (kernel * kernel * hidden + hidden * 6);
                inputs = 6;
            }
            params += normed(6 * 20, 20) + 20 * 5 + 5;
            macs += 16 * 6 * 20 + 20 * 5;
            prop_assert_eq!((network.size().params, network.size().macs), (params, macs));
        }
    }

    #[test]
    fn channels_are_multiplied_as_published() {
        // torchvision's _make_divisible.
        for (channels, factor, expected) in [
            (32, 0.5, 16),
            (24, 0.5, 16),
            (24, 0.75, 24),
            (16, 1.4, 24),
            (320, 1.4, 448),
        ] {
            assert_eq!(scaled(channels, factor), expected, "{channels} {factor}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let registry = Registry::load().unwrap();
        let plugin = registry.get(Kind::Space, NAME).unwrap();
        for (toml, says) in [
            ("candidates = [\"mb4_e3\"]", "mb3_e6"),
            ("candidates = [\"mb3_e3\", \"mb3_e3\"]", "twice"),
            ("candidates = []", "one at least"),
            ("stages = []", "one at least"),
            ("stages = [[8, 2, 3]]", "out of range"),
        ] {
            let over: toml::Table = toml::from_str(toml).unwrap();
            let over = serde_json::to_value(over).unwrap();
            let section = plugin.section_with(over.as_object().unwrap()).unwrap();
            let mut v = Validator::default();
            plugin.space(&section).unwrap().validate(&mut v);
            let error = v.into_result().unwrap_err().to_string();
            assert!(error.contains(says), "{toml}: {error}");
        }
    }
}
