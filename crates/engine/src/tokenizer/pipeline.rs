//! What a model family's tokenizer does before and after its BPE merges.

use tokenizers::{DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper};

/// The steps around the BPE merges.
pub(super) struct Pipeline {
    /// Changes the text first.
    pub(super) normalizer: Option<NormalizerWrapper>,
    /// Splits the text into words; no merge crosses their borders.
    pub(super) pre_tokenizer: Option<PreTokenizerWrapper>,
    /// Turns tokens back into text.
    pub(super) decoder: DecoderWrapper,
    /// Whether a character without a token becomes the tokens of its bytes, such as `<0xE2>`, or else the unknown token. Byte-level
    /// vocabularies do not need it: they have a token for every byte.
    pub(super) byte_fallback: bool,
    /// Whether texts begin with the BOS, whatever the file says of it.
    pub(super) bos: bool,
    /// Tokens that are special, whatever kind the file gives them.
    pub(super) special: &'static [&'static str],
}
