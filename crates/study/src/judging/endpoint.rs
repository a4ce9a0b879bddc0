//! Where the judge is, and the key it may want: an address without secrets, and a secret that is never shown.

use std::{ffi::OsString, fmt, net::IpAddr};

use crate::{Result, StudyError};

/// The variable that is read if none is named, as in other clients.
const USUAL: &str = "OPENAI_API_KEY";

/// The address of an OpenAI-compatible server, such as `http://127.0.0.1:8000/v1`. It holds no credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    address: String,
    /// A server on this machine is reached without a proxy, and may get a key in the clear.
    local: bool,
    secure: bool,
}

impl Endpoint {
    /// Reads an address. `/chat/completions` at its end is removed, since requests add it.
    ///
    /// # Errors
    /// If it is not an http or https address, or holds a user name, a password, a query or a fragment. The error does not quote it: what is
    /// wrong with it may be a secret.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |found: &str| {
            let allowed = "an address alone, such as http://127.0.0.1:8000/v1 (a key comes from the environment)";
            StudyError::option("the endpoint", found, allowed)
        };
        let text = text.trim();
        let secure = text.starts_with("https://");
        if !secure && !text.starts_with("http://") {
            return Err(wrong("something without http:// or https:// before it"));
        }
        if text.contains(['?', '#']) {
            return Err(wrong("an address with a query or a fragment"));
        }
        if text.contains('@') {
            return Err(wrong("an address with a user name or a password in it"));
        }
        if text.ends_with("://") || text.contains(":///") {
            return Err(wrong("an address without a host"));
        }
        let address = text.trim_end_matches('/');
        let address = address.strip_suffix("/chat/completions").unwrap_or(address).trim_end_matches('/');
        let uri: ureq::http::Uri = address.parse().map_err(|_| wrong("no address that can be read"))?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("an address without a host"))?;
        let numbers = host.trim_matches(['[', ']']).parse::<IpAddr>();
        let local = host == "localhost" || numbers.is_ok_and(|numbers| numbers.is_loopback());
        Ok(Self { address: address.into(), local, secure })
    }

    /// The address, without a slash at its end.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether it is on this machine.
    pub(crate) fn local(&self) -> bool {
        self.local
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// The key that a server wants, or none. It is sent in one header of each request and shown nowhere: neither by `Debug`, nor in what a
/// server sends back.
#[derive(Clone, Default)]
pub struct ApiKey(Option<String>);

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "ApiKey(...)" } else { "ApiKey(none)" })
    }
}

impl ApiKey {
    /// Anything shorter is a placeholder for local servers, and may be a word of an answer.
    const SECRET: usize = 8;

    /// Takes the key from the named variable, or from `OPENAI_API_KEY` if that is set; `var` gives the value of a variable. Also returns a
    /// note for the user, if there is one.
    ///
    /// If no variable is named, no key is sent over plain http to another machine.
    ///
    /// # Errors
    /// If the named variable is not set, or the key has characters that a header cannot hold. Neither is quoted: a key typed in place of
    /// the name must not end up in a log.
    pub fn from_vars(
        named: Option<&str>,
        endpoint: &Endpoint,
        var: impl Fn(&str) -> Option<OsString>,
    ) -> Result<(Self, Option<String>)> {
        let wrong = |found: &str, allowed: &str| StudyError::option("the key of the endpoint", found, allowed);
        let value = var(named.unwrap_or(USUAL)).filter(|value| !value.is_empty());
        let Some(value) = value else {
            return match named {
                Some(_) => Err(wrong(
                    "not there: the environment variable that --key-env names is not set",
                    "in the environment; --key-env takes the name of the variable, not the key",
                )),
                None => Ok((Self(None), None)),
            };
        };
        if named.is_none() && !endpoint.secure && !endpoint.local {
            let note = format!(
                "note: no key is sent, since {endpoint} is plain http on another machine; --key-env {USUAL} sends it"
            );
            return Ok((Self(None), Some(note)));
        }
        let key = value.to_str().map(str::trim).filter(|key| !key.is_empty());
        match key.filter(|key| key.bytes().all(|byte| byte.is_ascii_graphic())) {
            Some(key) => Ok((Self(Some(key.into())), None)),
            None => {
                Err(wrong("not what a header can hold", "letters, digits and punctuation of ASCII, without spaces"))
            }
        }
    }

    /// The value of the header that carries the key.
    pub(crate) fn header(&self) -> Option<String> {
        self.0.as_ref().map(|key| format!("Bearer {key}"))
    }

    /// A text from the server, with the key replaced if it occurs in it.
    pub(crate) fn redacted(&self, text: &str) -> String {
        match &self.0 {
            Some(key) if key.len() >= Self::SECRET => text.replace(key.as_str(), "[key]"),
            _ => text.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_secrets_in_them_are_not_repeated() {
        for (text, address, local) in [
            ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1", true),
            (" http://localhost:8080/v1/ ", "http://localhost:8080/v1", true),
            ("http://[::1]:80", "http://[::1]:80", true),
            ("https://api.example.org/v1/chat/completions", "https://api.example.org/v1", false),
            ("http://127.evil.example/v1/", "http://127.evil.example/v1", false),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!((endpoint.address(), endpoint.local()), (address, local), "{text}");
        }
        for (text, why) in [
            ("sk-secret-123", "without http:// or https://"),
            ("http://user:sk-secret-123@host/v1", "user name or a password"),
            ("https://sk-secret-123@host", "user name or a password"),
            ("https://host/v1?key=sk-secret-123", "a query"),
            ("http://", "without a host"),
            ("http:///v1", "without a host"),
            ("http://a b/sk-secret-123", "can be read"),
        ] {
            let error = Endpoint::parse(text).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn the_key_comes_from_the_environment_and_is_not_shown() {
        let local = Endpoint::parse("http://127.0.0.1:1/v1").unwrap();
        let plain = Endpoint::parse("http://node17:8000/v1").unwrap();
        let secure = Endpoint::parse("https://api.example.org/v1").unwrap();
        let vars = |name: &str| match name {
            USUAL => Some(OsString::from("sk-usual-key")),
            "MINE" => Some(OsString::from(" sk-my-own-key\n")),
            "BAD" => Some(OsString::from("sk-line\nbreak")),
            "SHORT" => Some(OsString::from("no")),
            _ => None,
        };
        let key = |named, endpoint: &Endpoint| ApiKey::from_vars(named, endpoint, vars);
        let (mine, note) = key(Some("MINE"), &plain).unwrap();
        assert_eq!((mine.header().as_deref(), note), (Some("Bearer sk-my-own-key"), None));
        assert!(!format!("{mine:?}").contains("sk-"));
        assert_eq!(mine.redacted("you sent sk-my-own-key!"), "you sent [key]!");
        assert_eq!(key(Some("SHORT"), &local).unwrap().0.redacted("no, nothing"), "no, nothing");
        for endpoint in [&local, &secure] {
            assert_eq!(key(None, endpoint).unwrap().0.header().as_deref(), Some("Bearer sk-usual-key"));
        }
        let (none, note) = key(None, &plain).unwrap();
        assert!(none.header().is_none() && note.unwrap().contains("plain http"));
        assert!(ApiKey::from_vars(None, &secure, |_| None).unwrap().0.header().is_none());
        for named in ["sk-typed-instead", "BAD"] {
            let error = key(Some(named), &secure).unwrap_err().to_string();
            assert!(!error.contains("sk-"), "{error}");
        }
    }
}
