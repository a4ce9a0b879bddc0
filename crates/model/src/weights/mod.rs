//! Weights by their Hugging Face names, whatever their source.

mod account;
mod gguf;
mod gguf_header;
mod gguf_keys;
mod gguf_names;
mod gguf_order;
mod holding;
mod mapped;
mod random;
mod safetensors;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use candle_core::{DType, Device, Tensor};
use headtemper_hook::{HeadPlan, ModelSpec};
use headtemper_kernels::{Held, Kernels, Matrix, MatrixBuilder, Products};

use account::PREFIXES;
pub(crate) use account::name_in_layer;
pub use gguf::GgufFile;
pub use holding::{HoldAs, Holding};
pub(crate) use random::Random;
pub(crate) use safetensors::shard_files;
pub use safetensors::{StoredTensor, stored_tensors};
pub(crate) use table::Table;

use crate::{Checkpoint, ModelError};

/// The weights of a checkpoint while a model is being built from them.
///
/// The file is mapped into memory; a tensor is copied out once, in the dtype it is held in, and its pages are released at
/// once, so that loading needs little more memory than the weights themselves.
pub struct Weights {
    source: Source,
    path: PathBuf,
    hold: HoldAs,
    /// The common type of the file's matrices.
    native: Held,
    holding: Holding,
    products: Products,
    device: Device,
    prefix: &'static str,
    taken: BTreeSet<String>,
    parameters: usize,
    mapped: usize,
    /// Factors for the columns of matrices, by name.
    folded: BTreeMap<String, Vec<f32>>,
    /// Whether tensors are only accounted for: they have shapes, but no memory.
    dry: bool,
}

enum Source {
    Safetensors(safetensors::Shards),
    Gguf(GgufFile),
    /// Drawn from a seeded generator.
    Random(Random),
    /// None: the geometry comes from a configuration alone.
    None,
}

impl Weights {
    /// Opens a checkpoint. `hold` is the requested type of matrices.
    ///
    /// # Errors
    /// If a file is missing, truncated or malformed.
    pub fn open(checkpoint: &Checkpoint, hold: impl Into<HoldAs>, device: &Device) -> Result<Self, ModelError> {
        let mut prefix = PREFIXES[0];
        let (source, native) = match checkpoint {
            Checkpoint::Directory(dir) => {
                let shards = safetensors::Shards::open(dir)?;
                let has = |prefix: &&str| shards.shape(&format!("{prefix}embed_tokens.weight")).is_some();
                prefix = PREFIXES.into_iter().find(has).unwrap_or(prefix);
                let native = shards.native(prefix);
                (Source::Safetensors(shards), native)
            }
            Checkpoint::Gguf(path) => {
                let file = GgufFile::open(path)?;
                let native = file.native();
                (Source::Gguf(file), native)
            }
            Checkpoint::Random { seed, .. } => (Source::Random(Random::new(*seed)), Held::F32),
        };
        Ok(Self { prefix, ..Self::of(source, checkpoint.path().into(), (hold.into(), native), device) })
    }

    /// Weights in f32 from a seeded generator.
    pub(crate) fn random(seed: u64, device: &Device) -> Self {
        let hold = (HoldAs::Native, Held::F32);
        Self::of(Source::Random(Random::new(seed)), "random weights".into(), hold, device)
    }

    fn of(source: Source, path: PathBuf, (hold, native): (HoldAs, Held), device: &Device) -> Self {
        Self {
            source,
            path,
            hold,
            native,
            holding: Holding::new(hold),
            products: Products::F32,
            device: device.clone(),
            prefix: PREFIXES[0],
            taken: BTreeSet::new(),
            parameters: 0,
            mapped: 0,
            folded: BTreeMap::new(),
            dry: false,
        }
    }

    /// The weights of a checkpoint, accounted for but not read.
    pub(crate) fn accounted(checkpoint: &Checkpoint, hold: HoldAs, device: &Device) -> Result<Self, ModelError> {
        Ok(Self { dry: true, ..Self::open(checkpoint, hold, device)? })
    }

    /// Weights that need not exist; as a file they would be bf16, as on the hub.
    pub(crate) fn imagined(checkpoint: &Checkpoint, hold: HoldAs, device: &Device) -> Self {
        Self { dry: true, ..Self::of(Source::None, checkpoint.path().into(), (hold, Held::Bf16), device) }
    }

    /// The types that weights have been held in so far.
    pub(crate) fn holding(&self) -> &Holding {
        &self.holding
    }

    /// The type that matrices are held in, except those kept in their stored type.
    fn held(&self) -> Held {
        match self.hold {
            HoldAs::All(held) => held,
            HoldAs::Native | HoldAs::Stored => self.native,
        }
    }

    /// The type that a matrix is held in.
    fn held_of(&self, name: &str, columns: usize) -> Result<Held, ModelError> {
        let stored = self.stored_name(name);
        let held = match (self.hold, &self.source) {
            (HoldAs::Stored, Source::Gguf(file)) => file.stored_type(name, &stored)?,
            (HoldAs::Stored, Source::Safetensors(shards)) => Held::of(shards.readable(&stored)?).unwrap_or(self.native),
            _ => self.held(),
        };
        let Held::Blocks(blocks) = held else { return Ok(held) };
        if !self.device.is_cpu() {
            return Err(ModelError::BlocksDevice { held: held.to_string() });
        }
        let block = blocks.features();
        if !columns.is_multiple_of(block) {
            return Err(ModelError::Blocks { name: stored, held: held.to_string(), columns, block });
        }
        Ok(held)
    }

    /// Writes a plan into the columns of the output projections as they are read.
    pub(crate) fn fold(&mut self, plan: &HeadPlan, spec: &ModelSpec) {
        self.folded = column_factors(plan, spec);
    }

    /// Sets the products that linear layers use, except for the head.
    pub(crate) fn multiply_as(&mut self, products: Products) -> Result<(), ModelError> {
        if products == Products::Bf16 && (self.held() != Held::Bf16 || !self.device.is_cpu()) {
            let device = if self.device.is_cpu() { "the CPU" } else { "another device" };
            let held = match self.hold {
                HoldAs::Stored => "what the file stores".into(),
                _ => self.held().to_string(),
            };
            return Err(ModelError::Products { held, device });
        }
        self.products = products;
        Ok(())
    }

    /// The device that tensors are loaded to.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The dtype of activations, norms and the cache: f32 on the CPU, that of the weights elsewhere.
    pub fn activations(&self) -> DType {
        if self.device.is_cpu() { DType::F32 } else { self.held().dtype() }
    }

    /// A matrix `[rows, columns]`, in the type the weights are held in.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix, ModelError> {
        self.stacked(&[(name.to_string(), rows)], columns)
    }

    /// The matrix of an embedding or a head, which always multiplies f32, whatever other linear layers do.
    ///
    /// # Errors
    /// As [`Weights::matrix`].
    pub(crate) fn vocabulary(&mut self, name: &str, rows: usize, columns: usize) -> Result<Matrix, ModelError> {
        self.gathered(&[(name.to_string(), rows)], columns, Products::F32)
    }

    /// Several matrices of the same width, stacked by rows.
    ///
    /// # Errors
    /// If one is missing or has another shape.
    pub fn stacked(&mut self, parts: &[(String, usize)], columns: usize) -> Result<Matrix, ModelError> {
        self.gathered(parts, columns, self.products)
    }

    fn gathered(
        &mut self,
        parts: &[(String, usize)],
        columns: usize,
        products: Products,
    ) -> Result<Matrix, ModelError> {
        let mut typed = Vec::new();
        for (name, rows) in parts {
            self.expect(name, &[*rows, columns])?;
            let held = self.held_of(name, columns)?;
            self.holding.add_matrix(held, rows * columns);
            typed.push((name, *rows, held));
        }
        // Parts that the file stores in different types are stacked, each in its own type.
        let mut matrices = Vec::new();
        for alike in typed.chunk_by(|(.., a), (.., b)| a == b) {
            let (held, rows) = (alike[0].2, alike.iter().map(|(_, rows, _)| rows).sum());
            if self.dry {
                matrices.push(Matrix::imagined(held, rows, columns, &self.device));
                continue;
            }
            let matrix = MatrixBuilder::new(held, rows, columns, &self.device)?;
            let mut matrix = matrix.with_products(products);
            for (name, rows, _) in alike {
                self.append(&mut matrix, name, *rows, columns)?;
            }
            matrices.push(matrix.finish()?);
        }
        Ok(Matrix::stacked(&matrices)?)
    }

    /// Appends the rows of a tensor to a matrix, times λ if a plan is folded into them.
    fn append(&self, to: &mut MatrixBuilder, name: &str, rows: usize, columns: usize) -> Result<(), ModelError> {
        let factors = self.folded.get(name);
        let fold = |row: &mut [f32]| {
            for (value, factor) in row.iter_mut().zip(factors.into_iter().flatten()) {
                *value *= factor;
            }
        };
        let stored = self.stored_name(name);
        match &self.source {
            Source::Safetensors(shards) => shards.append(&stored, columns, to, fold)?,
            Source::Gguf(file) => file.append((name, &stored), (rows, columns), to, fold)?,
            Source::Random(random) => {
                let draw = random.rows(name, columns);
                to.fill(rows, |r, out| {
                    draw(r, out);
                    fold(out);
                })?;
            }
            Source::None => unreachable!("imagined, not read"),
        }
        Ok(())
    }

    /// A vector of `width` values, in the dtype of the activations. `typical` is the centre of random weights.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub fn vector(&mut self, name: &str, width: usize, typical: f32) -> Result<Tensor, ModelError> {
        let activations = self.activations();
        Ok(self.vector_f32(name, width, typical)?.to_dtype(activations)?)
    }

    /// A vector used in f32 arithmetic, whatever the dtype of activations.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub fn vector_f32(&mut self, name: &str, width: usize, typical: f32) -> Result<Tensor, ModelError> {
        self.expect(name, &[width])?;
        self.holding.add_vector(width);
        match &self.source {
            _ if self.dry => Ok(Tensor::full(typical, width, &self.device)?),
            Source::Random(random) => Ok(random.vector(name, width, typical, &self.device)?),
            _ => Ok(self.read(name)?.to_dtype(DType::F32)?),
        }
    }

    /// The taps of a depthwise convolution, stored `[channels, 1, kernel]`, as `[channels, kernel]` f32.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub fn taps(&mut self, name: &str, channels: usize, kernel: usize) -> Result<Tensor, ModelError> {
        self.expect(name, &[channels, 1, kernel])?;
        self.holding.add_vector(channels * kernel);
        let tensor = match &self.source {
            _ if self.dry => Tensor::zeros((channels, kernel), DType::F32, &self.device)?,
            Source::Random(random) => random.matrix(name, channels, kernel, &self.device)?,
            _ => self.read(name)?,
        };
        Ok(tensor.reshape((channels, kernel))?.to_dtype(DType::F32)?)
    }

    /// A single number.
    ///
    /// # Errors
    /// If it is missing or not a single number.
    pub fn scalar(&mut self, name: &str, typical: f32) -> Result<f64, ModelError> {
        Ok(f64::from(self.vector_f32(name, 1, typical)?.to_vec1::<f32>()?[0]))
    }

    /// A table `[rows, columns]` from which single rows are read: on the CPU it stays where it is stored; other devices load all of it
    /// if they have room.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub(crate) fn table(&mut self, name: &str, rows: usize, columns: usize) -> Result<Table, ModelError> {
        self.expect(name, &[rows, columns])?;
        let table = match &self.source {
            Source::Safetensors(shards) => shards.table(&self.stored_name(name), rows, columns)?,
            Source::Gguf(file) => file.table(&file.stored_name(name), rows, columns),
            Source::Random(random) => Table::random(*random, name, rows, columns),
            Source::None => Table::random(Random::new(0), name, rows, columns),
        };
        let elsewhere = !self.device.is_cpu() || Kernels::serve_gpu(&self.device);
        let table = if elsewhere && !matches!(self.source, Source::None) {
            table.on_device(self.activations(), &self.device)?
        } else {
            table
        };
        if table.is_on_device() {
            self.holding.add_matrix(self.held(), rows * columns);
            return Ok(table);
        }
        self.mapped += rows * columns;
        self.holding.add_mapped(match &self.source {
            Source::None => self.held().bytes(rows * columns),
            _ => table.mapped_bytes(),
        });
        Ok(table)
    }

    /// The number of parameters in tables.
    pub(crate) fn mapped(&self) -> usize {
        self.mapped
    }

    /// Whether the head is stored and differs from the embedding: transformers then uses it, tied or not.
    ///
    /// # Errors
    /// If one of the two is stored in a type we do not read.
    pub(crate) fn head_of_its_own(&self) -> Result<bool, ModelError> {
        match &self.source {
            Source::Safetensors(shards) => {
                shards.differ("lm_head.weight", &self.stored_name("model.embed_tokens.weight"))
            }
            Source::Gguf(_) | Source::Random(_) | Source::None => Ok(false),
        }
    }

    /// The values of a tensor that has been accounted for.
    fn read(&self, name: &str) -> Result<Tensor, ModelError> {
        let stored = self.stored_name(name);
        match &self.source {
            Source::Safetensors(shards) => shards.read(&stored, &self.device),
            Source::Gguf(file) => Ok(file.read(name, &stored)?.to_device(&self.device)?),
            Source::Random(_) | Source::None => unreachable!("made, not read"),
        }
    }
}

/// λ of every column of the output projections that a plan touches, by the name of the weight.
pub(crate) fn column_factors(plan: &HeadPlan, spec: &ModelSpec) -> BTreeMap<String, Vec<f32>> {
    let mut factors: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    for (at, lambda) in plan.iter() {
        let heads = spec.layers[at.layer].heads;
        let columns = factors.entry(spec.output_projection(at.layer)).or_insert_with(|| vec![1.0; heads.width()]);
        columns[at.head * heads.dim..][..heads.dim].fill(lambda);
    }
    factors
}

/// The common type of matrices; f32, which holds all types, if they differ.
fn common(mut all: impl Iterator<Item = Held>) -> Held {
    let first = all.next().unwrap_or(Held::F32);
    if all.all(|held| held == first) { first } else { Held::F32 }
}
