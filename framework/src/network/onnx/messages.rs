//! The part of `onnx.proto` that a model in evaluation mode needs, with the field numbers of the standard.

use prost::Message;
use tch::Tensor;

use crate::error::Result;
use crate::tensors::to_bytes;

/// Name of the batch dimension, which may have any size.
const BATCH: &str = "batch";

/// Types of a tensor's numbers.
const FLOAT: i32 = 1;
const INT64: i32 = 7;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(int64, optional, tag = "1")]
    pub ir_version: Option<i64>,
    #[prost(string, tag = "2")]
    pub producer_name: String,
    #[prost(string, tag = "3")]
    pub producer_version: String,
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSet>,
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<Property>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OperatorSet {
    #[prost(string, optional, tag = "1")]
    pub domain: Option<String>,
    #[prost(int64, optional, tag = "2")]
    pub version: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Property {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<TensorData>,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    /// 1 float, 2 integer, 7 integers.
    #[prost(int32, tag = "20")]
    pub kind: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorData {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(string, tag = "8")]
    pub name: String,
    /// Little-endian.
    #[prost(bytes = "vec", tag = "9")]
    pub raw_data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub kind: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Type {
    #[prost(message, optional, tag = "1")]
    pub tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorType {
    #[prost(int32, tag = "1")]
    pub element: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Dimension {
    #[prost(int64, optional, tag = "1")]
    pub value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
}

impl Type {
    /// Floats of any batch size.
    pub fn floats(shape: &[i64]) -> Self {
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

    /// A number.
    pub fn float(name: &str, f: f64) -> Self {
        Self {
            f: Some(f as f32),
            ..Self::new(name, 1)
        }
    }

    /// A whole number.
    pub fn int(name: &str, i: i64) -> Self {
        Self {
            i: Some(i),
            ..Self::new(name, 2)
        }
    }

    /// Whole numbers.
    pub fn ints(name: &str, ints: &[i64]) -> Self {
        Self {
            ints: ints.to_vec(),
            ..Self::new(name, 7)
        }
    }
}

impl TensorData {
    /// Numbers of single precision, as they are in a tensor of that kind.
    pub fn floats(name: &str, tensor: &Tensor) -> Result<Self> {
        Ok(Self {
            dims: tensor.size(),
            data_type: FLOAT,
            name: name.into(),
            raw_data: to_bytes(tensor)?.bytes,
        })
    }

    /// A list of whole numbers.
    pub fn integers(name: String, values: &[i64]) -> Self {
        Self {
            dims: vec![values.len() as i64],
            data_type: INT64,
            name,
            raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }
}
