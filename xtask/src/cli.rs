//! The command line of xtask: what was typed, turned into a [`Verb`].

use std::ffi::OsString;
use std::path::PathBuf;

use crate::failure::Failure;
use crate::libtorch::Form;
use crate::peer::SPACES;

pub const HELP: &str = "\
cargo xtask: sets nasfw up on a bare machine, runs it and checks it
(the machine needs Rust, a C++ compiler and Python 3 with venv)

usage: cargo xtask VERB

  nasfw ARGS...     sets up, builds and runs nasfw: `cargo xtask nasfw run --strategy vim`
  test [--all] [ARGS...]
                    sets up, then rustfmt, clippy, all tests of Rust and Python, licences and
                    sources of dependencies, rustdoc, the site of docs; with --all every strategy is tried on every
                    space, otherwise on one space of every kind. ARGS go to `cargo test`; with them
                    the tests of Python are left out (`cargo xtask python -m pytest python/tests`)
  setup [--lean|--full] [--into DIR]
                    puts libtorch 2.13.0 into target/libtorch: the lean form (CPU, about 1.3 GB),
                    or the full one (CUDA, about 5 GB) where an NVIDIA driver is found; afterwards
                    plain `cargo run` and `cargo test` work too. With --into it goes to DIR: then
                    set LIBTORCH=DIR/site-packages/torch
  python [ARGS...]  sets up, builds the Python package and runs Python with it: target/python
  wheel [--out DIR] sets up and builds the wheel of the Python package, by default into target/wheels
  dist [--out DIR]  sets up, builds and packs a release, by default into target/dist: an archive that
                    finds libtorch, or fetches it once, wherever it is unpacked (docs/start.md)
  book              sets up and makes a site of docs and of the interfaces of all crates in
                    target/book; fails where a link leads nowhere
  peer [--space NAME]... [--repeats 3] [--batch N] [--json FILE] [--skip-equality]
                    nasfw against a plain PyTorch program: checks that both compute the same, then
                    times them in turn and prints ratios (benches/peer/README.md); puts PyTorch,
                    about 5 GB, into target/peer
  fuzz [--inputs 300000] [--seed N] [--reader NAME]
                    sets up, then reads that many inputs, made out of tests/fuzz/corpus, with every
                    reader of files and text, or with one (docs/conformance.md)
  embedded-data [--from DIR]
                    rebuilds datasets/data/fashion-mnist-mini from Fashion-MNIST's four files in
                    DIR, by default from the Debian package dataset-fashion-mnist
  help              prints this text

environment:
  NASFW_LIBTORCH    lean or full: as --lean and --full, for every verb
  NASFW_PYTHON      the Python that makes the private environment, by default python3
  LIBTORCH          a libtorch 2.13.0 of your own: nothing is installed then

A test that can't run where it is (no data, no network) appends a line `SKIPPED: test: reason` to
the file that NASFW_SKIP_LOG names; `cargo xtask test` sets it, and lists and counts those lines.
";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Verb {
    Help,
    Setup(SetupOptions),
    Nasfw {
        form: Option<Form>,
        args: Vec<OsString>,
    },
    Test {
        form: Option<Form>,
        /// Whether every pair of strategy and space is tried.
        all: bool,
        args: Vec<OsString>,
    },
    Python {
        form: Option<Form>,
        args: Vec<OsString>,
    },
    Wheel {
        form: Option<Form>,
        /// Where the wheel goes, by default `target/wheels`.
        out: Option<PathBuf>,
    },
    Book {
        form: Option<Form>,
    },
    Dist {
        form: Option<Form>,
        /// Where the archive goes, by default `target/dist`.
        out: Option<PathBuf>,
    },
    Peer {
        form: Option<Form>,
        options: PeerOptions,
    },
    Fuzz {
        form: Option<Form>,
        options: FuzzOptions,
    },
    EmbeddedData {
        from: Option<PathBuf>,
    },
}

/// What is fuzzed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FuzzOptions {
    /// Inputs of all readers together.
    pub inputs: Option<usize>,
    /// What they are made from; by default another one every time.
    pub seed: Option<usize>,
    /// The only reader.
    pub reader: Option<OsString>,
}

/// What is compared with the PyTorch program.
#[derive(Debug, PartialEq, Eq)]
pub struct PeerOptions {
    /// Names of spaces; none means all.
    spaces: Vec<String>,
    /// Processes of each program.
    pub repeats: usize,
    /// Images a step, instead of the spaces' own numbers.
    pub batch: Option<usize>,
    /// Where everything that was measured goes.
    pub json: Option<PathBuf>,
    /// Whether only time is compared.
    pub skip_equality: bool,
}

impl PeerOptions {
    /// Whether a space is compared.
    pub fn wants(&self, space: &str) -> bool {
        self.spaces.is_empty() || self.spaces.iter().any(|s| s == space)
    }
}

/// Which libtorch is wanted, and where.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SetupOptions {
    /// What the user asked for; `None`: full where there is an NVIDIA driver, otherwise lean.
    pub form: Option<Form>,
    /// Another folder than `target/libtorch`.
    pub into: Option<PathBuf>,
}

/// Parses the arguments that follow `cargo xtask`; `form` is the value of `NASFW_LIBTORCH`.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    form: Option<OsString>,
) -> Result<Verb, Failure> {
    let mut args = args.into_iter();
    let form = wanted_form(form)?;
    let Some(verb) = args.next() else {
        return Ok(Verb::Help);
    };
    match verb.to_str() {
        Some("help" | "--help" | "-h") => Ok(Verb::Help),
        Some("nasfw") => Ok(Verb::Nasfw {
            form,
            args: args.collect(),
        }),
        Some("test") => {
            let mut args = args.peekable();
            let all = args.next_if(|arg| arg == "--all").is_some();
            Ok(Verb::Test {
                form,
                all,
                args: args.collect(),
            })
        }
        Some("python") => Ok(Verb::Python {
            form,
            args: args.collect(),
        }),
        Some("wheel") => match folder("wheel", "--out", args)? {
            Some(out) => Ok(Verb::Wheel { form, out }),
            None => Ok(Verb::Help),
        },
        Some("dist") => match folder("dist", "--out", args)? {
            Some(out) => Ok(Verb::Dist { form, out }),
            None => Ok(Verb::Help),
        },
        Some("book") => match args.next() {
            None => Ok(Verb::Book { form }),
            Some(arg) if arg == "--help" || arg == "-h" => Ok(Verb::Help),
            Some(arg) => Err(unexpected("book", &arg)),
        },
        Some("setup") => parse_setup(args, form),
        Some("peer") => parse_peer(args, form),
        Some("fuzz") => parse_fuzz(args, form),
        Some("embedded-data") => match folder("embedded-data", "--from", args)? {
            Some(from) => Ok(Verb::EmbeddedData { from }),
            None => Ok(Verb::Help),
        },
        _ => Err(Failure::usage(format!("unknown verb `{}`", verb.display()))),
    }
}

/// The form that a value of `NASFW_LIBTORCH` names, if it names any.
pub fn wanted_form(value: Option<OsString>) -> Result<Option<Form>, Failure> {
    value
        .filter(|value| !value.is_empty())
        .map(parse_form)
        .transpose()
}

fn parse_form(value: OsString) -> Result<Form, Failure> {
    match value.to_str() {
        Some("lean") => Ok(Form::Lean),
        Some("full") => Ok(Form::Full),
        _ => Err(Failure::usage(format!(
            "NASFW_LIBTORCH is `{}`, it can be `lean` or `full`",
            value.display()
        ))),
    }
}

fn parse_setup(
    mut args: impl Iterator<Item = OsString>,
    form: Option<Form>,
) -> Result<Verb, Failure> {
    let mut options = SetupOptions { form, into: None };
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--lean") => options.form = Some(Form::Lean),
            Some("--full") => options.form = Some(Form::Full),
            Some("--into") => options.into = Some(path("--into", "folder", args.next())?),
            Some("--help" | "-h") => return Ok(Verb::Help),
            _ => return Err(unexpected("setup", &arg)),
        }
    }
    Ok(Verb::Setup(options))
}

fn parse_peer(
    mut args: impl Iterator<Item = OsString>,
    form: Option<Form>,
) -> Result<Verb, Failure> {
    let mut options = PeerOptions {
        spaces: vec![],
        repeats: 3,
        batch: None,
        json: None,
        skip_equality: false,
    };
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--space") => options.spaces.push(space(args.next())?),
            Some("--repeats") => options.repeats = count("--repeats", args.next())?,
            Some("--batch") => options.batch = Some(count("--batch", args.next())?),
            Some("--json") => options.json = Some(path("--json", "file", args.next())?),
            Some("--skip-equality") => options.skip_equality = true,
            Some("--help" | "-h") => return Ok(Verb::Help),
            _ => return Err(unexpected("peer", &arg)),
        }
    }
    Ok(Verb::Peer { form, options })
}

fn parse_fuzz(
    mut args: impl Iterator<Item = OsString>,
    form: Option<Form>,
) -> Result<Verb, Failure> {
    let mut options = FuzzOptions::default();
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--inputs") => options.inputs = Some(count("--inputs", args.next())?),
            Some("--seed") => options.seed = Some(count("--seed", args.next())?),
            Some("--reader") => {
                let name = args.next();
                options.reader = Some(name.ok_or_else(|| Failure::usage("--reader needs a name"))?);
            }
            Some("--help" | "-h") => return Ok(Verb::Help),
            _ => return Err(unexpected("fuzz", &arg)),
        }
    }
    Ok(Verb::Fuzz { form, options })
}

fn space(value: Option<OsString>) -> Result<String, Failure> {
    let names = SPACES.map(|space| space.name);
    value
        .and_then(|value| value.into_string().ok())
        .filter(|value| names.contains(&value.as_str()))
        .ok_or_else(|| Failure::usage(format!("--space needs one of {}", names.join(", "))))
}

fn count(option: &str, value: Option<OsString>) -> Result<usize, Failure> {
    value
        .and_then(|value| value.to_str()?.parse().ok())
        .filter(|&n| n > 0)
        .ok_or_else(|| Failure::usage(format!("{option} needs a number, at least 1")))
}

/// The folder that the verb's only option gives, if it is there; `None` where help is asked for.
fn folder(
    verb: &str,
    option: &str,
    mut args: impl Iterator<Item = OsString>,
) -> Result<Option<Option<PathBuf>>, Failure> {
    let mut folder = None;
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some(word) if word == option => folder = Some(path(option, "folder", args.next())?),
            Some("--help" | "-h") => return Ok(None),
            _ => return Err(unexpected(verb, &arg)),
        }
    }
    Ok(Some(folder))
}

fn path(option: &str, what: &str, value: Option<OsString>) -> Result<PathBuf, Failure> {
    value
        .map(PathBuf::from)
        .ok_or_else(|| Failure::usage(format!("{option} needs a {what}")))
}

fn unexpected(verb: &str, arg: &OsString) -> Failure {
    Failure::usage(format!("`{}` is no option of `{verb}`", arg.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn parsed(line: &str, form: Option<&str>) -> Result<Verb, Failure> {
        parse(
            line.split_whitespace().map(OsString::from),
            form.map(OsString::from),
        )
    }

    #[test]
    fn no_verb_and_help_print_help() {
        for line in [
            "",
            "help",
            "--help",
            "-h",
            "setup --help",
            "embedded-data -h",
            "peer --help",
            "wheel --help",
            "dist --help",
            "book --help",
        ] {
            assert_eq!(parsed(line, None).unwrap(), Verb::Help, "{line}");
        }
    }

    #[test]
    fn arguments_of_nasfw_and_test_pass_unchanged() {
        let args = ["run", "--full", "--help"].map(OsString::from).to_vec();
        let verb = parsed("nasfw run --full --help", None).unwrap();
        assert_eq!(
            verb,
            Verb::Nasfw {
                form: None,
                args: args.clone()
            }
        );
        let verb = parsed("python run --full --help", None).unwrap();
        assert_eq!(
            verb,
            Verb::Python {
                form: None,
                args: args.clone()
            }
        );
        let verb = parsed("test run --full --help", Some("lean")).unwrap();
        assert_eq!(
            verb,
            Verb::Test {
                form: Some(Form::Lean),
                all: false,
                args
            }
        );
    }

    #[test]
    fn all_pairs_are_asked_for_before_the_arguments_of_cargo() {
        let test = |line| match parsed(line, None).unwrap() {
            Verb::Test { all, args, .. } => (all, args),
            verb => panic!("{verb:?}"),
        };
        let spaces = ["--test", "it", "spaces"].map(OsString::from).to_vec();
        assert_eq!(test("test"), (false, vec![]));
        assert_eq!(test("test --all"), (true, vec![]));
        assert_eq!(test("test --all --test it spaces"), (true, spaces.clone()));
        assert_eq!(test("test --test it spaces"), (false, spaces));
        assert_eq!(test("test x --all").1, ["x", "--all"].map(OsString::from));
    }

    #[test]
    fn an_option_beats_the_environment() {
        let form = |line, env| match parsed(line, env).unwrap() {
            Verb::Setup(options) => options.form,
            verb => panic!("{verb:?}"),
        };
        assert_eq!(form("setup", None), None);
        assert_eq!(form("setup", Some("")), None);
        assert_eq!(form("setup", Some("full")), Some(Form::Full));
        assert_eq!(form("setup --lean", Some("full")), Some(Form::Lean));
        assert_eq!(form("setup --lean --full", None), Some(Form::Full));
    }

    #[test]
    fn folders_are_taken() {
        let verb = parsed("setup --into a/b", None).unwrap();
        assert_eq!(
            verb,
            Verb::Setup(SetupOptions {
                form: None,
                into: Some("a/b".into())
            })
        );
        let verb = parsed("wheel --out a/b", Some("full")).unwrap();
        assert_eq!(
            verb,
            Verb::Wheel {
                form: Some(Form::Full),
                out: Some("a/b".into())
            }
        );
        let verb = parsed("embedded-data --from a/b", None).unwrap();
        assert_eq!(
            verb,
            Verb::EmbeddedData {
                from: Some("a/b".into())
            }
        );
    }

    #[test]
    fn the_peer_comparison_is_measured_out() {
        let options = |line| match parsed(line, Some("lean")).unwrap() {
            Verb::Peer { form, options } => {
                assert_eq!(form, Some(Form::Lean));
                options
            }
            verb => panic!("{verb:?}"),
        };
        let all = options("peer");
        assert_eq!(
            (all.repeats, all.batch, all.skip_equality),
            (3, None, false)
        );
        assert!(SPACES.iter().all(|space| all.wants(space.name)));
        let some = options(
            "peer --space darts --space nasbench201 --repeats 5 --batch 8 --json a/b --skip-equality",
        );
        assert!(some.wants("darts") && some.wants("nasbench201"));
        assert!(!some.wants("nasbench1shot1-s3"));
        assert_eq!((some.repeats, some.batch), (5, Some(8)));
        assert_eq!(some.json, Some("a/b".into()));
        assert!(some.skip_equality);
    }

    #[test]
    fn inputs_are_counted() {
        let options = FuzzOptions {
            inputs: Some(5000),
            seed: Some(7),
            reader: Some("events".into()),
        };
        assert_eq!(
            parsed("fuzz --inputs 5000 --seed 7 --reader events", None).unwrap(),
            Verb::Fuzz {
                form: None,
                options
            }
        );
    }

    #[test]
    fn mistakes_are_usage_errors_that_name_them() {
        for (line, form, named) in [
            ("tset", None, "`tset`"),
            ("setup --fast", None, "`--fast`"),
            ("setup --into", None, "--into needs a folder"),
            ("embedded-data --from", None, "--from needs a folder"),
            ("embedded-data now", None, "`now`"),
            ("wheel --out", None, "--out needs a folder"),
            ("wheel now", None, "`now`"),
            ("book now", None, "`now`"),
            ("setup", Some("slim"), "`slim`"),
            ("setup", Some("python"), "`python`"),
            ("peer --fast", None, "`--fast`"),
            (
                "peer --space",
                None,
                "darts, nasbench201, nasbench1shot1-s3",
            ),
            (
                "peer --space toy",
                None,
                "darts, nasbench201, nasbench1shot1-s3",
            ),
            ("peer --repeats 0", None, "--repeats needs a number"),
            ("peer --batch many", None, "--batch needs a number"),
            ("peer --json", None, "--json needs a file"),
            ("fuzz --inputs many", None, "--inputs needs a number"),
            ("fuzz --reader", None, "--reader needs a name"),
        ] {
            let failure = parsed(line, form).unwrap_err();
            assert_eq!(failure.code, 2, "{line}");
            assert!(failure.message.contains(named), "{line}: {failure}");
            assert!(
                failure.to_string().contains("cargo xtask help"),
                "{failure}"
            );
        }
    }
}
