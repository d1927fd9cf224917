//! Where a model's weights come from: a preset's tensors by name, or random numbers of the same shapes.

use std::cell::{Cell, RefCell};

use rachis_loader::{ConfigSource, Preset, Tensor};

use super::{Init, Random, Weight};
use crate::error::{Error, Result, try_reserve};

/// The convention that the names and shapes of weights follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// Attributes joined by dots. Dense kernels are `[outputs, inputs]`.
    HuggingFace,
    /// Paths of numbered layers and their variables. Dense kernels are `[inputs, outputs]`, and one of the two may be
    /// split into heads and their width.
    Keras,
}

/// What a weight is in its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A kernel, a scale or a table.
    Weight,
    /// A bias or a shift.
    Bias,
}

/// Where weights come from.
#[derive(Debug)]
pub enum WeightSource<'p> {
    /// The tensors of a preset.
    Preset(&'p Preset),
    /// Random numbers. The weights have Hugging Face's names.
    Random(RefCell<Random>),
    /// Nowhere: the elements of all weights are counted. The weights have Hugging Face's names and no elements.
    Counted(Cell<usize>),
}

impl WeightSource<'_> {
    /// A model with random weights, built by `build` after checking that there is memory for all weights together.
    pub(crate) fn random<M>(seed: u64, build: impl Fn(&WeightSource<'_>) -> Result<M>) -> Result<M> {
        let count = WeightSource::counted();
        build(&count)?;
        if let WeightSource::Counted(count) = count {
            try_reserve(&mut Vec::<f32>::new(), count.get())?;
        }
        build(&WeightSource::Random(RefCell::new(Random::new(seed))))
    }

    /// A source that has counted nothing yet.
    pub(crate) fn counted() -> WeightSource<'static> {
        WeightSource::Counted(Cell::new(0))
    }

    /// The scope of `prefix`.
    pub(crate) fn scope(&self, prefix: &str) -> Scope<'_> {
        Scope { source: self, path: prefix.to_owned() }
    }

    /// Whether a preset has this weight, which only some models of its architecture have.
    pub(crate) fn has(&self, name: &str) -> bool {
        matches!(self, WeightSource::Preset(preset) if preset.tensor(name).is_some())
    }

    /// The convention of names.
    pub(crate) fn naming(&self) -> Naming {
        match self {
            WeightSource::Preset(preset) => match preset.config().source() {
                ConfigSource::HuggingFace { .. } => Naming::HuggingFace,
                ConfigSource::Keras { .. } => Naming::Keras,
            },
            WeightSource::Random(_) | WeightSource::Counted(_) => Naming::HuggingFace,
        }
    }

    /// The value for this source's convention of names.
    pub(crate) fn pick<N>(&self, hugging_face: N, keras: N) -> N {
        match self.naming() {
            Naming::HuggingFace => hugging_face,
            Naming::Keras => keras,
        }
    }

    /// Rows at the front of a learned position table that no position selects: transformers' OPT and BART have two.
    pub(crate) fn unused_positions(&self) -> usize {
        if matches!(self, WeightSource::Random(_)) { 0 } else { self.pick(2, 0) }
    }

    /// The scope of all weights. In a Hugging Face preset it is the first of `prefixes` under which there is a tensor
    /// called `name`, or the first of all when there is none, so that the error names the expected weight.
    pub(crate) fn root(&self, prefixes: &[&str], name: &str) -> Scope<'_> {
        self.scope(self.pick(self.prefix(prefixes, name), "layers/"))
    }

    fn prefix<'s>(&self, prefixes: &[&'s str], name: &str) -> &'s str {
        let has = |prefix: &&&str| match self {
            WeightSource::Preset(preset) => preset.tensor(&format!("{prefix}{name}")).is_some(),
            WeightSource::Random(_) | WeightSource::Counted(_) => true,
        };
        prefixes.iter().find(has).or(prefixes.first()).copied().unwrap_or("")
    }
}

/// A prefix of weight names.
#[derive(Debug, Clone)]
pub(crate) struct Scope<'s> {
    source: &'s WeightSource<'s>,
    path: String,
}

impl<'s> Scope<'s> {
    /// The scope `name` within this one.
    pub(crate) fn at(&self, name: impl std::fmt::Display) -> Scope<'s> {
        let separator = self.source.pick('.', '/');
        Scope { source: self.source, path: format!("{}{name}{separator}", self.path) }
    }

    /// The scope of `prefix` among all weights.
    pub(crate) fn at_root(&self, prefix: &str) -> Scope<'s> {
        self.source.scope(prefix)
    }

    /// Whether this is the place `other`.
    pub(crate) fn is(&self, other: &Scope<'_>) -> bool {
        self.path == other.path
    }

    /// The scope of the `i`-th layer called `name`.
    pub(crate) fn layer(&self, name: &str, i: usize) -> Scope<'s> {
        match (self.source.naming(), i) {
            (Naming::HuggingFace, i) => self.at(name).at(i),
            (Naming::Keras, 0) => self.at(name),
            (Naming::Keras, i) => self.at(format_args!("{name}_{i}")),
        }
    }

    /// The convention of names.
    pub(crate) fn naming(&self) -> Naming {
        self.source.naming()
    }

    /// The value for this convention of names.
    pub(crate) fn pick<N>(&self, hugging_face: N, keras: N) -> N {
        self.source.pick(hugging_face, keras)
    }

    /// See [`WeightSource::unused_positions`].
    pub(crate) fn unused_positions(&self) -> usize {
        self.source.unused_positions()
    }

    /// Whether the preset has this weight. Random models have every weight.
    pub(crate) fn has(&self, name: &str) -> bool {
        match self.source {
            WeightSource::Preset(preset) => preset.tensor(&format!("{}{name}", self.path)).is_some(),
            WeightSource::Random(_) | WeightSource::Counted(_) => true,
        }
    }

    /// Whether the files hold the weight `role` of the layer of this scope. Random models have every weight.
    pub(crate) fn holds(&self, role: Role) -> bool {
        self.names(role).iter().any(|name| self.has(name))
    }

    /// Whether the files hold any weight in this scope. Random models hold every weight.
    pub(crate) fn holds_any(&self) -> bool {
        self.expect_none().is_err() || !matches!(self.source, WeightSource::Preset(_))
    }

    /// Number of outputs of the dense layer of this scope, by the shape of its weight in the files.
    pub(crate) fn outputs(&self) -> Option<usize> {
        let WeightSource::Preset(preset) = self.source else { return None };
        let mut names = self.names(Role::Weight).iter();
        let shape = names.find_map(|name| preset.tensor(&format!("{}{name}", self.path)))?.shape();
        self.source.pick(shape.first(), shape.last()).copied()
    }

    /// Checks that the preset has no weights in this scope.
    pub(crate) fn expect_none(&self) -> Result<()> {
        self.refuse(|preset| preset.tensors().iter().find(|tensor| tensor.name().starts_with(&self.path)))
    }

    /// Checks that the preset has no such weight of the layer of this scope.
    pub(crate) fn expect_no(&self, role: Role) -> Result<()> {
        let name = |name| format!("{}{name}", self.path);
        self.refuse(|preset| self.names(role).iter().find_map(|role| preset.tensor(&name(role))))
    }

    fn refuse(&self, extra: impl FnOnce(&'s Preset) -> Option<&'s Tensor>) -> Result<()> {
        match self.source {
            WeightSource::Preset(preset) => match extra(preset) {
                Some(extra) => Err(Error::ExtraWeight { name: extra.name().to_owned() }),
                None => Ok(()),
            },
            WeightSource::Random(_) | WeightSource::Counted(_) => Ok(()),
        }
    }

    /// A weight of the layer of this scope, which must have `shape`.
    pub(crate) fn weight(&self, role: Role, shape: &[usize], init: Init) -> Result<Weight> {
        self.first_of(self.names(role), shape, init)
    }

    fn names(&self, role: Role) -> &'static [&'static str] {
        match (self.source.naming(), role) {
            (Naming::HuggingFace, Role::Weight) => &["weight", "gamma"],
            (Naming::HuggingFace, Role::Bias) => &["bias", "beta"],
            (Naming::Keras, Role::Weight) => &["vars/0"],
            (Naming::Keras, Role::Bias) => &["vars/1"],
        }
    }

    /// The weight `name`, which must have `shape`.
    pub(crate) fn named(&self, name: &str, shape: &[usize], init: Init) -> Result<Weight> {
        self.first_of(&[name], shape, init)
    }

    /// The first of several weights that the preset has.
    pub(crate) fn first_of(&self, names: &[&str], shape: &[usize], init: Init) -> Result<Weight> {
        let full = |name: &&str| format!("{}{name}", self.path);
        let first = || names.first().map(full).unwrap_or_default();
        match self.source {
            WeightSource::Preset(preset) => {
                let tensor = names.iter().find_map(|name| preset.tensor(&full(name)));
                let tensor = tensor.ok_or_else(|| Error::MissingWeight { name: first() })?;
                Weight::new(tensor.clone(), shape, self.source.naming())
            }
            WeightSource::Random(random) => {
                let data = init.values(&mut random.borrow_mut(), shape.iter().product())?;
                Weight::new(Tensor::from_f32(first(), shape, data)?, shape, Naming::HuggingFace)
            }
            WeightSource::Counted(count) => {
                let len = shape.iter().try_fold(1usize, |len, dim| len.checked_mul(*dim));
                let sum = len.and_then(|len| count.get().checked_add(len));
                count.set(sum.filter(|sum| *sum <= MAX_RANDOM_ELEMENTS).ok_or_else(|| Error::Config {
                    field: "size of the model",
                    found: format!("{shape:?} for weight {}", first()),
                    expected: format!("at most {MAX_RANDOM_ELEMENTS} elements in all weights"),
                })?);
                Weight::without_elements(first())
            }
        }
    }
}

/// The largest number of elements of all random weights together: it catches sizes that are typing errors.
const MAX_RANDOM_ELEMENTS: usize = 1 << 36;
