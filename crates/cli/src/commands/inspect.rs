//! `temper inspect`: what a model has, before anybody asks it for something it has not.

use anyhow::Result;
use headtemper_engine::Engine;
use headtemper_hook::Mixer;
use headtemper_model::Cache;
use serde_json::{Value, json};

use crate::{Done, args::Inspect, model, ui};

pub(crate) fn run(args: &Inspect) -> Result<Done> {
    let engine = model::open(&args.model)?;
    let facts = facts(&engine);
    if args.json {
        ui::put(&format!("{}\n", serde_json::to_string_pretty(&facts)?))?;
    } else {
        ui::put(&text(&engine, &facts))?;
    }
    Ok(Done::Well)
}

fn facts(engine: &Engine) -> Value {
    let (spec, identity) = (engine.spec(), engine.identity());
    let layers: Vec<Value> = spec
        .layers
        .iter()
        .enumerate()
        .map(|(layer, l)| {
            let (mixer, h) = (mixer(l.mixer), l.heads);
            json!({"layer": layer, "mixer": mixer, "heads": h.count, "kv_heads": h.kv, "head_dim": h.dim})
        })
        .collect();
    let stop: Vec<Value> =
        engine.stop().ids().map(|id| json!({"id": id, "token": engine.tokenizer().token(id)})).collect();
    json!({
        "identity": identity,
        "d_model": spec.d_model,
        "vocab": spec.vocab,
        "context": spec.context,
        "parameters": spec.parameters,
        "weight_bytes": spec.parameters * engine.model().dtype().size_in_bytes(),
        "cache_bytes_per_token": Cache::bytes_per_token(spec, engine.model().activations()),
        "slots": spec.slots().len(),
        "layers": layers,
        "sites": ["blocks.{layer}.attn.hook_z", "blocks.{layer}.hook_resid_post", "ln_final.hook_normalized"],
        "chat_template": engine.template().is_some(),
        "stop_tokens": stop,
    })
}

/// How a layer mixes tokens, in one word.
fn mixer(mixer: Mixer) -> &'static str {
    match mixer {
        Mixer::Full => "attention",
        Mixer::Sliding { .. } => "sliding",
        Mixer::Delta { .. } => "delta",
    }
}

fn text(engine: &Engine, facts: &Value) -> String {
    let (spec, identity) = (engine.spec(), engine.identity());
    let mut groups: Vec<(String, usize)> = Vec::new();
    for layer in &spec.layers {
        let h = layer.heads;
        let kind = match layer.mixer {
            Mixer::Full => format!("{} heads x {} wide, {} key/value heads", h.count, h.dim, h.kv),
            Mixer::Sliding { window } => {
                format!("{} heads x {} wide, {} key/value heads, over {window} tokens", h.count, h.dim, h.kv)
            }
            Mixer::Delta { .. } => format!("{} value heads x {} wide, {} key heads", h.count, h.dim, h.kv),
        };
        match groups.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => groups.push((kind, 1)),
        }
    }
    let layers: Vec<String> = groups.iter().map(|(kind, count)| format!("{count} layers of {kind}")).collect();
    let stop: Vec<String> =
        engine.stop().ids().map(|id| format!("{id} {}", engine.tokenizer().token(id).unwrap_or_default())).collect();
    let last = spec.layers.len() - 1;
    let megabytes = |key: &str| facts[key].as_u64().unwrap_or(0) as f64 / 1e6;
    let lines = [
        ("architecture", identity.architecture.clone()),
        ("layers", layers.join("; ")),
        (
            "heads",
            format!("{} in all, L0H0 to L{last}H{}", spec.slots().len(), spec.head_count(last).saturating_sub(1)),
        ),
        ("widths", format!("d_model {}, vocabulary {}, context {}", spec.d_model, spec.vocab, spec.context)),
        ("parameters", spec.parameters.to_string()),
        (
            "memory",
            format!(
                "{:.0} MB of weights in {}, {:.1} KB of cache a token",
                megabytes("weight_bytes"),
                identity.dtype,
                megabytes("cache_bytes_per_token") * 1e3
            ),
        ),
        ("weights", format!("sha256 {}", identity.weights_sha256)),
        (
            "sites",
            format!(
                "blocks.0..{last}.attn.hook_z [token, head, head_dim]; blocks.0..{last}.hook_resid_post, \
                 ln_final.hook_normalized [token, d_model]"
            ),
        ),
        ("chat", if engine.template().is_some() { "has a template".into() } else { "no template: use --raw".into() }),
        ("stops at", stop.join(", ")),
    ];
    lines.iter().map(|(name, value)| format!("{name:<13} {value}\n")).collect()
}
