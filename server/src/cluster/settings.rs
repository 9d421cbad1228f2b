//! What `[cluster]` says.

use std::path::PathBuf;

use moorline_config::Section;

/// The longest name of a node, in bytes.
const LONGEST_NAME: usize = 32;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    /// The NATS servers.
    pub(super) urls: Vec<String>,
    /// This node, as operators call it.
    pub(super) node: String,
    /// Who signed the NATS servers' certificates.
    pub(super) ca: Option<PathBuf>,
    /// Certificate and key that this node shows to NATS.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
    /// A file with a user's JWT and key, as `nsc` makes it.
    pub(super) credentials: Option<PathBuf>,
    /// A user, and the file that holds his password.
    pub(super) user: Option<(String, PathBuf)>,
    /// On how many NATS servers each row lies.
    pub(super) replicas: usize,
}

impl ClusterSettings {
    /// Reads the section, when there is one; mistakes are noted in it.
    pub(crate) fn read(section: &Section<'_>) -> Option<Self> {
        let keys =
            ["nats", "node", "ca", "certificate", "key", "credentials", "user", "password_file", "replicas"];
        if !keys.iter().any(|key| section.contains(key)) {
            return None;
        }
        let urls = section.require("nats").strings("nats").unwrap_or_default();
        if section.contains("nats") && urls.is_empty() {
            section.mistake("nats", "names no server");
        }
        let mut is_encrypted = false;
        for url in &urls {
            match check_url(url) {
                Ok(encrypted) => is_encrypted |= encrypted,
                Err(why) => section.mistake("nats", format!("\"{}\" {why}", url.escape_debug())),
            }
        }
        let node = section.require("node").string("node").unwrap_or_default();
        if section.contains("node") && !is_name(&node) {
            let form = format!("is not a name of at most {LONGEST_NAME} letters, digits and hyphens");
            section.mistake("node", format!("\"{}\" {form}", node.escape_debug()));
        }
        let file = |key| section.string(key).map(PathBuf::from);
        let (ca, credentials) = (file("ca"), file("credentials"));
        let identity = both(section, ("certificate", file("certificate")), ("key", file("key")));
        let user = both(section, ("user", section.string("user")), ("password_file", file("password_file")));
        for (key, file) in [("ca", &ca), ("credentials", &credentials)] {
            check_file(section, key, file.as_ref());
        }
        check_file(section, "certificate", identity.as_ref().map(|(certificate, _)| certificate));
        check_file(section, "key", identity.as_ref().map(|(_, key)| key));
        check_file(section, "password_file", user.as_ref().map(|(_, file)| file));
        if is_encrypted && ca.is_none() && !section.contains("ca") {
            section.mistake("ca", "is missing, and it is by this that a NATS server of tls:// is known");
        }
        let replicas = section.contains("replicas").then(|| section.integer("replicas", 1..=5)).flatten();
        if replicas.is_some_and(|replicas| replicas % 2 == 0) {
            section.mistake("replicas", "is 1, 3 or 5");
        }
        let replicas = replicas.and_then(|replicas| usize::try_from(replicas).ok()).unwrap_or(3);
        Some(Self { urls, node, ca, identity, credentials, user, replicas })
    }

    /// What stands in log lines and errors.
    #[must_use]
    pub fn shown(&self) -> String {
        self.urls.join(", ")
    }

    /// The node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// What is right, and yet worth a warning.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let plain = self.urls.iter().find(|url| url.starts_with("nats://") && !is_local(url))?;
        Some(format!("cluster.nats: {plain}: without TLS whoever is on the way reads and changes the fleet"))
    }
}

fn is_name(name: &str) -> bool {
    let fits = (1..=LONGEST_NAME).contains(&name.len());
    fits && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_local(url: &str) -> bool {
    let host = url.trim_start_matches("nats://");
    ["127.", "localhost", "[::1]"].iter().any(|local| host.starts_with(local))
}

/// Whether it asks for TLS.
fn check_url(url: &str) -> Result<bool, &'static str> {
    let (scheme, rest) =
        url.split_once("://").ok_or("is not of the form nats://host:4222 or tls://host:4222")?;
    if rest.contains('@') {
        return Err("holds a user: name him in user and password_file, or in credentials");
    }
    let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
    match scheme {
        _ if host.is_empty() || rest.contains('/') => {
            Err("is not of the form nats://host:4222 or tls://host:4222")
        }
        "nats" => Ok(false),
        "tls" => Ok(true),
        _ => Err("is not of the form nats://host:4222 or tls://host:4222"),
    }
}

fn both<A, B>(
    section: &Section<'_>,
    (first, one): (&str, Option<A>),
    (second, other): (&str, Option<B>),
) -> Option<(A, B)> {
    match (&one, &other) {
        (Some(_), None) if !section.contains(second) => {
            section.mistake(second, format!("is missing, and {first} is there"));
        }
        (None, Some(_)) if !section.contains(first) => {
            section.mistake(first, format!("is missing, and {second} is there"));
        }
        _ => {}
    }
    one.zip(other)
}

fn check_file(section: &Section<'_>, key: &str, file: Option<&PathBuf>) {
    if let Some(Err(fault)) = file.map(std::fs::File::open) {
        let shown = file.map(|file| file.display().to_string()).unwrap_or_default();
        section.mistake(key, format!("{shown}: {fault}"));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use moorline_config::Document;

    use super::*;

    fn read(text: &str) -> (Option<ClusterSettings>, Vec<String>) {
        let document = Document::parse(Path::new("server.toml"), text).unwrap();
        let settings = ClusterSettings::read(&document.root().section("cluster"));
        let mistakes = document.finish().err().into_iter().flatten();
        (settings, mistakes.map(|mistake| mistake.to_string()).collect())
    }

    #[test]
    fn one_machine_is_the_default() {
        assert_eq!(read(""), (None, Vec::new()));
    }

    #[test]
    fn cluster_has_servers_and_a_name() {
        let (settings, mistakes) = read("[cluster]\nnats = [\"nats://127.0.0.1:4222\"]\nnode = \"a\"\n");
        let settings = settings.unwrap();
        assert!(mistakes.is_empty(), "{mistakes:?}");
        assert_eq!((settings.node(), settings.replicas, settings.warning()), ("a", 3, None));
        let far = "[cluster]\nnats = [\"nats://n1:4222\"]\nnode = \"a\"\nreplicas = 1\n";
        assert!(read(far).0.unwrap().warning().unwrap().contains("nats://n1:4222"));
    }

    #[test]
    fn mistakes_say_where_and_what() {
        for (text, wanted) in [
            ("node = \"a\"", "cluster.nats: is missing"),
            ("nats = []\nnode = \"a\"", "cluster.nats: names no server"),
            ("nats = [\"n1:4222\"]\nnode = \"a\"", "\"n1:4222\" is not of the form nats://host:4222"),
            ("nats = [\"http://n1\"]\nnode = \"a\"", "is not of the form"),
            ("nats = [\"nats://me:secret@n1\"]\nnode = \"a\"", "holds a user: name him in user"),
            ("nats = [\"nats://n1\"]", "cluster.node: is missing"),
            ("nats = [\"nats://n1\"]\nnode = \"a b\"", "\"a b\" is not a name of at most 32"),
            ("nats = [\"tls://n1\"]\nnode = \"a\"", "cluster.ca: is missing"),
            ("nats = [\"nats://n1\"]\nnode = \"a\"\nreplicas = 2", "cluster.replicas: is 1, 3 or 5"),
            (
                "nats = [\"nats://n1\"]\nnode = \"a\"\nuser = \"m\"",
                "cluster.password_file: is missing, and user",
            ),
            (
                "nats = [\"nats://n1\"]\nnode = \"a\"\nca = \"/nowhere/ca.pem\"",
                "cluster.ca: /nowhere/ca.pem: No such",
            ),
        ] {
            let (_, mistakes) = read(&format!("[cluster]\n{text}\n"));
            assert!(mistakes.iter().any(|mistake| mistake.contains(wanted)), "{text}: {mistakes:?}");
            assert!(!mistakes.iter().any(|mistake| mistake.contains("secret@n1\" is")), "{mistakes:?}");
        }
    }
}
