//! Places in the forward pass.

use std::{fmt, str::FromStr};

/// A place in the forward pass where a [`Tap`](crate::Tap) may read or replace the tensor.
///
/// Layer indices count all decoder layers from 0. The site tests prove that every variant fires once per forward, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Site {
    /// The input of the layer's output projection, per head, after any output gate: `[token, head, head_dim]`.
    Z(usize),
    /// The same of a gated delta net: its value heads after the gated norm, `[token, value head, value_dim]`.
    LinearZ(usize),
    /// The residual stream after the layer: `[token, d_model]`.
    ResidPost(usize),
    /// The output of the final norm, which the language-model head reads: `[token, d_model]`.
    FinalNorm,
}

impl Site {
    /// The layer whose heads are seen here; `None` unless this is [`Site::Z`] or [`Site::LinearZ`].
    pub fn head_layer(self) -> Option<usize> {
        match self {
            Self::Z(layer) | Self::LinearZ(layer) => Some(layer),
            Self::ResidPost(_) | Self::FinalNorm => None,
        }
    }
}

impl fmt::Display for Site {
    /// Writes the TransformerLens name, e.g. `blocks.7.attn.hook_z`; a delta net's is `blocks.2.linear_attn.hook_z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Z(layer) => write!(f, "blocks.{layer}.attn.hook_z"),
            Self::LinearZ(layer) => write!(f, "blocks.{layer}.linear_attn.hook_z"),
            Self::ResidPost(layer) => write!(f, "blocks.{layer}.hook_resid_post"),
            Self::FinalNorm => f.write_str("ln_final.hook_normalized"),
        }
    }
}

impl FromStr for Site {
    type Err = String;

    /// Reads a TransformerLens name. Any name that is not one of our sites is an error, never a silent no-op.
    fn from_str(name: &str) -> Result<Self, String> {
        let block = |rest: &str| -> Option<Self> {
            let (layer, hook) = rest.split_once('.')?;
            let layer = layer.parse().ok()?;
            match hook {
                "attn.hook_z" => Some(Self::Z(layer)),
                "linear_attn.hook_z" => Some(Self::LinearZ(layer)),
                "hook_resid_post" => Some(Self::ResidPost(layer)),
                _ => None,
            }
        };
        match name {
            "ln_final.hook_normalized" => Some(Self::FinalNorm),
            _ => name.strip_prefix("blocks.").and_then(block),
        }
        .ok_or_else(|| {
            format!(
                "unknown site '{name}'; sites are blocks.L.attn.hook_z, blocks.L.linear_attn.hook_z, \
                 blocks.L.hook_resid_post, ln_final.hook_normalized"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for site in [Site::Z(7), Site::LinearZ(2), Site::ResidPost(0), Site::FinalNorm] {
            assert_eq!(site.to_string().parse::<Site>(), Ok(site));
        }
        for wrong in ["blocks.7.hook_z", "blocks.x.attn.hook_z", "hook_resid_post", ""] {
            assert!(wrong.parse::<Site>().unwrap_err().contains("sites are"));
        }
    }
}
