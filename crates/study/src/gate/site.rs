//! What a probe reads from a model: the array of a capture that it was fitted on.

use std::fmt;

use headtemper_engine::Engine;

use crate::{
    Features, Result, StudyError, check_layers, parse_layers,
    probe::{Origin, average},
};

/// The site that is no layer.
const FINAL_NORM: &str = "final_norm";

/// Where in the forward pass a probe's features come from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ProbeSite {
    /// The final norm's output.
    FinalNorm,
    /// The mean of the residual stream after these layers.
    Layers(Vec<usize>),
}

impl fmt::Display for ProbeSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FinalNorm => f.write_str(FINAL_NORM),
            Self::Layers(layers) => {
                let layers: Vec<String> = layers.iter().map(ToString::to_string).collect();
                f.write_str(&layers.join(","))
            }
        }
    }
}

impl ProbeSite {
    /// Refuses what is no site of any model, so that none has to be opened first.
    ///
    /// # Errors
    /// If it lists no layers.
    pub(crate) fn check(asked: &str) -> Result<()> {
        match asked {
            FINAL_NORM => Ok(()),
            "none" => Err(StudyError::option("--site", "no layer", "final_norm, or layers such as 26..29")),
            text => check_layers(text),
        }
    }

    /// What was asked for, or what the probe's training file says of itself.
    ///
    /// # Errors
    /// If neither says it, the two disagree, or a layer does not exist.
    pub(crate) fn of(asked: Option<&str>, train: &Origin, engine: &Engine) -> Result<Self> {
        let layers = engine.spec().layers.len();
        let asked = match asked {
            None => return Self::said(train, layers),
            Some(FINAL_NORM) => Self::FinalNorm,
            Some(text) => Self::check(text).and_then(|()| parse_layers(text, layers)).map(Self::Layers)?,
        };
        match Self::said(train, layers) {
            Ok(said) if said != asked => Err(StudyError::option(
                "--site",
                asked.to_string(),
                format!("left out, or {said}, which the probe was fitted on"),
            )),
            _ => Ok(asked),
        }
    }

    /// What the training file says of itself.
    fn said(train: &Origin, layers: usize) -> Result<Self> {
        let unknown = || {
            StudyError::option(
                "the site that the probe reads",
                format!("not said by {}", train.features),
                "given with --site: final_norm, or layers such as 26..29, whose mean is taken",
            )
        };
        let meta = train.meta.as_ref().ok_or_else(unknown)?;
        match train.features.key.as_str() {
            "h_last" => Ok(Self::FinalNorm),
            "h_layers" if !train.layers.is_empty() => Ok(Self::Layers(train.layers.clone())),
            "h_mean" => {
                let count = meta.mean_layers.filter(|&count| (1..=layers).contains(&count)).ok_or_else(unknown)?;
                Ok(Self::Layers((layers - count..layers).collect()))
            }
            _ => Err(unknown()),
        }
    }

    /// The layers that must be captured.
    pub(crate) fn layers(&self) -> Vec<usize> {
        match self {
            Self::FinalNorm => Vec::new(),
            Self::Layers(layers) => layers.clone(),
        }
    }

    /// The features of every captured item, `[n, d]`.
    pub(crate) fn features(&self, of: &Features) -> Vec<f64> {
        let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        match self {
            Self::FinalNorm => wide(&of.h_last),
            Self::Layers(layers) => average(&wide(&of.h_layers), (layers.len(), of.d_model), 0..layers.len()),
        }
    }
}
