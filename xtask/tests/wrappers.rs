//! What wraps a thing of its own kind answers every question as the wrapped thing does, or in a way of its own: a method that is
//! added to a trait later, with a default, must not be answered by that default.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// Folders with code that could wrap something.
const FOLDERS: [&str; 10] = [
    "framework/src",
    "plugins/src",
    "spaces/src",
    "datasets/src",
    "trackers/src",
    "analysis/src",
    "conformance/src",
    "src",
    "python/src",
    "examples",
];
/// Methods that a wrapper answers for itself, as the trait's default does.
const ITS_OWN: [(&str, &str); 1] = [("StrategyConfig", "name")];
/// Methods of the trait whose defaults ask what is wrapped, where these say what that is.
const BASE: [&str; 2] = ["base", "base_mut"];

/// A method of a trait.
#[derive(Debug)]
struct Method {
    has_default: bool,
    /// Whether its default asks what is wrapped.
    asks_base: bool,
}

#[derive(Debug)]
struct Implementation {
    of: String,
    by: String,
    methods: BTreeSet<String>,
    /// Whether the macro `wraps!` says what is wrapped.
    wraps: bool,
}

#[derive(Default)]
struct File {
    traits: BTreeMap<String, BTreeMap<String, Method>>,
    /// By the names of structs: traits of which a field owns something.
    owns: BTreeMap<String, BTreeSet<String>>,
    implementations: Vec<Implementation>,
}

/// Traits of the `dyn` in a type.
struct Objects(BTreeSet<String>);

impl<'a> Visit<'a> for Objects {
    fn visit_type_trait_object(&mut self, object: &'a syn::TypeTraitObject) {
        let bounds = object.bounds.iter().filter_map(|bound| match bound {
            syn::TypeParamBound::Trait(bound) => bound.path.segments.last(),
            _ => None,
        });
        self.0.extend(bounds.map(|s| s.ident.to_string()));
    }
}

/// Whether `self.base()` or `self.base_mut()` is called.
struct Asks(bool);

impl<'a> Visit<'a> for Asks {
    fn visit_expr_method_call(&mut self, call: &'a syn::ExprMethodCall) {
        self.0 |= BASE.iter().any(|base| call.method == base);
        visit::visit_expr_method_call(self, call);
    }
}

fn last(path: &syn::Path) -> String {
    path.segments.last().unwrap().ident.to_string()
}

impl<'a> Visit<'a> for File {
    fn visit_item_trait(&mut self, item: &'a syn::ItemTrait) {
        let methods = item.items.iter().filter_map(|item| match item {
            syn::TraitItem::Fn(method) => Some(method),
            _ => None,
        });
        let methods = methods.map(|method| {
            let mut asks = Asks(false);
            let body = method.default.as_ref();
            body.into_iter().for_each(|body| asks.visit_block(body));
            let own = Method {
                has_default: body.is_some(),
                asks_base: asks.0,
            };
            (method.sig.ident.to_string(), own)
        });
        self.traits
            .insert(item.ident.to_string(), methods.collect());
    }

    fn visit_item_struct(&mut self, item: &'a syn::ItemStruct) {
        let mut owned = Objects(BTreeSet::new());
        for field in &item.fields {
            // Behind a reference it is only looked at.
            if matches!(&field.ty, syn::Type::Path(path) if ["Box", "Arc"].contains(&&*last(&path.path)))
            {
                owned.visit_type(&field.ty);
            }
        }
        self.owns.insert(item.ident.to_string(), owned.0);
    }

    fn visit_item_impl(&mut self, item: &'a syn::ItemImpl) {
        let (Some((_, of, _)), syn::Type::Path(by)) = (&item.trait_, &*item.self_ty) else {
            return;
        };
        let mut found = Implementation {
            of: last(of),
            by: last(&by.path),
            methods: BTreeSet::new(),
            wraps: false,
        };
        for item in &item.items {
            match item {
                syn::ImplItem::Fn(method) => {
                    found.methods.insert(method.sig.ident.to_string());
                }
                syn::ImplItem::Macro(call) => found.wraps |= last(&call.mac.path) == "wraps",
                _ => {}
            }
        }
        self.implementations.push(found);
    }
}

fn read(text: &str) -> File {
    let mut file = File::default();
    file.visit_file(&syn::parse_file(text).unwrap());
    file
}

/// Wrappers and what they leave unanswered, of files.
fn wrappers(files: &[File]) -> (usize, Vec<String>) {
    let traits: BTreeMap<&String, &BTreeMap<String, Method>> =
        files.iter().flat_map(|f| &f.traits).collect();
    let (mut count, mut open) = (0, vec![]);
    for file in files {
        for found in &file.implementations {
            let owns = file.owns.get(&found.by);
            let Some(methods) = traits
                .get(&found.of)
                .filter(|_| owns.is_some_and(|owns| owns.contains(&found.of)))
            else {
                continue;
            };
            count += 1;
            let asked = found.wraps || BASE.iter().all(|base| found.methods.contains(*base));
            for (name, method) in *methods {
                let answered = found.methods.contains(name)
                    || BASE.contains(&name.as_str()) && asked
                    || method.asks_base && asked
                    || ITS_OWN.contains(&(&found.of, name.as_str()));
                if method.has_default && !answered {
                    open.push(format!("{} of {}: {name}", found.of, found.by));
                }
            }
        }
    }
    (count, open)
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_test = |name: &std::ffi::OsStr| name == "tests" || name == "tests.rs";
        if path.file_name().is_some_and(is_test) {
            continue;
        }
        if path.is_dir() {
            files_below(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn wrappers_answer_everything() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut paths = vec![];
    for folder in FOLDERS {
        files_below(&root.join(folder), &mut paths);
    }
    let files = paths
        .iter()
        .map(|path| read(&fs::read_to_string(path).unwrap()));
    let (count, open) = wrappers(&files.collect::<Vec<_>>());
    // `Limited`, and ten strategies with their settings.
    assert!(count > 15, "{count}");
    assert!(open.is_empty(), "left to the trait's default: {open:#?}");
}

/// A wrapper that forgets a method is found, in either way of wrapping.
#[test]
fn a_forgotten_method_is_found() {
    let space = "trait Space { fn spec(&self) -> u8; fn facts(&self) -> u8 { 0 } }\n";
    let limited = |methods: &str| {
        format!(
            "{space}struct Limited {{ base: Box<dyn Space> }}\nimpl Space for Limited {{ {methods} }}\n"
        )
    };
    let spec = "fn spec(&self) -> u8 { self.base.spec() }";
    let facts = "fn facts(&self) -> u8 { self.base.facts() }";
    let open = |text: &str| wrappers(&[read(text)]);
    assert_eq!(open(&limited(&[spec, facts].concat())), (1, vec![]));
    let forgotten = vec!["Space of Limited: facts".to_owned()];
    assert_eq!(open(&limited(spec)), (1, forgotten));

    let strategy = |default: &str| {
        format!(
            "trait Strategy {{ fn base(&self) -> Option<&dyn Strategy> {{ None }} fn data(&self) -> u8 {{ {default} }} }}
             struct Plus {{ base: Box<dyn Strategy> }}
             impl Strategy for Plus {{ wraps!(base); }}"
        )
    };
    assert_eq!(
        open(&strategy("self.base().map_or(0, |b| b.data())")),
        (1, vec![])
    );
    let forgotten = vec!["Strategy of Plus: data".to_owned()];
    assert_eq!(open(&strategy("0")), (1, forgotten));
}
