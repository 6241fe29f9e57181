//! What the built module asks of the machine that loads it.
#![allow(clippy::unwrap_used)]
use std::path::PathBuf;

use object::read::elf::{Dyn, ElfFile64, FileHeader};
use object::{Endianness, elf};

/// The module lies beside this test.
fn module() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.with_file_name("lib_nasfw.so")
}

/// It shares libtorch with the torch package, and asks for no libpython: one module serves every Python.
#[test]
fn it_needs_libtorch_and_the_system_alone() {
    let bytes = std::fs::read(module()).unwrap();
    let file = ElfFile64::<Endianness>::parse(&*bytes).unwrap();
    let endian = file.endian();
    let header = file.elf_header();
    let sections = header.sections(endian, &*bytes).unwrap();
    let (dynamic, link) = sections.dynamic(endian, &*bytes).unwrap().unwrap();
    let names = sections.strings(endian, &*bytes, link).unwrap();
    let needed: Vec<String> = (dynamic.iter())
        .filter(|d| d.tag(endian) == elf::DT_NEEDED)
        .map(|d| String::from_utf8_lossy(d.string(endian, names).unwrap()).into_owned())
        .collect();
    for name in &needed {
        let known = [
            "libtorch_cpu.so",
            "libtorch.so",
            "libc10.so",
            "libgomp",
            "libstdc++.so",
            "libgcc_s.so",
            "libc.so",
        ];
        let system = [
            "libm.so",
            "libdl.so",
            "libpthread.so",
            "librt.so",
            "ld-linux",
        ];
        let fine = known.iter().chain(&system).any(|k| name.starts_with(k));
        assert!(fine, "{name} among {needed:?}");
    }
    assert!(needed.iter().any(|n| n == "libtorch_cpu.so"), "{needed:?}");
}
