//! Items, prompts and inputs that cannot be used.

use super::{Bench, experiment};

/// Every verb names all unusable lines of an item file, with their numbers.
#[test]
fn items_that_cannot_be_used() {
    let bench = Bench::new();
    let lines = [
        "{\"id\":\"a\",\"prompt\":\"x\"}",
        "not json",
        "{\"id\":\"b\"}",
        "{\"id\":\"a\",\"prompt\":\"y\"}",
        "{\"id\":\"c\",\"prompt\":\"x\",\"response\":\" \"}",
        "{\"id\":\"d\",\"prompt\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
        "{\"id\":\"e\",\"prompt\":7}",
        "{\"id\":\"f\",\"prompt\":\"\"}",
        "{\"id\":\"g\",\"input_ids\":[]}",
        "{\"id\":\"h\",\"input_ids\":[-1]}",
        "{\"id\":\"i\",\"input_ids\":[6],\"prompt_len\":2}",
    ];
    bench.write("bad.jsonl", lines.join("\n"));
    let parts = [
        "bad.jsonl has lines that cannot be used",
        "line 2: not JSON",
        "line 3: no prompt (prompt, messages or input_ids)",
        "line 4: id 'a' stands there a second time",
        "line 5: the response is empty",
        "line 6: prompt and messages exclude each other",
        "line 7: prompt is a number, not a text",
        "line 8: the prompt is empty",
        "line 9: input_ids is empty",
        "line 10: input_ids",
        "line 11: prompt_len is 2",
        "hint: an item is {\"id\":",
    ];
    let x = experiment().replace("c.jsonl", "bad.jsonl");
    bench.write("x.toml", x);
    bench.write("empty.jsonl", "\n \n");
    bench.write("latin.jsonl", b"{\"id\":\"a\",\"prompt\":\"caf\xe9\"}\n");
    for verb in [
        "generate --model M --items I",
        "capture --model M --items I --out out.npz",
        "attribute --model M --items I --a a --b b --out out",
        "sweep --model M --items I --heads L0H0 --lambda 1 --out out",
    ] {
        bench.refused(&verb.replace('I', "bad.jsonl"), &parts);
        bench.refused(&verb.replace('I', "empty.jsonl"), &["empty.jsonl: holds no items"]);
        bench.refused(&verb.replace('I', "gone.jsonl"), &["cannot read gone.jsonl"]);
        bench.refused(
            &verb.replace('I', "latin.jsonl"),
            &["latin.jsonl has lines that", "line 1: not UTF-8 from byte 24 on"],
        );
    }
    bench.refused("run x.toml --out out", &parts);
    bench.refused("generate --model M --items q.jsonl hi", &["cannot be used with"]);
    bench.refused("generate --model M", &["<PROMPT|--items <ITEMS>>"]);
}

/// Items that can be used; with another of cohort `b`, a run has its cohorts.
const LABELLED: &str = "{\"id\":\"good\",\"label\":\"a\",\"input_ids\":[6]}\n{\"id\":\"more\",\"label\":\"a\",\"input_ids\":[7]}\n\
                        {\"id\":\"other\",\"label\":\"b\",\"input_ids\":[8]}\n";

/// An input that is longer than the context, or has ids beyond the vocabulary, is reported with its item.
#[test]
fn inputs_that_do_not_fit() {
    let bench = Bench::new();
    let ids = |n: usize| format!("{:?}", vec![6; n]);
    let item = |ids: &str| LABELLED.to_owned() + &format!("{{\"id\":\"bad\",\"label\":\"b\",\"input_ids\":{ids}}}\n");
    bench.write("long.jsonl", item(&ids(257)));
    bench.write("beyond.jsonl", item("[6,320]"));
    let line = |id: &str, text: &str| {
        format!("{{\"id\":\"{id}\",\"prompt\":\"x\",\"response\":\"{text}\",\"label\":\"a\"}}\n")
    };
    bench.write("answer.jsonl", line("good", "x") + &line("bad", &"q".repeat(300)));
    for (file, parts) in [
        ("long.jsonl", &["item 'bad' has 257 tokens", "context is 256"][..]),
        ("beyond.jsonl", &["item 'bad' holds token id 320", "vocabulary ends at 319"]),
    ] {
        bench.refused(&format!("generate --model M --items {file}"), parts);
        bench.refused(&format!("capture --model M --items {file} --out out.npz"), parts);
        bench.refused(&format!("sweep --model M --items {file} --out out --heads L0H0 --lambda 1"), parts);
        bench.write("x.toml", experiment().replace("c.jsonl", file));
        bench.refused("run x.toml --out out", parts);
    }
    let parts = ["item 'bad' has ", "context is 256"];
    bench.refused("capture --model M --items answer.jsonl --out out.npz", &parts);
}

/// A prompt that fills the context leaves no room for an answer; this is noticed before anything is written.
#[test]
fn prompts_that_leave_no_room() {
    let bench = Bench::new();
    let full = format!("{{\"id\":\"full\",\"label\":\"b\",\"input_ids\":{:?}}}\n", vec![6; 256]);
    bench.write("full.jsonl", LABELLED.to_owned() + &full);
    let parts = ["item 'full'", "256"];
    bench.refused("generate --model M --items full.jsonl", &parts);
    bench.refused("sweep --model M --items full.jsonl --out out --heads L0H0 --lambda 1", &parts);
    bench.write("x.toml", experiment().replace("c.jsonl", "full.jsonl"));
    bench.refused("run x.toml --out out", &parts);
    bench.done("capture --model M --items full.jsonl --out out.npz"); // it can still be read
}

/// A message that has another form is named by its place, in words of JSON.
#[test]
fn messages_that_are_none() {
    let bench = Bench::new();
    let turn = "{\"role\":\"user\",\"content\":\"x\"}";
    for (messages, part) in [
        (
            "\"hi\"".to_owned(),
            "messages is a text, but must be a list such as [{\"role\": \"user\", \"content\": \"...\"}]",
        ),
        (turn.to_owned(), "messages is an object, but must be a list"),
        (format!("[{turn},\"hi\"]"), "messages[1] is a text, but messages must be a list such as"),
        (
            format!("[{turn},{{\"role\":\"assistant\",\"content\":null}}]"),
            "messages[1].content is null, but must be a text",
        ),
        ("[{\"role\":1,\"content\":\"x\"}]".to_owned(), "messages[0].role is a number, but must be a text"),
        ("[{\"role\":\"user\"}]".to_owned(), "messages[0] has no content, but must have role and content"),
        (turn.replace('}', ",\"name\":\"y\"}").replace('{', "[{") + "]", "messages[0] has the field 'name'"),
    ] {
        bench.write("m.jsonl", format!("{{\"messages\":{messages}}}\n"));
        bench.refused("generate --model ./gone --items m.jsonl", &[&format!("line 1: {part}")]);
    }
}
