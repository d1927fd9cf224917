//! Threads of the caller's: Rachis starts none, and splits a forward pass over a rayon pool that it is given.
//!
//! `cargo run --release -p rachis --example custom_pool -- [THREADS]`
//!
//! The outputs have the same bits for any number of threads.

use std::error::Error;

use rachis::kernels::Ctx;
use rachis::{BertBackbone, BertConfig, BertInputs, Session, Tokens};
use rayon::ThreadPoolBuilder;

/// The bits of the vectors of one sequence of 64 tokens.
fn encode(model: &BertBackbone, ctx: Ctx<'_>) -> rachis::Result<Vec<u32>> {
    let ids: Vec<u32> = (1000..1064).collect();
    let mut session = Session::new(ctx);
    let tokens = Tokens::padded(&ids, 1, ids.len());
    let output = model.forward(&mut session, BertInputs { tokens, segment_ids: None })?.sequence_output;
    let rows = output.sequence(0);
    Ok((0..rows.rows()).flat_map(|i| rows.row(i).iter().map(|x| x.to_bits())).collect())
}

fn main() -> Result<(), Box<dyn Error>> {
    let threads = std::env::args().nth(1).map_or(Ok(2), |text| text.parse())?;
    let mut config = BertConfig::default();
    (config.num_layers, config.hidden_dim, config.intermediate_dim) = (6, 384, 1536);
    let model = BertBackbone::random(config, 0)?;

    // The pool is an ordinary rayon pool: names, stack sizes, processor affinity in `start_handler` are yours.
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("inference-{i}"))
        .start_handler(|i| println!("thread {i} of the pool starts"))
        .build()?;

    let ctx = Ctx::detect();
    let alone = encode(&model, ctx)?;
    let shared = encode(&model, ctx.with_pool(Some(&pool)))?;
    println!("level {}, 1 and {threads} threads: equal bits: {}", ctx.level(), alone == shared);
    Ok(())
}
