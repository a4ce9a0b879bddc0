//! A loaded model with everything that turns text into tokens.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use headtemper_hook::{HeadPlan, HeadScale, ModelSpec};
use headtemper_model::{CausalLm, Checkpoint, Config, Kernels, Operations, Precision, Products};

use crate::{
    ChatTemplate, Encoded, EngineError, GenerateOptions, Identity, Input, Message, Result, StopSet, TextTokenizer,
    device,
    identity::{sha256_settings, sha256_text},
    locate::{Located, locate},
    prompt,
    texts::Texts,
};

/// Which model to open, and how.
#[derive(Clone, Debug, Default)]
pub struct ModelChoice {
    /// A directory in Hugging Face form, a `.gguf` file, or a hub id.
    pub model: String,
    /// A branch, tag or commit of a hub id.
    pub revision: Option<String>,
    /// How the weights are held, and what linear layers multiply.
    pub precision: Precision,
    /// `auto`, `cpu`, `cuda`, `cuda:N` or `metal`.
    pub device: String,
    /// Whether the model thinks before it answers a chat; `None` leaves that to its chat template.
    pub thinking: Option<bool>,
    /// Seed of random weights, if any; `model` is then a `config.json`, or a directory with one.
    pub random: Option<u64>,
    /// Whether a download may show its progress on stderr.
    pub progress: bool,
}

/// A loaded model with its tokenizer, chat template and stop tokens.
pub struct Engine {
    pub(crate) model: Box<dyn CausalLm>,
    pub(crate) stop: StopSet,
    tokenizer: TextTokenizer,
    template: Option<ChatTemplate>,
    /// Tokens that hold the place of something else than text, and are refused in it.
    placeholders: Vec<u32>,
    identity: Identity,
    checkpoint: Checkpoint,
    /// As the checkpoint had it when it was opened.
    config: Config,
    path: PathBuf,
    note: Option<String>,
    pub(crate) played: Played,
}

/// Counts of decode steps that were recorded and played back.
#[derive(Default)]
pub(crate) struct Played {
    /// How many times a recording was played, some steps at a time.
    pub(crate) times: AtomicU64,
    /// What the device does in a recorded step, by the number of rows that the step is for.
    pub(crate) steps: Mutex<BTreeMap<usize, Operations>>,
}

impl Engine {
    /// Opens a model.
    ///
    /// # Errors
    /// If it cannot be found, fetched or read, or is not of a supported architecture.
    pub fn open(choice: &ModelChoice) -> Result<Self> {
        let (device, instead) = device::open(&choice.device)?;
        let located = locate(choice)?;
        let config = located.checkpoint.config()?;
        let Texts { tokenizer, template, stop, placeholders, note: of_texts } =
            Texts::of(&located.checkpoint, &config)?;
        check_thinking(template.as_ref(), choice.thinking)?;
        // The hash is computed while the model loads: whichever comes second finds the file in the page cache.
        let (model, weights_sha256) = std::thread::scope(|scope| {
            let hash = scope.spawn(|| located.weights_sha256());
            let model = headtemper_model::load(&located.checkpoint, choice.precision, &device);
            (model, hash.join().expect("hashing does not panic"))
        });
        let (model, weights_sha256) = (model?, weights_sha256?);
        let identity = Identity {
            model: located.name(choice),
            architecture: model.spec().architecture.clone(),
            revision: located.revision.clone(),
            random: choice.random,
            weights_sha256,
            settings_sha256: match &located.checkpoint {
                Checkpoint::Directory(dir) => Some(sha256_settings(dir)?),
                Checkpoint::Gguf(_) | Checkpoint::Random { .. } => None,
            },
            template_sha256: template.as_ref().map(|t| t.hash().to_string()),
            thinking: choice.thinking,
            dtype: model.holding().to_string(),
            products: match choice.precision.products {
                Products::F32 => None,
                rounded @ Products::Bf16 => Some(rounded.to_string()),
            },
            device: device::kind(&device).into(),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let Located { checkpoint, path, note, .. } = located;
        let note = device::noted(device::noted(note, instead), of_texts);
        let played = Played::default();
        Ok(Self { model, stop, tokenizer, template, placeholders, identity, checkpoint, config, path, note, played })
    }

    /// The geometry.
    pub fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    /// What exactly this model is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What the model was loaded from.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The configuration that it was loaded by.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// What a user should know about how the model was found, such as that the hub could not be reached.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// How many times decode steps were played back so far, some steps at a time; 0 where none can be.
    pub fn plays(&self) -> u64 {
        self.played.times.load(Ordering::Relaxed)
    }

    /// What the device does in each decode step that was recorded so far, by the number of rows that the step is for. If steps of
    /// several lengths were recorded for that number, the last one counts.
    pub fn recorded_steps(&self) -> BTreeMap<usize, Operations> {
        self.played.steps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tokens read at once by default: enough to keep matrix products efficient and a GPU busy.
    pub fn tokens_at_once(&self) -> usize {
        if self.on_own_device_kernels() { 16_384 } else { 2048 }
    }

    /// Rows decoded together by default. On a CPU more rows gain little; keeping a GPU busy takes many times as many. Memory may
    /// allow fewer.
    pub fn rows_at_once(&self) -> usize {
        if self.on_own_device_kernels() { 1024 } else { GenerateOptions::default().max_rows }
    }

    /// Whether our own kernels run on the model's GPU, which works best on much at once. candle's operations hold all attention
    /// scores in memory there, so they do better with little at once.
    pub(crate) fn on_own_device_kernels(&self) -> bool {
        let device = self.model.device();
        !device.is_cpu() && Kernels::serve_gpu(device)
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

    /// The same model with random weights, in f32: its geometry, tokenizer and template without anything learnt, for
    /// controls.
    ///
    /// # Errors
    /// If there is no room for it.
    pub fn with_random_weights(&self, seed: u64) -> Result<Self> {
        let config = self.config.clone();
        let Texts { tokenizer, template, stop, placeholders, .. } = Texts::of(&self.checkpoint, &config)?;
        let model = headtemper_model::load_random(&config, seed, self.model.device())?;
        let identity = Identity {
            random: Some(seed),
            weights_sha256: sha256_text(&format!("random {seed} like {}", self.identity.weights_sha256)),
            dtype: model.holding().to_string(),
            products: None,
            ..self.identity.clone()
        };
        let (checkpoint, path, note) = (self.checkpoint.clone(), self.path.clone(), None);
        let played = Played::default();
        Ok(Self { model, stop, tokenizer, template, placeholders, identity, checkpoint, config, path, note, played })
    }

    /// Encodes an input and its response; `what` names it in errors.
    ///
    /// # Errors
    /// If it is empty, longer than the context, or holds ids beyond the vocabulary or that stand for an image, video or sound.
    pub fn encode(&self, what: &str, input: &Input, response: Option<&str>) -> Result<Encoded> {
        let encoded = prompt::encode(&self.written(), input, response)?;
        self.of_text(what, &encoded.ids)?;
        self.checked(what, encoded)
    }

    /// Encodes an input and its response as one text, cut at `most` tokens: what the scripts of arXiv 2604.11867 do. The
    /// tokenizer's own special tokens are put in front, even if the chat template has written them already. The prompt is
    /// taken to be as long as when encoded alone, so the border may be a token off, and a response may be cut away entirely.
    /// Use [`Engine::encode`] for anything else.
    ///
    /// # Errors
    /// As [`Engine::encode`], and if the input is token ids, which have no text.
    pub fn encode_joined(&self, what: &str, input: &Input, response: &str, most: usize) -> Result<Encoded> {
        let encoded = prompt::encode_joined(&self.written(), input, response, most)?;
        self.of_text(what, &encoded.ids)?;
        self.checked(what, encoded)
    }

    /// A conversation as the chat template writes it for the model to answer; `None` without a template.
    ///
    /// # Errors
    /// If the template refuses it.
    pub fn render(&self, messages: &[Message]) -> Result<Option<String>> {
        self.template.as_ref().map(|template| template.render(messages, self.identity.thinking)).transpose()
    }

    fn written(&self) -> prompt::Written<'_> {
        prompt::Written {
            tokenizer: &self.tokenizer,
            template: self.template.as_ref(),
            thinking: self.identity.thinking,
            path: &self.path,
        }
    }

    /// Refuses an input that the model cannot read, whose response may be in tokens that a model wrote; `what` names it in errors.
    ///
    /// # Errors
    /// As [`Engine::encode`].
    pub fn checked(&self, what: &str, encoded: Encoded) -> Result<Encoded> {
        let (tokens, context) = (encoded.ids.len(), self.spec().context);
        if tokens == 0 {
            return Err(EngineError::Empty(what.into()));
        }
        if tokens > context {
            return Err(EngineError::TooLong { what: what.into(), tokens, context });
        }
        self.of_vocabulary(|| what.into(), &encoded.ids)?;
        if encoded.prompt_len > tokens {
            let found = encoded.prompt_len.to_string();
            return Err(EngineError::Setting { name: "prompt_len", found, allowed: "at most the number of tokens" });
        }
        // A response in the model's own tokens may hold such a one: the model wrote it, and read it by its own row.
        self.of_text(what, &encoded.ids[..encoded.prompt_len])?;
        Ok(encoded)
    }

    /// Refuses tokens that the model does not have: a GPU would read beside its embeddings.
    pub(crate) fn of_vocabulary(&self, what: impl FnOnce() -> String, ids: &[u32]) -> Result<()> {
        let vocab = self.spec().vocab;
        match ids.iter().find(|&&id| id as usize >= vocab) {
            Some(&id) => Err(EngineError::TokenId { what: what(), id, last: vocab - 1 }),
            None => Ok(()),
        }
    }

    /// Refuses tokens that stand for an image, a video or a sound.
    fn of_text(&self, what: &str, ids: &[u32]) -> Result<()> {
        match ids.iter().find(|id| self.placeholders.contains(id)) {
            Some(&id) => Err(EngineError::Placeholder { what: what.into(), id }),
            None => Ok(()),
        }
    }

    /// Compiles plans, one per row; refuses heads that the model does not have.
    pub(crate) fn scale(&self, plans: &[HeadPlan]) -> Result<HeadScale> {
        plans.iter().try_for_each(|plan| plan.check(self.spec()))?;
        Ok(HeadScale::compile(plans, self.spec(), self.model.device())?)
    }
}

/// Refuses a request for thinking if there is no chat template that could turn it on.
fn check_thinking(template: Option<&ChatTemplate>, thinking: Option<bool>) -> Result<()> {
    match template {
        Some(template) => template.check_thinking(thinking),
        None if thinking == Some(true) => Err(EngineError::Setting {
            name: "thinking",
            found: "on".into(),
            allowed: "left out for a model without a chat template",
        }),
        None => Ok(()),
    }
}
