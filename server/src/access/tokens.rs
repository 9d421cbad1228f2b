//! The operators' tokens: read from their file, and compared in constant time.

use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use subtle::{Choice, ConstantTimeEq as _};

/// Two in the midst of a rotation; a few more where several teams have one each.
const MAX_TOKENS: usize = 16;
const MAX_FILE: u64 = 16 * 1024;
/// 128 bits in hexadecimal.
const SHORTEST: usize = 32;
/// Hardly any random token of that length has fewer different signs; what somebody typed has.
const FEWEST_SIGNS: usize = 8;

/// Any of them opens.
#[derive(Clone, Default)]
pub(super) struct Tokens(Vec<String>);

impl Tokens {
    /// Reads a file of one token a line; empty lines and those that begin with `#` are left out.
    ///
    /// # Errors
    /// What is wrong with it, in words that repeat nothing of a token.
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        let shown = file.display();
        let unreadable = |fault| format!("{shown} cannot be read: {fault}");
        let mode = fs::metadata(file).map_err(unreadable)?.mode();
        if mode & 0o007 != 0 {
            let mode = mode & 0o7777;
            return Err(format!("{shown} is open to every user (mode {mode:04o}): chmod 600 {shown}"));
        }
        let mut text = String::new();
        let opened = File::open(file).map_err(unreadable)?;
        opened.take(MAX_FILE).read_to_string(&mut text).map_err(unreadable)?;
        Self::parse(&text).map_err(|fault| format!("{shown}{fault}"))
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).zip(1..);
        let mut tokens = Vec::new();
        for (token, line) in lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#')) {
            judge(token).map_err(|why| format!(":{line}: {why}, as `openssl rand -hex 32` makes it"))?;
            tokens.push(token.to_owned());
        }
        match tokens.len() {
            0 => Err(" holds no token: one of its own a line, as `openssl rand -hex 32` makes it".to_owned()),
            1..=MAX_TOKENS => Ok(Self(tokens)),
            many => Err(format!(" holds {many} tokens, and {MAX_TOKENS} is the most")),
        }
    }

    /// The first one, for who shows it.
    pub(super) fn into_first(self) -> String {
        self.0.into_iter().next().unwrap_or_default()
    }

    /// Whether no token is asked for.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `shown` is one of them. How long that takes tells nothing of how near it came.
    pub(super) fn accept(&self, shown: &[u8]) -> bool {
        let none = Choice::from(0);
        self.0.iter().fold(none, |found, token| found | token.as_bytes().ct_eq(shown)).into()
    }
}

/// What a token is made of is what `Authorization: Bearer` takes (RFC 6750 section 2.1).
fn judge(token: &str) -> Result<(), String> {
    let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if !token.bytes().all(is_sign) {
        return Err("a token has letters, digits and -._~+/= alone".to_owned());
    }
    let mut signs: Vec<_> = token.bytes().collect();
    signs.sort_unstable();
    signs.dedup();
    if token.len() < SHORTEST || signs.len() < FEWEST_SIGNS {
        return Err(format!("this token can be guessed: it has to have {SHORTEST} random signs at least"));
    }
    Ok(())
}

/// Secrets are not shown.
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const FIRST: &str = "0123456789abcdef0123456789abcdef";
    const SECOND: &str = "VGhlIHF1aWNrIGJyb3duIGZveCBqdW1wcyBvdmVy+/-._~==";

    #[test]
    fn any_of_the_tokens_opens_and_nothing_else() {
        let tokens = Tokens::parse(&format!("# in use\n{FIRST}\n\n  {SECOND}\r\n")).unwrap();
        assert!(tokens.accept(FIRST.as_bytes()) && tokens.accept(SECOND.as_bytes()));
        for wrong in ["", "0", &FIRST[1..], &format!("{FIRST}0"), "# in use", &FIRST.to_uppercase()] {
            assert!(!tokens.accept(wrong.as_bytes()), "{wrong}");
        }
        assert!(!Tokens::default().accept(b""));
    }

    #[test]
    fn tokens_that_can_be_guessed_are_refused_and_not_repeated() {
        for (text, wanted) in [
            ("", " holds no token"),
            ("# only words\n", " holds no token"),
            ("secret\n", ":1: this token can be guessed"),
            ("\naaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n", ":2: this token can be guessed"),
            ("correct horse battery staple and more of it\n", ":1: a token has letters, digits and"),
            (&format!("{FIRST}\n").repeat(17), " holds 17 tokens"),
        ] {
            let told = Tokens::parse(text).unwrap_err();
            assert!(told.starts_with(wanted), "{told}");
            assert!(!told.contains("secret") && !told.contains("horse"), "{told}");
        }
        assert_eq!(format!("{:?}", Tokens::parse(FIRST).unwrap()), "Tokens(1)");
    }

    #[test]
    fn file_that_every_user_reads_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, FIRST).unwrap();
        for (mode, right) in [(0o600, true), (0o400, true), (0o640, true), (0o644, false), (0o602, false)] {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            let read = Tokens::read(&file);
            assert_eq!(read.is_ok(), right, "{mode:o}: {read:?}");
        }
        assert!(Tokens::read(&file).unwrap_err().ends_with(&format!("chmod 600 {}", file.display())));
    }
}
