//! The token tables of a model and the matrix of its logits, which may all be one tensor: found by the rule of
//! [`tied`](crate::weights::first_held).

use crate::error::Result;
use crate::layers::{Embedding, Linear};
use crate::weights::{Init, Naming, Role, Scope, Weight, first_held};

/// The name of a language-model head in a Hugging Face file.
const HEAD: &str = "lm_head.";

/// Whether the logits have the weights of the table at `table`. When the files hold a head and no table, that is for
/// the configuration to say.
pub(crate) fn is_tied(table: &Scope<'_>, configured: bool) -> bool {
    let head = table.at_root(HEAD);
    !head.holds(Role::Weight) || (configured && !table.holds(Role::Weight))
}

/// The token table at `table`, `[vocabulary, width]`, and the matrix of the logits, which is the same where they are
/// tied.
pub(crate) fn table_and_head(
    table: &Scope<'_>,
    [vocabulary, width]: [usize; 2],
    tied: bool,
) -> Result<(Embedding, Linear)> {
    let head = table.at_root(HEAD);
    let tokens = first_held(table.clone(), tied.then(|| head.clone()));
    let tokens = Embedding::load(&tokens, vocabulary, width)?;
    let head = if tied { tokens.weight() } else { head_weight(&head, [vocabulary, width])? };
    Ok((tokens, Linear::from_output_rows(head, None)))
}

fn head_weight(head: &Scope<'_>, shape: [usize; 2]) -> Result<Weight> {
    head.expect_no(Role::Bias)?;
    head.weight(Role::Weight, &shape, Init::KERNEL)
}

/// Where the tables of an encoder and a decoder may be.
#[derive(Debug)]
pub(crate) struct TowerTables<'s> {
    shared: Scope<'s>,
    encoder: Scope<'s>,
    decoder: Scope<'s>,
    head: Scope<'s>,
}

/// The tables of an encoder and a decoder, and the matrix of the logits, all `[vocabulary, width]`.
pub(crate) struct LoadedTables {
    pub(crate) encoder: Embedding,
    pub(crate) decoder: Embedding,
    pub(crate) head: Weight,
}

impl<'s> TowerTables<'s> {
    /// The places in the model at `root`.
    pub(crate) fn of(root: &Scope<'s>) -> TowerTables<'s> {
        let [shared, encoder, decoder] = match root.naming() {
            Naming::HuggingFace => ["shared", "encoder.embed_tokens", "decoder.embed_tokens"],
            Naming::Keras => ["reversible_embedding"; 3],
        };
        TowerTables {
            shared: root.at(shared),
            encoder: root.at(encoder),
            decoder: root.at(decoder),
            head: root.at_root(HEAD),
        }
    }

    /// Whether the encoder and the decoder have tables of their own.
    pub(crate) fn are_separate(&self) -> bool {
        let [shared, encoder, decoder] = self.tables().map(held);
        !self.encoder.is(&self.decoder) && (encoder && decoder || shared && (encoder || decoder))
    }

    /// Whether the logits have the weights of a token table. When the files hold a head and no table, that is for the
    /// configuration to say.
    pub(crate) fn is_tied(&self, configured: bool) -> bool {
        !held(&self.head) || (configured && !self.tables().into_iter().any(held))
    }

    /// The tables of a model whose towers have [separate](TowerTables::are_separate) tables or not, and whose logits
    /// are [tied](TowerTables::is_tied) or not. Places that are the same are loaded once.
    pub(crate) fn load(&self, shape: [usize; 2], separate: bool, tied: bool) -> Result<LoadedTables> {
        let load = |place: &Scope<'s>| Embedding::load(place, shape[0], shape[1]);
        let [at_encoder, at_decoder] = [self.encoder(separate, tied), self.decoder(separate, tied)];
        let encoder = load(&at_encoder)?;
        let decoder = if at_decoder.is(&at_encoder) { encoder.clone() } else { load(&at_decoder)? };
        let [shared, first, second] = self.tables().map(Scope::clone);
        let at_head = first_held(shared, [first, second, self.head.clone()]);
        let head = match tied {
            false => head_weight(&self.head, shape)?,
            true if at_head.is(&at_encoder) => encoder.weight(),
            true if at_head.is(&at_decoder) => decoder.weight(),
            true => load(&at_head)?.weight(),
        };
        Ok(LoadedTables { encoder, decoder, head })
    }

    /// Where the encoder's table is.
    pub(crate) fn encoder(&self, separate: bool, tied: bool) -> Scope<'s> {
        self.table([&self.encoder, &self.decoder], separate, tied)
    }

    fn decoder(&self, separate: bool, tied: bool) -> Scope<'s> {
        self.table([&self.decoder, &self.encoder], separate, tied)
    }

    fn table(&self, [own, other]: [&Scope<'s>; 2], separate: bool, tied: bool) -> Scope<'s> {
        let first = if separate { own } else { &self.shared };
        let others = [Some(&self.shared), Some(own), Some(other), tied.then_some(&self.head)];
        first_held(first.clone(), others.into_iter().flatten().cloned())
    }

    fn tables(&self) -> [&Scope<'s>; 3] {
        [&self.shared, &self.encoder, &self.decoder]
    }
}

fn held(layer: &Scope<'_>) -> bool {
    layer.holds(Role::Weight)
}
