//! The readers: what each is given, and what is done with what it gives back.

use std::fs;
use std::path::Path;

use super::codec::Codec;

mod good;
mod images;
mod runs;
mod tables;
mod text;

/// Reads one input; whether it was found good.
pub type Read = Box<dyn Fn(&[u8]) -> bool>;

/// A reader and its format.
#[derive(Debug)]
pub struct Reader {
    /// Its name, and that of its folder in `corpus`.
    pub name: &'static str,
    /// How its bytes are packed.
    pub codec: Codec,
    /// Words of the format.
    pub words: &'static [&'static [u8]],
    /// How many times fewer inputs a short run has for it.
    pub cost: u64,
    /// Whether some of the corpus is good: real files of some formats are too large for a corpus.
    pub some_good: bool,
    /// Makes what reading needs, in a folder of its own.
    pub prepare: fn(&Path) -> Read,
}

impl Reader {
    /// Its corpus, in the order of the files' names.
    pub fn corpus(&self) -> Vec<Vec<u8>> {
        let folder = corpus().join(self.name);
        let mut files: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        files.sort();
        files.iter().map(|f| fs::read(f).unwrap()).collect()
    }
}

/// An input that was refused: the message can be shown.
fn refused(error: &nasfw::framework::Error) -> bool {
    assert!(!error.to_string().is_empty());
    drop(error.help());
    false
}

/// The folder of all corpora.
pub fn corpus() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus"))
}

/// The reader of this name.
pub fn named(name: &str) -> &'static Reader {
    let found = READERS.iter().find(|r| r.name == name);
    found.unwrap_or_else(|| panic!("no reader is called `{name}`"))
}

macro_rules! readers {
    (@good) => { true };
    (@good none) => { false };
    ($($name:literal $codec:ident / $cost:literal $(good: $good:ident)?, $words:expr => $prepare:path;)*) => {
        &[$(Reader { name: $name, codec: Codec::$codec, words: $words, cost: $cost, some_good: readers!(@good $($good)?), prepare: $prepare }),*]
    };
}

/// All of them.
pub static READERS: &[Reader] = readers! {
    "genotype" Plain / 1, text::GENOTYPES => text::genotype;
    "genotype-json" Json / 1, text::GENOTYPES => text::genotype;
    "space" Toml / 1, text::TOML => text::space;
    "configuration" Toml / 1, text::TOML => text::configuration;
    "settings" Plain / 1, text::TOML => text::settings;
    "plan" Toml / 1, text::TOML => text::plan;
    "comparison" Json / 2, text::JSON => runs::comparison;
    "run-json" Json / 2, text::JSON => runs::run_json;
    "run-config" Toml / 2, text::TOML => runs::config;
    "result" Json / 4, text::JSON => runs::result;
    "events" Plain / 4, text::JSON => runs::events;
    "manifest" Json / 8, text::JSON => runs::manifest;
    "checkpoint" Safetensors / 8, text::JSON => runs::checkpoint;
    "weights" Safetensors / 8, text::JSON => runs::weights;
    "cifar-binary" Plain / 2, &[b"\0", b"\xff"] => images::cifar_binary;
    "cifar-pickle" Plain / 2, images::PICKLE => images::cifar_pickle;
    "imagenet16" Plain / 2, images::PICKLE => images::imagenet16;
    "idx" Gzip / 1, &[b"\0\0\x08\x03", b"\0\0\x08\x01", b"\x1f\x8b\x08"] => images::idx;
    "npz" Plain / 1, images::NPZ => images::npz;
    "image-png" Png / 2, images::PNG => images::png;
    "image-jpeg" Plain / 2, images::JPEG => images::jpeg;
    "image-bmp" Plain / 2, images::OTHERS => images::bmp;
    "image-tiff" Plain / 2, images::OTHERS => images::tiff;
    "image-webp" Plain / 2, images::OTHERS => images::webp;
    "table-201" Gzip / 1, tables::CSV => tables::nasbench201;
    "table-101" Gzip / 1, tables::CSV => tables::nasbench101;
    "records" TfRecord / 1, tables::CSV => tables::nasbench101;
    "table" Plain / 1, text::JSON => tables::imported;
};
