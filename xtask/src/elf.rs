//! What a shared library of Linux says of itself: what it needs, where it looks, what it defines and what it lacks.

use std::fs::File;
use std::path::Path;

use object::elf::{self, DT_NEEDED, DT_RPATH, DT_RUNPATH, SHT_DYNSYM};
use object::read::elf::{FileHeader, Sym};
use object::{Endianness, ReadCache};

use crate::failure::Failure;

/// A shared library, as the loader sees it.
#[derive(Debug, Default)]
pub struct Library {
    /// Names of the libraries that it needs.
    pub needed: Vec<String>,
    /// Where the loader looks for those first, with `$ORIGIN` for its own folder.
    pub rpaths: Vec<String>,
    /// Whether these folders come before `LD_LIBRARY_PATH` (`DT_RPATH`) and not after it (`DT_RUNPATH`).
    pub rpaths_first: bool,
    /// Names of all that it defines.
    pub defined: Vec<String>,
    /// What others must define, but for what may be absent.
    pub undefined: Vec<Undefined>,
}

/// A name that another library must define.
#[derive(Debug, PartialEq, Eq)]
pub struct Undefined {
    pub name: String,
    /// Its version and the library that has to have it, where that is said.
    pub version: Option<(String, String)>,
}

impl Library {
    /// Reads the library in `path`, of 64 bits; only the parts that are needed, since libtorch's are of gigabytes.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|e| Failure::io("open", path, &e))?;
        Self::parse(&ReadCache::new(file)).map_err(|error| {
            let message = format!("{} is no shared library: {error}", path.display());
            Failure::new(message, "remove it, then type the same command again")
        })
    }

    fn parse(data: &ReadCache<File>) -> object::read::Result<Self> {
        let header = elf::FileHeader64::<Endianness>::parse(data)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, data)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut library = Library::default();

        let dynamic = sections.dynamic_table(endian, data)?;
        for entry in &dynamic {
            if entry.tag == DT_NEEDED {
                library.needed.push(text(dynamic.string(entry)?));
            } else if entry.tag == DT_RPATH || entry.tag == DT_RUNPATH {
                let folders = text(dynamic.string(entry)?);
                let folders = folders.split(':').filter(|folder| !folder.is_empty());
                library.rpaths.extend(folders.map(str::to_owned));
                library.rpaths_first = entry.tag == DT_RPATH;
            }
        }
        let symbols = sections.symbols(endian, data, SHT_DYNSYM)?;
        let versions = sections.versions(endian, data)?;
        for (index, symbol) in symbols.enumerate() {
            let name = text(symbols.symbol_name(endian, symbol)?);
            if name.is_empty() {
                continue;
            }
            if !symbol.is_undefined(endian) {
                library.defined.push(name);
            } else if !symbol.is_weak() {
                let version = match &versions {
                    Some(table) => table.version(table.version_index(endian, index).index())?,
                    None => None,
                };
                let version =
                    version.and_then(|version| Some((text(version.name()), text(version.file()?))));
                library.undefined.push(Undefined { name, version });
            }
        }
        Ok(library)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn this_program_needs_the_c_library_and_names_its_functions_versions() {
        let library = Library::read(&std::env::current_exe().unwrap()).unwrap();
        assert!(library.needed.iter().any(|name| name == "libc.so.6"));
        // The paths of .cargo/config.toml, or what RUSTFLAGS has in their place.
        assert!(std::env::var_os("RUSTFLAGS").is_some() || library.rpaths.len() == 2);
        let versioned = |found: &Undefined| {
            found.version.as_ref().is_some_and(|(version, file)| {
                version.starts_with("GLIBC_2") && file == "libc.so.6"
            })
        };
        assert!(library.undefined.iter().any(versioned));
    }

    #[test]
    fn what_is_no_library_is_refused_by_name() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("lib.so");
        assert!(Library::read(&path).unwrap_err().message.contains("lib.so"));
        std::fs::write(&path, b"\x7fELF").unwrap();
        let failure = Library::read(&path).unwrap_err();
        assert!(
            failure.message.contains("is no shared library"),
            "{failure}"
        );
    }
}
