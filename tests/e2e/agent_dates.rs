//! Which dates of a server's certificates the agent accepts, with a clock that is kept right and without one: its own TLS
//! configuration in real handshakes, at times that are made up.

use std::io;
use std::sync::Arc;

use moorline_agent::crypto::provider;
use moorline_agent::floor::BUILT;
use moorline_agent::tls::{MinVersion, Tls};
use moorline_agent::trusted_time::{Reading, TrustedTime};
use moorline_testbed::failure::Failure;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConnection, Error, RootCertStore, ServerConfig, ServerConnection};
use time::OffsetDateTime;

const DAY: i64 = 24 * 3600;
/// Days are counted from here.
const FLOOR: u64 = BUILT + 100 * DAY as u64;
/// What a clock shows that is kept right: ten days have passed since the floor was known.
const TODAY: u64 = FLOOR + 10 * DAY as u64;

/// The clocks that a board may have.
const IN_1970: fn() -> Reading = || Reading { seconds: 60, synchronised: false };
const IN_2099: fn() -> Reading = || Reading { seconds: 4_070_908_800, synchronised: false };
const RIGHT: fn() -> Reading = || Reading { seconds: TODAY, synchronised: true };
const SAID_TO_BE_RIGHT_IN_1970: fn() -> Reading = || Reading { seconds: 60, synchronised: true };

/// From and until when, in days from the floor.
type Days = (i64, i64);

/// What a handshake comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    Expired,
    NotYetValid,
    WrongName,
    WrongIssuer,
    WrongPurpose,
    WrongSignature,
}
use Verdict::{Accepted, Expired, NotYetValid, WrongIssuer, WrongName, WrongPurpose, WrongSignature};

#[test]
fn dates_are_judged_by_the_floor_or_by_a_clock_that_is_kept_right() -> Result<(), Failure> {
    let pki = Pki::new("Root")?;
    // The leaf's days, the intermediate's, and the verdicts by the floor and by the clock.
    let cases: [(Days, Option<Days>, Verdict, Verdict); 11] = [
        ((-1, 30), None, Accepted, Accepted),
        ((-30, -1), None, Expired, Expired),
        // Whether it has ended, only a clock tells.
        ((-30, 5), None, Accepted, Expired),
        ((5, 30), None, Accepted, Accepted),
        // Whether it has begun, only a clock tells.
        ((20, 30), None, Accepted, NotYetValid),
        ((-1, 30), Some((-30, 60)), Accepted, Accepted),
        ((-1, 30), Some((20, 60)), Accepted, NotYetValid),
        ((20, 30), Some((25, 60)), Accepted, NotYetValid),
        ((25, 30), Some((20, 60)), Accepted, NotYetValid),
        ((-1, 30), Some((-30, -1)), Expired, Expired),
        // At no time did both hold.
        ((5, 30), Some((-30, 3)), Expired, Expired),
    ];
    for (leaf, intermediate, by_floor, by_clock) in cases {
        let chain = pki.server("localhost", leaf, intermediate, ExtendedKeyUsagePurpose::ServerAuth)?;
        for clock in [IN_1970, IN_2099, SAID_TO_BE_RIGHT_IN_1970] {
            let verdict = pki.shake_hands(clock, &chain)?;
            assert_eq!(verdict, by_floor, "{leaf:?} {intermediate:?} by the floor, {:?}", clock());
        }
        assert_eq!(pki.shake_hands(RIGHT, &chain)?, by_clock, "{leaf:?} {intermediate:?} by the clock");
    }
    Ok(())
}

/// A date that cannot be judged excuses nothing else.
#[test]
fn certificate_that_begins_later_is_refused_for_all_else() -> Result<(), Failure> {
    let pki = Pki::new("Root")?;
    let another = Pki::new("Another root")?;
    let young = (20, 30);
    let for_servers = ExtendedKeyUsagePurpose::ServerAuth;
    let mut with_another_key = pki.server("localhost", young, None, for_servers.clone())?;
    with_another_key.key = another.server("localhost", young, None, for_servers.clone())?.key;
    let cases = [
        (pki.server("elsewhere.example", young, None, for_servers.clone())?, WrongName),
        (pki.server("elsewhere.example", young, Some(young), for_servers.clone())?, WrongName),
        (another.server("localhost", young, None, for_servers)?, WrongIssuer),
        (pki.server("localhost", young, None, ExtendedKeyUsagePurpose::ClientAuth)?, WrongPurpose),
        (with_another_key, WrongSignature),
    ];
    for (chain, verdict) in cases {
        for clock in [IN_1970, IN_2099] {
            assert_eq!(pki.shake_hands(clock, &chain)?, verdict, "{:?}", clock());
        }
        let by_clock = pki.shake_hands(RIGHT, &chain)?;
        assert!(by_clock != Accepted, "{verdict:?}");
    }
    Ok(())
}

/// A root, and a device of its own.
struct Pki {
    root: CertifiedIssuer<'static, KeyPair>,
    device: CertifiedKey,
}

impl Pki {
    fn new(name: &str) -> Result<Self, Failure> {
        let root = CertifiedIssuer::self_signed(authority(name, (-100, 1000))?, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let params = leaf("004999010640000", (-1, 1000), ExtendedKeyUsagePurpose::ClientAuth)?;
        let certificate = params.signed_by(&key, &root)?;
        let device = certified(vec![certificate.der().clone()], &key)?;
        Ok(Self { root, device })
    }

    fn server(
        &self,
        name: &str,
        days: Days,
        intermediate: Option<Days>,
        purpose: ExtendedKeyUsagePurpose,
    ) -> Result<CertifiedKey, Failure> {
        let key = KeyPair::generate()?;
        let params = leaf(name, days, purpose)?;
        let chain = match intermediate {
            None => vec![params.signed_by(&key, &self.root)?.der().clone()],
            Some(days) => {
                let params_between = authority("Intermediate", days)?;
                let between = CertifiedIssuer::signed_by(params_between, KeyPair::generate()?, &self.root)?;
                vec![params.signed_by(&key, &between)?.der().clone(), between.der().clone()]
            }
        };
        certified(chain, &key)
    }

    /// A native agent with this clock meets a server with this chain.
    fn shake_hands(&self, clock: fn() -> Reading, chain: &CertifiedKey) -> Result<Verdict, Failure> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.der().clone())?;
        let time = Arc::new(TrustedTime::with_clock(FLOOR, clock));
        let tls = Tls::new(MinVersion::Tls13, Arc::new(roots), &self.device, time)?;
        let mut agent = tls.connection("localhost".try_into()?, true)?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(chain.clone())));
        config.alpn_protocols = vec![moorline_protocol::ALPN.to_vec()];
        let mut server = ServerConnection::new(Arc::new(config))?;
        while agent.is_handshaking() {
            if let Err(fault) = exchange(&mut agent, &mut server)? {
                return verdict(&fault).ok_or_else(|| Failure::new(format!("{fault:?}")));
            }
        }
        Ok(Accepted)
    }
}

/// What the agent has to say goes to the server, and back.
fn exchange(agent: &mut ClientConnection, server: &mut ServerConnection) -> io::Result<Result<(), Error>> {
    let mut bytes = Vec::new();
    while agent.wants_write() {
        agent.write_tls(&mut bytes)?;
    }
    server.read_tls(&mut bytes.as_slice())?;
    server.process_new_packets().map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut bytes)?;
    }
    let mut bytes = bytes.as_slice();
    while !bytes.is_empty() {
        agent.read_tls(&mut bytes)?;
        if let Err(fault) = agent.process_new_packets() {
            return Ok(Err(fault));
        }
    }
    Ok(Ok(()))
}

fn verdict(fault: &Error) -> Option<Verdict> {
    let Error::InvalidCertificate(fault) = fault else { return None };
    Some(match fault {
        CertificateError::ExpiredContext { .. } => Expired,
        CertificateError::NotValidYetContext { .. } => NotYetValid,
        CertificateError::NotValidForNameContext { .. } => WrongName,
        CertificateError::UnknownIssuer => WrongIssuer,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => WrongPurpose,
        CertificateError::BadSignature => WrongSignature,
        _ => return None,
    })
}

fn authority(name: &str, days: Days) -> Result<CertificateParams, Failure> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    valid(&mut params, days)?;
    Ok(params)
}

fn leaf(name: &str, days: Days, purpose: ExtendedKeyUsagePurpose) -> Result<CertificateParams, Failure> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.extended_key_usages = vec![purpose];
    valid(&mut params, days)?;
    Ok(params)
}

fn valid(params: &mut CertificateParams, (from, until): Days) -> Result<(), Failure> {
    let at = |day| OffsetDateTime::from_unix_timestamp(FLOOR as i64 + day * DAY);
    (params.not_before, params.not_after) = (at(from)?, at(until)?);
    Ok(())
}

fn certified(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Result<CertifiedKey, Failure> {
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(Failure::new)?;
    Ok(CertifiedKey::new(chain, rustls::crypto::ring::sign::any_supported_type(&key)?))
}
