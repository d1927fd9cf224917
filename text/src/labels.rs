//! The labels of a classifier: `id2label`, `label2id` and `problem_type` of transformers' `config.json`.

use rachis::loader::{Config, Preset};
use serde_json::Value;

use crate::error::{Error, Result, clip, in_file};

const FILE: &str = "config.json";

/// The labels of the classes of a head, by their number.
#[derive(Debug)]
pub(crate) struct Labels {
    names: Vec<String>,
    /// The class whose label means entailment.
    entailment: Option<usize>,
}

/// What a classifier was trained for: `problem_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// One class is right.
    SingleLabel,
    /// Any number of classes are right.
    MultiLabel,
    /// The outputs are quantities.
    Regression,
}

impl Labels {
    /// The labels of a preset for a head of this many classes: `LABEL_0` and so on when the configuration names none.
    pub(crate) fn read(preset: &Preset, classes: usize) -> Result<Labels> {
        let config = preset.config();
        let Some(named) = config.value("id2label") else { return Ok(Labels::numbered(classes)) };
        let wrong = || in_file(FILE, "id2label is not an object of labels by class");
        let named = named.as_object().ok_or_else(wrong)?;
        if named.len() != classes {
            let found = named.len();
            return Err(in_file(
                FILE,
                format!("id2label has {found} labels, expected {classes}, as the head has"),
            ));
        }
        let mut names = vec![None; classes];
        for (class, label) in named {
            let class = class.trim().parse::<usize>().ok();
            let (class, label) = class.zip(label.as_str()).ok_or_else(wrong)?;
            *names.get_mut(class).ok_or_else(wrong)? = Some(label.to_owned());
        }
        let names: Vec<String> = names.into_iter().collect::<Option<_>>().ok_or_else(wrong)?;
        let entailment = entailment(config, &names)?;
        Ok(Labels { names, entailment })
    }

    /// Labels without names: `LABEL_0` and so on.
    pub(crate) fn numbered(classes: usize) -> Labels {
        Labels { names: (0..classes).map(|i| format!("LABEL_{i}")).collect(), entailment: None }
    }

    /// The labels in the order of classes.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The label of a class.
    pub(crate) fn name(&self, class: usize) -> &str {
        self.names.get(class).map_or("", String::as_str)
    }

    /// The class whose label starts with `entail`, in upper or lower case; the last class when there is none.
    pub(crate) fn entailment(&self) -> usize {
        self.entailment.unwrap_or(self.names.len().saturating_sub(1))
    }
}

/// The class that `label2id` gives for a label that starts with `entail`. Without `label2id` it is the inverse of
/// `id2label`.
fn entailment(config: &Config, names: &[String]) -> Result<Option<usize>> {
    let means_it = |label: &str| label.to_lowercase().starts_with("entail");
    let Some(ids) = config.value("label2id") else {
        return Ok(names.iter().position(|label| means_it(label)));
    };
    let ids =
        ids.as_object().ok_or_else(|| in_file(FILE, "label2id is not an object of classes by label"))?;
    let Some((label, class)) = ids.iter().find(|(label, _)| means_it(label)) else { return Ok(None) };
    let class_number = class.as_u64().and_then(|class| usize::try_from(class).ok());
    match class_number.filter(|class| *class < names.len()) {
        Some(class) => Ok(Some(class)),
        None => Err(in_file(FILE, format!("label2id has {class} for {}, expected a class", clip(label)))),
    }
}

impl Problem {
    /// The problem of a preset for a head of this many classes: what the configuration says, else one label of several,
    /// or any number of one.
    pub(crate) fn read(preset: &Preset, classes: usize) -> Result<Problem> {
        match preset.config().value("problem_type").map(|problem| (problem.as_str(), problem)) {
            None if classes == 1 => Ok(Problem::MultiLabel),
            None => Ok(Problem::SingleLabel),
            Some((Some("regression"), _)) => Ok(Problem::Regression),
            Some((Some("multi_label_classification"), _)) => Ok(Problem::MultiLabel),
            Some((Some("single_label_classification"), _)) if classes > 1 => Ok(Problem::SingleLabel),
            Some((_, found)) => Err(wrong_problem(found, classes)),
        }
    }
}

fn wrong_problem(found: &Value, classes: usize) -> Error {
    let found = clip(&found.to_string());
    let single = if classes > 1 { "single_label_classification, " } else { "" };
    let expected = format!("{single}multi_label_classification or regression");
    in_file(FILE, format!("problem_type is {found}, expected {expected}"))
}
