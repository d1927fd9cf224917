//! Text generation from token ids, with any architecture that has a decoder.
//!
//! `cargo run --release -p rachis --example generate -- MODEL TOKEN_ID...`
//!
//! MODEL is a directory or a handle of an OPT, Falcon, BART or T5 model. The token ids are the prompt, or what the
//! encoder reads where there is one. Each new token is printed when it is chosen.

use std::error::Error;
use std::ops::ControlFlow;

use rachis::generation::Progress;
use rachis::kernels::Ctx;
use rachis::loader::{Access, Preset};
use rachis::{Backbone, GenerationConfig, GenerationInputs, Session, Tokens, generate};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().ok_or("usage: generate MODEL TOKEN_ID...")?;
    let ids = arguments.map(|id| id.parse()).collect::<Result<Vec<u32>, _>>()?;

    // One preset serves the model and its generation settings. The class of the model follows from the preset.
    let preset = Preset::named(&name, Access::Map)?;
    let backbone = Backbone::load(&preset)?;
    let model = backbone.decoder().ok_or("this model has no decoder")?;
    let mut config = GenerationConfig::from_preset(&preset)?;
    config.max_new_tokens = Some(32);

    let mut session = Session::new(Ctx::detect());
    let lengths = [ids.len()];
    let inputs = GenerationInputs { tokens: Tokens::ragged(&ids, &lengths), decoder_prompt: None };
    let mut watch = |progress| {
        if let Progress::Token { token, .. } = progress {
            println!("{token}");
        }
        // Break ends the generation; what has been generated until then is the result.
        ControlFlow::Continue(())
    };
    let sequences = generate(model, &mut session, inputs, &config, Some(&mut watch))?;
    // The best sequences for each prompt; there is one prompt here.
    for sequence in sequences.iter().flatten() {
        println!("{:?}", sequence.new_ids());
    }
    Ok(())
}
