//! What `[webhook]` says, checked with the files that it names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use axum::http::Uri;
use moorline_config::Section;

use super::post::Poster;
use super::signature::Secrets;
use crate::store::Kind;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookSettings {
    /// Where events are posted to.
    pub(super) url: Uri,
    /// The file with the secrets that sign.
    pub(super) secret: PathBuf,
    /// Who signed the receiver's certificate; `None`: the public authorities.
    pub(super) ca: Option<PathBuf>,
    /// Which events; `None`: all.
    pub(super) kinds: Option<Vec<Kind>>,
    /// Names this server in each event.
    pub(super) source: String,
    /// Where it is kept how far the posting has come.
    pub(super) cursor: PathBuf,
}

impl WebhookSettings {
    /// Reads the section, when there is one; mistakes are noted in it. `store` is the database.
    pub(crate) fn read(section: &Section<'_>, credentials: Option<&Path>, store: &Path) -> Option<Self> {
        let [url, secret, ca, source] =
            ["url", "secret_file", "ca", "source"].map(|key| (section.contains(key), section.string(key)));
        let kinds = section.contains("kinds").then(|| read_kinds(section));
        if !(url.0 || secret.0 || ca.0 || source.0 || kinds.is_some()) {
            return None;
        }
        let url = section.require("url").string("url").and_then(|text| read_url(section, &text));
        let credential = credentials.map(|folder| folder.join("webhook.secret")).filter(|file| file.exists());
        if !secret.0 && credential.is_none() {
            section.mistake("secret_file", "is missing");
        }
        let settings = Self {
            url: url?,
            secret: secret.1.map(PathBuf::from).or(credential)?,
            ca: ca.1.map(PathBuf::from),
            kinds: kinds.flatten(),
            source: source.1.unwrap_or_else(|| format!("urn:moorline:server:{}", host())),
            cursor: beside(store),
        };
        if let Err(text) = Secrets::read(&settings.secret) {
            section.mistake("secret_file", text);
        }
        if let Err(text) = Poster::new(&settings) {
            section.mistake("ca", text);
        }
        Some(settings)
    }

    /// Whether events of this kind are posted.
    pub(super) fn wants(&self, kind: Kind) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
    }

    /// The receiver as the log may name it: path and query of a URL are often secrets.
    #[must_use]
    pub fn shown(&self) -> String {
        let authority = self.url.authority().map_or("", |authority| authority.as_str());
        format!("{}://{authority}", self.url.scheme_str().unwrap_or_default())
    }

    /// What is right, and yet worth a warning.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let text = format!("webhook.url is {}, which whoever is on the way can read", self.shown());
        let host = self.url.host().unwrap_or_default();
        let is_here = host == "localhost" || host.starts_with("127.") || host == "[::1]";
        (self.url.scheme_str() == Some("http") && !is_here).then_some(text)
    }
}

fn read_url(section: &Section<'_>, text: &str) -> Option<Uri> {
    let fault = match text.parse::<Uri>() {
        Err(_) => "is no URL",
        Ok(url) if !matches!(url.scheme_str(), Some("http" | "https")) => {
            "begins with neither https:// nor http://"
        }
        Ok(url) if url.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
            "holds a user's name: the receiver knows this server by the signature"
        }
        Ok(url) => return Some(url),
    };
    // Without the text: it may hold what nobody is to read.
    section.mistake("url", fault);
    None
}

fn read_kinds(section: &Section<'_>) -> Option<Vec<Kind>> {
    let names = section.strings("kinds")?;
    let mut kinds = Vec::new();
    for name in names {
        match Kind::from_name(&name) {
            Some(kind) => kinds.push(kind),
            None => {
                let all: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
                section
                    .mistake("kinds", format!("{name:?} is no kind of event: they are {}", all.join(", ")));
            }
        }
    }
    Some(kinds)
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn beside(store: &Path) -> PathBuf {
    let mut name = OsString::from(store);
    name.push(".webhook");
    name.into()
}
