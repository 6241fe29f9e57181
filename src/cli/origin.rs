//! What a run tells beside its architecture: the data and the space's settings that it was found with, and how decided
//! it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nasfw_framework::Result;
use nasfw_framework::arch::Genotype;
use nasfw_framework::command::command;
use nasfw_framework::config::{flatten, is_option};
use nasfw_framework::registry::{Kind, Parse, Plugin, Registry};
use nasfw_framework::run::{EVENTS, RESULT, RUN, read_json, read_json_if_there};
use nasfw_framework::trainer::Outcome;
use nasfw_framework::trust::effects;
use serde_json::Value;
use tracing::warn;

/// What a run tells beside its architecture.
#[derive(Default)]
pub struct Origin {
    /// Leaves of the configuration that name its data.
    pub data: Vec<(String, Value)>,
    /// Name and settings of the space that the architecture is of.
    space: Value,
    /// The file of the result. Those of older versions do not say the space.
    result: Option<PathBuf>,
}

impl Origin {
    /// Of a run folder, or of one of its files the space: `result.json` says it wherever it is now.
    ///
    /// # Errors
    /// A `run.json` that can't be understood.
    pub fn of(what: &str, genotype: &Genotype) -> Result<Self> {
        let help =
            "give the run's result.json instead of its folder, and name the data with `--dataset`";
        let mut origin = Self::default();
        let run = Path::new(what).join(RUN);
        if run.is_file() {
            let run: Value = read_json(&run, help)?;
            origin.data = flatten(&run["dataset"])
                .into_iter()
                .map(|(key, value)| (format!("dataset.{key}"), value))
                .collect();
            for key in ["data_dir", "download"] {
                let value = run["common"][key].clone();
                origin.data.push((key.into(), value));
            }
            origin.data.retain(|(_, value)| !value.is_null());
        }
        let Some((file, _)) = file_of(what) else {
            return Ok(origin);
        };
        let said: Value = read_json(&file, "").unwrap_or_default();
        // In a genotype alone `space` is a name.
        if said["space"].is_object() {
            origin.space = said["space"].clone();
        } else {
            let name = file.file_name().and_then(|name| name.to_str());
            if let Some(RESULT | EVENTS) = name {
                let run: Option<Value> = read_json_if_there(&file.with_file_name(RUN), help)?;
                origin.space = run.map(|run| run["space"].clone()).unwrap_or_default();
            }
        }
        let is_result = Path::new(what).is_dir() || said["choice"].is_array();
        origin.result = is_result.then_some(file);
        if origin.space["name"] == "standalone" {
            origin.space = inner(&origin.space, genotype);
        }
        by_class(&mut origin.space);
        Ok(origin)
    }

    /// Name of the space that builds the architecture's network, unless another one is asked for: a class of another
    /// language is found by its place.
    pub fn space_of(&self, genotype: &Genotype) -> String {
        match self.space["name"].as_str() {
            Some(place) if place.contains(':') => place.to_owned(),
            _ => genotype.space.clone(),
        }
    }

    /// What makes the architecture doubtful; of a result also how undecided it was.
    ///
    /// # Errors
    /// A result that can't be understood.
    pub fn doubts(&self, genotype: &Genotype) -> Result<Vec<String>> {
        let help = "it was edited or cut off; `nasfw genotype` writes its architecture alone, which can be retrained";
        match &self.result {
            Some(file) => Ok(read_json::<Outcome>(file, help)?.doubts()),
            None => Ok(effects(genotype)),
        }
    }

    /// The settings that the architecture was found with, as leaves by their keys, as far as they are of the architecture
    /// and not of the search alone. Another space than the run's gets those that it has, too.
    ///
    /// # Errors
    /// Defaults of a space that can't be read.
    pub fn carried(&self, registry: &Registry, space: &Plugin) -> Result<Vec<(String, Value)>> {
        let defaults = space.default_section()?;
        let mut search_only = search_only(space)?;
        let options = defaults.as_object().into_iter().flatten();
        let mut matter = options
            .map(|(key, _)| key.as_str())
            .filter(|key| *key != "name" && !search_only.contains(key));
        if self.result.is_some() && self.space.is_null() && matter.next().is_some() {
            warn!(
                "an older version wrote this result: it does not say which settings of space `{}` the architecture was \
                 found with, and the defaults are taken; give the run's folder, or `--set space.KEY=VALUE`",
                space.name
            );
        }
        let searched = self.space["name"].as_str().unwrap_or_default();
        let mut usual = BTreeMap::new();
        if let Ok(plugin) = registry.get(Kind::Space, searched) {
            search_only.extend(self::search_only(plugin)?);
            usual = flatten(&plugin.default_section()?);
        }
        let mut carried = vec![];
        for (key, value) in flatten(&self.space) {
            let option = key.split('.').next().unwrap_or_default();
            if option == "name" || search_only.contains(&option) || value.is_null() {
                continue;
            }
            if is_option(&defaults, &key) {
                carried.push((key, value));
            } else if usual.get(&key) != Some(&value) {
                warn!(
                    "the architecture was found with `{key} = {value}` on space `{searched}`, which space `{}` has no \
                     option for",
                    space.name
                );
            }
        }
        Ok(carried)
    }
}

/// Says which settings of its space an architecture was found with, where it is told without them.
///
/// # Errors
/// As [`Origin::of`].
pub fn note(what: &str, genotype: &Genotype) -> Result<()> {
    let registry = Registry::load()?;
    let Ok(space) = registry.get(Kind::Space, &genotype.space) else {
        return Ok(());
    };
    let usual = flatten(&space.default_section()?);
    let carried = Origin::of(what, genotype)?.carried(&registry, space)?;
    let others: Vec<String> = carried
        .iter()
        .filter(|(key, value)| usual.get(key) != Some(value))
        .map(|(key, value)| match value.as_str() {
            Some(text) if text.contains('\n') => format!("a `{key}` of its own"),
            _ => format!("`{key} = {value}`"),
        })
        .collect();
    if !others.is_empty() {
        warn!(
            "the architecture was found with {} on space `{}`: the genotype alone does not say so, `{}` takes it along",
            others.join(", "),
            space.name,
            command(["retrain", what])
        );
    }
    Ok(())
}

/// Settings of a space that its architectures do without.
fn search_only(space: &Plugin) -> Result<Vec<&'static str>> {
    let Parse::Space(parse) = space.parse else {
        return Ok(vec![]);
    };
    let config = parse(&space.default_section()?).map_err(Box::new)?;
    Ok(config.search_only().to_vec())
}

/// Name and settings of the space that built the network of a retraining.
fn inner(standalone: &Value, genotype: &Genotype) -> Value {
    let text = |key: &str| standalone[key].as_str().filter(|text| !text.is_empty());
    let mut space = standalone["settings"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    // Runs of older versions have it beside the settings.
    if let Some(definition) = text("definition") {
        space.insert("definition".into(), definition.into());
    }
    space.insert("name".into(), text("of").unwrap_or(&genotype.space).into());
    Value::Object(space)
}

/// A space in another language is kept with its name and the place of its class; it goes by that place.
fn by_class(space: &mut Value) {
    let Some(space) = space.as_object_mut() else {
        return;
    };
    if let (Some(_), Some(class)) = (space.get("plugin"), space.get("class").cloned()) {
        space.remove("plugin");
        space.remove("class");
        space.insert("name".into(), class);
    }
}

/// The file that `what` names, a folder's result, and which of the file's genotypes (`RUN:front.3`); none of a name or a text.
pub fn file_of(what: &str) -> Option<(PathBuf, Option<&str>)> {
    let path = Path::new(what);
    if path.is_dir() {
        return Some((path.join(RESULT), None));
    }
    if path.exists() {
        return Some((path.into(), None));
    }
    let (path, which) = what.rsplit_once(':')?;
    let path = PathBuf::from(path);
    match path.is_dir() {
        true => Some((path.join(RESULT), Some(which))),
        false => path.is_file().then_some((path, Some(which))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Another value of the same type.
    fn other(value: &Value) -> Value {
        match value {
            Value::Bool(b) => (!b).into(),
            Value::Number(n) => match n.as_i64() {
                Some(n) => (n + 1).into(),
                None => (n.as_f64().unwrap() / 2.0).into(),
            },
            Value::String(text) => format!("{text}\n# other").into(),
            other => other.clone(),
        }
    }

    /// Whatever is set of any space in a search is what its architectures are trained with, unless it is the search's
    /// alone: by the run's folder, by a result that is elsewhere, and by a retraining of either.
    #[test]
    fn every_setting_of_every_space_comes_along() {
        let registry = Registry::load().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (run, result) = (dir.path().join(RUN), dir.path().join("copy.json"));
        let mut set = 0;
        for space in registry.of(Kind::Space).filter(|s| s.name != "standalone") {
            let mut section = space.default_section().unwrap();
            for (_, value) in section.as_object_mut().unwrap() {
                *value = other(value);
            }
            section["name"] = space.name.into();
            let own = search_only(space).unwrap();
            let mut wanted = flatten(&section);
            wanted.retain(|key, _| key != "name" && !own.contains(&key.as_str()));
            set += wanted.len();
            let genotype = Genotype {
                space: space.name.into(),
                cells: vec![],
            };
            let carried = |what: &Path| -> BTreeMap<String, Value> {
                let origin = Origin::of(what.to_str().unwrap(), &genotype).unwrap();
                let carried = origin.carried(&registry, space).unwrap();
                carried.into_iter().collect()
            };
            let write = |path: &Path, value: Value| {
                std::fs::write(path, value.to_string()).unwrap();
            };
            let mut settings = section.clone();
            let kept = |key: &str| key != "name" && !own.contains(&key);
            settings.as_object_mut().unwrap().retain(|key, _| kept(key));
            let again = serde_json::json!({ "name": "standalone", "of": "", "definition": "", "settings": settings });
            for space in [&section, &again] {
                let said =
                    serde_json::json!({ "space": space, "choice": [], "genotype": genotype });
                let mut unsaid = said.clone();
                unsaid["space"].take();
                write(&run, serde_json::json!({ "space": space }));
                write(&dir.path().join(RESULT), unsaid);
                write(&result, said);
                assert_eq!(carried(dir.path()), wanted);
                assert_eq!(carried(&dir.path().join(RESULT)), wanted);
                assert_eq!(carried(&result), wanted);
            }
        }
        assert!(set >= 4, "custom has a definition, the toys have options");
    }
}
