//! A model with random weights: of a configuration in the program, or of a preset's configuration.
//!
//! `cargo run --release -p rachis --example random_init -- [MODEL]`
//!
//! MODEL is a directory or a handle; only its configuration is read. For measuring and testing a size whose weights
//! are not at hand. A seed gives the same model on every machine.

use std::error::Error;

use rachis::kernels::Ctx;
use rachis::{Backbone, OptBackbone, OptConfig, PresetOptions, PresetWeights, Session, Tokens};

fn main() -> Result<(), Box<dyn Error>> {
    let seed = 42;
    if let Some(name) = std::env::args().nth(1) {
        let options = PresetOptions::new().with_weights(PresetWeights::Random { seed });
        let model = Backbone::from_preset_with(name, options)?;
        println!("{} with random weights, computes in {}", model.name(), model.dtype());
        return Ok(());
    }

    // A small decoder. Kernels and embeddings are truncated normal with standard deviation 0.02, biases zero.
    let mut config = OptConfig::default();
    (config.vocabulary_size, config.num_layers, config.num_heads) = (1000, 2, 4);
    (config.hidden_dim, config.intermediate_dim) = (64, 256);
    let model = OptBackbone::random(config, seed)?;

    let mut session = Session::new(Ctx::detect());
    let ids = [2, 100, 200, 300];
    let output = model.forward(&mut session, Tokens::padded(&ids, 1, ids.len()))?;
    let last = output.sequence(0).row(ids.len() - 1);
    println!("the last token's vector begins {:?}", &last[..4]);
    Ok(())
}
