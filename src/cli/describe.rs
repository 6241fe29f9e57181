//! `nasfw describe`.

use std::collections::BTreeSet;

use clap::Args;
use nasfw_framework::command::by_own_name;
use nasfw_framework::registry::{Kind, Registry, similar};
use nasfw_framework::{Error, Result};

use super::lines::fitted;
use super::output::{say, tell};
use super::terminal::{Stream, width};

/// Options of `describe`.
#[derive(Debug, Args)]
pub struct Describe {
    /// Name of a plugin of any kind
    name: String,
}

impl Describe {
    /// Prints everything that the plugins of this name say of themselves.
    pub fn carry_out(self) -> Result<()> {
        let registry = Registry::load()?;
        let named = registry.all().iter().copied();
        let mut found: Vec<_> = named.filter(|p| p.name == self.name).collect();
        // The place of a class, where plugins are found so.
        if found.is_empty() && self.name.contains(':') {
            let space = registry.get(Kind::Space, &self.name);
            found.push(registry.get(Kind::Strategy, &self.name).or(space)?);
        }
        if found.is_empty() {
            // One name can be that of several kinds.
            let known: BTreeSet<&str> = registry.all().iter().map(|p| p.name).collect();
            let known: Vec<String> = known.into_iter().map(str::to_owned).collect();
            let similar = similar(&self.name, known.iter().map(String::as_str));
            return Err(Error::UnknownPlugin {
                kind: "plugin",
                name: self.name,
                similar,
                known,
            });
        }
        for (i, p) in found.iter().enumerate() {
            if i > 0 {
                say("");
            }
            tell(format!("{} {}: {}\n", p.kind().name(), p.name, p.summary));
            tell(format!("source   {}", p.source));
            tell(format!(
                "crate    {} {} ({})",
                p.crate_name, p.crate_version, p.file
            ));
            say(format!("example  {}", by_own_name(p.example)));
            if !p.spaces.is_empty() {
                tell(format!("spaces   {}", p.spaces.join(", ")));
            }
            say(format!(
                "\noptions and defaults, as they stand in a file:\n\n{}",
                comments(p.defaults)
            ));
            for (family, defaults) in p.families {
                say(format!(
                    "\non spaces whose name begins with `{family}`:\n\n{}",
                    comments(defaults)
                ));
            }
            for (name, preset) in p.presets {
                say(format!(
                    "\npreset `{name}` (--set {}.preset={name}):\n\n{}",
                    p.kind().name(),
                    comments(preset)
                ));
            }
        }
        Ok(())
    }
}

/// A text of settings whose comments fit into the terminal.
fn comments(text: &str) -> String {
    let columns = width(Stream::Out);
    let lines = text
        .trim()
        .split('\n')
        .map(|line| match line.starts_with('#') {
            true => fitted(line, columns),
            false => line.to_owned(),
        });
    lines.collect::<Vec<_>>().join("\n")
}
