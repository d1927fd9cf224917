//! The clean-up of spaces in decoded text: transformers' `clean_up_tokenization_spaces`.

/// What transformers replaces in a text, one after the other.
const TEXT: &[(&str, &str)] = &[
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
];

/// The characters of all patterns of [`TEXT`].
const LETTERS: &str = " .?!,'ntmsver";

/// What the WordPiece decoder of the `tokenizers` crate replaces in a token, with the space in front of it.
pub fn clean_up_word(token: &str) -> String {
    let mut text = replace_all(token.to_owned(), &TEXT[..7]);
    text = text.replace(" do not", " don't");
    replace_all(text, &TEXT[7..])
}

/// Cleans a text up that comes in pieces.
#[derive(Debug, Default)]
pub struct CleanUp {
    /// Text that a later piece may change.
    held: String,
}

impl CleanUp {
    /// Takes a piece, and appends to `out` what is certain: a character that is in no pattern separates what is before
    /// it from what follows.
    pub fn push(&mut self, piece: &str, out: &mut String) {
        let certain = piece.char_indices().rev().find(|(_, c)| !LETTERS.contains(*c));
        let certain = certain.map_or(0, |(at, c)| at + c.len_utf8());
        self.held.push_str(&piece[..certain]);
        if certain > 0 {
            self.finish(out);
        }
        self.held.push_str(&piece[certain..]);
    }

    /// Appends what is held.
    pub fn finish(&mut self, out: &mut String) {
        out.push_str(&replace_all(std::mem::take(&mut self.held), TEXT));
    }
}

fn replace_all(mut text: String, patterns: &[(&str, &str)]) -> String {
    for (pattern, content) in patterns {
        if text.contains(pattern) {
            text = text.replace(pattern, content);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All texts of up to 5 of the patterns' parts, cut at each place.
    #[test]
    fn pieces_together_are_the_text_at_once() {
        let parts = [" ", "'", "n", "'t", " .", "x", "s", " 've"];
        let mut texts = vec![String::new()];
        for _ in 0..5 {
            texts = texts.iter().flat_map(|text| parts.map(|part| format!("{text}{part}"))).collect();
        }
        for text in texts {
            let whole = replace_all(text.clone(), TEXT);
            for cut in 0..=text.len() {
                let (mut clean_up, mut out) = (CleanUp::default(), String::new());
                clean_up.push(&text[..cut], &mut out);
                clean_up.push(&text[cut..], &mut out);
                clean_up.finish(&mut out);
                assert_eq!(out, whole, "{text:?} cut at {cut}");
            }
        }
    }
}
