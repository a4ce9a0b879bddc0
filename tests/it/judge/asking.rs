//! How a server is asked: again where that may help, never beyond a budget, and with a key that no file ever holds.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    KEY, ended, ends, four, judge_at, many,
    mock::{Act, Server, good},
    no_key_under,
};
use crate::lab::{Lab, by_id};

#[test]
fn what_passes_is_asked_again() {
    let lab = Lab::new();
    many(&lab, 1);
    for (name, act, timeout) in [
        ("busy", Act::Status(429, "Retry-After: 0\r\n".into(), b"{}".into()), ""),
        ("broken", Act::status(500, &json!({"error": {"message": "oops"}})), ""),
        ("loading", Act::status(503, &json!({})), ""),
        ("dropped", Act::Drop, ""),
        ("cut", Act::Cut, ""),
        ("hangs", Act::Hang, "--timeout 1"),
    ] {
        let server = Server::new(move |asked| if asked.before == 0 { act.clone() } else { good(asked) });
        let line = |out: &str, retries: u32| format!("--out {out} --tasks delivery --retries {retries} {timeout}");
        ends(&lab, &server, 0, &line(name, 1));
        assert_eq!(
            (server.asked().len(), &lab.json(&format!("{name}/judge.json"))["requests"]),
            (2, &json!(2)),
            "{name}"
        );
        // One failure more than is allowed: no reply, and no label.
        let (_, err) = ends(&lab, &server, 2, &line(&format!("{name}2"), 0));
        assert_eq!(server.asked().len(), 1, "{name}");
        assert!(err.contains("not one question got a reply") && err.contains("hint: "), "{name}: {err}");
        assert_eq!(lab.read(&format!("{name}2/answers.jsonl")), "", "{name}: a failure is cached");
        assert!(!lab.path(&format!("{name}2/judged.jsonl")).exists());
    }
}

#[test]
fn a_server_that_asks_to_wait_is_left_alone() {
    let lab = Lab::new();
    many(&lab, 1);
    let busy = |seconds: &str| Act::Status(429, format!("Retry-After: {seconds}\r\n"), b"{}".into());
    let once = busy("1");
    let server = Server::new(move |asked| if asked.before == 0 { once.clone() } else { good(asked) });
    ends(&lab, &server, 0, "--out j --tasks delivery");
    let asked = server.asked();
    assert!(asked[1].at - asked[0].at >= Duration::from_secs(1), "it was asked again too soon");
    let tomorrow = busy("86400");
    server.now(move |_| tomorrow.clone());
    let (_, err) = ends(&lab, &server, 2, "--out k --tasks delivery");
    assert!(err.contains("asks to wait 86400 s") && server.asked().len() == 1, "{err}");
}

#[test]
fn a_reply_that_is_no_verdict_stays_missing_and_is_not_asked_again() {
    let lab = Lab::new();
    let message = |content: Value, refusal: Value| json!({"role": "assistant", "content": content, "refusal": refusal});
    let acts = [
        ("yes", Act::say("Assert."), "verdict"),
        ("bold", Act::say("**HEDGE**"), "verdict"),
        ("lower", Act::say("\nassert\n"), "verdict"),
        ("parts", Act::Message(message(json!([{"type": "text", "text": "HEDGE"}]), Value::Null), "stop"), "verdict"),
        ("field", Act::Message(message(Value::Null, json!("I will not say.")), "stop"), "refused"),
        ("words", Act::say("I'm sorry, but I cannot help with that."), "refused"),
        ("filter", Act::Message(message(json!("ASSERT"), Value::Null), "content_filter"), "refused"),
        ("empty", Act::say(""), "unparsable"),
        ("null", Act::Message(message(Value::Null, Value::Null), "stop"), "unparsable"),
        ("both", Act::say("ASSERT or HEDGE"), "unparsable"),
        ("other", Act::say("It is well written."), "unparsable"),
        ("thinks", Act::Message(message(json!("<think>ASSERT? It"), Value::Null), "length"), "unparsable"),
    ];
    let item = |(name, ..): &(&str, Act, &str)| json!({"id": name, "prompt": "p", "response": format!("={name}=")});
    lab.write_lines("items.jsonl", acts.iter().map(item));
    let rule = acts.clone();
    let server = Server::new(move |asked| {
        rule.iter().find(|(name, ..)| asked.response() == format!("={name}=")).unwrap().1.clone()
    });
    let (_, err) = ends(&lab, &server, 1, "--out j --tasks delivery");
    assert_eq!(server.asked().len(), acts.len());
    assert!(err.contains("3 questions were refused and 5 answered with something else"), "{err}");
    assert!(err.contains("1 of these were cut off at 1024 tokens; --max-tokens allows more"), "{err}");
    let judged = by_id(&lab.read("j/judged.jsonl"));
    for (name, _, kind) in &acts {
        let item = &judged[*name];
        assert!(item.as_object().unwrap().contains_key("verbal") && item.get("label").is_none(), "{name}");
        let counted = if *kind == "verdict" { "verdicts" } else { kind };
        assert_eq!((item["verbal"].is_null(), &item["judge"][counted]), (*kind != "verdict", &json!(1)), "{name}");
    }
    let counts = &lab.json("j/judge.json")["questions"]["delivery"];
    let expected =
        json!({"questions": 12, "verdicts": 4, "refused": 3, "unparsable": 5, "cut_off": 1, "failed": 0, "unasked": 0});
    assert_eq!(counts, &expected);
    let before = lab.read("j/judged.jsonl");
    ends(&lab, &server, 1, "--out j --tasks delivery");
    assert!(server.asked().is_empty());
    assert_eq!(lab.read("j/judged.jsonl"), before);
}

#[test]
fn nonsense_is_no_reply_and_is_not_kept() {
    let lab = Lab::new();
    let long = "x".repeat(9 << 20);
    let fine = json!({"choices": [{"message": {"content": "ASSERT"}}]}).to_string();
    let acts = [
        (
            "page",
            Act::Status(200, "Content-Type: text/html\r\n".into(), b"<html>hello</html>".into()),
            Some("<html>hello</html>"),
        ),
        ("none", Act::status(200, &json!({"choices": []})), Some("no chat completion")),
        ("error", Act::status(200, &json!({"error": {"message": "model not loaded"}})), Some("model not loaded")),
        ("huge", Act::say(long), Some("more than 8 MiB")),
        ("nothing", Act::Status(200, String::new(), Vec::new()), Some("with nothing instead of JSON")),
        (
            "long",
            Act::status(400, &json!({"error": {"message": "maximum context length is 8"}})),
            Some("context length"),
        ),
        ("typed", Act::Status(200, "Content-Type: text/plain\r\n".into(), fine.into_bytes()), None),
        ("good", Act::say("HEDGE"), None),
    ];
    let item =
        |(name, ..): &(&str, Act, Option<&str>)| json!({"id": name, "prompt": "p", "response": format!("={name}=")});
    lab.write_lines("items.jsonl", acts.iter().map(item));
    let rule = acts.clone();
    let server = Server::new(move |asked| {
        rule.iter().find(|(name, ..)| asked.response() == format!("={name}=")).unwrap().1.clone()
    });
    let (_, err) = ends(&lab, &server, 1, "--out j --tasks delivery");
    assert_eq!(server.asked().len(), acts.len(), "nonsense is not asked again");
    let judged = by_id(&lab.read("j/judged.jsonl"));
    for (name, _, said) in &acts {
        assert!(said.is_none_or(|said| err.contains(said)), "{name}: {err}");
        let item = &judged[*name];
        assert_eq!(
            (item["verbal"].is_null(), &item["judge"]["failed"]),
            (said.is_some(), &json!(usize::from(said.is_some()))),
            "{name}"
        );
    }
    assert_eq!(lab.rows("j/answers.jsonl").len(), 2);
    server.now(good);
    ends(&lab, &server, 0, "--out j --tasks delivery");
    assert_eq!(server.asked().len(), 6);
}

#[test]
fn what_no_question_can_pass_stops_at_once() {
    let lab = Lab::new();
    many(&lab, 20);
    let elsewhere = Server::new(good);
    let moved = format!("Location: {}/chat/completions\r\n", elsewhere.url());
    let said = |text: &str| json!({"error": {"message": format!("{text}: Bearer {KEY}")}});
    for (name, act, parts) in [
        ("401", Act::status(401, &said("no such key")), ["no such key: Bearer [key]", "--key-env"]),
        ("403", Act::status(403, &said("not yours")), ["not yours", "--key-env"]),
        ("404", Act::status(404, &json!({"detail": "Not Found"})), ["status 404: \"Not Found\"", "ends in /v1"]),
        ("400", Act::status(400, &said("no such model")), ["no such model", "--judge-model"]),
        ("307", Act::Status(307, moved, Vec::new()), ["status 307", "points to"]),
        (
            "quota",
            Act::status(429, &json!({"error": {"code": "insufficient_quota", "message": "pay"}})),
            ["pay", "hint: "],
        ),
    ] {
        let server = Server::new(move |_| act.clone());
        let (out, err) = ends(&lab, &server, 2, &format!("--out {name} --tasks delivery --concurrency 1"));
        assert!(out.is_empty() && parts.iter().all(|part| err.contains(part)), "{name}: {err}");
        assert!(err.contains(&server.url()), "{name}: {err}");
        assert_eq!(server.asked().len(), 1, "{name}");
        no_key_under(&lab.path(name));
    }
    assert!(elsewhere.asked().is_empty(), "the key must not follow a redirect");
}

#[test]
fn a_server_that_is_gone_ends_the_run_and_what_is_there_is_kept() {
    let lab = Lab::new();
    many(&lab, 30);
    let server = Server::new(|asked| if asked.index < 12 { good(asked) } else { Act::Drop });
    let (_, err) = ends(&lab, &server, 2, "--out j --tasks delivery --concurrency 1 --retries 0");
    assert!(err.contains("10 questions in a row got no reply") && err.contains("the same command goes on"), "{err}");
    assert_eq!((server.asked().len(), lab.rows("j/answers.jsonl").len()), (22, 12));
    server.now(good);
    ends(&lab, &server, 0, "--out j --tasks delivery");
    assert_eq!((server.asked().len(), lab.rows("j/answers.jsonl").len()), (18, 30));

    // A server that answers that questions are too long is reachable, however many are too long.
    many(&lab, 30);
    let long = Act::status(400, &json!({"error": {"message": "maximum context length is 8"}}));
    let server = Server::new(move |asked| if asked.index < 25 { long.clone() } else { good(asked) });
    let (_, err) = ends(&lab, &server, 1, "--out l --tasks delivery --concurrency 1");
    assert_eq!((server.asked().len(), lab.rows("l/answers.jsonl").len()), (30, 5), "{err}");

    // A port below 1024 that nobody serves, and that no other test can get.
    let (_, err) = ended(&judge_at(&lab, "http://127.0.0.1:1/v1", "--out k --tasks delivery"), 2);
    assert!(err.contains("http://127.0.0.1:1/v1 refuses connections"), "{err}");
    assert!(err.contains("questions  0 done"), "{err}");
}

#[test]
fn a_budget_is_kept_to_the_request() {
    let lab = Lab::new();
    many(&lab, 10);
    for concurrency in [1, 8] {
        // Every question fails once, and repeats count against the budget.
        let server = Server::new(|asked| if asked.before == 0 { Act::status(500, &json!({})) } else { good(asked) });
        let line = format!("--out j{concurrency} --tasks delivery --concurrency {concurrency}");
        let (_, err) = ends(&lab, &server, 1, &format!("{line} --budget 9"));
        assert_eq!(server.asked().len(), 9);
        assert!(err.contains("the budget of 9 requests is spent"), "{err}");
        let judged = by_id(&lab.read(&format!("j{concurrency}/judged.jsonl")));
        let known = judged.values().filter(|item| !item["verbal"].is_null()).count();
        assert_eq!(known, lab.rows(&format!("j{concurrency}/answers.jsonl")).len());
        assert!(known < 5);
        server.now(good);
        ends(&lab, &server, 0, &line);
        assert_eq!(server.asked().len(), 10 - known);
    }
    lab.same(&["judged.jsonl"], "j1", "j8");
    // Many questions that wait to be tried again when the budget is spent are no server that is gone.
    many(&lab, 20);
    let server = Server::new(|asked| if asked.before == 0 { Act::status(500, &json!({})) } else { good(asked) });
    let (_, err) = ends(&lab, &server, 1, "--out many --tasks delivery --concurrency 20 --budget 21");
    assert!(server.asked().len() == 21 && !err.contains("in a row"), "{err}");
    many(&lab, 10);
    let server = Server::new(good);
    let (_, err) = ends(&lab, &server, 1, "--out t --tasks delivery --concurrency 1 --token-budget 30");
    assert!(server.asked().len() == 3 && err.contains("the budget of 30 tokens is spent; 7 questions"), "{err}");
}

#[test]
fn the_key_is_in_no_file_whatever_the_server_does_with_it() {
    let lab = Lab::new();
    four(&lab);
    let server = Server::new(|asked| match asked.index {
        0 => Act::say(format!("Your key is {KEY}.")),
        1 => Act::status(500, &json!({"error": {"message": KEY}})),
        2 => Act::Status(200, format!("Content-Type: {KEY}\r\n"), KEY.into()),
        _ => good(asked),
    });
    server.serve_as(KEY);
    ends(&lab, &server, 1, "--out j --concurrency 1 --retries 0");
    assert_eq!(server.asked()[0].authorization.as_deref(), Some(&*format!("Bearer {KEY}")));
    let answers = lab.read("j/answers.jsonl");
    assert!(answers.contains("Your key is [key].") && answers.contains("\"served\":\"[key]\""), "{answers}");
    no_key_under(&lab.path(""));
    // Without the environment variable there is no header.
    let line = format!("judge --items items.jsonl --endpoint {} --judge-model mock --out k", server.url());
    server.now(good);
    assert!(lab.command(&line).env_remove("OPENAI_API_KEY").output().unwrap().status.success());
    assert!(server.asked().iter().all(|asked| asked.authorization.is_none()));
}
