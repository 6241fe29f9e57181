//! Which of the genotypes of a text is meant.

use std::collections::HashMap;

use nasfw_framework::arch::Genotype;
use nasfw_framework::registry::similar;

use super::find::{Found, find};
use super::form::{Format, FormatError, MAX_BYTES};
use super::text::Source;

/// Genotypes that a message lists at the beginning and at the end.
const LISTED: usize = 6;

/// A genotype from a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The genotype.
    pub genotype: Genotype,
    /// Fields that it had beside those of its form, with something in them.
    pub passed_over: Vec<String>,
}

/// Reads one genotype of a text: the one called `which` (a variable or key), or the one in the line of this number, or
/// the `first` or `last`; without `which` the only one. Equal ones count as one.
///
/// # Errors
/// What is wrong, and where; where there are several, which there are.
pub fn choose(text: &str, which: Option<&str>) -> Result<Chosen, FormatError> {
    if text.len() > MAX_BYTES {
        return Err(FormatError::TooLong);
    }
    let text = text.trim_start_matches('\u{feff}');
    let source = Source::new(text);
    let mut found = find(&source)?;
    if found.iter().any(|f| !f.code) {
        found.retain(|f| !f.code);
    }
    if found.is_empty() {
        return Err(FormatError::Unknown(resemblance(text)));
    }
    let listing = Listing { source, found };
    let candidates: Vec<&Found> = match which {
        None => listing.found.iter().collect(),
        Some(which) => listing.matching(which)?,
    };
    // A text with nothing but faults is wrong in the first of them.
    let groups = groups(&candidates);
    let chosen = match groups.as_slice() {
        [(Some(_), one)] => one[0],
        groups if groups.iter().all(|g| g.0.is_none()) || groups.len() == 1 => candidates[0],
        groups => return Err(listing.several(groups)),
    };
    match &chosen.read {
        Ok(genotype) => Ok(Chosen {
            genotype: genotype.clone(),
            passed_over: chosen.passed_over.clone(),
        }),
        Err(wrong) => Err(listing.source.error(chosen.format, wrong.clone())),
    }
}

/// Those with equal genotypes together, in the order of the first of each; what can't be read stands alone.
type Group<'a> = (Option<&'a Genotype>, Vec<&'a Found>);

fn groups<'a>(found: &[&'a Found]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = vec![];
    let mut known: HashMap<&Genotype, usize> = HashMap::new();
    for &f in found {
        match &f.read {
            Ok(genotype) => {
                let k = *known.entry(genotype).or_insert(groups.len());
                match groups.get_mut(k) {
                    Some(group) => group.1.push(f),
                    None => groups.push((Some(genotype), vec![f])),
                }
            }
            Err(_) => groups.push((None, vec![f])),
        }
    }
    groups
}

struct Listing<'a> {
    source: Source<'a>,
    found: Vec<Found>,
}

impl Listing<'_> {
    /// Those that `which` means.
    fn matching(&self, which: &str) -> Result<Vec<&Found>, FormatError> {
        let plain = |name: &str| name.to_lowercase().replace('-', "_");
        let named = |same: &dyn Fn(&str) -> bool| -> Vec<&Found> {
            let is = |f: &&Found| same(&f.path.join(".")) || f.path.iter().any(|part| same(part));
            self.found.iter().filter(is).collect()
        };
        let exact = named(&|name| name == which);
        if !exact.is_empty() {
            return Ok(exact);
        }
        let like = named(&|name| plain(name) == plain(which));
        if !like.is_empty() {
            return Ok(like);
        }
        let line: Option<usize> = which.parse().ok();
        let there: Vec<&Found> = match which {
            "first" => self.found.first().into_iter().collect(),
            "last" => self.found.last().into_iter().collect(),
            _ => {
                let in_line = |f: &&Found| Some(self.source.line(f.at)) == line;
                self.found.iter().filter(in_line).collect()
            }
        };
        if !there.is_empty() {
            return Ok(there);
        }
        let names: Vec<&str> = self
            .found
            .iter()
            .flat_map(|f| f.path.iter().map(String::as_str))
            .collect();
        let mut list = self.list(&groups(&self.found.iter().collect::<Vec<_>>())).0;
        if let Some(meant) = similar(which, names.into_iter()) {
            list += &format!("; did you mean `{meant}`?");
        }
        Err(FormatError::NoSuch {
            which: which.into(),
            list,
        })
    }

    fn several(&self, groups: &[Group<'_>]) -> FormatError {
        let (list, example) = self.list(groups);
        FormatError::Several {
            count: groups.len(),
            list,
            example,
        }
    }

    /// Names and lines of all, and what to ask for to get the last one.
    fn list(&self, groups: &[Group<'_>]) -> (String, String) {
        let epochs = epochs(self.source.text);
        let mut owners: HashMap<String, usize> = HashMap::new();
        for (k, (_, group)) in groups.iter().enumerate() {
            for name in names(group) {
                // A name of several groups tells nothing.
                let owner = owners.entry(name).or_insert(k);
                if *owner != k {
                    *owner = usize::MAX;
                }
            }
        }
        let mut labels = vec![];
        for (k, (genotype, group)) in groups.iter().enumerate() {
            let mut own: Vec<String> = names(group);
            own.retain(|name| owners.get(name) == Some(&k));
            let at = group.first().map_or(0, |f| f.at);
            let line = format!("line {}", self.source.line(at));
            let epoch = epochs[..epochs.partition_point(|e| e.0 < at)].last();
            let mut more: Vec<String> = epoch
                .map(|e| format!("epoch {}", e.1))
                .into_iter()
                .collect();
            if genotype.is_none() {
                more.push("can't be read".into());
            }
            let label = if own.is_empty() {
                line.clone()
            } else {
                more.insert(0, line.clone());
                own.join(" = ")
            };
            let more = if more.is_empty() {
                String::new()
            } else {
                format!(" ({})", more.join(", "))
            };
            let key = own
                .into_iter()
                .next()
                .unwrap_or_else(|| line.replace("line ", ""));
            labels.push((label + &more, key));
        }
        let example = labels.last().map_or(String::new(), |l| l.1.clone());
        let mut shown: Vec<String> = labels.into_iter().map(|l| l.0).collect();
        if shown.len() > 2 * LISTED {
            shown.splice(LISTED..shown.len() - LISTED, ["…".to_owned()]);
        }
        (shown.join(", "), example)
    }
}

/// The different names of a group.
fn names(group: &[&Found]) -> Vec<String> {
    let mut names: Vec<String> = vec![];
    for f in group {
        let name = f.path.join(".");
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
        if names.len() == LISTED {
            break;
        }
    }
    names
}

/// Where a text speaks of an epoch, and of which: `epoch 49`, `Epoch: [49`, `epoch=49`, `"epoch": 49`.
fn epochs(text: &str) -> Vec<(usize, u64)> {
    let lower = text.to_ascii_lowercase();
    let number = |at: usize| {
        let rest =
            lower[at + "epoch".len()..].trim_start_matches([' ', ':', '=', '[', '#', '"', '\'']);
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        rest[..end].parse().ok()
    };
    lower
        .match_indices("epoch")
        .filter_map(|(at, _)| Some((at, number(at)?)))
        .collect()
}

/// What a text without a genotype resembles, and what it should look like.
fn resemblance(text: &str) -> String {
    let forms = [
        Format::Json,
        Format::Darts,
        Format::Nasbench201,
        Format::Nasbench101,
    ];
    match Format::of(text) {
        _ if text.trim().is_empty() => "there is no text".into(),
        Some(format) => format!(
            "it resembles the form of {}, which is like `{}`",
            format.name(),
            format.example()
        ),
        None => {
            let forms: Vec<String> = forms
                .iter()
                .map(|f| format!("{} `{}`", f.name(), f.example()))
                .collect();
            format!("there are {}", forms.join(", "))
        }
    }
}
