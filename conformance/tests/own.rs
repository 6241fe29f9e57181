//! The suite on the framework's own distributions, on a plugin that breaks the rule of names, and on datasets
//! and trackers with faults.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use nasfw_conformance as conformance;
use nasfw_framework::arch::{ArchSpec, Group, Role, Row};
use nasfw_framework::cost::{Cost, Unit};
use nasfw_framework::dataset::{DataSource, Dataset, ImageData, Part, Task};
use nasfw_framework::distribution::{Dirichlet, GumbelSoftmax, Relaxation};
use nasfw_framework::events::Event;
use nasfw_framework::listen::{Listener, SharedListener, shared};
use nasfw_framework::network::Network;
use nasfw_framework::outcome::Outcome;
use nasfw_framework::proxy::{Proxy, Start};
use nasfw_framework::registry::{Parse, Plugin, parse_section};
use nasfw_framework::rng::Streams;
use nasfw_framework::space::{SearchSpace, SpaceConfig};
use nasfw_framework::tracker::{Tracked, Tracker};
use nasfw_framework::{Error, Result};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use serde_json::json;

fn row(candidates: usize, keep: usize) -> Row {
    Row {
        name: format!("{candidates} {keep}"),
        candidates: (0..candidates).map(|c| c.to_string()).collect(),
        keep,
    }
}

fn group(name: &str, role: Role, rows: Vec<Row>) -> Group {
    Group {
        name: name.into(),
        role,
        rows,
        edges: None,
    }
}

#[test]
fn dirichlet_is_a_distribution_over_architectures() {
    let rows = vec![row(3, 1), row(2, 1)];
    let spec = ArchSpec::new(vec![group("ops", Role::Operations, rows)]).unwrap();
    let report = conformance::distribution("dirichlet", &Dirichlet::new(&spec, 1.0), &spec);
    report.ok().unwrap();
    assert_eq!(report.held().len(), 5, "{report}");
}

/// Ragged operations, and topology that keeps two.
#[test]
fn gumbel_is_a_distribution_over_architectures() {
    let spec = ArchSpec::new(vec![
        group("ops", Role::Operations, vec![row(3, 1), row(2, 1)]),
        group("inputs", Role::Topology, vec![row(4, 2)]),
    ])
    .unwrap();
    for relaxation in [Relaxation::Soft, Relaxation::Hard] {
        let mut d = GumbelSoftmax::new(&spec, 1.0, 0.5);
        (d.operations, d.topology) = (relaxation, relaxation);
        let report = conformance::distribution("gumbel", &d, &spec);
        report.ok().unwrap();
        assert_eq!(report.held().len(), 8, "{report}");
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Renamed {}

#[typetag::serde(name = "old-name")]
impl SpaceConfig for Renamed {
    fn build(&self) -> Result<Box<dyn SearchSpace>> {
        Err(Error::Registry("never built".into()))
    }
}

#[test]
fn settings_that_are_kept_under_another_name_break_a_rule() {
    let report = |name| {
        conformance::plugin(&Plugin {
            name,
            summary: "",
            source: "",
            defaults: "",
            presets: &[],
            families: &[],
            example: "",
            spaces: &[],
            parse: Parse::Space(|v| parse_section::<Renamed>(v).map(|c| Box::new(c) as _)),
            kept_as: name,
            crate_name: "a",
            crate_version: "1.0.0",
            file: "lib.rs",
        })
    };
    let broken = report("new-name");
    let names: Vec<&str> = broken.broken().iter().map(|f| f.invariant).collect();
    assert!(names.contains(&"typetag-name"), "{broken}");
    let twin = report("old-name");
    let held = twin.held().iter().any(|f| f.invariant == "typetag-name");
    assert!(held, "{twin}");
}

/// What is wrong with a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Fault {
    None,
    Label,
    Class,
    Half,
    Test,
    Names,
    Mean,
    Deviation,
    Constant,
    Twice,
    Empty,
}

#[derive(Debug, Serialize, Deserialize)]
struct Noise {
    fault: Fault,
}

#[typetag::serde(name = "noise-with-faults")]
impl Dataset for Noise {
    fn load(&self, source: &DataSource) -> Result<ImageData> {
        static READS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let fault = self.fault;
        let reads = READS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let seed = if fault == Fault::Twice {
            reads
        } else {
            source.seed
        };
        let part = |name, images: usize| {
            let mut rng = Streams::new(seed).at(name, 0);
            let mut bytes: Vec<u8> = (0..images * 12).map(|_| rng.random()).collect();
            if fault == Fault::Constant {
                bytes.fill(100);
            }
            let mut labels: Vec<u16> = (0..images).map(|i| (i % 4) as u16).collect();
            match fault {
                Fault::Label => labels[5] = 4,
                Fault::Class => labels.iter_mut().for_each(|l| *l %= 3),
                Fault::Half => labels[images / 2..].iter_mut().for_each(|l| *l %= 3),
                Fault::Test if name == "test" => labels.iter_mut().for_each(|l| *l %= 3),
                _ => {}
            }
            Part {
                images: bytes.into(),
                labels,
            }
        };
        let name = |i: usize| {
            if fault == Fault::Names {
                "one".into()
            } else {
                format!("class {i}")
            }
        };
        Ok(ImageData {
            task: Task {
                channels: 3,
                height: 2,
                width: 2,
                classes: 4,
            },
            train: part("train", 64),
            test: part("test", if fault == Fault::Empty { 0 } else { 16 }),
            split: None,
            mean: vec![if fault == Fault::Mean { 127.5 } else { 0.5 }; 3],
            std: vec![if fault == Fault::Deviation { 1.0 } else { 0.29 }; 3],
            classes: (0..4).map(name).collect(),
        })
    }
}

#[test]
fn faults_of_datasets_are_found() {
    for (fault, expected) in [
        (Fault::None, &[] as &[&str]),
        (Fault::Label, &["loads"]),
        (Fault::Class, &["halves-know-all-classes"]),
        (Fault::Half, &["halves-know-all-classes"]),
        (Fault::Test, &["halves-know-all-classes"]),
        (Fault::Names, &["names-classes"]),
        (Fault::Mean, &["normalises"]),
        (Fault::Deviation, &["normalises"]),
        (Fault::Constant, &["normalises", "has-content"]),
        (Fault::Twice, &["same-twice"]),
        (Fault::Empty, &["has-images", "halves-know-all-classes"]),
    ] {
        let report = conformance::dataset("noise", &Noise { fault }, &DataSource::default());
        let broken: Vec<&str> = report.broken().iter().map(|f| f.invariant).collect();
        assert_eq!(broken, expected, "{fault:?}: {report}");
    }
}

/// What is wrong with a tracker.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Slip {
    None,
    /// It needs the end of a run.
    Found,
    /// It makes a file that must not be there yet.
    Again,
    /// It takes plain numbers alone.
    Numbers,
    /// It writes into a file of the run.
    Config,
    /// It writes a file of any name.
    Foreign,
}

#[derive(Debug, Serialize, Deserialize)]
struct Slips {
    slip: Slip,
}

struct Notes {
    slip: Slip,
    run: PathBuf,
}

#[typetag::serde(name = "notes")]
impl Tracker for Slips {
    fn track(&self, run: Tracked<'_>) -> Result<SharedListener> {
        let name = match self.slip {
            Slip::Config => "config.toml",
            Slip::Foreign => "other.txt",
            _ => "notes.txt",
        };
        let path = run.run.join(name);
        let opened = match self.slip {
            Slip::Again => File::create_new(&path),
            _ => File::create(&path),
        };
        opened.map_err(Error::io("create", &path))?;
        Ok(shared(Notes {
            slip: self.slip,
            run: run.run.to_owned(),
        }))
    }
}

impl Listener for Notes {
    fn event(&mut self, event: &Event) -> Result<()> {
        let odd = |numbers: Vec<(String, f64)>| numbers.iter().any(|(_, v)| !v.is_finite());
        if self.slip == Slip::Numbers && event.scalars().is_some_and(|(_, all)| odd(all)) {
            return Err(Error::Registry("such a number".into()));
        }
        Ok(())
    }

    fn found(&mut self, _outcome: &Outcome) -> Result<()> {
        assert!(self.slip != Slip::Found, "{} is over", self.run.display());
        Ok(())
    }
}

#[test]
fn faults_of_trackers_are_found() {
    let plugin = Plugin {
        name: "notes",
        summary: "",
        source: "",
        defaults: "",
        presets: &[],
        families: &[],
        example: "",
        spaces: &[],
        parse: Parse::Tracker(|v| parse_section::<Slips>(v).map(|c| Box::new(c) as _)),
        kept_as: "notes",
        crate_name: "a",
        crate_version: "1.0.0",
        file: "lib.rs",
    };
    let all = [
        "tracks",
        "goes-on",
        "takes-what-comes",
        "keeps-to-its-own-files",
    ];
    for (slip, expected) in [
        (Slip::None, &[] as &[&str]),
        (Slip::Found, &all),
        (Slip::Again, &["goes-on"]),
        (Slip::Numbers, &["takes-what-comes"]),
        (Slip::Config, &["keeps-to-its-own-files"]),
        (Slip::Foreign, &["keeps-to-its-own-files"]),
    ] {
        let report = conformance::tracker(&plugin, &json!({ "slip": slip }));
        let broken: Vec<&str> = report.broken().iter().map(|f| f.invariant).collect();
        assert_eq!(broken, expected, "{slip:?}: {report}");
    }
}

/// How the planted proxy slips.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ProxySlip {
    None,
    /// Draws that no seed decides.
    Chance,
    /// The first image instead of all.
    First,
    /// Standardises the images where they lie.
    InPlace,
    /// Of the images alone.
    Blind,
    /// Not-a-number.
    Nothing,
    /// Leaves gradients off.
    NoGrad,
    /// An option that is never read.
    Idle,
}

/// Σ |w ∂L/∂w| over all parameters, times a factor.
#[derive(Debug, Serialize, Deserialize)]
struct Slipping {
    slip: ProxySlip,
    factor: f64,
}

#[typetag::serde(name = "slipping")]
impl Proxy for Slipping {
    fn score(&self, start: &Start<'_>) -> Result<f64> {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let (weights, batch) = (start.weights(), start.batch());
        let slope = match self.slip {
            ProxySlip::First => {
                let logits = start.logits(&weights, &batch.images)?.get(0);
                start.gradient(&logits.logsumexp([0], false), &weights)?
            }
            _ => start.gradient(&start.loss(&weights)?, &weights)?,
        };
        let sum = (slope * weights.detach()).abs().sum(tch::Kind::Double);
        let sum = sum.double_value(&[]);
        Ok(match self.slip {
            ProxySlip::Chance => sum + CALLS.fetch_add(1, Ordering::Relaxed) as f64,
            ProxySlip::Blind => batch.images.sum(tch::Kind::Double).double_value(&[]) * self.factor,
            ProxySlip::Nothing => f64::NAN,
            ProxySlip::Idle => sum,
            ProxySlip::InPlace => {
                let _ = batch.images.shallow_clone().g_mul_scalar_(1.0001);
                sum * self.factor
            }
            ProxySlip::NoGrad => {
                std::mem::forget(tch::no_grad_guard());
                sum * self.factor
            }
            _ => sum * self.factor,
        })
    }
}

#[test]
fn faults_of_proxies_are_found() {
    let plugin = Plugin {
        name: "slipping",
        summary: "",
        source: "",
        defaults: "[proxy]\n# Times this.\nfactor = 1.0\n",
        presets: &[],
        families: &[],
        example: "",
        spaces: &[],
        parse: Parse::Proxy(|v| parse_section::<Slipping>(v).map(|c| Box::new(c) as _)),
        kept_as: "slipping",
        crate_name: "a",
        crate_version: "1.0.0",
        file: "lib.rs",
    };
    for (slip, expected) in [
        (ProxySlip::None, &[] as &[&str]),
        (ProxySlip::Chance, &["is-a-function"]),
        (ProxySlip::First, &["image-order"]),
        (ProxySlip::InPlace, &["leaves-the-start"]),
        (ProxySlip::Blind, &["tells-networks-apart"]),
        (ProxySlip::Nothing, &["scores"]),
        (ProxySlip::NoGrad, &["leaves-the-start"]),
        (ProxySlip::Idle, &["options-matter"]),
    ] {
        // Whether gradients are recorded is a matter of the thread.
        let section = json!({ "slip": slip, "factor": 1.0 });
        let report = std::thread::scope(|s| {
            s.spawn(|| conformance::proxy(&plugin, &section))
                .join()
                .unwrap()
        });
        let broken: Vec<&str> = report.broken().iter().map(|f| f.invariant).collect();
        for invariant in expected {
            assert!(broken.contains(invariant), "{slip:?}: {report}");
        }
        assert_eq!(broken.is_empty(), expected.is_empty(), "{slip:?}: {report}");
    }
}

/// How the planted cost slips.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CostSlip {
    None,
    /// Nothing.
    Zero,
    /// More every time.
    Chance,
    /// The same of every network.
    Blind,
    /// Less than a unit can show.
    Small,
}

/// Parameters.
#[derive(Debug, Serialize, Deserialize)]
struct Dear {
    slip: CostSlip,
}

#[typetag::serde(name = "dear")]
impl Cost for Dear {
    fn unit(&self) -> Unit {
        Unit::Seconds
    }

    fn of(&self, network: &Network) -> Result<f64> {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let params = network.size().params as f64;
        Ok(match self.slip {
            CostSlip::None => params,
            CostSlip::Zero => 0.0,
            CostSlip::Chance => params + CALLS.fetch_add(1, Ordering::Relaxed) as f64,
            CostSlip::Blind => 1.0,
            CostSlip::Small => params * 1e-18,
        })
    }
}

#[test]
fn faults_of_costs_are_found() {
    let plugin = Plugin {
        name: "dear",
        summary: "",
        source: "",
        defaults: "[cost]\n",
        presets: &[],
        families: &[],
        example: "",
        spaces: &[],
        parse: Parse::Cost(|v| parse_section::<Dear>(v).map(|c| Box::new(c) as _)),
        kept_as: "dear",
        crate_name: "a",
        crate_version: "1.0.0",
        file: "lib.rs",
    };
    for (slip, expected) in [
        (CostSlip::None, &[] as &[&str]),
        (CostSlip::Zero, &["counts", "wider-costs-more", "unit"]),
        (CostSlip::Chance, &["is-a-function"]),
        (CostSlip::Blind, &["wider-costs-more"]),
        (CostSlip::Small, &["unit"]),
    ] {
        let report = conformance::cost(&plugin, &json!({ "slip": slip }));
        let broken: Vec<&str> = report.broken().iter().map(|f| f.invariant).collect();
        assert_eq!(broken, expected, "{slip:?}: {report}");
    }
}
