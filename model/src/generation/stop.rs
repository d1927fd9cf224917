//! Where a sequence ends besides end tokens and the maximum length.

/// Ends sequences at tokens that the caller chooses: transformers' `StoppingCriteria`, for one sequence.
///
/// A sequence ends with the token for which [`StoppingCriterion::is_met`] is true, which stays part of it. Beam searches
/// ask about every continuation that they consider, not only about those that they take.
pub trait StoppingCriterion {
    /// Whether a sequence ends with its last token. `ids` are all of its tokens, the prompt's first, and the last one is
    /// new.
    fn is_met(&self, ids: &[u32]) -> bool;
}
