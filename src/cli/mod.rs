//! The command line: one file per verb.

mod bench;
mod builder;
mod columns;
mod compare;
mod comparison;
mod completions;
mod config;
mod describe;
mod doctor;
mod draw;
mod eval;
mod export;
mod export_runs;
mod figure;
mod genotype;
mod judged;
mod lines;
mod list;
mod logging;
mod man;
pub(crate) mod network;
mod new;
#[cfg(feature = "onnx")]
mod onnx;
#[cfg(not(feature = "onnx"))]
#[path = "onnx/off.rs"]
mod onnx;
mod origin;
mod output;
mod pace;
mod panics;
mod predict;
mod processes;
mod progress;
mod rank;
mod rank_proxies;
mod ready;
mod render;
mod report;
mod resume;
mod retrain;
mod run;
mod runs;
mod score;
mod scoring;
mod searching;
mod selection;
mod submission;
mod summary;
mod table;
mod terminal;
mod track;
#[cfg(feature = "tui")]
mod view;
#[cfg(not(feature = "tui"))]
#[path = "view/off.rs"]
mod view;
mod waiting;
#[cfg(feature = "tui")]
mod watch;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use nasfw_framework::command::{by_own_name, set_program};
use nasfw_framework::{Error, Result};

use self::terminal::Much;
use super::host::{Carried, Failure, Guest, Host};
use super::memory;
use super::program::Program;

/// Neural architecture search: one trainer, many strategies, results that reproduce.
#[derive(Debug, Parser)]
#[command(name = "nasfw", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    manner: terminal::Manner,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Search for an architecture.
    #[command(
        after_help = "Example:\n  nasfw run --strategy vim --space nasbench201 --dataset cifar10 --data-dir DIR"
    )]
    Run(run::Run),
    /// Go on with an interrupted search or training.
    #[command(after_help = "Example:\n  nasfw resume runs/NAME")]
    Resume(resume::Resume),
    /// Train a found or published architecture alone, from scratch.
    #[command(after_help = "Example:\n  nasfw retrain runs/NAME --preset quick")]
    Retrain(retrain::Retrain),
    /// Measure a run on the test images, as a whole and class by class.
    #[command(after_help = "Example:\n  nasfw eval runs/NAME --json")]
    Eval(eval::Eval),
    /// Say what image files show: the most likely classes, by a network that is trained.
    #[command(after_help = "Example:\n  nasfw predict runs/NAME photo.jpg")]
    Predict(predict::Predict),
    /// Write a network for other programs: as ONNX model, safetensors file, Python file for PyTorch.
    #[command(after_help = "Example:\n  nasfw export runs/NAME --onnx network.onnx")]
    Export(export::Export),
    /// Write runs as CSV files, for other programs.
    #[command(after_help = "Example:\n  nasfw export-runs runs/NAME --csv DIR")]
    ExportRuns(export_runs::ExportRuns),
    /// Tell a tracker of runs that were.
    #[command(after_help = "Example:\n  nasfw track runs/NAME --to tensorboard")]
    Track(track::Track),
    /// List the runs, trainings and comparisons of a folder.
    #[command(after_help = "Example:\n  nasfw runs --state done --sort worth")]
    Runs(runs::Runs),
    /// Put runs side by side: what became of them, and the settings in which they differ.
    #[command(after_help = "Example:\n  nasfw table runs/ONE runs/OTHER")]
    Table(table::Table),
    /// Compare strategies over spaces, datasets, seeds and budgets, with tests.
    #[command(after_help = "Example:\n  nasfw compare examples/comparisons/toy.toml --jobs 2")]
    Compare(compare::Compare),
    /// Carry out one trial of a comparison, wherever it stands: for any engine that starts jobs.
    #[command(after_help = "Example:\n  nasfw trial examples/comparisons/toy.toml 0")]
    Trial(compare::OneTrial),
    /// Score architectures before any training, by zero-cost proxies.
    #[command(after_help = "Example:\n  nasfw score DARTS_V2 GDAS --proxy synflow")]
    Score(score::Score),
    /// Compare a trained supernet's or zero-cost proxies' ranking of architectures with a benchmark's.
    #[command(after_help = "Example:\n  nasfw rank runs/NAME --architectures 200")]
    Rank(rank::Rank),
    /// Watch a run: curves, entropy per edge, the architecture so far.
    #[cfg(feature = "tui")]
    #[command(after_help = "Example:\n  nasfw watch runs/NAME")]
    Watch(watch::Watch),
    /// List the plugins of this program.
    #[command(after_help = "Example:\n  nasfw list strategies")]
    List(list::List),
    /// Explain a plugin: options with defaults, presets, example, source.
    #[command(after_help = "Example:\n  nasfw describe vim")]
    Describe(describe::Describe),
    /// Show the configuration that a run would have.
    #[command(subcommand)]
    Config(config::Config),
    /// Draw a space, a run's result or a genotype as SVG, PNG, PDF, TikZ or DOT.
    #[command(after_help = "Example:\n  nasfw draw DARTS_V2 -o cell.svg")]
    Draw(draw::Draw),
    /// Draw what happened in a run or what a comparison amounts to, as SVG, PNG or PDF.
    #[command(after_help = "Example:\n  nasfw figure runs/NAME entropy -o entropy.svg")]
    Figure(figure::Figure),
    /// Report on runs or on a comparison: one HTML file.
    #[command(after_help = "Example:\n  nasfw report runs/NAME -o report.html")]
    Report(report::Report),
    /// Print an architecture in another form, or list the published ones.
    #[command(after_help = "Example:\n  nasfw genotype DARTS_V2 --format darts")]
    Genotype(genotype::Genotype),
    /// Import, check and query tables of published results; time steps.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Begin a crate of your own with a strategy, a space, a dataset or a tracker.
    #[command(after_help = "Example:\n  nasfw new strategy my-search")]
    New(new::New),
    /// Check libtorch, GPUs, plugins and folders of this machine.
    #[command(after_help = "Example:\n  nasfw doctor")]
    Doctor(doctor::Doctor),
    /// Print a script that makes a shell complete words.
    #[command(
        after_help = "Example:\n  nasfw completions bash > ~/.local/share/bash-completion/completions/nasfw"
    )]
    Completions(completions::Completions),
    /// Print the manual page, or write one for every verb.
    #[command(after_help = "Example:\n  nasfw man -o ~/.local/share/man/man1")]
    Man(man::Man),
}

impl Verb {
    /// Where the verb's output can be sent instead, for an error about the place.
    fn elsewhere(&self) -> Option<&'static str> {
        Some(match self {
            Self::Run(_) | Self::Retrain(_) | Self::Compare(_) | Self::Trial(_) => {
                "another folder with `--out DIR`"
            }
            Self::Draw(_) | Self::Report(_) => "another file with `-o FILE`",
            Self::Figure(_) => "another place with `-o FILE` or `--all DIR`",
            Self::Export(_) => {
                "another file with `--onnx FILE`, `--safetensors FILE` or `--pytorch FILE.py`"
            }
            Self::Bench(bench) => bench.elsewhere()?,
            Self::ExportRuns(_) => "another folder with `--csv DIR`",
            Self::Table(_) | Self::Rank(_) => "another file with `--csv FILE`",
            Self::New(_) => "another folder with `--dir DIR`",
            Self::Doctor(_) | Self::Man(_) => "another folder with `-o DIR`",
            _ => return None,
        })
    }

    fn carry_out(self, program: &Program, host: &Host) -> Result<()> {
        match self {
            Self::Run(v) => v.carry_out(host),
            Self::Resume(v) => v.carry_out(host),
            Self::Retrain(v) => v.carry_out(host),
            Self::Eval(v) => v.carry_out(),
            Self::Predict(v) => v.carry_out(),
            Self::Export(v) => v.carry_out(),
            Self::ExportRuns(v) => v.carry_out(),
            Self::Runs(v) => v.carry_out(),
            Self::Table(v) => v.carry_out(),
            Self::Track(v) => v.carry_out(),
            Self::Compare(v) => v.carry_out(host),
            Self::Trial(v) => v.carry_out(host),
            Self::Score(v) => v.carry_out(),
            Self::Rank(v) => v.carry_out(),
            #[cfg(feature = "tui")]
            Self::Watch(v) => v.carry_out(),
            Self::List(v) => v.carry_out(),
            Self::Describe(v) => v.carry_out(),
            Self::Config(v) => v.carry_out(),
            Self::Draw(v) => v.carry_out(),
            Self::Figure(v) => v.carry_out(),
            Self::Report(v) => v.carry_out(),
            Self::Genotype(v) => v.carry_out(),
            Self::Bench(v) => v.carry_out(),
            Self::New(v) => v.carry_out(),
            Self::Doctor(v) => v.carry_out(),
            Self::Completions(v) => v.carry_out(command(program)),
            Self::Man(v) => v.carry_out(command(program)),
        }
    }
}

/// What stands below the help.
const AFTER_HELP: &str = "Begin with: `nasfw run --strategy vim --space nasbench1shot1-s3`\n\
                          Exit codes: 0 done, 2 wrong usage or configuration, 3 data, 4 run folder, 5 output, 6 device, \
                          7 not finite, 8 another process of the run is lost, 130 interrupted and saved, 1 a bug.";

/// The command line of a program of this name and version.
fn command(program: &Program) -> Command {
    Cli::command()
        .name(program.name())
        .version(program.version())
        .after_help(by_own_name(AFTER_HELP).into_owned())
}

/// Words, the program's name first, read as those of a program.
fn typed(program: &Program, words: &[OsString]) -> Result<Cli, clap::Error> {
    let mut command = command(program);
    let matches = command.try_get_matches_from_mut(words)?;
    Cli::from_arg_matches(&matches).map_err(|e| e.format(&mut command))
}

/// The message of an error with what to type, as plain text: what the command line prints.
pub fn error_text(error: &Error) -> String {
    render::text(error, None)
}

impl Program {
    /// Parses the command line, carries it out and turns errors into messages and exit codes.
    pub fn run(self) -> ExitCode {
        memory::keep_freed();
        let words: Vec<_> = std::env::args_os().collect();
        if let Some(program) = words.first() {
            set_program(program);
        }
        ExitCode::from(self.exit_code(&words))
    }

    /// The same with words of whoever calls, of which the first is the program's name. Gives the exit code.
    pub fn exit_code(&self, words: &[OsString]) -> u8 {
        terminal::take_colours(words);
        let cli = match typed(self, words) {
            Ok(cli) => cli,
            Err(e) if e.use_stderr() => {
                // It repeats what was typed, so it is shown as any other text: without colours.
                progress::insist(e.render().to_string().trim_end());
                return 2;
            }
            Err(help) => {
                render::help(&help.render());
                return 0;
            }
        };
        cli.manner.take();
        if terminal::much() == Much::Verbose {
            logging::to_terminal();
        }
        panics::explain();
        let elsewhere = cli.verb.elsewhere();
        let host = Host::new(after_name(words), None);
        match catch_unwind(AssertUnwindSafe(|| {
            self.check().and_then(|()| cli.verb.carry_out(self, &host))
        })) {
            Ok(Ok(())) => 0,
            Ok(Err(error)) => {
                render::error(&error, elsewhere);
                error.exit_code()
            }
            Err(_) => 1,
        }
    }

    /// Carries words out inside another program, `guest`; the first word is the program's name. Nothing of the process is
    /// changed: neither its handlers of signals nor how it shows panics, and nothing goes to standard output.
    ///
    /// # Errors
    /// Words that are none of the command line, and what the verb says.
    pub fn carry_out(&self, words: &[OsString], guest: Guest) -> Result<Carried, Failure> {
        let cli = typed(self, words).map_err(|e| Failure::Usage(e.render().to_string()))?;
        cli.manner.take();
        let elsewhere = cli.verb.elsewhere();
        let host = Host::new(after_name(words), Some(guest));
        let (outcome, said) =
            output::kept(|| self.check().and_then(|()| cli.verb.carry_out(self, &host)));
        outcome.map_err(|error| {
            let text = render::text(&error, elsewhere);
            Failure::Verb(error, text)
        })?;
        Ok(Carried {
            folder: host.made(),
            said,
        })
    }
}

/// Words without the program's name.
fn after_name(words: &[OsString]) -> Vec<OsString> {
    words.iter().skip(1).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every verb that has no verbs of its own, with the words that lead to it.
    fn verbs(command: &Command, before: &[String]) -> Vec<(String, Command)> {
        let own = |verb: &Command| {
            let words = [before, &[verb.get_name().to_owned()]].concat();
            match verb.has_subcommands() {
                true => verbs(verb, &words),
                false => vec![(words.join(" "), verb.clone())],
            }
        };
        command.get_subcommands().flat_map(own).collect()
    }

    #[test]
    fn every_verb_has_an_example_that_can_be_typed() {
        let all = verbs(&Cli::command(), &[]);
        assert!(all.len() > 25);
        for (words, verb) in all {
            let help = verb.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            let begin = format!("  nasfw {words}");
            let examples: Vec<&str> = help.lines().filter(|l| l.starts_with(&begin)).collect();
            assert!(!examples.is_empty(), "`nasfw {words}` has no example");
            for example in examples {
                // What comes behind `>` is the shell's.
                let typed = example.split('>').next().unwrap_or_default();
                let read = Cli::try_parse_from(typed.split_whitespace());
                assert!(read.is_ok(), "{example}: {:?}", read.err());
            }
        }
    }
}
