//! Tensors as bytes of a safetensors file.

use safetensors::{Dtype, View};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// Kinds of numbers, in libtorch's words and in those of safetensors.
pub(crate) const KINDS: [(Kind, Dtype); 10] = [
    (Kind::Float, Dtype::F32),
    (Kind::Double, Dtype::F64),
    (Kind::Half, Dtype::F16),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Int64, Dtype::I64),
    (Kind::Int, Dtype::I32),
    (Kind::Int16, Dtype::I16),
    (Kind::Int8, Dtype::I8),
    (Kind::Uint8, Dtype::U8),
    (Kind::Bool, Dtype::BOOL),
];

/// A tensor as it is written: row by row.
pub(crate) struct Bytes {
    dtype: Dtype,
    shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl View for Bytes {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        self.bytes.as_slice().into()
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// A tensor's numbers, row by row.
///
/// # Errors
/// A kind of number that no file holds.
pub(crate) fn to_bytes(tensor: &Tensor) -> Result<Bytes> {
    let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    let known = KINDS.iter().find(|(kind, _)| *kind == tensor.kind());
    let Some((_, dtype)) = known else {
        return Err(Error::Invalid {
            what: "tensor".into(),
            why: format!("files hold no tensors of kind {:?}", tensor.kind()),
        });
    };
    let shape = tensor.size().iter().map(|&n| n as usize).collect();
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(Bytes {
        dtype: *dtype,
        shape,
        bytes,
    })
}
