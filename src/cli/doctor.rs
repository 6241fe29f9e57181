//! `nasfw doctor`.

use std::path::PathBuf;

use clap::Args;
use nasfw_framework::dataset::DataSource;
use nasfw_framework::device::{self, CudaLibrary, libtorch_version, load_cuda};
use nasfw_framework::printable::counted;
use nasfw_framework::registry::{Kind, Registry};
use nasfw_framework::{Error, Result, run};
use tch::{Cuda, Device, Kind as TensorKind, Tensor};

use super::bench::tables;
use super::output::tell;

/// Options of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Folder that runs would go to
    #[arg(long, short = 'o', default_value = "runs", value_name = "DIR")]
    out: PathBuf,
    /// Folder where datasets' files are looked for [default: where every dataset looks for its own]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Doctor {
    /// Prints what was found; fails when something that is there can't be used.
    pub fn carry_out(self) -> Result<()> {
        let library = load_cuda();
        tell(format!(
            "nasfw      {}, for libtorch {}",
            env!("CARGO_PKG_VERSION"),
            libtorch_version()
        ));
        let folder = device::libtorch_folder();
        tell(format!(
            "libtorch   {}",
            folder.map_or("not found in memory".into(), |f| f.display().to_string())
        ));
        tell(format!(
            "cuda       {}",
            match library {
                CudaLibrary::Loaded(path) => format!("loaded from {}", path.display()),
                CudaLibrary::Absent => "this libtorch is built for CPUs".into(),
                CudaLibrary::Unloadable(reason) =>
                    format!("not loaded, libtorch is in its lean form ({reason})"),
            }
        ));
        let driver = match (device::nvidia_driver(), device::nvidia_hardware()) {
            (true, _) => "NVIDIA",
            (false, true) => "none, although there is an NVIDIA card: install its driver to use it",
            (false, false) => "none",
        };
        tell(format!("driver     {driver}"));
        let devices = if Cuda::is_available() {
            Cuda::device_count()
        } else {
            0
        };
        tell(format!("gpus       {devices}"));
        tell(format!("threads    {}", tch::get_num_threads()));

        let registry = Registry::load()?;
        registry.check_defaults()?;
        let counts: Vec<String> = Kind::ALL
            .iter()
            .map(|k| counted(registry.of(*k).count(), k.name()))
            .collect();
        tell(format!("plugins    {}", counts.join(", ")));

        let tables = tables::imported()?;
        tell(listed(
            "tables",
            &tables,
            "none is imported; `nasfw bench list` says how",
        ));
        let datasets = self.datasets(&registry)?;
        let none = "none that needs files was found; `--data-dir DIR` looks in a folder";
        tell(listed("datasets", &datasets, none));

        let chosen = device::choose("auto")?;
        compute(chosen)?;
        tell(format!("computing  works on {}", device::describe(chosen)));

        std::fs::create_dir_all(&self.out).map_err(Error::io("create the folder", &self.out))?;
        let probe = self.out.join(".doctor");
        run::write_whole(&probe, b"nasfw")?;
        std::fs::remove_file(&probe).map_err(Error::io("remove", &probe))?;
        tell(format!(
            "output     {} can be written to",
            self.out.display()
        ));
        Ok(())
    }

    /// The datasets whose files are there, and where.
    fn datasets(&self, registry: &Registry) -> Result<Vec<String>> {
        let source = DataSource {
            dir: self.data_dir.clone(),
            ..DataSource::default()
        };
        let mut found = vec![];
        for plugin in registry.of(Kind::Dataset) {
            let dataset = plugin.dataset(&plugin.default_section()?)?;
            let place = dataset.place(&source);
            found.extend(place.map(|place| format!("{} in {}", plugin.name, place.display())));
        }
        Ok(found)
    }
}

/// A line for each of several things, the first behind what they are.
fn listed(what: &str, things: &[String], none: &str) -> String {
    let behind = match things {
        [] => none.to_owned(),
        some => some.join(&format!("\n{:11}", "")),
    };
    format!("{what:11}{behind}")
}

/// A convolution with its gradient, compared with the number it must give.
fn compute(device: Device) -> Result<()> {
    let x = Tensor::ones([1, 1, 3, 3], (TensorKind::Float, device)).set_requires_grad(true);
    let w = Tensor::ones([1, 1, 3, 3], (TensorKind::Float, device));
    let y = x.f_conv2d::<Tensor>(&w, None, [1, 1], [0, 0], [1, 1], 1)?;
    let g = Tensor::f_run_backward(&[&y], &[&x], false, false)?;
    let (value, slope) = (
        y.double_value(&[0, 0, 0, 0]),
        g[0].sum(TensorKind::Float).double_value(&[]),
    );
    if value == 9.0 && slope == 9.0 {
        return Ok(());
    }
    Err(Error::Device {
        device: device::describe(device),
        why: format!("a convolution of ones gives {value} and {slope}, not 9 and 9"),
    })
}
