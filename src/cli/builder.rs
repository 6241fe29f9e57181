//! The space that builds the network of an architecture alone.

use nasfw_framework::arch::Genotype;
use nasfw_framework::config::typed_value;
use nasfw_framework::registry::{Kind, Registry};
use nasfw_framework::space::SearchSpace;
use nasfw_framework::{Error, Result};
use serde_json::{Map, Value, json};

use super::origin::Origin;
use super::selection::space_options;

/// Name of the space that builds an architecture's network, and its definition where it has one of its own: `asked` by
/// name or TOML file, else the architecture's own.
///
/// # Errors
/// A file that can't be read.
pub fn space_of(
    genotype: &Genotype,
    origin: &Origin,
    asked: Option<&str>,
) -> Result<(String, Option<String>)> {
    let Some(asked) = asked else {
        return Ok((origin.space_of(genotype), None));
    };
    let options = space_options("of", "settings", asked)?;
    let of = |wanted: &str| {
        let found = options.iter().find(|(key, ..)| key == wanted)?;
        Some(typed_value(&found.1).ok()?.as_str()?.to_owned())
    };
    Ok((of("of").unwrap_or_default(), of("settings.definition")))
}

/// The space that builds the network of an architecture alone ([`space_of`]), with the settings that it was found with.
///
/// # Errors
/// A space that there is not, and settings that it refuses.
pub fn builder(
    registry: &Registry,
    genotype: &Genotype,
    origin: &Origin,
    asked: Option<&str>,
) -> Result<Box<dyn SearchSpace>> {
    let (of, definition) = space_of(genotype, origin, asked)?;
    let mut settings = json!({});
    if let Ok(space) = registry.get(Kind::Space, &of) {
        for (key, value) in origin.carried(registry, space)? {
            let parts = key.split('.');
            *parts.fold(&mut settings, |at, part| &mut at[part]) = value;
        }
    }
    if let Some(definition) = definition {
        settings["definition"] = definition.into();
    }
    let text = serde_json::to_string(genotype).map_err(|e| Error::Invalid {
        what: "genotype".into(),
        why: e.to_string(),
    })?;
    let mut over = Map::new();
    over.insert("genotype".into(), text.into());
    over.insert("of".into(), of.into());
    let plugin = registry.get(Kind::Space, "standalone")?;
    let mut section = plugin.section_with(&over)?;
    section["settings"] = Value::Object(settings.as_object().cloned().unwrap_or_default());
    plugin.space(&section)?.build()
}
