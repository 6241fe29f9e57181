//! Decisions and architectures as Python sees them.

use std::collections::BTreeMap;

use nasfw_framework::arch::{ArchSpec, Choice, RelaxedArch};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tch::Tensor;

use crate::plain;
use crate::tensor::{Shared, out, taken};

/// Weights of an architecture: a list of matrices, or what a distribution gave.
#[derive(FromPyObject)]
pub enum ArchArgument<'py> {
    Arch(PyRef<'py, PyArch>),
    Matrices(Vec<Shared>),
}

impl ArchArgument<'_> {
    /// As the framework has it.
    pub fn arch(self) -> RelaxedArch {
        match self {
            Self::Matrices(matrices) => RelaxedArch::new(taken(matrices)),
            Self::Arch(arch) => arch.0.shallow_clone(),
        }
    }
}

/// An architecture whose decisions have weights: one `[rows, width]` matrix per group.
#[pyclass(name = "Arch", module = "nasfw", frozen)]
pub struct PyArch(pub RelaxedArch);

// SAFETY: tensors are handles with counts that are atomic; nothing here changes them.
unsafe impl Sync for PyArch {}

#[pymethods]
impl PyArch {
    /// `active`: `[group][row][column]`, false where a candidate need not be computed; its weight must be zero. `scalars`:
    /// named numbers that a supernet may understand.
    #[new]
    #[pyo3(signature = (weights, active=None, scalars=BTreeMap::new(), log_prob=None))]
    fn new(
        weights: Vec<Shared>,
        active: Option<Vec<Vec<Vec<bool>>>>,
        scalars: BTreeMap<String, f64>,
        log_prob: Option<Shared>,
    ) -> Self {
        Self(RelaxedArch {
            active,
            scalars,
            log_prob: log_prob.map(|t| t.0),
            ..RelaxedArch::new(taken(weights))
        })
    }

    /// One `[rows, width]` matrix per group; padding is zero.
    #[getter]
    fn weights(&self) -> Vec<Shared> {
        out(self.0.weights.iter().map(Tensor::shallow_clone))
    }

    /// `[group][row][column]`; none where every candidate is computed.
    #[getter]
    fn active(&self) -> Option<Vec<Vec<Vec<bool>>>> {
        self.0.active.clone()
    }

    /// The log-probability of the sample, a scalar, where the distribution has one.
    #[getter]
    fn log_prob(&self) -> Option<Shared> {
        self.0.log_prob.as_ref().map(|t| Shared(t.shallow_clone()))
    }

    /// Named numbers that a supernet may understand.
    #[getter]
    fn scalars(&self) -> BTreeMap<String, f64> {
        self.0.scalars.clone()
    }

    /// The same without gradients.
    fn detach(&self) -> Self {
        Self(self.0.detach())
    }
}

/// What there is to decide.
#[pyclass(name = "Spec", module = "nasfw", frozen)]
pub struct PySpec(pub ArchSpec);

#[pymethods]
impl PySpec {
    /// Groups with their rows and candidates, as plain data.
    #[getter]
    fn groups(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let value =
            serde_json::to_value(&self.0).map_err(|e| PyValueError::new_err(e.to_string()))?;
        plain::to_python(py, &value["groups"])
    }

    /// Numbers in all matrices of weights, padding included.
    #[getter]
    fn numel(&self) -> i64 {
        self.0.numel()
    }

    /// Shapes of the matrices, one per group.
    #[getter]
    fn shapes(&self) -> Vec<[i64; 2]> {
        self.0.groups().iter().map(|g| g.shape()).collect()
    }

    /// How many architectures there are.
    #[getter]
    fn size(&self) -> f64 {
        self.0.size()
    }

    /// Row-wise softmax of flat logits `[numel]`, one matrix per group; padding is zero.
    fn softmax(&self, flat: Shared) -> PyResult<Vec<Shared>> {
        self.fits(&flat)?;
        Ok(out(self.0.softmax(&flat.0)))
    }

    /// A flat vector `[numel]` as one matrix per group.
    fn split(&self, flat: Shared) -> PyResult<Vec<Shared>> {
        self.fits(&flat)?;
        Ok(out(self.0.split(&flat.0)))
    }
}

impl PySpec {
    fn fits(&self, flat: &Shared) -> PyResult<()> {
        let (shape, wanted) = (flat.0.size(), [self.0.numel()]);
        match shape == wanted {
            true => Ok(()),
            false => Err(PyValueError::new_err(format!(
                "a flat vector of shape {shape:?}; the decisions of this space have {wanted:?}"
            ))),
        }
    }
}

/// Refuses weights of an architecture that have other shapes than a space's.
pub fn check_shapes(spec: &ArchSpec, weights: &[Tensor]) -> PyResult<()> {
    let shapes: Vec<[i64; 2]> = spec.groups().iter().map(|g| g.shape()).collect();
    let wanted: Vec<&[i64]> = shapes.iter().map(|s| s.as_slice()).collect();
    let given: Vec<Vec<i64>> = weights.iter().map(Tensor::size).collect();
    match wanted.iter().copied().eq(given.iter().map(Vec::as_slice)) {
        true => Ok(()),
        false => Err(PyValueError::new_err(format!(
            "weights of an architecture of shapes {given:?}; those of this space are {wanted:?}"
        ))),
    }
}

/// Kept candidates as a choice of a space.
pub fn choice_of(spec: &ArchSpec, kept: Vec<Vec<Vec<usize>>>) -> PyResult<Choice> {
    let choice = Choice::new(kept);
    choice
        .check(spec)
        .map_err(|e| PyValueError::new_err(e.to_string()))?;
    Ok(choice)
}
