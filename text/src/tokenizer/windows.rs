//! Truncation, and the windows of a text that is too long.
//!
//! transformers has two rules, which differ when both texts of a pair are cut: that of the `tokenizers` crate, and that of
//! tokenizers in Python.

use core::iter;
use core::ops::Range;

use super::encoding::{Side, TruncateWhich, Truncation};
use crate::error::{Error, Result};

/// Which of the two rules holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Of two texts that are both cut, the second keeps the odd token; when one text is too short to be cut, the request
    /// fails.
    Library,
    /// The first keeps the odd token; a text that is too short is left out.
    Python,
}

/// The windows of each text, in tokens; the first is what truncation leaves. A text that is not cut has one.
pub type Windows = [Vec<Range<usize>>; 2];

/// Upper limit of the tokens of all windows together.
const MAX_TOKENS: usize = 1 << 22;

/// The windows of texts of `lengths` tokens (0 for a second one that is absent), in sequences with `added` special tokens.
pub fn windows(
    truncation: Truncation,
    rule: Rule,
    side: Side,
    lengths: [usize; 2],
    added: usize,
) -> Result<Windows> {
    let wrong =
        |what, found: usize, expected: String| Error::Request { what, found: found.to_string(), expected };
    let max_length = truncation.max_length;
    let Some(room) = max_length.checked_sub(added) else {
        let expected = format!("at least {added}, the number of special tokens");
        return Err(wrong("max_length", max_length, expected));
    };
    let total = lengths[0] + lengths[1];
    let Some(excess) = total.checked_sub(room).filter(|excess| *excess > 0) else {
        return Ok(whole(lengths));
    };
    let cut = |len: usize| match len.checked_sub(excess) {
        Some(0) | None if rule == Rule::Library && room > 0 => {
            Err(wrong("max_length", max_length, "no less than the text that is not cut needs".to_owned()))
        }
        len => Ok(len.unwrap_or(0)),
    };
    let left = match truncation.strategy {
        _ if room == 0 && rule == Rule::Library => [0, 0],
        TruncateWhich::OnlyFirst => [cut(lengths[0])?, lengths[1]],
        TruncateWhich::OnlySecond => [lengths[0], cut(lengths[1])?],
        TruncateWhich::LongestFirst => {
            let (half, other) = (room / 2, room - room / 2);
            match lengths {
                [first, second] if first.min(second) <= half => {
                    if first > second {
                        [room - second, second]
                    } else {
                        [first, room - first]
                    }
                }
                [first, second] if first > second || rule == Rule::Python => [other, half],
                _ => [half, other],
            }
        }
    };
    let of = |text: usize| windows_of(lengths[text], left[text], truncation.stride, side);
    let (Some(first), Some(second)) = (of(0), of(1)) else {
        let window = if left[0] < lengths[0] { left[0] } else { left[1] };
        let expected = format!("less than {window}, the number of tokens of a window");
        return Err(wrong("stride", truncation.stride.unwrap_or_default(), expected));
    };
    let tokens = first.len().saturating_mul(second.len()).saturating_mul(max_length);
    if first.len() + second.len() > 2 && tokens > MAX_TOKENS {
        let expected = format!("one with which all windows have at most {MAX_TOKENS} tokens together");
        return Err(wrong("stride", truncation.stride.unwrap_or_default(), expected));
    }
    Ok([first, second])
}

/// The windows of texts that are not cut.
pub fn whole(lengths: [usize; 2]) -> Windows {
    lengths.map(|len| iter::once(0..len).collect())
}

/// The windows of a text of `len` tokens, of `left` tokens each: one without a stride. `None` when windows would not
/// advance.
fn windows_of(len: usize, left: usize, stride: Option<usize>, side: Side) -> Option<Vec<Range<usize>>> {
    let at = |start: usize| match side {
        Side::Right => start..(start + left).min(len),
        Side::Left => len.saturating_sub(start + left)..len - start,
    };
    let Some(stride) = stride.filter(|_| left < len) else { return Some(vec![at(0)]) };
    let advance = left.checked_sub(stride).filter(|advance| *advance > 0)?;
    // The last window is the first one that reaches the end.
    let last = (len - left).div_ceil(advance);
    Some((0..=last).map(|i| at(i * advance)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_overlap_and_end_at_the_end() {
        let windows = |len, left, stride, side| windows_of(len, left, stride, side).unwrap();
        assert_eq!(windows(10, 4, Some(1), Side::Right), [0..4, 3..7, 6..10]);
        assert_eq!(windows(11, 4, Some(1), Side::Right), [0..4, 3..7, 6..10, 9..11]);
        assert_eq!(windows(11, 4, Some(1), Side::Left), [7..11, 4..8, 1..5, 0..2]);
        assert_eq!(windows(4, 4, Some(1), Side::Left), vec![0..4; 1]);
        assert_eq!(windows(9, 4, None, Side::Left), vec![5..9; 1]);
        assert_eq!(windows_of(9, 4, Some(4), Side::Right), None);
        assert_eq!(windows_of(9, 0, Some(0), Side::Right), None);
    }

    #[test]
    fn both_texts_are_cut_by_the_rule() {
        let left = |rule, lengths| {
            let windows = windows(Truncation::new(8), rule, Side::Right, lengths, 3).unwrap();
            windows.map(|windows| windows[0].len())
        };
        for (lengths, library, python) in [
            ([9, 9], [2, 3], [3, 2]),
            ([10, 9], [3, 2], [3, 2]),
            ([9, 10], [2, 3], [3, 2]),
            ([2, 9], [2, 3], [2, 3]),
            ([9, 2], [3, 2], [3, 2]),
            ([2, 3], [2, 3], [2, 3]),
            ([9, 0], [5, 0], [5, 0]),
        ] {
            assert_eq!(
                (left(Rule::Library, lengths), left(Rule::Python, lengths)),
                (library, python),
                "{lengths:?}"
            );
        }
    }
}
