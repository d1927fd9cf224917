//! `embed`: sentence embeddings, and their similarities.

use rachis::Session;
use rachis_text::{
    Codes, EmbedMethod, EmbedOptions, Embeddings, Normalization, QuantizationRanges, TextEmbedder,
};
use serde_json::{Value, json};

use crate::args::{BadUsage, EmbedArgs, OutputPrecision};
use crate::lines::Texts;
use crate::requests::{self, Request, only, optional};
use crate::vectors::VectorFile;
use crate::{Result, print};

/// The largest number of texts whose similarities are printed as a table.
const LARGEST_TABLE: usize = 32;

pub fn embed(args: &EmbedArgs) -> Result<()> {
    let (preset, model) = args.common.open(&args.common.model_or_default()?)?;
    let mut embedder = TextEmbedder::load(&preset, model)?;
    if let Some(pooling) = args.pooling {
        embedder = embedder.with_pooling(pooling)?;
    }
    let pool = args.common.pool()?;
    let session = &mut Session::new(args.common.ctx(pool.as_ref())?);
    let options = options(args);
    if let Some(source) = &args.requests {
        return requests::answer(source, |request| answer(&embedder, session, args, request));
    }
    let mut texts = Texts::new(&args.texts);
    if let Some(place) = &args.output {
        let mut file = VectorFile::create(place, args.output_precision)?;
        while let Some(chunk) = texts.next_chunk()? {
            file.put(&embedder.embed_with(session, &chunk, &options)?)?;
            texts.done(chunk.len());
        }
        return file.finish();
    }
    if args.common.json {
        let (mut values, mut dimension) = (Vec::new(), 1);
        while let Some(chunk) = texts.next_chunk()? {
            let embeddings = embedder.embed_with(session, &chunk, &options)?;
            dimension = embeddings.dimension();
            values.extend(embeddings.into_vec());
            texts.done(chunk.len());
        }
        let embeddings = Embeddings::from_values(values, dimension)?;
        return print(format_args!("{}\n", described(&embeddings, args.output_precision, None)?));
    }
    table(args, &embedder, session, texts, &options)
}

/// The options of the flags.
fn options(args: &EmbedArgs) -> EmbedOptions {
    let mut options = EmbedOptions::new();
    options.prompt.clone_from(&args.prompt);
    options.prompt_name.clone_from(&args.prompt_name);
    options.truncate_dim = args.truncate_dim;
    if args.normalize {
        options.normalization = Normalization::Always;
    }
    options
}

/// The answer to a request, whose arguments take precedence over the flags.
fn answer(
    embedder: &TextEmbedder,
    session: &mut Session<'_>,
    args: &EmbedArgs,
    request: &Request,
) -> Result<Value> {
    only(
        request,
        &[
            "text",
            "texts",
            "prompt",
            "prompt_name",
            "method",
            "truncate_dim",
            "normalize_embeddings",
            "precision",
            "ranges",
        ],
    )?;
    let texts: Vec<String> = match optional(request, "text")? {
        Some(text) if !request.contains_key("texts") => vec![text],
        Some(_) => return Err("text and texts: expected one of the two".into()),
        None => requests::required(request, "texts")?,
    };
    let mut options = options(args);
    let (prompt, name) = (optional(request, "prompt")?, optional(request, "prompt_name")?);
    if prompt.is_some() || name.is_some() {
        (options.prompt, options.prompt_name) = (prompt, name);
    }
    options.method = match optional::<String>(request, "method")?.as_deref() {
        None | Some("encode") => EmbedMethod::Encode,
        Some("encode_query") => EmbedMethod::Query,
        Some("encode_document") => EmbedMethod::Document,
        Some(other) => {
            return Err(
                format!("method is {other:?}, expected encode, encode_query or encode_document").into()
            );
        }
    };
    options.truncate_dim = optional(request, "truncate_dim")?.or(options.truncate_dim);
    options.normalization = match optional(request, "normalize_embeddings")? {
        Some(true) => Normalization::Always,
        Some(false) => Normalization::OfModel,
        None => options.normalization,
    };
    let precision = match optional::<String>(request, "precision")? {
        Some(name) => OutputPrecision::parse(&name)
            .map_err(|expected| format!("precision is {name:.40?}, {expected}"))?,
        None => args.output_precision,
    };
    let ranges = match optional::<[Vec<f32>; 2]>(request, "ranges")? {
        Some([least, largest]) => Some(QuantizationRanges::new(least, largest)?),
        None => None,
    };
    described(&embedder.embed_with(session, &texts, &options)?, precision, ranges.as_ref())
}

/// Vectors in JSON.
fn described(
    embeddings: &Embeddings,
    precision: OutputPrecision,
    ranges: Option<&QuantizationRanges>,
) -> Result<Value> {
    let OutputPrecision::Quantized(quantization) = precision else {
        return Ok(json!({ "embeddings": embeddings.iter().collect::<Vec<_>>() }));
    };
    let quantized = embeddings.quantize(quantization, ranges)?;
    let width = quantized.width().max(1);
    let rows: Vec<Value> = match quantized.codes() {
        Codes::Signed(codes) => codes.chunks_exact(width).map(|row| json!(row)).collect(),
        Codes::Unsigned(codes) => codes.chunks_exact(width).map(|row| json!(row)).collect(),
    };
    Ok(json!({ "embeddings": rows }))
}

/// Prints the similarity of each two of the texts, by the measure that the model's files name.
fn table(
    args: &EmbedArgs,
    embedder: &TextEmbedder,
    session: &mut Session<'_>,
    mut texts: Texts<'_>,
    options: &EmbedOptions,
) -> Result<()> {
    if args.output_precision != OutputPrecision::Float32 {
        let message = "--output-precision needs --json, --output or --requests";
        return Err(BadUsage(message.to_owned()).into());
    }
    let mut all = Vec::new();
    while let Some(chunk) = texts.next_chunk()? {
        all.extend(chunk);
        if all.len() > LARGEST_TABLE {
            let message = format!(
                "more than {LARGEST_TABLE} texts: expected --json or --output, as their table would be too wide"
            );
            return Err(BadUsage(message).into());
        }
    }
    let embeddings = embedder.embed_with(session, &all, options)?;
    drop(texts);
    for (i, text) in all.iter().enumerate() {
        print(format_args!("{:>3}  {text}\n", i + 1))?;
    }
    let similarity = embedder.similarity();
    let header: String = (1..=embeddings.len()).map(|i| format!("{i:>8}")).collect();
    print(format_args!("\n{similarity} similarity\n   {header}\n"))?;
    for (i, a) in embeddings.iter().enumerate() {
        let line: String = embeddings.iter().map(|b| format!("{:>8.4}", similarity.of(a, b))).collect();
        print(format_args!("{:>3}{line}\n", i + 1))?;
    }
    Ok(())
}
