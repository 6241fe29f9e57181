//! Distributions that a strategy in Python has: one of the framework's, or one written in Python.

use std::sync::Mutex;

use nasfw_framework::Result;
use nasfw_framework::arch::{ArchSpec, Choice, RelaxedArch};
use nasfw_framework::distribution::{
    ArchDistribution, Dirichlet, GumbelSoftmax, IndependentSoftmax, Relaxation, has_none,
};
use nasfw_framework::params::{Init, ParamLayout};
use nasfw_framework::rng::{self, Rng};
use pyo3::exceptions::{PyNotImplementedError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use rand::Rng as _;
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::arch::{ArchArgument, check_shapes, choice_of};
use crate::errors::inward;
use crate::plain;
use crate::tensor::{Shared, taken};

/// One of the framework's distributions, as `nasfw.Softmax` and its like say it.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Known {
    Softmax {
        init_std: f64,
    },
    GumbelSoftmax {
        init_mean: f64,
        init_std: f64,
        temperature: f64,
        hard: bool,
    },
    Dirichlet {
        init_std: f64,
    },
}

/// The distribution that `distribution()` of a strategy in Python returned.
pub fn of(given: Bound<'_, PyAny>, spec: &ArchSpec) -> PyResult<Option<Box<dyn ArchDistribution>>> {
    if given.is_none() {
        return Ok(None);
    }
    if let Ok(settings) = given.getattr("framework") {
        let known = serde_json::from_value(plain::from_python(&settings)?);
        let known = known.map_err(|e| PyValueError::new_err(format!("distribution: {e}")))?;
        return Ok(Some(match known {
            Known::Softmax { init_std } => Box::new(IndependentSoftmax::new(spec, init_std)),
            Known::Dirichlet { init_std } => Box::new(Dirichlet::new(spec, init_std)),
            Known::GumbelSoftmax {
                init_mean,
                init_std,
                temperature,
                hard,
            } => {
                let relaxation = if hard {
                    Relaxation::Hard
                } else {
                    Relaxation::Soft
                };
                let mut gumbel = GumbelSoftmax::new(spec, init_mean, init_std);
                gumbel.temperature = temperature;
                gumbel.operations = relaxation;
                gumbel.topology = relaxation;
                Box::new(gumbel)
            }
        }));
    }
    let parts: Vec<(String, Vec<i64>, f64)> = given.call_method0("layout")?.extract().map_err(
        |_: PyErr| {
            PyTypeError::new_err(
                "`layout()` of a distribution is a list of (name, shape, standard deviation at the start)",
            )
        },
    )?;
    let mut layout = ParamLayout::new();
    for (name, shape, std) in parts {
        let init = match std {
            0.0 => Init::Zeros,
            std => Init::Normal { std },
        };
        layout.add(name, &shape, init);
    }
    Ok(Some(Box::new(PythonDistribution {
        layout,
        spec: spec.clone(),
        object: given.unbind(),
    })))
}

/// Counted random numbers of one draw.
#[pyclass(name = "Rng", module = "nasfw", frozen)]
pub struct PyRng {
    rng: Mutex<Rng>,
    kind: Kind,
    device: Device,
}

#[pymethods]
impl PyRng {
    /// Standard normal numbers of a shape.
    fn normal(&self, shape: Vec<i64>) -> Shared {
        self.with(|rng| rng::normal(rng, &shape, self.kind, self.device))
    }

    /// Numbers uniform in [0, 1) of a shape.
    fn uniform(&self, shape: Vec<i64>) -> Shared {
        self.with(|rng| rng::uniform(rng, &shape, self.kind, self.device))
    }

    /// A seed for generators of Python.
    fn seed(&self) -> u64 {
        let mut rng = self
            .rng
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        rng.next_u64() >> 1
    }
}

impl PyRng {
    fn with(&self, draw: impl FnOnce(&mut Rng) -> Tensor) -> Shared {
        let mut rng = self
            .rng
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        Shared(draw(&mut rng))
    }
}

/// A distribution whose functions are written in Python.
struct PythonDistribution {
    layout: ParamLayout,
    spec: ArchSpec,
    object: Py<PyAny>,
}

impl PythonDistribution {
    /// Calls a method; one that is not implemented is something that the distribution does not have.
    fn call<R>(
        &self,
        what: &'static str,
        call: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<R>,
    ) -> Result<R> {
        Python::attach(|py| {
            call(self.object.bind(py)).map_err(|e| {
                match e.is_instance_of::<PyNotImplementedError>(py) {
                    true => has_none(what),
                    false => inward("distribution", e),
                }
            })
        })
    }

    /// Draws with random numbers that Python advances.
    fn drawing<R>(
        &self,
        what: &'static str,
        phi: &Tensor,
        rng: &mut Rng,
        call: impl FnOnce(&Bound<'_, PyAny>, &Bound<'_, PyRng>) -> PyResult<R>,
    ) -> Result<R> {
        self.call(what, |object| {
            let lent = PyRng {
                rng: Mutex::new(rng.clone()),
                kind: phi.kind(),
                device: phi.device(),
            };
            let lent = Bound::new(object.py(), lent)?;
            let result = call(object, &lent);
            let moved = lent.get().rng.lock();
            *rng = moved
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .clone();
            result
        })
    }
}

impl ArchDistribution for PythonDistribution {
    fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        self.call("mean", |object| {
            let given = object.call_method1("mean", (Shared(phi.shallow_clone()),))?;
            let weights = taken(given.extract()?);
            check_shapes(&self.spec, &weights)?;
            Ok(weights)
        })
    }

    fn sample(&self, phi: &Tensor, rng: &mut Rng) -> Result<RelaxedArch> {
        self.drawing("relaxed samples", phi, rng, |object, rng| {
            let given = object.call_method1("sample", (Shared(phi.shallow_clone()), rng))?;
            let arch = given.extract::<ArchArgument<'_>>()?.arch();
            check_shapes(&self.spec, &arch.weights)?;
            Ok(arch)
        })
    }

    fn draw(&self, phi: &Tensor, rng: &mut Rng) -> Result<Choice> {
        self.drawing("discrete draws", phi, rng, |object, rng| {
            let given = object.call_method1("draw", (Shared(phi.shallow_clone()), rng))?;
            choice_of(&self.spec, given.extract()?)
        })
    }

    fn log_prob(&self, phi: &Tensor, choice: &Choice) -> Result<Tensor> {
        self.call("log-probabilities", |object| {
            let phi = Shared(phi.shallow_clone());
            let given = object.call_method1("log_prob", (phi, choice.groups().to_vec()))?;
            Ok(given.extract::<Shared>()?.0)
        })
    }
}
