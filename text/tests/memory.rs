//! Memory stays flat over many texts. In a file of its own: the allocator counts the whole process.

use std::sync::Mutex;

use rachis::Session;
use rachis::kernels::Ctx;
use rachis_testkit::alloc::CountingAllocator;
use rachis_testkit::goldens::fixture;
use rachis_text::{Reranker, TextEmbedder, rachis};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// One test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Texts of 0 to 40 words, most of them new ones.
fn texts(count: usize, seed: usize) -> Vec<String> {
    let word = |n: usize| format!("{:x}", n.wrapping_mul(2_654_435_761) % 100_003);
    let text =
        |i: usize| (0..(i * 7 + seed) % 41).map(|w| word(seed + i * 41 + w)).collect::<Vec<_>>().join(" ");
    (0..count).map(text).collect()
}

#[test]
fn memory_is_flat_over_ten_thousand_texts() {
    const CALLS: usize = 10;
    let _alone = ALONE.lock();
    let embedder = TextEmbedder::from_preset(fixture("text/embed/prompts_default")).unwrap();
    let reranker = Reranker::from_preset(fixture("text/rerank/one_default")).unwrap();
    let mut session = Session::new(Ctx::detect());
    let mut pass = |seed: usize| {
        let texts = texts(1000, seed);
        let before = CountingAllocator::live();
        let (_, peak) = CountingAllocator::peak(|| {
            assert_eq!(embedder.embed(&mut session, &texts).unwrap().len(), 1000);
            assert_eq!(reranker.rank(&mut session, "a query", &texts).unwrap().len(), 1000);
        });
        (peak - before, CountingAllocator::live().saturating_sub(before))
    };
    // The session's memory, and the tokenizer's cache, grow to their size first.
    let (first, _) = pass(0);
    let mut kept = 0;
    for call in 1..=CALLS {
        let (peak, more) = pass(call * 1_000_003);
        assert!(peak <= first + first / 4, "call {call}: a peak of {peak} bytes, at first {first}");
        kept += more;
    }
    // 10,000 texts and as many pairs. What may grow are caches of a bounded size that were not full yet.
    assert!(kept < 1 << 20, "{kept} bytes stay allocated after {CALLS} calls");
}

/// The tokens of texts are kept for a window of them only, whatever their number.
#[test]
fn the_peak_does_not_grow_with_the_number_of_texts() {
    let _alone = ALONE.lock();
    let embedder = TextEmbedder::from_preset(fixture("text/embed/plain")).unwrap();
    let mut session = Session::new(Ctx::detect());
    let mut peak = |count: usize| {
        let texts = texts(count, 5);
        let before = CountingAllocator::live();
        let (vectors, peak) = CountingAllocator::peak(|| embedder.embed(&mut session, &texts).unwrap());
        peak - before - size_of_val(vectors.as_slice()) as u64
    };
    let _ = peak(2000);
    let (few, many) = (peak(2000), peak(10_000));
    assert!(many <= few + few / 4, "{many} bytes for 10,000 texts, {few} for 2,000");
}
