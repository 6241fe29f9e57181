//! `nasfw describe`.

use clap::Args;
use nasfw_framework::command::by_own_name;
use nasfw_framework::registry::{Kind, Registry, similar};
use nasfw_framework::{Error, Result};

use super::output::say;

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
            let known: Vec<String> = registry.all().iter().map(|p| p.name.to_owned()).collect();
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
            say(format!("{} {}: {}\n", p.kind().name(), p.name, p.summary));
            say(format!("source   {}", p.source));
            say(format!(
                "crate    {} {} ({})",
                p.crate_name, p.crate_version, p.file
            ));
            say(format!("example  {}", by_own_name(p.example)));
            if !p.spaces.is_empty() {
                say(format!("spaces   {}", p.spaces.join(", ")));
            }
            say(format!(
                "\noptions and defaults, as they stand in a file:\n\n{}",
                p.defaults.trim()
            ));
            for (family, defaults) in p.families {
                say(format!(
                    "\non spaces whose name begins with `{family}`:\n\n{}",
                    defaults.trim()
                ));
            }
            for (name, preset) in p.presets {
                say(format!(
                    "\npreset `{name}` (--set {}.preset={name}):\n\n{}",
                    p.kind().name(),
                    preset.trim()
                ));
            }
        }
        Ok(())
    }
}
