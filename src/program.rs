//! A program that is nasfw with plugins of one's own.

use nasfw_framework::registry::Registry;
use nasfw_framework::{Error, Result};

/// A program that is nasfw with plugins of one's own: a name and a version for its help and `--version`, and the
/// libraries whose plugins it must have.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     nasfw::Program::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
///         .with("nasfw-plugins")
///         .run()
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Program {
    name: &'static str,
    version: &'static str,
    libraries: Vec<&'static str>,
}

impl Default for Program {
    fn default() -> Self {
        Self::new("nasfw", env!("CARGO_PKG_VERSION"))
    }
}

impl Program {
    /// A program of this name and version. Commands that messages tell to type begin with the name that it was started
    /// by.
    pub fn new(name: &'static str, version: &'static str) -> Self {
        Self {
            name,
            version,
            libraries: vec![],
        }
    }

    /// A library that has plugins, by the name of its crate. A crate that no Rust path mentions is not linked, though
    /// Cargo.toml names it, and its plugins would be missing without a word: the program says so at every start.
    #[must_use]
    pub fn with(mut self, library: &'static str) -> Self {
        self.libraries.push(library);
        self
    }

    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Its version.
    pub(crate) fn version(&self) -> &'static str {
        self.version
    }

    /// Checks that the plugins of every library are there.
    ///
    /// # Errors
    /// A library without any.
    pub(crate) fn check(&self) -> Result<()> {
        if self.libraries.is_empty() {
            return Ok(());
        }
        let registry = Registry::load()?;
        for library in &self.libraries {
            if registry.all().iter().all(|p| p.crate_name != *library) {
                return Err(Error::Registry(format!(
                    "no plugin of the crate `{library}` is linked into this program: write `use {} as _;` beside `fn main` \
                     (a crate that no path mentions is left out)",
                    library.replace('-', "_")
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn libraries_that_the_linker_dropped_are_named() {
        let program = Program::new("mine", "1.0.0").with("nasfw-plugins");
        program.check().unwrap();
        let text = program.with("my-plugins").check().unwrap_err().to_string();
        assert!(
            text.contains("`my-plugins`") && text.contains("use my_plugins as _;"),
            "{text}"
        );
    }
}
