//! A hub on this machine that serves tiny models, and can be told to misbehave.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use serde_json::json;
use sha2::{Digest, Sha256};

pub(super) const ID: &str = "tiny/model";
pub(super) const OLD: &str = "1111111111111111111111111111111111111111";
pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// A commit's files. Those that end in `.safetensors` are LFS files: they redirect to another host, as on the hub.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// How the transfer of a file goes wrong.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Fault {
    /// The connection closes after this many bytes of the promised length.
    Cut(usize),
    /// The same, without a promised length.
    CutSilently(usize),
    /// The first byte is wrong.
    Flip,
    /// The whole file is sent, whatever range was asked for.
    IgnoreRange,
    /// This status instead of the file.
    Status(u16),
}

#[derive(Clone)]
pub(super) struct Request {
    pub(super) path: String,
    pub(super) range: Option<String>,
    pub(super) authorization: Option<String>,
}

pub(super) struct State {
    pub(super) commits: BTreeMap<String, Files>,
    pub(super) refs: BTreeMap<String, String>,
    pub(super) token: Option<String>,
    pub(super) faults: BTreeMap<String, Fault>,
    /// This status and `x-error-code` instead of the listing.
    pub(super) listing: Option<(u16, &'static str)>,
    /// Whether the listing gives sizes and hashes.
    pub(super) sizes: bool,
    pub(super) log: Vec<Request>,
}

pub(super) struct Hub {
    pub(super) address: SocketAddr,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

impl Hub {
    pub(super) fn new(files: Files) -> Self {
        let state = Arc::new(Mutex::new(State {
            commits: [(OLD.to_owned(), files)].into(),
            refs: [("main".to_owned(), OLD.to_owned())].into(),
            token: None,
            faults: BTreeMap::new(),
            listing: None,
            sizes: true,
            log: Vec::new(),
        }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = state.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (state, stream) = (shared.clone(), stream.unwrap());
                let request = read_request(&stream);
                if request.path == "/stop" {
                    return;
                }
                std::thread::spawn(move || answer(&state, address, &request, stream));
            }
        });
        Self { address, state, thread: Some(thread) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn fault(&self, file: &str, fault: Fault) {
        self.state().faults.insert(file.to_owned(), fault);
    }

    /// The file bodies asked for since the last call, as `name@first byte`; not the listings and the metadata.
    pub(super) fn bodies(&self) -> Vec<String> {
        let log = std::mem::take(&mut self.state().log);
        let asked = log.iter().filter_map(|request| {
            let start = request.range.as_deref()?.strip_prefix("bytes=")?.strip_suffix('-')?;
            let name = request.path.split_once(&format!("{ID}/resolve/"))?.1.split_once('/')?.1;
            Some(format!("{name}@{start}"))
        });
        asked.collect()
    }

    pub(super) fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            TcpStream::connect(self.address).unwrap().write_all(b"GET /stop HTTP/1.1\r\n\r\n").unwrap();
            thread.join().unwrap();
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.stop();
    }
}

fn read_request(stream: &TcpStream) -> Request {
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let path = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned();
    let headers: HashMap<String, String> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())))
        .collect();
    Request { path, range: headers.get("range").cloned(), authorization: headers.get("authorization").cloned() }
}

fn answer(state: &Mutex<State>, address: SocketAddr, request: &Request, mut stream: TcpStream) {
    let mut state = state.lock().unwrap();
    state.log.push(request.clone());
    let path = decode(&request.path);
    if let Some(rest) = path.strip_prefix("/cdn/") {
        let (commit, name) = rest.split_once('/').unwrap();
        return send_file(&state, commit, name, request, stream);
    }
    let denied = state.token.as_ref().is_some_and(|token| request.authorization != Some(format!("Bearer {token}")));
    if denied {
        return send(&mut stream, 401, "", b"denied");
    }
    if let Some(revision) = path.strip_prefix(&format!("/api/models/{ID}/revision/")) {
        let revision = revision.split_once('?').map_or(revision, |(revision, _)| revision);
        let (status, head, body) = listing(&state, revision);
        send(&mut stream, status, &head, body.as_bytes());
    } else if let Some(rest) = path.strip_prefix(&format!("/{ID}/resolve/")) {
        let (commit, name) = rest.split_once('/').unwrap();
        let Some(bytes) = state.commits.get(commit).and_then(|files| files.get(name)) else {
            return send(&mut stream, 404, "", b"");
        };
        if is_lfs(name) && !matches!(state.faults.get(name), Some(Fault::Status(_))) {
            let port = address.port();
            let escaped = request.path.rsplit_once(&format!("{commit}/")).unwrap().1;
            let etag = sha256(bytes);
            let head = format!(
                "Location: http://localhost:{port}/cdn/{commit}/{escaped}\r\nX-Repo-Commit: {commit}\r\n\
                 X-Linked-Etag: \"{etag}\"\r\nEtag: \"xet\"\r\n"
            );
            send(&mut stream, 302, &head, b"");
        } else {
            send_file(&state, commit, name, request, stream);
        }
    } else {
        send(&mut stream, 404, "X-Error-Code: RepoNotFound\r\n", b"");
    }
}

fn listing(state: &State, revision: &str) -> (u16, String, String) {
    if let Some((status, code)) = state.listing {
        return (status, format!("X-Error-Code: {code}\r\n"), "<html>".to_owned());
    }
    let commit = state.refs.get(revision).map_or(revision, String::as_str);
    let Some(files) = state.commits.get(commit) else {
        return (404, "X-Error-Code: RevisionNotFound\r\n".to_owned(), String::new());
    };
    let siblings: Vec<_> = files
        .iter()
        .map(|(name, bytes)| match state.sizes {
            true if is_lfs(name) => json!({"rfilename": name, "size": bytes.len(), "blobId": blob_id(b"pointer"),
                "lfs": {"sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 134}}),
            true => json!({"rfilename": name, "size": bytes.len(), "blobId": blob_id(bytes)}),
            false => json!({"rfilename": name}),
        })
        .collect();
    (200, String::new(), json!({"id": ID, "sha": commit, "siblings": siblings}).to_string())
}

fn send_file(state: &State, commit: &str, name: &str, request: &Request, mut stream: TcpStream) {
    let mut bytes = state.commits[commit][name].clone();
    let range = request.range.as_deref().and_then(|range| range.strip_prefix("bytes=")).unwrap();
    let (start, end) = range.split_once('-').unwrap();
    let start: usize = start.parse().unwrap();
    let fault = state.faults.get(name).copied().filter(|_| end.is_empty());
    let head = format!("X-Repo-Commit: {commit}\r\nEtag: W/\"{}\"\r\n", blob_id(&bytes));
    match fault {
        Some(Fault::Status(status)) => return send(&mut stream, status, "", b""),
        Some(Fault::IgnoreRange) => return send(&mut stream, 200, &head, &bytes),
        Some(Fault::Flip) => bytes[0] ^= 1,
        _ => {}
    }
    if start >= bytes.len() {
        return send(&mut stream, 416, "", b"");
    }
    let end = end.parse().map_or(bytes.len(), |end: usize| end + 1);
    let mut head = format!("HTTP/1.1 206 x\r\n{head}Content-Range: bytes {start}-{}/{}\r\n", end - 1, bytes.len());
    if !matches!(fault, Some(Fault::CutSilently(_))) {
        head.push_str(&["Content-Length: ", &(end - start).to_string(), "\r\n"].concat());
    }
    let stop = match fault {
        Some(Fault::Cut(count) | Fault::CutSilently(count)) => end.min(start + count),
        _ => end,
    };
    stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).ok();
    stream.write_all(&bytes[start..stop]).ok();
}

fn send(stream: &mut TcpStream, status: u16, head: &str, body: &[u8]) {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} x\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).ok();
}

fn decode(path: &str) -> String {
    let mut pieces = path.split('%');
    let mut bytes = pieces.next().unwrap().as_bytes().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(&piece[..2], 16).unwrap());
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// 40 digits, like a git hash.
pub(super) fn blob_id(bytes: &[u8]) -> String {
    sha256(bytes)[..40].to_owned()
}

fn is_lfs(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "safetensors")
}

pub(super) fn files(list: &[(&str, &[u8])]) -> Files {
    list.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect()
}

/// A model in one file, beside files that nobody needs.
pub(super) fn single() -> Files {
    files(&[
        ("README.md", b"# tiny"),
        ("config.json", b"{}"),
        ("special_tokens_map.json", b""),
        ("tokenizer.json", b"{\"a\":1}"),
        ("chat_template.jinja", b"{{ messages }}"),
        (WEIGHTS, &weights(1)),
    ])
}

/// A model in one file that has an index as well, of shards that are not there.
pub(super) fn indexed() -> Files {
    let index = json!({"metadata": {}, "weight_map": {"a": "model-00001-of-00001.safetensors"}});
    let mut all = single();
    all.extend(files(&[(INDEX, index.to_string().as_bytes())]));
    all
}

/// A model in three files with odd names, and a fourth that the index does not name.
pub(super) fn sharded() -> Files {
    let index = json!({"metadata": {}, "weight_map": {"a": "part one #1.safetensors", "b": "sub/zwei-é?.safetensors",
        "c": "part one #1.safetensors", "d": "50%25.safetensors"}});
    files(&[
        ("config.json", b"{}"),
        ("tokenizer.json", b"{\"a\":1}"),
        (INDEX, index.to_string().as_bytes()),
        ("part one #1.safetensors", &weights(1)),
        ("sub/zwei-é?.safetensors", &weights(2)),
        ("50%25.safetensors", &weights(3)),
        ("consolidated.safetensors", &weights(4)),
    ])
}

pub(super) fn weights(seed: u8) -> Vec<u8> {
    (0..100_000_usize).map(|i| (i % 251) as u8 ^ seed).collect()
}
