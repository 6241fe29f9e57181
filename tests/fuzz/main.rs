//! Fuzzing: every reader of what people, programs and disks hand in, with inputs made out of a corpus. None may panic,
//! overflow the stack, need more than a gigabyte or more than ten seconds; and what is written from it must be good.
//!
//! * `cargo test --test fuzz` reads the corpus and a few dozen mutants of it for each reader. Its seed is fixed: a
//!   test that fails because of the day tells the wrong person.
//! * `cargo xtask fuzz --inputs 300000` reads many, with a new seed that it prints (`--seed N` repeats it).
//!
//! An input is a function of reader, seed and number. What is found is kept in `target/tmp/findings`; put into
//! `corpus/READER/` it is read by every test from then on. docs/conformance.md has more.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs
)]

use std::path::Path;

use nasfw as _;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

mod batch;
mod codec;
mod memory;
mod mutate;
mod readers;

use batch::{Job, Tally};
use mutate::Mutator;
use readers::{READERS, Reader};

/// Mutants of each reader's corpus in a short run.
const SHORT: u64 = 60;

/// An input: first those of the corpus, then mutants of it.
fn input_of(reader: &Reader, corpus: &[Vec<u8>], seed: u64, number: u64) -> Vec<u8> {
    if let Some(input) = usize::try_from(number).ok().and_then(|n| corpus.get(n)) {
        return input.clone();
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    let mutator = Mutator {
        corpus,
        words: reader.words,
        codec: reader.codec,
    };
    mutator.input(&mut rng)
}

/// All inputs of a run; the text is a table of what they came to.
fn fuzz(mutants: impl Fn(&Reader) -> u64, seed: u64, only: Option<&str>) -> (String, usize) {
    let mut table = format!(
        "seed {seed}\n{:16} {:>8} {:>8} {:>9} {:>10} {:>10} {:>10} {:>9}\n",
        "reader", "inputs", "good", "inputs/s", "peak MiB", "slowest ms", "its number", "findings"
    );
    let (mut inputs, mut found) = (0, vec![]);
    for reader in READERS.iter().filter(|r| only.is_none_or(|o| o == r.name)) {
        let job = Job {
            reader,
            from: 0,
            to: reader.corpus().len() as u64 + mutants(reader),
        };
        let tally = batch::run(&job, seed);
        let line = row(reader, &tally);
        println!("{}", line.trim_end());
        table += &line;
        inputs += tally.inputs;
        if reader.some_good && tally.good == 0 {
            found.push(format!(
                "{}: nothing is good, is the corpus one of another version?",
                reader.name
            ));
        }
        for finding in tally.findings {
            let line = format!(
                "{} {}: {} ({})",
                reader.name,
                finding.number,
                finding.how,
                finding.file.display()
            );
            println!("  {line}");
            found.push(line);
        }
    }
    table += &format!(
        "{inputs} inputs, {} findings\n{}",
        found.len(),
        found.join("\n")
    );
    (table, found.len())
}

fn row(reader: &Reader, tally: &Tally) -> String {
    format!(
        "{:16} {:>8} {:>8} {:>9.0} {:>10.1} {:>10.1} {:>10} {:>9}\n",
        reader.name,
        tally.inputs,
        tally.good,
        tally.inputs as f64 / tally.seconds.max(1e-9),
        tally.peak as f64 / f64::from(1 << 20),
        tally.slowest as f64 / 1e3,
        tally.slowest_number,
        tally.findings.len()
    )
}

#[test]
fn a_few_inputs() {
    let (table, found) = fuzz(|reader| SHORT / reader.cost, 1, None);
    assert_eq!(found, 0, "{table}");
}

/// `cargo xtask fuzz` runs it.
#[test]
#[ignore = "takes as long as it is told to"]
fn many_inputs() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    let seed =
        number("FUZZ_SEED").unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_secs());
    let inputs = number("FUZZ_INPUTS").unwrap_or(300_000);
    let only = std::env::var("FUZZ_READER").ok();
    let count = if only.is_some() {
        1
    } else {
        READERS.len() as u64
    };
    let (table, found) = fuzz(|_| inputs.div_ceil(count), seed, only.as_deref());
    println!("{table}");
    assert_eq!(found, 0, "{table}");
}

/// Not a test: the process that inputs are read in.
#[test]
#[ignore = "a process of the tests here"]
fn child() {
    if let (Ok(job), Some(status)) = (std::env::var(batch::JOB), std::env::var_os(batch::STATUS)) {
        batch::carry_out(&job, Path::new(&status));
    }
}
