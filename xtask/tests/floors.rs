//! The house has floors: no file imports one that imports it, however far around, and in the framework no module imports
//! one above it. `framework/src/lib.rs` states the order; docs/architecture.md draws it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// Every crate of more than one file, by its folder.
const CRATES: [&str; 9] = [
    "kernels",
    "framework",
    "conformance",
    "spaces",
    "datasets",
    "plugins",
    "trackers",
    "analysis",
    ".",
];

/// A module of a crate, `[]` its root, with what its file says.
struct Source {
    file: String,
    syntax: syn::File,
}

type Sources = BTreeMap<Vec<String>, Source>;
/// From each file to those that it imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Whether an item is there in tests only.
fn only_in_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|a| {
        a.path().is_ident("cfg")
            && a.parse_args::<syn::Path>()
                .is_ok_and(|p| p.is_ident("test"))
    })
}

/// All modules that have a file.
fn sources(at: &Path) -> Sources {
    let mut found = Sources::new();
    let mut open = vec![(vec![], at.join("src/lib.rs"))];
    while let Some((path, file)) = open.pop() {
        let syntax = syn::parse_file(&fs::read_to_string(&file).unwrap()).unwrap();
        let stem = file.file_stem().unwrap().to_str().unwrap();
        let within = match stem {
            "lib" | "mod" => file.parent().unwrap().to_owned(),
            stem => file.with_file_name(stem),
        };
        for item in &syntax.items {
            if let syn::Item::Mod(module) = item
                && module.content.is_none()
                && !only_in_tests(&module.attrs)
            {
                let name = module.ident.to_string();
                let flat = within.join(format!("{name}.rs"));
                let nested = within.join(&name).join("mod.rs");
                let file = if flat.is_file() { flat } else { nested };
                let child = [path.as_slice(), &[name]].concat();
                open.push((child, file));
            }
        }
        let file = file.strip_prefix(at.join("src")).unwrap();
        let file = file.to_str().unwrap().to_owned();
        found.insert(path, Source { file, syntax });
    }
    found
}

/// Collects the paths that a file names.
struct Paths {
    /// Segments of each.
    found: Vec<Vec<String>>,
    /// Inline modules around.
    depth: usize,
}

impl Paths {
    fn tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.add(with(&name.ident)),
            syn::UseTree::Rename(name) => self.add(with(&name.ident)),
            syn::UseTree::Glob(_) => self.add(before.to_vec()),
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.tree(before, tree);
                }
            }
        }
    }

    fn add(&mut self, path: Vec<String>) {
        // `super` in an inline module is the file's own.
        let own = self.depth > 0 && path.first().is_some_and(|s| s == "super" || s == "self");
        if !own {
            self.found.push(path);
        }
    }
}

impl<'a> Visit<'a> for Paths {
    fn visit_item_mod(&mut self, module: &'a syn::ItemMod) {
        if !only_in_tests(&module.attrs) {
            self.depth += 1;
            visit::visit_item_mod(self, module);
            self.depth -= 1;
        }
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        if !only_in_tests(&item.attrs) {
            self.tree(&[], &item.tree);
        }
    }

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        if !only_in_tests(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if ["crate", "super", "self"].contains(&segments[0].as_str()) && segments.len() > 1 {
            self.add(segments);
        }
        visit::visit_path(self, path);
    }

    /// What a macro is given is no syntax before it is expanded: its paths are found word by word.
    fn visit_macro(&mut self, called: &'a syn::Macro) {
        let text = called.tokens.to_string().replace("::", " :: ");
        let words: Vec<&str> = text.split_whitespace().collect();
        for (i, word) in words.iter().enumerate() {
            let begins = ["crate", "super", "self"].contains(word);
            if begins && (i == 0 || !["$", "::"].contains(&words[i - 1])) {
                let further = words[i + 1..].chunks_exact(2);
                let further = further.take_while(|pair| pair[0] == "::");
                let further = further.map(|pair| pair[1].to_owned());
                let path: Vec<String> =
                    std::iter::once((*word).to_owned()).chain(further).collect();
                if path.len() > 1 {
                    self.add(path);
                }
            }
        }
    }

    // A macro of the crate is at its root, wherever it is written.
    fn visit_item_macro(&mut self, item: &'a syn::ItemMacro) {
        if !item.mac.path.is_ident("macro_rules") {
            visit::visit_item_macro(self, item);
        }
    }
}

/// The file that a path leads into, seen from a module.
fn resolve(sources: &Sources, from: &[String], path: &[String]) -> Option<String> {
    let mut at = match path.first()?.as_str() {
        "crate" => vec![],
        "self" | "super" => from.to_vec(),
        child => {
            let child = [from, &[child.to_owned()]].concat();
            sources.contains_key(&child).then(|| from.to_vec())?
        }
    };
    for segment in path {
        match segment.as_str() {
            "crate" | "self" => {}
            "super" => drop(at.pop()),
            name => {
                let next = [at.as_slice(), &[name.to_owned()]].concat();
                if !sources.contains_key(&next) {
                    break;
                }
                at = next;
            }
        }
    }
    Some(sources[&at].file.clone())
}

fn imports(sources: &Sources) -> Imports {
    let of = |(module, source): (&Vec<String>, &Source)| {
        let mut paths = Paths {
            found: vec![],
            depth: 0,
        };
        paths.visit_file(&source.syntax);
        let files = paths.found.iter();
        let mut files: BTreeSet<String> = files
            .filter_map(|path| resolve(sources, module, path))
            .collect();
        files.remove(&source.file);
        (source.file.clone(), files)
    };
    sources.iter().map(of).collect()
}

/// Everything that can be reached from a file.
fn reach<'a>(imports: &'a Imports, from: &str) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        for next in imports.get(file).into_iter().flatten() {
            if seen.insert(next.as_str()) {
                open.push(next);
            }
        }
    }
    seen
}

/// Files that import each other, in groups.
fn circles(imports: &Imports) -> Vec<BTreeSet<&str>> {
    let all: BTreeMap<&str, BTreeSet<&str>> = imports
        .keys()
        .map(|f| (f.as_str(), reach(imports, f)))
        .collect();
    let mut found: Vec<BTreeSet<&str>> = vec![];
    for (file, reached) in &all {
        if reached.contains(file) && !found.iter().any(|c| c.contains(file)) {
            let back = reached.iter().filter(|other| all[*other].contains(file));
            found.push(back.copied().collect());
        }
    }
    found
}

/// The floors that `lib.rs` states, from the ground up: modules that stand together.
fn floors(lib: &str) -> Vec<Vec<String>> {
    let mut floors = vec![vec![]];
    for line in lib.lines() {
        let line = line.trim();
        let module = line
            .strip_prefix("pub ")
            .unwrap_or(line)
            .strip_prefix("mod ");
        match module.and_then(|m| m.strip_suffix(';')) {
            Some(name) => floors.last_mut().unwrap().push(name.to_owned()),
            None if line.starts_with("//") && !line.starts_with("//!") => {}
            None => floors.push(vec![]),
        }
    }
    floors.retain(|floor| !floor.is_empty());
    floors
}

/// Imports that run up, or along a floor.
fn upward(floors: &[Vec<String>], imports: &Imports) -> Vec<String> {
    let floor = |file: &str| {
        let module = file.split(['/', '.']).next().unwrap();
        let at = floors.iter().position(|f| f.iter().any(|m| m == module));
        at.unwrap_or_else(|| panic!("lib.rs does not name {module}"))
    };
    let module = |file: &str| file.split(['/', '.']).next().unwrap().to_owned();
    let inside = imports.iter().filter(|(file, _)| *file != "lib.rs");
    inside
        .flat_map(|(file, imported)| imported.iter().map(move |other| (file, other)))
        .filter(|(file, other)| module(file) != module(other))
        .filter(|(file, other)| *other == "lib.rs" || floor(other) >= floor(file))
        .map(|(file, other)| format!("{file} imports {other}"))
        .collect()
}

#[test]
fn no_file_imports_one_that_imports_it() {
    let mut text = String::new();
    for name in CRATES {
        let sources = sources(&root().join(name));
        assert!(sources.len() > 1, "{name}");
        let imports = imports(&sources);
        for circle in circles(&imports) {
            text += &format!("{name}: a circle\n");
            for file in &circle {
                let of: Vec<&String> = imports[*file]
                    .iter()
                    .filter(|f| circle.contains(f.as_str()))
                    .collect();
                text += &format!("  {file} imports {of:?}\n");
            }
        }
    }
    assert!(text.is_empty(), "{text}");
}

#[test]
fn in_the_framework_imports_run_down() {
    let at = root().join("framework");
    let floors = floors(&fs::read_to_string(at.join("src/lib.rs")).unwrap());
    assert!(floors.len() > 8, "{floors:?}");
    let up = upward(&floors, &imports(&sources(&at)));
    assert!(up.is_empty(), "{up:#?}");
    // The page that newcomers read says the same.
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let rows = page.lines().filter_map(|line| {
        let mut columns = line.strip_prefix("| ")?.split(" | ");
        columns.next()?.parse::<usize>().ok()?;
        let modules = columns.next()?.split(", ");
        Some(modules.map(|m| m.trim_matches('`').to_owned()).collect())
    });
    assert_eq!(rows.collect::<Vec<Vec<String>>>(), floors);
}

/// A crate on disk with an import up and a circle, which the checks find, and without, which they let pass.
#[test]
fn a_planted_import_is_found() {
    let crate_with = |rng: &str| {
        let dir = tempfile::tempdir().unwrap();
        let put = |file: &str, text: &str| {
            let file = dir.path().join("src").join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        put(
            "lib.rs",
            "// Ground.\npub mod rng;\n\n// Above.\npub mod search;\n",
        );
        put("rng.rs", rng);
        put("search/mod.rs", "mod step;\npub use step::Step;\n");
        put(
            "search/step.rs",
            "use crate::rng::Rng;\npub struct Step(Rng);\n",
        );
        let imports = imports(&sources(dir.path()));
        let lib = fs::read_to_string(dir.path().join("src/lib.rs")).unwrap();
        let circles = circles(&imports).len();
        (upward(&floors(&lib), &imports), circles)
    };
    let good =
        crate_with("pub struct Rng;\n#[cfg(test)]\nmod tests { use crate::search::Step; }\n");
    assert_eq!(good, (vec![], 0));
    for planted in [
        "use crate::search::Step;\npub struct Rng;\n",
        "pub struct Rng;\nfn f() { crate::search::Step::new() }\n",
        "use super::{search::{Step as S}};\npub struct Rng;\n",
        "pub struct Rng;\nfn f() { println!(\"{}\", 1 + crate::search::Step::count()) }\n",
        "pub struct Rng;\nthread_local! { static S: super::search::Step = 0; }\n",
    ] {
        let (up, circles) = crate_with(planted);
        assert_eq!(
            (up, circles),
            (vec!["rng.rs imports search/mod.rs".to_owned()], 1)
        );
    }
}
