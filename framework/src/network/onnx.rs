//! The network as an ONNX model in evaluation mode.
//!
//! The messages are the part of `onnx.proto` that such a model needs, with the field numbers of the standard. All
//! operators are in their form of operator sets 13 to 21, which is one and the same.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use prost::Message;
use tch::{Device, Kind, Tensor};

use super::graph::{Network, Op, Pool, Step};
use crate::error::{Error, Result};
use crate::params::{ParamId, ParamLayout, Views};
use crate::supernet::Weights;
use crate::tensors::to_bytes;

/// Operator sets that a model can be written for.
pub const ONNX_OPSETS: RangeInclusive<i64> = 13..=21;
/// The operator set that runtimes since 2022 read.
pub const ONNX_OPSET: i64 = 17;

/// Name of the model's input (`[batch, channels, height, width]`, normalised).
const IMAGES: &str = "images";
/// Name of the model's output (`[batch, classes]`).
const LOGITS: &str = "logits";
/// Name of the batch dimension, which may have any size.
const BATCH: &str = "batch";

const FLOAT: i32 = 1;
const INT64: i32 = 7;

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(int64, optional, tag = "1")]
    ir_version: Option<i64>,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(string, tag = "3")]
    producer_version: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSet>,
    #[prost(message, repeated, tag = "14")]
    metadata_props: Vec<Property>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSet {
    #[prost(string, optional, tag = "1")]
    domain: Option<String>,
    #[prost(int64, optional, tag = "2")]
    version: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Property {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorData>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(float, optional, tag = "2")]
    f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    i: Option<i64>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    ints: Vec<i64>,
    /// 1 float, 2 integer, 7 integers.
    #[prost(int32, tag = "20")]
    kind: i32,
}

#[derive(Clone, PartialEq, Message)]
struct TensorData {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    /// Little-endian.
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    element: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, optional, tag = "1")]
    value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    name: Option<String>,
}

impl Network {
    /// An ONNX model of the network in evaluation mode, in single precision whatever the weights are: input `images`
    /// (`[batch, channels, height, width]`, normalised), output `logits` (`[batch, classes]`), any batch size, constants
    /// named as in the layouts. Noise operations become `RandomNormalLike`, so they draw in the runtime too.
    /// `metadata`, JSON by convention, is kept as the model's property `nasfw`.
    ///
    /// # Errors
    /// An operator set outside [`ONNX_OPSETS`], weights of another length than the layouts', and models of 2 GiB and
    /// more, which the format can't hold.
    pub fn onnx(&self, weights: Weights<'_>, opset: i64, metadata: &str) -> Result<Vec<u8>> {
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
        self.check_weights(weights)?;
        let views = |layout: &ParamLayout, flat: &Tensor| {
            layout.views(&flat.detach().to_device(Device::Cpu).to_kind(Kind::Float))
        };
        let mut writer = Writer {
            params: views(&self.params, weights.params),
            stats: views(&self.stats, weights.stats),
            nodes: vec![],
            constants: BTreeMap::new(),
            names: vec![String::new(); self.steps.len()],
        };
        for &i in &self.main.steps {
            writer.names[i] = writer.step(self, i)?;
        }
        let task = self.task;
        let info = |name: &str, shape: &[i64]| ValueInfo {
            name: name.into(),
            kind: Some(Type::floats(shape)),
        };
        let graph = Graph {
            name: "network".into(),
            node: writer.nodes,
            initializer: writer.constants.into_values().collect(),
            input: vec![info(IMAGES, &[task.channels, task.height, task.width])],
            output: vec![info(LOGITS, &[task.classes])],
        };
        let model = Model {
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
        };
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
}

impl Type {
    /// Floats of any batch size.
    fn floats(shape: &[i64]) -> Self {
        let batch = Dimension {
            value: None,
            name: Some(BATCH.into()),
        };
        let known = shape.iter().map(|&n| Dimension {
            value: Some(n),
            name: None,
        });
        Self {
            tensor: Some(TensorType {
                element: FLOAT,
                shape: Some(Shape {
                    dim: std::iter::once(batch).chain(known).collect(),
                }),
            }),
        }
    }
}

impl Attribute {
    fn new(name: &str, kind: i32) -> Self {
        Self {
            name: name.into(),
            kind,
            ..Self::default()
        }
    }

    fn float(name: &str, f: f64) -> Self {
        Self {
            f: Some(f as f32),
            ..Self::new(name, 1)
        }
    }

    fn int(name: &str, i: i64) -> Self {
        Self {
            i: Some(i),
            ..Self::new(name, 2)
        }
    }

    fn ints(name: &str, ints: &[i64]) -> Self {
        Self {
            ints: ints.to_vec(),
            ..Self::new(name, 7)
        }
    }
}

impl TensorData {
    fn floats(name: &str, tensor: &Tensor) -> Result<Self> {
        Ok(Self {
            dims: tensor.size(),
            data_type: FLOAT,
            name: name.into(),
            raw_data: to_bytes(tensor)?.bytes,
        })
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
        self.constant(TensorData {
            dims: vec![values.len() as i64],
            data_type: INT64,
            name: format!("integers_{}", text.join("_")),
            raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        })
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
