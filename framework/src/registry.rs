//! The registry: every plugin of every kind announces itself through `inventory`, in whatever crate it lives.

use std::sync::{Mutex, OnceLock, PoisonError};

use serde_json::Value;

use crate::benchmark::BenchmarkConfig;
use crate::cost::{Cost, METRIC};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::job::Trainer;
use crate::proxy::Proxy;
use crate::settings::{ConfigError, Problem, Validator, flatten, is_option, misread};
use crate::space::SpaceConfig;
use crate::strategy::StrategyConfig;
use crate::tracker::Tracker;

/// The kinds of plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// How to search.
    Strategy,
    /// Where to search.
    Space,
    /// What to learn from.
    Dataset,
    /// Known results.
    Benchmark,
    /// What runs a search.
    Trainer,
    /// Who else keeps what happens in a run.
    Tracker,
    /// What scores networks before they are trained.
    Proxy,
    /// What networks cost.
    Cost,
}

impl Kind {
    /// All kinds, in the order of `nasfw list`.
    pub const ALL: [Self; 8] = [
        Self::Strategy,
        Self::Space,
        Self::Dataset,
        Self::Benchmark,
        Self::Trainer,
        Self::Tracker,
        Self::Proxy,
        Self::Cost,
    ];

    /// The kind's name, which is also its section in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Strategy => "strategy",
            Self::Space => "space",
            Self::Dataset => "dataset",
            Self::Benchmark => "benchmark",
            Self::Trainer => "trainer",
            Self::Tracker => "tracker",
            Self::Proxy => "proxy",
            Self::Cost => "cost",
        }
    }
}

/// A function from a section of the configuration to the typed settings of a plugin.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub enum Parse {
    Strategy(fn(&Value) -> Result<Box<dyn StrategyConfig>, ConfigError>),
    Space(fn(&Value) -> Result<Box<dyn SpaceConfig>, ConfigError>),
    Dataset(fn(&Value) -> Result<Box<dyn Dataset>, ConfigError>),
    Benchmark(fn(&Value) -> Result<Box<dyn BenchmarkConfig>, ConfigError>),
    Trainer(fn(&Value) -> Result<Box<dyn Trainer>, ConfigError>),
    Tracker(fn(&Value) -> Result<Box<dyn Tracker>, ConfigError>),
    Proxy(fn(&Value) -> Result<Box<dyn Proxy>, ConfigError>),
    Cost(fn(&Value) -> Result<Box<dyn Cost>, ConfigError>),
}

/// What a plugin says of itself. Made by [`register!`](crate::register).
pub struct Plugin {
    /// Name in configurations and on the command line, kebab-case.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Where the method or the data was published.
    pub source: &'static str,
    /// Commented TOML: every option with its default in the plugin's own section, and what the plugin changes in
    /// other sections.
    pub defaults: &'static str,
    /// Named sets of options, as TOML like `defaults`: the ablations of a paper, say.
    pub presets: &'static [(&'static str, &'static str)],
    /// Defaults that are others on spaces whose name begins so: the beginning, and TOML that is laid over `defaults`.
    pub families: &'static [(&'static str, &'static str)],
    /// A command that shows the plugin at work.
    pub example: &'static str,
    /// For a benchmark: names of the spaces that it knows.
    pub spaces: &'static [&'static str],
    /// How its section becomes typed settings.
    pub parse: Parse,
    /// The name under which a run keeps its settings: its own, unless several plugins that are announced at run time share
    /// one type of settings.
    pub kept_as: &'static str,
    /// Crate that registers it.
    pub crate_name: &'static str,
    /// Version of that crate.
    pub crate_version: &'static str,
    /// Source file, for messages.
    pub file: &'static str,
}

inventory::collect!(Plugin);

/// Plugins that were announced while the program ran.
static ANNOUNCED: Mutex<Vec<&'static Plugin>> = Mutex::new(Vec::new());

/// Adds a plugin while the program runs, in the place of one of this kind and name that was announced before. It lives as
/// long as the program. What is linked can't be replaced: [`Registry::load`] refuses two of one name.
pub fn announce(plugin: Plugin) -> &'static Plugin {
    let plugin: &'static Plugin = Box::leak(Box::new(plugin));
    let mut announced = ANNOUNCED.lock().unwrap_or_else(PoisonError::into_inner);
    announced.retain(|p| p.kind() != plugin.kind() || p.name != plugin.name);
    announced.push(plugin);
    plugin
}

/// Looks for a plugin that nobody has announced yet, and announces it: by the place of its code, say.
pub type Finder = fn(Kind, &str) -> Result<Option<&'static Plugin>>;

static FINDER: OnceLock<Finder> = OnceLock::new();

/// Who looks for plugins whose names are unknown. Only the first call does anything.
pub fn set_finder(finder: Finder) {
    let _ = FINDER.set(finder);
}

/// All plugins of this program, in no order.
fn everything() -> Vec<&'static Plugin> {
    let mut all: Vec<&'static Plugin> = inventory::iter::<Plugin>.into_iter().collect();
    all.extend(
        ANNOUNCED
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter(),
    );
    all
}

impl Plugin {
    /// The plugin's kind.
    pub fn kind(&self) -> Kind {
        match self.parse {
            Parse::Strategy(_) => Kind::Strategy,
            Parse::Space(_) => Kind::Space,
            Parse::Dataset(_) => Kind::Dataset,
            Parse::Benchmark(_) => Kind::Benchmark,
            Parse::Trainer(_) => Kind::Trainer,
            Parse::Tracker(_) => Kind::Tracker,
            Parse::Proxy(_) => Kind::Proxy,
            Parse::Cost(_) => Kind::Cost,
        }
    }

    /// The TOML of the preset called `name`.
    pub fn preset(&self, name: &str) -> Option<&'static str> {
        self.presets
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, toml)| *toml)
    }

    /// The plugin's section of its own defaults.
    ///
    /// # Errors
    /// Defaults that are no TOML, and those of a wrapper whose inner strategy is not registered.
    pub fn default_section(&self) -> Result<Value> {
        self.section_among(&everything())
    }

    /// The same, with what it wraps among `plugins`.
    fn section_among(&self, plugins: &[&'static Plugin]) -> Result<Value> {
        let table: toml::Table = toml::from_str(self.defaults)
            .map_err(|e| Error::Registry(format!("defaults of `{}`: {e}", self.name)))?;
        let mut section = match table.get(self.kind().name()) {
            Some(section) => serde_json::to_value(section)
                .map_err(|e| Error::Registry(format!("defaults of `{}`: {e}", self.name)))?,
            None => Value::Object(Default::default()),
        };
        section["name"] = self.name.into();
        // A wrapper's section holds that of the strategy that it wraps.
        let base = section["base"]["name"].as_str().map(str::to_owned);
        if let Some(base) = base {
            let mut inner = find(plugins, self.kind(), &base)?.section_among(plugins)?;
            if let Some(inner) = inner.as_object_mut() {
                merge(inner, section["base"].take());
            }
            section["base"] = inner;
        }
        Ok(section)
    }

    /// The plugin's section of its own defaults with other values laid over them, table by table.
    ///
    /// # Errors
    /// [`Error::Config`] with every key that is no option of the plugin; keys are relative to the section.
    pub fn section_with(&self, over: &serde_json::Map<String, Value>) -> Result<Value> {
        let mut section = self.default_section()?;
        let Some(table) = section.as_object_mut() else {
            return Ok(section);
        };
        let name = table.remove("name");
        let options = Value::Object(table.clone());
        let over = Value::Object(over.clone());
        let unknown = flatten(&over).into_keys();
        let problems: Vec<Problem> = unknown
            .filter(|key| !is_option(&options, key))
            .map(|key| Problem {
                message: format!("{} `{}` has no such option", self.kind().name(), self.name),
                hint: similar(&key, flatten(&options).keys().map(String::as_str))
                    .map(|k| format!("did you mean `{k}`?")),
                key,
                origin: None,
            })
            .collect();
        if !problems.is_empty() {
            return Err(Error::Config(Box::new(ConfigError {
                problems,
                help: Some(format!(
                    "`nasfw describe {}` explains its options",
                    self.name
                )),
            })));
        }
        merge(table, over);
        table.extend(name.map(|name| ("name".into(), name)));
        Ok(section)
    }

    /// The name under which a run keeps the settings of a section: that of `#[typetag::serde(name = "…")]`.
    ///
    /// # Errors
    /// A section that the plugin refuses.
    pub fn kept_name(&self, section: &Value) -> Result<&'static str, ConfigError> {
        match self.parse {
            Parse::Strategy(_) => self.strategy(section).map(|c| c.typetag_name()),
            Parse::Space(f) => f(section).map(|c| c.typetag_name()),
            Parse::Dataset(f) => f(section).map(|c| c.typetag_name()),
            Parse::Benchmark(f) => f(section).map(|c| c.typetag_name()),
            Parse::Trainer(f) => f(section).map(|c| c.typetag_name()),
            Parse::Tracker(f) => f(section).map(|c| c.typetag_name()),
            Parse::Proxy(f) => f(section).map(|c| c.typetag_name()),
            Parse::Cost(f) => f(section).map(|c| c.typetag_name()),
        }
    }

    /// A section as the settings of a strategy.
    ///
    /// # Errors
    /// A section that the plugin refuses, and a plugin of another kind.
    pub fn strategy(&self, section: &Value) -> Result<Box<dyn StrategyConfig>, ConfigError> {
        match self.parse {
            Parse::Strategy(parse) => parse(&with_kept_base(section)?),
            _ => Err(ConfigError::one(
                "name",
                format!("`{}` is no strategy", self.name),
                None,
            )),
        }
    }

    /// A section as the settings of a space.
    ///
    /// # Errors
    /// A section that the plugin refuses, and a plugin of another kind.
    pub fn space(&self, section: &Value) -> Result<Box<dyn SpaceConfig>> {
        match self.parse {
            Parse::Space(parse) => Ok(parse(section).map_err(Box::new)?),
            _ => Err(Error::Registry(format!("`{}` is no space", self.name))),
        }
    }

    /// A section as the settings of a dataset.
    ///
    /// # Errors
    /// A section that the plugin refuses, and a plugin of another kind.
    pub fn dataset(&self, section: &Value) -> Result<Box<dyn Dataset>> {
        match self.parse {
            Parse::Dataset(parse) => Ok(parse(section).map_err(Box::new)?),
            _ => Err(Error::Registry(format!("`{}` is no dataset", self.name))),
        }
    }

    /// A section as the settings of a tracker.
    ///
    /// # Errors
    /// A section that the plugin refuses, and a plugin of another kind.
    pub fn tracker(&self, section: &Value) -> Result<Box<dyn Tracker>> {
        match self.parse {
            Parse::Tracker(parse) => Ok(parse(section).map_err(Box::new)?),
            _ => Err(Error::Registry(format!("`{}` is no tracker", self.name))),
        }
    }

    /// A section as a proxy, its ranges checked.
    ///
    /// # Errors
    /// A section that the plugin refuses, and a plugin of another kind.
    pub fn proxy(&self, section: &Value) -> Result<Box<dyn Proxy>> {
        let Parse::Proxy(parse) = self.parse else {
            return Err(Error::Registry(format!("`{}` is no proxy", self.name)));
        };
        let proxy = parse(section).map_err(Box::new)?;
        let mut v = Validator::default();
        proxy.validate(&mut v);
        v.into_result().map_err(Box::new)?;
        Ok(proxy)
    }

    /// A section as a cost, its ranges checked.
    ///
    /// # Errors
    /// A section that the plugin refuses, and a plugin of another kind.
    pub fn cost(&self, section: &Value) -> Result<Box<dyn Cost>> {
        let Parse::Cost(parse) = self.parse else {
            return Err(Error::Registry(format!("`{}` is no cost", self.name)));
        };
        let cost = parse(section).map_err(Box::new)?;
        let mut v = Validator::default();
        cost.validate(&mut v);
        v.into_result().map_err(Box::new)?;
        Ok(cost)
    }

    /// What is wrong with the name under which a section's settings are kept, if anything is. A run is read back by
    /// that name: with another one, it would go on as another plugin.
    pub fn misnamed(&self, kept: &str) -> Option<String> {
        (kept != self.kept_as).then(|| {
            format!(
                "it is registered as `{}`, but its typetag name is `{kept}`: a run would be kept under that name and read \
                 back as what is called so; write `#[typetag::serde(name = \"{}\")]`",
                self.name, self.kept_as
            )
        })
    }

    fn place(&self) -> String {
        format!("{} {} ({})", self.crate_name, self.crate_version, self.file)
    }

    /// Defaults of its own on a space, weakest first: the families that the space's name begins with.
    pub fn defaults_on(
        &self,
        space: &str,
    ) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        self.families
            .iter()
            .filter(move |(family, _)| space.starts_with(family))
    }
}

/// All plugins linked into this program, sorted by kind and name and checked.
pub struct Registry {
    plugins: Vec<&'static Plugin>,
}

impl Registry {
    /// Collects and checks the plugins of this program.
    ///
    /// # Errors
    /// Two plugins of one name, one crate linked in two versions, or a configuration type whose typetag name is not the
    /// plugin's: each names the crates and files.
    pub fn load() -> Result<Self> {
        static CHECKED: OnceLock<Result<(), String>> = OnceLock::new();
        let registry = Self::check(everything())?;
        // What is linked does not change.
        CHECKED
            .get_or_init(|| registry.check_names())
            .clone()
            .map_err(Error::Registry)?;
        Ok(registry)
    }

    /// Checks that every plugin's settings are kept under the plugin's name, as far as its defaults can be read.
    fn check_names(&self) -> Result<(), String> {
        for p in &self.plugins {
            // Whether they can is said where they are used, and by the conformance suite.
            let Ok(section) = p.section_among(&self.plugins) else {
                continue;
            };
            if let Some(why) = p.kept_name(&section).ok().and_then(|kept| p.misnamed(kept)) {
                return Err(format!(
                    "{} `{}` of {}: {why}",
                    p.kind().name(),
                    p.name,
                    p.place()
                ));
            }
        }
        Ok(())
    }

    fn check(mut plugins: Vec<&'static Plugin>) -> Result<Self> {
        plugins.sort_by_key(|p| (p.kind(), p.name, p.crate_name, p.file));
        for pair in plugins.windows(2) {
            let [a, b] = pair else { continue };
            if a.kind() == b.kind() && a.name == b.name {
                return Err(Error::Registry(format!(
                    "two {} plugins are called `{}`: one from {}, one from {}; rename one",
                    a.kind().name(),
                    a.name,
                    a.place(),
                    b.place()
                )));
            }
        }
        for (i, a) in plugins.iter().enumerate() {
            for b in &plugins[..i] {
                if a.crate_name == b.crate_name && a.crate_version != b.crate_version {
                    return Err(Error::Registry(format!(
                        "crate `{}` is linked twice, as {} and {}; `cargo tree -d` shows who asks for which",
                        a.crate_name, b.crate_version, a.crate_version
                    )));
                }
            }
        }
        Ok(Self { plugins })
    }

    /// Checks that every plugin's defaults parse and that its configuration is kept under the plugin's own name. A
    /// test of the facade calls this for all linked plugins.
    pub fn check_defaults(&self) -> Result<()> {
        for p in &self.plugins {
            let wrong = |why: String| {
                Error::Registry(format!(
                    "`{}` of {} ({}): {why}",
                    p.name, p.crate_name, p.file
                ))
            };
            let mut sections = vec![p.section_among(&self.plugins)?];
            for (name, preset) in p.presets.iter().chain(p.families) {
                let table: toml::Table = toml::from_str(preset)
                    .map_err(|e| wrong(format!("preset or family `{name}`: {e}")))?;
                let mut section = sections[0].clone();
                if let (Some(section), Some(over)) =
                    (section.as_object_mut(), table.get(p.kind().name()))
                {
                    let over = serde_json::to_value(over).map_err(|e| wrong(e.to_string()))?;
                    merge(section, over);
                }
                sections.push(section);
            }
            for section in sections {
                let kept = p
                    .kept_name(&section)
                    .map_err(|e| wrong(format!("defaults: {e}")))?;
                if let Some(why) = p.misnamed(kept) {
                    return Err(wrong(why));
                }
            }
        }
        Ok(())
    }

    /// All plugins of a kind, sorted by name.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &'static Plugin> + '_ {
        self.plugins
            .iter()
            .copied()
            .filter(move |p| p.kind() == kind)
    }

    /// All plugins.
    pub fn all(&self) -> &[&'static Plugin] {
        &self.plugins
    }

    /// The plugin of a kind and name.
    ///
    /// # Errors
    /// [`Error::UnknownPlugin`] with the most similar name.
    pub fn get(&self, kind: Kind, name: &str) -> Result<&'static Plugin> {
        find(&self.plugins, kind, name)
    }

    /// The proxy of a name, with its defaults.
    ///
    /// # Errors
    /// [`Error::UnknownPlugin`] with the most similar name.
    pub fn proxy(&self, name: &str) -> Result<Box<dyn Proxy>> {
        let plugin = self.get(Kind::Proxy, name)?;
        plugin.proxy(&plugin.default_section()?)
    }

    /// The benchmark that knows a space, if one is linked.
    pub fn benchmark_for(&self, space: &str) -> Option<&'static Plugin> {
        self.of(Kind::Benchmark).find(|p| p.spaces.contains(&space))
    }
}

/// What a network costs as limits are typed, with its unit: of the metric `cost/macs` and 72916 it is `72.92K`. None of other
/// metrics, and of costs that this program lacks.
pub fn cost_in_words(metric: &str, value: f64) -> Option<String> {
    let name = metric.strip_prefix(METRIC)?;
    let own = |p: &&'static Plugin| p.kind() == Kind::Cost && p.name == name;
    let plugin = everything().into_iter().find(own)?;
    let Parse::Cost(parse) = plugin.parse else {
        return None;
    };
    // Ranges are not checked: the unit hangs on no setting.
    let cost = parse(&plugin.default_section().ok()?).ok()?;
    Some(cost.unit().show(value))
}

/// The plugin of a kind and name.
fn find(plugins: &[&'static Plugin], kind: Kind, name: &str) -> Result<&'static Plugin> {
    let own = || plugins.iter().copied().filter(|p| p.kind() == kind);
    if let Some(plugin) = own().find(|p| p.name == name) {
        return Ok(plugin);
    }
    if let Some(plugin) = found(kind, name)? {
        return Ok(plugin);
    }
    let mut known: Vec<String> = own().map(|p| p.name.to_owned()).collect();
    known.sort_unstable();
    Err(Error::UnknownPlugin {
        kind: kind.name(),
        name: name.to_owned(),
        similar: similar(name, known.iter().map(String::as_str)),
        known,
    })
}

/// A plugin that was announced, or that can be found now.
fn found(kind: Kind, name: &str) -> Result<Option<&'static Plugin>> {
    let announced = ANNOUNCED.lock().unwrap_or_else(PoisonError::into_inner);
    let known = announced.iter().copied();
    let known = known.filter(|p| p.kind() == kind).find(|p| p.name == name);
    drop(announced);
    match (known, FINDER.get()) {
        (None, Some(find)) => find(kind, name),
        (known, _) => Ok(known),
    }
}

/// A strategy's section in which the strategy that it wraps, if that was announced, has the form in which it is kept:
/// typetag knows linked plugins alone.
fn with_kept_base(section: &Value) -> Result<Value, ConfigError> {
    let Some(name) = section["base"]["name"].as_str() else {
        return Ok(section.clone());
    };
    let refused = |e: String| ConfigError::one("base", e, None);
    let announced = found(Kind::Strategy, name).map_err(|e| refused(e.to_string()))?;
    let mut section = section.clone();
    section["base"] = match announced {
        Some(plugin) => {
            let inner = plugin.strategy(&section["base"]).map_err(|mut e| {
                for p in &mut e.problems {
                    p.key = format!("base.{}", p.key);
                }
                e
            })?;
            serde_json::to_value(inner).map_err(|e| refused(e.to_string()))?
        }
        None => with_kept_base(&section["base"])?,
    };
    Ok(section)
}

/// Merges `over` into `base`, table by table.
fn merge(base: &mut serde_json::Map<String, Value>, over: Value) {
    let Value::Object(over) = over else { return };
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Object(inner)), value @ Value::Object(_)) => merge(inner, value),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Bytes of a name beyond which it is no slip of the fingers; comparing takes time with the square of its length.
const LONGEST_SLIP: usize = 200;

/// The name that was meant by `name`, if any was: one that a slip of the fingers in three letters, counted down, makes
/// `name` of (in two letters where the words begin alike), or one that `name` is the beginning or a whole word of.
pub fn similar<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    fn sorted(word: &str) -> Vec<char> {
        let mut letters: Vec<char> = word.chars().collect();
        letters.sort_unstable();
        letters
    }
    if name.len() > LONGEST_SLIP {
        return None;
    }
    let name = &name.to_lowercase();
    let score = |k: &str| {
        let k = &k.to_lowercase();
        let slips = strsim::damerau_levenshtein(name, k);
        let letters = name.chars().count().max(k.chars().count());
        let word = k.split(['-', '_', '.']).any(|word| word == name);
        let part = name.chars().count() >= 3 && (word || k.starts_with(name.as_str()));
        let shape = strsim::jaro_winkler(name, k);
        let alike = slips <= letters / 2 && shape > 0.8;
        // Two neighbours that were swapped are a slip however short the word is.
        let swapped = slips == 1 && sorted(name) == sorted(k);
        (slips <= letters / 3 || alike || swapped || part).then_some(shape - slips as f64)
    };
    known
        .filter_map(|k| Some((score(k)?, k)))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k.to_owned())
}

/// Parses a section into a plugin's settings; the error's keys are relative to the section.
#[doc(hidden)]
pub fn parse_section<C: serde::de::DeserializeOwned>(section: &Value) -> Result<C, ConfigError> {
    let mut body = section.clone();
    if let Some(table) = body.as_object_mut() {
        table.remove("name");
    }
    serde_path_to_error::deserialize(body).map_err(|e| {
        let path = e.path().to_string();
        let key = if path == "." { String::new() } else { path };
        ConfigError {
            problems: vec![Problem {
                key,
                message: misread(&e.into_inner()),
                hint: None,
                origin: None,
            }],
            help: None,
        }
    })
}

/// Registers a plugin. `name` must also be the `#[typetag::serde(name = "…")]` of the settings' trait implementation.
///
/// ```text
/// nasfw_framework::register! {
///     strategy "mine" => MyConfig,
///     summary: "one line",
///     source: "paper",
///     defaults: "[strategy]\n# rate of the architecture\nlr = 0.1\n",
///     example: "nasfw run --strategy mine",
/// }
/// ```
#[macro_export]
macro_rules! register {
    (
        $kind:ident $name:literal => $config:ty,
        summary: $summary:expr,
        source: $source:expr,
        defaults: $defaults:expr,
        example: $example:expr
        $(, presets: $presets:expr)?
        $(, families: $families:expr)?
        $(, spaces: $spaces:expr)?
        $(,)?
    ) => {
        $crate::inventory::submit! {
            $crate::registry::Plugin {
                name: $name,
                summary: $summary,
                source: $source,
                defaults: $defaults,
                presets: { let _p: &[(&str, &str)] = &[]; $(let _p: &[(&str, &str)] = $presets;)? _p },
                families: { let _f: &[(&str, &str)] = &[]; $(let _f: &[(&str, &str)] = $families;)? _f },
                example: $example,
                spaces: { let _s: &[&str] = &[]; $(let _s: &[&str] = $spaces;)? _s },
                parse: $crate::register!(@parse $kind $config),
                kept_as: $name,
                crate_name: env!("CARGO_PKG_NAME"),
                crate_version: env!("CARGO_PKG_VERSION"),
                file: file!(),
            }
        }
    };
    (@parse strategy $config:ty) => {
        $crate::registry::Parse::Strategy(|v| {
            $crate::registry::parse_section::<$config>(v).map(|c| Box::new(c) as _)
        })
    };
    (@parse space $config:ty) => {
        $crate::registry::Parse::Space(|v| {
            $crate::registry::parse_section::<$config>(v).map(|c| Box::new(c) as _)
        })
    };
    (@parse dataset $config:ty) => {
        $crate::registry::Parse::Dataset(|v| {
            $crate::registry::parse_section::<$config>(v).map(|c| Box::new(c) as _)
        })
    };
    (@parse benchmark $config:ty) => {
        $crate::registry::Parse::Benchmark(|v| {
            $crate::registry::parse_section::<$config>(v).map(|c| Box::new(c) as _)
        })
    };
    (@parse trainer $config:ty) => {
        $crate::registry::Parse::Trainer(|v| {
            $crate::registry::parse_section::<$config>(v).map(|c| Box::new(c) as _)
        })
    };
    (@parse proxy $config:ty) => {
        $crate::registry::Parse::Proxy(|v| {
            $crate::registry::parse_section::<$config>(v).map(|c| Box::new(c) as _)
        })
    };
    (@parse cost $config:ty) => {
        $crate::registry::Parse::Cost(|v| {
            $crate::registry::parse_section::<$config>(v).map(|c| Box::new(c) as _)
        })
    };
    (@parse tracker $config:ty) => {
        $crate::registry::Parse::Tracker(|v| {
            $crate::registry::parse_section::<$config>(v).map(|c| Box::new(c) as _)
        })
    };
}

#[cfg(test)]
mod tests;
