//! Any bytes as the files of a tokenizer's directory: a tokenizer that encodes and decodes anything, or one short
//! error. Memory stays in proportion, offsets stay within the text, and what comes out piece by piece is what comes out
//! at once.

#![no_main]

use std::fs;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use rachis_testkit::CountingAllocator;
use rachis_text::{
    CleanUpSpaces, DecodeOptions, EncodeOptions, SpecialTokens, TextInput, Tokenizer, TruncateWhich,
    Truncation,
};

#[path = "files/parts.rs"]
#[allow(dead_code, reason = "the formats of weights are for other targets")]
mod parts;
#[path = "files/scratch.rs"]
mod scratch;

use scratch::{Scratch, clear};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// What opening may allocate in all. Inputs are of a few KiB; the table of a vocabulary has a fixed part of 128 KiB.
const MOST_BYTES: u64 = 64 << 20;

/// The files, in the order of the input's parts; `-` stands for none.
const NAMES: [&str; 12] = [
    "config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "assets/tokenizer/vocabulary.txt",
    "assets/tokenizer/vocabulary.spm",
];

const TEXTS: [&str; 4] = [
    "",
    "The keeper's\u{301} \u{706f}\u{53f0} [MASK] </s>\u{85}\u{1f600}",
    "a<extra_id_0>  b",
    "\0\u{fffd}xxxxxxxxxxxx",
];

thread_local! {
    static DIRECTORY: Scratch = Scratch::new("tokenizer_dir");
}

fuzz_target!(|bytes: &[u8]| {
    DIRECTORY.with(|directory| {
        clear(directory.path());
        fs::create_dir_all(directory.path().join("assets/tokenizer")).unwrap();
        for (name, part) in NAMES.iter().zip(parts::parts(bytes)).filter(|(_, part)| *part != b"-") {
            fs::write(directory.path().join(name), part).unwrap();
        }
        check(directory.path());
    });
});

fn check(dir: &Path) {
    let (tokenizer, counts) = CountingAllocator::measure(|| Tokenizer::from_preset(dir));
    assert!(counts.bytes < MOST_BYTES, "{counts:?}");
    let tokenizer = match tokenizer {
        Ok(tokenizer) => tokenizer,
        Err(error) => return short(&error.to_string()),
    };
    for (i, text) in TEXTS.into_iter().enumerate() {
        let pair = TextInput::Pair(text, TEXTS[(i + 1) % TEXTS.len()]);
        let windows = Truncation::new(7).with_strategy(TruncateWhich::OnlySecond).with_stride(1);
        let windows = EncodeOptions::new().with_truncation(windows);
        for (input, options) in [(TextInput::from(text), EncodeOptions::new()), (pair, windows)] {
            match tokenizer.encode_with(input, options) {
                Ok(found) => {
                    let texts = match input {
                        TextInput::Pair(first, second) => [first, second],
                        _ => [text, ""],
                    };
                    for (range, number) in found.offsets.iter().zip(&found.sequences) {
                        assert!(number.is_none_or(|number| texts[number].get(range.clone()).is_some()));
                    }
                    decode(&tokenizer, &found.ids);
                }
                Err(error) => short(&error.to_string()),
            }
        }
    }
    let last = tokenizer.vocabulary_size() as u32;
    decode(&tokenizer, &(0..12).chain(last.saturating_sub(4)..last + 2).collect::<Vec<_>>());
}

fn decode(tokenizer: &Tokenizer, ids: &[u32]) {
    for clean_up in [CleanUpSpaces::Yes, CleanUpSpaces::No] {
        let options = DecodeOptions::from(SpecialTokens::Without).with_clean_up(clean_up);
        let whole = match tokenizer.decode(ids, options) {
            Ok(whole) => whole,
            Err(error) => return short(&error.to_string()),
        };
        let mut stream = tokenizer.decode_stream(options);
        let mut pieces = String::new();
        ids.iter().for_each(|id| pieces.extend(stream.step(*id).unwrap()));
        assert_eq!(pieces + &stream.finish(), whole);
    }
}

/// A message is one short line, and none of a panic: libFuzzer would have stopped there.
fn short(message: &str) {
    assert!(!message.contains('\n') && message.len() < 8000, "{message:?}");
}
