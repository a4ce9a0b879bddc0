//! Parity with transformers: compares what we compute for a model with what transformers computed, read from a golden file.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use headtemper_hook::{HeadKind, HeadPlan, HeadRef, ModelSpec, Recorder, Site};
use headtemper_model::CausalLm;
use serde_json::Value;

use super::{
    Check,
    feed::{greedy, recorded, scale},
    parity::{Measure, Parity, Quantity, Tolerance},
};
use crate::{EngineError, Result};

/// Llama against transformers 5.17, f32: absolute, on every logit, hidden state and z. Transformers' own spread (eager,
/// SDPA, f64 weights) is 1.9e-5 on logits. Measured worst case over all kernel levels: 2.2e-5
/// (2026-11-21).
const LLAMA: f64 = 1e-4;
/// Qwen3; transformers' own spread is 1.7e-5. Measured worst case: 2.4e-5 (2026-11-21).
const QWEN3: f64 = 1e-4;
/// Qwen3.5; transformers' own spread, recurrent against chunked form included, is 3.9e-4. Measured worst case: 4.3e-4
/// (2026-11-21).
const QWEN35: f64 = 2e-3;
/// Gemma 4; transformers' own spread is 2.3e-4. Measured worst case: 1.5e-4 (2026-11-21).
const GEMMA4: f64 = 1e-3;
/// f32 on another device than the CPU. Measured worst case on an H200 (2026-11-27): 2.7e-4 for Qwen3.5; 9.3e-5 for the others,
/// in the final norm.
const DEVICE: f64 = 5e-3;

/// 1 minus the cosine between a token's vectors in bf16 or f16 and in f32, at every site. Where four times transformers' own loss
/// is more, that is allowed, up to 0.5. Measured worst case on the stand-in for a CUDA device (2026-11-26): 1.6e-4 in Llama and
/// Qwen3, 2.9 times transformers' own loss in Gemma 4 and half of it in Qwen3.5, whose random weights amplify every rounding.
const DIRECTION: f64 = 1e-3;

/// How much a model may differ from transformers.
pub fn tolerance(spec: &ModelSpec) -> f64 {
    match spec.architecture.as_str() {
        "qwen3" => QWEN3,
        "qwen3_5" => QWEN35,
        "gemma4" => GEMMA4,
        _ => LLAMA,
    }
}

/// What transformers computed for one model. `scripts/golden/common.py` describes the layout, and `make_checkpoint.py`
/// beside it the layout for a real checkpoint.
pub struct Golden {
    /// Tensors by name.
    pub tensors: HashMap<String, Tensor>,
    /// Sequences, plans, versions.
    pub meta: Value,
    /// What transformers itself loses in 16 bits, by dtype, if that was measured (`scripts/golden/halves.py`).
    halves: Value,
    path: PathBuf,
}

impl Golden {
    /// Reads a `.safetensors` file and the `.json` file of the same name beside it.
    ///
    /// # Errors
    /// If either is missing or malformed.
    pub fn read(path: &Path) -> Result<Self> {
        let fail = |path: &Path, why: String| EngineError::Golden { path: path.into(), why };
        let bytes = std::fs::read(path).map_err(|e| fail(path, e.to_string()))?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
            .map_err(|e| fail(path, format!("not a safetensors file: {e}")))?;
        let json = path.with_extension("json");
        let text = std::fs::read_to_string(&json).map_err(|e| fail(&json, e.to_string()))?;
        let meta = serde_json::from_str(&text).map_err(|e| fail(&json, format!("not JSON: {e}")))?;
        let halves = path.with_file_name("halves.json");
        let halves = match std::fs::read_to_string(&halves) {
            Ok(text) => serde_json::from_str(&text).map_err(|e| fail(&halves, format!("not JSON: {e}")))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Value::Null,
            Err(e) => return Err(fail(&halves, e.to_string())),
        };
        Ok(Self { tensors, meta, halves, path: path.into() })
    }

    fn lacks(&self, what: &str) -> EngineError {
        self.wrong(format!("it has no {what}"))
    }

    pub(super) fn wrong(&self, why: String) -> EngineError {
        EngineError::Golden { path: self.path.clone(), why }
    }

    /// A tensor by name.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).ok_or_else(|| self.lacks(&format!("tensor '{name}'")))
    }

    /// A tensor of token ids.
    ///
    /// # Errors
    /// If there is none.
    pub fn ids(&self, name: &str) -> Result<Vec<u32>> {
        Ok(self.get(name)?.to_vec1::<i64>()?.into_iter().map(|id| id as u32).collect())
    }

    /// For every sequence, whether only its last position is stored.
    fn sequences(&self) -> Result<Vec<bool>> {
        let list = self.meta["sequences"].as_array().filter(|list| !list.is_empty());
        let list = list.ok_or_else(|| self.lacks("list 'sequences' in its .json"))?;
        let final_only = |s: &Value| s["final_only"].as_bool().ok_or_else(|| self.lacks("'final_only' of a sequence"));
        list.iter().map(final_only).collect()
    }

    /// The tempering sets whose results are stored.
    pub fn sets(&self) -> Vec<String> {
        let stored = |set: &&String| self.tensors.contains_key(&format!("seq0.{set}.logits"));
        self.meta["sets"].as_object().into_iter().flat_map(serde_json::Map::keys).filter(stored).cloned().collect()
    }

    /// The plan of a set: `sets[name]` is a list of `[layer, head, lambda]`, without λ if the set's name implies it.
    ///
    /// # Errors
    /// If there is no such set, or it is not a plan.
    pub fn plan(&self, set: &str) -> Result<HeadPlan> {
        let lacks = || self.lacks(&format!("set '{set}' of [layer, head, lambda] in its .json"));
        let entry = |e: &Value| {
            let (layer, head) = (e[0].as_u64()? as usize, e[1].as_u64()? as usize);
            let linear = self.meta["layers"][layer]["proj"] == "out_proj";
            let kind = if linear { HeadKind::Value } else { HeadKind::Query };
            Some((HeadRef { layer, head, kind }, e[2].as_f64().or_else(|| set_lambda(set))? as f32))
        };
        let list = self.meta["sets"][set].as_array().ok_or_else(lacks)?;
        let entries: Option<Vec<_>> = list.iter().map(entry).collect();
        Ok(HeadPlan::new(entries.ok_or_else(lacks)?)?)
    }

    /// Compares a model with everything that is stored: logits, the residual stream after every layer, every z, the final norm,
    /// every tempering set, and greedy tokens. Returns one check per quantity, with the worst over all sequences and layers. 16-bit
    /// activations are compared by directions and top tokens.
    ///
    /// # Errors
    /// If the file lacks something.
    pub fn checks(&self, model: &dyn CausalLm) -> Result<Vec<Check>> {
        let wide = model.activations() == DType::F32;
        let geometry = self.geometry(model.spec())?;
        if geometry.failed() {
            return Ok(vec![geometry]);
        }
        let mut parity = Parity::of(if wide { Measure::Values } else { Measure::Directions });
        for (i, final_only) in self.sequences()?.into_iter().enumerate() {
            self.compare_sequence(model, i, final_only, &mut parity)?;
            for set in self.sets() {
                self.compare_set(model, i, &set, &mut parity)?;
            }
        }
        if !wide {
            let checks = self.halves.get(model.activations().as_str());
            return Ok([vec![geometry], parity.checks(&Tolerance { family: DIRECTION, checks })].concat());
        }
        let family = tolerance(model.spec());
        let family = if model.device().is_cpu() { family } else { family.max(DEVICE) };
        let checks = self.meta["checkpoint"].is_object().then(|| &self.meta["checks"]);
        Ok([vec![geometry], parity.checks(&Tolerance { family, checks })].concat())
    }

    /// Whether the file is for a model of this geometry; otherwise the other checks would be noise.
    fn geometry(&self, spec: &ModelSpec) -> Result<Check> {
        let layers = self.meta["layers"].as_array().ok_or_else(|| self.lacks("list 'layers' in its .json"))?;
        let theirs = |layer: usize| -> String {
            layers.get(layer).map_or("nothing".into(), |l| {
                format!("{} heads x {} into {}", l["heads"], l["head_dim"], l["proj"].as_str().unwrap_or_default())
            })
        };
        let ours = |layer: usize| -> String {
            spec.layers.get(layer).map_or("nothing".into(), |l| {
                let proj = if l.kind() == HeadKind::Value { "out_proj" } else { "o_proj" };
                format!("{} heads x {} into {proj}", l.heads.count, l.heads.dim)
            })
        };
        let places = layers.len().max(spec.layers.len());
        let wrong: Vec<usize> = (0..places).filter(|&layer| ours(layer) != theirs(layer)).collect();
        let hidden = self.get("seq0.last_layer_out")?.dims1()?;
        let vocab = self.get("seq0.logits")?.dims().last().copied().unwrap_or(0);
        let (widths, measured) = ((spec.d_model, spec.vocab) == (hidden, vocab), wrong.len());
        let (measured, note) = match wrong.first() {
            None if widths => (0, format!("{} layers", layers.len())),
            None => (1, format!("d_model {}, vocabulary {}; the file has {hidden}, {vocab}", spec.d_model, spec.vocab)),
            Some(&at) => (measured, format!("layer {at} has {}, in the file {}", ours(at), theirs(at))),
        };
        Ok(Check::of("golden geometry", 0.0, Ok((measured as f64, note))))
    }

    fn compare_sequence(&self, model: &dyn CausalLm, i: usize, final_only: bool, parity: &mut Parity) -> Result<()> {
        let ids = self.ids(&format!("seq{i}.input_ids"))?;
        let last = |x: &Tensor| x.get(x.dim(0)? - 1);
        let pick = |x: &Tensor| if final_only { last(x) } else { Ok(x.clone()) };
        let (record, normed) = recorded(model, &ids, None)?;
        let logits = if final_only { last_logits(model, &normed)? } else { model.logits(&normed)? };
        parity.compare(Quantity::Logits, &format!("seq{i}"), &logits, self.get(&format!("seq{i}.logits"))?)?;
        let hidden = self.get(&format!("seq{i}.hidden_states"))?;
        let layers = model.spec().layers.len();
        for site in model.spec().sites() {
            let at = format!("seq{i} {site}");
            let Some(x) = seen(&record, site) else {
                parity.never(Quantity::of(site), &at);
                continue;
            };
            match site {
                Site::Z(layer) | Site::LinearZ(layer) => {
                    let theirs = self.get(&format!("seq{i}.o_in.{layer}"))?;
                    parity.compare(Quantity::of(site), &at, &pick(&x.flatten_from(1)?)?, theirs)?;
                }
                Site::ResidPost(layer) if layer + 1 < layers => {
                    parity.compare(Quantity::Residual, &at, &pick(x)?, &hidden.get(layer + 1)?)?;
                }
                Site::ResidPost(_) => {
                    let theirs = self.get(&format!("seq{i}.last_layer_out"))?;
                    parity.compare(Quantity::Residual, &at, &last(x)?, theirs)?;
                }
                Site::FinalNorm => parity.compare(Quantity::Norm, &at, &pick(x)?, &hidden.get(layers)?)?,
            }
        }
        if !parity.counts_tokens() {
            return Ok(());
        }
        let at = format!("seq{i}");
        let (theirs, leads) = self.greedy(&at)?;
        let ours = greedy(model, &ids, theirs.len(), &mut ())?;
        parity.tokens(&at, false, &ours, &theirs, leads.as_deref());
        Ok(())
    }

    fn compare_set(&self, model: &dyn CausalLm, i: usize, set: &str, parity: &mut Parity) -> Result<()> {
        let (ids, plan) = (self.ids(&format!("seq{i}.input_ids"))?, self.plan(set)?);
        let at = format!("seq{i} {set}");
        let (record, normed) = recorded(model, &ids, Some(&plan))?;
        let theirs = self.get(&format!("seq{i}.{set}.logits"))?;
        let ours = if theirs.rank() == 1 { last_logits(model, &normed)? } else { model.logits(&normed)? };
        // Only some logits of a large vocabulary are stored.
        let ours = if self.meta["sampled_logits"] == true {
            ours.index_select(&Tensor::new(self.ids("logit_ids")?, ours.device())?, 0)?
        } else {
            ours
        };
        parity.compare(Quantity::Tempered, &at, &ours, theirs)?;
        match seen(&record, Site::FinalNorm) {
            Some(x) => {
                let theirs = self.get(&format!("seq{i}.{set}.h_last"))?;
                parity.compare(Quantity::TemperedNorm, &at, &x.get(ids.len() - 1)?, theirs)?;
            }
            None => parity.never(Quantity::TemperedNorm, &at),
        }
        if !parity.counts_tokens() {
            return Ok(());
        }
        let (theirs, leads) = self.greedy(&format!("seq{i}.{set}"))?;
        let mut tap = scale(model, &[plan])?;
        parity.tokens(&at, true, &greedy(model, &ids, theirs.len(), &mut tap)?, &theirs, leads.as_deref());
        Ok(())
    }

    /// A greedy continuation, and each token's lead over the runner-up if the file has it.
    fn greedy(&self, run: &str) -> Result<(Vec<u32>, Option<Vec<f32>>)> {
        let leads = self.tensors.get(&format!("{run}.greedy_lead")).map(Tensor::to_vec1).transpose()?;
        Ok((self.ids(&format!("{run}.greedy"))?, leads))
    }
}

/// The logits at the last of some final hidden states.
fn last_logits(model: &dyn CausalLm, normed: &Tensor) -> candle_core::Result<Tensor> {
    model.logits(&normed.narrow(0, normed.dim(0)? - 1, 1)?)?.get(0)
}

/// The λ of a set, if the file gives only layer and head.
fn set_lambda(set: &str) -> Option<f64> {
    match set {
        "half" => Some(0.5),
        "zero" => Some(0.0),
        "one" => Some(1.0),
        _ => None,
    }
}

/// What a site saw, if it fired once.
fn seen(record: &Recorder, site: Site) -> Option<&Tensor> {
    let mut seen = record.0.iter().filter(|(at, _)| *at == site).map(|(_, x)| x);
    seen.next().filter(|_| seen.next().is_none())
}
