//! A tokenizer from the metadata of a GGUF file. Each model family defines the steps around the BPE model.

use headtemper_model::GgufFile;
use serde_json::json;
use tokenizers::{
    AddedToken, PostProcessorWrapper, Tokenizer,
    models::bpe::{BPE, Merges, Vocab},
};

use super::{byte_level, gemma4, pipeline::Pipeline};
use crate::{EngineError, Result};

/// Token kinds (`tokenizer.ggml.token_type`) that are matched as a whole in a text. The other kinds are normal (1),
/// unused (5) and byte (6).
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// The tokenizer that the metadata describes.
pub(super) fn rebuild(file: &GgufFile) -> Result<Tokenizer> {
    // Errors in the metadata are reported as errors of the tokenizer, as for a directory.
    read(file).map_err(|e| match e {
        EngineError::Model(e) => wrong(file, e.to_string()),
        other => other,
    })
}

fn wrong(file: &GgufFile, why: impl Into<String>) -> EngineError {
    EngineError::Tokenizer { path: file.path().into(), why: why.into() }
}

fn read(file: &GgufFile) -> Result<Tokenizer> {
    let pipeline = pipeline(file)?;
    let tokens = file.texts("tokenizer.ggml.tokens")?;
    let fail = |e: tokenizers::Error| wrong(file, e.to_string());
    let mut tokenizer = Tokenizer::new(model(file, &tokens, pipeline.byte_fallback)?);
    tokenizer.with_normalizer(pipeline.normalizer).map_err(fail)?;
    tokenizer.with_pre_tokenizer(pipeline.pre_tokenizer);
    tokenizer.with_decoder(Some(pipeline.decoder));
    tokenizer.with_post_processor(bos(file, &tokens, pipeline.bos)?);
    tokenizer.add_tokens(added(file, &tokens, pipeline.special)?).map_err(fail)?;
    Ok(tokenizer)
}

fn pipeline(file: &GgufFile) -> Result<Pipeline> {
    match file.text("tokenizer.ggml.model")? {
        "gpt2" => {
            let pre = file.text("tokenizer.ggml.pre")?;
            byte_level::pipeline(pre).ok_or_else(|| {
                wrong(file, format!("tokenizer.ggml.pre is '{pre}', but only {} are supported", byte_level::SUPPORTED))
            })
        }
        // Its `tokenizer.ggml.pre` adds no information.
        "gemma4" => Ok(gemma4::pipeline()),
        model => Err(wrong(
            file,
            format!(
                "tokenizer.ggml.model is '{model}', but only 'gpt2' (byte-level BPE) and 'gemma4' (BPE) are supported"
            ),
        )),
    }
}

/// The token that a key of the metadata names by its id.
fn named<'a>(file: &GgufFile, tokens: &'a [String], key: &str) -> Result<(usize, &'a str)> {
    let id = file.size(key)?;
    match tokens.get(id) {
        Some(token) => Ok((id, token)),
        None => Err(wrong(file, format!("{key} is {id}, but it has {} tokens", tokens.len()))),
    }
}

fn model(file: &GgufFile, tokens: &[String], byte_fallback: bool) -> Result<BPE> {
    let vocab: Vocab = tokens.iter().enumerate().map(|(id, token)| (token.clone(), id as u32)).collect();
    let texts = file.texts("tokenizer.ggml.merges")?;
    let merges: Merges = texts.iter().map(|text| merge(file, &vocab, text)).collect::<Result<_>>()?;
    let mut builder = BPE::builder().vocab_and_merges(vocab, merges);
    if byte_fallback {
        let (_, unknown) = named(file, tokens, "tokenizer.ggml.unknown_token_id")?;
        builder = builder.byte_fallback(true).fuse_unk(true).unk_token(unknown.into());
    }
    builder.build().map_err(|e| wrong(file, e.to_string()))
}

/// A merge is "left right"; the left part may itself begin with a space.
fn merge(file: &GgufFile, vocab: &Vocab, text: &str) -> Result<(String, String)> {
    let Some((at, _)) = text.char_indices().skip(1).find(|&(_, c)| c == ' ') else {
        return Err(wrong(file, format!("merge '{text}' has no two parts")));
    };
    let (left, right) = (&text[..at], &text[at + 1..]);
    // The builder checks this too, but only after writing the merge into a buffer that is as long as the longest token.
    match [left.into(), right.into(), format!("{left}{right}")].iter().find(|part| !vocab.contains_key(*part)) {
        Some(part) => Err(wrong(file, format!("merge '{text}' is of '{part}', which is no token"))),
        None => Ok((left.into(), right.into())),
    }
}

/// The tokens that are matched as a whole, before any other step.
fn added(file: &GgufFile, tokens: &[String], special: &[&str]) -> Result<Vec<AddedToken>> {
    let kinds = file.numbers("tokenizer.ggml.token_type")?;
    if kinds.len() != tokens.len() {
        return Err(wrong(file, format!("{} tokens have {} types", tokens.len(), kinds.len())));
    }
    let added = tokens.iter().zip(&kinds).filter_map(|(token, &kind)| {
        let special = matches!(kind, UNKNOWN | CONTROL) || special.contains(&token.as_str());
        (special || kind == USER_DEFINED).then(|| AddedToken::from(token.clone(), special).normalized(false))
    });
    Ok(added.collect())
}

/// The step that puts the BOS before a text, if the file asks for it or texts of its family always have it: some files name a BOS but do
/// not want it, some name none.
fn bos(file: &GgufFile, tokens: &[String], always: bool) -> Result<Option<PostProcessorWrapper>> {
    if file.flag("tokenizer.ggml.add_eos_token")? == Some(true) {
        return Err(wrong(
            file,
            "tokenizer.ggml.add_eos_token is true, but nothing can follow an end: it must be false",
        ));
    }
    if !always && file.flag("tokenizer.ggml.add_bos_token")? != Some(true) {
        return Ok(None);
    }
    let (id, token) = named(file, tokens, "tokenizer.ggml.bos_token_id")?;
    let bos = json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = |id: &str, type_id: u32| json!({"Sequence": {"id": id, "type_id": type_id}});
    let template = json!({
        "type": "TemplateProcessing",
        "single": [bos, text("A", 0)],
        "pair": [bos, text("A", 0), text("B", 1)],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
    });
    serde_json::from_value(template).map(Some).map_err(|e| wrong(file, e.to_string()))
}
