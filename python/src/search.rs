//! What a step in Python may ask for.

use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::thread::{self, ThreadId};

use nasfw_framework::Error;
use nasfw_framework::arch::Choice;
use nasfw_framework::batches::{Batch, Split};
use nasfw_framework::distribution::ArchDistribution;
use nasfw_framework::rng;
use nasfw_framework::search::{Fidelity, LookUp, Metric, Search};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use rand::Rng as _;
use tch::{Device, Tensor};

use crate::arch::{ArchArgument, PyArch, PySpec, check_shapes, choice_of};
use crate::errors::{guarded, outward};
use crate::plain;
use crate::tensor::{Shared, out, taken};

/// A search, to be worked with or only to be looked at.
pub enum Access<'a> {
    /// In a step, and at the ends of epochs.
    Whole(&'a mut Search),
    /// Where an architecture is derived or drawn.
    Look(&'a Search),
}

impl Access<'_> {
    fn search(&self) -> &Search {
        match self {
            Self::Whole(search) => search,
            Self::Look(search) => search,
        }
    }
}

/// What is lent to Python for the time of a call.
struct Lent<'a> {
    search: Access<'a>,
    distribution: Option<&'a dyn ArchDistribution>,
}

/// What moves to a closure that runs without the interpreter's lock.
struct Sent<T>(T);
// SAFETY: `Python::detach` runs its closure on the calling thread; nothing leaves it.
unsafe impl<T> Send for Sent<T> {}

/// A running search, good for as long as the call that it was given to, on the thread of that call.
#[pyclass(name = "Search", module = "nasfw", frozen)]
pub struct PySearch {
    /// A `Lent`; null while it is at work and when the call is over.
    lent: AtomicPtr<()>,
    thread: ThreadId,
    spec: Py<PySpec>,
}

/// Takes the search back when the call is over, however it ends.
struct Back<'py>(Bound<'py, PySearch>);

impl Drop for Back<'_> {
    fn drop(&mut self) {
        self.0.get().lent.store(null_mut(), Ordering::Release);
    }
}

impl PySearch {
    /// Lends a search, and the distribution of its strategy, to a function of Python.
    pub fn lend<R>(
        search: Access<'_>,
        distribution: Option<&dyn ArchDistribution>,
        spec: &Py<PySpec>,
        py: Python<'_>,
        f: impl FnOnce(&Bound<'_, PySearch>) -> PyResult<R>,
    ) -> PyResult<R> {
        let mut lent = Lent {
            search,
            distribution,
        };
        let object = Self {
            lent: AtomicPtr::new((&raw mut lent).cast()),
            thread: thread::current().id(),
            spec: spec.clone_ref(py),
        };
        let back = Back(Bound::new(py, object)?);
        f(&back.0)
    }

    /// Works with what is lent, without the interpreter's lock: backward passes may need it for what Python put into a graph.
    fn lent<R>(&self, py: Python<'_>, f: impl FnOnce(&mut Lent<'_>) -> R) -> PyResult<R> {
        let refused = |why: &str| {
            Err(PyRuntimeError::new_err(format!(
                "this search can't be used now: {why}"
            )))
        };
        if self.thread != thread::current().id() {
            return refused("it belongs to the thread of the step");
        }
        let pointer = self.lent.swap(null_mut(), Ordering::AcqRel);
        if pointer.is_null() {
            return refused("it is at work, or the call that it was given to is over");
        }
        let work = Sent((pointer.cast::<Lent<'_>>(), f));
        let result = py.detach(move || {
            let Sent((lent, f)) = { work };
            // SAFETY: `lend` borrowed it for the whole call, and nobody else has the pointer now.
            Sent(guarded(|| f(unsafe { &mut *lent })))
        });
        self.lent.store(pointer, Ordering::Release);
        result.0
    }

    /// Looks at the search.
    fn look<R>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&Search, Option<&dyn ArchDistribution>) -> R,
    ) -> PyResult<R> {
        self.lent(py, |lent| f(lent.search.search(), lent.distribution))
    }

    /// The same of what can fail.
    fn try_look<R>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&Search, Option<&dyn ArchDistribution>) -> nasfw_framework::Result<R>,
    ) -> PyResult<R> {
        self.look(py, f)?.map_err(|e| of_graph(py, e))
    }

    /// Changes the search.
    fn change<R>(&self, py: Python<'_>, f: impl FnOnce(&mut Search) -> R) -> PyResult<R> {
        self.lent(py, |lent| match &mut lent.search {
            Access::Whole(search) => Ok(f(search)),
            Access::Look(_) => Err(PyRuntimeError::new_err(
                "this search can only be looked at here: the step is over",
            )),
        })?
    }

    /// The same of what can fail.
    fn try_change<R>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&mut Search) -> nasfw_framework::Result<R>,
    ) -> PyResult<R> {
        self.change(py, f)?.map_err(|e| of_graph(py, e))
    }

    /// Refuses weights of other shapes than the space's.
    fn check(&self, weights: &[Tensor]) -> PyResult<()> {
        check_shapes(&self.spec.get().0, weights)
    }
}

/// An error as an exception. A hook of Python in a graph leaves its exception behind: it is what went wrong.
fn of_graph(py: Python<'_>, e: Error) -> PyErr {
    PyErr::take(py).unwrap_or_else(|| outward(e))
}

/// What a strategy without a distribution is told that asks for one.
fn need(
    distribution: Option<&dyn ArchDistribution>,
) -> nasfw_framework::Result<&dyn ArchDistribution> {
    distribution.ok_or(Error::HasNone {
        who: "this strategy",
        what: "distribution: let `distribution()` return one",
    })
}

/// A part of the training images by its name.
fn split_of(name: &str) -> PyResult<Split> {
    match name {
        "full" => Ok(Split::Full),
        "train" => Ok(Split::Train),
        "val" => Ok(Split::Val),
        _ => Err(PyValueError::new_err(format!(
            "`{name}` is no part of the images: \"full\", \"train\" or \"val\""
        ))),
    }
}

/// A batch of images.
#[pyclass(name = "Batch", module = "nasfw", frozen)]
pub struct PyBatch(Batch);

// SAFETY: tensors are handles with counts that are atomic; nothing here changes them.
unsafe impl Sync for PyBatch {}

#[pymethods]
impl PyBatch {
    /// `[n, channels, height, width]`, normalised.
    #[getter]
    fn images(&self) -> Shared {
        Shared(self.0.images.shallow_clone())
    }

    /// `[n]`, int64.
    #[getter]
    fn labels(&self) -> Shared {
        Shared(self.0.labels.shallow_clone())
    }

    /// `"full"`, `"train"` or `"val"`; none for test images.
    #[getter]
    fn split(&self) -> Option<String> {
        self.0.split.map(|s| format!("{s:?}").to_lowercase())
    }

    fn __len__(&self) -> usize {
        usize::try_from(self.0.len()).unwrap_or_default()
    }
}

#[pymethods]
impl PySearch {
    /// What there is to decide.
    #[getter]
    fn spec(&self, py: Python<'_>) -> Py<PySpec> {
        self.spec.clone_ref(py)
    }

    /// Steps done before this one.
    #[getter]
    fn step(&self, py: Python<'_>) -> PyResult<u64> {
        self.look(py, |s, _| s.clock().step)
    }

    /// Number of the epoch, from 0.
    #[getter]
    fn epoch(&self, py: Python<'_>) -> PyResult<u64> {
        self.look(py, |s, _| s.epoch())
    }

    /// Planned epochs.
    #[getter]
    fn epochs(&self, py: Python<'_>) -> PyResult<u64> {
        self.look(py, |s, _| s.epochs())
    }

    /// Steps of an epoch.
    #[getter]
    fn steps_per_epoch(&self, py: Python<'_>) -> PyResult<u64> {
        self.look(py, |s, _| s.steps_per_epoch())
    }

    /// Share of the search that is done, from 0 to 1.
    #[getter]
    fn progress(&self, py: Python<'_>) -> PyResult<f64> {
        self.look(py, |s, _| s.progress())
    }

    /// Where schedules stand that move once an epoch: 0 in the first epoch, 1 in the last.
    #[getter]
    fn epoch_progress(&self, py: Python<'_>) -> PyResult<f64> {
        self.look(py, |s, _| s.epoch_progress())
    }

    /// Whether this is the last epoch.
    #[getter]
    fn is_last_epoch(&self, py: Python<'_>) -> PyResult<bool> {
        self.look(py, |s, _| s.is_last_epoch())
    }

    /// Images a batch.
    #[getter]
    fn batch_size(&self, py: Python<'_>) -> PyResult<usize> {
        self.look(py, |s, _| s.batch_size())
    }

    /// Where tensors live: `"cpu"` or `"cuda:N"`.
    #[getter]
    fn device(&self, py: Python<'_>) -> PyResult<String> {
        self.look(py, |s, _| match s.device() {
            Device::Cuda(n) => format!("cuda:{n}"),
            _ => "cpu".to_owned(),
        })
    }

    /// θ, the weights of the supernet: a flat leaf that requires gradients.
    #[getter]
    fn theta(&self, py: Python<'_>) -> PyResult<Shared> {
        self.look(py, |s, _| Shared(s.theta()))
    }

    /// φ, the parameters of the distribution: a flat leaf that requires gradients.
    #[getter]
    fn phi(&self, py: Python<'_>) -> PyResult<Shared> {
        self.look(py, |s, _| Shared(s.phi()))
    }

    /// Learning rate of θ in this step.
    #[getter]
    fn theta_lr(&self, py: Python<'_>) -> PyResult<f64> {
        self.look(py, |s, _| s.theta_lr())
    }

    /// Learning rate of φ in this step.
    #[getter]
    fn phi_lr(&self, py: Python<'_>) -> PyResult<f64> {
        self.look(py, |s, _| s.phi_lr())
    }

    /// The momentum that θ's optimizer has gathered, flat.
    #[getter]
    fn theta_momentum(&self, py: Python<'_>) -> PyResult<Shared> {
        self.look(py, |s, _| {
            Shared(s.theta_optimizer().momentum_buffer().shallow_clone())
        })
    }

    /// Reports a number with the next progress event.
    fn log(&self, py: Python<'_>, name: &str, value: f64) -> PyResult<()> {
        self.change(py, |s| s.log(name, value))
    }

    /// The next batch of a part of the training images.
    #[pyo3(signature = (split="train"))]
    fn batch(&self, py: Python<'_>, split: &str) -> PyResult<PyBatch> {
        let split = split_of(split)?;
        self.try_change(py, |s| s.batch(split).map(PyBatch))
    }

    /// Loss of an architecture at weights on a batch, a scalar with a graph.
    fn loss(
        &self,
        py: Python<'_>,
        theta: Shared,
        arch: ArchArgument<'_>,
        batch: &PyBatch,
    ) -> PyResult<Shared> {
        let arch = arch.arch();
        self.check(&arch.weights)?;
        self.try_change(py, |s| s.loss(&theta.0, &arch, &batch.0).map(Shared))
    }

    /// The loss that the weights descend, at θ: wrappers such as SmoothDARTS change it.
    fn weight_loss(
        &self,
        py: Python<'_>,
        arch: ArchArgument<'_>,
        batch: &PyBatch,
    ) -> PyResult<Shared> {
        let arch = arch.arch();
        self.check(&arch.weights)?;
        self.try_change(py, |s| s.weight_loss(&arch, &batch.0).map(Shared))
    }

    /// The loss through operators that have derivatives of every order.
    fn smooth_loss(
        &self,
        py: Python<'_>,
        theta: Shared,
        arch: ArchArgument<'_>,
        batch: &PyBatch,
    ) -> PyResult<Shared> {
        let arch = arch.arch();
        self.check(&arch.weights)?;
        self.try_change(py, |s| s.smooth_loss(&theta.0, &arch, &batch.0).map(Shared))
    }

    /// Gradients of a scalar with respect to leaves; zero where it does not depend on one.
    fn gradients(
        &self,
        py: Python<'_>,
        loss: Shared,
        leaves: Vec<Shared>,
    ) -> PyResult<Vec<Shared>> {
        let leaves = taken(leaves);
        self.try_look(py, |s, _| {
            let leaves: Vec<&Tensor> = leaves.iter().collect();
            s.gradients(&loss.0, &leaves).map(out)
        })
    }

    /// One step of θ's optimizer along a gradient.
    fn descend_theta(&self, py: Python<'_>, gradient: Shared) -> PyResult<()> {
        self.change(py, |s| s.descend_theta(&gradient.0))
    }

    /// One step of φ's optimizer along a gradient.
    fn descend_phi(&self, py: Python<'_>, gradient: Shared) -> PyResult<()> {
        self.try_change(py, |s| s.descend_phi(&gradient.0))
    }

    /// Puts numbers of the strategy's own rule into φ.
    fn set_phi(&self, py: Python<'_>, value: Shared) -> PyResult<()> {
        let value = value.0;
        self.change(py, |s| {
            if s.phi().size() != value.size() {
                let (is, given) = (s.phi().size(), value.size());
                return Err(PyValueError::new_err(format!(
                    "φ has the shape {is:?}, the new value {given:?}"
                )));
            }
            s.update_phi(|phi| phi.copy_(&value.detach()));
            Ok(())
        })?
    }

    /// A number that goes with every architecture whose loss is taken from here on in this step: `"drop-path"`,
    /// `"skip-dropout"`, `"auxiliary-skip"`.
    fn set_scalar(&self, py: Python<'_>, name: &str, value: f64) -> PyResult<()> {
        self.change(py, |s| s.set_scalar(name, value))
    }

    /// A relaxed sample of the strategy's distribution, differentiable in φ, with the random numbers of stream `name`.
    #[pyo3(signature = (name="sample"))]
    fn sample(&self, py: Python<'_>, name: &str) -> PyResult<PyArch> {
        self.try_look(py, |s, d| {
            let sample = need(d)?.sample(&s.phi(), &mut s.rng(name))?;
            Ok(PyArch(sample))
        })
    }

    /// The distribution without its noise, one matrix per group.
    fn mean(&self, py: Python<'_>) -> PyResult<Vec<Shared>> {
        self.try_look(py, |s, d| need(d)?.mean(&s.phi()).map(out))
    }

    /// A discrete draw of the strategy's distribution: kept candidates as `[group][row][index]`.
    #[pyo3(signature = (name="draw"))]
    fn draw(&self, py: Python<'_>, name: &str) -> PyResult<Vec<Vec<Vec<usize>>>> {
        self.try_look(py, |s, d| {
            let choice = need(d)?.draw(&s.phi(), &mut s.rng(name))?;
            Ok(choice.groups().to_vec())
        })
    }

    /// The log-probability of a discrete draw, a scalar differentiable in φ.
    fn log_prob(&self, py: Python<'_>, choice: Vec<Vec<Vec<usize>>>) -> PyResult<Shared> {
        let choice = self.choice(choice)?;
        self.try_look(py, |s, d| need(d)?.log_prob(&s.phi(), &choice).map(Shared))
    }

    /// An architecture drawn uniformly from the space.
    #[pyo3(signature = (name="random"))]
    fn random(&self, py: Python<'_>, name: &str) -> PyResult<Vec<Vec<Vec<usize>>>> {
        self.look(py, |s, _| {
            s.space().random(&mut s.rng(name)).groups().to_vec()
        })
    }

    /// The architecture that computes exactly what is chosen.
    fn one_hot(&self, py: Python<'_>, choice: Vec<Vec<Vec<usize>>>) -> PyResult<PyArch> {
        let choice = self.choice(choice)?;
        self.look(py, |s, _| PyArch(s.one_hot(&choice)))
    }

    /// Puts weights, one matrix per group, through the space's rule of derivation.
    fn derive(&self, py: Python<'_>, weights: Vec<Shared>) -> PyResult<Vec<Vec<Vec<usize>>>> {
        let weights = taken(weights);
        self.check(&weights)?;
        self.look(py, |s, _| {
            let marginals = s.space().spec().to_marginals(&weights);
            s.space().derive(&marginals).groups().to_vec()
        })
    }

    /// The architecture that a choice stands for, as plain data.
    fn genotype(&self, py: Python<'_>, choice: Vec<Vec<Vec<usize>>>) -> PyResult<Py<PyAny>> {
        let choice = self.choice(choice)?;
        let genotype = self.look(py, |s, _| s.space().genotype(&choice))?;
        let value = serde_json::to_value(genotype);
        plain::to_python(
            py,
            &value.map_err(|e| PyValueError::new_err(e.to_string()))?,
        )
    }

    /// Loss, accuracy, top-5 accuracy (or none) and number of images of an architecture, without training: on plain
    /// batches of a part of the training images, or of the test images where `split` is none.
    #[pyo3(signature = (arch, split=None, batches=None))]
    fn evaluate(
        &self,
        py: Python<'_>,
        arch: ArchArgument<'_>,
        split: Option<&str>,
        batches: Option<usize>,
    ) -> PyResult<(f64, f64, Option<f64>, f64)> {
        let arch = arch.arch();
        self.check(&arch.weights)?;
        let split = split.map(split_of).transpose()?;
        self.try_look(py, |s, _| {
            let meter = s.evaluate(&arch, split, batches)?;
            Ok((meter.loss, meter.accuracy, meter.top5, meter.images))
        })
    }

    /// Trains an architecture as far as the benchmark stands in for that: its metric; none where the table lacks it, or
    /// where the budget of simulated seconds is spent. `epochs`: none for the whole training, 0 for the shortest.
    #[pyo3(signature = (choice, metric="", epochs=None))]
    fn look_up(
        &self,
        py: Python<'_>,
        choice: Vec<Vec<Vec<usize>>>,
        metric: &str,
        epochs: Option<u64>,
    ) -> PyResult<Option<f64>> {
        let choice = self.choice(choice)?;
        let fidelity = match epochs {
            None => Fidelity::Full,
            Some(0) => Fidelity::Lowest,
            Some(n) => Fidelity::Epochs(n),
        };
        let metric = Metric {
            name: metric,
            fidelity,
        };
        self.try_change(py, |s| {
            Ok(match s.look_up(&choice, metric)? {
                LookUp::Score(score) => Some(score),
                LookUp::Unknown | LookUp::TooDear => None,
            })
        })
    }

    /// Standard normal numbers of the stream `name` at this step: the same at every call within the step, and after the run
    /// is resumed.
    fn normal(&self, py: Python<'_>, name: &str, shape: Vec<i64>) -> PyResult<Shared> {
        self.look(py, |s, _| {
            Shared(rng::normal(&mut s.rng(name), &shape, s.kind(), s.device()))
        })
    }

    /// Numbers uniform in [0, 1), as [`PySearch::normal`].
    fn uniform(&self, py: Python<'_>, name: &str, shape: Vec<i64>) -> PyResult<Shared> {
        self.look(py, |s, _| {
            Shared(rng::uniform(&mut s.rng(name), &shape, s.kind(), s.device()))
        })
    }

    /// A seed of the stream `name` at this step, for generators of Python.
    #[pyo3(signature = (name="seed"))]
    fn seed(&self, py: Python<'_>, name: &str) -> PyResult<u64> {
        // Python's generators take what fits a signed number.
        self.look(py, |s, _| s.rng(name).next_u64() >> 1)
    }

    fn __repr__(&self) -> String {
        let spec = &self.spec.get().0;
        format!(
            "<nasfw.Search with {} groups of decisions>",
            spec.groups().len()
        )
    }
}

impl PySearch {
    fn choice(&self, kept: Vec<Vec<Vec<usize>>>) -> PyResult<Choice> {
        choice_of(&self.spec.get().0, kept)
    }
}
