//! What every plugin must say of itself.

use serde_json::Value;

use super::report::{Report, Verdict};
use super::settings;
use nasfw_framework::benchmark::BenchmarkConfig;
use nasfw_framework::config::{ConfigError, Validator};
use nasfw_framework::cost::Cost;
use nasfw_framework::dataset::Dataset;
use nasfw_framework::proxy::Proxy;
use nasfw_framework::registry::{Parse, Plugin};
use nasfw_framework::space::SpaceConfig;
use nasfw_framework::strategy::StrategyConfig;
use nasfw_framework::tracker::Tracker;
use nasfw_framework::trainer::Trainer;
use nasfw_framework::{Error, Result};

/// Parses a section and gives it back as the configuration is kept, after a round trip through that form.
fn kept(plugin: &Plugin, section: &Value) -> Result<(Value, Value)> {
    fn twice<T: serde::Serialize + serde::de::DeserializeOwned>(
        parsed: Result<T, ConfigError>,
    ) -> Result<(Value, Value)> {
        let wrong = |e: serde_json::Error| Error::Registry(e.to_string());
        let config = parsed.map_err(|e| Error::Registry(e.to_string()))?;
        let first = serde_json::to_value(&config).map_err(wrong)?;
        let again: T = serde_json::from_value(first.clone()).map_err(wrong)?;
        Ok((first, serde_json::to_value(&again).map_err(wrong)?))
    }
    match plugin.parse {
        Parse::Strategy(_) => twice::<Box<dyn StrategyConfig>>(plugin.strategy(section)),
        Parse::Space(f) => twice::<Box<dyn SpaceConfig>>(f(section)),
        Parse::Dataset(f) => twice::<Box<dyn Dataset>>(f(section)),
        Parse::Benchmark(f) => twice::<Box<dyn BenchmarkConfig>>(f(section)),
        Parse::Trainer(f) => twice::<Box<dyn Trainer>>(f(section)),
        Parse::Tracker(f) => twice::<Box<dyn Tracker>>(f(section)),
        Parse::Proxy(f) => twice::<Box<dyn Proxy>>(f(section)),
        Parse::Cost(f) => twice::<Box<dyn Cost>>(f(section)),
    }
}

/// The plugin's own checks of a section.
fn check_ranges(plugin: &Plugin, section: &Value) -> Result<(), ConfigError> {
    let mut v = Validator::default();
    match plugin.parse {
        Parse::Strategy(_) => plugin.strategy(section)?.validate(&mut v),
        Parse::Space(f) => f(section)?.validate(&mut v),
        Parse::Dataset(f) => f(section)?.validate(&mut v),
        Parse::Trainer(f) => f(section)?.validate(&mut v),
        Parse::Tracker(f) => f(section)?.validate(&mut v),
        Parse::Proxy(f) => f(section)?.validate(&mut v),
        Parse::Cost(f) => f(section)?.validate(&mut v),
        Parse::Benchmark(f) => drop(f(section)?),
    }
    v.into_result()
}

/// Checks a plugin's descriptor: its name, its defaults and their round trip, keys that it does not know.
pub fn plugin(plugin: &Plugin) -> Report {
    let mut report = Report::new(format!("{} `{}`", plugin.kind().name(), plugin.name));
    report.check(
        "name-is-kebab-case",
        "the name is of lower-case letters, digits and dashes",
        || {
            let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            let fine = plugin
                .name
                .split('-')
                .all(|p| !p.is_empty() && p.chars().all(letters));
            Ok(Verdict::of(fine, || format!("it is `{}`", plugin.name)))
        },
    );
    report.check(
        "typetag-name",
        "its settings are kept with a run under the plugin's own name",
        || {
            let section = plugin.default_section()?;
            let kept = plugin.kept_name(&section).map_err(Box::new)?;
            Ok(plugin.misnamed(kept).map_or(Verdict::Held, Verdict::Broken))
        },
    );
    report.check(
        "settings-round-trip",
        "the defaults parse and are read back as they were kept",
        || {
            let (first, again) = kept(plugin, &plugin.default_section()?)?;
            Ok(Verdict::of(first == again, || {
                format!("{first} came back as {again}")
            }))
        },
    );
    report.check(
        "defaults-are-valid",
        "the defaults pass the plugin's own checks of ranges",
        || {
            check_ranges(plugin, &plugin.default_section()?).map_err(Box::new)?;
            Ok(Verdict::Held)
        },
    );
    report.check(
        "options-are-explained",
        "every option has a comment",
        || {
            let section = plugin.default_section()?;
            let bare = settings::of(plugin, &section)?
                .into_iter()
                .find(|s| !s.commented);
            Ok(bare.map_or(Verdict::Held, |s| {
                Verdict::Broken(format!("`{}` has no comment above it", s.name()))
            }))
        },
    );
    report.check(
        "presets-are-valid",
        "every preset is made of options that exist, within their ranges",
        || {
            for (name, toml) in plugin.presets {
                let wrong = |e: String| Error::Registry(format!("preset `{name}`: {e}"));
                let table: toml::Table = toml::from_str(toml).map_err(|e| wrong(e.to_string()))?;
                let table = serde_json::to_value(table).map_err(|e| wrong(e.to_string()))?;
                let mut section = plugin.default_section()?;
                settings::lay(&mut section, &table[plugin.kind().name()]);
                if let Err(e) = check_ranges(plugin, &section) {
                    return Ok(Verdict::Broken(format!("preset `{name}`: {e}")));
                }
            }
            Ok(Verdict::Held)
        },
    );
    report.check(
        "unknown-key-is-refused",
        "a misspelt option is an error",
        || {
            let mut section = plugin.default_section()?;
            section["no_such_option"] = 1.into();
            Ok(Verdict::of(kept(plugin, &section).is_err(), || {
                "`no_such_option = 1` was accepted".into()
            }))
        },
    );
    report.check(
        "options-are-kept",
        "every option of the defaults is kept with a run",
        || {
            let section = plugin.default_section()?;
            let (first, _) = kept(plugin, &section)?;
            for setting in settings::of(plugin, &section)? {
                let seen = setting.path.iter().try_fold(&first, |at, key| at.get(key));
                if seen.is_none() {
                    return Ok(Verdict::Broken(format!("`{}` is lost", setting.name())));
                }
            }
            Ok(Verdict::Held)
        },
    );
    report
}
