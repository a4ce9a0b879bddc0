//! Byte-level BPE (`tokenizer.ggml.model` is `gpt2`): what differs is how a text falls into words.

use tokenizers::{
    PreTokenizerWrapper, SplitDelimiterBehavior,
    normalizers::NFC,
    pre_tokenizers::{
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

use super::gguf::Pipeline;

/// What [`pipeline`] knows, for messages.
pub(super) const SUPPORTED: &str = "'gpt-2', 'smollm', 'qwen2' and 'qwen35'";

/// Words of Qwen3, from `tokenization_qwen2.py` of transformers: one digit is a word.
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// Words of Qwen3.5, from `tokenization_qwen3_5.py`: combining marks belong to the letters.
const QWEN35: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// The pipeline that a file calls `pre` (`tokenizer.ggml.pre`, by the names of llama.cpp).
pub(super) fn pipeline(pre: &str) -> Option<Pipeline> {
    let (normalizer, pre_tokenizer) = match pre {
        "gpt-2" => (None, bytes(true).into()),
        // SmolLM2 splits every digit before GPT-2's pattern.
        "smollm" => (None, Sequence::new(vec![Digits::new(true).into(), bytes(true).into()]).into()),
        "qwen2" => (Some(NFC.into()), words(QWEN2)),
        "qwen35" => (Some(NFC.into()), words(QWEN35)),
        _ => return None,
    };
    Some(Pipeline {
        normalizer,
        pre_tokenizer: Some(pre_tokenizer),
        decoder: ByteLevel::default().into(),
        byte_fallback: false,
        special: &[],
    })
}

/// Each byte as a character that prints; `regex` for GPT-2's words.
fn bytes(regex: bool) -> ByteLevel {
    ByteLevel::new(false, true, regex)
}

/// Words by a pattern, then bytes.
fn words(pattern: &str) -> PreTokenizerWrapper {
    let split = Split::new(SplitPattern::Regex(pattern.into()), SplitDelimiterBehavior::Isolated, false);
    let split = split.expect("the pattern is a valid one");
    Sequence::new(vec![split.into(), bytes(false).into()]).into()
}

#[cfg(test)]
mod tests {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    use super::*;

    /// The words of a text, in the alphabet of bytes.
    fn split(pre: &str, text: &str) -> Vec<String> {
        let mut text = PreTokenizedString::from(text);
        pipeline(pre).unwrap().pre_tokenizer.unwrap().pre_tokenize(&mut text).unwrap();
        let words = text.get_splits(OffsetReferential::Original, OffsetType::Byte);
        words.into_iter().map(|(word, ..)| word.to_string()).collect()
    }

    #[test]
    fn families_differ_in_their_words() {
        assert_eq!(split("gpt-2", "It's 123  x"), ["It", "'s", "Ġ123", "Ġ", "Ġx"]);
        assert_eq!(split("smollm", "It's 123"), ["It", "'s", "Ġ", "1", "2", "3"]);
        assert_eq!(split("qwen2", "IT'S 123\n\n x"), ["IT", "'S", "Ġ", "1", "2", "3", "ĊĊ", "Ġx"]);
        // A mark ends a word of Qwen3, not of Qwen3.5.
        assert_eq!(split("qwen2", "x\u{301}y").len(), 2);
        assert_eq!(split("qwen35", "x\u{301}y").len(), 1);
        assert!(pipeline("llama-bpe").is_none());
    }

    #[test]
    fn every_supported_name_is_known() {
        assert!(SUPPORTED.split('\'').skip(1).step_by(2).all(|pre| pipeline(pre).is_some()));
    }
}
