//! A judge on this machine: an HTTP server that answers chat completions, and can be told to misbehave.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// What the server does with a request.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Answers with this text.
    Say(String),
    /// Answers with this message and finish reason.
    Message(Value, &'static str),
    /// This status, head lines, and body.
    Status(u16, String, Vec<u8>),
    /// Takes the request and closes the connection.
    Drop,
    /// Promises a body and closes the connection within it.
    Cut,
    /// Takes the request and says nothing until the client gives up.
    Hang,
}

impl Act {
    pub(super) fn say(text: impl Into<String>) -> Self {
        Self::Say(text.into())
    }

    pub(super) fn status(status: u16, body: &Value) -> Self {
        Self::Status(status, "Content-Type: application/json\r\n".into(), body.to_string().into_bytes())
    }
}

/// A question that was received.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// The whole of the message.
    pub(super) text: String,
    /// The body of the request.
    pub(super) body: Value,
    pub(super) path: String,
    pub(super) authorization: Option<String>,
    /// How often this text has been asked before.
    pub(super) before: usize,
    /// How many requests there were before.
    pub(super) index: usize,
    pub(super) at: Instant,
}

impl Asked {
    /// The text in a fence of the question.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let (_, rest) = self.text.split_once(&format!("BEGIN {name} "))?;
        let (mark, rest) = rest.split_once('\n')?;
        Some(rest.split_once(&format!("\nEND {name} {mark}"))?.0)
    }

    /// What kind of question it is.
    pub(super) fn kind(&self) -> &'static str {
        match (self.field("CLAIM"), self.field("ANSWERS"), self.field("RUBRIC"), self.field("RESPONSE")) {
            (Some(_), ..) => "coverage",
            (_, Some(_), ..) => "accepted",
            (_, _, Some(_), _) => "score",
            (_, _, _, Some(_)) => "delivery",
            _ => "rubric",
        }
    }

    pub(super) fn response(&self) -> &str {
        self.field("RESPONSE").unwrap_or_default()
    }
}

/// A good judge's answer: a claim is made if the response contains it, `maybe` hedges, and the level is the number of words.
pub(super) fn good(asked: &Asked) -> Act {
    let yes = |yes: bool| Act::say(if yes { "YES" } else { "NO" });
    let response = asked.response();
    match asked.kind() {
        "coverage" => yes(response.contains(asked.field("CLAIM").unwrap())),
        "accepted" => yes(asked.field("ANSWERS").unwrap().lines().any(|gold| response.contains(gold))),
        "delivery" => Act::say(if response.contains("maybe") { "HEDGE" } else { "ASSERT" }),
        "rubric" => Act::say("1: none\n2: a little\n3: some\n4: much\n5: all"),
        _ => Act::say(response.split_whitespace().count().clamp(1, 5).to_string()),
    }
}

type Rule = Box<dyn Fn(&Asked) -> Act + Send>;

struct State {
    rule: Rule,
    log: Vec<Asked>,
    times: BTreeMap<String, usize>,
    /// The name of the model that the server claims to be.
    served: String,
}

pub(super) struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn new(rule: impl Fn(&Asked) -> Act + Send + 'static) -> Self {
        let state = State { rule: Box::new(rule), log: Vec::new(), times: BTreeMap::new(), served: "mock-1".into() };
        let state = Arc::new(Mutex::new(state));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, shared) = (listener.local_addr().unwrap(), state.clone());
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                let (state, stream) = (shared.clone(), stream.unwrap());
                // One peek is enough to tell the call that ends the server from a request.
                let mut first = [0];
                if stream.peek(&mut first).is_ok_and(|read| read == 1) && first == *b"!" {
                    return;
                }
                thread::spawn(move || serve(&state, &stream));
            }
        });
        Self { address, state, thread: Some(thread) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Sets how the server behaves from now on.
    pub(super) fn now(&self, rule: impl Fn(&Asked) -> Act + Send + 'static) {
        self.state().rule = Box::new(rule);
    }

    pub(super) fn serve_as(&self, name: &str) {
        self.state().served = name.into();
    }

    /// The questions asked since the last call.
    pub(super) fn asked(&self) -> Vec<Asked> {
        let mut state = self.state();
        state.times.clear();
        std::mem::take(&mut state.log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            TcpStream::connect(self.address).unwrap().write_all(b"!").unwrap();
            thread.join().unwrap();
        }
    }
}

/// Serves the requests of one connection, one after the other, until either side closes it.
fn serve(state: &Mutex<State>, stream: &TcpStream) {
    let mut reader = BufReader::new(stream);
    while let Some((path, authorization, body)) = read_request(&mut reader) {
        let (act, served) = {
            let mut state = state.lock().unwrap();
            let text = body["messages"][0]["content"].as_str().unwrap_or_default().to_string();
            let times = state.times.entry(text.clone()).or_default();
            let before = *times;
            *times += 1;
            let index = state.log.len();
            let asked = Asked { text, body, path, authorization, before, index, at: Instant::now() };
            state.log.push(asked.clone());
            ((state.rule)(&asked), state.served.clone())
        };
        match act {
            Act::Say(text) => send_message(stream, &served, &json!({"role": "assistant", "content": text}), "stop"),
            Act::Message(message, finish) => send_message(stream, &served, &message, finish),
            Act::Status(status, head, body) => send(stream, status, &head, &body),
            Act::Drop => return,
            Act::Cut => {
                let mut stream = stream;
                stream.write_all(b"HTTP/1.1 200 x\r\nContent-Length: 1000\r\n\r\n{\"choices\"").ok();
                return;
            }
            Act::Hang => {
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                let _ = reader.read(&mut [0]);
                return;
            }
        }
    }
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<(String, Option<String>, Value)> {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0).map(|_| line.trim_end().to_string())
    };
    let path = line()?.split(' ').nth(1)?.to_string();
    let mut head = BTreeMap::new();
    while let Some((name, value)) = line()?.split_once(": ") {
        head.insert(name.to_lowercase(), value.to_string());
    }
    let mut body = vec![0; head.get("content-length").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some((path, head.remove("authorization"), serde_json::from_slice(&body).unwrap_or_default()))
}

fn send_message(stream: &TcpStream, served: &str, message: &Value, finish: &str) {
    let body = json!({
        "id": "x", "object": "chat.completion", "model": served,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
    });
    send(stream, 200, "Content-Type: application/json\r\n", body.to_string().as_bytes());
}

fn send(mut stream: &TcpStream, status: u16, head: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status} x\r\n{head}Content-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).ok();
}
