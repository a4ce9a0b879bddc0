//! What a model is, without loading it.

use candle_core::DType;
use headtemper_hook::ModelSpec;
use headtemper_model::{Checkpoint, Holding, ModelError};

use crate::{EngineError, ModelChoice, Result, device, locate::locate, texts::Texts};

/// A model as its files describe it.
#[derive(Debug)]
pub struct Inspection {
    /// The name under which it was asked for.
    pub model: String,
    /// The commit, for a hub model.
    pub revision: Option<String>,
    /// The geometry: that of the weights, with every tensor accounted for; without weights, that of the configuration alone.
    pub spec: ModelSpec,
    /// What the weights are held in; without weights, what those on the hub, which are bf16, would be held in.
    pub holding: Holding,
    /// The dtype of activations and cache: f32 on the CPU.
    pub activations: DType,
    /// SHA-256 over the weight files.
    pub weights_sha256: Option<String>,
    /// The tokens that end a generation, with their texts; `None` where there is no tokenizer.
    pub stop: Option<Vec<(u32, Option<String>)>>,
    /// Whether there is a chat template.
    pub template: bool,
    /// Whether the chat template has a switch for thinking.
    pub thinking_switch: bool,
    /// What a user should know about how the model was found.
    pub note: Option<String>,
}

impl Inspection {
    /// Looks at a model: a directory with or without weights, a `.gguf` file, a hub id, or a `config.json` alone.
    ///
    /// # Errors
    /// If it cannot be found or is malformed, or if its tensors are not those of its configuration.
    pub fn of(choice: &ModelChoice) -> Result<Self> {
        let (device, instead) = device::open(&choice.device)?;
        let lone = std::path::Path::new(&choice.model);
        let lone = lone.is_file() && lone.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
        let random = choice.random.or(lone.then_some(0));
        let located = locate(&ModelChoice { random, ..choice.clone() })?;
        let checkpoint = &located.checkpoint;
        let weights = match checkpoint.weight_files() {
            Ok(files) => !files.is_empty(),
            Err(ModelError::NoWeights { .. }) => false,
            Err(other) => return Err(other.into()),
        };
        let hold = choice.precision.hold;
        let (spec, holding, activations) =
            if weights { checkpoint.accounted(hold, &device)? } else { checkpoint.promised(hold, &device)? };
        let texts = match Texts::of(checkpoint, &checkpoint.config()?) {
            Ok(texts) if !matches!(checkpoint, Checkpoint::Random { .. }) => Some(texts),
            Err(EngineError::Tokenizer { .. }) if !weights => None,
            Ok(_) => None,
            Err(other) => return Err(other),
        };
        let template = texts.as_ref().and_then(|texts| texts.template.as_ref());
        Ok(Self {
            model: located.name(choice),
            spec,
            holding,
            activations,
            weights_sha256: if weights { Some(located.weights_sha256()?) } else { None },
            template: template.is_some(),
            thinking_switch: template.is_some_and(crate::ChatTemplate::has_thinking_switch),
            stop: texts.as_ref().map(|t| t.stop.ids().map(|id| (id, t.tokenizer.token(id))).collect()),
            revision: located.revision,
            note: device::noted(located.note, instead),
        })
    }
}
