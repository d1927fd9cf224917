//! `Pooling`: from the tokens' vectors to one vector of the text.

use rachis::Pooling;
use serde_json::Value;

use super::State;
use crate::error::Result;
use crate::sentence_transformers::Fields;

/// The names of the ways of pooling, each with the flag by which versions up to 5.3 switched it on. Several that are
/// switched on are concatenated in this order.
const MODES: [(&str, &str, Pooling); 6] = [
    ("cls", "pooling_mode_cls_token", Pooling::Cls),
    ("max", "pooling_mode_max_tokens", Pooling::Max),
    ("mean", "pooling_mode_mean_tokens", Pooling::Mean),
    ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", Pooling::MeanSqrtLen),
    ("weightedmean", "pooling_mode_weightedmean_tokens", Pooling::WeightedMean),
    ("lasttoken", "pooling_mode_lasttoken", Pooling::Last),
];

const NAMES: &str = "one or more of cls, max, mean, mean_sqrt_len_tokens, weightedmean, lasttoken";

/// A pooling module.
#[derive(Debug)]
pub(super) struct Pool {
    /// One or more; their vectors are concatenated.
    pub(super) modes: Vec<Pooling>,
    /// Whether the tokens of a prompt are pooled, too.
    pub(super) include_prompt: bool,
}

impl Pool {
    pub(super) fn of(pooling: Pooling) -> Pool {
        Pool { modes: vec![pooling], include_prompt: true }
    }

    pub(super) fn open(config: &Fields) -> Result<Pool> {
        let flags = MODES.map(|(_, flag, _)| flag);
        let others = ["embedding_dimension", "word_embedding_dimension", "pooling_mode", "include_prompt"];
        config.only(&[&flags[..], &others[..]].concat())?;
        let modes = match config.get("pooling_mode") {
            None => {
                let mut modes = Vec::new();
                for (_, flag, pooling) in MODES {
                    if config.opt_bool(flag)?.unwrap_or(false) {
                        modes.push(pooling);
                    }
                }
                if modes.is_empty() { vec![Pooling::Mean] } else { modes }
            }
            Some(Value::Array(names)) => {
                let modes: Option<Vec<Pooling>> = names.iter().map(mode).collect();
                let modes = modes.filter(|modes| !modes.is_empty() && modes.len() <= MODES.len());
                modes.ok_or_else(|| config.wrong("pooling_mode", NAMES))?
            }
            Some(name) => vec![mode(name).ok_or_else(|| config.wrong("pooling_mode", NAMES))?],
        };
        Ok(Pool { modes, include_prompt: config.opt_bool("include_prompt")?.unwrap_or(true) })
    }

    /// `[texts, modes * width]`
    pub(super) fn run(&self, state: &State<'_, '_>, prompt: usize) -> Result<Vec<f32>> {
        let skip = if self.include_prompt { 0 } else { prompt };
        let mut out = Vec::new();
        state.for_each_text(|rows| {
            for mode in &self.modes {
                let start = out.len();
                out.resize(start + rows.cols(), 0.0);
                mode.pool_rows(rows, skip, &mut out[start..])?;
            }
            Ok(())
        })?;
        Ok(out)
    }
}

fn mode(name: &Value) -> Option<Pooling> {
    MODES.iter().find(|(known, ..)| name == known).map(|(.., pooling)| *pooling)
}
