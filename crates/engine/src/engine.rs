//! A loaded model with all that turns text into tokens.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use headtemper_hook::{HeadPlan, HeadScale, ModelSpec};
use headtemper_model::{CausalLm, Checkpoint, Config, GgufFile};

use crate::{
    ChatTemplate, Encoded, EngineError, Identity, Input, Result, StopSet, TextTokenizer,
    hub::{self, HubOptions},
    identity::{sha256_files, sha256_settings},
    prompt,
};

/// Which model to open, and how.
#[derive(Clone, Debug, Default)]
pub struct ModelChoice {
    /// A directory in Hugging Face form, a `.gguf` file, or a hub id.
    pub model: String,
    /// A branch, tag or commit of a hub id.
    pub revision: Option<String>,
    /// What the weights are held in; `None` keeps what the file has.
    pub dtype: Option<DType>,
    /// `auto`, `cpu`, `cuda`, `cuda:N` or `metal`.
    pub device: String,
    /// Whether a download may show its progress on stderr.
    pub progress: bool,
}

/// A loaded model with its tokenizer, chat template and stop tokens.
pub struct Engine {
    pub(crate) model: Box<dyn CausalLm>,
    pub(crate) stop: StopSet,
    tokenizer: TextTokenizer,
    template: Option<ChatTemplate>,
    identity: Identity,
    checkpoint: Checkpoint,
    path: PathBuf,
    note: Option<String>,
}

/// Where a model lies, once found.
struct Located {
    checkpoint: Checkpoint,
    path: PathBuf,
    revision: Option<String>,
    note: Option<String>,
}

fn locate(choice: &ModelChoice) -> Result<Located> {
    let path = Path::new(&choice.model);
    let looks_local = choice.model.starts_with(['.', '/', '~']) || choice.model.ends_with(".gguf");
    if path.exists() || looks_local || choice.model.matches('/').count() != 1 {
        if !path.exists() {
            return Err(EngineError::NoSuchModel(choice.model.clone()));
        }
        if let Some(revision) = &choice.revision {
            return Err(EngineError::Setting {
                name: "revision",
                found: revision.clone(),
                allowed: "left out for a local path; it chooses among the commits of a hub id",
            });
        }
        return Ok(Located { checkpoint: Checkpoint::at(path)?, path: path.into(), revision: None, note: None });
    }
    let options = HubOptions { revision: choice.revision.as_deref(), progress: choice.progress };
    let snapshot = hub::fetch(&choice.model, &options)?;
    let checkpoint = Checkpoint::Directory(snapshot.dir.clone());
    Ok(Located { checkpoint, path: snapshot.dir, revision: Some(snapshot.commit), note: snapshot.note })
}

/// The device that was asked for.
fn device(asked: &str) -> Result<Device> {
    let fail = |why: &str| EngineError::Device { asked: asked.into(), why: why.into() };
    let (kind, index) = asked.split_once(':').unwrap_or((asked, "0"));
    let index: usize = index.parse().map_err(|_| fail("its number is not a number"))?;
    match kind {
        // A GPU is taken only when asked for: what is measured must not depend on where the binary happens to run.
        "cpu" | "auto" | "" => Ok(Device::Cpu),
        "cuda" if !candle_core::utils::cuda_is_available() => Err(fail("this binary was built without CUDA")),
        "metal" if !candle_core::utils::metal_is_available() => Err(fail("this binary was built without Metal")),
        "cuda" => Device::new_cuda(index).map_err(|e| fail(&e.to_string())),
        "metal" => Device::new_metal(index).map_err(|e| fail(&e.to_string())),
        _ => Err(fail("devices are auto, cpu, cuda, cuda:N and metal")),
    }
}

impl Engine {
    /// Opens a model.
    ///
    /// # Errors
    /// If it cannot be found, fetched, read, or is not of a supported architecture.
    pub fn open(choice: &ModelChoice) -> Result<Self> {
        let device = device(&choice.device)?;
        let Located { checkpoint, path, revision, note } = locate(choice)?;
        let config = checkpoint.config()?;
        let (tokenizer, template, stop) = text_parts(&checkpoint, &config)?;
        let model = headtemper_model::load(&checkpoint, choice.dtype, &device)?;
        let local_name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let identity = Identity {
            model: if revision.is_some() { choice.model.clone() } else { local_name.unwrap_or(choice.model.clone()) },
            architecture: model.spec().architecture.clone(),
            revision,
            weights_sha256: sha256_files(&checkpoint.weight_files()?)?,
            settings_sha256: match &checkpoint {
                Checkpoint::Directory(dir) => Some(sha256_settings(dir)?),
                Checkpoint::Gguf(_) | Checkpoint::Random { .. } => None,
            },
            template_sha256: template.as_ref().map(|t| t.hash().to_string()),
            dtype: model.dtype().as_str().into(),
            device: if device.is_cpu() { "cpu".into() } else { choice.device.clone() },
            version: env!("CARGO_PKG_VERSION").into(),
        };
        Ok(Self { model, stop, tokenizer, template, identity, checkpoint, path, note })
    }

    /// The geometry.
    pub fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    /// What exactly this is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What the model was loaded from.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// What a user should know about how the model was found, such as that the hub could not be reached.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// The model itself.
    pub fn model(&self) -> &dyn CausalLm {
        &*self.model
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// The chat template, if the model has one.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// The tokens that end a generation.
    pub fn stop(&self) -> &StopSet {
        &self.stop
    }

    /// Encodes an input and its response; `what` names it in errors.
    ///
    /// # Errors
    /// If it is empty, longer than the context, or holds ids beyond the vocabulary.
    pub fn encode(&self, what: &str, input: &Input, response: Option<&str>) -> Result<Encoded> {
        let encoded = prompt::encode(&self.tokenizer, self.template.as_ref(), input, response, &self.path)?;
        let (tokens, context, vocab) = (encoded.ids.len(), self.spec().context, self.spec().vocab);
        if tokens == 0 {
            return Err(EngineError::Empty(what.into()));
        }
        if tokens > context {
            return Err(EngineError::TooLong { what: what.into(), tokens, context });
        }
        match encoded.ids.iter().find(|&&id| id as usize >= vocab) {
            Some(&id) => Err(EngineError::TokenId { what: what.into(), id, last: vocab - 1 }),
            None => Ok(encoded),
        }
    }

    /// Compiles one plan a row; refuses heads the model does not have.
    pub(crate) fn scale(&self, plans: &[HeadPlan]) -> Result<HeadScale> {
        plans.iter().try_for_each(|plan| plan.check(self.spec()))?;
        Ok(HeadScale::compile(plans, self.spec(), DType::F32, self.model.device())?)
    }
}

fn text_parts(checkpoint: &Checkpoint, config: &Config) -> Result<(TextTokenizer, Option<ChatTemplate>, StopSet)> {
    match checkpoint {
        Checkpoint::Directory(dir) => {
            let tokenizer = TextTokenizer::from_directory(dir)?;
            let stop = StopSet::from_directory(dir, config, &tokenizer)?;
            Ok((tokenizer, ChatTemplate::from_directory(dir)?, stop))
        }
        Checkpoint::Random { config: path, .. } => {
            let tokenizer = TextTokenizer::from_directory(path)?;
            Ok((tokenizer, None, StopSet::of([])))
        }
        Checkpoint::Gguf(path) => {
            let file = GgufFile::open(path)?;
            let tokenizer = TextTokenizer::from_gguf(&file)?;
            let stop = StopSet::from_gguf(&file, config, &tokenizer);
            Ok((tokenizer, ChatTemplate::from_gguf(&file)?, stop))
        }
    }
}
