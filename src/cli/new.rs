//! `nasfw new`: a crate of one's own with a plugin that works.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use nasfw_framework::command::{program, quoted};
use nasfw_framework::device::{libtorch_folder, libtorch_version};
use nasfw_framework::registry::{self, Registry};
use nasfw_framework::run::write_whole;
use nasfw_framework::{Error, Result};

use super::output::say;

/// Options of `new`.
#[derive(Debug, Args)]
pub struct New {
    /// What the crate adds
    kind: Kind,
    /// Name of the plugin and of the crate: small letters, digits and hyphens
    name: String,
    /// Folder of the crate [default: one of that name here]
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// How to search
    Strategy,
    /// Where to search
    Space,
    /// What to learn from
    Dataset,
    /// Who else keeps what happens
    Tracker,
}

impl Kind {
    fn of_plugin(self) -> registry::Kind {
        match self {
            Self::Strategy => registry::Kind::Strategy,
            Self::Space => registry::Kind::Space,
            Self::Dataset => registry::Kind::Dataset,
            Self::Tracker => registry::Kind::Tracker,
        }
    }

    /// The plugin's own file.
    fn source(self) -> &'static str {
        match self {
            Self::Strategy => include_str!("new/strategy.rs.in"),
            Self::Space => include_str!("new/space.rs.in"),
            Self::Dataset => include_str!("new/dataset.rs.in"),
            Self::Tracker => include_str!("new/tracker.rs.in"),
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Strategy => "strategies",
            Self::Space => "spaces",
            Self::Dataset => "datasets",
            Self::Tracker => "trackers",
        }
    }

    /// What shows it at work.
    fn run(self, name: &str) -> String {
        match self {
            Self::Strategy => {
                format!("run --strategy {name} --space toy-conv --dataset synthetic --epochs 2")
            }
            Self::Space => {
                format!("run --strategy darts --space {name} --dataset synthetic --epochs 2")
            }
            Self::Dataset => {
                format!("run --strategy darts --space toy-conv --dataset {name} --epochs 2")
            }
            Self::Tracker => {
                format!(
                    "run --strategy darts --space toy-conv --dataset synthetic --epochs 2 --track {name}"
                )
            }
        }
    }
}

impl New {
    /// Writes the crate.
    pub fn carry_out(self) -> Result<()> {
        check_name(self.kind, &self.name)?;
        let dir = self
            .dir
            .clone()
            .unwrap_or_else(|| PathBuf::from(&self.name));
        check_folder(&dir)?;
        let libtorch = libtorch_folder().and_then(|lib| lib.parent().map(Path::to_owned));
        for (file, text) in self.files(libtorch.as_deref()) {
            let file = dir.join(file);
            let folder = file.parent().unwrap_or(&dir);
            fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
            write_whole(&file, text.as_bytes())?;
        }
        say(format!(
            "{}: a crate with the {} `{}`. Its first build takes some minutes.\n\n    cd {}\n    cargo test\n    \
             cargo run -- {}\n",
            dir.display(),
            self.kind.of_plugin().name(),
            self.name,
            quoted(&dir),
            self.kind.run(&self.name),
        ));
        if libtorch.is_none() {
            say(
                "Where libtorch lies is not known here: README.md there says how to get it and how to name it.",
            );
        }
        Ok(())
    }

    /// All files, with what stands in them.
    fn files(&self, libtorch: Option<&Path>) -> Vec<(String, String)> {
        let kind = self.kind.of_plugin().name();
        let module = self.name.replace('-', "_");
        let libtorch = libtorch.unwrap_or(Path::new("/where/libtorch/lies"));
        let words = [
            ("name", self.name.clone()),
            ("module", module.clone()),
            ("kind", kind.to_owned()),
            ("kinds", self.kind.plural().to_owned()),
            ("run", self.kind.run(&self.name)),
            ("nasfw", dependency("nasfw", ".")),
            (
                "conformance",
                dependency("nasfw-conformance", "conformance"),
            ),
            ("version", libtorch_version().to_owned()),
            ("profile", profile()),
            ("libtorch", toml_text(libtorch)),
        ];
        let filled = |template: &str| {
            words
                .iter()
                .fold(template.to_owned(), |text, (key, value)| {
                    text.replace(&format!("{{{{{key}}}}}"), value)
                })
        };
        let lock = lock().map(|lock| ("Cargo.lock".to_owned(), lock));
        let own = [
            ("Cargo.toml", include_str!("new/Cargo.toml.in")),
            ("README.md", include_str!("new/README.md.in")),
            ("build.rs", include_str!("../../build.rs")),
            (".cargo/config.toml", include_str!("new/config.toml.in")),
            (".gitignore", "/target\n/runs\n"),
            ("src/main.rs", include_str!("new/main.rs.in")),
            (&format!("src/{module}.rs"), self.kind.source()),
        ]
        .map(|(file, template)| (file.to_owned(), filled(template)));
        own.into_iter().chain(lock).collect()
    }
}

/// A crate of nasfw as a dependency: of this version, from the checkout that this program was built in where that is
/// still there.
fn dependency(name: &str, folder: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    match checkout(name, folder) {
        Some(path) => format!("{{ version = \"{version}\", path = {} }}", toml_text(&path)),
        None => format!("\"{version}\""),
    }
}

/// Where a crate of nasfw lies in the checkout that this program was built in; none where that is gone.
fn checkout(name: &str, folder: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let manifest = fs::read_to_string(path.join("Cargo.toml")).ok()?;
    let own = manifest.contains(&format!("name = \"{name}\""));
    own.then(|| path.canonicalize().unwrap_or(path))
}

/// The crates that a program with plugins is made of, and the one that its tests use.
const CRATES: [&str; 9] = [
    "nasfw",
    "nasfw-analysis",
    "nasfw-conformance",
    "nasfw-datasets",
    "nasfw-framework",
    "nasfw-kernels",
    "nasfw-plugins",
    "nasfw-spaces",
    "nasfw-trackers",
];

/// How nasfw is built, as a section of a manifest. What only its tests use is not there to be named.
fn profile() -> String {
    let manifest = include_str!("../../Cargo.toml").parse::<toml::Table>();
    let mut profile = manifest.ok().and_then(|mut m| m.remove("profile"));
    let packages = profile
        .as_mut()
        .and_then(|profile| profile.get_mut("dev")?.get_mut("package")?.as_table_mut());
    if let Some(packages) = packages {
        packages.retain(|name, _| !name.starts_with("rten"));
        // There they are dependencies, and a message about a bug still says where in nasfw it is.
        let lines = toml::Table::from_iter([("debug".to_owned(), "line-tables-only".into())]);
        packages.extend(CRATES.map(|name| (name.to_owned(), lines.clone().into())));
    }
    let table = profile.map(|profile| toml::Table::from_iter([("profile".to_owned(), profile)]));
    table
        .and_then(|t| toml::to_string(&t).ok())
        .unwrap_or_default()
}

/// The versions of all dependencies, where they come from the checkout that this program was built in: the crate is built
/// with the same.
fn lock() -> Option<String> {
    fs::read_to_string(checkout("nasfw", ".")?.join("Cargo.lock")).ok()
}

/// A path as a TOML string.
fn toml_text(path: &Path) -> String {
    toml::Value::from(path.to_string_lossy().into_owned()).to_string()
}

/// Refuses what can be no crate, or would be a second plugin of a name.
fn check_name(kind: Kind, name: &str) -> Result<()> {
    let refused = |why: String| {
        Err(Error::Incompatible {
            what: format!("the name `{name}`"),
            why,
            help: format!(
                "choose another one, for example `{} new {} my-{}`",
                program(),
                kind.of_plugin().name(),
                kind.of_plugin().name()
            ),
        })
    };
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(letters)
        && !name.ends_with('-')
        && !name.contains("--")
        && name.len() <= 64;
    if !good {
        return refused(
            "it must begin with a small letter, and have only small letters, digits and single hyphens".into(),
        );
    }
    const TAKEN: [&str; 12] = [
        "main", "test", "build", "core", "std", "alloc", "self", "super", "crate", "serde",
        "typetag", "nasfw",
    ];
    // It becomes a module and a package, too.
    let keyword = is_keyword(&name.replace('-', "_"));
    if TAKEN.contains(&name) || keyword {
        return refused("it means something else to Rust".into());
    }
    if let Ok(known) = Registry::load()?.get(kind.of_plugin(), name) {
        return refused(format!(
            "{} has a {} of that name",
            known.crate_name,
            known.kind().name()
        ));
    }
    Ok(())
}

/// Whether a word is one of Rust's own.
fn is_keyword(word: &str) -> bool {
    const KEYWORDS: [&str; 48] = [
        "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "do",
        "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in",
        "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref",
        "return", "static", "struct", "trait", "true", "try", "type", "typeof", "unsafe",
        "unsized", "use", "virtual", "where", "while", "yield",
    ];
    KEYWORDS.contains(&word)
}

/// Refuses a folder with something in it.
fn check_folder(dir: &Path) -> Result<()> {
    let empty = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => true,
        Err(e) => return Err(Error::io("read", dir)(e)),
    };
    if empty {
        return Ok(());
    }
    Err(Error::Incompatible {
        what: format!("the folder {}", dir.display()),
        why: "there is something in it".into(),
        help: "choose another one with `--dir DIR`".into(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn new(kind: Kind) -> New {
        New {
            kind,
            name: "my-own".into(),
            dir: None,
        }
    }

    #[test]
    fn every_template_is_filled_and_says_what_the_workspace_says() {
        let workspace: toml::Table = toml::from_str(include_str!("../../Cargo.toml")).unwrap();
        let version = |name: &str| {
            let known = &workspace["workspace"]["dependencies"][name];
            known.get("version").unwrap_or(known).clone()
        };
        for kind in Kind::value_variants() {
            for (file, text) in new(*kind).files(Some(Path::new("/with space/\"torch\""))) {
                assert!(
                    !text.contains("{{") || file.ends_with("my_own.rs") && !text.contains("{{name"),
                    "{file}: {text}"
                );
                if file == "Cargo.toml" {
                    let manifest: toml::Table = toml::from_str(&text).unwrap();
                    let dependencies = &manifest["dependencies"];
                    assert_eq!(dependencies["serde"]["version"], version("serde"));
                    assert_eq!(dependencies["typetag"], version("typetag"));
                    let nasfw = &dependencies["nasfw"];
                    assert_eq!(nasfw["version"].as_str(), Some(env!("CARGO_PKG_VERSION")));
                    assert!(
                        Path::new(nasfw["path"].as_str().unwrap())
                            .join("src/lib.rs")
                            .is_file()
                    );
                    let profile = &workspace["profile"]["dev"];
                    for key in ["opt-level", "debug"] {
                        assert_eq!(manifest["profile"]["dev"][key], profile[key]);
                    }
                    let packages =
                        |profile: &toml::Value| profile["package"].as_table().unwrap().len();
                    assert_eq!(
                        packages(&manifest["profile"]["dev"]) + 4,
                        packages(profile) + CRATES.len()
                    );
                }
                if file == ".cargo/config.toml" {
                    let config: toml::Table = toml::from_str(&text).unwrap();
                    assert_eq!(
                        config["env"]["LIBTORCH"].as_str(),
                        Some("/with space/\"torch\"")
                    );
                }
            }
        }
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        for name in [
            "", "Mine", "my_own", "-mine", "mine-", "my--own", "1st", "mïne", "fn", "std", "vim",
            "serde",
        ] {
            assert!(check_name(Kind::Strategy, name).is_err(), "{name}");
        }
        for name in ["mine", "my-own-2", "darts"] {
            check_name(Kind::Dataset, name).unwrap();
        }
    }
}
