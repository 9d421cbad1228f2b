//! The names that a server's certificate carries, checked before anything is signed.

use std::net::IpAddr;

use rcgen::SanType;
use rcgen::string::Ia5String;

use crate::authority::{AuthorityError, COMMON_NAME_MAX};

/// The names under which devices look for a server: at least one.
#[derive(Clone, Debug)]
pub struct ServerNames(Vec<SanType>);

impl ServerNames {
    /// The names given; the first becomes the subject's common name too.
    ///
    /// # Errors
    /// [`AuthorityError::ServerNames`] when there is none, [`AuthorityError::DnsName`] for one that is not a
    /// host's name.
    pub fn new(
        dns: impl IntoIterator<Item = impl AsRef<str>>,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Result<Self, AuthorityError> {
        let mut names = Vec::new();
        for name in dns {
            names.push(SanType::DnsName(dns_name(name.as_ref())?));
        }
        names.extend(addresses.into_iter().map(SanType::IpAddress));
        if names.is_empty() {
            return Err(AuthorityError::ServerNames);
        }
        Ok(Self(names))
    }

    pub(crate) fn alternatives(&self) -> &[SanType] {
        &self.0
    }

    /// Longer names than a common name may be stand in the alternative names alone, where they are looked for.
    pub(crate) fn common_name(&self) -> Option<String> {
        let name = match self.0.first()? {
            SanType::DnsName(name) => name.to_string(),
            SanType::IpAddress(address) => address.to_string(),
            _ => return None,
        };
        (name.len() <= COMMON_NAME_MAX).then_some(name)
    }
}

/// Labels of letters, digits, `-` and `_`, up to 253 octets; the first may be `*`.
fn dns_name(text: &str) -> Result<Ia5String, AuthorityError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
    let host = text.strip_prefix("*.").unwrap_or(text);
    let is_name = text.len() <= 253 && host.split('.').all(is_label) && text.parse::<IpAddr>().is_err();
    let name = is_name.then(|| Ia5String::try_from(text).ok()).flatten();
    name.ok_or_else(|| AuthorityError::DnsName(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names() {
        for name in ["localhost", "gw.example.com", "*.example.com", "gw_1.example.com", &["a"; 60].join(".")]
        {
            assert!(ServerNames::new([name], []).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for name in
            ["", ".", "a..b", "10.0.0.1", "::1", "gw.example.com.", "g\u{fc}w.example", "a b", "*", "a.*.b"]
        {
            let refused = ServerNames::new([name], []).unwrap_err();
            assert_eq!(refused, AuthorityError::DnsName(name.into()));
        }
        let none = ServerNames::new([""; 0], []).unwrap_err();
        assert_eq!(none, AuthorityError::ServerNames);
    }
}
