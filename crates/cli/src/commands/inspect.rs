//! `temper inspect`: what a model has, so that nobody asks it for what it lacks.

use anyhow::Result;
use candle_core::DType;
use headtemper_engine::{Inspection, ModelChoice, format_bytes};
use headtemper_hook::{LayerSpec, Mixer, ModelSpec};
use headtemper_model::Cache;
use serde_json::{Value, json};

use crate::{Done, args::Inspect, ui};

pub(crate) fn run(args: &Inspect) -> Result<Done> {
    let found = Inspection::of(&ModelChoice {
        precision: args.dtype.into(),
        device: args.device.clone(),
        ..args.model.choice()
    })?;
    if let Some(note) = &found.note {
        ui::say(&format!("note: {note}"));
    }
    let memory = Memory::of(&found);
    if args.json {
        ui::put_json(&facts(&found, &memory))?;
    } else {
        ui::put(&text(&found, &memory))?;
    }
    Ok(Done::Well)
}

/// The memory that a model takes, in bytes.
struct Memory {
    held: String,
    weights: usize,
    /// Memory-mapped tables on the host, beside the weights. They take memory only as far as their rows are read.
    mapped: usize,
    cache: DType,
    token: usize,
    sequence: usize,
}

impl Memory {
    fn of(found: &Inspection) -> Self {
        let (spec, cache) = (&found.spec, found.activations);
        Self {
            held: found.holding.to_string(),
            weights: found.holding.bytes(),
            mapped: found.holding.mapped_bytes(),
            cache,
            token: Cache::bytes_per_token(spec, cache),
            sequence: Cache::bytes_per_sequence(spec, cache),
        }
    }
}

fn facts(found: &Inspection, memory: &Memory) -> Value {
    let spec = &found.spec;
    let layers: Vec<Value> = spec.layers.iter().enumerate().map(|(layer, l)| layer_facts(spec, layer, l)).collect();
    let stop = found
        .stop
        .as_ref()
        .map(|stop| -> Vec<Value> { stop.iter().map(|(id, token)| json!({"id": id, "token": token})).collect() });
    json!({
        "model": found.model,
        "revision": found.revision,
        "architecture": spec.architecture,
        "weights_sha256": found.weights_sha256,
        "d_model": spec.d_model,
        "vocab": spec.vocab,
        "context": spec.context,
        "parameters": spec.parameters,
        "dtype": memory.held,
        "weight_bytes": memory.weights,
        "mapped_bytes": memory.mapped,
        "cache_dtype": memory.cache.as_str(),
        "cache_bytes_per_token": memory.token,
        "cache_bytes_per_sequence": memory.sequence,
        "slots": spec.slots().len(),
        "layers": layers,
        "sites": spec.sites().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "chat_template": found.template,
        "thinking_switch": found.thinking_switch,
        "stop_tokens": stop,
    })
}

fn layer_facts(spec: &ModelSpec, layer: usize, l: &LayerSpec) -> Value {
    let heads: Vec<String> = spec.heads_of(layer).map(|at| at.to_string()).collect();
    let mut facts = json!({
        "layer": layer,
        "mixer": match l.mixer {
            Mixer::Full => "full",
            Mixer::Sliding { .. } => "sliding",
            Mixer::Delta { .. } => "delta",
        },
        "heads": l.heads.count,
        "kv_heads": l.heads.kv,
        "head_dim": l.heads.dim,
        "first_head": heads.first(),
        "last_head": heads.last(),
        "site": spec.head_site(layer).to_string(),
    });
    match l.mixer {
        Mixer::Full => {}
        Mixer::Sliding { window } => facts["window"] = json!(window),
        Mixer::Delta { key_dim, kernel } => {
            facts["key_dim"] = json!(key_dim);
            facts["kernel"] = json!(kernel);
        }
    }
    if let Some(other) = l.keys_of {
        facts["keys_of"] = json!(other);
    }
    facts
}

/// One kind of layer in words.
fn kind(l: &LayerSpec) -> String {
    let heads = l.heads;
    let text = match l.mixer {
        Mixer::Full => format!("full attention, {} heads x {}, {} key/value heads", heads.count, heads.dim, heads.kv),
        Mixer::Sliding { window } => format!(
            "attention over {window} tokens, {} heads x {}, {} key/value heads",
            heads.count, heads.dim, heads.kv
        ),
        Mixer::Delta { key_dim, .. } => {
            format!("gated delta net, {} value heads x {}, {} key heads x {key_dim}", heads.count, heads.dim, heads.kv)
        }
    };
    match l.keys_of {
        Some(other) => format!("{text}, keys of layer {other}"),
        None => text,
    }
}

/// Numbers as ranges: `0-3, 5-8`.
fn ranges(numbers: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &n in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => parts.push((n, n)),
        }
    }
    let part = |&(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    parts.iter().map(part).collect::<Vec<_>>().join(", ")
}

fn text(found: &Inspection, memory: &Memory) -> String {
    let spec = &found.spec;
    let mut kinds: Vec<(String, Vec<usize>)> = Vec::new();
    for (layer, l) in spec.layers.iter().enumerate() {
        let kind = kind(l);
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, layers)) => layers.push(layer),
            None => kinds.push((kind, vec![layer])),
        }
    }
    let slots = spec.slots();
    let mut lines = vec![("architecture", spec.architecture.clone()), ("layers", spec.layers.len().to_string())];
    lines.extend(
        kinds.iter().map(|(kind, layers)| ("", format!("{:>3}: {kind} (layers {})", layers.len(), ranges(layers)))),
    );
    let sites = [
        (slots.iter().any(|at| at.kind.letter() == 'H'), "blocks.L.attn.hook_z [token, head, head_dim]"),
        (slots.iter().any(|at| at.kind.letter() == 'V'), "blocks.L.linear_attn.hook_z [token, value head, value_dim]"),
        (true, "blocks.L.hook_resid_post, ln_final.hook_normalized [token, d_model]"),
    ];
    let amount = |bytes: usize| format_bytes(bytes as u64);
    let mapped =
        if memory.mapped > 0 { format!(", {} more stay mapped", amount(memory.mapped)) } else { String::new() };
    let state =
        if memory.sequence > 0 { format!(" and {} a sequence", amount(memory.sequence)) } else { String::new() };
    lines.extend([
        ("heads", format!("{} in all, {} to {}", slots.len(), slots[0], slots[slots.len() - 1])),
        ("sites", sites.iter().filter(|(has, _)| *has).map(|(_, site)| *site).collect::<Vec<_>>().join("; ")),
        ("widths", format!("d_model {}, vocabulary {}, context {}", spec.d_model, spec.vocab, spec.context)),
        ("parameters", spec.parameters.to_string()),
        (
            "memory",
            format!(
                "{} of weights in {}{mapped}; {} of cache a token{state}, in {}",
                amount(memory.weights),
                memory.held,
                amount(memory.token),
                memory.cache.as_str()
            ),
        ),
        (
            "weights",
            match &found.weights_sha256 {
                Some(hash) => format!("sha256 {hash}"),
                None => "none here: this is what the configuration promises; --random SEED runs it".into(),
            },
        ),
        (
            "chat",
            match (found.template, found.thinking_switch) {
                (true, true) => "has a template, with --thinking on or off".into(),
                (true, false) => "has a template".into(),
                (false, _) => "no template: use --raw".into(),
            },
        ),
    ]);
    if let Some(stop) = &found.stop {
        let stop: Vec<String> =
            stop.iter().map(|(id, token)| format!("{id} {}", token.as_deref().unwrap_or_default())).collect();
        lines.push(("stops at", if stop.is_empty() { "nothing but the limit".into() } else { stop.join(", ") }));
    }
    lines.iter().map(|(name, value)| format!("{name:<13} {value}\n")).collect()
}
