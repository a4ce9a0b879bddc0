//! One request: sent with the key in its header, and its response read up to a limit.

use std::{
    io::{self, Read},
    time::Duration,
};

use serde_json::json;
use ureq::{Agent, Timeout};

use super::{
    ApiKey, Endpoint,
    completion::{self, Failure, Reply},
    pool::Patience,
};

/// More than any answer to a small question: anything longer is no answer.
const MOST_BYTES: u64 = 8 << 20;
/// A server that is up accepts a connection sooner than this.
const CONNECT: Duration = Duration::from_secs(10);

/// What a question is asked with, besides its text. The temperature is 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) model: &'a str,
    pub(crate) max_tokens: u32,
}

/// Asks a server, with one request per question.
pub(crate) struct Client<'a> {
    agent: Agent,
    url: String,
    key: &'a ApiKey,
    asked: Asked<'a>,
    timeout: Duration,
}

impl<'a> Client<'a> {
    /// A client of `endpoint` that keeps a connection for each of its threads.
    pub(crate) fn new(endpoint: &Endpoint, key: &'a ApiKey, asked: Asked<'a>, patience: Patience) -> Self {
        let Patience { timeout, concurrency, .. } = patience;
        let mut config = Agent::config_builder()
            .max_idle_connections(concurrency)
            .max_idle_connections_per_host(concurrency)
            .http_status_as_error(false)
            // The key must not follow where a server redirects.
            .max_redirects(0)
            .timeout_global(Some(timeout))
            .timeout_connect(Some(timeout.min(CONNECT)))
            .user_agent(concat!("headtemper/", env!("CARGO_PKG_VERSION")));
        if endpoint.local() {
            config = config.proxy(None);
        }
        let url = format!("{}/chat/completions", endpoint.address());
        Self { agent: config.build().into(), url, key, asked, timeout }
    }

    /// Sends one request. Nothing that it returns contains the key.
    pub(crate) fn send(&self, text: &str) -> Result<Reply, Failure> {
        let clean = |text: &str| self.key.redacted(text);
        match self.exchange(text) {
            Ok(reply) => Ok(Reply { text: clean(&reply.text), served: reply.served.as_deref().map(clean), ..reply }),
            Err(Failure::Later(why, wait)) => Err(Failure::Later(clean(&why), wait)),
            Err(Failure::Now(why)) => Err(Failure::Now(clean(&why))),
            Err(Failure::TooLong(why)) => Err(Failure::TooLong(clean(&why))),
            Err(Failure::Always(status, why)) => Err(Failure::Always(status, clean(&why))),
        }
    }

    fn exchange(&self, text: &str) -> Result<Reply, Failure> {
        let body = json!({
            "model": self.asked.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": self.asked.max_tokens,
            "stream": false,
        });
        let mut request = self.agent.post(&self.url).header("content-type", "application/json");
        if let Some(header) = self.key.header() {
            request = request.header("authorization", header);
        }
        let mut response = request.send(body.to_string()).map_err(|e| self.failure(e))?;
        let head = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let (kind, wait) = (self.key.redacted(head("content-type").unwrap_or_default()), head("retry-after"));
        let wait = wait.and_then(|text| text.trim().parse().ok());
        let status = response.status().as_u16();
        let mut bytes = Vec::new();
        let mut reader = response.body_mut().with_config().limit(u64::MAX).reader().take(MOST_BYTES + 1);
        reader.read_to_end(&mut bytes).map_err(|e| self.failure(e.into()))?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(Failure::Now(format!("answered with more than {} MiB", MOST_BYTES >> 20)));
        }
        // Before anything is shortened for display: half a key is still a secret.
        let bytes = match std::str::from_utf8(&bytes) {
            Ok(text) => self.key.redacted(text).into_bytes(),
            Err(_) => bytes,
        };
        completion::read(status, wait, &kind, &bytes)
    }

    fn failure(&self, error: ureq::Error) -> Failure {
        use io::ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, TimedOut, UnexpectedEof,
            WouldBlock,
        };
        match error {
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
                let within = self.timeout.min(CONNECT).as_secs_f64();
                Failure::Later(format!("cannot be reached within {within} s"), None)
            }
            ureq::Error::Timeout(_) => {
                Failure::Later(format!("did not answer within {} s", self.timeout.as_secs_f64()), None)
            }
            ureq::Error::Io(e) => match e.kind() {
                ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => {
                    Failure::Later("closed the connection before it had answered".into(), None)
                }
                TimedOut | WouldBlock | Interrupted => Failure::Later(format!("cannot be reached: {e}"), None),
                ConnectionRefused => Failure::Now("refuses connections: nothing listens there".into()),
                _ => Failure::Now(format!("cannot be reached: {e}")),
            },
            ureq::Error::HostNotFound => Failure::Always(None, "has a host that is not known".into()),
            error @ (ureq::Error::Tls(_) | ureq::Error::Rustls(_)) => {
                Failure::Always(None, format!("cannot be reached over TLS: {error}"))
            }
            error @ (ureq::Error::ConnectionFailed | ureq::Error::ConnectProxyFailed(_)) => {
                Failure::Now(format!("cannot be reached: {error}"))
            }
            error => Failure::Now(format!("does not answer as a web server does: {error}")),
        }
    }
}
