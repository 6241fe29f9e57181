//! Standalone networks: what a derived architecture becomes when it is trained alone.
//!
//! A network is a list of primitive operations in topological order. The forward pass, the counts of parameters and
//! multiply-adds and the exported files all come from that one description, so that they can't disagree.
//!
//! ```
//! use nasfw_framework::network::{Conv, NetworkBuilder};
//! use nasfw_framework::space::Task;
//!
//! let task = Task { channels: 3, height: 32, width: 32, classes: 10 };
//! let (mut b, images) = NetworkBuilder::new(task);
//! let x = b.conv("stem.conv", images, 16, Conv::same(3));
//! let x = b.batch_norm("stem.bn", x, true);
//! let x = b.relu(x);
//! let x = b.global_average_pool(x);
//! let logits = b.linear("classifier", x, task.classes);
//! let network = b.finish(logits, None)?;
//! assert_eq!(network.size().params, 3 * 3 * 3 * 16 + 2 * 16 + 16 * 10 + 10);
//! # Ok::<(), nasfw_framework::Error>(())
//! ```

mod builder;
mod conv;
mod decide;
mod decisions;
mod forward;
mod graph;
mod mixed;
mod mixture;
mod onnx;
mod pieces;
mod pool;
mod pytorch;
mod standalone;
mod weights;

pub use builder::{NetworkBuilder, Value};
pub use conv::{channels_last, convolution};
pub use forward::Logits;
pub use graph::{Conv, Network, NetworkOptions, Size};
pub use mixed::Mixed;
pub use onnx::{ONNX_OPSET, ONNX_OPSETS, OnnxOptions};
pub use pieces::Piece;
pub use pool::average_pool;
pub use pytorch::PyTorchNotes;
pub use standalone::{DROP_PATH, LossOptions, Standalone};
pub(crate) use weights::safetensors;
