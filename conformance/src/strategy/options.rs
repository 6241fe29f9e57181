//! An option that changes nothing is a promise that is not kept.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::probe::METRICS;
use super::super::report::Verdict;
use super::super::rig::{Rig, Traces};
use super::super::settings::{self, Setting};
use nasfw_framework::{Error, Result};

/// Searches with other settings, each carried out once.
struct Trials<'a> {
    rig: &'a Rig<'a>,
    seen: BTreeMap<String, Option<Traces>>,
}

impl Trials<'_> {
    /// What a search with these settings leaves; none where they are refused.
    fn see(&mut self, section: &Value) -> Result<Option<&Traces>> {
        let key = section.to_string();
        if !self.seen.contains_key(&key) {
            let rig = self.rig.with(section.clone());
            let seen = match rig.run(0, false) {
                Ok(seen) => Some(seen),
                Err(Error::Incompatible { .. } | Error::Invalid { .. } | Error::Config(_)) => None,
                Err(other) => return Err(other),
            };
            self.seen.insert(key.clone(), seen);
        }
        Ok(self.seen.get(&key).and_then(Option::as_ref))
    }

    /// Whether two settings are both valid and can be told apart.
    fn differ(&mut self, a: &Value, b: &Value) -> Result<bool> {
        if self.see(a)?.is_none() || self.see(b)?.is_none() {
            return Ok(false);
        }
        let get = |v: &Value| self.seen.get(&v.to_string());
        Ok(get(a) != get(b))
    }

    /// Whether another value of an option can be told from the one in `section`.
    fn matters(&mut self, section: &Value, option: &Setting) -> Result<bool> {
        for other in option.others(&METRICS) {
            let changed = settings::with(section, &option.path, other);
            if self.differ(section, &changed)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn all_refused(&mut self, section: &Value, option: &Setting) -> Result<bool> {
        for other in option.others(&METRICS) {
            if self
                .see(&settings::with(section, &option.path, other))?
                .is_some()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

pub(super) fn every_option_matters(rig: &Rig<'_>) -> Result<Verdict> {
    let options = settings::of(rig.plugin, &rig.section)?;
    if options.is_empty() {
        return Ok(Verdict::NotApplicable("it has no options".into()));
    }
    let trials = &mut Trials {
        rig,
        seen: BTreeMap::new(),
    };
    let mut idle = vec![];
    'options: for option in &options {
        if trials.matters(&rig.section, option)? {
            continue;
        }
        // One option may need another one: rates of Adam need Adam.
        for given in options.iter().filter(|g| g.path != option.path) {
            for value in given.others(&METRICS) {
                let section = settings::with(&rig.section, &given.path, value);
                if trials.matters(&section, option)? {
                    continue 'options;
                }
            }
        }
        if option.others(&METRICS).is_empty() {
            return Ok(Verdict::Broken(format!(
                "the comment of `{}` names no other value in double quotes, so that nobody can try one",
                option.name()
            )));
        }
        if !trials.all_refused(&rig.section, option)? {
            idle.push(format!("`{}`", option.name()));
        }
    }
    Ok(Verdict::of(idle.is_empty(), || {
        format!(
            "no other value of {} changes anything, alone or beside another option",
            idle.join(", ")
        )
    }))
}

pub(super) fn every_preset_matters(rig: &Rig<'_>) -> Result<Verdict> {
    if rig.plugin.presets.is_empty() {
        return Ok(Verdict::NotApplicable("it has no presets".into()));
    }
    let plain = rig.run(0, false)?;
    for (name, toml) in rig.plugin.presets {
        let wrong = |e: String| Error::Registry(format!("preset `{name}`: {e}"));
        let table: toml::Table = toml::from_str(toml).map_err(|e| wrong(e.to_string()))?;
        let table = serde_json::to_value(table).map_err(|e| wrong(e.to_string()))?;
        let own = table.get("strategy").unwrap_or(&Value::Null);
        let mut section = rig.section.clone();
        settings::lay(&mut section, own);
        let elsewhere = table
            .as_object()
            .is_some_and(|t| t.keys().any(|k| k != "strategy"));
        let seen = match rig.with_preset(section.clone()).run(0, false) {
            // It is meant for other spaces than the problem's.
            Err(Error::Incompatible { .. }) => continue,
            seen => seen?,
        };
        if !elsewhere && (section == rig.section || seen == plain) {
            return Ok(Verdict::Broken(format!("preset `{name}` changes nothing")));
        }
    }
    Ok(Verdict::Held)
}
