//! A strategy written in Python, as the trainer sees it.

use std::collections::BTreeMap;

use nasfw_framework::arch::Choice;
use nasfw_framework::config::{ConfigError, Validator};
use nasfw_framework::distribution::ArchDistribution;
use nasfw_framework::optim::OptimizerConfig;
use nasfw_framework::registry::{Kind, Parse, announce};
use nasfw_framework::search::Search;
use nasfw_framework::strategy::{
    ArchGradient, BuildContext, Changes, Claims, Control, DataPlan, Endpoints, Picture, Strategy,
    StrategyConfig, StrategyState, WeightGradient,
};
use nasfw_framework::supernet::SupernetOptions;
use nasfw_framework::{Error, Result};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::Tensor;

use crate::arch::PySpec;
use crate::distribution;
use crate::errors::inward;
use crate::options::{About, Kept, PLUGINS};
use crate::plain;
use crate::search::{Access, PySearch};
use crate::tensor::Shared;

/// What a run keeps of a strategy in Python.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PythonStrategy(Kept);

#[typetag::serde(name = "python")]
impl StrategyConfig for PythonStrategy {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Python::attach(|py| self.built(py, cx))
            .map(|built| Box::new(built) as _)
            .map_err(|e| inward(&self.0.plugin, e))
    }

    fn name(&self) -> &str {
        &self.0.plugin
    }

    fn validate(&self, v: &mut Validator) {
        self.0.validate("strategy", v);
        for (key, value) in self.0.options() {
            if let Ok(optimizer) = serde_json::from_value::<OptimizerConfig>(value.clone()) {
                optimizer.validate(&format!("strategy.{key}"), v);
            }
        }
    }

    fn needs_benchmark(&self) -> bool {
        let asked = Python::attach(|py| -> PyResult<bool> {
            self.0.make(py)?.getattr("needs_benchmark")?.extract()
        });
        // What is wrong with it is said when it is built.
        asked.unwrap_or(false)
    }
}

impl PythonStrategy {
    fn built(&self, py: Python<'_>, cx: BuildContext<'_>) -> PyResult<PythonSearch> {
        let object = self.0.make(py)?;
        let spec = Py::new(py, PySpec(cx.spec.clone()))?;
        object.setattr("spec", &spec)?;
        object.setattr("epochs", cx.epochs)?;
        let arch = object.getattr("arch")?;
        let optimizer = match arch.is_none() {
            true => None,
            false => {
                let settings = plain::from_python(&arch.call_method0("settings")?)?;
                let optimizer = serde_json::from_value(settings);
                Some(optimizer.map_err(|e| PyValueError::new_err(format!("arch: {e}")))?)
            }
        };
        let claims = claims(&plain::from_python(&object.call_method0("claims")?)?)?;
        Ok(PythonSearch {
            name: self.0.plugin.clone(),
            distribution: distribution::of(object.call_method0("distribution")?, cx.spec)?,
            optimizer,
            data: data(&object.getattr("data")?)?,
            supernet: supernet_options(&object)?,
            needs_history: object.getattr("needs_history")?.extract()?,
            claims,
            spec,
            object: object.unbind(),
        })
    }
}

/// Which images to train on.
fn data(given: &Bound<'_, PyAny>) -> PyResult<DataPlan> {
    if let Ok(steps) = given.extract::<u64>() {
        return Ok(DataPlan::Steps(steps));
    }
    match given.extract::<String>().as_deref() {
        Ok("full") => Ok(DataPlan::Full),
        Ok("halves") => Ok(DataPlan::Halves),
        _ => Err(PyValueError::new_err(format!(
            "data = {}: it must be \"full\", \"halves\", or a number of steps an epoch without images",
            given.repr()?
        ))),
    }
}

/// What the object asks of the supernet.
fn supernet_options(object: &Bound<'_, PyAny>) -> PyResult<SupernetOptions> {
    match plain::from_python(&object.call_method0("supernet_options")?)? {
        Value::Null => Ok(SupernetOptions::default()),
        options => serde_json::from_value(options)
            .map_err(|e| PyValueError::new_err(format!("supernet_options: {e}"))),
    }
}

/// What a step is held to, from a table: `arch_gradient` and `weight_gradient` as words, `adversarial`, `schedules`.
fn claims(said: &Value) -> PyResult<Claims> {
    /// Claims live as long as the program, as those of linked plugins do.
    fn forever(text: &str) -> &'static str {
        Box::leak(text.to_owned().into_boxed_str())
    }
    let word = |key: &str| said[key].as_str();
    let schedules = said["schedules"].as_object().into_iter().flatten();
    let schedules = schedules.filter_map(|(scalar, ends)| {
        Some(Endpoints {
            scalar: forever(scalar),
            start: ends.get(0)?.as_f64()?,
            end: ends.get(1)?.as_f64()?,
        })
    });
    Ok(Claims {
        arch_gradient: match word("arch_gradient") {
            None | Some("direct") => ArchGradient::Direct,
            Some("unrolled") => ArchGradient::Unrolled,
            Some("score") => ArchGradient::Score,
            Some(reason) => ArchGradient::Other(forever(reason)),
        },
        weight_gradient: match word("weight_gradient") {
            None | Some("mean") => WeightGradient::Mean,
            Some(reason) => WeightGradient::Other(forever(reason)),
        },
        adversarial: said["adversarial"].as_bool().unwrap_or(false),
        schedules: schedules.collect(),
    })
}

/// What a strategy asks of the trainer, from the table that `epoch_end` returned.
fn control(said: &Value) -> PyResult<Control> {
    let changes = || Changes {
        batch_size: said["batch_size"]
            .as_u64()
            .and_then(|n| usize::try_from(n).ok()),
        weight_decay: said["weight_decay"].as_f64(),
    };
    match (said, said["control"].as_str()) {
        (Value::Null, _) => Ok(Control::Continue),
        (Value::String(reason), _) => Ok(Control::Stop(reason.clone())),
        (_, Some("set")) => Ok(Control::Set(changes())),
        (_, Some("rollback")) => Ok(Control::Rollback {
            epoch: said["epoch"].as_u64().unwrap_or_default(),
            changes: changes(),
        }),
        (_, Some("rebuild")) => Ok(Control::Rebuild {
            carry_weights: said["carry_weights"].as_bool().unwrap_or(false),
        }),
        _ => Err(PyTypeError::new_err(format!(
            "`epoch_end` returned {said}: it must return nothing, a text (why the search ends), or nasfw.Set, \
             nasfw.Rollback or nasfw.Rebuild"
        ))),
    }
}

/// A strategy at work.
struct PythonSearch {
    name: String,
    object: Py<PyAny>,
    spec: Py<PySpec>,
    distribution: Option<Box<dyn ArchDistribution>>,
    optimizer: Option<OptimizerConfig>,
    data: DataPlan,
    supernet: SupernetOptions,
    needs_history: bool,
    claims: Claims,
}

impl PythonSearch {
    /// Calls a hook of Python with the search.
    fn call<R>(
        &self,
        hook: &str,
        search: Access<'_>,
        then: impl FnOnce(Bound<'_, PyAny>) -> PyResult<R>,
    ) -> Result<R> {
        let result = Python::attach(|py| {
            PySearch::lend(
                search,
                self.distribution.as_deref(),
                &self.spec,
                py,
                |search| then(self.object.bind(py).call_method1(hook, (search,))?),
            )
        });
        result.map_err(|e| inward(&self.name, e))
    }

    /// The same of a hook that may draw random numbers of torch's own generators: they are those of this step, however the
    /// run came to it.
    fn call_seeded(&self, hook: &str, search: &mut Search) -> Result<Value> {
        let seed = search.rng(hook).next_u64() >> 1;
        let seeded =
            Python::attach(|py| py.import(PLUGINS)?.call_method1("seed", (seed,)).map(drop));
        seeded.map_err(|e| inward(&self.name, e))?;
        self.call(hook, Access::Whole(search), |r| plain::from_python(&r))
    }

    /// Asks the object anew for what may follow from its state: after a rebuild, and when it was restored.
    fn refreshed(&mut self, py: Python<'_>) -> PyResult<()> {
        let object = self.object.bind(py);
        let spec = &self.spec.borrow(py).0;
        self.distribution = distribution::of(object.call_method0("distribution")?, spec)?;
        self.supernet = supernet_options(object)?;
        Ok(())
    }
}

impl Strategy for PythonSearch {
    fn step(&mut self, search: &mut Search) -> Result<()> {
        self.call_seeded("step", search).map(drop)
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        self.distribution.as_deref()
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        self.optimizer.as_ref()
    }

    fn claims(&self) -> Claims {
        self.claims.clone()
    }

    fn data(&self) -> DataPlan {
        self.data
    }

    fn supernet_options(&self) -> SupernetOptions {
        self.supernet.clone()
    }

    fn needs_history(&self) -> bool {
        self.needs_history
    }

    fn epoch_start(&mut self, search: &mut Search) -> Result<()> {
        self.call_seeded("epoch_start", search).map(drop)
    }

    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        let said = self.call_seeded("epoch_end", search)?;
        let control = control(&said).map_err(|e| inward(&self.name, e))?;
        if let Control::Rebuild { .. } = control {
            let refreshed = Python::attach(|py| self.refreshed(py));
            refreshed.map_err(|e| inward(&self.name, e))?;
        }
        Ok(control)
    }

    fn derive(&self, search: &Search) -> Result<Choice> {
        let kept = self.call("derive", Access::Look(search), |kept| {
            kept.extract::<Option<Vec<Vec<Vec<usize>>>>>()
        })?;
        if let Some(kept) = kept {
            let choice = Choice::new(kept);
            choice.check(search.space().spec())?;
            return Ok(choice);
        }
        match search.marginals(self.distribution())? {
            Some(marginals) => Ok(search.space().derive(&marginals)),
            None => Err(Error::Plugin {
                plugin: self.name.clone(),
                message: "it has no distribution, so it must implement `derive`".into(),
            }),
        }
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        let metrics = Python::attach(|py| {
            self.object
                .bind(py)
                .call_method0("metrics")?
                .extract::<BTreeMap<String, f64>>()
        });
        metrics.unwrap_or_else(|e| {
            // There is no way to refuse here; the next step does.
            let _ = inward(&self.name, e);
            BTreeMap::new()
        })
    }

    fn pictures(&self, search: &Search) -> Result<BTreeMap<String, Picture>> {
        self.call("pictures", Access::Look(search), |p| p.extract())
    }

    fn state(&self) -> Result<StrategyState> {
        let parted = Python::attach(|py| -> PyResult<StrategyState> {
            let state = self.object.bind(py).call_method0("state")?;
            let (values, tensors): (Bound<'_, PyAny>, BTreeMap<String, Shared>) = py
                .import(PLUGINS)?
                .call_method1("parted", (state,))?
                .extract()?;
            Ok(StrategyState {
                values: plain::from_python(&values)?,
                tensors: tensors.into_iter().map(|(k, t)| (k, t.0)).collect(),
            })
        });
        parted.map_err(|e| inward(&self.name, e))
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        let restored = Python::attach(|py| -> PyResult<()> {
            let tensors: BTreeMap<String, Shared> = (state.tensors.into_iter())
                .map(|(k, t): (String, Tensor)| (k, Shared(t)))
                .collect();
            let values = plain::to_python(py, &state.values)?;
            let state = py
                .import(PLUGINS)?
                .call_method1("joined", (values, tensors))?;
            self.object.bind(py).call_method1("restore", (state,))?;
            self.refreshed(py)
        });
        restored.map_err(|e| inward(&self.name, e))
    }
}

fn parse(section: &Value) -> Result<Box<dyn StrategyConfig>, ConfigError> {
    Ok(Box::new(PythonStrategy(Kept::of(Kind::Strategy, section)?)))
}

/// Adds a strategy of Python to the registry.
#[pyfunction]
pub fn announce_strategy(class: &str, about: About) {
    announce(about.plugin(Kind::Strategy, class, Parse::Strategy(parse)));
}
