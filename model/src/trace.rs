//! Spans for the crate `tracing`, at level TRACE. Without the feature `tracing` they are nothing.

/// A span that ends when it is dropped.
pub(crate) struct Span {
    #[cfg(feature = "tracing")]
    _entered: tracing::span::EnteredSpan,
}

/// Defines a function that opens a span of its name, with one field.
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

// The layers of an encoder or a decoder, on this many rows.
span!(stack(rows));
// One layer, by its number.
span!(layer(number));
// The logits of this many rows.
span!(logits(rows));
