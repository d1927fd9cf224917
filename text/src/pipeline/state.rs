//! The features of a batch between modules.

use rachis::SequenceOutput;
use rachis::kernels::{Ctx, MatRef, Scratch};

use super::Feature;
use crate::error::Result;

/// The vectors of a feature.
pub(super) enum Rows<'s> {
    /// Those of the model.
    Model(SequenceOutput<'s>),
    /// Those of a module.
    Own { data: Vec<f32>, width: usize },
}

/// The features of a batch between modules.
pub(super) struct State<'s, 'c> {
    pub(super) ctx: &'c Ctx<'c>,
    pub(super) scratch: Scratch,
    pub(super) features: [Option<Rows<'s>>; Feature::ALL.len()],
    /// Number of tokens of each text.
    lengths: &'c [usize],
}

impl<'c> State<'_, 'c> {
    /// A batch of texts with these numbers of tokens, without features.
    pub(super) fn new(ctx: &'c Ctx<'c>, lengths: &'c [usize]) -> Self {
        State { ctx, scratch: Scratch::new(), features: [const { None }; Feature::ALL.len()], lengths }
    }

    /// The width of a feature's vectors.
    pub(super) fn width(&self, feature: Feature) -> usize {
        match &self.features[feature as usize] {
            None => 0,
            Some(Rows::Model(output)) => output.hidden_dim(),
            Some(Rows::Own { width, .. }) => *width,
        }
    }

    /// A copy of a feature's vectors, and their width.
    pub(super) fn copy(&self, feature: Feature) -> (Vec<f32>, usize) {
        let data = match &self.features[feature as usize] {
            None => Vec::new(),
            Some(Rows::Own { data, .. }) => data.clone(),
            Some(Rows::Model(output)) => {
                let texts = (0..output.batch()).map(|i| output.sequence(i));
                texts.flat_map(|rows| (0..rows.rows()).flat_map(move |r| rows.row(r).to_vec())).collect()
            }
        };
        (data, self.width(feature))
    }

    /// Calls `each` with the tokens' vectors of each text.
    pub(super) fn for_each_text(&self, mut each: impl FnMut(MatRef<'_, f32>) -> Result<()>) -> Result<()> {
        match &self.features[Feature::Tokens as usize] {
            None => Ok(()),
            Some(Rows::Model(output)) => (0..output.batch()).try_for_each(|i| each(output.sequence(i))),
            Some(Rows::Own { data, width }) => {
                let mut rest = data.as_slice();
                self.lengths.iter().try_for_each(|len| {
                    let (text, others) = rest.split_at((len * width).min(rest.len()));
                    rest = others;
                    each(MatRef::new(text, *len, *width).map_err(rachis::Error::from)?)
                })
            }
        }
    }
}
