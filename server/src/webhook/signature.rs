//! The signature of a request, by Standard Webhooks 1.0: HMAC-SHA256 over id, time and body.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// Its bytes, as the specification has them.
const LENGTH: std::ops::RangeInclusive<usize> = 24..=64;
/// Two are enough to replace one.
const MOST: usize = 4;

/// The secrets that sign: while one is replaced, both.
pub(super) struct Secrets(Vec<hmac::Key>);

impl Secrets {
    /// Reads a file with a secret in each line.
    ///
    /// # Errors
    /// In words that do not tell the secret.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let mode = fs::metadata(path).map_err(|fault| format!("{shown} cannot be read: {fault}"))?.mode();
        if mode & 0o007 != 0 {
            return Err(format!(
                "{shown} is open to every user (mode {:04o}): chmod 600 {shown}",
                mode & 0o7777
            ));
        }
        let text = fs::read_to_string(path).map_err(|fault| format!("{shown} cannot be read: {fault}"))?;
        Self::parse(&text).map_err(|text| format!("{shown}: {text}"))
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys: Vec<_> = lines.map(key).collect::<Option<_>>().ok_or(
            "a line is no secret: each is whsec_ and 24 to 64 bytes in base64, as of: echo whsec_$(openssl rand -base64 32)",
        )?;
        match keys.len() {
            0 => Err("holds no secret"),
            1..=MOST => Ok(Self(keys)),
            _ => Err("holds more than four secrets"),
        }
    }

    /// The header `webhook-signature`.
    pub(super) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let signatures: Vec<_> = self.0.iter().map(|key| signature(key, id, timestamp, body)).collect();
        signatures.join(" ")
    }
}

fn key(line: &str) -> Option<hmac::Key> {
    let bytes = STANDARD.decode(line.strip_prefix(PREFIX)?).ok()?;
    LENGTH.contains(&bytes.len()).then(|| hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

fn signature(key: &hmac::Key, id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(format!("{id}.{timestamp}.").as_bytes());
    context.update(body);
    format!("v1,{}", STANDARD.encode(context.sign()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    /// The example of the specification's libraries.
    #[test]
    fn signature_is_the_specifications() {
        let secrets = Secrets::parse(SECRET).unwrap();
        let signed = secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_secret_signs() {
        let both = format!("{SECRET}\n\n whsec_{}\n", STANDARD.encode([7; 32]));
        let signed = Secrets::parse(&both).unwrap().sign("1", 2, b"3");
        assert_eq!(signed.split(' ').filter(|one| one.starts_with("v1,")).count(), 2);
    }

    #[test]
    fn what_is_no_secret_is_told_without_it() {
        for text in [
            "",
            "\n",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_abc",
            "whsec_AAAA",
            &format!("{SECRET}\n").repeat(5),
        ] {
            let told = Secrets::parse(text).err().unwrap();
            assert!(!told.contains("AAAA") && !told.contains("MfKQ"), "{told}");
        }
    }
}
