//! Weights that a configuration ties: several names for one tensor.
//!
//! A token table is often also the matrix of the logits, and the table of an encoder also its decoder's. Files then hold
//! one tensor, or copies of it, under any of the names. The rule is transformers 5's (`PreTrainedModel.tie_weights`),
//! for every architecture:
//!
//! - A name that the files hold has its own values, whatever the configuration says.
//! - A name that they do not hold has the values of the first of its alternatives that they hold.
//!
//! transformers compares two names that the files hold, shares one tensor when they are equal, and keeps both when they
//! are not. Both give the same numbers, so nothing is compared here, and no weight is read to open a model.
//!
//! A model that ties nothing has no alternatives. There is one exception: the logits then fall back on the table, too,
//! since the files of a model without its head are those of a tied one.

use super::{Role, Scope};

/// The layer `own`, or the first of `others` when the files hold the weight of that one and not of `own`. It is `own`
/// when they hold none of them, and for random weights.
pub(crate) fn first_held<'s>(own: Scope<'s>, others: impl IntoIterator<Item = Scope<'s>>) -> Scope<'s> {
    let held = |layer: &Scope<'s>| layer.holds(Role::Weight);
    if held(&own) {
        return own;
    }
    others.into_iter().find(held).unwrap_or(own)
}
