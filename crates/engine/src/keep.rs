//! What is kept of a text, whether it is read in one pass or captured during generation: hidden states and heads, pooled over
//! its last tokens.

use std::{fmt, ops::Range, str::FromStr};

use candle_core::{DType, Tensor};
use headtemper_hook::{HeadCapture, HeadRef, HiddenCapture, ModelSpec, PlanError, Site, Tap};

use crate::{Encoded, EngineError, Result};

/// What to keep of each head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HeadsWanted {
    /// Nothing.
    None,
    /// The mean L2 norm of z over the last tokens.
    #[default]
    Norm,
    /// The mean norm, and the mean of z itself.
    Vector,
}

impl HeadsWanted {
    /// Its name in a capture's file.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Norm => "norm",
            Self::Vector => "vector",
        }
    }
}

/// Which tokens hidden states are averaged over. Written `last`, `last:N` or `response`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Pool {
    /// The last token alone.
    #[default]
    Last,
    /// The last N tokens of the response, or fewer if it is shorter; of the whole text if it has no response.
    LastN(usize),
    /// The whole response.
    Response,
}

impl Pool {
    /// The tokens that a text is averaged over; `None` for [`Pool::Response`] if it has no response.
    pub fn of(self, text: &Encoded) -> Option<Range<usize>> {
        match self {
            Self::Last => Some(text.last(1)),
            Self::LastN(n) => Some(text.last(n)),
            Self::Response => (text.prompt_len < text.ids.len()).then(|| text.span()),
        }
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last => f.write_str("last"),
            Self::LastN(n) => write!(f, "last:{n}"),
            Self::Response => f.write_str("response"),
        }
    }
}

impl FromStr for Pool {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self> {
        let number = |n: &str| n.parse().ok().filter(|&n: &usize| n > 0 && !text.contains('+'));
        match text {
            "last" => Ok(Self::Last),
            "response" => Ok(Self::Response),
            _ => match text.strip_prefix("last:").and_then(number) {
                Some(1) => Ok(Self::Last),
                Some(n) => Ok(Self::LastN(n)),
                None => Err(EngineError::Setting {
                    name: "pool",
                    found: format!("'{text}'"),
                    allowed: "last, last:N with N at least 1, or response",
                }),
            },
        }
    }
}

/// What to keep of each text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Layers whose residual stream is kept.
    pub layers: Vec<usize>,
    /// How many of the last layers to keep the mean residual stream of, if any.
    pub mean_layers: Option<usize>,
    /// Which tokens the final norm's output and the residual stream are averaged over.
    pub pool: Pool,
    /// What is kept of every head of every layer.
    pub heads: HeadsWanted,
    /// How many of the last response tokens heads are averaged over; fewer if the response is shorter.
    pub last_n: usize,
    /// Whether the last token's logits are kept.
    pub logits: bool,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            layers: Vec::new(),
            mean_layers: None,
            pool: Pool::Last,
            heads: HeadsWanted::Norm,
            last_n: Keep::LAST_N,
            logits: false,
        }
    }
}

/// The error for the mean of a number of layers that there cannot be.
fn no_mean_of(layers: usize) -> EngineError {
    let allowed = "from 1 to the number of layers";
    EngineError::Setting { name: "mean_layers", found: layers.to_string(), allowed }
}

/// What was kept of one text; all f32.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CaptureRow {
    /// The final norm's output, `[d_model]`.
    pub h_last: Vec<f32>,
    /// The residual stream after each requested layer, `[d_model]` each.
    pub h_layers: Vec<Vec<f32>>,
    /// The mean residual stream of the last layers, `[d_model]`; empty if it was not asked for.
    pub h_mean: Vec<f32>,
    /// Mean norm of every head, in slot order.
    pub head_norm: Vec<f32>,
    /// Norm of every head at the last token alone, in slot order.
    pub head_norm_final: Vec<f32>,
    /// Mean z of every layer's heads, `[head * head_dim]` each.
    pub head_vectors: Vec<Vec<f32>>,
    /// Logits of the last token, `[vocab]`.
    pub logits: Vec<f32>,
}

impl CaptureRow {
    /// Whether everything that was kept is finite.
    pub fn is_finite(&self) -> bool {
        let flat = [&self.h_last, &self.h_mean, &self.head_norm, &self.head_norm_final, &self.logits];
        flat.into_iter().chain(&self.h_layers).chain(&self.head_vectors).flatten().all(|x| x.is_finite())
    }
}

impl Keep {
    /// Response tokens that heads are averaged over, by default: as in the paper's scripts.
    pub const LAST_N: usize = 32;

    /// Refuses settings that make no sense for any model.
    ///
    /// # Errors
    /// Names the setting and what would have been allowed.
    pub fn check_alone(&self) -> Result<()> {
        if self.last_n == 0 {
            return Err(EngineError::Setting { name: "last_n", found: "0".into(), allowed: "at least 1" });
        }
        if self.pool == Pool::LastN(0) {
            return Err(EngineError::Setting {
                name: "the pool",
                found: self.pool.to_string(),
                allowed: "at least last:1",
            });
        }
        if self.mean_layers == Some(0) { Err(no_mean_of(0)) } else { Ok(()) }
    }

    /// Refuses settings that make no sense for a model.
    ///
    /// # Errors
    /// Names the setting and what would have been allowed.
    pub(crate) fn check(&self, spec: &ModelSpec) -> Result<()> {
        self.check_alone()?;
        let layers = spec.layers.len();
        if let Some(layer) = self.layers.iter().find(|&&layer| layer >= layers) {
            return Err(PlanError::NoSuchLayer { at: HeadRef::query(*layer, 0), layers }.into());
        }
        self.mean_layers.filter(|&k| k > layers).map_or(Ok(()), |k| Err(no_mean_of(k)))
    }

    /// Numbers that are kept of one text.
    pub fn numbers(&self, spec: &ModelSpec) -> usize {
        let hidden = 1 + self.layers.len() + usize::from(self.mean_layers.is_some());
        spec.d_model * hidden + self.beside_hidden(spec)
    }

    /// Numbers that a pass returns for one text. Unlike in [`Keep::numbers`], each layer of a mean counts.
    pub(crate) fn read(&self, spec: &ModelSpec) -> usize {
        self.read_hidden(spec) + self.beside_hidden(spec)
    }

    /// How many of these are hidden states.
    fn read_hidden(&self, spec: &ModelSpec) -> usize {
        spec.d_model * (1 + self.residual(spec).len())
    }

    /// Numbers of one text that are not hidden states: heads, their norms at the last token, logits.
    fn beside_hidden(&self, spec: &ModelSpec) -> usize {
        let last_norms = if self.heads == HeadsWanted::None { 0 } else { spec.slots().len() };
        let logits = if self.logits { spec.vocab } else { 0 };
        self.of_heads(spec) + last_norms + logits
    }

    /// Numbers for all heads together, at one token or averaged.
    fn of_heads(&self, spec: &ModelSpec) -> usize {
        match self.heads {
            HeadsWanted::None => 0,
            HeadsWanted::Norm => spec.slots().len(),
            HeadsWanted::Vector => spec.slots().len() + width(spec),
        }
    }

    /// Numbers that are held for one text of at most `most` tokens during generation, token by token.
    pub(crate) fn rolling(&self, spec: &ModelSpec, most: usize) -> usize {
        let hidden = self.read_hidden(spec);
        let pooled = match self.pool {
            Pool::Last | Pool::Response => hidden,
            Pool::LastN(n) => n.min(most).saturating_mul(hidden),
        };
        let heads = self.last_n.min(most).saturating_mul(self.of_heads(spec));
        self.read(spec).saturating_add(pooled).saturating_add(heads)
    }

    /// The layers whose residual stream is read, ascending.
    fn residual(&self, spec: &ModelSpec) -> Vec<usize> {
        let layers = spec.layers.len();
        let mut read = self.layers.clone();
        read.extend(self.mean_layers.into_iter().flat_map(|k| layers - k.min(layers)..layers));
        read.sort_unstable();
        read.dedup();
        read
    }

    /// Where hidden states are read, in the order of [`Seen::hidden`].
    pub(crate) fn sites(&self, spec: &ModelSpec) -> Vec<Site> {
        self.residual(spec).into_iter().map(Site::ResidPost).chain([Site::FinalNorm]).collect()
    }

    /// The taps of a pass: `hidden` reads the hidden states. If heads are kept, another tap reads them over `heads`, the ranges of
    /// packed tokens, one per text.
    pub(crate) fn reader(&self, hidden: HiddenCapture, heads: Vec<Range<usize>>) -> Reader {
        let wanted = self.heads != HeadsWanted::None;
        Reader { hidden, heads: wanted.then(|| HeadCapture::new(heads, self.heads == HeadsWanted::Vector)) }
    }

    /// Arranges what was read of a text into a row.
    pub(crate) fn row(&self, spec: &ModelSpec, seen: Seen) -> CaptureRow {
        let (d, layers) = (spec.d_model, self.residual(spec));
        let of = |layer: &usize| {
            let at = layers.binary_search(layer).expect("every layer that is kept is read");
            &seen.hidden[at * d..(at + 1) * d]
        };
        let h_mean = self.mean_layers.map_or_else(Vec::new, |k| {
            let last = &layers[layers.len() - k..];
            Mean::over(last.iter().map(of)).value()
        });
        let slots = if seen.heads.is_empty() { 0 } else { spec.slots().len() };
        let (norms, mut vectors) = seen.heads.split_at(slots);
        let mut head_vectors = Vec::new();
        if !vectors.is_empty() {
            for layer in &spec.layers {
                let (own, others) = vectors.split_at(layer.heads.width());
                head_vectors.push(own.to_vec());
                vectors = others;
            }
        }
        CaptureRow {
            h_last: seen.hidden[layers.len() * d..].to_vec(),
            h_layers: self.layers.iter().map(|layer| of(layer).to_vec()).collect(),
            h_mean,
            head_norm: norms.to_vec(),
            head_norm_final: seen.last_norms,
            head_vectors,
            logits: seen.logits,
        }
    }
}

/// Numbers of z, all layers together.
fn width(spec: &ModelSpec) -> usize {
    spec.layers.iter().map(|layer| layer.heads.width()).sum()
}

/// The taps that read what a [`Keep`] asks for in one forward pass.
pub(crate) struct Reader {
    hidden: HiddenCapture,
    heads: Option<HeadCapture>,
}

/// What a pass has shown of one text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The residual stream of the layers that are read, ascending, and the final norm's output: `[layers + 1, d_model]`.
    pub(crate) hidden: Vec<f32>,
    /// Norms in slot order, followed by z of every layer's heads if it is kept.
    pub(crate) heads: Vec<f32>,
    /// Norms at the last token.
    pub(crate) last_norms: Vec<f32>,
    /// Logits of the last token.
    pub(crate) logits: Vec<f32>,
}

impl Reader {
    /// The taps for a forward pass.
    pub(crate) fn taps(&mut self) -> impl Iterator<Item = &mut dyn Tap> {
        let heads = self.heads.as_mut().map(|heads| heads as &mut dyn Tap);
        std::iter::once(&mut self.hidden as &mut dyn Tap).chain(heads)
    }

    /// What the pass has shown of each of `texts` texts, except their logits. It makes one transfer to the host, since each transfer
    /// waits until the device is done.
    pub(crate) fn seen(self, texts: usize) -> Result<Vec<Seen>> {
        type Field = fn(&mut Seen) -> &mut Vec<f32>;
        // Sites are ordered as they are declared: the layers, then the final norm.
        let hidden = self.hidden.into_sites().into_values().map(|x| (x, (|seen| &mut seen.hidden) as Field));
        let mut parts: Vec<(Tensor, Field)> = hidden.collect();
        let mut vectors = Vec::new();
        for layer in self.heads.map(HeadCapture::into_layers).unwrap_or_default().into_values() {
            parts.push((layer.norms, |seen| &mut seen.heads));
            parts.push((layer.last_norms, |seen| &mut seen.last_norms));
            if let Some(z) = layer.vectors {
                vectors.push((z.flatten_from(1)?, (|seen| &mut seen.heads) as Field));
            }
        }
        parts.append(&mut vectors); // after all norms
        let mut seen = vec![Seen::default(); texts];
        let all = Tensor::cat(&parts.iter().map(|(x, _)| x).collect::<Vec<_>>(), 1)?.to_vec2::<f32>()?;
        for (text, row) in seen.iter_mut().zip(&all) {
            let mut rest = row.as_slice();
            for (x, field) in &parts {
                let (own, others) = rest.split_at(x.dim(1)?);
                field(text).extend(own);
                rest = others;
            }
        }
        Ok(seen)
    }
}

/// Hands each row of a `[text, ..]` tensor to its text.
pub(crate) fn spread(x: &Tensor, texts: &mut [Seen], mut give: impl FnMut(&mut Seen, Vec<f32>)) -> Result<()> {
    for (text, values) in texts.iter_mut().zip(x.to_dtype(DType::F32)?.to_vec2::<f32>()?) {
        give(text, values);
    }
    Ok(())
}

/// A mean computed as candle does, so that both have the same bits: values are summed in order from 0, and the sum is
/// multiplied by one over their number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mean {
    sum: Vec<f32>,
    count: usize,
}

impl Mean {
    pub(crate) fn over<'a>(rows: impl IntoIterator<Item = &'a [f32]>) -> Self {
        let mut mean = Self::default();
        for row in rows {
            mean.add(row);
        }
        mean
    }

    pub(crate) fn add(&mut self, values: &[f32]) {
        self.sum.resize(values.len(), 0.0);
        self.sum.iter_mut().zip(values).for_each(|(sum, x)| *sum += x);
        self.count += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn value(self) -> Vec<f32> {
        let scale = (1.0 / self.count as f64) as f32;
        self.sum.into_iter().map(|sum| sum * scale).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_written_and_read() {
        for (text, pool) in [("last", Pool::Last), ("last:4", Pool::LastN(4)), ("response", Pool::Response)] {
            assert_eq!((text.parse::<Pool>().unwrap(), pool.to_string()), (pool, text.to_string()));
        }
        assert_eq!("last:1".parse::<Pool>().unwrap(), Pool::Last);
        for wrong in ["", "first", "last:", "last:0", "last:-1", "last:+2", "last:x", "Last", "response:3"] {
            let error = wrong.parse::<Pool>().unwrap_err().to_string();
            assert_eq!(error, format!("pool is '{wrong}', but must be last, last:N with N at least 1, or response"));
        }
    }

    #[test]
    fn pools_cover_the_response_or_say_that_there_is_none() {
        let with = Encoded { ids: vec![0; 10], prompt_len: 7 };
        let of =
            |text: &Encoded| [Pool::Last, Pool::LastN(2), Pool::LastN(9), Pool::Response].map(|pool| pool.of(text));
        assert_eq!(of(&with), [Some(9..10), Some(8..10), Some(7..10), Some(7..10)]);
        let without = Encoded { ids: vec![0; 10], prompt_len: 10 };
        assert_eq!(of(&without), [Some(9..10), Some(8..10), Some(1..10), None]);
    }

    #[test]
    fn a_mean_is_candles() {
        let rows = [[0.1f32, -0.0, 3e7], [0.7, 0.0, 1.25], [1e-9, -0.0, -3e7]];
        let mean = Mean::over(rows.iter().map(|row| &row[..]));
        let theirs = Tensor::new(&rows, &candle_core::Device::Cpu).unwrap().mean(0).unwrap().to_vec1::<f32>().unwrap();
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(mean.value()), bits(theirs));
    }
}
