//! What the edges of a supernet compute, in a few passes over memory.
//!
//! Both operations compute candidates of a number of edges at once, multiply each edge's result by its weight in the
//! architecture, and add it to the node where the edge ends, in place. They keep only what convolutions read and
//! write; ReLUs and batch norms are recomputed in the backward pass. CPU only, single or double precision, first
//! derivatives only. Results do not depend on the number of threads.
//!
//! Shapes: images are `[n, c, h, w]` with channels innermost, tensors of several edges `[n, edges × c, h, w]`.

use std::ptr;

use tch::{Device, Kind, TchError, Tensor};
use torch_sys::C_tensor;

use crate::message::{Message, check};
use crate::precision::autocast_enabled;

unsafe extern "C" {
    fn nasfw_fused_fits(c: i64, bytes: i64) -> bool;
    fn nasfw_fused_separable(
        out: *mut *mut C_tensor,
        x: *const C_tensor,
        stages: i64,
        weights: *const *const C_tensor,
        strides: *const i64,
        dilations: *const i64,
        mix: *const C_tensor,
        edges: i64,
        nodes: *const *const C_tensor,
    ) -> Message;
    fn nasfw_fused_blend(
        out: *mut *mut C_tensor,
        y: *const C_tensor,
        norm: bool,
        gain: *const C_tensor,
        bias: *const C_tensor,
        relu: bool,
        c: i64,
        mix: *const C_tensor,
        edges: i64,
        nodes: *const *const C_tensor,
    ) -> Message;
}

/// Whether there are kernels for images of `c` channels like `x`. Under autocast there are none, as convolutions then
/// change the kind of numbers.
pub fn fits(x: &Tensor, c: i64) -> bool {
    let bytes = match x.kind() {
        Kind::Float => 4,
        Kind::Double => 8,
        _ => return false,
    };
    // SAFETY: no pointers.
    x.device() == Device::Cpu
        && !autocast_enabled(Device::Cpu)
        && unsafe { nasfw_fused_fits(c, bytes) }
}

/// ReLU, depthwise convolution, pointwise convolution, batch norm with the batch's statistics and no scale.
pub struct Stage {
    /// `[edges × c, 1, k, k]`, k 3, 5 or 7.
    pub depthwise: Tensor,
    /// `[edges × c, c, 1, 1]`.
    pub pointwise: Tensor,
    /// 1 or 2.
    pub stride: i64,
    /// 1 or 2; the padding keeps the size at stride 1.
    pub dilation: i64,
}

/// Batch norm with the batch's statistics over every channel.
pub enum Norm {
    /// None.
    None,
    /// Without scale and shift.
    Plain,
    /// With a gain and a bias for every channel of what is normalised.
    Affine(Tensor, Tensor),
}

/// Adds `mix[e]` times what the stages make of `x` (`[n, c, h, w]`) with the weights of edge `e` to `nodes[e]`, which is
/// made where there is none. Nodes differ from each other.
///
/// # Errors
/// Images that are none, shapes and kinds that do not fit, fewer nodes than weights, nodes that share memory, and batch
/// norms over a single number a channel.
pub fn separable(
    x: &Tensor,
    stages: &[Stage],
    mix: &Tensor,
    nodes: &mut [&mut Option<Tensor>],
) -> Result<(), TchError> {
    let weights: Vec<_> = stages
        .iter()
        .flat_map(|s| [s.depthwise.as_ptr(), s.pointwise.as_ptr()])
        .collect();
    let strides: Vec<i64> = stages.iter().map(|s| s.stride).collect();
    let dilations: Vec<i64> = stages.iter().map(|s| s.dilation).collect();
    into_nodes(nodes, |out, old, edges| {
        // SAFETY: every pointer is valid for the call, and the arrays are as long as told.
        unsafe {
            nasfw_fused_separable(
                out,
                x.as_ptr(),
                stages.len() as i64,
                weights.as_ptr(),
                strides.as_ptr(),
                dilations.as_ptr(),
                mix.as_ptr(),
                edges,
                old,
            )
        }
    })
}

/// Adds `mix[e]` times an activation of `y` to `nodes[e]` (`[n, c, h, w]`), which is made where there is none. `y` is one
/// tensor for all edges (`[n, c, h, w]`) or holds the edges' side by side; the activation is batch norm, then ReLU, each
/// if wanted. Nodes differ from each other.
///
/// # Errors
/// As of [`separable`].
pub fn blend(
    y: &Tensor,
    norm: &Norm,
    relu: bool,
    c: i64,
    mix: &Tensor,
    nodes: &mut [&mut Option<Tensor>],
) -> Result<(), TchError> {
    let (gain, bias) = match norm {
        Norm::Affine(gain, bias) => (gain.as_ptr(), bias.as_ptr()),
        _ => (ptr::null(), ptr::null()),
    };
    into_nodes(nodes, |out, old, edges| {
        // SAFETY: every pointer is valid for the call or null where null is allowed.
        unsafe {
            nasfw_fused_blend(
                out,
                y.as_ptr(),
                !matches!(norm, Norm::None),
                gain,
                bias,
                relu,
                c,
                mix.as_ptr(),
                edges,
                old,
            )
        }
    })
}

/// Calls `f` with room for the new nodes, the old ones and their number, and puts what it made in the nodes' place.
fn into_nodes(
    nodes: &mut [&mut Option<Tensor>],
    f: impl FnOnce(*mut *mut C_tensor, *const *const C_tensor, i64) -> Message,
) -> Result<(), TchError> {
    let old: Vec<*const C_tensor> = nodes
        .iter()
        .map(|n| n.as_ref().map_or(ptr::null(), |n| n.as_ptr()))
        .collect();
    let mut out = vec![ptr::null_mut(); nodes.len()];
    check(f(out.as_mut_ptr(), old.as_ptr(), nodes.len() as i64))?;
    for (node, made) in nodes.iter_mut().zip(out) {
        // SAFETY: on success every entry is a new tensor, ours to own.
        **node = Some(unsafe { Tensor::from_ptr(made) });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
