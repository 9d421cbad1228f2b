//! The cryptography that devices' sessions run on: ring's, and graviola's X25519 where the processor has what that takes.
//! Why both: docs/decisions/0009.

use rustls::NamedGroup;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};

/// For connections of devices. A device proposes X25519, as a rule, and every handshake computes it twice.
#[must_use]
pub fn provider() -> CryptoProvider {
    let of_ring = ring::default_provider();
    let kx_groups = of_ring.kx_groups.iter().map(|group| match (group.name(), proven_x25519()) {
        (NamedGroup::X25519, Some(proven)) => proven,
        _ => *group,
    });
    CryptoProvider { kx_groups: kx_groups.collect(), ..of_ring }
}

/// s2n-bignum's, whose machine code is proven to compute X25519 (RFC 7748), in half of ring's time.
#[cfg(target_arch = "x86_64")]
fn proven_x25519() -> Option<&'static dyn SupportedKxGroup> {
    // graviola panics where it lacks one of these; it is not called then. Processors since 2015 have them all.
    let is_able = is_x86_feature_detected!("aes")
        && is_x86_feature_detected!("pclmulqdq")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("adx")
        && is_x86_feature_detected!("avx")
        && is_x86_feature_detected!("avx2");
    is_able.then_some(&rustls_graviola::kx::X25519)
}

/// ARM's servers stay with ring's.
#[cfg(not(target_arch = "x86_64"))]
fn proven_x25519() -> Option<&'static dyn SupportedKxGroup> {
    None
}

#[cfg(test)]
mod tests {
    use rustls::crypto::ActiveKeyExchange;

    use super::*;

    fn x25519(provider: &CryptoProvider) -> Box<dyn ActiveKeyExchange> {
        let group = provider.kx_groups.iter().find(|group| group.name() == NamedGroup::X25519);
        group.unwrap().start().unwrap()
    }

    #[test]
    fn groups_are_rings_in_its_order() {
        let names =
            |provider: &CryptoProvider| provider.kx_groups.iter().map(|one| one.name()).collect::<Vec<_>>();
        assert_eq!(names(&provider()), names(&ring::default_provider()));
    }

    #[test]
    fn key_is_agreed_on_with_ring() {
        let (ours, theirs) = (x25519(&provider()), x25519(&ring::default_provider()));
        let (our_key, their_key) = (ours.pub_key().to_vec(), theirs.pub_key().to_vec());
        let (at_ours, at_theirs) = (ours.complete(&their_key).unwrap(), theirs.complete(&our_key).unwrap());
        assert_eq!(at_ours.secret_bytes(), at_theirs.secret_bytes());
    }

    /// Such a secret would be known to everybody (RFC 7748 section 6.1).
    #[test]
    fn share_that_leads_to_zero_is_refused() {
        for share in [&[0; 32][..], &[1; 31], &[], &[9; 33]] {
            assert!(x25519(&provider()).complete(share).is_err(), "{share:?}");
        }
    }
}
