//! Odd texts on the real MiniLM, which `scripts/minilm` brings: each alone and all in one batch.

use std::path::Path;

use rachis::Session;
use rachis::kernels::Ctx;
use rachis_text::{TextEmbedder, rachis};

/// Texts that break programs.
fn odd_texts() -> Vec<String> {
    let mut texts: Vec<String> = [
        "",
        " ",
        "\t\r\n",
        "a",
        "A",
        ".",
        "0",
        "é",
        "e\u{301}",
        "\u{301}",
        "\u{301}\u{301}\u{301}a",
        "ß",
        "İ",
        "ſ",
        "ﬁ",
        "😀",
        "👩‍👩‍👧‍👦 family",
        "🏴󠁧󠁢󠁳󠁣󠁴󠁿",
        "שלום עולם",
        "مرحبا بالعالم",
        "\u{202e}right to left\u{202c}",
        "你好，世界",
        "日本語のテキスト",
        "ひらがな",
        "한국어",
        "ไทย",
        "हिन्दी",
        "\0",
        "a\0b",
        "\u{1}\u{2}\u{7f}\u{80}\u{9f}",
        "\u{feff}text",
        "\u{200b}\u{200c}\u{200d}\u{2060}",
        "\u{fffd}",
        "\u{10ffff}",
        "\u{e000}",
        "[CLS]",
        "[SEP] [PAD] [MASK] [UNK]",
        "##ing ##",
        "a\u{a0}b\u{2003}c\u{3000}d",
        "don't, it's; \"quoted\" (so) #1 @2 $3 50%",
        "https://example.org/a?b=c&d=%20#e",
        "AaBbCc DdEeFf",
    ]
    .map(str::to_owned)
    .to_vec();
    texts.push("x".repeat(101));
    texts.push("word ".repeat(20_000));
    texts.push("a".repeat(100_000));
    texts.push("\u{301}".repeat(10_000));
    texts.push(".".repeat(5000));
    texts.push("ab\n".repeat(400));
    texts
}

#[test]
fn odd_texts_alone_and_in_one_batch_are_equal_bit_for_bit() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/all-MiniLM-L6-v2");
    assert!(dir.join("model.safetensors").is_file(), "run scripts/minilm first: it brings {}", dir.display());
    let embedder = TextEmbedder::from_preset(dir).unwrap();
    let mut session = Session::new(Ctx::detect());
    let texts = odd_texts();
    let all = embedder.embed(&mut session, &texts).unwrap();
    assert_eq!((all.len(), all.dimension()), (texts.len(), 384));
    let bits = |row: &[f32]| row.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    for (i, (text, row)) in texts.iter().zip(&all).enumerate() {
        let alone = embedder.embed(&mut session, &[text]).unwrap();
        assert_eq!(
            bits(alone.get(0).unwrap()),
            bits(row),
            "text {i}: {:?}",
            &text.chars().take(20).collect::<String>()
        );
        let length: f64 = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        assert!((length - 1.0).abs() < 1e-5, "text {i}: length {length}");
    }
    // In another order, too.
    let reversed: Vec<&String> = texts.iter().rev().collect();
    let again = embedder.embed(&mut session, &reversed).unwrap();
    assert!(again.iter().rev().zip(&all).all(|(a, b)| bits(a) == bits(b)));
}
