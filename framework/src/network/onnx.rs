//! The network as an ONNX model in evaluation mode.
//!
//! All operators are in their form of operator sets 13 to 21, which is one and the same.

mod messages;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use prost::Message;
use tch::{Device, Kind, Tensor};

use self::messages::{
    Attribute, Graph, Model, Node, OperatorSet, Property, TensorData, Type, ValueInfo,
};
use super::graph::{Network, Op, Pool, Step};
use super::pieces::Piece;
use crate::error::{Error, Result};
use crate::inputs::{BYTE, Normalisation};
use crate::params::{ParamId, ParamLayout, Views};
use crate::supernet::Weights;

/// Operator sets that a model can be written for.
pub const ONNX_OPSETS: RangeInclusive<i64> = 13..=21;
/// The operator set that runtimes since 2022 read.
pub const ONNX_OPSET: i64 = 17;

/// Name of the model's input (`[batch, channels, height, width]`, normalised).
const IMAGES: &str = "images";
/// Name of the model's output (`[batch, classes]`).
const LOGITS: &str = "logits";
/// Name of the input of a model that normalises by itself (`[batch, channels, height, width]`, from 0 to 255).
const PIXELS: &str = "pixels";

/// What an ONNX model is to be ([`Network::onnx`]).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OnnxOptions<'a> {
    /// Its operator set, of [`ONNX_OPSETS`].
    pub opset: i64,
    /// JSON by convention, kept as the model's property `nasfw`.
    pub metadata: &'a str,
    /// How pixels are normalised: the model then takes raw ones, from 0 to 255, and does that first. None takes images
    /// that are normalised.
    pub raw: Option<&'a Normalisation>,
}

impl Default for OnnxOptions<'_> {
    /// Normalised images, the operator set [`ONNX_OPSET`].
    fn default() -> Self {
        Self {
            opset: ONNX_OPSET,
            metadata: "",
            raw: None,
        }
    }
}

impl Network {
    /// An ONNX model of the network in evaluation mode, in single precision whatever the weights are: input `images`
    /// (`[batch, channels, height, width]`, normalised), output `logits` (`[batch, classes]`), any batch size, constants
    /// named as in the layouts. Noise operations become `RandomNormalLike`, so they draw in the runtime too. With
    /// [`OnnxOptions::raw`] the input is `pixels`, from 0 to 255, instead.
    ///
    /// # Errors
    /// An operator set outside [`ONNX_OPSETS`], weights of another length than the layouts', means and deviations of other
    /// numbers of channels, and models of 2 GiB and more, which the format can't hold.
    pub fn onnx(&self, weights: Weights<'_>, options: OnnxOptions<'_>) -> Result<Vec<u8>> {
        let OnnxOptions {
            opset,
            metadata,
            raw,
        } = options;
        if !ONNX_OPSETS.contains(&opset) {
            return Err(Error::Incompatible {
                what: format!("ONNX operator set {opset}"),
                why: format!(
                    "models are written for sets {} to {}",
                    ONNX_OPSETS.start(),
                    ONNX_OPSETS.end()
                ),
                help: format!("take {ONNX_OPSET}, which every runtime since 2022 reads"),
            });
        }
        let mut writer = Writer::new(self, weights)?;
        let task = self.task;
        let input = match raw {
            Some(scaling) => writer.normalise(scaling, task.channels)?,
            None => IMAGES,
        };
        for &i in &self.main.steps {
            writer.names[i] = writer.step(self, i)?;
        }
        let images = [task.channels, task.height, task.width];
        let inputs = vec![floats(input, &images)];
        let model = writer.model(inputs, floats(LOGITS, &[task.classes]), opset, metadata);
        if model.encoded_len() > i32::MAX as usize {
            return Err(Error::Incompatible {
                what: "an ONNX model of this network".into(),
                why: format!(
                    "its {} parameters take more than 2 GiB",
                    self.params.numel()
                ),
                help: "export safetensors instead".into(),
            });
        }
        Ok(model.encode_to_vec())
    }

    /// An ONNX model (operator set [`ONNX_OPSET`]) of one of the [`Network::pieces`] alone, for any batch size: an input for every
    /// value that it reads, and its result as the output. Values are named `xN`, by the operation that they are of, in inputs
    /// and output alike.
    ///
    /// # Errors
    /// Weights of another length than the layouts', and a network whose architecture is not decided.
    pub fn onnx_piece(&self, weights: Weights<'_>, piece: &Piece) -> Result<Vec<u8>> {
        let mut writer = Writer::new(self, weights)?;
        let mut inputs = vec![];
        for &input in piece.steps.iter().flat_map(|&i| &self.steps[i].inputs) {
            if !piece.steps.contains(&input) && writer.names[input].is_empty() {
                let name = format!("x{}", self.source(input));
                let here = floats(&name, self.steps[input].dims());
                if !inputs.contains(&here) {
                    inputs.push(here);
                }
                writer.names[input] = name;
            }
        }
        let task = self.task;
        // What reads nothing makes a value for every image.
        if inputs.is_empty() {
            inputs.push(floats(IMAGES, &[task.channels, task.height, task.width]));
        }
        let mut last = 0;
        for &i in &piece.steps {
            writer.names[i] = writer.step(self, i)?;
            last = i;
        }
        let name = format!("x{last}");
        if let Some(node) = writer.nodes.last_mut() {
            node.output = vec![name.clone()];
        }
        let output = floats(&name, self.steps[last].dims());
        let model = writer.model(inputs, output, ONNX_OPSET, "");
        Ok(model.encode_to_vec())
    }
}

/// A value of floats of any batch size.
fn floats(name: &str, shape: &[i64]) -> ValueInfo {
    ValueInfo {
        name: name.into(),
        kind: Some(Type::floats(shape)),
    }
}

/// A model under construction. Layers' constants have dots in their names, values and other constants don't.
struct Writer {
    params: Views,
    stats: Views,
    nodes: Vec<Node>,
    constants: BTreeMap<String, TensorData>,
    /// Names of the values computed so far, by step.
    names: Vec<String>,
}

impl Writer {
    fn new(network: &Network, weights: Weights<'_>) -> Result<Self> {
        network.check_weights(weights)?;
        let views = |layout: &ParamLayout, flat: &Tensor| {
            layout.views(&flat.detach().to_device(Device::Cpu).to_kind(Kind::Float))
        };
        Ok(Self {
            params: views(&network.params, weights.params),
            stats: views(&network.stats, weights.stats),
            nodes: vec![],
            constants: BTreeMap::new(),
            names: vec![String::new(); network.steps.len()],
        })
    }

    /// What was written, from inputs to an output.
    fn model(self, input: Vec<ValueInfo>, output: ValueInfo, opset: i64, metadata: &str) -> Model {
        let graph = Graph {
            name: "network".into(),
            node: self.nodes,
            initializer: self.constants.into_values().collect(),
            input,
            output: vec![output],
        };
        Model {
            // The format's version that came with the operator set.
            ir_version: Some(match opset {
                ..=14 => 7,
                15..=18 => 8,
                19..=20 => 9,
                _ => 10,
            }),
            producer_name: "nasfw".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(graph),
            opset_import: vec![OperatorSet {
                domain: Some(String::new()),
                version: Some(opset),
            }],
            metadata_props: vec![Property {
                key: "nasfw".into(),
                value: metadata.into(),
            }],
        }
    }

    fn node(
        &mut self,
        op_type: &str,
        name: &str,
        inputs: Vec<String>,
        output: &str,
        attribute: Vec<Attribute>,
    ) {
        self.nodes.push(Node {
            input: inputs,
            output: vec![output.into()],
            name: name.into(),
            op_type: op_type.into(),
            attribute,
        });
    }

    fn constant(&mut self, data: TensorData) -> String {
        let name = data.name.clone();
        self.constants.insert(name.clone(), data);
        name
    }

    fn param(&mut self, network: &Network, id: ParamId) -> Result<String> {
        let data = TensorData::floats(network.params.name(id), &self.params[id])?;
        Ok(self.constant(data))
    }

    fn stat(&mut self, network: &Network, id: ParamId) -> Result<String> {
        let data = TensorData::floats(network.stats.name(id), &self.stats[id])?;
        Ok(self.constant(data))
    }

    fn integers(&mut self, values: &[i64]) -> String {
        let text: Vec<String> = values.iter().map(i64::to_string).collect();
        let name = format!("integers_{}", text.join("_"));
        self.constant(TensorData::integers(name, values))
    }

    /// Makes images of raw pixels, by the operations and constants that training has; gives the name of the input.
    fn normalise(&mut self, scaling: &Normalisation, channels: i64) -> Result<&'static str> {
        let scaling = [&scaling.mean, &scaling.std];
        let [mean, std] = scaling.map(|values| values.len() as i64);
        if [mean, std] != [channels; 2] {
            return Err(Error::Invalid {
                what: "ONNX model".into(),
                why: format!("{mean} means and {std} deviations for {channels} channels"),
            });
        }
        let mut value = PIXELS.to_owned();
        let nodes = [
            ("Sub", "pixel_mean", "centred"),
            ("Div", "pixel_std", IMAGES),
        ];
        for ((op_type, name, output), values) in nodes.into_iter().zip(scaling) {
            let values = Tensor::from_slice(values).to_kind(Kind::Float) * BYTE;
            let constant = TensorData::floats(name, &values.view([1, -1, 1, 1]))?;
            let inputs = vec![value, self.constant(constant)];
            self.node(op_type, output, inputs, output, vec![]);
            value = output.to_owned();
        }
        Ok(PIXELS)
    }

    /// One value for every channel: the scale or shift of a batch norm without them.
    fn per_channel(&mut self, name: &str, value: f64, channels: i64) -> Result<String> {
        let tensor = Tensor::full([channels], value, (Kind::Float, Device::Cpu));
        let data = TensorData::floats(&format!("{name}_{channels}"), &tensor)?;
        Ok(self.constant(data))
    }

    /// Zeros of a step's shape for as many images as there are.
    fn zeros(&mut self, i: usize, step: &Step, output: &str) {
        let (zero, shape) = (self.integers(&[0]), self.integers(&step.shape));
        let [all, count, full] =
            ["images_shape", "batch", "shape"].map(|part| format!("{part}_{i}"));
        let axis = || vec![Attribute::int("axis", 0)];
        self.node("Shape", &all, vec![IMAGES.into()], &all, vec![]);
        self.node("Gather", &count, vec![all.clone(), zero], &count, axis());
        self.node("Concat", &full, vec![count.clone(), shape], &full, axis());
        self.node(
            "ConstantOfShape",
            output,
            vec![full.clone()],
            output,
            vec![],
        );
    }

    /// The parts from `starts` to `ends` along `axes`.
    fn slice(&mut self, input: String, output: &str, axes: &[i64], starts: &[i64], ends: &[i64]) {
        let inputs = [starts, ends, axes].map(|values| self.integers(values));
        let inputs = std::iter::once(input).chain(inputs).collect();
        self.node("Slice", output, inputs, output, vec![]);
    }

    /// Writes one step and returns the name of its value.
    fn step(&mut self, network: &Network, i: usize) -> Result<String> {
        let step = &network.steps[i];
        let mut inputs: Vec<String> = step.inputs.iter().map(|&x| self.names[x].clone()).collect();
        let is_output = i == network.logits;
        let op_type = match &step.op {
            Op::Images => return Ok(IMAGES.into()),
            // In evaluation drop path is the identity: the value goes by the name that it has.
            Op::DropPath if !is_output => return Ok(inputs.remove(0)),
            Op::DropPath => "Identity",
            Op::Conv { .. } => "Conv",
            Op::BatchNorm { .. } => "BatchNormalization",
            Op::Relu => "Relu",
            Op::MaxPool(_) => "MaxPool",
            Op::AvgPool(_) => "AveragePool",
            Op::Add => "Sum",
            Op::Concat => "Concat",
            Op::Channels { .. } => "Slice",
            Op::Shift => "Pad",
            Op::Zeros => "ConstantOfShape",
            Op::Noise => "RandomNormalLike",
            Op::GlobalAveragePool | Op::Flatten => "Flatten",
            Op::Linear { .. } => "Gemm",
            Op::Mix(_) => return Err(undecided()),
        };
        let output = match is_output {
            true => LOGITS.to_owned(),
            false => format!("{}_{i}", op_type.to_lowercase()),
        };
        let mut name = output.clone();
        let mut attributes = vec![];
        match &step.op {
            Op::Conv { weight, bias, conv } => {
                name = layer(network.params.name(*weight));
                for id in std::iter::once(weight).chain(bias) {
                    inputs.push(self.param(network, *id)?);
                }
                let [top, left] = conv.padding;
                attributes = vec![
                    Attribute::ints("dilations", &[conv.dilation; 2]),
                    Attribute::int("group", conv.groups),
                    Attribute::ints("kernel_shape", &conv.kernel),
                    Attribute::ints("pads", &[top, left, top, left]),
                    Attribute::ints("strides", &conv.stride),
                ];
            }
            Op::BatchNorm { scale, running } => {
                let running = running.ok_or_else(undecided)?;
                name = layer(network.stats.name(running[0]));
                if let Some(ids) = scale {
                    for id in ids {
                        inputs.push(self.param(network, *id)?);
                    }
                } else {
                    inputs.push(self.per_channel("ones", 1.0, step.shape[0])?);
                    inputs.push(self.per_channel("zeros", 0.0, step.shape[0])?);
                }
                for id in running {
                    inputs.push(self.stat(network, id)?);
                }
                attributes = vec![Attribute::float("epsilon", network.eps)];
            }
            Op::MaxPool(pool) => attributes = window(pool),
            Op::AvgPool(pool) => {
                attributes = window(pool);
                attributes.push(Attribute::int("count_include_pad", 0));
            }
            Op::Concat => attributes = vec![Attribute::int("axis", 1)],
            Op::Channels { first, count } => {
                self.slice(inputs.remove(0), &output, &[1], &[*first], &[first + count]);
                return Ok(output);
            }
            Op::Shift => {
                let [_, h, w] = step.shape;
                let cut = format!("slice_{i}");
                self.slice(inputs.remove(0), &cut, &[2, 3], &[1, 1], &[h, w]);
                inputs = vec![cut, self.integers(&[0, 0, 0, 0, 0, 0, 1, 1])];
            }
            Op::Zeros => {
                self.zeros(i, step, &output);
                return Ok(output);
            }
            Op::Noise => {
                let like = format!("constantofshape_{i}");
                self.zeros(i, step, &like);
                inputs = vec![like];
            }
            Op::GlobalAveragePool => {
                let mean = format!("globalaveragepool_{i}");
                self.node("GlobalAveragePool", &mean, inputs, &mean, vec![]);
                inputs = vec![mean];
            }
            Op::Linear { weight, bias } => {
                name = layer(network.params.name(*weight));
                inputs.push(self.param(network, *weight)?);
                inputs.push(self.param(network, *bias)?);
                attributes = vec![Attribute::int("transB", 1)];
            }
            Op::Images | Op::Relu | Op::Add | Op::DropPath | Op::Flatten | Op::Mix(_) => {}
        }
        self.node(op_type, &name, inputs, &output, attributes);
        Ok(output)
    }
}

/// What only the network of a supernet has.
fn undecided() -> Error {
    Error::Invalid {
        what: "ONNX model".into(),
        why: "the network's architecture is not decided".into(),
    }
}

/// A layer's name from that of one of its constants.
fn layer(constant: &str) -> String {
    let layer = constant
        .rsplit_once('.')
        .map_or(constant, |(layer, _)| layer);
    layer.to_owned()
}

fn window(pool: &Pool) -> Vec<Attribute> {
    vec![
        Attribute::ints("kernel_shape", &[pool.kernel; 2]),
        Attribute::ints("pads", &[pool.padding; 4]),
        Attribute::ints("strides", &[pool.stride; 2]),
    ]
}
