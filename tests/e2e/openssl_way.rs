//! What certs/README.md tells people to type works as it stands there, and makes certificates that rustls takes.
//!
//! Each section's shell blocks are one script, run by bash in a folder of the section's own.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use moorline_protocol::Imei;
use moorline_testbed::certs::{DeviceFlaw, Keys, Pki, ServerFlaw};
use moorline_testbed::failure::Failure;
use moorline_testbed::programs::program;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, Error, RootCertStore};
use tempfile::TempDir;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Version};
use x509_parser::revocation_list::CertificateRevocationList;

const README: &str = include_str!("../../certs/README.md");
/// The devices of the page.
const IMEI: &str = "869731052403821";
const OTHER_IMEI: &str = "015184008301272";

#[test]
fn every_shell_block_is_of_a_tried_section() {
    let tried = ["With moorline-certs", "With openssl", "With the CA of an older fleet"];
    let blocks: usize = tried.iter().map(|heading| blocks(heading).len()).sum();
    assert_eq!(blocks, README.matches("```").count() / 2);
}

#[test]
fn program_way_works_as_written() -> Result<(), Failure> {
    let place = Place::new()?;
    place.run("With moorline-certs")?;
    let fleet = place.fleet();
    fleet.check_authority()?;
    fleet.check_leaf("devices/869731052403821.pem", Some(IMEI))?;
    fleet.check_key("devices/869731052403821.pem", "devices/869731052403821.key")?;
    fleet.check_leaf("devices/015184008301272.pem", Some(OTHER_IMEI))?;
    fleet.check_key("devices/015184008301272.pem", "../device.key")?;
    fleet.check_leaf("server.pem", None)?;
    fleet.check_server("server.pem")?;
    assert_eq!(fleet.list_number()?, 4);
    let of_table = "../to-the-factory/990016259811154.pem";
    fleet.check_key(of_table, "../to-the-factory/990016259811154.key")?;
    assert_eq!(fleet.judge(of_table)?, Err(CertificateError::Revoked));
    assert_eq!(fleet.judge("devices/869731052403821.pem")?, Ok(()));
    assert_eq!(fleet.judge("devices/015184008301272.pem")?, Err(CertificateError::Revoked));
    Ok(())
}

#[test]
fn openssl_way_works_as_written() -> Result<(), Failure> {
    let place = Place::new()?;
    place.run("With openssl")?;
    let fleet = place.fleet();
    fleet.check_authority()?;
    fleet.check_leaf("devices/869731052403821.pem", Some(IMEI))?;
    fleet.check_key("devices/869731052403821.pem", "devices/869731052403821.key")?;
    fleet.check_leaf("server.pem", None)?;
    fleet.check_server("server.pem")?;
    fleet.check_key("server.pem", "server.key")?;
    // One by openssl, one by the program, and one more by openssl.
    assert_eq!(fleet.list_number()?, 3);
    for revoked in ["devices/869731052403821.pem", "devices/015184008301272.pem"] {
        assert_eq!(fleet.judge(revoked)?, Err(CertificateError::Revoked), "{revoked}");
    }
    Ok(())
}

#[test]
fn older_fleet_way_works_as_written() -> Result<(), Failure> {
    let place = Place::new()?;
    let old = place.lay_older_fleet()?;
    place.run("With the CA of an older fleet")?;
    let fleet = place.fleet();
    for imei in [IMEI, OTHER_IMEI] {
        let certificate = format!("devices/{imei}.pem");
        fleet.check_leaf(&certificate, Some(imei))?;
        fleet.check_key(&certificate, &format!("../old/devices/{imei}.key"))?;
        assert_eq!(fleet.judge(&certificate)?, Ok(()));
    }
    fleet.check_leaf("../869731052403821.pem", Some(IMEI))?;
    assert_eq!(fleet.judge("../869731052403821.pem")?, Ok(()));
    fleet.check_leaf("server.pem", None)?;
    fleet.check_server("server.pem")?;
    fleet.check_key("server.pem", "../old/server.key")?;

    // The old list had number 7 and one entry; two lists came after it, with an entry each.
    assert_eq!(fleet.list_number()?, 9);
    let serials = fleet.listed()?;
    assert_eq!(serials.len(), 3);
    for serial in [&old.lost, &old.replaced, "4C9A01"] {
        assert!(serials.iter().any(|listed| listed == serial), "{serial} is not among {serials:?}");
    }
    Ok(())
}

/// Serial numbers in an older fleet.
struct OlderFleet {
    /// On its list already.
    lost: String,
    /// Of the device whose old certificate the page revokes.
    replaced: String,
}

/// Where a section is run; it goes with the value.
struct Place(TempDir);

impl Place {
    fn new() -> Result<Self, Failure> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn fleet(&self) -> Fleet {
        Fleet(self.path().join("fleet"))
    }

    /// Runs the shell blocks under a heading.
    #[track_caller]
    fn run(&self, heading: &str) -> Result<(), Failure> {
        let blocks = blocks(heading);
        if blocks.is_empty() {
            return Err(Failure::new(format!("no shell block stands under `{heading}`")));
        }
        let mut path = program("moorline-certs")?;
        path.pop();
        let path = env::join_paths([path].into_iter().chain(inherited_path()))?;
        let output = Command::new("bash")
            .args(["-eu", "-o", "pipefail", "-c", &blocks.concat()])
            .env("PATH", path)
            .current_dir(self.path())
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            let (said, error) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            return Err(Failure::new(format!("`{heading}` ended with {}:\n{said}\n{error}", output.status)));
        }
        Ok(())
    }

    /// RSA keys, the CA's in its older form, X.509 v1 leaves, and a list whose number is 7.
    fn lay_older_fleet(&self) -> Result<OlderFleet, Failure> {
        let pki = Pki::with_keys(Keys::Rsa)?;
        let old = self.path().join("old");
        fs::create_dir_all(old.join("devices"))?;
        let lost = pki.flawed_device(OTHER_IMEI.parse()?, DeviceFlaw::Version1)?;
        for imei in [IMEI, OTHER_IMEI] {
            let device = pki.flawed_device(imei.parse()?, DeviceFlaw::Version1)?;
            fs::copy(device.certificate, old.join(format!("devices/{imei}.pem")))?;
            fs::copy(device.key, old.join(format!("devices/{imei}.key")))?;
        }
        let server = pki.flawed_server(ServerFlaw::Version1)?;
        fs::copy(server.certificate, old.join("server.pem"))?;
        fs::copy(server.key, old.join("server.key"))?;
        fs::copy(pki.ca(), old.join("ca.pem"))?;
        let status = Command::new("openssl")
            .args(["rsa", "-traditional", "-in"])
            .arg(pki.folder().join("ca.key"))
            .arg("-out")
            .arg(old.join("ca.key"))
            .stderr(Stdio::null())
            .status()?;
        if !status.success() || !fs::read_to_string(old.join("ca.key"))?.contains("BEGIN RSA PRIVATE KEY") {
            return Err(Failure::new("openssl did not write the key in its older form"));
        }
        for _ in 1..7 {
            pki.crl(&[])?;
        }
        fs::copy(pki.crl(&[&lost])?, old.join("ca.crl"))?;
        let replaced = read(&old.join(format!("devices/{IMEI}.pem")))?;
        let (_, replaced) = X509Certificate::from_der(&replaced)?;
        assert_eq!(replaced.version(), X509Version::V1);
        Ok(OlderFleet { lost: lost.serial.to_string(), replaced: hexadecimal(replaced.raw_serial()) })
    }
}

/// A folder with a CA, however it was made.
struct Fleet(PathBuf);

impl Fleet {
    fn certificate(&self, name: &str) -> Result<CertificateDer<'static>, Failure> {
        read(&self.0.join(name))
    }

    fn check_authority(&self) -> Result<(), Failure> {
        let der = self.certificate("ca.pem")?;
        let (_, ca) = X509Certificate::from_der(&der)?;
        let constraints = ca.basic_constraints()?.ok_or_else(|| Failure::new("no basicConstraints"))?;
        let usage = ca.key_usage()?.ok_or_else(|| Failure::new("no keyUsage"))?;
        assert_eq!(ca.version(), X509Version::V3);
        assert!(constraints.critical && constraints.value.ca, "{constraints:?}");
        assert_eq!(constraints.value.path_len_constraint, Some(0));
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign(), "{usage:?}");
        Ok(())
    }

    /// What every leaf has, and a device's IMEI twice.
    fn check_leaf(&self, name: &str, imei: Option<&str>) -> Result<(), Failure> {
        let der = self.certificate(name)?;
        let (_, leaf) = X509Certificate::from_der(&der)?;
        assert_eq!(leaf.version(), X509Version::V3, "{name}");
        assert!(leaf.basic_constraints()?.is_some_and(|found| found.critical && !found.value.ca), "{name}");
        assert!(
            leaf.key_usage()?.is_some_and(|found| found.critical && found.value.digital_signature()),
            "{name}"
        );
        let purpose = leaf.extended_key_usage()?.ok_or_else(|| Failure::new("no extendedKeyUsage"))?.value;
        let (client, server) = (imei.is_some(), imei.is_none());
        assert_eq!((purpose.client_auth, purpose.server_auth), (client, server), "{name}");
        assert!(leaf.validity().is_valid(), "{name}");
        assert!((8..=20).contains(&leaf.raw_serial().len()), "{name}");
        let Some(imei) = imei else { return Ok(()) };
        assert_eq!(leaf.subject().to_string(), format!("CN={imei}"));
        let urn = imei.parse::<Imei>()?.urn();
        let names = leaf.subject_alternative_name()?.ok_or_else(|| Failure::new("no subjectAltName"))?;
        assert_eq!(names.value.general_names, [GeneralName::URI(&urn)], "{name}");
        Ok(())
    }

    fn check_server(&self, name: &str) -> Result<(), Failure> {
        let verifier = WebPkiServerVerifier::builder_with_provider(self.roots()?, provider()).build()?;
        let host = ServerName::try_from("gw.example.com")?;
        verifier.verify_server_cert(&self.certificate(name)?, &[], &host, &[], UnixTime::now())?;
        Ok(())
    }

    fn check_key(&self, certificate: &str, key: &str) -> Result<(), Failure> {
        rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![self.certificate(certificate)?],
                PrivateKeyDer::from_pem_file(self.0.join(key))?,
            )?;
        Ok(())
    }

    /// What rustls says of a device's certificate with the fleet's list at hand.
    fn judge(&self, device: &str) -> Result<Result<(), CertificateError>, Failure> {
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider())
            .with_crls([self.list()?])
            .enforce_revocation_expiration()
            .build()?;
        match verifier.verify_client_cert(&self.certificate(device)?, &[], UnixTime::now()) {
            Ok(_) => Ok(Ok(())),
            Err(Error::InvalidCertificate(error)) => Ok(Err(error)),
            Err(error) => Err(error.into()),
        }
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, Failure> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate("ca.pem")?)?;
        Ok(Arc::new(roots))
    }

    fn list(&self) -> Result<CertificateRevocationListDer<'static>, Failure> {
        Ok(CertificateRevocationListDer::from_pem_file(self.0.join("ca.crl"))?)
    }

    fn list_number(&self) -> Result<u64, Failure> {
        let der = self.list()?;
        let (_, list) = CertificateRevocationList::from_der(&der)?;
        Ok(list.crl_number().ok_or_else(|| Failure::new("the list has no number"))?.try_into()?)
    }

    fn listed(&self) -> Result<Vec<String>, Failure> {
        let der = self.list()?;
        let (_, list) = CertificateRevocationList::from_der(&der)?;
        Ok(list.iter_revoked_certificates().map(|entry| hexadecimal(entry.raw_serial())).collect())
    }
}

/// The shell blocks under a heading of the page.
fn blocks(heading: &str) -> Vec<&'static str> {
    let sections = README.split("\n## ");
    let section =
        sections.filter_map(|section| section.split_once('\n')).find(|(title, _)| *title == heading);
    let fenced = section.map_or("", |(_, text)| text).split("\n```sh\n").skip(1);
    fenced.filter_map(|rest| rest.split_once("```").map(|(block, _)| block)).collect()
}

fn inherited_path() -> Vec<PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn read(file: &Path) -> Result<CertificateDer<'static>, Failure> {
    Ok(CertificateDer::from_pem_file(file)?)
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02X}")).collect()
}
