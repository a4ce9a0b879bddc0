//! How lines are read, and every line that is refused.

use super::*;
use crate::read_items;

fn read(content: &str) -> std::result::Result<Vec<Item>, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    read_items(file.path(), &crate::ReadAs::default()).map_err(|e| e.to_string())
}

#[test]
fn every_form_of_an_item_is_read() {
    let items = read(concat!(
        r#"{"id":"a","prompt":"Hi","response":"Hello","label":"cw","scores":{"x":4},"gold":"Hello","topic":"t"}"#,
        "\n\n",
        r#"{"id":7,"messages":[{"role":"user","content":"Hi"}],"gold":["a"," ","b"],"label":null}"#,
        "\n",
        r#"{"input_ids":[1,2,3],"prompt_len":2,"label":1}"#,
    ))
    .unwrap();
    assert_eq!(items[0].input, Input::Prompt("Hi".into()));
    assert_eq!((items[0].scores["x"], &items[0].gold[..]), (4.0, &["Hello".to_string()][..]));
    assert_eq!(items[0].other["topic"], "t");
    for input in [r#""prompt":"Hi""#, r#""input_ids":[1,2,3],"prompt_len":2"#] {
        let alone = read(&format!(r#"{{{input},"response_ids":[5,6]}}"#)).unwrap_err();
        assert!(alone.contains("response_ids are there without their text"), "{alone}");
        assert_eq!(read(&format!(r#"{{{input},"response_ids":[]}}"#)).unwrap()[0].response_ids, None);
    }
    let ids = |ids: &str| read(&format!(r#"{{"prompt":"Hi","response":"Hello","response_ids":{ids}}}"#));
    assert_eq!(ids("[5,6]").unwrap()[0].response_ids, Some(vec![5, 6]));
    assert_eq!(
        read(&(ids("[5,6]").unwrap()[0].to_json().to_string() + "\n")).unwrap()[0].response_ids,
        Some(vec![5, 6])
    );
    assert!(ids("null").unwrap()[0].response_ids.is_none() && ids("[-1]").unwrap_err().contains("response_ids"));
    let lines: String = items.iter().map(|item| item.to_json().to_string() + "\n").collect();
    assert_eq!(read(&lines), Ok(items.clone()));
    assert_eq!((items[1].id.as_str(), items[1].gold.len(), &items[1].label), ("7", 2, &None));
    assert_eq!((items[2].id.as_str(), items[2].prompt_len, items[2].label.as_deref()), ("4", Some(2), Some("1")));
}

#[test]
fn items_tell_what_conditions_and_confounds_ask_for() {
    let items = read(concat!(
        r#"{"prompt":"Why,  THOUGH?","response":"x","scores":{"a":1},"m":{"n":{"o":2}},"finish_reason":"length"}"#,
        "\n",
        r#"{"prompt":"why though","truncated":false,"gone":null}"#,
        "\n",
        r#"{"messages":[{"role":"user","content":"why though"}]}"#,
    ))
    .unwrap();
    let mut names = items[0].field_names();
    names.sort();
    assert_eq!(names, ["finish_reason", "id", "m.n.o", "prompt", "response", "scores.a"]);
    assert_eq!(items[1].field_names(), ["id", "prompt", "truncated"]);
    let truncated: Vec<_> = items.iter().map(Item::truncated).collect();
    assert_eq!(truncated, [Some(true), Some(false), None]);
    let ended = |fields: Value| Item::parse(&fields.to_string(), 1, false).unwrap().truncated();
    let by = |reason: &str| ended(json!({"prompt": "p", "response": "r", "finish_reason": reason}));
    assert_eq!(["max_tokens", "MAX_TOKENS", "end_turn"].map(by), [Some(true), Some(true), Some(false)]);
    assert_eq!(by("content_filter"), None, "it says nothing of a limit");
    let scored = Item::parse(r#"{"prompt":"p","scores":{"a":null,"b":1}}"#, 1, false).unwrap();
    assert_eq!(scored.scores, [("b".to_string(), 1.0)].into(), "null is a score that nobody gave");
    assert_eq!(ended(json!({"prompt": "p", "finish_reason": null, "truncated": true})), Some(true));
    for (reason, truncated) in [("stop", true), ("length", false)] {
        let both = json!({"prompt": "p", "finish_reason": reason, "truncated": truncated});
        assert_eq!(ended(both), Some(true), "one of them says so");
    }
    assert_eq!(items[0].prompt_key(), "why though");
    assert_eq!(items[1].prompt_key(), items[0].prompt_key());
    assert_eq!(items[2].prompt_key(), "why though");
    let key = |prompt: &str| Item::parse(&json!({"prompt": prompt}).to_string(), 1, false).unwrap().prompt_key();
    assert_eq!((key("What is 3+7?"), key("what is 3 - 7")), ("what is 3 + 7".into(), "what is 3 - 7".into()));
    assert_eq!(key("New-York, 100%"), "new york 100 %");
}

#[test]
fn a_conversation_that_ends_in_an_answer_has_it_as_its_response() {
    let said = |role: &str, content: &str| json!({"role": role, "content": content});
    let one = |value: Value| Item::parse(&value.to_string(), 1, false);
    let (system, first, answer) = (said("system", "Be brief."), said("user", "Hi"), said("assistant", "Hello."));
    let (again, last) = (said("user", "Why?"), said("assistant", " So. "));
    let chat = one(json!({"id": "a", "messages": [system, first, answer, again, last]})).unwrap();
    let before = json!([system, first, answer, again]);
    assert_eq!(chat, one(json!({"id": "a", "messages": before, "response": " So. "})).unwrap());
    assert_eq!(one(chat.to_json()).unwrap(), chat, "it is written in that form");
    assert_eq!(chat.field_names(), ["id", "prompt", "response"]);
    // What is asked is what the user says, whatever was answered, and whoever speaks last.
    assert_eq!((chat.prompt_text().as_str(), chat.prompt_key().as_str()), ("Why?", "hi why"));
    let unanswered = one(json!({"messages": before})).unwrap();
    assert_eq!((unanswered.response, unanswered.input), (None, chat.input));
    let used = one(json!({"messages": [first, said("tool", "3")]})).unwrap();
    assert_eq!((used.prompt_text().as_str(), &used.response), ("Hi", &None));
    assert_eq!(one(json!({"messages": [system]})).unwrap().prompt_text(), "Be brief.");
    // Earlier turns of the assistant are part of what is answered.
    let twice = one(json!({"messages": [first, answer, answer, again]})).unwrap();
    assert_eq!((&twice.response, twice.prompt_text().as_str()), (&None, "Why?"));
    for (bad, why) in [
        (json!({"messages": [first, answer], "response": "Hello."}), "and there is a response too"),
        (json!({"messages": [first, said("assistant", " ")]}), "the last of messages, the assistant's, is empty"),
        (json!({"messages": [first, said("assistant", "")], "response": "x"}), "and there is a response too"),
        (json!({"messages": [answer]}), "an answer of the assistant alone"),
        (json!({"messages": [first, answer, answer]}), "messages end in two answers of the assistant"),
    ] {
        let found = one(bad).unwrap_err();
        assert!(found.contains(why), "{found}");
    }
    assert!(one(json!({"messages": [first, answer], "response": null})).is_ok());
}

#[test]
fn every_bad_line_is_named() {
    let message = read(concat!(
        "not json\n",
        "[1]\n",
        r#"{"id":"a"}"#,
        "\n",
        r#"{"id":"b","prompt":"x","response":" "}"#,
        "\n",
        r#"{"id":"c","prompt":"x"}"#,
        "\n",
        r#"{"id":"c","prompt":"y"}"#,
        "\n",
        r#"{"id":"d","prompt":"x","input_ids":[1]}"#,
        "\n",
        r#"{"id":"e","prompt":3}"#,
        "\n",
        r#"{"id":"f\u0000","prompt":"x"}"#,
        "\n",
        r#"{"id":"g","prompt":"x","scores":{"a":NaN}}"#,
        "\n",
        r#"{"id":"h","prompt":"x","prompt":"y"}"#,
    ))
    .unwrap_err();
    for part in [
        "line 1: not JSON",
        "line 2: not a JSON object but a list",
        "line 3: no prompt",
        "line 4: the response is empty",
        "line 6: id 'c' stands there a second time",
        "line 7: prompt and input_ids exclude each other",
        "line 11: 'prompt' stands there twice",
        "line 8: prompt is a number, not a text",
        "line 9: id 'f\\0' holds a control character, but must be of printable characters",
        "line 10: not JSON (expected value at line 1 column 38); NaN and Infinity are not JSON: null stands for",
    ] {
        assert!(message.contains(part), "{part} is not in:\n{message}");
    }
    assert!(read("\n").unwrap_err().contains("holds no items"));
}
