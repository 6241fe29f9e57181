//! The program `nasfw` of a release: finds libtorch, or fetches it once, and becomes the program that lies beside it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::cli::wanted_form;
use crate::failure::Failure;
use crate::libtorch::{self, Form, Home, VERSION};
use crate::machine;
use crate::setup::{ensure, users_own};
use crate::workspace::{become_it, library_path};

/// Where the program lies, from the launcher's own folder.
pub const PROGRAM: &str = "../libexec/nasfw";

/// Prints the version of an installed torch and its folder, without importing it.
const ASK: &str = "import importlib.metadata as m, importlib.util as u\n\
                   print(m.version('torch'))\n\
                   print(u.find_spec('torch').submodule_search_locations[0])";

/// Where libtorch may be.
struct Places {
    /// `LIBTORCH`.
    own: Option<OsString>,
    /// What `NASFW_LIBTORCH` asks for.
    form: Option<Form>,
    /// The Python whose torch may be used: `NASFW_PYTHON`, or `python3`.
    python: OsString,
    /// The folder of this user that libtorch is fetched into.
    home: Home,
}

impl Places {
    fn of_this_user() -> Result<Self, Failure> {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let absolute = |value: OsString| Some(PathBuf::from(value)).filter(|p| p.is_absolute());
        let cache = set("XDG_CACHE_HOME").and_then(absolute);
        let cache = cache.or_else(|| Some(set("HOME").and_then(absolute)?.join(".cache")));
        let cache = cache.ok_or_else(|| {
            Failure::new(
                "libtorch has no place: neither HOME nor XDG_CACHE_HOME is set",
                "set one of them, or LIBTORCH to the folder of a libtorch",
            )
        })?;
        Ok(Self {
            own: set("LIBTORCH"),
            form: wanted_form(set("NASFW_LIBTORCH"))?,
            python: set("NASFW_PYTHON").unwrap_or_else(|| "python3".into()),
            home: Home::new(cache.join("nasfw").join(format!("libtorch-{VERSION}"))),
        })
    }

    /// The folder of libtorch: what `LIBTORCH` names, what was fetched before, the torch of the Python that is active, or
    /// what is fetched now.
    fn libtorch(
        self,
        fetch: impl FnOnce(&Home, Option<Form>) -> Result<(), Failure>,
    ) -> Result<PathBuf, Failure> {
        if let Some(torch) = users_own(self.own, &self.home.torch())? {
            return Ok(torch);
        }
        let there = self.home.installed().is_some();
        if !there
            && self.form.is_none()
            && let Some(torch) = of_python(&self.python)
        {
            return Ok(torch);
        }
        fetch(&self.home, self.form)?;
        Ok(self.home.torch())
    }
}

/// Fetches the form that is asked for, or one that fits the machine, unless it is there.
fn fetch(home: &Home, form: Option<Form>) -> Result<(), Failure> {
    if home.installed().is_none() {
        machine::check_platform(env::consts::OS, env::consts::ARCH)?;
    }
    ensure(home, form).map(|_| ())
}

/// The folder of a Python's torch, if it has the right version.
fn of_python(python: &OsString) -> Option<PathBuf> {
    let mut ask = Command::new(python);
    ask.args(["-c", ASK])
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let answer = String::from_utf8(ask.output().ok()?.stdout).ok()?;
    let (version, folder) = answer.trim_end().split_once('\n')?;
    let torch = PathBuf::from(folder);
    // `2.13.0+cpu` is another build of the same version.
    let right = version.split('+').next() == Some(VERSION);
    (right && torch.is_absolute() && libtorch::is_libtorch(&torch)).then_some(torch)
}

/// Becomes the program, with the words of this one.
pub fn launch() -> Result<ExitCode, Failure> {
    let own = env::current_exe().map_err(|e| Failure::io("find", Path::new("nasfw"), &e))?;
    let program = own.parent().unwrap_or(&own).join(PROGRAM);
    if !program.is_file() {
        return Err(Failure::new(
            format!("{} is missing", program.display()),
            "unpack the archive again, and leave its folders together",
        ));
    }
    let torch = Places::of_this_user()?.libtorch(fetch)?;
    let (name, path) = library_path(&torch)?;
    let mut command = Command::new(&program);
    command.args(env::args_os().skip(1)).env(name, path);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::arg0(&mut command, "nasfw");
    become_it(command).map_err(|failure| Failure {
        help: "unpack the archive again; it is for Linux on x86-64".into(),
        ..failure
    })
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::testing::put_script;

    /// A machine with a Python that has this torch, if any.
    fn machine(version: Option<&str>) -> (TempDir, Places) {
        let dir = TempDir::new().unwrap();
        let (python, torch) = (dir.path().join("python3"), dir.path().join("site/torch"));
        let answer = match version {
            Some(version) => format!("echo {version}\necho {}", torch.display()),
            None => "echo 'No module named torch' >&2\nexit 1".into(),
        };
        put_script(&python, &format!("#!/bin/sh\n{answer}\n"));
        put_libtorch(&torch);
        let places = Places {
            own: None,
            form: None,
            python: python.into(),
            home: Home::new(dir.path().join("cache")),
        };
        (dir, places)
    }

    fn put_libtorch(torch: &Path) {
        fs::create_dir_all(torch.join("lib")).unwrap();
        fs::write(torch.join("lib/libtorch_cpu.so"), "elf").unwrap();
    }

    fn nothing(_: &Home, _: Option<Form>) -> Result<(), Failure> {
        panic!("nothing is to be fetched")
    }

    #[test]
    fn the_torch_of_python_is_taken_if_it_has_the_version() {
        for version in [VERSION.to_owned(), format!("{VERSION}+cpu")] {
            let (dir, places) = machine(Some(&version));
            let found = places.libtorch(nothing).unwrap();
            assert_eq!(found, dir.path().join("site/torch"));
        }
        for version in [Some("2.12.0"), Some("2.13.01"), None] {
            let (dir, places) = machine(version);
            let mut fetched = None;
            let found = places.libtorch(|home, form| {
                fetched = Some((home.torch(), form));
                Ok(())
            });
            let cached = dir.path().join("cache/site-packages/torch");
            assert_eq!(found.unwrap(), cached, "{version:?}");
            assert_eq!(fetched, Some((cached, None)), "{version:?}");
        }
    }

    #[test]
    fn what_the_user_names_comes_first() {
        let (dir, mut places) = machine(Some(VERSION));
        let own = dir.path().join("own");
        put_libtorch(&own);
        places.own = Some(own.clone().into());
        assert_eq!(places.libtorch(nothing).unwrap(), own);

        let (dir, mut places) = machine(Some(VERSION));
        places.own = Some(dir.path().join("nowhere").into());
        let failure = places.libtorch(nothing).unwrap_err().to_string();
        assert!(failure.contains("LIBTORCH is"), "{failure}");

        // A form that is asked for is fetched, whatever Python has.
        let (_dir, mut places) = machine(Some(VERSION));
        places.form = Some(Form::Full);
        let mut asked = None;
        let found = places.libtorch(|_, form| {
            asked = form;
            Ok(())
        });
        assert!(found.is_ok() && asked == Some(Form::Full));
    }

    #[test]
    fn what_was_fetched_before_is_used_again() {
        let (dir, places) = machine(Some(VERSION));
        let cache = dir.path().join("cache");
        put_libtorch(&cache.join("site-packages/torch"));
        fs::write(
            cache.join("installed"),
            format!("libtorch {VERSION} full\n"),
        )
        .unwrap();
        // The full form serves every machine.
        let found = places.libtorch(fetch).unwrap();
        assert_eq!(found, cache.join("site-packages/torch"));
    }
}
