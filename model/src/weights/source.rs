//! Where a model's weights come from: a preset's tensors by name, or random numbers of the same shapes.

use std::cell::{Cell, RefCell};

use rachis_kernels::{AnyMatRef, AnySlice, MatRef};
use rachis_loader::{ConfigSource, Data, Preset, Tensor};

use crate::error::{Error, Result, try_reserve};
use crate::weights::Random;

/// A float tensor of a known shape, in place in its file or owned.
#[derive(Debug, Clone)]
pub(crate) struct Weight {
    tensor: Tensor,
    /// The first dimension of the shape that was asked for.
    rows: usize,
}

impl Weight {
    /// The storage as a vector.
    pub(crate) fn slice(&self) -> AnySlice<'_> {
        match self.tensor.data() {
            Data::F32(data) => AnySlice::F32(data),
            Data::Bf16(data) => AnySlice::Bf16(data),
            Data::F16(data) => AnySlice::F16(data),
            // `Weight::new` accepts nothing else.
            _ => AnySlice::F32(&[]),
        }
    }

    /// The tensor as a matrix: its first dimension by all others.
    pub(crate) fn matrix(&self) -> AnyMatRef<'_> {
        self.as_rows(self.rows)
    }

    /// Its name in its file.
    pub(crate) fn name(&self) -> &str {
        self.tensor.name()
    }

    /// All elements below one another.
    pub(crate) fn as_column(&self) -> AnyMatRef<'_> {
        match self.slice() {
            AnySlice::F32(data) => self.as_rows(data.len()),
            AnySlice::Bf16(data) => self.as_rows(data.len()),
            AnySlice::F16(data) => self.as_rows(data.len()),
        }
    }

    fn as_rows(&self, rows: usize) -> AnyMatRef<'_> {
        let cols = |len: usize| len.checked_div(rows).unwrap_or(0);
        // The loader has checked that the data has as many elements as the shape says.
        let empty = AnyMatRef::F32(MatRef::default());
        match self.slice() {
            AnySlice::F32(data) => MatRef::new(data, rows, cols(data.len())).map_or(empty, AnyMatRef::F32),
            AnySlice::Bf16(data) => MatRef::new(data, rows, cols(data.len())).map_or(empty, AnyMatRef::Bf16),
            AnySlice::F16(data) => MatRef::new(data, rows, cols(data.len())).map_or(empty, AnyMatRef::F16),
        }
    }

    /// A tensor that must have this shape or, in a file of Keras's, one that has dimensions split in several.
    fn new(tensor: Tensor, shape: &[usize], naming: Naming) -> Result<Weight> {
        let name = tensor.name().to_owned();
        let fits = match naming {
            Naming::HuggingFace => tensor.shape() == shape,
            Naming::Keras => splits(tensor.shape(), shape),
        };
        if !fits {
            let found = tensor.shape().to_vec();
            return Err(Error::WeightShape { name, expected: shape.to_vec(), found });
        }
        let rows = shape.first().copied().unwrap_or(0);
        match tensor.data() {
            Data::F32(_) | Data::Bf16(_) | Data::F16(_) => Ok(Weight { tensor, rows }),
            _ => Err(Error::WeightDtype { name, found: tensor.dtype().to_string() }),
        }
    }
}

/// Whether `found` is `shape` with some dimensions split into several.
fn splits(found: &[usize], shape: &[usize]) -> bool {
    let mut found = found.iter();
    let mut whole = shape.iter().all(|dim| {
        let mut product = found.next().copied().unwrap_or(0);
        while product < *dim {
            let Some(next) = found.next() else { return false };
            product = product.saturating_mul(*next);
        }
        product == *dim
    });
    whole &= found.next().is_none();
    whole
}

/// What names and shapes of weights follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// Attributes joined by dots; dense kernels `[outputs, inputs]`.
    HuggingFace,
    /// Paths of numbered layers and their variables; dense kernels `[inputs, outputs]`, one of which may be split
    /// into heads and their width.
    Keras,
}

/// What a weight is in its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A kernel, a scale or a table.
    Weight,
    /// What is added.
    Bias,
}

/// How a weight starts in a randomly initialised model.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Init {
    /// Normal with this standard deviation, cut off at two of them.
    TruncatedNormal(f32),
    Zeros,
    Ones,
}

impl Init {
    /// KerasHub's initialiser of kernels and embeddings.
    pub(crate) const KERNEL: Init = Init::TruncatedNormal(0.02);
}

/// Where weights come from.
#[derive(Debug)]
pub enum Source<'p> {
    Preset(&'p Preset),
    Random(RefCell<Random>),
    /// Nowhere: the elements of all weights are counted. The weights have Hugging Face's names and no elements.
    Counted(Cell<usize>),
}

impl Source<'_> {
    /// What `build` makes of random weights, if there is memory for all of them together.
    pub(crate) fn randomly<M>(seed: u64, build: impl Fn(&Source<'_>) -> Result<M>) -> Result<M> {
        let count = Source::counted();
        build(&count)?;
        if let Source::Counted(count) = count {
            try_reserve(&mut Vec::<f32>::new(), count.get())?;
        }
        build(&Source::Random(RefCell::new(Random::new(seed))))
    }

    /// Nothing counted yet.
    pub(crate) fn counted() -> Source<'static> {
        Source::Counted(Cell::new(0))
    }

    /// The scope of `prefix`.
    pub(crate) fn scope(&self, prefix: &str) -> Scope<'_> {
        Scope { source: self, path: prefix.to_owned() }
    }

    /// Whether a preset has this weight beside those that every model of its architecture has.
    pub(crate) fn has(&self, name: &str) -> bool {
        matches!(self, Source::Preset(preset) if preset.tensor(name).is_some())
    }

    /// What names follow; those of random weights are Hugging Face's.
    pub(crate) fn naming(&self) -> Naming {
        match self {
            Source::Preset(preset) => match preset.config().source() {
                ConfigSource::HuggingFace { .. } => Naming::HuggingFace,
                ConfigSource::Keras { .. } => Naming::Keras,
            },
            Source::Random(_) | Source::Counted(_) => Naming::HuggingFace,
        }
    }

    /// What is meant in the source's naming.
    pub(crate) fn pick<N>(&self, hugging_face: N, keras: N) -> N {
        match self.naming() {
            Naming::HuggingFace => hugging_face,
            Naming::Keras => keras,
        }
    }

    /// Rows at the front of a learned position table that stand for no position: transformers' OPT and BART have two.
    pub(crate) fn unused_positions(&self) -> usize {
        if matches!(self, Source::Random(_)) { 0 } else { self.pick(2, 0) }
    }

    /// The scope of all weights: that of the first of `prefixes` under which a Hugging Face preset has a tensor called
    /// `name`, or of the first of all when it has none, so that the error names what was expected.
    pub(crate) fn root(&self, prefixes: &[&str], name: &str) -> Scope<'_> {
        self.scope(self.pick(self.prefix(prefixes, name), "layers/"))
    }

    fn prefix<'s>(&self, prefixes: &[&'s str], name: &str) -> &'s str {
        let has = |prefix: &&&str| match self {
            Source::Preset(preset) => preset.tensor(&format!("{prefix}{name}")).is_some(),
            Source::Random(_) | Source::Counted(_) => true,
        };
        prefixes.iter().find(has).or(prefixes.first()).copied().unwrap_or("")
    }
}

/// A prefix of weight names.
#[derive(Debug, Clone)]
pub(crate) struct Scope<'s> {
    source: &'s Source<'s>,
    path: String,
}

impl<'s> Scope<'s> {
    /// The scope `name` within this one.
    pub(crate) fn at(&self, name: impl std::fmt::Display) -> Scope<'s> {
        let separator = self.source.pick('.', '/');
        Scope { source: self.source, path: format!("{}{name}{separator}", self.path) }
    }

    /// The scope of the i-th layer called `name`.
    pub(crate) fn layer(&self, name: &str, i: usize) -> Scope<'s> {
        match (self.source.naming(), i) {
            (Naming::HuggingFace, i) => self.at(name).at(i),
            (Naming::Keras, 0) => self.at(name),
            (Naming::Keras, i) => self.at(format_args!("{name}_{i}")),
        }
    }

    /// What the names here follow.
    pub(crate) fn naming(&self) -> Naming {
        self.source.naming()
    }

    /// Whether the preset has this weight; random models have all.
    pub(crate) fn has(&self, name: &str) -> bool {
        match self.source {
            Source::Preset(preset) => preset.tensor(&format!("{}{name}", self.path)).is_some(),
            Source::Random(_) | Source::Counted(_) => true,
        }
    }

    /// That the preset has no weights here.
    pub(crate) fn expect_none(&self) -> Result<()> {
        self.refuse(|preset| preset.tensors().iter().find(|tensor| tensor.name().starts_with(&self.path)))
    }

    /// That the preset has no such weight of the layer here.
    pub(crate) fn expect_no(&self, role: Role) -> Result<()> {
        let name = |name| format!("{}{name}", self.path);
        self.refuse(|preset| self.names(role).iter().find_map(|role| preset.tensor(&name(role))))
    }

    fn refuse(&self, extra: impl FnOnce(&'s Preset) -> Option<&'s Tensor>) -> Result<()> {
        match self.source {
            Source::Preset(preset) => match extra(preset) {
                Some(extra) => Err(Error::ExtraWeight { name: extra.name().to_owned() }),
                None => Ok(()),
            },
            Source::Random(_) | Source::Counted(_) => Ok(()),
        }
    }

    /// A weight of the layer here, which must have `shape`.
    pub(crate) fn weight(&self, role: Role, shape: &[usize], init: Init) -> Result<Weight> {
        self.any_of(self.names(role), shape, init)
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
        self.any_of(&[name], shape, init)
    }

    /// The first weight of several names that the preset has.
    fn any_of(&self, names: &[&str], shape: &[usize], init: Init) -> Result<Weight> {
        let full = |name: &&str| format!("{}{name}", self.path);
        match self.source {
            Source::Preset(preset) => {
                let tensor = names.iter().find_map(|name| preset.tensor(&full(name)));
                let missing = || Error::MissingWeight { name: names.first().map(full).unwrap_or_default() };
                Weight::new(tensor.ok_or_else(missing)?.clone(), shape, self.source.naming())
            }
            Source::Random(random) => {
                let name = names.first().map(full).unwrap_or_default();
                let data = initial(&mut random.borrow_mut(), shape.iter().product(), init)?;
                Weight::new(Tensor::from_f32(name, shape, data)?, shape, Naming::HuggingFace)
            }
            Source::Counted(count) => {
                let len = shape.iter().try_fold(1usize, |len, dim| len.checked_mul(*dim));
                let sum = len.and_then(|len| count.get().checked_add(len));
                count.set(sum.filter(|sum| *sum <= MOST_RANDOM_ELEMENTS).ok_or_else(|| Error::Config {
                    field: "size of the model",
                    found: format!("{shape:?} for weight {}", names.first().map(full).unwrap_or_default()),
                    expected: format!("at most {MOST_RANDOM_ELEMENTS} elements in all weights"),
                })?);
                let name = names.first().map(full).unwrap_or_default();
                Ok(Weight { tensor: Tensor::from_f32(name, &[0], Vec::new())?, rows: 0 })
            }
        }
    }
}

/// The most elements that all random weights together may have: a guard against what a typing error asks for.
const MOST_RANDOM_ELEMENTS: usize = 1 << 36;

/// Uniform in (0, 1].
fn uniform(random: &mut Random) -> f32 {
    ((random.next() >> 40) + 1) as f32 * (1.0 / (1u32 << 24) as f32)
}

/// Standard normal (Box and Muller), redrawn beyond two standard deviations.
fn truncated_normal(random: &mut Random) -> f32 {
    loop {
        let radius = (-2.0 * uniform(random).ln()).sqrt();
        let x = radius * (core::f32::consts::TAU * uniform(random)).cos();
        if x.abs() <= 2.0 {
            return x;
        }
    }
}

fn initial(random: &mut Random, len: usize, init: Init) -> Result<Vec<f32>> {
    let mut data = Vec::new();
    try_reserve(&mut data, len)?;
    match init {
        Init::Zeros => data.resize(len, 0.0),
        Init::Ones => data.resize(len, 1.0),
        Init::TruncatedNormal(deviation) => {
            data.extend((0..len).map(|_| deviation * truncated_normal(random)));
        }
    }
    Ok(data)
}
