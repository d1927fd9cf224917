//! Directories of classifying tasks whose files are changed: each is refused by one line that names the file, or means
//! what the reference library makes of it.

use std::path::Path;

use rachis_testkit::goldens::fixture;
use rachis_text::rachis::{Ctx, Session};
use rachis_text::{
    AnswerOptions, ClassifyOptions, Error, FillMask, QuestionAnswerer, Result, TextClassifier,
    TokenClassifier, ZeroShotOptions,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A copy of a directory of fixtures, whose file `name` is changed.
fn changed(directory: &str, name: &str, change: impl FnOnce(&mut Value)) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture(directory), dir.path());
    let path = dir.path().join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    change(&mut json);
    std::fs::write(path, json.to_string()).unwrap();
    dir
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            std::fs::write(to, std::fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

#[track_caller]
fn refused<T>(result: Result<T>, part: &str) {
    let Err(error) = result else { panic!("accepted, expected {part}") };
    let message = error.to_string();
    assert!(message.contains(part) && message.lines().count() == 1 && message.len() < 400, "{message}");
}

#[test]
fn labels_that_do_not_fit_are_refused() {
    let long = "x".repeat(10_000);
    for (field, value, part) in [
        ("id2label", json!({"0": "a", "1": "b"}), "config.json: id2label has 2 labels, expected 3"),
        ("id2label", json!({"0": "a", "1": "b", "3": "c"}), "config.json: id2label is not"),
        ("id2label", json!({"0": "a", "1": "b", "two": "c"}), "config.json: id2label is not"),
        ("id2label", json!({"0": "a", "1": "b", "2": 7}), "config.json: id2label is not"),
        ("id2label", json!(["a", "b", "c"]), "config.json: id2label is not"),
        ("label2id", json!({"entailment": 3}), "config.json: label2id has 3 for \"entailment\""),
        ("label2id", json!({"Entail\n": "a"}), "config.json: label2id has \\\"a\\\" for"),
        ("label2id", json!([1]), "config.json: label2id is not"),
        ("problem_type", json!("ranking"), "config.json: problem_type is"),
        ("problem_type", json!(long), "config.json: problem_type is"),
        ("problem_type", json!(1), "config.json: problem_type is"),
    ] {
        let dir = changed("text/classify/single", "config.json", |config| config[field] = value);
        refused(TextClassifier::from_preset(dir.path()), &part.replace("\\\"a\\\"", "\"a\""));
    }
    let single = json!("single_label_classification");
    let dir = changed("text/classify/one_label", "config.json", |config| config["problem_type"] = single);
    refused(TextClassifier::from_preset(dir.path()), "problem_type is");
    let dir = changed("text/classify/tag_cased", "config.json", |config| config["id2label"] = json!({}));
    refused(TokenClassifier::from_preset(dir.path()), "id2label has 0 labels, expected 5");
}

#[test]
fn labels_without_names_are_numbered() {
    let dir = changed("text/classify/single", "config.json", |config| {
        let fields = config.as_object_mut().unwrap();
        fields.remove("id2label");
        fields.remove("label2id");
    });
    let classifier = TextClassifier::from_preset(dir.path()).unwrap();
    assert_eq!(classifier.labels(), ["LABEL_0", "LABEL_1", "LABEL_2"]);
}

/// Without a label for entailment the last one counts, as in the pipeline.
#[test]
fn the_label_of_entailment() {
    let scores = |change: &dyn Fn(&mut Value)| {
        let dir = changed("text/classify/zero_shot_bert", "config.json", change);
        let classifier = TextClassifier::from_preset(dir.path()).unwrap();
        let mut session = Session::new(Ctx::detect());
        let labels = ["weather", "the sea"];
        let options = ZeroShotOptions::new();
        classifier.classify_zero_shot(&mut session, &["Fog."], &labels, &options).unwrap()[0].scores.clone()
    };
    let first = scores(&|_| {});
    let last = scores(&|config| config["label2id"] = json!({"yes": 0, "neutral": 1, "no": 2}));
    assert_ne!(first, last);
    assert_eq!(scores(&|config| config["label2id"] = json!({"Entailed": 2})), last);
    assert_eq!(scores(&|config| drop(config.as_object_mut().unwrap().remove("label2id"))), first);
}

/// Of the two classifiers of BERT, files without a pooler have that of tokens.
#[test]
fn classifiers_without_a_class() {
    let without = |config: &mut Value| drop(config.as_object_mut().unwrap().remove("architectures"));
    let tags = changed("text/classify/tag_cased", "config.json", without);
    TokenClassifier::from_preset(tags.path()).unwrap();
    let single = changed("text/classify/single", "config.json", without);
    TextClassifier::from_preset(single.path()).unwrap();
    let named = |config: &mut Value| config["architectures"] = json!(["BertForTokenClassification"]);
    let named = changed("text/classify/single", "config.json", named);
    TokenClassifier::from_preset(named.path()).unwrap();
    refused(TextClassifier::from_preset(named.path()), "classify needs a BERT or a BART with a classifier");
}

#[test]
fn other_models_are_refused() {
    for directory in ["text/embed/plain", "text/embed/sentence_t5", "text/generate/opt"] {
        let dir = fixture(directory);
        refused(TextClassifier::from_preset(&dir), "classify needs");
        refused(TokenClassifier::from_preset(&dir), "ner needs");
        refused(QuestionAnswerer::from_preset(&dir), "answer needs");
        refused(FillMask::from_preset(&dir), "fill-mask needs");
    }
    refused(TextClassifier::from_preset("no/such/directory"), "no/such/directory");
    let dir = changed("text/classify/fill_mask", "tokenizer_config.json", |config| {
        config["mask_token"] = Value::Null
    });
    refused(FillMask::from_preset(dir.path()), "fill-mask needs a tokenizer with a mask token");
}

#[test]
fn keras_tasks_that_are_not_implemented_are_refused() {
    let with = |change: &dyn Fn(&mut Value)| {
        let dir = changed("text/keras/classifier", "task.json", change);
        TextClassifier::from_preset(dir.path())
    };
    refused(with(&|task| task["class_name"] = json!("BertOther")), "task.json: class_name is \"BertOther\"");
    refused(with(&|task| task["config"]["activation"] = json!("tanh")), "task.json: activation is");
    for (field, value) in
        [("sequence_length", json!(2)), ("sequence_length", json!("a")), ("truncate", json!("left"))]
    {
        let part = format!("task.json: {field} is");
        refused(with(&|task| task["config"]["preprocessor"]["config"][field] = value.clone()), &part);
    }
    with(&|task| task["config"]["activation"] = Value::Null).unwrap();
    // The preprocessor may be in its own file alone.
    with(&|task| task["config"]["preprocessor"] = Value::Null).unwrap();

    let dir = changed("text/keras/classifier", "task.json", |_| {});
    std::fs::remove_file(dir.path().join("task.weights.h5")).unwrap();
    refused(TextClassifier::from_preset(dir.path()), "classify needs");
    std::fs::write(dir.path().join("task.weights.h5"), "no HDF5").unwrap();
    refused(TextClassifier::from_preset(dir.path()), "task.weights.h5");
}

/// A text that no window can hold, and one that is too long for the model.
#[test]
fn texts_that_are_too_long_are_refused() {
    let classifier = TextClassifier::from_preset(fixture("text/classify/single")).unwrap();
    let mut session = Session::new(Ctx::detect());
    let long = "word ".repeat(1000);
    let error = classifier.classify(&mut session, &[long.as_str()], ClassifyOptions::new()).unwrap_err();
    assert!(matches!(error, Error::Model(_)), "{error}");
    // The session stays usable.
    classifier.classify(&mut session, &["a word"], ClassifyOptions::new()).unwrap();
}

/// BART's classifier reads the state at the end token, which a text may lack.
#[test]
fn a_text_without_an_end_token_is_refused() {
    let dir = changed("text/classify/bart", "config.json", |config| config["eos_token_id"] = json!(400));
    let classifier = TextClassifier::from_preset(dir.path()).unwrap();
    let mut session = Session::new(Ctx::detect());
    refused(classifier.classify(&mut session, &["a"], ClassifyOptions::new()), "without the end token 400");
}

/// Threads share a task; each has its own session.
#[test]
fn tasks_are_shared_by_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<TextClassifier>();
    shared::<TokenClassifier>();
    shared::<QuestionAnswerer>();
    shared::<FillMask>();
}

/// A hypothesis that leaves no room for the text is not cut: the pipeline gives the pair to the model as it is.
#[test]
fn long_hypotheses_are_not_cut() {
    let limit = |config: &mut Value| config["model_max_length"] = json!(12);
    let dir = changed("text/classify/zero_shot_bert", "tokenizer_config.json", limit);
    let classifier = TextClassifier::from_preset(dir.path()).unwrap();
    let whole = TextClassifier::from_preset(fixture("text/classify/zero_shot_bert")).unwrap();
    let mut session = Session::new(Ctx::detect());
    let labels = ["the bell of the lighthouse of the bay of the island", "the sea"];
    let mut scores = |classifier: &TextClassifier, text: &str, label: &str| {
        let options = ZeroShotOptions::new().with_hypothesis_template("{}");
        classifier.classify_zero_shot(&mut session, &[text], &[label], &options).unwrap()[0].scores[0]
    };
    assert_eq!(scores(&classifier, "Fog.", labels[0]), scores(&whole, "Fog.", labels[0]));
    let long = "Fog comes in from the north: ring the bell every 2 minutes.";
    assert_ne!(scores(&classifier, long, labels[1]), scores(&whole, long, labels[1]));
}

/// A tokenizer that pads on the left puts the context first.
#[test]
fn contexts_before_their_questions() {
    let left = |config: &mut Value| config["padding_side"] = json!("left");
    let dir = changed("text/answer/bert", "tokenizer_config.json", left);
    let answerer = QuestionAnswerer::from_preset(dir.path()).unwrap();
    let mut session = Session::new(Ctx::detect());
    let context = "The island lies north of the bay.";
    let found = answerer.answer(&mut session, "Where?", context, AnswerOptions::new().with_top_k(3)).unwrap();
    assert!(
        !found.is_empty() && found.iter().all(|found| context.get(found.span.clone()) == Some(&found.answer))
    );
}
