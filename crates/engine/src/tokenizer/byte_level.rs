//! Byte-level BPE (`tokenizer.ggml.model` is `gpt2`). Its variants differ in how a text is split into words.

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

use super::pipeline::Pipeline;

/// The names that [`pipeline`] knows, for messages.
pub(super) const SUPPORTED: &str = "'gpt-2', 'smollm', 'qwen2' and 'qwen35'";

/// Word pattern of Qwen3, from `tokenization_qwen2.py` of transformers: each digit is a word.
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// Word pattern of Qwen3.5, from `tokenization_qwen3_5.py`: combining marks belong to the letters.
const QWEN35: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// The pipeline named `pre` in a file (`tokenizer.ggml.pre`, with the names of llama.cpp).
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
        bos: false,
        special: &[],
    })
}

/// Maps each byte to a printable character; with `regex`, splits into GPT-2's words first.
fn bytes(regex: bool) -> ByteLevel {
    ByteLevel::new(false, true, regex)
}

/// Splits into words by a pattern, then maps bytes.
fn words(pattern: &str) -> PreTokenizerWrapper {
    let split = Split::new(SplitPattern::Regex(pattern.into()), SplitDelimiterBehavior::Isolated, false);
    let split = split.expect("the pattern is a valid one");
    Sequence::new(vec![split.into(), bytes(false).into()]).into()
}

#[cfg(test)]
mod tests {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    use super::*;

    /// The words of a text, in the alphabet of printable bytes.
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
        // A combining mark ends a word in Qwen3, but not in Qwen3.5.
        assert_eq!(split("qwen2", "x\u{301}y").len(), 2);
        assert_eq!(split("qwen35", "x\u{301}y").len(), 1);
        assert!(pipeline("llama-bpe").is_none());
    }

    #[test]
    fn every_supported_name_is_known() {
        assert!(SUPPORTED.split('\'').skip(1).step_by(2).all(|pre| pipeline(pre).is_some()));
    }
}
