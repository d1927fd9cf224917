//! Rewrites any preset as a Hugging Face directory, optionally in another type:
//! `cargo run --release -p rachis --example save_preset -- FROM TO [float32|bfloat16|float16]`

use std::process::ExitCode;

use rachis::{Backbone, Storage};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (from, to, storage) = match arguments[..] {
        [from, to] => (from, to, Storage::Unchanged),
        [from, to, "float32"] => (from, to, Storage::Float32),
        [from, to, "bfloat16"] => (from, to, Storage::Bfloat16),
        [from, to, "float16"] => (from, to, Storage::Float16),
        _ => {
            eprintln!("usage: save_preset FROM TO [float32|bfloat16|float16]");
            return ExitCode::from(2);
        }
    };
    match Backbone::from_preset(from).and_then(|model| model.save_preset(to, storage)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("save_preset: {error}");
            ExitCode::FAILURE
        }
    }
}
