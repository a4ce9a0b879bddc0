//! Gemma 4 (`tokenizer.ggml.model` is `gemma4`): a BPE over characters, with spaces written as `▁` and bytes as a last resort.

use tokenizers::{
    decoders::{byte_fallback::ByteFallback, fuse::Fuse, sequence::Sequence},
    normalizers::Replace,
};

use super::pipeline::Pipeline;

/// As in `tokenization_gemma.py` of transformers. Its pre-tokenizer splits at spaces, but its normalizer leaves none, so a
/// whole text is one word here. llama.cpp also splits at runs of newlines, which gives the same result unless a merge joins
/// a newline with something else.
pub(super) fn pipeline() -> Pipeline {
    let replace = |from, to| Replace::new(from, to).expect("a text is a valid pattern");
    Pipeline {
        normalizer: Some(replace(" ", "▁").into()),
        pre_tokenizer: None,
        decoder: Sequence::new(vec![replace("▁", " ").into(), ByteFallback::new().into(), Fuse::new().into()]).into(),
        byte_fallback: true,
        // As in transformers and llama.cpp: there are files that say otherwise.
        bos: true,
        // A file names one end-of-text token; if that is `<turn|>`, its converter takes `<eos>` for a normal token.
        special: &["<eos>"],
    }
}
