//! `tokenize`: the token ids of texts, and the texts of token ids.

use rachis::loader::Preset;
use rachis_text::{
    CleanUpSpaces, DecodeOptions, EncodeOptions, Encoding, Side, SpecialTokens, TextInput, Tokenizer,
    TruncateWhich, Truncation,
};
use serde_json::{Value, json};

use crate::args::TokenizeArgs;
use crate::requests::{self, Request, only, optional};
use crate::texts::CodePoints;
use crate::{Result, print};

pub fn tokenize(args: &TokenizeArgs) -> Result<()> {
    let tokenizer = Tokenizer::load(&Preset::named_config(&args.model)?)?;
    if let Some(source) = &args.requests {
        return requests::answer(source, |request| answer(&tokenizer, request));
    }
    let encodings: Vec<Value> = args
        .texts
        .iter()
        .map(|text| Ok(describe(&tokenizer, &tokenizer.encode(text)?, TextInput::from(text))))
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
        only(request, &["ids", "skip_special_tokens", "clean_up_tokenization_spaces"])?;
        return Ok(json!({ "text": tokenizer.decode(&ids, decoding(request)?)? }));
    }
    only(
        request,
        &[
            "text",
            "text_pair",
            "text_target",
            "add_special_tokens",
            "truncation",
            "truncation_side",
            "max_length",
            "stride",
            "return_overflowing_tokens",
        ],
    )?;
    // A text in the target language is tokenized as any other by the classes that are implemented.
    let target: Option<String> = optional(request, "text_target")?;
    let text = match (target, request.contains_key("text")) {
        (Some(_), true) => return Err("text and text_target are both given, expected one of them".into()),
        (Some(target), false) => target,
        (None, _) => requests::required(request, "text")?,
    };
    let pair: Option<String> = optional(request, "text_pair")?;
    let input = pair.as_ref().map_or(TextInput::from(&text), |pair| TextInput::Pair(&text, pair));
    let mut options = EncodeOptions::new();
    if optional(request, "add_special_tokens")? == Some(false) {
        options = options.with_special_tokens(SpecialTokens::Without);
    }
    let windows = optional(request, "return_overflowing_tokens")?.unwrap_or(false);
    if let Some(truncation) = truncation(tokenizer, request)? {
        let stride = optional(request, "stride")?.unwrap_or(0);
        options = options.with_truncation(if windows { truncation.with_stride(stride) } else { truncation });
    }
    let mut encoding = tokenizer.encode_with(input, options)?;
    if !windows {
        return Ok(describe(tokenizer, &encoding, input));
    }
    let rest = std::mem::take(&mut encoding.overflowing);
    Ok([encoding].iter().chain(&rest).map(|encoding| describe(tokenizer, encoding, input)).collect())
}

fn decoding(request: &Request) -> Result<DecodeOptions> {
    let skip = optional(request, "skip_special_tokens")?.unwrap_or(false);
    let special_tokens = if skip { SpecialTokens::Without } else { SpecialTokens::With };
    let clean_up = match optional(request, "clean_up_tokenization_spaces")? {
        None => CleanUpSpaces::Directory,
        Some(true) => CleanUpSpaces::Yes,
        Some(false) => CleanUpSpaces::No,
    };
    Ok(DecodeOptions::new().with_special_tokens(special_tokens).with_clean_up(clean_up))
}

/// How the text is cut; `None` when it is not, also because nothing limits its length.
fn truncation(tokenizer: &Tokenizer, request: &Request) -> Result<Option<Truncation>> {
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
    let limit = optional(request, "max_length")?.or(tokenizer.model_max_length());
    let Some(limit) = limit else { return Ok(None) };
    let truncation = Truncation::new(limit).with_strategy(strategy);
    Ok(Some(match optional::<String>(request, "truncation_side")?.as_deref() {
        None => truncation,
        Some("right") => truncation.with_side(Side::Right),
        Some("left") => truncation.with_side(Side::Left),
        Some(other) => return Err(format!("truncation_side is {other:?}, expected right or left").into()),
    }))
}

/// An encoding with its offsets in code points, which are null where the tokenizer has none.
fn describe(tokenizer: &Tokenizer, encoding: &Encoding, input: TextInput<'_>) -> Value {
    let offsets = tokenizer.has_offsets().then(|| offsets(encoding, input));
    json!({
        "ids": encoding.ids,
        "type_ids": encoding.type_ids,
        "offsets": offsets,
        "special_tokens_mask": encoding.special.iter().map(|special| u8::from(*special)).collect::<Vec<_>>(),
    })
}

fn offsets(encoding: &Encoding, input: TextInput<'_>) -> Vec<[usize; 2]> {
    let (first, second) = match input {
        TextInput::Pair(first, second) => (first, second),
        TextInput::Single(text) => (text, ""),
        _ => ("", ""),
    };
    let counters = &mut [CodePoints::of(first), CodePoints::of(second)];
    let all = encoding.offsets.iter().zip(&encoding.sequences).map(|(range, text)| {
        let counter = text.and_then(|text| counters.get_mut(text));
        counter.map_or([0, 0], |counter| [counter.before(range.start), counter.before(range.end)])
    });
    all.collect()
}
