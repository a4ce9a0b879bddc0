//! Tokenizers, chats and stop tokens of every family, against `tokenizers` and transformers.
//!
//! The directories under `golden/text` are described in `scripts/golden/make_text.py`.

use std::{io::Cursor, path::PathBuf};

use candle_core::quantized::gguf_file;
use headtemper_engine::{ChatTemplate, Engine, Input, Message, ModelChoice, StopSet, THOUGHTS, TextTokenizer};
use headtemper_model::{GgufFile, token_ids};
use headtemper_tests::golden_dir;
use serde_json::Value;

use crate::gguf::rewritten;

const FAMILIES: [&str; 4] = ["smollm2", "qwen3", "qwen3_5", "gemma4"];

fn dir(name: &str) -> PathBuf {
    golden_dir("text").join(name)
}

fn read(name: &str, file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(dir(name).join(file)).unwrap()).unwrap()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn gguf(name: &str) -> GgufFile {
    GgufFile::open(&dir(name).join("model.gguf")).unwrap()
}

/// Both sources of a family's tokenizer.
fn tokenizers(name: &str) -> [(&'static str, TextTokenizer); 2] {
    [
        ("tokenizer.json", TextTokenizer::from_directory(&dir(name)).unwrap()),
        ("GGUF", TextTokenizer::from_gguf(&gguf(name)).unwrap()),
    ]
}

fn templates(name: &str) -> [ChatTemplate; 2] {
    [ChatTemplate::from_directory(&dir(name)).unwrap().unwrap(), ChatTemplate::from_gguf(&gguf(name)).unwrap().unwrap()]
}

#[test]
fn texts_have_the_tokens_that_tokenizers_gives_them() {
    for name in FAMILIES {
        let golden = read(name, "golden.json");
        for (source, tokenizer) in tokenizers(name) {
            for case in list(&golden, "texts") {
                let text = case["text"].as_str().unwrap();
                let special = ids(&case["special"]);
                assert_eq!(tokenizer.encode(text, false).unwrap(), ids(&case["ids"]), "{name}, {source}: {text:?}");
                assert_eq!(tokenizer.encode(text, true).unwrap(), special, "{name}, {source}, special: {text:?}");
                assert_eq!(tokenizer.decode(&special).unwrap(), case["decoded"], "{name}, {source}: {special:?}");
            }
        }
    }
}

/// Also where `tokenizer.json` calls the tokens around a thought special, as Gemma 4's does: without them, it would pass for the answer.
#[test]
fn a_thought_is_seen_in_a_text() {
    let json = read("gemma4", "tokenizer.json");
    for (source, tokenizer) in tokenizers("gemma4") {
        let end = tokenizer.id("<turn|>").unwrap();
        for (start, stop) in THOUGHTS.into_iter().filter(|(start, _)| tokenizer.id(start).is_some()) {
            let special =
                |text: &str| list(&json, "added_tokens").iter().any(|t| t["content"] == text && t["special"] == true);
            assert!(special(start) && special(stop));
            let mut ids = tokenizer.encode(&format!("{start}thought\nHm.{stop}Yes."), false).unwrap();
            ids.push(end);
            assert_eq!(tokenizer.decode(&ids).unwrap(), format!("{start}thought\nHm.{stop}Yes."), "{source}");
        }
        assert!(tokenizer.id("<|channel>").is_some());
    }
}

/// Only Gemma 4 begins a text with a BOS; a chat, whose template writes it, has one and not two.
#[test]
fn a_bos_stands_once_and_only_where_it_is_wanted() {
    for name in FAMILIES {
        for ((source, tokenizer), template) in tokenizers(name).iter().zip(templates(name)) {
            let bos = tokenizer.id("<bos>");
            assert_eq!(bos.is_some(), name == "gemma4");
            let added = tokenizer.encode("Hi", true).unwrap().len() - tokenizer.encode("Hi", false).unwrap().len();
            assert_eq!(added, usize::from(bos.is_some()), "{name}, {source}");
            let chat = tokenizer.encode(&template.render(&[Message::user("Hi")], None).unwrap(), false).unwrap();
            let count = chat.iter().filter(|&&id| Some(id) == bos).count();
            assert_eq!(count, added, "{name}, {source}: {chat:?}");
        }
    }
}

fn rendered(name: &str, template: &ChatTemplate, chat: &Value) -> Option<String> {
    let messages: Vec<Message> = serde_json::from_value(chat["messages"].clone()).unwrap();
    let ours = template.render(&messages, chat["thinking"].as_bool());
    let what = format!("{name}: {}, thinking {}", chat["name"], chat["thinking"]);
    match (chat["render"].as_str(), &ours) {
        (Some(theirs), Ok(ours)) => assert_eq!(ours, theirs, "{what}"),
        (None, Err(_)) => {}
        (theirs, _) => panic!("{what}: {ours:?} is not {theirs:?}"),
    }
    ours.ok()
}

#[test]
fn chats_are_rendered_as_transformers_renders_them() {
    for name in FAMILIES {
        let golden = read(name, "golden.json");
        for ((source, tokenizer), template) in tokenizers(name).iter().zip(templates(name)) {
            for chat in list(&golden, "chats") {
                let Some(text) = rendered(name, &template, chat) else { continue };
                assert_eq!(tokenizer.encode(&text, false).unwrap(), ids(&chat["ids"]), "{name}, {source}: {text:?}");
            }
        }
    }
}

/// Loops, strings, tests and filters that the families' templates do not use.
#[test]
fn templates_run_as_in_jinja2() {
    let template = ChatTemplate::from_directory(&dir("jinja")).unwrap().unwrap();
    for chat in list(&read("jinja", "golden.json"), "chats") {
        rendered("jinja", &template, chat);
    }
}

#[test]
fn only_a_template_with_a_switch_can_be_made_to_think() {
    for name in FAMILIES {
        for template in templates(name) {
            assert_eq!(template.has_thinking_switch(), name != "smollm2");
            let chat = [Message::user("Hi")];
            let on = template.render(&chat, Some(true));
            if name == "smollm2" {
                let message = on.unwrap_err().to_string();
                assert!(message.contains("no thinking switch"), "{message}");
                assert_eq!(template.render(&chat, Some(false)).unwrap(), template.render(&chat, None).unwrap());
            } else {
                assert_ne!(on.unwrap(), template.render(&chat, Some(false)).unwrap(), "{name}");
            }
        }
    }
}

/// A setting of thinking is in the prompt and in the identity; without one it is in neither.
#[test]
fn thinking_is_part_of_what_was_run() {
    let temp = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden_dir("llama")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, temp.path().join(path.file_name().unwrap())).unwrap();
    }
    let open = |thinking| {
        let model = temp.path().to_string_lossy().into_owned();
        Engine::open(&ModelChoice { model, device: "cpu".into(), thinking, ..ModelChoice::default() })
    };
    let message = open(Some(true)).err().unwrap().to_string();
    assert!(message.contains("no thinking switch"), "{message}");
    std::fs::copy(dir("qwen3").join("chat_template.jinja"), temp.path().join("chat_template.jinja")).unwrap();
    let run = |thinking| {
        let engine = open(thinking).unwrap();
        let encoded = engine.encode("x", &Input::Prompt("Hi".into()), None).unwrap();
        (encoded.ids, serde_json::to_value(engine.identity()).unwrap()["thinking"].clone())
    };
    let (unset, on, off) = (run(None), run(Some(true)), run(Some(false)));
    assert_eq!((&unset.1, &on.1, &off.1), (&Value::Null, &Value::Bool(true), &Value::Bool(false)));
    assert_eq!(unset.0, on.0);
    assert!(off.0.starts_with(&on.0) && off.0.len() > on.0.len());
}

/// No single file names every stop token: Qwen3.5's configuration has the end of a text, its tokenizer that of a turn.
#[test]
fn generations_stop_at_every_end() {
    for name in FAMILIES {
        let (golden, config) = (read(name, "golden.json"), read(name, "config.json"));
        let eos = |value: &Value| token_ids(value.get("eos_token_id")).unwrap();
        let ends = [eos(&config), eos(&config["text_config"])].concat();
        let [(_, directory), (_, rebuilt)] = tokenizers(name);
        let stop = StopSet::from_directory(&dir(name), &ends, &directory).unwrap();
        assert_eq!(stop.ids().collect::<Vec<_>>(), ids(&golden["stop"]["directory"]), "{name}");
        let file = gguf(name);
        let one = file.size("tokenizer.ggml.eos_token_id").unwrap() as u32;
        let stop = StopSet::from_gguf(&file, &[one], &rebuilt).unwrap();
        assert_eq!(stop.ids().collect::<Vec<_>>(), ids(&golden["stop"]["gguf"]), "{name}, GGUF");
    }
}

/// The merges of a damaged file may make tokens that do not exist.
#[test]
fn a_damaged_vocabulary_is_refused() {
    let bytes = std::fs::read(dir("smollm2").join("model.gguf")).unwrap();
    let text = bytes.windows(3).position(|window| window == b"t h").expect("English has this merge");
    let mut damaged = bytes.clone();
    damaged[text] = b'\x01';
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("model.gguf");
    std::fs::write(&path, damaged).unwrap();
    let message = TextTokenizer::from_gguf(&GgufFile::open(&path).unwrap()).err().unwrap().to_string();
    assert!(message.contains("merge") && message.contains("no token"), "{message}");
}

/// A word of a vocabulary ends nothing, whatever its text: `</s>` is struck-through text in Gemma's. Its texts begin with the BOS, whatever
/// a file says of that; no text ends with an end.
#[test]
fn words_of_a_vocabulary_end_nothing() {
    const NORMAL: i32 = 1;
    const CONTROL: i32 = 3;
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("m.gguf");
    let bytes = std::fs::read(dir("gemma4").join("model.gguf")).unwrap();
    let metadata = gguf_file::Content::read(&mut Cursor::new(&bytes)).unwrap().metadata;
    let list = |key: &str, last: gguf_file::Value| {
        let mut values = metadata[key].to_vec().unwrap().clone();
        values.push(last);
        gguf_file::Value::Array(values)
    };
    let end = metadata["tokenizer.ggml.tokens"].to_vec().unwrap().len() as u32;
    let with = |kind: i32, more: &[(&str, gguf_file::Value)]| {
        let tokens = list("tokenizer.ggml.tokens", gguf_file::Value::String("</s>".into()));
        let kinds = list("tokenizer.ggml.token_type", gguf_file::Value::I32(kind));
        let keys = [("tokenizer.ggml.tokens", tokens), ("tokenizer.ggml.token_type", kinds)];
        rewritten(&dir("gemma4").join("model.gguf"), &path, &[&keys[..], more].concat(), &[]);
        let file = GgufFile::open(&path).unwrap();
        let tokenizer = TextTokenizer::from_gguf(&file).map_err(|e| e.to_string())?;
        let stop = StopSet::from_gguf(&file, &[], &tokenizer).unwrap();
        Ok((stop.contains(end), tokenizer.encode("Hi", true).unwrap()))
    };
    let flag = |key, value| [(key, gguf_file::Value::Bool(value))];
    let (stops, plain) = with(NORMAL, &[]).unwrap();
    assert!(!stops && with(CONTROL, &[]).unwrap().0);
    assert_eq!(with(NORMAL, &flag("tokenizer.ggml.add_bos_token", false)).unwrap().1, plain);
    let message: String = with(NORMAL, &flag("tokenizer.ggml.add_eos_token", true)).unwrap_err();
    assert!(message.contains("tokenizer.ggml.add_eos_token is true"), "{message}");
}
