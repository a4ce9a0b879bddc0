//! What the environment says: where the cache is, which hub to ask, and which token to use.

use std::ffi::OsString;
use std::path::PathBuf;
use std::{fmt, fs};

use super::HubError;
use super::disk::io_error;

pub(super) const HUB: &str = "https://huggingface.co";

/// What the environment says about the hub. The module documentation lists the variables.
#[derive(Clone)]
pub struct HubEnv {
    /// The cache: the directory with the `models--owner--name` folders.
    pub cache: PathBuf,
    /// The hub's address if it is not `https://huggingface.co`; see [`HubEnv::endpoint`].
    pub endpoint: Option<String>,
    /// Access token for private and gated models.
    pub token: Option<String>,
    /// Never touch the network.
    pub offline: bool,
}

impl HubEnv {
    /// Reads the process environment.
    ///
    /// # Errors
    /// [`HubError::NoHome`] if no variable and no home directory says where the cache is.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_vars(|name| std::env::var_os(name))
    }

    /// Reads the environment through `var`, which gives the value of a variable. An empty value counts as none.
    ///
    /// # Errors
    /// As [`HubEnv::from_env`].
    pub fn from_vars(var: impl Fn(&str) -> Option<OsString>) -> Result<Self, HubError> {
        let var = |name: &str| var(name).filter(|value| !value.is_empty());
        let text = |name: &str| var(name).and_then(|value| value.into_string().ok());
        let user = || var("HOME").map(PathBuf::from).or_else(std::env::home_dir);
        // A tilde that no shell has expanded, as in an .env file: huggingface_hub expands it as well.
        let expanded = |path: PathBuf| match path.strip_prefix("~") {
            Ok(rest) => user().map_or_else(|| path.clone(), |user| user.join(rest)),
            Err(_) => path,
        };
        let path = |name: &str| var(name).map(PathBuf::from).map(expanded);

        let home = || {
            let hugging_face = path("HF_HOME").or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface")));
            hugging_face.or_else(|| Some(user()?.join(".cache/huggingface")))
        };
        let cache = path("HF_HUB_CACHE").or_else(|| Some(home()?.join("hub"))).ok_or(HubError::NoHome)?;
        let token_file = path("HF_TOKEN_PATH").or_else(|| Some(home()?.join("token")));
        // Without line breaks wherever they are, as huggingface_hub: a header cannot hold them.
        let clean =
            |token: String| Some(token.replace(['\r', '\n'], "").trim().to_owned()).filter(|token| !token.is_empty());
        Ok(Self {
            // hf-hub links relative to the cache, so the working directory must not matter.
            cache: std::path::absolute(&cache).map_err(io_error(&cache))?,
            endpoint: text("HF_ENDPOINT"),
            token: text("HF_TOKEN").and_then(clean).or_else(|| fs::read_to_string(token_file?).ok().and_then(clean)),
            offline: text("HF_HUB_OFFLINE")
                .is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str())),
        })
    }

    /// The address of the hub that is asked.
    pub fn endpoint(&self) -> &str {
        self.endpoint.as_deref().unwrap_or(HUB).trim_end_matches('/')
    }
}

/// Shows whether there is a token, never the token.
impl fmt::Debug for HubEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubEnv")
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .field("offline", &self.offline)
            .finish()
    }
}
