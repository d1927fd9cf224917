//! Why a request was refused.

/// A request that does not fit the model or the session. Nothing was computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// A slice has another length than the rest of the request implies.
    #[error("length of {what} is {found}, expected {expected}")]
    Length {
        /// The slice.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length that the rest of the request implies.
        expected: usize,
    },
    /// The batch has no sequence.
    #[error("batch is 0, expected at least one sequence")]
    EmptyBatch,
    /// The batch could have more than 2^32 - 1 tokens.
    #[error("batch is {found}, expected at most 2^32 - 1 tokens in all")]
    BatchSize {
        /// Number of sequences.
        found: usize,
    },
    /// The batch has more than 2^32 - 1 token ids.
    #[error("number of tokens is {found}, expected at most 2^32 - 1")]
    TokenCount {
        /// Number of token ids.
        found: usize,
    },
    /// Working memory was planned for sequences longer than the model's positions.
    #[error("sequence length is {found}, expected at most {max}")]
    PlannedLength {
        /// The length.
        found: usize,
        /// The model's positions.
        max: usize,
    },
    /// A sequence is longer than the model's positions.
    #[error("length of sequence {sequence} is {found}, expected at most {max}")]
    SequenceLength {
        /// Number of the sequence in the batch.
        sequence: usize,
        /// Its length, padding and earlier tokens included.
        found: usize,
        /// The model's positions.
        max: usize,
    },
    /// A sequence has no real token: it is empty, or all padding.
    #[error("number of real tokens of sequence {sequence} is 0, expected at least 1")]
    NoRealToken {
        /// Number of the sequence in the batch.
        sequence: usize,
    },
    /// A padding mask has a value other than 0 and 1.
    #[error("padding_mask of sequence {sequence} is {found}, expected 0 or 1")]
    PaddingMask {
        /// Number of the sequence in the batch.
        sequence: usize,
        /// The value.
        found: u8,
    },
    /// A token id is outside the vocabulary.
    #[error("token id of sequence {sequence} is {id}, expected less than {vocabulary_size}")]
    TokenId {
        /// Number of the sequence in the batch.
        sequence: usize,
        /// The id.
        id: u32,
        /// The model's vocabulary.
        vocabulary_size: usize,
    },
    /// A segment id is outside the model's segments.
    #[error("segment id is {id}, expected less than {num_segments}")]
    SegmentId {
        /// The id.
        id: u32,
        /// The model's segments.
        num_segments: usize,
    },
    /// Two parts of the request have different numbers of sequences.
    #[error("{what} is {found}, expected {expected}")]
    SequenceCount {
        /// The part.
        what: &'static str,
        /// Its number of sequences.
        found: usize,
        /// The number of the other part.
        expected: usize,
    },
    /// The inputs are those of another kind of model.
    #[error("inputs are those of {found}, expected {expected}")]
    InputKind {
        /// The kind of the inputs.
        found: &'static str,
        /// The kind that the model takes.
        expected: &'static str,
    },
    /// A sequence lacks the token whose state stands for it.
    #[error("tokens of sequence {sequence} are without the end token {id}, expected it at least once")]
    NoEndToken {
        /// Number of the sequence in the batch.
        sequence: usize,
        /// The end token.
        id: u32,
    },
    /// A head is asked for the logits of a backbone that it was not loaded for.
    #[error("backbone is {found}, expected the one that the head was loaded for")]
    OtherBackbone {
        /// The class of the backbone.
        found: &'static str,
    },
    /// The model has no encoder, but the request has something for one.
    #[error("{what} is given, expected none: the model has no encoder")]
    NoEncoder {
        /// The part that only a model with an encoder takes.
        what: &'static str,
    },
    /// The capacity of the cache is beyond the model's positions.
    #[error("capacity is {found}, expected at most {max}")]
    Capacity {
        /// The capacity.
        found: usize,
        /// The model's positions.
        max: usize,
    },
    /// The capacity of the cache is zero, or beyond what any cache may have.
    #[error("capacity is {found}, expected 1 to {max}")]
    CapacityRange {
        /// The capacity.
        found: usize,
        /// The largest capacity.
        max: usize,
    },
    /// The cache was to have no sequence.
    #[error("number of sequences is 0, expected at least 1")]
    NoSequences,
    /// The size of the cache overflows.
    #[error("number of sequences is {sequences}, expected fewer, at this capacity")]
    CacheSize {
        /// Number of sequences.
        sequences: usize,
        /// Tokens of each.
        capacity: usize,
    },
    /// The session's cache was not started, or was started for another model.
    #[error("KV cache is not started for this model, expected Session::start before decoding")]
    CacheNotStarted,
    /// The session has no sequence of this number.
    #[error("sequence is {sequence}, expected less than {count}")]
    UnknownSequence {
        /// The number.
        sequence: usize,
        /// Number of sequences of the session.
        count: usize,
    },
    /// One call names a sequence twice.
    #[error("sequence is {sequence}, expected each at most once")]
    RepeatedSequence {
        /// Number of the sequence.
        sequence: usize,
    },
    /// A sequence would have more tokens than the cache's capacity.
    #[error(
        "number of tokens of sequence {sequence} is {found}, expected at most the cache's capacity {capacity}"
    )]
    CapacityExceeded {
        /// Number of the sequence.
        sequence: usize,
        /// The tokens that it would have.
        found: usize,
        /// The capacity.
        capacity: usize,
    },
    /// The model attends to sources, and none were encoded.
    #[error("sources is 0, expected Decoder::encode before decoding")]
    NoSources,
    /// The sources cannot be shared evenly by the session's sequences.
    #[error("number of sources is {sources}, expected a divisor of {sequences} sequences")]
    SourceCount {
        /// Number of sources.
        sources: usize,
        /// Number of sequences of the session.
        sequences: usize,
    },
    /// A sequence cannot become a copy of one that attends to another source.
    #[error("sequence to copy to is {to}, expected one with the source of {from}")]
    DifferentSources {
        /// The sequence to copy.
        from: usize,
        /// The sequence to replace.
        to: usize,
    },
    /// There is nothing for the decoder to start from.
    #[error("decoder prompt is empty, expected decoder_start_token_id, or at least one token")]
    EmptyDecoderPrompt,
    /// Generation would need more sequences than a program can count.
    #[error("number of sequences is {found}, expected fewer for each prompt")]
    SequencesPerPrompt {
        /// Sequences for each prompt.
        found: usize,
    },
    /// The maximum length of generated sequences is beyond the model's positions.
    #[error("maximum length is {found}, expected at most {max}")]
    MaxLength {
        /// The maximum length.
        found: usize,
        /// The largest maximum that the model allows.
        max: usize,
    },
    /// A prompt leaves no space for a new token.
    #[error("length of the prompt is {found}, expected less than the maximum of {max}")]
    PromptLength {
        /// Tokens of the prompt.
        found: usize,
        /// The maximum length of the sequence.
        max: usize,
    },
}
