//! The spans that a subscriber sees.

mod common;

use std::sync::{Arc, Mutex};

use common::models::Sizes;
use rachis::kernels::Ctx;
use rachis::{CacheOptions, Decoder, OptBackbone, Session, Tokens};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Names of spans as they open, `-` as they close.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<&'static str>>>);

impl Subscriber for Names {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("rachis")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.0.lock().unwrap().push(span.metadata().name());
        Id::from_u64(1)
    }

    fn exit(&self, _: &Id) {
        self.0.lock().unwrap().push("-");
    }

    fn enter(&self, _: &Id) {}
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
}

#[test]
fn stacks_layers_and_logits_have_spans() {
    let sizes = Sizes { vocabulary: 31, layers: 2, heads: 2, hidden: 24, inner: 40, positions: 20 };
    let model = OptBackbone::random(sizes.opt(), 1).unwrap();
    let names = Names::default();
    tracing::subscriber::with_default(names.clone(), || {
        let mut session = Session::new(Ctx::detect());
        session.start(&model, CacheOptions::new(1, 6)).unwrap();
        let output = model.decode(&mut session, &[0], Tokens::padded(&[3, 4], 1, 2)).unwrap();
        let row = output.sequence(0).row(1).to_vec();
        let mut logits = [0.0; 31];
        let row = rachis::kernels::MatRef::new(&row, 1, 24).unwrap();
        model.logits(&mut session, row, &mut logits).unwrap();
    });
    let found = names.0.lock().unwrap().join(" ");
    assert_eq!(found, "stack layer - layer - - logits -");
}
