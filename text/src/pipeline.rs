//! What follows the model: sentence-transformers' modules, each of which reads one of the features of a batch and writes
//! one.

mod dense;
mod layer_norm;
mod pool;
mod state;
mod weights;

use rachis::kernels::Ctx;
use rachis::loader::Preset;
use rachis::{Pooling, SequenceOutput, normalize};

use crate::error::{Result, in_file};
use crate::sentence_transformers::{Fields, MODULES, Module, Output};
use dense::Dense;
use layer_norm::LayerNorm;
use pool::Pool;
use state::{Rows, State};
use weights::Weights;

/// A feature of the texts of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feature {
    /// `token_embeddings`: a vector for each token.
    Tokens,
    /// `sentence_embedding`: a vector for each text.
    Sentence,
    /// `scores`: a number for each label of a text.
    Scores,
}

impl Feature {
    const ALL: [Feature; 3] = [Feature::Tokens, Feature::Sentence, Feature::Scores];

    fn name(self) -> &'static str {
        match self {
            Feature::Tokens => "token_embeddings",
            Feature::Sentence => "sentence_embedding",
            Feature::Scores => "scores",
        }
    }

    /// The features that a module reads and writes: `module_input_name` and `module_output_name`.
    fn of_module(config: &Fields) -> Result<(Feature, Feature)> {
        let feature = |name: &str, default: Feature| match config.opt_str(name)? {
            None => Ok(default),
            Some(value) => Feature::ALL
                .into_iter()
                .find(|feature| feature.name() == value)
                .ok_or_else(|| config.wrong(name, "token_embeddings, sentence_embedding or scores")),
        };
        let input = feature("module_input_name", Feature::Sentence)?;
        Ok((input, feature("module_output_name", input)?))
    }
}

/// A module after the model.
#[derive(Debug)]
enum Step {
    Pool(Pool),
    Dense(Dense),
    LayerNorm(LayerNorm),
    /// Scales the vectors of a feature to length 1.
    Normalize(Feature, Feature),
}

/// The modules after the model, in order.
#[derive(Debug)]
pub(crate) struct Pipeline {
    steps: Vec<Step>,
    /// What the model gives, and its width.
    start: (Feature, usize),
    /// The feature that is the result.
    result: Feature,
    /// The width of the result.
    width: usize,
}

impl Pipeline {
    /// Pooling alone, and a normalisation if the directory has one.
    pub(crate) fn pooling(pooling: Pooling, hidden_dim: usize, normalize: bool) -> Pipeline {
        let normalize = normalize.then_some(Step::Normalize(Feature::Sentence, Feature::Sentence));
        let steps = [Step::Pool(Pool::of(pooling))].into_iter().chain(normalize).collect();
        Pipeline { steps, start: (Feature::Tokens, hidden_dim), result: Feature::Sentence, width: hidden_dim }
    }

    /// The modules of `modules.json` after the Transformer, whose output has vectors of this width.
    pub(crate) fn of_modules(
        preset: &Preset,
        modules: &[Module],
        (output, width): (Output, usize),
        result: Feature,
    ) -> Result<Pipeline> {
        let steps = modules.iter().filter_map(|module| Step::open(preset, module).transpose());
        let steps = steps.collect::<Result<_>>()?;
        let start = match output {
            Output::Tokens => Feature::Tokens,
            Output::Pooled => Feature::Sentence,
            Output::Scores => Feature::Scores,
        };
        let mut pipeline = Pipeline { steps, start: (start, width), result, width: 0 };
        pipeline.width = pipeline.check()?;
        Ok(pipeline)
    }

    /// The same modules with another pooling.
    pub(crate) fn with_pooling(mut self, pooling: Pooling) -> Result<Pipeline> {
        for step in &mut self.steps {
            if let Step::Pool(pool) = step {
                pool.modes = vec![pooling];
            }
        }
        self.width = self.check()?;
        Ok(self)
    }

    /// The width of the result.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Whether the tokens of a prompt are left out of the pooling.
    pub(crate) fn excludes_prompt(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Pool(pool) if !pool.include_prompt))
    }

    /// Checks that each module reads what an earlier one wrote, in the width that it expects; returns the width of the
    /// result.
    fn check(&self) -> Result<usize> {
        let mut widths = [None; Feature::ALL.len()];
        widths[self.start.0 as usize] = Some(self.start.1);
        let missing = |feature: Feature, reader: &str| {
            let name = feature.name();
            in_file(MODULES, format_args!("no module before {reader} makes {name}, which it needs"))
        };
        for step in &self.steps {
            let (input, output) = step.features();
            let width = widths[input as usize].ok_or_else(|| missing(input, step.class()))?;
            let of_tokens = [input, output].map(|feature| feature == Feature::Tokens);
            if of_tokens[0] != of_tokens[1] && !matches!(step, Step::Pool(_)) {
                let (class, names) = (step.class(), [input, output].map(Feature::name).join(" and writes "));
                return Err(in_file(
                    MODULES,
                    format_args!("{class} reads {names}, which is not implemented"),
                ));
            }
            widths[output as usize] = Some(step.width(width)?);
        }
        widths[self.result as usize].ok_or_else(|| missing(self.result, "the end"))
    }

    /// The result for a batch: `[texts, width]`. The first `prompt` tokens of each text are those of a prompt.
    pub(crate) fn run(
        &self,
        ctx: &Ctx<'_>,
        start: Start<'_>,
        lengths: &[usize],
        prompt: usize,
    ) -> Result<Vec<f32>> {
        let (feature, width) = self.start;
        let mut state = State::new(ctx, lengths);
        state.features[feature as usize] = Some(match start {
            Start::Tokens(output) => Rows::Model(output),
            Start::Texts(data) => Rows::Own { data, width },
        });
        for step in &self.steps {
            let (input, output) = step.features();
            let width = step.width(state.width(input))?;
            let data = step.run(&mut state, prompt)?;
            state.features[output as usize] = Some(Rows::Own { data, width });
        }
        match state.features[self.result as usize].take() {
            Some(Rows::Own { data, .. }) => Ok(data),
            _ => Err(in_file(MODULES, "no module makes a vector of a text")),
        }
    }
}

/// What the model gave for a batch.
pub(crate) enum Start<'s> {
    /// A vector for each token.
    Tokens(SequenceOutput<'s>),
    /// A vector for each text.
    Texts(Vec<f32>),
}

impl Step {
    /// The module; `None` for one that changes nothing.
    fn open(preset: &Preset, module: &Module) -> Result<Option<Step>> {
        let config = module.config(preset)?;
        let missing = || in_file(&module.file("config.json"), "does not exist, but modules.json names it");
        let weights = || Weights::open(preset, module.file("model.safetensors"));
        let step = match module.class.as_str() {
            "Pooling" => Step::Pool(Pool::open(&config.ok_or_else(missing)?)?),
            "Dense" => Step::Dense(Dense::open(&config.ok_or_else(missing)?, weights()?)?),
            "LayerNorm" => Step::LayerNorm(LayerNorm::open(&config.ok_or_else(missing)?, weights()?)?),
            "Normalize" => {
                let features = config.as_ref().map(Feature::of_module).transpose()?;
                let (input, output) = features.unwrap_or((Feature::Sentence, Feature::Sentence));
                Step::Normalize(input, output)
            }
            // It acts in training only.
            "Dropout" => return Ok(None),
            _ => return Err(module.unknown()),
        };
        Ok(Some(step))
    }

    /// The output for the features of a batch.
    fn run(&self, state: &mut State<'_, '_>, prompt: usize) -> Result<Vec<f32>> {
        match self {
            Step::Pool(pool) => pool.run(state, prompt),
            Step::Dense(dense) => {
                let (x, width) = state.copy(dense.features.0);
                dense.run(state.ctx, &mut state.scratch, &x, width)
            }
            Step::LayerNorm(norm) => norm.run(state.ctx, &state.copy(Feature::Sentence).0),
            Step::Normalize(input, _) => {
                let (mut x, width) = state.copy(*input);
                normalize(&mut x, width);
                Ok(x)
            }
        }
    }

    /// The class of the module.
    fn class(&self) -> &'static str {
        match self {
            Step::Pool(_) => "Pooling",
            Step::Dense(_) => "Dense",
            Step::LayerNorm(_) => "LayerNorm",
            Step::Normalize(..) => "Normalize",
        }
    }

    /// The features that it reads and writes.
    fn features(&self) -> (Feature, Feature) {
        match self {
            Step::Pool(_) => (Feature::Tokens, Feature::Sentence),
            Step::Dense(dense) => dense.features,
            Step::LayerNorm(_) => (Feature::Sentence, Feature::Sentence),
            Step::Normalize(input, output) => (*input, *output),
        }
    }

    /// The width of the output for an input of this width.
    fn width(&self, input: usize) -> Result<usize> {
        match self {
            Step::Pool(pool) => Ok(pool.modes.len() * input),
            Step::Dense(dense) => dense.width(input),
            Step::LayerNorm(norm) => norm.width(input),
            Step::Normalize(..) => Ok(input),
        }
    }
}
