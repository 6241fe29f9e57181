//! How well a surrogate of NAS-Bench-101 ranks cells that it has not seen, in all of its space and in those of
//! NAS-Bench-1Shot1 ([docs/studies/surrogates.md](../docs/studies/surrogates.md)):
//!
//! ```sh
//! cargo run --example surrogate -- nasbench101.table 0 1 2
//! ```
//!
//! For every seed a tenth of the table is put aside, a surrogate is fitted to the rest and asked for that tenth.

#![allow(clippy::print_stdout)]

use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use nasfw::framework::registry::{Kind, Registry};
use nasfw::framework::rng::Streams;
use nasfw::framework::{Error, Result};
use nasfw::spaces::formats::nasbench101_spec;
use nasfw::spaces::surrogate::{Answer, Figures, HeldOut, Key, LEVELS, Row, Rows, Surrogate, fit};
use nasfw::spaces::tables::{Family, Table};
use nasfw_analysis::stats::kendall;
use rand::seq::SliceRandom;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (table, seeds) = (arguments.next().unwrap_or_default(), arguments);
    let table = Table::open(Path::new(&table))?;
    let rows = Rows::of_table(Family::named("nasbench101")?, &table, None)?;
    let spaces = [
        "nasbench1shot1-s1",
        "nasbench1shot1-s2",
        "nasbench1shot1-s3",
    ];
    let members: Vec<HashSet<Key>> = spaces.into_iter().map(members).collect::<Result<_>>()?;
    println!("seed, cells, number, tau, r2, mean absolute error, inside {LEVELS:?}");
    for seed in seeds {
        let seed: u64 = seed.parse().map_err(|_| Error::Invalid {
            what: "seed".into(),
            why: format!("`{seed}` is no number"),
        })?;
        let mut all = rows.rows.clone();
        all.shuffle(&mut Streams::new(seed).at("unseen", 0));
        let unseen = all.split_off(all.len() - all.len() / 10);
        all.sort_by_key(|row| row.key);
        let known = Rows {
            rows: all,
            ..rows.clone()
        };
        let began = Instant::now();
        let fitted = fit(&known, seed, |_, _| {})?;
        let seconds = began.elapsed().as_secs_f64();
        let figures = Figures::of(&fitted.held_out, tau);
        let surrogate = Surrogate::new(known, fitted, figures, seed);
        println!(
            "{seed}, fitted in {seconds:.0} s; {}",
            surrogate.about.figures
        );
        let asked = unseen
            .iter()
            .map(|row| ask(&surrogate, row))
            .collect::<Result<Vec<_>>>()?;
        let asked: Vec<(Key, HeldOut)> = asked.into_iter().flatten().collect();
        show(seed, "all", asked.iter().map(|a| a.1).collect());
        for (space, keys) in spaces.iter().zip(&members) {
            show(
                seed,
                space,
                asked
                    .iter()
                    .filter(|a| keys.contains(&a.0))
                    .map(|a| a.1)
                    .collect(),
            );
        }
    }
    Ok(())
}

fn ask(surrogate: &Surrogate, row: &Row) -> Result<Option<(Key, HeldOut)>> {
    Ok(match surrogate.answer(&row.genotype)? {
        Some(Answer::Predicted(prediction)) => Some((
            row.key,
            HeldOut {
                value: row.value,
                prediction,
            },
        )),
        _ => None,
    })
}

fn tau(x: &[f64], y: &[f64]) -> Option<f64> {
    kendall(x, y).map(|k| k.tau)
}

fn show(seed: u64, cells: &str, rows: Vec<HeldOut>) {
    let f = Figures::of(&rows, tau);
    let tau = f.tau.unwrap_or(f64::NAN);
    let [a, b, c] = f.inside.map(|share| 100.0 * share);
    println!(
        "{seed}, {cells}, {}, {tau:.3}, {:.3}, {:.3}, {a:.1} {b:.1} {c:.1}",
        rows.len(),
        f.r2,
        f.error
    );
}

/// The keys of all cells of a space.
fn members(space: &str) -> Result<HashSet<Key>> {
    let plugin = Registry::load()?.get(Kind::Space, space)?;
    let space = plugin.space(&plugin.default_section()?)?.build()?;
    let cells = space
        .spec()
        .enumerate()
        .filter_map(|choice| nasbench101_spec(&space.genotype(&choice)).ok());
    let cells: HashSet<_> = cells.collect();
    Ok(cells.iter().map(|cell| cell.digest()).collect())
}
