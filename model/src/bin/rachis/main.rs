//! The command line `rachis`. Flags, names and JSON keys are a contract; see the README.

mod args;
mod bench;
mod embed;
mod generate;
mod inspect;
mod run;
mod tokenizer;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

/// Any failure, printed as one line.
type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if error.use_stderr() => {
            // clap explains in paragraphs; the first says what is wrong.
            let text = error.to_string();
            let first: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
            eprintln!("{}", first.join(" "));
            return ExitCode::from(2);
        }
        Err(help) => {
            // Printing help can only fail when standard output is gone.
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    let outcome = match args.command {
        Command::Embed(args) => embed::embed(&args),
        Command::Run(args) => run::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Verify(args) => inspect::verify(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let line = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            eprintln!("error: {line}");
            ExitCode::from(if error.is::<args::BadUsage>() { 2 } else { 1 })
        }
    }
}
