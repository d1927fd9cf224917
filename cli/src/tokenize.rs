//! `tokenize`: the token ids of texts, and the texts of token ids.

use rachis::loader::Preset;
use rachis_text::{EncodeOptions, Encoding, SpecialTokens, TextInput, Tokenizer, TruncateWhich, Truncation};
use serde_json::{Value, json};

use crate::args::TokenizeArgs;
use crate::requests::{self, Request, only, optional};
use crate::{Result, print};

pub fn tokenize(args: &TokenizeArgs) -> Result<()> {
    let tokenizer = Tokenizer::load(&Preset::named_config(&args.model)?)?;
    if let Some(source) = &args.requests {
        return requests::answer(source, |request| answer(&tokenizer, request));
    }
    let encodings: Vec<Value> = args
        .texts
        .iter()
        .map(|text| Ok(describe(&tokenizer.encode(text)?, TextInput::from(text))))
        .collect::<Result<_>>()?;
    if args.json {
        return print(format_args!("{}\n", json!({ "encodings": encodings })));
    }
    for encoding in &encodings {
        print(format_args!("{}\n", encoding["ids"]))?;
    }
    Ok(())
}

fn answer(tokenizer: &Tokenizer, request: &Request) -> Result<Value> {
    if let Some(ids) = optional::<Vec<u32>>(request, "ids")? {
        only(request, &["ids", "skip_special_tokens"])?;
        let skip = optional(request, "skip_special_tokens")?.unwrap_or(false);
        let special = if skip { SpecialTokens::Without } else { SpecialTokens::With };
        return Ok(json!({ "text": tokenizer.decode(&ids, special)? }));
    }
    only(
        request,
        &[
            "text",
            "text_pair",
            "add_special_tokens",
            "truncation",
            "max_length",
            "stride",
            "return_overflowing_tokens",
        ],
    )?;
    let text: String = requests::required(request, "text")?;
    let pair: Option<String> = optional(request, "text_pair")?;
    let input = pair.as_ref().map_or(TextInput::from(&text), |pair| TextInput::Pair(&text, pair));
    let mut options = EncodeOptions::new();
    if optional(request, "add_special_tokens")? == Some(false) {
        options = options.with_special_tokens(SpecialTokens::Without);
    }
    let windows = optional(request, "return_overflowing_tokens")?.unwrap_or(false);
    if let Some(truncation) = truncation(request)? {
        let stride = optional(request, "stride")?.unwrap_or(0);
        options = options.with_truncation(if windows { truncation.with_stride(stride) } else { truncation });
    }
    let mut encoding = tokenizer.encode_with(input, options)?;
    if !windows {
        return Ok(describe(&encoding, input));
    }
    let rest = std::mem::take(&mut encoding.overflowing);
    Ok([encoding].iter().chain(&rest).map(|encoding| describe(encoding, input)).collect())
}

fn truncation(request: &Request) -> Result<Option<Truncation>> {
    let strategy = match request.get("truncation") {
        None | Some(Value::Null | Value::Bool(false)) => return Ok(None),
        Some(Value::Bool(true)) => TruncateWhich::LongestFirst,
        Some(Value::String(name)) => match name.as_str() {
            "do_not_truncate" => return Ok(None),
            "longest_first" => TruncateWhich::LongestFirst,
            "only_first" => TruncateWhich::OnlyFirst,
            "only_second" => TruncateWhich::OnlySecond,
            _ => {
                return Err(format!(
                    "truncation is {name:?}, expected longest_first, only_first or only_second"
                )
                .into());
            }
        },
        Some(other) => return Err(format!("truncation is {other}, expected true or a strategy").into()),
    };
    Ok(Some(Truncation::new(requests::required(request, "max_length")?).with_strategy(strategy)))
}

/// An encoding with its offsets in code points.
fn describe(encoding: &Encoding, input: TextInput<'_>) -> Value {
    let (first, second) = match input {
        TextInput::Pair(first, second) => (first, second),
        TextInput::Single(text) => (text, ""),
        _ => ("", ""),
    };
    let offsets: Vec<[usize; 2]> = encoding
        .offsets
        .iter()
        .zip(&encoding.sequences)
        .map(|(range, sequence)| {
            let text = if *sequence == Some(1) { second } else { first };
            let count = |end: usize| text.get(..end).map_or(0, |part| part.chars().count());
            if sequence.is_none() { [0, 0] } else { [count(range.start), count(range.end)] }
        })
        .collect();
    json!({
        "ids": encoding.ids,
        "type_ids": encoding.type_ids,
        "offsets": offsets,
        "special_tokens_mask": encoding.special.iter().map(|special| u8::from(*special)).collect::<Vec<_>>(),
    })
}
