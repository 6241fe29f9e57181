//! Tensors by the address of what their handles share, for another language in the same process: PyTorch's `_cdata`.

use std::ffi::c_void;

use tch::Tensor;
use torch_sys::C_tensor;

unsafe extern "C" {
    fn nasfw_handle_address(tensor: *const C_tensor) -> *mut c_void;
    fn nasfw_handle_at(address: *mut c_void) -> *mut C_tensor;
}

/// The address of a tensor's implementation, which is `torch.Tensor._cdata` of a tensor in Python. It is good as long as
/// some handle of the tensor lives.
pub fn address(tensor: &Tensor) -> usize {
    // SAFETY: the tensor is valid for the call, and nothing of it is kept.
    unsafe { nasfw_handle_address(tensor.as_ptr()) as usize }
}

/// One more handle of the tensor at an address: the same values, the same graph.
///
/// # Safety
/// The address must be that of a tensor ([`address`], `_cdata`) of which a handle lives during the call.
pub unsafe fn at(address: usize) -> Tensor {
    // SAFETY: as the caller promises; the new handle is ours to own.
    unsafe { Tensor::from_ptr(nasfw_handle_at(address as *mut c_void)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_handles_share_values_and_graph() {
        let leaf = Tensor::from_slice(&[1.0f64, 2.0]).set_requires_grad(true);
        let product = &leaf * 3.0;
        // SAFETY: `product` lives.
        let again = unsafe { at(address(&product)) };
        assert_eq!(address(&again), address(&product));
        drop(product);
        let sum = again.sum(tch::Kind::Double);
        sum.backward();
        assert_eq!(Vec::<f64>::try_from(leaf.grad()).ok(), Some(vec![3.0, 3.0]));
    }
}
