//! The TLS side of a configuration: which versions, whom to trust, who we are. Built once per configuration, as it holds
//! the sessions that reconnects resume. What went wrong in a handshake is put into words by `refusal.rs`.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, Error, RootCertStore, SupportedProtocolVersion, version};

use crate::clock::TicketClock;
use crate::crypto::provider;
use crate::trusted_time::TrustedTime;
use crate::verifier::Verifier;

/// How many servers' tickets are kept for resumption, which saves more than half of a handshake's bytes. An agent has one
/// server, seldom two.
const RESUMABLE_SERVERS: usize = 2;

/// What rustls keeps of one server: it counts its cache in tickets, eight to a server.
const TICKETS_PER_SERVER: usize = 8;

/// The oldest TLS version that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinVersion {
    /// 1.3 and nothing else.
    Tls13,
    /// 1.2 too, for classic servers that know no better; with the cargo feature `tls12` only.
    #[cfg(feature = "tls12")]
    Tls12,
}

impl MinVersion {
    const fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Tls13 => TLS13,
            #[cfg(feature = "tls12")]
            Self::Tls12 => TLS13_AND_12,
        }
    }
}

/// What every handshake of a configuration shares.
#[derive(Clone, Debug)]
pub struct Tls(Arc<ClientConfig>);

impl Tls {
    /// The server's name is always checked against its certificate; there is no switch for that.
    ///
    /// # Errors
    /// The provider has no suite for the versions, which is a fault of the build.
    pub fn new(
        min_version: MinVersion,
        roots: Arc<RootCertStore>,
        identity: &CertifiedKey,
        time: Arc<TrustedTime>,
    ) -> Result<Self, Error> {
        let provider = provider();
        let verifier = Verifier::new(roots, provider.signature_verification_algorithms, time);
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(TicketClock))
            .with_protocol_versions(min_version.versions())?
            // rustls's word for every verifier that is not its own; this one asks for no less.
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.clone())));
        config.resumption = Resumption::in_memory_sessions(RESUMABLE_SERVERS * TICKETS_PER_SERVER);
        Ok(Self(Arc::new(config)))
    }

    /// The same, its tickets' age by another clock: a week need not be waited for.
    #[must_use]
    pub fn with_ticket_clock(&self, clock: Arc<dyn TimeProvider>) -> Self {
        let mut config = ClientConfig::clone(&self.0);
        config.time_provider = clock;
        Self(Arc::new(config))
    }

    /// A connection that has still to shake hands. `native` offers `moorline/1`; else no ALPN is offered at all.
    ///
    /// # Errors
    /// No randomness, or no time, can be had.
    pub fn connection(&self, name: ServerName<'static>, native: bool) -> Result<ClientConnection, Error> {
        let alpn = if native { vec![moorline_protocol::ALPN.to_vec()] } else { Vec::new() };
        ClientConnection::new_with_alpn(Arc::clone(&self.0), name, alpn)
    }
}

static TLS13: &[&SupportedProtocolVersion] = &[&version::TLS13];
#[cfg(feature = "tls12")]
static TLS13_AND_12: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
