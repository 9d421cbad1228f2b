//! Texts that many devices have in common, kept once: versions, modems, issuers, names of causes.

use std::collections::HashSet;
use std::sync::Arc;

use super::Registry;
use crate::store::Device;

/// Beyond so many, those that nobody uses any more are given up.
const PRUNE_AT: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct SharedTexts {
    texts: HashSet<Arc<str>>,
    prune_at: usize,
}

impl SharedTexts {
    pub(super) fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        if self.texts.len() >= self.prune_at.max(PRUNE_AT) {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            // Pruning must not become the work of every call when most are in use.
            self.prune_at = self.texts.len() * 2;
        }
        let shared: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&shared));
        shared
    }

    pub(super) fn share_in(&mut self, device: &mut Device) {
        for text in [&mut device.agent_version, &mut device.modem, &mut device.session.tls] {
            *text = self.share(text);
        }
        if let Some(ended) = &mut device.session.ended {
            ended.cause = self.share(&ended.cause);
        }
        if let Some(certificate) = &mut device.certificate {
            certificate.issuer = self.share(&certificate.issuer);
        }
    }
}

impl Registry {
    /// How many texts are kept once for all devices.
    #[must_use]
    pub fn shared_texts(&self) -> usize {
        self.lock().texts.texts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one() {
        let mut texts = SharedTexts::default();
        assert!(Arc::ptr_eq(&texts.share("0.1.0"), &texts.share("0.1.0")));
    }

    #[test]
    fn unused_texts_are_given_up() {
        let mut texts = SharedTexts::default();
        let kept = texts.share("kept");
        for n in 0..10_000 {
            texts.share(&n.to_string());
        }
        assert!(texts.texts.len() <= PRUNE_AT);
        assert!(Arc::ptr_eq(&kept, &texts.share("kept")));
    }
}
