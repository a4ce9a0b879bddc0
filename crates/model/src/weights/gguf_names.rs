//! Names of tensors in GGUF files (`gguf/constants.py`, `TENSOR_NAMES`) and in transformers.

/// Names outside layers: transformers, GGUF.
const WHOLE: [(&str, &str); 6] = [
    ("model.embed_tokens.weight", "token_embd.weight"),
    ("model.norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight"),
    ("model.embed_tokens_per_layer.weight", "per_layer_token_embd.weight"),
    ("model.per_layer_model_projection.weight", "per_layer_model_proj.weight"),
    ("model.per_layer_projection_norm.weight", "per_layer_proj_norm.weight"),
];

/// Names inside a layer that all architectures share.
const LAYER: [(&str, &str); 11] = [
    ("input_layernorm.weight", "attn_norm.weight"),
    ("self_attn.q_proj.weight", "attn_q.weight"),
    ("self_attn.k_proj.weight", "attn_k.weight"),
    ("self_attn.v_proj.weight", "attn_v.weight"),
    ("self_attn.o_proj.weight", "attn_output.weight"),
    ("self_attn.q_norm.weight", "attn_q_norm.weight"),
    ("self_attn.k_norm.weight", "attn_k_norm.weight"),
    ("mlp.gate_proj.weight", "ffn_gate.weight"),
    ("mlp.up_proj.weight", "ffn_up.weight"),
    ("mlp.down_proj.weight", "ffn_down.weight"),
    ("layer_scalar", "layer_output_scale.weight"),
];

/// The norm before the MLP in Llama and Qwen3.
const PRE_NORM: [(&str, &str); 1] = [("post_attention_layernorm.weight", "ffn_norm.weight")];

const QWEN35: [(&str, &str); 10] = [
    ("post_attention_layernorm.weight", "post_attention_norm.weight"),
    ("linear_attn.in_proj_qkv.weight", "attn_qkv.weight"),
    ("linear_attn.in_proj_z.weight", "attn_gate.weight"),
    ("linear_attn.in_proj_a.weight", "ssm_alpha.weight"),
    ("linear_attn.in_proj_b.weight", "ssm_beta.weight"),
    ("linear_attn.conv1d.weight", "ssm_conv1d.weight"),
    ("linear_attn.A_log", "ssm_a"),
    ("linear_attn.dt_bias", "ssm_dt.bias"),
    ("linear_attn.norm.weight", "ssm_norm.weight"),
    ("linear_attn.out_proj.weight", "ssm_out.weight"),
];

const GEMMA4: [(&str, &str); 6] = [
    ("post_attention_layernorm.weight", "post_attention_norm.weight"),
    ("pre_feedforward_layernorm.weight", "ffn_norm.weight"),
    ("post_feedforward_layernorm.weight", "post_ffw_norm.weight"),
    ("post_per_layer_input_norm.weight", "post_norm.weight"),
    ("per_layer_input_gate.weight", "inp_gate.weight"),
    ("per_layer_projection.weight", "proj.weight"),
];

fn in_layer(architecture: &str) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    let own: &[(&str, &str)] = match architecture {
        "qwen35" => &QWEN35,
        "gemma4" => &GEMMA4,
        _ => &PRE_NORM,
    };
    LAYER.iter().chain(own)
}

/// The name in the file; a name without a counterpart is unchanged.
pub(super) fn stored(architecture: &str, name: &str) -> String {
    if let Some((_, stored)) = WHOLE.iter().find(|(text, _)| *text == name) {
        return (*stored).into();
    }
    let find = || {
        let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
        let (_, stored) = in_layer(architecture).find(|(text, _)| *text == part)?;
        Some(format!("blk.{layer}.{stored}"))
    };
    find().unwrap_or_else(|| name.into())
}

/// The transformers name for a name in the file; a name without a counterpart is unchanged.
pub(super) fn of_text(architecture: &str, stored: &str) -> String {
    if let Some((text, _)) = WHOLE.iter().find(|(_, name)| *name == stored) {
        return (*text).into();
    }
    let find = || {
        let (layer, part) = stored.strip_prefix("blk.")?.split_once('.')?;
        let (text, _) = in_layer(architecture).find(|(_, name)| *name == part)?;
        Some(format!("model.layers.{layer}.{text}"))
    };
    find().unwrap_or_else(|| stored.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back_in_every_architecture() {
        for architecture in ["llama", "qwen3", "qwen35", "gemma4"] {
            for (part, _) in in_layer(architecture) {
                let name = format!("model.layers.12.{part}");
                let file = stored(architecture, &name);
                assert!(file.starts_with("blk.12."), "{file}");
                assert_eq!(of_text(architecture, &file), name, "{architecture}");
            }
        }
        assert_eq!(
            stored("gemma4", "model.layers.0.post_attention_layernorm.weight"),
            "blk.0.post_attention_norm.weight"
        );
        assert_eq!(stored("qwen3", "model.layers.0.post_attention_layernorm.weight"), "blk.0.ffn_norm.weight");
        assert_eq!(stored("llama", "lm_head.weight"), "output.weight");
        assert_eq!(stored("llama", "model.other"), "model.other");
    }
}
