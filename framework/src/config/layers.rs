//! Merging layers, and remembering where every value came from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use config::{Config, Environment, File, FileFormat};
use serde_json::{Map, Value};

use super::document::Document;
use super::limits::{CONSTRAINED, LIMITS, long_form, long_keys, own_options, weakest};
use super::resolved::Resolved;
use super::trackers::{TENSORBOARD, TRACKERS, wanted as wanted_trackers};
use crate::error::{Error, Result};
use crate::job::RunConfig;
use crate::registry::{Kind, Plugin, Registry, similar};
use crate::settings::{ConfigError, Origin, Problem, flatten, is_option, pointer};

/// The embedded, commented defaults of everything that belongs to no plugin.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// What a user adds to the defaults.
#[derive(Debug, Clone)]
pub enum Layer {
    /// A TOML file: its path and its text.
    File(PathBuf, String),
    /// Environment variables; those that begin with `NASFW_` count.
    Environment(Vec<(String, String)>),
    /// Options of the command line: dotted key, value as typed, and the option for messages.
    CommandLine(Vec<(String, String, String)>),
}

/// Environment variables of the prefix that are no configuration keys.
const RESERVED: [&str; 6] = [
    "NASFW_PYTHON",
    "NASFW_LOG",
    "NASFW_NO_PROGRESS",
    "NASFW_LIBTORCH",
    "NASFW_TEST_DATA",
    "NASFW_SKIP_LOG",
];

/// The most parts of a dotted key.
const DEEPEST: usize = 32;
/// So many unknown options are named one by one; where there are more, the file is another kind of file.
const NAMED: usize = 20;

/// One layer ready to merge: TOML text, and the origin of each leaf.
struct Source {
    toml: String,
    leaves: BTreeMap<String, Origin>,
    from_user: bool,
}

fn config_error(key: &str, message: String, origin: Option<Origin>) -> Error {
    Error::Config(Box::new(ConfigError::one(key, message, origin)))
}

fn embedded(toml: &str, origin: Origin) -> Result<Source> {
    let table: toml::Table =
        toml::from_str(toml).map_err(|e| Error::Registry(format!("{origin}: {e}")))?;
    let value =
        serde_json::to_value(table).map_err(|e| Error::Registry(format!("{origin}: {e}")))?;
    let leaves = flatten(&value)
        .into_keys()
        .map(|k| (k, origin.clone()))
        .collect();
    Ok(Source {
        toml: toml.to_owned(),
        leaves,
        from_user: false,
    })
}

fn file(path: &Path, text: &str) -> Result<Source> {
    let help = "`nasfw config show --toml` writes a file to begin with";
    let document = Document::parse(path, text.to_owned(), help)?;
    let origin = |key: &str| document.origin(key).unwrap_or_else(|| document.at(0..0));
    let leaves = document
        .leaves()
        .map(|key| (key.to_owned(), origin(key)))
        .collect();
    Ok(Source {
        toml: text.to_owned(),
        leaves,
        from_user: true,
    })
}

/// The setting that an environment variable is for, if it is: `strategy.lr` of `NASFW_STRATEGY__LR`.
pub fn environment_key(name: &str) -> Option<String> {
    let rest = name
        .strip_prefix("NASFW_")
        .filter(|_| !RESERVED.contains(&name))?;
    Some(rest.to_lowercase().replace("__", "."))
}

/// Trees are walked by recursion.
fn check_depth(key: &str, origin: &Origin) -> Result<()> {
    let parts = key.split('.').count();
    if parts <= DEEPEST {
        return Ok(());
    }
    let start: String = key.chars().take(40).collect();
    let message = format!("{parts} parts are too many for a dotted key, {DEEPEST} are the most");
    Err(config_error(
        &format!("{start}…"),
        message,
        Some(origin.clone()),
    ))
}

fn environment(variables: &[(String, String)]) -> Result<Source> {
    let mine: Vec<_> = variables
        .iter()
        .filter_map(|(n, v)| Some((environment_key(n)?, n, v)))
        .collect();
    for (key, name, value) in &mine {
        let origin = Origin::Environment((*name).clone());
        check_depth(key, &origin)?;
        if let Some(problem) = too_large(value) {
            return Err(config_error(key, problem, Some(origin)));
        }
    }
    let leaves = mine
        .iter()
        .map(|(k, n, _)| (k.clone(), Origin::Environment((*n).clone())))
        .collect();
    let source = mine
        .iter()
        .map(|(_, n, v)| ((*n).clone(), (*v).clone()))
        .collect();
    let tree: Value = Config::builder()
        .add_source(
            Environment::with_prefix("NASFW")
                .prefix_separator("_")
                .separator("__")
                .try_parsing(true)
                .source(Some(source)),
        )
        .build()
        .and_then(Config::try_deserialize)
        .map_err(|e| config_error("", format!("environment: {e}"), None))?;
    let toml =
        toml::to_string(&tree).map_err(|e| config_error("", format!("environment: {e}"), None))?;
    Ok(Source {
        toml,
        leaves,
        from_user: true,
    })
}

fn command_line(options: &[(String, String, String)]) -> Result<Source> {
    let mut tree = toml::Table::new();
    let mut leaves = BTreeMap::new();
    for (key, text, typed) in options {
        let origin = Origin::CommandLine(typed.clone());
        let value =
            typed_value(text).map_err(|why| config_error(key, why, Some(origin.clone())))?;
        check_depth(key, &origin)?;
        let mut table = &mut tree;
        let mut parts: Vec<&str> = key.split('.').collect();
        let last = parts.pop().unwrap_or_default();
        if last.is_empty() || parts.iter().any(|p| p.is_empty()) {
            return Err(config_error(
                key,
                "this is not a dotted key".into(),
                Some(origin),
            ));
        }
        for part in parts {
            let inner = table
                .entry(part)
                .or_insert_with(|| toml::Value::Table(toml::Table::new()))
                .as_table_mut();
            table = inner.ok_or_else(|| {
                config_error(
                    key,
                    format!("`{part}` is set to a value above"),
                    Some(origin.clone()),
                )
            })?;
        }
        table.insert(last.to_owned(), value);
        leaves.insert(key.clone(), origin);
    }
    let toml =
        toml::to_string(&tree).map_err(|e| config_error("", format!("command line: {e}"), None))?;
    Ok(Source {
        toml,
        leaves,
        from_user: true,
    })
}

/// The value that a text on the command line is: TOML where it can be, else a string, so that
/// `--set strategy.input=fixed` needs no quotes.
///
/// # Errors
/// What is wrong with an integer that TOML can't hold.
pub fn typed_value(text: &str) -> Result<toml::Value, String> {
    if let Some(problem) = too_large(text) {
        return Err(problem);
    }
    let table = toml::from_str::<toml::Table>(&format!("v = {text}")).ok();
    let value = table.and_then(|mut table| table.remove("v"));
    Ok(value.unwrap_or_else(|| toml::Value::String(text.to_owned())))
}

/// What is wrong with an integer that TOML can't hold; none of any other text.
fn too_large(text: &str) -> Option<String> {
    let digits = text.trim().trim_start_matches(['+', '-']).replace('_', "");
    let integer = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let fits = text.trim().replace('_', "").parse::<i64>().is_ok();
    (integer && !fits).then(|| {
        format!(
            "{} is out of range, an integer must be from {} to {}",
            text.trim(),
            i64::MIN,
            i64::MAX
        )
    })
}

fn merged(sources: &[Source]) -> Result<Value> {
    let mut builder = Config::builder();
    for s in sources {
        builder = builder.add_source(File::from_str(&s.toml, FileFormat::Toml));
    }
    let tree: Value = builder
        .build()
        .and_then(Config::try_deserialize)
        .map_err(|e| config_error("", e.to_string(), None))?;
    Ok(sorted(tree))
}

/// The same tree with keys in alphabetical order: `config` keeps them in none.
fn sorted(tree: Value) -> Value {
    match tree {
        Value::Object(map) => {
            let ordered: BTreeMap<String, Value> =
                map.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            Value::Object(ordered.into_iter().collect())
        }
        leaf => leaf,
    }
}

/// Name of the plugin of `kind` that a partly merged configuration asks for, with the origin of that name.
fn name_of(kind: Kind, merged: &Value) -> Option<&str> {
    merged.get(kind.name())?.get("name")?.as_str()
}

/// Merges the user's layers (weakest first) onto the defaults of the framework and of the plugins that they name.
///
/// # Errors
/// Syntax errors with their line, unknown plugins and unknown keys with suggestions; all unknown keys at once, and with
/// them what [`RunConfig::new`] says of the others.
pub fn resolve(registry: &Registry, layers: &[Layer]) -> Result<Resolved> {
    let user: Vec<Source> = layers
        .iter()
        .map(|layer| match layer {
            Layer::File(path, text) => file(path, text),
            Layer::Environment(variables) => environment(variables),
            Layer::CommandLine(options) => command_line(options),
        })
        .collect::<Result<_>>()?;
    let defaults = embedded(DEFAULTS, Origin::Default)?;
    let fallback = merged(std::slice::from_ref(&defaults))?;
    let user = under_limits(
        registry,
        user,
        name_of(Kind::Strategy, &fallback).unwrap_or_default(),
    )?;
    let wanted = merged(&user)?;

    let pick = |kind: Kind, weaker: &[&Value]| -> Result<Option<&'static Plugin>> {
        let name = std::iter::once(&wanted)
            .chain(weaker.iter().copied())
            .chain([&fallback])
            .find_map(|v| name_of(kind, v).map(str::to_owned));
        name.map(|n| registry.get(kind, &n)).transpose()
    };
    let trainer = pick(Kind::Trainer, &[])?;
    let space = pick(Kind::Space, &[])?;
    let strategy = pick(Kind::Strategy, &[])?;
    let of_space = match space {
        Some(p) => merged(&[embedded(p.defaults, Origin::Default)?])?,
        None => Value::Null,
    };
    let dataset = pick(Kind::Dataset, &[&of_space])?;
    let benchmark = match name_of(Kind::Benchmark, &wanted) {
        Some("none") => None,
        Some("auto") | None => space.and_then(|s| registry.benchmark_for(s.name)),
        Some(name) => Some(registry.get(Kind::Benchmark, name)?),
    };

    let origin = |key: &str| user.iter().rev().find_map(|s| s.leaves.get(key).cloned());
    let on = wanted_trackers(&wanted)
        .map_err(|(key, what)| config_error(key, what.into(), origin(key)))?;
    let mentioned = wanted.get(Kind::Tracker.name()).and_then(Value::as_object);
    let mentioned = mentioned.into_iter().flat_map(Map::keys);
    let trackers: BTreeSet<&String> = on.iter().chain(mentioned).collect();
    let trackers = trackers
        .into_iter()
        .map(|name| registry.get(Kind::Tracker, name))
        .collect::<Result<Vec<_>>>()?;

    let mut sources = vec![defaults];
    let mut known: BTreeMap<String, ()> =
        sources[0].leaves.keys().map(|k| (k.clone(), ())).collect();
    known.insert(TENSORBOARD.into(), ());
    let layers = Layers {
        registry,
        on: space.map_or("", |s| s.name),
        user: &user,
        wanted: &wanted,
    };
    for plugin in [trainer, space, strategy, dataset, benchmark]
        .into_iter()
        .flatten()
    {
        layers.of(plugin, plugin.kind().name(), &mut sources, &mut known)?;
    }
    for plugin in trackers {
        let section = format!("{}.{}", Kind::Tracker.name(), plugin.name);
        layers.of(plugin, &section, &mut sources, &mut known)?;
    }
    let mut defaults = merged(&sources)?;
    sources.extend(user);
    let unknown = unknown_keys(&sources, &known, &defaults);

    let mut value = merged(&sources)?;
    for (key, _) in &unknown {
        remove(&mut value, key);
    }
    let unknown = named(&unknown, &known);
    let mut origins = BTreeMap::new();
    for s in &sources {
        origins.extend(s.leaves.iter().map(|(k, o)| (k.clone(), o.clone())));
    }
    for (kind, plugin) in [
        (Kind::Trainer, trainer),
        (Kind::Space, space),
        (Kind::Strategy, strategy),
        (Kind::Dataset, dataset),
        (Kind::Benchmark, benchmark),
    ] {
        let section = kind.name();
        for tree in [&mut value, &mut defaults] {
            if let Some(table) = tree.get_mut(section).and_then(Value::as_object_mut) {
                forget_presets(table);
                table.insert("name".into(), plugin.map_or("none", |p| p.name).into());
            }
        }
    }
    if let Some(tree) = value.as_object_mut() {
        tree.remove(TENSORBOARD);
        tree.insert(TRACKERS.into(), on.into());
    }
    let leaves = flatten(&value);
    origins.retain(|k, _| leaves.contains_key(k));
    let resolved = Resolved {
        value,
        origins,
        defaults,
    };
    if unknown.is_empty() {
        return Ok(resolved);
    }
    let mut problems = unknown;
    if let Err(Error::Config(more)) = RunConfig::new(registry, &resolved) {
        problems.extend(more.problems);
    }
    Err(Error::Config(Box::new(ConfigError {
        problems,
        help: Some("`nasfw config show` lists every option with its value and origin".into()),
    })))
}

/// Layers without limits beside the strategy: the strategy that has them is around it, `usual` where none is named.
fn under_limits(registry: &Registry, layers: Vec<Source>, usual: &str) -> Result<Vec<Source>> {
    let before = merged(&layers)?;
    if before.get(LIMITS).is_none() {
        return Ok(layers);
    }
    let wrapped = name_of(Kind::Strategy, &before) == Some(CONSTRAINED);
    let own = own_options(registry);
    let long = |layer: Source| {
        let no_toml = |e: toml::de::Error| config_error("", e.to_string(), None);
        let mut tree: toml::Table = toml::from_str(&layer.toml).map_err(no_toml)?;
        long_form(&mut tree, &own, wrapped);
        Ok(Source {
            toml: tree.to_string(),
            leaves: long_keys(layer.leaves, &own, wrapped),
            ..layer
        })
    };
    let weakest = (!wrapped).then(|| embedded(&weakest(usual), Origin::Default));
    let layers = layers.into_iter().map(long);
    weakest.into_iter().chain(layers).collect()
}

/// Takes what is at a dotted path out of a tree.
fn remove(tree: &mut Value, key: &str) {
    let (table, last) = match key.rsplit_once('.') {
        Some((table, last)) => (
            tree.pointer_mut(&format!("/{}", table.replace('.', "/"))),
            last,
        ),
        None => (Some(tree), key),
    };
    if let Some(table) = table.and_then(Value::as_object_mut) {
        table.remove(last);
    }
}

/// A preset has been laid under the user's settings; it is none of its own. The others keep their order.
fn forget_presets(section: &mut Map<String, Value>) {
    section.retain(|key, _| key != "preset");
    if let Some(base) = section.get_mut("base").and_then(Value::as_object_mut) {
        forget_presets(base);
    }
}

/// What the layers of a plugin depend on.
struct Layers<'a> {
    registry: &'a Registry,
    /// Name of the space.
    on: &'a str,
    user: &'a [Source],
    /// What the user asks for, merged.
    wanted: &'a Value,
}

impl Layers<'_> {
    /// Adds the defaults of a plugin whose section is `section`: those of the strategy that it wraps first, then its
    /// own, those of its own on the space, and the preset that is asked for.
    fn of(
        &self,
        plugin: &'static Plugin,
        section: &str,
        sources: &mut Vec<Source>,
        known: &mut BTreeMap<String, ()>,
    ) -> Result<()> {
        let wanted = |key: &str| {
            let place = pointer(&format!("{section}.{key}"));
            self.wanted.pointer(&place).and_then(Value::as_str)
        };
        let own: toml::Table = toml::from_str(plugin.defaults)
            .map_err(|e| Error::Registry(format!("defaults of `{}`: {e}", plugin.name)))?;
        let usual = (|| {
            own.get(plugin.kind().name())?
                .get("base")?
                .get("name")?
                .as_str()
        })();
        let base = usual.map(|usual| wanted("base/name").unwrap_or(usual));
        if let Some(name) = base {
            let inner = self.registry.get(plugin.kind(), name)?;
            self.of(inner, &format!("{section}.base"), sources, known)?;
        }
        let mut add = |toml: &str, what: &str| -> Result<()> {
            let origin = Origin::Plugin(format!("{} {}{what}", plugin.kind().name(), plugin.name));
            // What a wrapper says of its usual base says nothing of another one.
            let toml = placed(toml, plugin, section, base == usual)
                .map_err(|e| Error::Registry(format!("{origin}: {e}")))?;
            let layer = embedded(&toml, origin)?;
            known.extend(layer.leaves.keys().map(|k| (k.clone(), ())));
            sources.push(layer);
            Ok(())
        };
        add(plugin.defaults, "")?;
        for (family, toml) in plugin.defaults_on(self.on) {
            add(toml, &format!(", on {family}"))?;
        }
        let key = format!("{section}.preset");
        if let Some(preset) = wanted("preset") {
            let toml = plugin.preset(preset).ok_or_else(|| {
                let names: Vec<&str> = plugin.presets.iter().map(|(n, _)| *n).collect();
                let all = if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                };
                let origin = self
                    .user
                    .iter()
                    .rev()
                    .find_map(|s| s.leaves.get(&key).cloned());
                let message = format!("`{}` has no preset `{preset}`", plugin.name);
                Error::Config(Box::new(
                    ConfigError::one(key.clone(), message, origin)
                        .with_help(format!("presets of `{}`: {all}", plugin.name)),
                ))
            })?;
            add(toml, &format!(", preset {preset}"))?;
        }
        known.insert(key, ());
        if base.is_some() {
            known.insert(format!("{section}.base.name"), ());
        }
        Ok(())
    }
}

/// A plugin's TOML with its own section in the place of `section`, and its name in it where that is inside another one.
fn placed(
    toml: &str,
    plugin: &Plugin,
    section: &str,
    keep_base: bool,
) -> Result<String, Box<dyn std::error::Error>> {
    let kind = plugin.kind().name();
    if section == kind && keep_base {
        return Ok(toml.to_owned());
    }
    let mut table: toml::Table = toml::from_str(toml)?;
    let own = table.remove(kind);
    let mut own = own
        .and_then(|own| own.as_table().cloned())
        .unwrap_or_default();
    if !keep_base {
        own.remove("base");
    }
    if section != kind {
        own.insert("name".into(), plugin.name.into());
    }
    let mut parts = section.split('.').rev();
    let mut nested = toml::Value::Table(own);
    let top = parts.next_back().unwrap_or_default();
    for part in parts {
        nested = toml::Value::Table(toml::Table::from_iter([(part.to_owned(), nested)]));
    }
    table.insert(top.to_owned(), nested);
    Ok(toml::to_string(&table)?)
}

/// The user's settings that are none.
fn unknown_keys<'a>(
    sources: &'a [Source],
    known: &BTreeMap<String, ()>,
    defaults: &Value,
) -> Vec<(&'a String, &'a Origin)> {
    // A whole default table may be replaced by a leaf only by mistake; serde reports that with its type.
    let unknown = |key: &String| !known.contains_key(key) && !is_option(defaults, key);
    sources
        .iter()
        .filter(|s| s.from_user)
        .flat_map(|s| s.leaves.iter().filter(|(key, _)| unknown(key)))
        .collect()
}

/// What is said of them.
fn named(unknown: &[(&String, &Origin)], known: &BTreeMap<String, ()>) -> Vec<Problem> {
    let problem = |(key, origin): &(&String, &Origin)| Problem {
        key: (*key).clone(),
        message: "there is no such option".into(),
        hint: nearest(key, known).map(|k| format!("did you mean `{k}`?")),
        origin: Some((*origin).clone()),
    };
    let mut problems: Vec<Problem> = unknown.iter().take(NAMED).map(problem).collect();
    if unknown.len() > NAMED {
        problems.push(Problem {
            key: String::new(),
            message: format!("{} more options are unknown", unknown.len() - NAMED),
            hint: None,
            origin: None,
        });
    }
    problems
}

/// The known key that was meant by `key`: its last part is that of `key` or like it, and of those the one whose whole is
/// the most like it.
fn nearest(key: &str, known: &BTreeMap<String, ()>) -> Option<String> {
    fn last(key: &str) -> &str {
        key.rsplit('.').next().unwrap_or(key)
    }
    let name = similar(last(key), known.keys().map(|k| last(k)))?;
    let shape = |k: &&String| strsim::jaro_winkler(key, k);
    let all = known.keys().filter(|k| last(k) == name);
    all.max_by(|a, b| shape(a).total_cmp(&shape(b))).cloned()
}
