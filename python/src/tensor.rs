//! `torch.Tensor` and `tch::Tensor` are two handles of one object: values, graph and identity are shared.

use nasfw_kernels::handle;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};
use pyo3::{Borrowed, intern};
use tch::Tensor;

/// `torch.Tensor`.
fn class(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "torch", "Tensor")
}

/// A tensor that crosses the border, by the address of what both handles share (`_cdata`).
pub struct Shared(pub Tensor);

impl FromPyObject<'_, '_> for Shared {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let py = object.py();
        if !object.is_instance(class(py)?)? {
            return Err(PyTypeError::new_err(format!(
                "expected a torch.Tensor, got {}",
                object.get_type()
            )));
        }
        let address: usize = object.getattr(intern!(py, "_cdata"))?.extract()?;
        // SAFETY: `_cdata` is the address of the tensor's implementation, and `object` lives during this call.
        Ok(Self(unsafe { handle::at(address) }))
    }
}

impl<'py> IntoPyObject<'py> for Shared {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let words = PyDict::new(py);
        words.set_item(intern!(py, "cdata"), handle::address(&self.0))?;
        class(py)?.call((), Some(&words))
    }
}

/// Tensors on their way out.
pub fn out(tensors: impl IntoIterator<Item = Tensor>) -> Vec<Shared> {
    tensors.into_iter().map(Shared).collect()
}

/// Tensors that came in.
pub fn taken(tensors: Vec<Shared>) -> Vec<Tensor> {
    tensors.into_iter().map(|t| t.0).collect()
}
