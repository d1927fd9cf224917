//! The command line `rachis`. Flags, names and JSON keys are a contract; see the README.
#![forbid(unsafe_code)]

mod answer;
mod args;
mod bench;
mod classify;
mod embed;
mod fill_mask;
mod generate;
mod input;
mod inspect;
mod lines;
mod ner;
mod output;
mod requests;
mod rerank;
mod run;
mod texts;
mod tokenize;
mod vectors;

use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use rachis_text::visible;

/// A result whose error is printed as one line.
type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let outcome = match Args::try_parse() {
        Ok(args) => run(args.command),
        Err(error) if error.use_stderr() => {
            // clap's message has several paragraphs; the first says what is wrong.
            let text = error.to_string();
            let first: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
            print_error(&first.join(" "));
            return ExitCode::from(2);
        }
        Err(help) => help.print().map_err(|error| OutputError(error).into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the pipe has closed it, as `head` does.
        Err(error) if error.downcast_ref().is_some_and(OutputError::is_closed) => ExitCode::SUCCESS,
        Err(error) => {
            let line = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            print_error(&format!("error: {}", visible(&line)));
            ExitCode::from(if error.is::<args::BadUsage>() { 2 } else { 1 })
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Embed(args) => embed::embed(&args),
        Command::Rerank(args) => rerank::rerank(&args),
        Command::Tokenize(args) => tokenize::tokenize(&args),
        Command::Classify(args) => classify::classify(&args),
        Command::Ner(args) => ner::ner(&args),
        Command::Answer(args) => answer::answer(&args),
        Command::FillMask(args) => fill_mask::fill_mask(&args),
        Command::Run(args) => run::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Verify(args) => inspect::verify(&args),
    }
}

/// Writes to standard output and flushes it. All output goes through here, since `println!` panics when it cannot
/// write.
fn print(text: impl Display) -> Result<()> {
    let mut out = io::stdout().lock();
    Ok(write!(out, "{text}").and_then(|()| out.flush()).map_err(OutputError)?)
}

/// Writes a line to standard error. A failure is ignored, since there is no other place to report it.
fn print_error(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[derive(Debug, thiserror::Error)]
#[error("standard output: {0}")]
struct OutputError(io::Error);

impl OutputError {
    /// Whether standard output is a pipe that has been closed by its reader.
    fn is_closed(&self) -> bool {
        self.0.kind() == ErrorKind::BrokenPipe
    }
}
