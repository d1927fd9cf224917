//! `TextEmbedder` against sentence-transformers and KerasHub: every golden directory, every call.

mod common;

use rachis::Session;
use rachis::kernels::Ctx;
use rachis_testkit::goldens::{Array, Goldens, fixture};
use rachis_text::{
    Codes, EmbedMethod, EmbedOptions, Embeddings, Normalization, Quantization, QuantizationRanges,
    TextEmbedder, rachis,
};
use serde_json::Value;

use common::{directories, json, selected, texts};

fn session() -> Session<'static> {
    Session::new(Ctx::detect())
}

/// The largest difference from the expected vectors, in units of the tolerance: of vectors with large components it
/// counts times the largest.
fn difference(got: &Embeddings, expected: &Array<f64>, tolerance: f64) -> f64 {
    assert_eq!((got.len(), got.dimension()), (expected.shape[0], expected.shape[1]));
    let largest = expected.data.iter().fold(1.0, |largest: f64, x| largest.max(x.abs()));
    let errors = got.as_slice().iter().zip(&expected.data).map(|(got, x)| (f64::from(*got) - x).abs());
    errors.fold(0.0, |worst: f64, error| if error.is_nan() { f64::INFINITY } else { worst.max(error) })
        / (tolerance * largest)
}

fn options(request: &Value) -> EmbedOptions {
    let mut options = EmbedOptions::new();
    let text = |name: &str| request[name].as_str();
    if let Some(prompt) = text("prompt") {
        options = options.with_prompt(prompt);
    }
    if let Some(name) = text("prompt_name") {
        options = options.with_prompt_name(name);
    }
    if let Some(dim) = request["truncate_dim"].as_u64() {
        options = options.with_truncate_dim(dim as usize);
    }
    if request["normalize_embeddings"] == true {
        options = options.with_normalization(Normalization::Always);
    }
    options.with_method(match text("method") {
        None => EmbedMethod::Encode,
        Some("encode_query") => EmbedMethod::Query,
        Some("encode_document") => EmbedMethod::Document,
        Some(other) => panic!("{other}"),
    })
}

#[test]
fn vectors_equal_those_of_sentence_transformers() {
    let all = texts();
    let (mut calls, mut quantized) = (0, 0);
    for dir in directories("text/embed") {
        let goldens = json(&format!("{dir}/goldens.json"));
        let tensors = Goldens::read(format!("{dir}/goldens.safetensors"));
        let tolerance = goldens["tolerance"].as_f64().unwrap();
        let embedder =
            TextEmbedder::from_preset(fixture(&dir)).unwrap_or_else(|error| panic!("{dir}: {error}"));
        if let Some(limit) = goldens["limit"].as_u64() {
            assert_eq!(embedder.max_tokens(), Some(limit as usize), "{dir}");
        }
        for (i, call) in goldens["calls"].as_array().unwrap().iter().enumerate() {
            let request = &call["request"];
            let texts = selected(&all, &request["texts"]);
            let got = embedder.embed_with(&mut session(), &texts, &options(request)).unwrap();
            let expected = tensors.float(call["tensors"]["vectors"].as_str().unwrap());
            let error = difference(&got, expected, tolerance);
            assert!(error <= 1.0, "{dir}, call {i}: {error:.2} tolerances");
            calls += 1;
            if let Some(precision) = request["precision"].as_str() {
                check_quantized(&got, precision, &tensors, i);
                quantized += 1;
            }
        }
    }
    assert_eq!((calls, quantized), (49, 8));
}

/// Compares what float32 rounding cannot change.
fn check_quantized(vectors: &Embeddings, precision: &str, tensors: &Goldens, call: usize) {
    let quantization: Quantization = precision.parse().unwrap();
    let rows = |name: &str| {
        let array = tensors.float(&format!("{call}.{name}"));
        array.rows().map(|row| row.iter().map(|x| *x as f32).collect()).collect::<Vec<Vec<f32>>>()
    };
    let ranges = match call {
        4 | 7 => {
            let [least, largest] = rows("ranges").try_into().unwrap();
            Some(QuantizationRanges::new(least, largest).unwrap())
        }
        5 | 8 => {
            let rows = rows("calibration");
            let calibration = Embeddings::from_values(rows.concat(), rows[0].len()).unwrap();
            Some(QuantizationRanges::calibrate(&calibration).unwrap())
        }
        _ => None,
    };
    let got = vectors.quantize(quantization, ranges.as_ref()).unwrap();
    let expected = tensors.integer(&format!("{call}.quantized"));
    assert_eq!((got.len(), got.width()), (expected.shape[0], expected.shape[1]));
    let codes: Vec<i32> = match got.codes() {
        Codes::Signed(codes) => codes.iter().copied().map(i32::from).collect(),
        Codes::Unsigned(codes) => codes.iter().copied().map(i32::from).collect(),
    };
    let sure = &tensors.integer(&format!("{call}.sure")).data;
    let mut compared = 0;
    if quantization.needs_ranges() {
        for ((got, expected), sure) in codes.iter().zip(&expected.data).zip(sure) {
            assert!(*sure == 0 || got == expected, "call {call}: {got}, expected {expected}");
            compared += sure;
        }
    } else {
        let bit = |codes: &[i32], i: usize| {
            let byte = if quantization == Quantization::Binary { codes[i / 8] + 128 } else { codes[i / 8] };
            byte >> (7 - i % 8) & 1
        };
        for (i, sure) in sure.iter().enumerate() {
            assert!(*sure == 0 || bit(&codes, i) == bit(&expected.data, i), "call {call}: bit {i}");
            compared += sure;
        }
    }
    assert!(compared > 300, "call {call}: {compared} compared");
}

#[test]
fn vectors_equal_those_of_keras_hub() {
    let all = texts();
    for dir in ["text/keras/embedder", "text/keras/embedder_cls"] {
        let goldens = json(&format!("{dir}/goldens.json"));
        let texts = selected(&all, &goldens["texts"]);
        let embedder = TextEmbedder::from_preset(fixture(dir)).unwrap();
        let got = embedder.embed(&mut session(), &texts).unwrap();
        let tensors = Goldens::read(format!("{dir}/goldens.safetensors"));
        let tolerance = goldens["tolerance"].as_f64().unwrap();
        let error = difference(&got, tensors.float("output"), tolerance);
        assert!(error <= 1.0, "{dir}: {error:.2} tolerances");
    }
}

/// The cases of this part: directories as they lie about, and the vectors that are right.
#[test]
fn cases_of_directories() {
    const CASES: [&str; 17] = [
        "01", "02", "08", "09", "10", "11", "24", "25", "26", "38", "39", "42", "43", "44", "45", "46", "47",
    ];
    let mut vectors = 0;
    for dir in directories("cases") {
        let name = dir.trim_start_matches("cases/");
        if !CASES.contains(&&name[..2]) {
            continue;
        }
        let embedder =
            TextEmbedder::from_preset(fixture(&dir)).unwrap_or_else(|error| panic!("{dir}: {error}"));
        for check in json(&format!("{dir}/expect.json"))["checks"].as_array().unwrap() {
            let texts: Vec<&str> = match check["task"].as_str() {
                Some("embed" | "cosines") => {
                    check["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
                }
                _ => continue,
            };
            let got = embedder.embed(&mut session(), &texts).unwrap();
            let tolerance = check["tolerance"].as_f64().unwrap();
            for (got, expected) in got.iter().zip(check["vectors"].as_array().into_iter().flatten()) {
                let expected: Vec<f64> =
                    expected.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
                assert_eq!(got.len(), expected.len(), "{dir}");
                for (got, expected) in got.iter().zip(&expected) {
                    assert!(
                        (f64::from(*got) - expected).abs() <= tolerance,
                        "{dir}: {got}, expected {expected}"
                    );
                }
                vectors += 1;
            }
            for pair in check["pairs"].as_array().into_iter().flatten() {
                let [i, j] = [0, 1].map(|at| pair[at].as_u64().unwrap() as usize);
                let error = f64::from(got.cosine(i, j)) - pair[2].as_f64().unwrap();
                assert!(error.abs() <= tolerance, "{dir}: cosine off by {error}");
                vectors += 1;
            }
        }
    }
    assert!(vectors > 40, "{vectors}");
}

/// Tasks are shared by threads, each with a session of its own.
#[test]
fn tasks_are_shared_by_reference() {
    fn shared<T: Send + Sync>() {}
    shared::<TextEmbedder>();
    shared::<rachis_text::Reranker>();
}
