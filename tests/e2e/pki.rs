//! The throw-away PKI is what it says: the good certificates pass rustls, and each bad one fails for its own reason.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use moorline_protocol::Imei;
use moorline_testbed::certs::{Credentials, DeviceFlaw, Keys, Pki, ServerFlaw};
use moorline_testbed::failure::Failure;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, Error, OtherError, RootCertStore};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Version};

#[test]
fn good_certificates_pass() -> Result<(), Failure> {
    for keys in [Keys::Ecdsa, Keys::Rsa] {
        let pki = Pki::with_keys(keys)?;
        assert_eq!(judge_device(&pki, &pki.device(imei())?, None)?, Ok(()), "{keys:?}");
        for name in ["localhost", "127.0.0.1", "::1"] {
            assert_eq!(judge_server(&pki, &pki.server()?, name)?, Ok(()), "{keys:?} {name}");
        }
    }
    Ok(())
}

#[test]
fn keys_belong_to_their_certificates() -> Result<(), Failure> {
    for keys in [Keys::Ecdsa, Keys::Rsa] {
        let pki = Pki::with_keys(keys)?;
        for credentials in [pki.device(imei())?, pki.server()?] {
            let chain = vec![certificate(&credentials.certificate)?];
            rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_single_cert(chain, PrivateKeyDer::from_pem_file(&credentials.key)?)?;
        }
    }
    Ok(())
}

#[test]
fn bad_devices_fail_for_their_own_reason() -> Result<(), Failure> {
    let pki = Pki::new()?;
    for flaw in [
        DeviceFlaw::Expired,
        DeviceFlaw::NotYetValid,
        DeviceFlaw::WrongCa,
        DeviceFlaw::ForServers,
        DeviceFlaw::Version1,
    ] {
        let verdict = judge_device(&pki, &pki.flawed_device(imei(), flaw)?, None)?.unwrap_err();
        let own = match (flaw, &verdict) {
            (DeviceFlaw::Expired, CertificateError::ExpiredContext { .. })
            | (DeviceFlaw::NotYetValid, CertificateError::NotValidYetContext { .. })
            | (DeviceFlaw::WrongCa, CertificateError::UnknownIssuer)
            | (DeviceFlaw::ForServers, CertificateError::InvalidPurposeContext { .. }) => true,
            (DeviceFlaw::Version1, CertificateError::Other(error)) => is_version_refusal(error),
            _ => false,
        };
        assert!(own, "{flaw:?}: {verdict:?}");
    }
    Ok(())
}

#[test]
fn device_without_imei_passes_the_chain_alone() -> Result<(), Failure> {
    let pki = Pki::new()?;
    let credentials = pki.flawed_device(imei(), DeviceFlaw::NoImei)?;
    assert_eq!(judge_device(&pki, &credentials, None)?, Ok(()));
    let der = certificate(&credentials.certificate)?;
    let (_, x509) = X509Certificate::from_der(&der)?;
    assert_eq!(x509.version(), X509Version::V3);
    assert!(!x509.subject().to_string().contains(&imei().to_string()));
    assert!(!format!("{:?}", x509.subject_alternative_name()?).contains("imei"));
    Ok(())
}

#[test]
fn bad_servers_fail_for_their_own_reason() -> Result<(), Failure> {
    let pki = Pki::new()?;
    for flaw in [
        ServerFlaw::Expired,
        ServerFlaw::NotYetValid,
        ServerFlaw::WrongCa,
        ServerFlaw::WrongName,
        ServerFlaw::ForClients,
        ServerFlaw::Version1,
    ] {
        let verdict = judge_server(&pki, &pki.flawed_server(flaw)?, "localhost")?.unwrap_err();
        let own = match (flaw, &verdict) {
            (ServerFlaw::Expired, CertificateError::ExpiredContext { .. })
            | (ServerFlaw::NotYetValid, CertificateError::NotValidYetContext { .. })
            | (ServerFlaw::WrongCa, CertificateError::UnknownIssuer)
            | (ServerFlaw::WrongName, CertificateError::NotValidForNameContext { .. })
            | (ServerFlaw::ForClients, CertificateError::InvalidPurposeContext { .. }) => true,
            (ServerFlaw::Version1, CertificateError::Other(error)) => is_version_refusal(error),
            _ => false,
        };
        assert!(own, "{flaw:?}: {verdict:?}");
    }
    Ok(())
}

#[test]
fn revoked_device_fails_by_the_list_alone() -> Result<(), Failure> {
    for keys in [Keys::Ecdsa, Keys::Rsa] {
        let pki = Pki::with_keys(keys)?;
        let (kept, revoked) = (pki.device(imei())?, pki.device(imei())?);
        let list = pki.crl(&[&revoked])?;
        assert_eq!(judge_device(&pki, &revoked, None)?, Ok(()));
        assert_eq!(judge_device(&pki, &revoked, Some(&list))?, Err(CertificateError::Revoked));
        assert_eq!(judge_device(&pki, &kept, Some(&list))?, Ok(()));
    }
    Ok(())
}

#[test]
fn expired_list_is_expired() -> Result<(), Failure> {
    let pki = Pki::new()?;
    let device = pki.device(imei())?;
    let list = pki.expired_crl(&[])?;
    let verdict = judge_device(&pki, &device, Some(&list))?;
    assert!(matches!(verdict, Err(CertificateError::ExpiredRevocationListContext { .. })), "{verdict:?}");
    Ok(())
}

fn imei() -> Imei {
    Imei::try_from(869_731_052_403_821).expect("its check digit is right")
}

fn is_version_refusal(error: &OtherError) -> bool {
    format!("{error:?}").contains("UnsupportedCertVersion")
}

/// What rustls says of a device's certificate: an error of ours is the outer one, its verdict the inner.
fn judge_device(
    pki: &Pki,
    device: &Credentials,
    list: Option<&Path>,
) -> Result<Result<(), CertificateError>, Failure> {
    let provider = Arc::new(ring::default_provider());
    let mut verifier = WebPkiClientVerifier::builder_with_provider(roots(pki)?, provider);
    if let Some(list) = list {
        verifier = verifier
            .with_crls([CertificateRevocationListDer::from_pem_slice(&fs::read(list)?)?])
            .enforce_revocation_expiration();
    }
    let end = certificate(&device.certificate)?;
    verdict(verifier.build()?.verify_client_cert(&end, &[], UnixTime::now()).map(drop))
}

fn judge_server(
    pki: &Pki,
    server: &Credentials,
    name: &'static str,
) -> Result<Result<(), CertificateError>, Failure> {
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(pki)?, provider).build()?;
    let end = certificate(&server.certificate)?;
    let name = ServerName::try_from(name)?;
    verdict(verifier.verify_server_cert(&end, &[], &name, &[], UnixTime::now()).map(drop))
}

fn verdict(result: Result<(), Error>) -> Result<Result<(), CertificateError>, Failure> {
    match result {
        Ok(()) => Ok(Ok(())),
        Err(Error::InvalidCertificate(error)) => Ok(Err(error)),
        Err(other) => Err(other.into()),
    }
}

fn roots(pki: &Pki) -> Result<Arc<RootCertStore>, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&pki.ca())?)?;
    Ok(Arc::new(roots))
}

fn certificate(file: &Path) -> Result<CertificateDer<'static>, Failure> {
    Ok(CertificateDer::from_pem_file(file)?)
}
