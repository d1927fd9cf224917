//! The best spans of the windows of a context, as the pipeline's `select_starts_ends` and `decode_spans` find them
//! (after Chen et al., arXiv:1704.00051).
//!
//! In each window the logits of tokens that cannot be in an answer are -10000, and a softmax over the window makes
//! probabilities of starting and of ending. The first token's become 0 then: their product is the score of no answer. A
//! span has the product of its two probabilities, and each window gives its best spans. Left out are spans of score 0,
//! where the pipeline's choice among them is arbitrary, and those outside the context, whose places it takes for places in
//! the context.

use crate::scores::softmax;

/// The logit of a token that cannot be in an answer.
const MASKED: f32 = -10000.0;

/// A span of tokens, both ends included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    pub(super) window: usize,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) score: f64,
}

/// The best spans so far.
#[derive(Debug)]
pub(super) struct Spans {
    top_k: usize,
    max_len: usize,
    best: Vec<Span>,
    /// The least score of no answer.
    none: f64,
}

impl Spans {
    pub(super) fn new(top_k: usize, max_len: usize) -> Spans {
        // The pipeline's large number, which stays where there is no window.
        Spans { top_k, max_len, best: Vec::new(), none: 1e6 }
    }

    /// Adds the spans of the context of a window, from the logits `[tokens, 2]` of starting and ending there: `counts`
    /// says which tokens have probabilities, `context` which are of the context.
    pub(super) fn add(&mut self, window: usize, logits: &[f32], (counts, context): (&[bool], &[bool])) {
        let [mut starts, mut ends] = [0, 1].map(|column| {
            let rows = logits.chunks_exact(2).zip(counts);
            let masked: Vec<f32> = rows.map(|(row, may)| if *may { row[column] } else { MASKED }).collect();
            softmax(&masked).collect::<Vec<f64>>()
        });
        if let (Some(start), Some(end)) = (starts.first_mut(), ends.first_mut()) {
            self.none = self.none.min(*start * *end);
            (*start, *end) = (0.0, 0.0);
        }
        let may = |at: &usize| context.get(*at).copied().unwrap_or(false);
        let mut found = Vec::new();
        for start in (0..starts.len()).filter(may) {
            let last = ends.len().min(start.saturating_add(self.max_len));
            let spans = (start..last).filter(may).map(|end| Span {
                window,
                start,
                end,
                score: starts[start] * ends[end],
            });
            found.extend(spans.filter(|span| span.score > 0.0));
        }
        self.best.extend(largest(found, self.top_k));
    }

    /// The best spans of all windows, the best first, and the score of no answer.
    pub(super) fn finish(self) -> (Vec<Span>, f64) {
        (largest(self.best, self.top_k), self.none)
    }
}

/// The spans with the largest scores, in that order; the first of equal ones first.
fn largest(mut spans: Vec<Span>, top_k: usize) -> Vec<Span> {
    spans.sort_by(|a, b| b.score.total_cmp(&a.score));
    spans.truncate(top_k);
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_the_product_of_their_probabilities() {
        let ln = |x: f32| x.ln();
        // Starts 0.1, 0.6, 0.3 and ends 0.2, 0.3, 0.5; the first token is that of no answer.
        let logits = [ln(0.1), ln(0.2), ln(0.6), ln(0.3), ln(0.3), ln(0.5)];
        let mut spans = Spans::new(2, 2);
        spans.add(0, &logits, (&[true; 3], &[true; 3]));
        let (best, none) = spans.finish();
        let found: Vec<(usize, usize)> = best.iter().map(|span| (span.start, span.end)).collect();
        assert_eq!(found, [(1, 2), (1, 1)]);
        assert!((best[0].score - 0.3).abs() < 1e-6 && (best[1].score - 0.18).abs() < 1e-6);
        assert!((none - 0.02).abs() < 1e-6);

        let mut spans = Spans::new(5, 1);
        let [second, third] = [[false, true, false], [false, false, true]];
        spans.add(0, &logits, (&second, &second));
        spans.add(1, &logits, (&third, &third));
        let (best, none) = spans.finish();
        assert_eq!(best.iter().map(|span| (span.window, span.start)).collect::<Vec<_>>(), [(0, 1), (1, 2)]);
        assert!(best.iter().all(|span| span.score == 1.0) && none == 0.0);
    }
}
