//! Text generation compared with the reference libraries on whole directories, and its properties.

use core::ops::ControlFlow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rachis_testkit::goldens::fixture;
use rachis_text::rachis::generation::{GenerationConfig, GenerationFields, LogProbabilities};
use rachis_text::rachis::loader::{Access, Preset};
use rachis_text::rachis::{Backbone, Ctx, Session};
use rachis_text::{GeneratedText, TextGenerator};
use serde_json::{Map, Value, json};

fn golden(dir: &Path, file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join(file)).unwrap()).unwrap()
}

fn session() -> Session<'static> {
    Session::new(Ctx::from_env().unwrap())
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The fields of a generator with those of a request that are arguments of generation.
fn with_request(fields: &GenerationFields, request: &Map<String, Value>) -> GenerationFields {
    let mut fields = fields.clone();
    for (name, value) in request.iter().filter(|(name, _)| GenerationFields::is_known(name)) {
        fields.set(name, value.clone());
    }
    fields
}

/// What `ids` of an answer are: of a decoder-only model the new tokens.
fn answered(generator: &TextGenerator, found: &GeneratedText) -> Vec<u32> {
    let has_encoder = generator.model().decoder().unwrap().has_encoder();
    if has_encoder { found.sequence.ids.clone() } else { found.sequence.new_ids().to_vec() }
}

/// Calls of `generate` and of pipelines: how many of each were compared.
fn compare(name: &str) -> (usize, usize) {
    let dir = fixture(format!("text/generate/{name}"));
    let golden = golden(&dir, "goldens.json");
    let generator = TextGenerator::from_preset(&dir).unwrap();
    let mut session = session();
    let (mut calls, mut pipelines) = (0, 0);
    // The rows of a request are its sequences, best first.
    let all = golden["calls"].as_array().unwrap();
    for rows in all.chunk_by(|a, b| a["request"] == b["request"]) {
        let request = rows[0]["request"].as_object().unwrap();
        let place = format!("{name} {request:?}");
        let Some(pipeline) = request.get("pipeline") else {
            let prompt = request["prompt"].as_str().unwrap();
            assert_eq!(generator.encode(prompt).unwrap(), ids(&request["prompt_ids"]), "{place}");
            let config = with_request(generator.fields(), request).config().unwrap();
            let found = generator.generate(&mut session, &[prompt], &config).unwrap().remove(0);
            assert_eq!(found.len(), rows.len(), "{place}");
            for (found, row) in found.iter().zip(rows) {
                assert_eq!(answered(&generator, found), ids(&row["answer"]["ids"]), "{place}");
                assert_eq!(found.text, row["answer"]["text"], "{place}");
                calls += 1;
            }
            continue;
        };
        let inputs = request["inputs"].as_str().unwrap();
        let answer = rows[0]["answer"][0].as_object().unwrap();
        let text = answer.values().next().unwrap();
        if let Some(task) = pipeline.as_str() {
            let task = TextGenerator::from_preset(&dir).unwrap().with_task(task).unwrap();
            let config = with_request(task.fields(), request).config().unwrap();
            let found = task.generate(&mut session, &[inputs], &config).unwrap();
            assert_eq!(found[0][0].text, *text, "{place}");
        } else {
            let prefix = request.get("prefix").and_then(Value::as_str).unwrap_or_default();
            let config = with_request(generator.fields(), request).config().unwrap();
            let prompt = format!("{prefix}{inputs}");
            let found = generator.generate(&mut session, &[prompt], &config).unwrap().remove(0);
            let added = generator.continuation(&found[0].sequence).unwrap();
            let full = request.get("return_full_text") != Some(&json!(false));
            assert_eq!(if full { format!("{inputs}{added}") } else { added }, *text, "{place}");
        }
        pipelines += 1;
    }
    assert_eq!(calls + pipelines, all.len(), "{name}: every row");
    (calls, pipelines)
}

#[test]
fn generate_equals_transformers() {
    assert_eq!(compare("bart"), (15, 6));
    assert_eq!(compare("t5"), (15, 9));
    assert_eq!(compare("opt"), (21, 3));
    assert_eq!(compare("falcon"), (21, 3));
}

#[test]
fn generate_equals_keras_hub() {
    for name in ["opt_lm", "falcon_lm", "bart_lm"] {
        let dir = fixture(format!("text/keras/{name}"));
        let golden = golden(&dir, "goldens.json");
        let generator = TextGenerator::from_preset(&dir).unwrap();
        let fields = generator
            .fields()
            .clone()
            .with("sampler", "greedy")
            .with("stop_token_ids", golden["stop"].clone());
        let config = fields.with("max_length", golden["max_length"].clone()).config().unwrap();
        let prompts: Vec<String> = serde_json::from_value(golden["prompts"].clone()).unwrap();
        let found = generator.generate(&mut session(), &prompts, &config).unwrap();
        assert_eq!(found.len(), 2, "{name}");
        for (i, (found, prompt)) in found.iter().zip(&prompts).enumerate() {
            assert_eq!(found[0].sequence.ids, ids(&golden["ids"][i]), "{name} {prompt}");
            let before =
                if generator.model().decoder().unwrap().has_encoder() { "" } else { prompt.as_str() };
            assert_eq!(format!("{before}{}", found[0].text), golden["text"][i], "{name} {prompt}");
        }
    }
    // Without a length, the preprocessor's.
    let generator = TextGenerator::from_preset(fixture("text/keras/opt_lm")).unwrap();
    let config = generator.config().unwrap();
    assert_eq!((config.max_length, config.eos_token_ids.len()), (Some(20), 1));
}

/// The fields of transformers that the flags of a case stand for.
fn flags(args: &[Value]) -> Map<String, Value> {
    let pairs = args.chunks(2).map(|pair| {
        let name = pair[0].as_str().unwrap().trim_start_matches("--").replace('-', "_");
        (name, serde_json::from_str(pair[1].as_str().unwrap()).unwrap())
    });
    pairs.collect()
}

#[test]
fn cases_of_generation() {
    let mut compared = BTreeMap::new();
    for entry in std::fs::read_dir(fixture("cases")).unwrap() {
        let dir = entry.unwrap().path();
        let name = dir.file_name().unwrap().to_str().unwrap().to_owned();
        let expected = golden(&dir, "expect.json");
        for check in expected["checks"].as_array().unwrap() {
            let refused = check["task"] == "refuse" && check["command"] == "generate";
            if check["task"] != "generate" && !refused {
                continue;
            }
            let preset = Preset::open(&dir, Access::Map).unwrap();
            let model = Backbone::load(&preset).unwrap();
            let mut session = session();
            if refused {
                let generator = TextGenerator::load_without_tokenizer(&preset, model);
                let message = refusal(&dir, generator.unwrap(), check["args"].as_array().unwrap());
                let naming = check["naming"].as_array().unwrap();
                assert!(
                    naming.iter().any(|word| message.contains(word.as_str().unwrap())),
                    "{name}: {message}"
                );
            } else {
                let generator = TextGenerator::load_without_tokenizer(&preset, model).unwrap();
                let fields = with_request(generator.fields(), &flags(check["args"].as_array().unwrap()));
                let config = fields.config().unwrap();
                let prompt = ids(&check["prompt_ids"]);
                let found = generator.generate_from_ids(&mut session, &[prompt], &config).unwrap().remove(0);
                let right: Vec<Vec<u32>> = serde_json::from_value(check["ids"].clone()).unwrap();
                let found_ids: Vec<Vec<u32>> =
                    found.iter().map(|found| answered(&generator, found)).collect();
                assert_eq!(found_ids, right, "{name}");
                for (found, score) in found.iter().zip(check["scores"].as_array().into_iter().flatten()) {
                    let (found, score) = (f64::from(found.sequence.score.unwrap()), score.as_f64().unwrap());
                    let tolerance = check["score_tolerance"].as_f64().unwrap();
                    assert!((found - score).abs() <= tolerance, "{name}: {found}, {score}");
                }
            }
            *compared.entry(name.clone()).or_insert(0) += 1;
        }
    }
    let names: Vec<&str> = compared.keys().map(|name| &name[..2]).collect();
    assert_eq!(
        names,
        ["16", "17", "18", "19", "20", "21", "22", "23", "34", "35", "36", "37", "52", "56", "57"]
    );
    assert_eq!(compared["37_source_too_long"], 2);
}

/// The error of a generation that must fail: of its configuration or of its prompt.
fn refusal(dir: &Path, without: TextGenerator, args: &[Value]) -> String {
    let mut session = session();
    let value = args[1].as_str().unwrap();
    let found = if args[0] == "--prompt" {
        let generator = TextGenerator::from_preset(dir).unwrap();
        generator.config().and_then(|config| generator.generate(&mut session, &[value], &config))
    } else {
        let prompt: Vec<u32> = value.split(',').map(|id| id.parse().unwrap()).collect();
        without.config().and_then(|config| without.generate_from_ids(&mut session, &[prompt], &config))
    };
    found.unwrap_err().to_string()
}

fn opt() -> TextGenerator {
    TextGenerator::from_preset(fixture("text/generate/opt")).unwrap()
}

fn config(generator: &TextGenerator, fields: Value) -> GenerationConfig {
    with_request(generator.fields(), fields.as_object().unwrap()).config().unwrap()
}

/// The goldens' prompts.
const PROMPTS: [&str; 3] = ["The keeper of the", "ring the bell", "\u{706f}\u{5854}"];

#[test]
fn pieces_are_the_text_and_split_no_character() {
    for name in ["bart", "t5", "opt", "falcon"] {
        let generator = TextGenerator::from_preset(fixture(format!("text/generate/{name}"))).unwrap();
        let mut session = session();
        for fields in [
            json!({ "max_new_tokens": 14 }),
            json!({ "max_new_tokens": 14, "num_beams": 3, "num_return_sequences": 2 }),
            json!({ "max_new_tokens": 14, "do_sample": true, "num_return_sequences": 3, "temperature": 3.0 }),
        ] {
            let config = config(&generator, fields);
            let mut texts: BTreeMap<(usize, usize), (String, Vec<u32>)> = BTreeMap::new();
            let mut stream = generator.stream(&mut session, &PROMPTS, &config).unwrap();
            for piece in stream.by_ref() {
                let piece = piece.unwrap();
                let (text, tokens) = texts.entry((piece.prompt, piece.sequence)).or_default();
                text.push_str(&piece.text);
                tokens.extend(piece.token);
            }
            let found = stream.finish().unwrap();
            assert_eq!(found.iter().map(Vec::len).sum::<usize>(), texts.len(), "{name}");
            for (prompt, found) in found.iter().enumerate() {
                for (sequence, found) in found.iter().enumerate() {
                    let (text, tokens) = &texts[&(prompt, sequence)];
                    assert_eq!((text, &tokens[..]), (&found.text, found.sequence.new_ids()), "{name}");
                }
            }
            assert_eq!(generator.generate(&mut session, &PROMPTS, &config).unwrap(), found, "{name}");
            // A callback gets the same pieces, and may end the generation.
            let mut left = 5;
            let cut = generator.stream(&mut session, &PROMPTS, &config).unwrap().run(|_| {
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            for (cut, whole) in cut.unwrap().iter().flatten().zip(found.iter().flatten()) {
                assert!(whole.sequence.ids.starts_with(&cut.sequence.ids), "{name}");
            }
        }
    }
}

#[test]
fn a_prompt_shares_nothing_with_the_others() {
    let generator = opt();
    let mut session = session();
    for fields in [
        json!({ "max_new_tokens": 9, "stop_strings": ["no", "of"] }),
        json!({ "max_new_tokens": 9, "num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0 }),
        json!({ "max_new_tokens": 9, "do_sample": true, "num_beams": 3, "seed": 5 }),
        json!({ "max_new_tokens": 9, "do_sample": true, "min_p": 0.01, "encoder_no_repeat_ngram_size": 1 }),
        json!({ "max_new_tokens": 9, "penalty_alpha": 0.6, "top_k": 4, "encoder_repetition_penalty": 1.5 }),
    ] {
        let config = config(&generator, fields.clone());
        let together = generator.generate(&mut session, &PROMPTS, &config).unwrap();
        for (prompt, together) in PROMPTS.iter().zip(&together) {
            let alone = generator.generate(&mut session, &[prompt], &config).unwrap().remove(0);
            assert_eq!(alone, *together, "{fields}");
        }
    }
}

/// Every string of the text ends it with the token that completes it.
#[test]
fn stop_strings_end_a_text_anywhere() {
    for name in ["bart", "t5", "opt"] {
        let generator = TextGenerator::from_preset(fixture(format!("text/generate/{name}"))).unwrap();
        let mut session = session();
        let whole = config(&generator, json!({ "max_new_tokens": 9 }));
        let whole = generator.generate(&mut session, &PROMPTS[..1], &whole).unwrap().remove(0).remove(0);
        // Special tokens are part of the text for stop strings.
        let spelled = |ids: &[u32]| {
            generator.tokenizer().unwrap().decode(ids, rachis_text::SpecialTokens::With).unwrap()
        };
        let characters: Vec<char> = spelled(whole.sequence.new_ids()).chars().collect();
        let mut stopped = 0;
        for length in 1..=3 {
            for string in characters.windows(length) {
                let string: String = string.iter().collect();
                let config = config(&generator, json!({ "max_new_tokens": 9, "stop_strings": string }));
                let found = generator.generate(&mut session, &PROMPTS[..1], &config).unwrap();
                let found = &found[0][0];
                let new = found.sequence.new_ids();
                assert!(spelled(new).contains(&string), "{name} {string:?}: {found:?}");
                assert!(whole.sequence.ids.starts_with(&found.sequence.ids), "{name}");
                // Without the last token the string is not there.
                let earlier = spelled(&new[..new.len() - 1]);
                assert!(!earlier.contains(&string), "{name} {string:?}: {found:?}");
                stopped += usize::from(found.sequence.ids.len() < whole.sequence.ids.len());
            }
        }
        assert!(stopped > 5, "{name}: only {stopped} texts ended early");
    }
}

#[test]
fn log_probabilities_are_those_of_the_choice() {
    let generator = opt();
    let mut session = session();
    let mut of = |fields: Value| {
        let mut config = config(&generator, fields);
        config.log_probabilities = LogProbabilities::Chosen;
        generator.generate(&mut session, &PROMPTS[..1], &config).unwrap().remove(0).remove(0)
    };
    let beams = of(json!({ "max_new_tokens": 6, "num_beams": 3, "length_penalty": 0.0 }));
    let sum: f32 = beams.sequence.log_probabilities.iter().sum();
    assert!((sum - beams.sequence.score.unwrap()).abs() < 1e-5);
    // The best of three beams is the greedy choice here, so its log-probabilities are the same.
    let greedy = of(json!({ "max_new_tokens": 6 }));
    assert_eq!(greedy.sequence.ids, beams.sequence.ids);
    for (a, b) in greedy.sequence.log_probabilities.iter().zip(&beams.sequence.log_probabilities) {
        assert!((a - b).abs() < 1e-5);
    }
    assert_eq!(greedy.sequence.log_probabilities.len(), 6);
    // With one candidate the choice is certain.
    let certain = of(json!({ "max_new_tokens": 6, "do_sample": true, "top_k": 1 }));
    assert_eq!(
        (certain.sequence.ids, certain.sequence.log_probabilities),
        (greedy.sequence.ids, vec![0.0; 6])
    );
    let skipped = config(&generator, json!({ "max_new_tokens": 6 }));
    let skipped = generator.generate(&mut session, &PROMPTS[..1], &skipped).unwrap();
    assert!(skipped[0][0].sequence.log_probabilities.is_empty());
}

/// A directory with the files of another, some of them replaced.
fn directory(name: &str, files: &[(&str, Value)]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(name)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    for (file, value) in files {
        std::fs::write(dir.path().join(file), value.to_string()).unwrap();
    }
    let path = dir.path().to_owned();
    (dir, path)
}

#[test]
fn a_source_is_cut_only_where_the_tokenizer_says_so() {
    let long = "ring the bell ".repeat(40);
    let run = |limit: Value| {
        let settings = json!({ "tokenizer_class": "BartTokenizer", "model_max_length": limit });
        let (_dir, path) = directory("text/generate/bart", &[("tokenizer_config.json", settings)]);
        let generator = TextGenerator::from_preset(path).unwrap();
        let config = config(&generator, json!({ "max_new_tokens": 5 }));
        let ids = generator.encode(&long).unwrap();
        (ids.len(), generator.generate(&mut session(), &[&long], &config).map_err(|error| error.to_string()))
    };
    let (length, found) = run(json!(64));
    assert!(length == 64 && found.is_ok());
    let (length, found) = run(json!(null));
    assert!(length > 64);
    let message = found.unwrap_err();
    assert!(message.contains(&length.to_string()) && message.contains("64"), "{message}");
    assert!(run(json!(1e30)).1.is_err());
}

#[test]
fn malformed_files_are_named() {
    for (file, content, part) in [
        ("generation_config.json", json!([]), "generation_config.json"),
        ("generation_config.json", json!({ "num_beams": "two" }), "generation_config.json"),
        ("generation_config.json", json!({ "bad_words_ids": [[400]] }), "bad_words_ids"),
        ("generation_config.json", json!({ "watermarking_config": {} }), "watermarking_config"),
        ("generation_config.json", json!({ "stop_strings": [3] }), "stop_strings"),
    ] {
        let (_dir, path) = directory("text/generate/opt", &[(file, content.clone())]);
        let run = || {
            let generator = TextGenerator::from_preset(path)?;
            generator.generate(&mut session(), &["ring"], &generator.config()?)
        };
        let message = run().unwrap_err().to_string();
        assert!(message.contains(part) && message.lines().count() == 1 && message.len() < 600, "{message}");
    }
    let preset = Preset::open(fixture("text/classify/single"), Access::Map).unwrap();
    let bert = TextGenerator::load_without_tokenizer(&preset, Backbone::load(&preset).unwrap());
    assert!(bert.unwrap_err().to_string().starts_with("generate needs a model with a decoder"));
    for (value, part) in [(json!("x"), "encoder_sequence_length"), (json!(1), "max_length")] {
        let layer = json!({ "class_name": "BartSeq2SeqLMPreprocessor", "config": { "encoder_sequence_length": value } });
        let (_dir, path) = directory("text/keras/bart_lm", &[("preprocessor.json", layer)]);
        let assets = fixture("text/keras/bart_lm/assets/tokenizer");
        std::fs::create_dir_all(path.join("assets/tokenizer")).unwrap();
        for file in ["vocabulary.json", "merges.txt"] {
            std::fs::copy(assets.join(file), path.join("assets/tokenizer").join(file)).unwrap();
        }
        let encoded = TextGenerator::from_preset(path).and_then(|generator| generator.encode("the keeper"));
        let message = encoded.unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn requests_that_do_not_fit_are_errors() {
    let generator = opt();
    let mut session = session();
    let mut refused = |prompts: &[&str], fields: Value| {
        let found = with_request(generator.fields(), fields.as_object().unwrap())
            .config()
            .map_err(Into::into)
            .and_then(|config| generator.generate(&mut session, prompts, &config));
        found.unwrap_err().to_string()
    };
    let long = "a ".repeat(200);
    for (prompts, fields, part) in [
        (&["ring"][..], json!({ "max_new_tokens": 1000 }), "maximum length"),
        (&[&long], json!({ "max_new_tokens": 2 }), "maximum length"),
        (&[], json!({}), "batch"),
        (&["ring"], json!({ "num_return_sequences": 2 }), "num_return_sequences"),
        (&["ring"], json!({ "num_beams": 1_000_000_000 }), "num_beams"),
        (&["ring"], json!({ "temperature": -1.0, "do_sample": true }), "temperature"),
        (&["ring"], json!({ "sequence_bias": [[[400], 1.0]] }), "sequence_bias"),
        (&["ring"], json!({ "guidance_scale": 2.0 }), "guidance_scale"),
    ] {
        let message = refused(prompts, fields.clone());
        assert!(message.contains(part) && message.lines().count() == 1, "{fields}: {message}");
    }
    let preset = Preset::open(fixture("text/generate/opt"), Access::Map).unwrap();
    let ids_alone = TextGenerator::load_without_tokenizer(&preset, Backbone::load(&preset).unwrap()).unwrap();
    let config = config(&generator, json!({ "max_new_tokens": 3 }));
    assert!(
        ids_alone
            .generate(&mut session, &["ring"], &config)
            .unwrap_err()
            .to_string()
            .contains("no tokenizer")
    );
    let found = ids_alone.generate_from_ids(&mut session, &[[2, 7]], &config).unwrap();
    assert_eq!((found[0][0].text.as_str(), found[0][0].sequence.new_ids().len()), ("", 3));
    let mut stops = config.clone();
    stops.stop_strings = vec!["no".to_owned()];
    let error = ids_alone.generate_from_ids(&mut session, &[[2, 7]], &stops).unwrap_err();
    assert!(error.to_string().contains("stop_strings"));
    assert!(opt().with_task("sumarization").unwrap_err().to_string().contains("sumarization"));
}

#[test]
fn a_generator_is_shared_by_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    let generator = opt();
    shared(&generator);
    let config = config(&generator, json!({ "max_new_tokens": 5 }));
    let expected = generator.generate(&mut session(), &PROMPTS, &config).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                assert_eq!(generator.generate(&mut session(), &PROMPTS, &config).unwrap(), expected)
            });
        }
    });
}
