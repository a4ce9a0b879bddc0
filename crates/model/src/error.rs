//! Errors in checkpoints.

use std::{fs, io, path::PathBuf};

use headtemper_kernels::{is_out_of_memory, reason};

/// Why a checkpoint cannot be used. Each error names the object and what would have been right.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file cannot be copied.
    #[error("cannot copy {} to {}: {source}", from.display(), to.display())]
    Copy {
        /// The file.
        from: PathBuf,
        /// The destination.
        to: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// λ makes a weight too large for the type it is stored in.
    #[error("tensor '{name}' would hold weights that {dtype} cannot: λ makes them too large")]
    Overflow {
        /// The tensor, as the file names it.
        name: String,
        /// Its type.
        dtype: String,
    },
    /// The path is neither a directory nor a GGUF file.
    #[error("{} is neither a model directory nor a .gguf file", path.display())]
    NotAModel {
        /// The path.
        path: PathBuf,
    },
    /// A file is not what its name says.
    #[error("{} is not a valid {kind}: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should be.
        kind: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A file is shorter than its header says.
    #[error("{} is truncated: {why}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Where it ends and where it should.
        why: String,
    },
    /// A key of the configuration is missing.
    #[error("{} has no key '{key}'", path.display())]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A key of the configuration has an unsupported value.
    #[error("{}: {key} is {found}, but only {allowed} is supported", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What would have been allowed.
        allowed: String,
    },
    /// The architecture is not supported.
    #[error("{} is of architecture '{found}'; supported are {supported}", path.display())]
    Architecture {
        /// The file.
        path: PathBuf,
        /// The architecture it names.
        found: String,
        /// The supported architectures.
        supported: &'static str,
    },
    /// A directory without weights.
    #[error("{} holds no model.safetensors and no model.safetensors.index.json", dir.display())]
    NoWeights {
        /// The directory.
        dir: PathBuf,
    },
    /// A shard named by the index is missing.
    #[error("weight file {} is missing, though {} names it", file.display(), index.display())]
    MissingShard {
        /// The shard.
        file: PathBuf,
        /// The index.
        index: PathBuf,
    },
    /// A tensor is missing.
    #[error("{} has no tensor '{name}', which the architecture needs", path.display())]
    MissingTensor {
        /// The file or directory.
        path: PathBuf,
        /// The tensor's name in the file.
        name: String,
    },
    /// A tensor's shape differs from what the configuration asks for.
    #[error("tensor '{name}' has shape {found:?}, but the configuration asks for {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// A tensor is stored in a type that we do not read.
    #[error("tensor '{name}' is stored as {found}; readable are {allowed}")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
        /// What would have been allowed.
        allowed: &'static str,
    },
    /// Rows are not whole blocks.
    #[error(
        "tensor '{name}' has rows of {columns} features, which are no whole blocks of {held}: a block holds {block}"
    )]
    Blocks {
        /// The tensor.
        name: String,
        /// The block type.
        held: String,
        /// Features per row.
        columns: usize,
        /// Features per block.
        block: usize,
    },
    /// A tensor is stored in a type that weights cannot be held in.
    #[error(
        "tensor '{name}' is stored as {found}, which weights are not held in; held are f32, bf16, f16, q8_0, q4_0, q4_1, \
         q5_0, q5_1, q4_k, q5_k and q6_k"
    )]
    NotHeld {
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// Columns are stored in another order, in blocks that would have to be split.
    #[error(
        "tensor '{name}' has its columns in an order of llama.cpp's, and blocks of {block} do not move whole: it \
             cannot be kept in {held}"
    )]
    BlockOrder {
        /// The tensor.
        name: String,
        /// The block type.
        held: String,
        /// Features per block.
        block: usize,
    },
    /// Blocks are requested on a device without kernels for them.
    #[error("weights are held in {held} on the CPU alone")]
    BlocksDevice {
        /// The block type.
        held: String,
    },
    /// bf16 products are requested where they are not supported.
    #[error("products are rounded to bf16 where weights are held in bf16 on the CPU, not in {held} on {device}")]
    Products {
        /// What the weights are held in.
        held: String,
        /// The kind of device.
        device: &'static str,
    },
    /// A GGUF file holds a tensor type that candle cannot read.
    #[error("{} holds tensors of {found}; readable are {allowed}", path.display())]
    Ggml {
        /// The file.
        path: PathBuf,
        /// The type.
        found: String,
        /// What would have been allowed.
        allowed: &'static str,
    },
    /// Tensors that the architecture does not know.
    #[error("{} holds tensors that the architecture does not know: {}", path.display(), names.join(", "))]
    UnknownTensors {
        /// The file or directory.
        path: PathBuf,
        /// Some of them.
        names: Vec<String>,
    },
    /// A plan that the model cannot follow.
    #[error(transparent)]
    Plan(#[from] headtemper_hook::PlanError),
    /// A device whose memory was full before the model was there.
    #[error("the device has no memory left for the model's weights: {why}")]
    DeviceFull {
        /// What the device reports.
        why: String,
    },
    /// What candle reports.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// What can be given for a model.
const MODEL: &str = "a model is a directory with config.json, safetensors and tokenizer.json, a .gguf file, or a hub id such as \
                     HuggingFaceTB/SmolLM2-135M-Instruct; a config.json alone runs with --random SEED";

impl ModelError {
    /// The error of a model that was being loaded.
    pub(crate) fn of_loading(self) -> Self {
        match self {
            Self::Candle(error) if is_out_of_memory(&error) => Self::DeviceFull { why: reason(&error) },
            other => other,
        }
    }

    /// Advice to show with the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Truncated { .. } | Self::MissingShard { .. } => {
                Some("the download is incomplete; fetch the file again".into())
            }
            Self::Read { path, source }
                if source.kind() == io::ErrorKind::NotFound && path.ends_with("config.json") =>
            {
                let dir = path.parent()?;
                let beside = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
                let gguf = beside.filter(|path| path.extension().is_some_and(|it| it == "gguf")).min();
                Some(match gguf {
                    Some(file) => format!("give the file itself: {}", file.display()),
                    None if dir.join("snapshots").is_dir() => {
                        format!(
                            "this is a folder of the hub's cache: give the model's id, or a directory in {}/snapshots",
                            dir.display()
                        )
                    }
                    None => MODEL.into(),
                })
            }
            Self::NotAModel { .. } | Self::NoWeights { .. } => Some(MODEL.into()),
            Self::Products { .. } => Some("--dtype bf16 holds weights in bf16".into()),
            Self::Blocks { columns, block, .. } if columns.is_multiple_of(32) && *block > 32 => {
                Some("--weights q8_0 and the other types of 32 features a block hold such rows".into())
            }
            Self::Blocks { .. } => Some("--weights f32, bf16 and f16 hold rows of any length".into()),
            Self::BlockOrder { .. } => {
                Some("--weights stored holds this matrix in f32, exactly, and the others in their blocks".into())
            }
            Self::NotHeld { .. } => {
                Some("without --weights the values are widened once and held in f32, exactly".into())
            }
            Self::BlocksDevice { .. } => Some("--weights f32, bf16 and f16 run on every device".into()),
            Self::Ggml { .. } => Some("convert the file to one of the readable types, e.g. Q8_0 or Q4_K_M".into()),
            Self::UnknownTensors { .. } => {
                Some("the checkpoint is probably of another variant than its configuration says".into())
            }
            Self::Shape { .. } => Some("configuration and weights belong to different models".into()),
            Self::DeviceFull { .. } => {
                Some("something else may take the device's memory: take another --device, or a smaller --dtype".into())
            }
            Self::Plan(plan) => plan.hint(),
            _ => None,
        }
    }
}
