//! Spans for the crate `tracing`, at level TRACE: nothing at all without the feature of that name.

/// A span that ends when it is dropped.
pub(crate) struct Span {
    #[cfg(feature = "tracing")]
    _entered: tracing::span::EnteredSpan,
}

/// Opens a span of this name with one field.
macro_rules! span {
    ($name:ident($field:ident)) => {
        pub(crate) fn $name($field: usize) -> Span {
            #[cfg(not(feature = "tracing"))]
            let _ = $field;
            Span {
                #[cfg(feature = "tracing")]
                _entered: tracing::trace_span!(stringify!($name), $field).entered(),
            }
        }
    };
}

// The layers of an encoder or a decoder on so many rows.
span!(stack(rows));
// One of them.
span!(layer(number));
// Logits of so many rows.
span!(logits(rows));
