//! Generation compared with the reference libraries (greedy and beam search, with and without end tokens and logits
//! processors), and properties of every strategy.

use core::ops::ControlFlow;

use rachis::generation::{
    BeamRule, BeamSearch, Continuations, ContrastiveSearch, EarlyStopping, Filters, Generated,
    GenerationConfig, GenerationInputs, KerasSampler, Progress, Sampler, Strategy, Watcher, generate,
};
use rachis::kernels::{Ctx, Level};
use rachis::{Backbone, Decoder, Session, Tokens};
use rachis_testkit::for_each_level;
use rachis_testkit::goldens::fixture;
use serde_json::Value;

fn model(name: &str) -> Backbone {
    Backbone::from_preset(fixture(format!("{name}/hf"))).unwrap()
}

fn golden(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture(path)).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_i64().unwrap()).unwrap()).collect()
}

fn optional(value: &Value) -> Option<u32> {
    value.as_u64().map(|id| u32::try_from(id).unwrap())
}

/// A padded batch of prompts or sources.
struct Inputs {
    ids: Vec<u32>,
    mask: Vec<u8>,
    shape: (usize, usize),
}

impl Inputs {
    fn of(golden: &Value) -> Inputs {
        let rows: Vec<Vec<u32>> = golden["input_ids"].as_array().unwrap().iter().map(ids).collect();
        let mask: Vec<Vec<u32>> = golden["attention_mask"].as_array().unwrap().iter().map(ids).collect();
        let shape = (rows.len(), rows[0].len());
        let mask = mask.concat().into_iter().map(|x| u8::try_from(x).unwrap()).collect();
        Inputs { ids: rows.concat(), mask, shape }
    }

    fn generation(&self) -> GenerationInputs<'_> {
        let tokens = Tokens::with_mask(&self.ids, self.shape.0, self.shape.1, &self.mask);
        GenerationInputs { tokens, decoder_prompt: None }
    }

    /// Row `i` without its padding.
    fn row(&self, i: usize) -> Vec<u32> {
        let range = i * self.shape.1..(i + 1) * self.shape.1;
        let row = self.ids[range.clone()].iter().zip(&self.mask[range]);
        row.filter(|(_, mask)| **mask == 1).map(|(id, _)| *id).collect()
    }
}

/// The configuration of a run of transformers.
fn config(golden: &Value, args: &Value) -> GenerationConfig {
    let strategy = match args["num_beams"].as_u64() {
        None => Sampler::greedy().into(),
        Some(num_beams) => BeamSearch::new(num_beams as usize)
            .with_rule(BeamRule::HuggingFace {
                length_penalty: args["length_penalty"].as_f64().unwrap() as f32,
                early_stopping: match args["early_stopping"].as_bool().unwrap() {
                    true => EarlyStopping::True,
                    false => EarlyStopping::False,
                },
            })
            .into(),
    };
    let mut config = GenerationConfig::default();
    config.max_new_tokens = Some(golden["max_new_tokens"].as_u64().unwrap() as usize);
    config.min_new_tokens = args["min_new_tokens"].as_u64().map(|n| n as usize);
    config.strategy = strategy;
    config.num_return_sequences = args["num_return_sequences"].as_u64().unwrap_or(1) as usize;
    config.no_repeat_ngram_size = args["no_repeat_ngram_size"].as_u64().unwrap_or(0) as usize;
    config.forced_bos_token_id = optional(&args["forced_bos_token_id"]);
    config.forced_eos_token_ids = optional(&args["forced_eos_token_id"]).into_iter().collect();
    config.eos_token_ids = optional(&args["eos_token_id"]).into_iter().collect();
    config.decoder_start_token_id = optional(&args["decoder_start_token_id"]);
    config
}

fn run(
    model: &dyn Decoder,
    ctx: Ctx<'_>,
    inputs: GenerationInputs<'_>,
    config: &GenerationConfig,
    watch: Option<Watcher<'_>>,
) -> Vec<Vec<Generated>> {
    generate(model, &mut Session::new(ctx), inputs, config, watch).unwrap()
}

/// Repeats every run of a model's golden file at every level.
fn compare(name: &str, runs: usize) {
    let (backbone, golden) = (model(name), golden(&format!("{name}/generation.json")));
    let model = backbone.decoder().unwrap();
    let inputs = Inputs::of(&golden["inputs"]);
    let all = golden["runs"].as_object().unwrap();
    assert_eq!(all.len(), runs, "{name}");
    for_each_level(Level::supported(), |level| {
        for (run_name, expected) in all {
            let args = &expected["args"];
            let config = config(&golden, args);
            let found = run(model, Ctx::new(level).unwrap(), inputs.generation(), &config, None);
            let place = format!("{level} {name} {run_name}");
            let found: Vec<(usize, &Generated)> =
                (0..).zip(&found).flat_map(|(i, row)| row.iter().map(move |f| (i, f))).collect();
            let sequences = expected["sequences"].as_array().unwrap();
            assert_eq!(found.len(), sequences.len(), "{place}");
            let filler = match args["num_beams"].as_u64() {
                // transformers' beam search treats a padding token 0 as absent.
                Some(_) => optional(&args["pad_token_id"])
                    .filter(|pad| *pad != 0)
                    .or(optional(&args["eos_token_id"])),
                None => optional(&args["pad_token_id"]),
            };
            for (i, ((row, found), sequence)) in found.iter().zip(sequences).enumerate() {
                let mut expected_ids = ids(sequence);
                if !model.has_encoder() {
                    // The golden sequence starts with the padding to the left of the prompt.
                    expected_ids.drain(..inputs.shape.1 - inputs.row(*row).len());
                }
                assert_eq!(found.ids, expected_ids[..found.ids.len()], "{place}: sequence {i}");
                let rest = &expected_ids[found.ids.len()..];
                assert!(rest.iter().all(|id| Some(*id) == filler), "{place}: sequence {i} ends early");
                if let Some(scores) = expected.get("sequences_scores_f64") {
                    let (found, expected) = (f64::from(found.score.unwrap()), scores[i].as_f64().unwrap());
                    assert!((found - expected).abs() < 1e-5, "{place}: score {found} of {expected}");
                }
            }
        }
        println!("{level} {name}: {runs} runs");
    });
}

macro_rules! compare {
    ($($name:ident: $runs:literal,)*) => {
        $(#[test]
        fn $name() {
            compare(stringify!($name), $runs);
        })*
    };
}

compare! {
    opt_pre: 5,
    opt_350m_style: 5,
    opt_nobias: 5,
    bart_sym: 7,
    bart_asym_scaled: 7,
    t5_relu_tied: 6,
    t5_gated_untied: 6,
    t5_asym_buckets: 6,
    falcon_rw: 5,
    falcon_rw_bf16slopes: 5,
    falcon_7b_style: 5,
    falcon_40b_style: 5,
    falcon_11b_style: 5,
    falcon_mha_rotary_bias: 5,
}

/// Compares with KerasHub's samplers on the same weights, for models on which the two libraries agree.
fn compare_with_keras(directory: &str) {
    let backbone = Backbone::from_preset(fixture(directory)).unwrap();
    let model = backbone.decoder().unwrap();
    let causal = !model.has_encoder();
    let name = directory.split('/').next().unwrap();
    let golden = golden(&format!("{name}/keras_generation.json"));
    let rows =
        |key: &str| -> Vec<Vec<u32>> { golden["inputs"][key].as_array().unwrap().iter().map(ids).collect() };
    let (ids_name, mask_name) =
        if causal { ("token_ids", "padding_mask") } else { ("encoder_token_ids", "encoder_padding_mask") };
    let mask: Vec<u8> = rows(mask_name).concat().into_iter().map(|x| u8::try_from(x).unwrap()).collect();
    let inputs = Inputs { shape: (2, rows(ids_name)[0].len()), ids: rows(ids_name).concat(), mask };
    let length = if causal { inputs.shape.1 } else { rows("decoder_token_ids")[0].len() };
    let shortest = (0..2).map(|i| inputs.row(i).len()).min().unwrap();
    for (run_name, expected) in golden["runs"].as_object().unwrap() {
        let stop = expected["stop_token_ids"].as_array().map(|all| ids(&Value::Array(all.clone())));
        let beams = run_name.starts_with("beam");
        let mut config = GenerationConfig::default();
        config.max_length = Some(length);
        config.decoder_start_token_id = (!causal).then(|| rows("decoder_token_ids")[0][0]);
        config.eos_token_ids = stop.clone().unwrap_or_default();
        if beams {
            config.strategy = BeamSearch::keras(4).into();
            config.num_return_sequences = 4;
        } else {
            config.strategy = KerasSampler::Greedy.into();
        }
        let found = run(model, Ctx::from_env().unwrap(), inputs.generation(), &config, None);
        for (i, found) in found.iter().enumerate() {
            let place = format!("{directory} {run_name} row {i}");
            if !beams {
                let expected = ids(&expected["ids"][i]);
                assert_eq!(found[0].ids, expected[..found[0].ids.len()], "{place}");
                let ended = stop.as_ref().is_some_and(|stop| stop.contains(found[0].ids.last().unwrap()));
                assert!(ended || found[0].ids.len() == length, "{place}");
            } else if stop.is_none() && (!causal || inputs.row(i).len() == shortest) {
                // KerasHub's scores include the log-probabilities of a longer prompt's tokens, and it stops only when
                // all prompts of the batch have end tokens.
                for (j, found) in found.iter().enumerate() {
                    assert_eq!(found.ids, ids(&expected["all_beams_sorted"][i][j]), "{place} beam {j}");
                    let score = expected["all_beams_log_prob"][i][j].as_f64().unwrap();
                    assert!((f64::from(found.score.unwrap()) - score).abs() < 6e-5, "{place} beam {j}");
                }
            }
        }
    }
}

#[test]
fn keras_samplers() {
    compare_with_keras("opt_pre/hf");
    compare_with_keras("falcon_rw/hf");
    // These weights lack the bias of the logits, which KerasHub does not have.
    compare_with_keras("bart_sym/hf_bare");
    compare_with_keras("t5_relu_tied/hf");
}

/// One strategy of each kind, and the number of sequences that it returns for each prompt.
fn strategies() -> Vec<(Strategy, usize)> {
    let sampler = |sampler: Sampler| Strategy::Sample(sampler.with_seed(9).with_temperature(1.3));
    let beams = |continuations| BeamSearch::new(6).with_continuations(continuations).into();
    vec![
        (Sampler::greedy().into(), 1),
        (sampler(Sampler::random()), 3),
        (sampler(Sampler::top_k(5)), 2),
        (sampler(Sampler::top_p(0.7)), 2),
        (sampler(Sampler::filtered(Filters::new().with_top_k(20).with_top_p(0.9))), 2),
        (BeamSearch::new(3).into(), 3),
        (BeamSearch::keras(3).into(), 3),
        (beams(Continuations::Diverse { groups: 3, penalty: 0.7 }), 4),
        (beams(Continuations::Drawn { temperature: 1.3, filters: Filters::new().with_top_k(9), seed: 4 }), 4),
        (ContrastiveSearch::new(4, 0.6).into(), 1),
    ]
}

/// One model of each family, and prompts of different lengths.
fn families() -> Vec<(Backbone, Vec<Vec<u32>>)> {
    let prompts = vec![vec![72, 31, 8, 84, 17, 60, 15], vec![5], vec![34, 51, 94, 50], vec![12, 12]];
    ["opt_pre", "falcon_40b_style", "falcon_rw", "bart_sym", "t5_gated_untied"]
        .iter()
        .map(|name| (model(name), prompts.clone()))
        .collect()
}

fn settings(strategy: Strategy, num_return_sequences: usize) -> GenerationConfig {
    let mut config = GenerationConfig::default();
    config.max_new_tokens = Some(10);
    config.strategy = strategy;
    config.num_return_sequences = num_return_sequences;
    config.eos_token_ids = vec![13, 66];
    config.decoder_start_token_id = Some(2);
    config
}

fn ragged(prompts: &[Vec<u32>]) -> (Vec<u32>, Vec<usize>) {
    (prompts.concat(), prompts.iter().map(Vec::len).collect())
}

#[test]
fn results_do_not_depend_on_the_batch_or_threads() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    for (backbone, prompts) in families() {
        let model = backbone.decoder().unwrap();
        for (strategy, count) in strategies() {
            let config = settings(strategy, count);
            let ctx = Ctx::from_env().unwrap();
            let of = |ctx, prompts: &[Vec<u32>]| {
                let (ids, lengths) = ragged(prompts);
                let inputs =
                    GenerationInputs { tokens: Tokens::ragged(&ids, &lengths), decoder_prompt: None };
                run(model, ctx, inputs, &config, None)
            };
            let together = of(ctx, &prompts);
            let place = format!("{} {strategy:?}", backbone.name());
            for (prompt, together) in prompts.iter().zip(&together) {
                assert_eq!(of(ctx, std::slice::from_ref(prompt))[0], *together, "{place}");
            }
            assert_eq!(of(ctx.with_pool(Some(&pool)), &prompts), together, "{place}, two threads");
            for (prompt, found) in prompts.iter().zip(&together) {
                assert_eq!(found.len(), count, "{place}");
                let begin = if model.has_encoder() { vec![2] } else { prompt.clone() };
                for found in found {
                    assert_eq!(found.ids[..found.prompt_len], begin, "{place}");
                    let new = found.new_ids();
                    let ends = new.iter().position(|id| [13, 66].contains(id));
                    assert!(!new.is_empty() && new.len() <= 10, "{place}");
                    assert!(
                        ends.is_none_or(|at| at + 1 == new.len()),
                        "{place}: no token follows an end token"
                    );
                    assert!(ends.is_some() || new.len() == 10, "{place}: ends without an end token");
                }
            }
        }
    }
}

#[test]
fn random_sequences_differ_and_are_repeated_by_their_seed() {
    let (backbone, prompts) = families().remove(0);
    let model = backbone.decoder().unwrap();
    let inputs =
        GenerationInputs { tokens: Tokens::padded(&prompts[0], 1, prompts[0].len()), decoder_prompt: None };
    let of = |seed| {
        let sampler = Sampler::random().with_seed(seed).with_temperature(2.0);
        run(model, Ctx::from_env().unwrap(), inputs, &settings(sampler.into(), 4), None).remove(0)
    };
    let found = of(1);
    assert!((1..4).all(|i| found[i].ids != found[0].ids));
    assert_eq!(of(1), found);
    assert_ne!(of(2), found);
}

#[test]
fn a_watcher_gets_every_token_and_can_stop_generation() {
    for (backbone, prompts) in families() {
        let model = backbone.decoder().unwrap();
        let (ids, lengths) = ragged(&prompts);
        let inputs = GenerationInputs { tokens: Tokens::ragged(&ids, &lengths), decoder_prompt: None };
        for (strategy, count) in strategies() {
            let config = settings(strategy, count);
            let place = format!("{} {strategy:?}", backbone.name());
            let mut seen = vec![vec![Vec::new(); count]; prompts.len()];
            let mut watch = |progress| {
                if let Progress::Token { prompt, sequence, token } = progress {
                    seen[prompt][sequence].push(token);
                }
                ControlFlow::Continue(())
            };
            let all = run(model, Ctx::from_env().unwrap(), inputs, &config, Some(&mut watch));
            for (found, seen) in all.iter().flatten().zip(seen.iter().flatten()) {
                assert_eq!(found.new_ids(), seen, "{place}");
            }
            let mut left = 5;
            let mut stop = |_| {
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let cut = run(model, Ctx::from_env().unwrap(), inputs, &config, Some(&mut stop));
            if !matches!(strategy, Strategy::Beam(_)) {
                let tokens: usize = cut.iter().flatten().map(|found| found.new_ids().len()).sum();
                assert_eq!(tokens, 5, "{place}");
                for (cut, all) in cut.iter().flatten().zip(all.iter().flatten()) {
                    assert!(all.ids.starts_with(&cut.ids), "{place}");
                }
            } else {
                assert!(cut.iter().flatten().all(|found| found.new_ids().len() <= 6), "{place}");
            }
        }
    }
}

#[test]
fn invalid_inputs_are_errors() {
    let refused = |name: &str, inputs: GenerationInputs<'_>, change: &dyn Fn(&mut GenerationConfig)| {
        let backbone = model(name);
        let mut config = settings(Sampler::greedy().into(), 1);
        change(&mut config);
        let mut session = Session::new(Ctx::from_env().unwrap());
        generate(backbone.decoder().unwrap(), &mut session, inputs, &config, None).unwrap_err().to_string()
    };
    let tokens = Tokens::padded(&[5, 6, 7], 1, 3);
    let inputs = GenerationInputs { tokens, decoder_prompt: None };
    let prompted = GenerationInputs { tokens, decoder_prompt: Some(&[5]) };
    assert!(refused("opt_pre", prompted, &|_| ()).contains("no encoder"));
    assert!(
        refused("bart_sym", inputs, &|c| c.decoder_start_token_id = None).contains("decoder_start_token_id")
    );
    assert!(refused("opt_pre", inputs, &|c| c.max_new_tokens = Some(1000)).contains("maximum length"));
    assert!(
        refused("opt_pre", inputs, &|c| (c.max_new_tokens, c.max_length) = (None, Some(3)))
            .contains("prompt")
    );
    assert!(refused("opt_pre", inputs, &|c| c.bad_words_ids = vec![vec![97]]).contains("bad_words_ids"));
    assert!(refused("opt_pre", inputs, &|c| c.stop_strings = vec!["x".to_owned()]).contains("stop_strings"));
    assert!(
        refused("bart_sym", inputs, &|c| c.decoder_start_token_id = Some(500))
            .contains("decoder_start_token_id")
    );
    assert!(refused("falcon_rw", inputs, &|c| c.max_new_tokens = Some(1 << 22)).contains("capacity"));
    let unknown = GenerationInputs { tokens: Tokens::padded(&[97], 1, 1), decoder_prompt: None };
    assert!(refused("falcon_rw", unknown, &|_| ()).contains("token id"));
    let huge = GenerationInputs { tokens: Tokens::padded(&[], usize::MAX, 0), decoder_prompt: None };
    assert!(refused("bart_sym", huge, &|_| ()).contains("number of real tokens of sequence 0 is 0"));
    let empty = GenerationInputs { tokens: Tokens::ragged(&[], &[]), decoder_prompt: None };
    assert!(refused("bart_sym", empty, &|_| ()).contains("batch"));
}
