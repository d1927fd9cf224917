//! Rewrites any preset as a Hugging Face directory, optionally in another type:
//! `cargo run --release -p rachis --example save_preset -- FROM TO [float32|bfloat16|float16]`

use std::process::ExitCode;

use rachis::{Backbone, Dtype};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (from, to, dtype) = match arguments[..] {
        [from, to] => (from, to, Ok(None)),
        [from, to, dtype] => (from, to, dtype.parse::<Dtype>().map(Some)),
        _ => {
            eprintln!("usage: save_preset FROM TO [float32|bfloat16|float16]");
            return ExitCode::from(2);
        }
    };
    let saved = dtype.map_err(rachis::Error::from).and_then(|dtype| {
        let model = Backbone::from_preset(from)?;
        model.save_preset(to, dtype)
    });
    match saved {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("save_preset: {error}");
            ExitCode::FAILURE
        }
    }
}
