//! nasfw for Python: the whole program as one module, `nasfw._nasfw`, and the border that strategies in Python cross.
//!
//! The package around it (python/nasfw) is what people import. Whatever may run autograd runs without the interpreter's
//! lock: hooks of Python in a graph ask for it themselves.

mod arch;
mod distribution;
mod errors;
mod options;
mod plain;
mod search;
mod signals;
mod space;
mod strategy;
mod tensor;

use std::ffi::OsString;
use std::path::PathBuf;

use nasfw::framework::arch::Genotype;
use nasfw::framework::command::{set_itself, set_program};
use nasfw::framework::events::Event;
use nasfw::framework::listen::{Listener, shared};
use nasfw::framework::registry::{Kind, Plugin, Registry, set_finder};
use nasfw::framework::space::{SearchSpace, SpaceConfig, Task};
use nasfw::framework::supernet::SupernetOptions;
use nasfw::framework::trainer::Interrupt;
use nasfw::framework::{Error, Result};
use nasfw::{Guest, Program};
use pyo3::prelude::*;

use tensor::Shared;

/// The command line: words begin with the program's name. Gives the exit code.
#[pyfunction]
fn main(py: Python<'_>, words: Vec<OsString>) -> PyResult<u8> {
    py.detach(|| errors::guarded(|| Program::default().exit_code(&words)))
}

/// Says how the program is started: by which name people type it, and the words that start it once more.
#[pyfunction]
fn started_as(program: OsString, again: Vec<OsString>) {
    set_program(program);
    set_itself(again);
    set_finder(find);
}

/// Whoever listens to a run in Python.
struct Callback(Py<PyAny>);

impl Listener for Callback {
    fn event(&mut self, event: &Event) -> Result<()> {
        let value = serde_json::to_value(event).map_err(|e| Error::Invalid {
            what: "event".into(),
            why: e.to_string(),
        })?;
        let called = Python::attach(|py| {
            let event = plain::to_python(py, &value)?;
            self.0.call1(py, (event,)).map(drop)
        });
        called.map_err(|e| errors::inward("on_event", e))
    }
}

/// Carries words of the command line out in this process. Gives the folder that was worked in, if there is one, and what
/// the command line would have printed. Signals ask a run to save and end, if they are to be taken; KeyboardInterrupt is
/// raised then.
#[pyfunction]
#[pyo3(signature = (words, on_event=None, progress=false, signals=true))]
fn carry_out(
    py: Python<'_>,
    words: Vec<OsString>,
    on_event: Option<Py<PyAny>>,
    progress: bool,
    signals: bool,
) -> PyResult<(Option<PathBuf>, String)> {
    let interrupt = Interrupt::by_hand(|| {});
    let callback = on_event.map(|f| shared(Callback(f)));
    let guest = Guest {
        interrupt: interrupt.clone(),
        listeners: callback.into_iter().collect(),
        progress,
    };
    let outcome = py.detach(|| {
        let _taken = signals.then(|| signals::Taken::by(&interrupt));
        errors::guarded(|| Program::default().carry_out(&words, guest))
    });
    let carried = outcome?.map_err(errors::of_verb)?;
    Ok((carried.folder, carried.said))
}

/// Plugins that are named by the place of their code, `module:Class` or `file.py:Class`.
fn find(kind: Kind, name: &str) -> Result<Option<&'static Plugin>> {
    if !name.contains(':') {
        return Ok(None);
    }
    let found = Python::attach(|py| -> PyResult<Option<String>> {
        py.import("nasfw._plugins")?
            .call_method1("find_and_announce", (kind.name(), name))?
            .extract()
    });
    let found = found.map_err(|e| Error::Incompatible {
        what: format!("{} `{name}`", kind.name()),
        why: Python::attach(|py| e.value(py).to_string()),
        help: "name a class as `module:Class`, of a module that Python finds, or as `path/file.py:Class`".into(),
    });
    match found? {
        Some(name) => Registry::load()?.get(kind, &name).map(Some),
        None => Ok(None),
    }
}

/// All plugins as (kind, name, summary).
#[pyfunction]
fn plugins() -> PyResult<Vec<(String, String, String)>> {
    let registry = Registry::load().map_err(errors::outward)?;
    let all = registry.all().iter();
    Ok(all
        .map(|p| (p.kind().name().into(), p.name.into(), p.summary.into()))
        .collect())
}

/// Of an invariant: its name, what it says, how it is broken, why it does not apply.
type Finding = (String, String, Option<String>, Option<String>);

/// What the conformance suite finds of a strategy, or of a space for images of a task.
#[pyfunction]
fn conformance(
    py: Python<'_>,
    kind: &str,
    name: &str,
    task: (i64, i64, i64, i64),
) -> PyResult<Vec<Finding>> {
    use nasfw_conformance::Verdict;
    let (channels, height, width, classes) = task;
    let task = Task {
        channels,
        height,
        width,
        classes,
    };
    let reports = py.detach(|| errors::guarded(|| reports(kind, name, task)))?;
    let reports = reports.map_err(errors::outward)?;
    let findings = reports.iter().flat_map(|r| &r.findings).map(|f| {
        let (broken, idle) = match &f.verdict {
            Verdict::Held => (None, None),
            Verdict::Broken(why) => (Some(why.clone()), None),
            Verdict::NotApplicable(why) => (None, Some(why.to_string())),
        };
        (f.invariant.into(), f.about.into(), broken, idle)
    });
    Ok(findings.collect())
}

fn reports(kind: &str, name: &str, task: Task) -> Result<Vec<nasfw_conformance::Report>> {
    use nasfw_conformance as suite;
    let registry = Registry::load()?;
    if kind == Kind::Strategy.name() {
        return Ok(vec![suite::strategy(registry.get(Kind::Strategy, name)?)]);
    }
    let plugin = registry.get(Kind::Space, name)?;
    let section = plugin.default_section()?;
    let space = plugin.space(&section)?.build()?;
    let net = space.supernet(task, &SupernetOptions::default())?;
    Ok(vec![
        suite::space(name, space.as_ref(), task),
        suite::supernet(name, space.as_ref(), net.as_ref(), task),
        suite::space_options(plugin, &section, task),
    ])
}

/// A space from its section of run.json.
fn space_of(section: &str) -> Result<Box<dyn SearchSpace>> {
    let config: Box<dyn SpaceConfig> = serde_json::from_str(section).map_err(of_run)?;
    config.build()
}

fn of_run(e: serde_json::Error) -> Error {
    Error::Invalid {
        what: "space of a run".into(),
        why: e.to_string(),
    }
}

/// Groups of decisions of a space, from its section of run.json.
#[pyfunction]
fn spec_of(py: Python<'_>, section: &str) -> PyResult<Py<PyAny>> {
    let build = || serde_json::to_value(space_of(section)?.spec()).map_err(of_run);
    let spec = py.detach(|| errors::guarded(build))?;
    plain::to_python(py, &spec.map_err(errors::outward)?["groups"])
}

/// What a genotype, JSON, of such a space keeps: `[group][row][columns]`.
#[pyfunction]
fn choice_of(py: Python<'_>, section: &str, genotype: &str) -> PyResult<Vec<Vec<Vec<usize>>>> {
    let find = || -> Result<Vec<Vec<Vec<usize>>>> {
        let genotype = Genotype::from_json(genotype).map_err(|why| Error::Invalid {
            what: "genotype".into(),
            why,
        })?;
        Ok(space_of(section)?.choice(&genotype)?.groups().to_vec())
    };
    let kept = py.detach(|| errors::guarded(find))?;
    kept.map_err(errors::outward)
}

/// Gives a tensor back: a test of the border, and of what crossing it costs.
#[pyfunction]
fn same(tensor: Shared) -> Shared {
    tensor
}

/// Version of the libtorch that this module was built for.
#[pyfunction]
fn libtorch_version() -> &'static str {
    nasfw_kernels::libtorch_version()
}

#[pymodule]
fn _nasfw(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(main, m)?)?;
    m.add_function(wrap_pyfunction!(started_as, m)?)?;
    m.add_function(wrap_pyfunction!(carry_out, m)?)?;
    m.add_function(wrap_pyfunction!(plugins, m)?)?;
    m.add_function(wrap_pyfunction!(conformance, m)?)?;
    m.add_function(wrap_pyfunction!(spec_of, m)?)?;
    m.add_function(wrap_pyfunction!(choice_of, m)?)?;
    m.add_function(wrap_pyfunction!(same, m)?)?;
    m.add_function(wrap_pyfunction!(libtorch_version, m)?)?;
    m.add_function(wrap_pyfunction!(strategy::announce_strategy, m)?)?;
    m.add_function(wrap_pyfunction!(space::announce_space, m)?)?;
    m.add_class::<search::PySearch>()?;
    m.add_class::<search::PyBatch>()?;
    m.add_class::<arch::PyArch>()?;
    m.add_class::<arch::PySpec>()?;
    m.add_class::<distribution::PyRng>()?;
    Ok(())
}
