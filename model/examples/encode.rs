//! Sentence embeddings from token ids: one ragged batch, mean pooling, cosine similarity.
//!
//! `scripts/minilm && cargo run --release -p rachis --example encode -- [MODEL]`
//!
//! MODEL is a directory or a handle of a BERT encoder with the uncased English vocabulary. The command line
//! `rachis embed` has tokenizers; a program brings its own, such as the crate `tokenizers`.

use std::error::Error;

use rachis::kernels::Ctx;
use rachis::{BertBackbone, BertInputs, Pooling, Session, Tokens, normalize};

/// `[CLS]` ... `[SEP]` of "How do I reset my password?", "I forgot my password." and "Hello".
const TEXTS: [&[u32]; 3] = [
    &[101, 2129, 2079, 1045, 25141, 2026, 20786, 1029, 102],
    &[101, 1045, 9471, 2026, 20786, 1012, 102],
    &[101, 7592, 102],
];

fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "models/all-MiniLM-L6-v2".to_owned());
    let model = BertBackbone::from_preset(name)?;
    let mut session = Session::new(Ctx::detect());
    // After this, batches of up to 8 sequences of up to 128 tokens allocate nothing.
    session.reserve(&model, 8, 128)?;

    // The sequences follow each other without padding; `lengths` says where each ends.
    let ids = TEXTS.concat();
    let lengths = TEXTS.map(<[u32]>::len);
    let tokens = Tokens::ragged(&ids, &lengths);
    let output = model.forward(&mut session, BertInputs { tokens, segment_ids: None })?;

    // One vector for each sequence: the mean of its tokens' vectors, scaled to length 1.
    let width = output.sequence_output.hidden_dim();
    let mut vectors = vec![0.0; TEXTS.len() * width];
    Pooling::Mean.pool(output.sequence_output, &mut vectors)?;
    normalize(&mut vectors, width);

    for a in vectors.chunks_exact(width) {
        for b in vectors.chunks_exact(width) {
            let cosine: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
            print!("{cosine:8.4}");
        }
        println!();
    }
    Ok(())
}
