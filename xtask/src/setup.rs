//! `cargo xtask setup`: makes sure that there is a libtorch, the user's own or the private one.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::cli::SetupOptions;
use crate::driver::{self, Places};
use crate::failure::Failure;
use crate::libtorch::{self, Form, Home, VERSION};
use crate::machine;
use crate::workspace::Workspace;

/// The libtorch that programs are built with.
#[derive(Clone)]
pub struct Libtorch {
    /// The folder that holds `include` and `lib`.
    pub torch: PathBuf,
    /// The form of the private libtorch; `None`: it is the user's own.
    pub form: Option<Form>,
    /// What `CXX` must be where the compiler is not called `c++`.
    pub cxx: Option<OsString>,
}

impl fmt::Display for Libtorch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.form {
            Some(form) => write!(f, "libtorch {VERSION} ({form}) in {}", self.torch.display()),
            None => write!(f, "your own libtorch in {}", self.torch.display()),
        }
    }
}

/// Makes sure that libtorch is there, installing what is missing; says nothing when all is there.
pub fn setup(workspace: &Workspace, options: &SetupOptions) -> Result<Libtorch, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cxx = machine::find_compiler(std::env::var_os("CXX"), &path)?;
    let default_home = Home::new(workspace.root.join("target/libtorch"));
    if options.into.is_none()
        && let Some(torch) = users_own(std::env::var_os("LIBTORCH"), &default_home.torch())?
    {
        return Ok(Libtorch {
            torch,
            form: None,
            cxx,
        });
    }
    machine::check_platform(std::env::consts::OS, std::env::consts::ARCH)?;
    let home = match &options.into {
        Some(dir) => Home::new(std::path::absolute(dir).map_err(|e| Failure::io("find", dir, &e))?),
        None => default_home,
    };
    let form = ensure(&home, options.form)?;
    Ok(Libtorch {
        torch: home.torch(),
        form: Some(form),
        cxx,
    })
}

/// Makes sure that `home` holds the form that is asked for, or one that fits the machine.
pub fn ensure(home: &Home, asked: Option<Form>) -> Result<Form, Failure> {
    let driver = driver::nvidia(&Places::of_this_machine());
    let plan = |home: &Home| libtorch::plan(home.installed(), asked, driver.is_some());
    if plan(home).is_some() {
        let _lock = home.lock()?;
        // Another xtask may have installed it while this one waited for the lock.
        if let Some(form) = plan(home) {
            announce(form, asked, driver.as_deref());
            let python = std::env::var_os("NASFW_PYTHON").filter(|python| !python.is_empty());
            home.install(form, &python.unwrap_or_else(|| "python3".into()))?;
        }
    }
    home.installed().ok_or_else(|| {
        Failure::new(
            "libtorch was removed while it was being set up",
            "type the same command again",
        )
    })
}

fn announce(form: Form, asked: Option<Form>, driver: Option<&Path>) {
    let reason = match (asked, driver) {
        (Some(_), _) => "as asked for".to_owned(),
        (None, Some(evidence)) => format!("an NVIDIA driver is here: {}", evidence.display()),
        (None, None) => "no NVIDIA driver found".to_owned(),
    };
    let size = if form == Form::Lean { "1.3 GB" } else { "5 GB" };
    eprintln!("installing libtorch {VERSION}, {form} form, about {size}, once ({reason})");
}

/// The libtorch that `LIBTORCH` names, unless it is the private one, which Cargo's configuration
/// sets by itself.
pub fn users_own(libtorch: Option<OsString>, private: &Path) -> Result<Option<PathBuf>, Failure> {
    let Some(torch) = libtorch
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
    else {
        return Ok(None);
    };
    let same = |a: &Path, b: &Path| {
        a == b
            || a.canonicalize()
                .ok()
                .is_some_and(|a| b.canonicalize().ok() == Some(a))
    };
    if same(&torch, private) {
        return Ok(None);
    }
    if !libtorch::is_libtorch(&torch) {
        return Err(Failure::new(
            format!(
                "LIBTORCH is {}, which holds no lib/libtorch_cpu.so",
                torch.display()
            ),
            format!(
                "point it to a libtorch {VERSION}, or type `unset LIBTORCH` to have one installed"
            ),
        ));
    }
    std::path::absolute(&torch)
        .map(Some)
        .map_err(|e| Failure::io("find", &torch, &e))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn the_variable_of_cargo_s_configuration_is_not_the_user_s() {
        let dir = TempDir::new().unwrap();
        let private = dir.path().join("target/libtorch/site-packages/torch");
        assert_eq!(users_own(None, &private).unwrap(), None);
        assert_eq!(users_own(Some("".into()), &private).unwrap(), None);
        assert_eq!(
            users_own(Some(private.clone().into()), &private).unwrap(),
            None
        );
        std::fs::create_dir_all(&private).unwrap();
        let detour = dir
            .path()
            .join("target/../target/libtorch/site-packages/torch");
        assert_eq!(users_own(Some(detour.into()), &private).unwrap(), None);
    }

    #[test]
    fn the_user_s_own_is_respected_and_a_wrong_one_refused() {
        let dir = TempDir::new().unwrap();
        let private = Path::new("/nowhere/torch");
        let failure = users_own(Some(dir.path().into()), private)
            .unwrap_err()
            .to_string();
        assert!(
            failure.contains(&dir.path().display().to_string()),
            "{failure}"
        );
        assert!(failure.contains("unset LIBTORCH"), "{failure}");
        std::fs::create_dir(dir.path().join("lib")).unwrap();
        std::fs::write(dir.path().join("lib/libtorch_cpu.so"), "").unwrap();
        let own = users_own(Some(dir.path().into()), private).unwrap();
        assert_eq!(own.as_deref(), Some(dir.path()));
    }
}
