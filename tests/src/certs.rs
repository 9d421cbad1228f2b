//! A throw-away PKI: certificates that are as they should be, and each kind of those that are not.
//!
//! Everything lies as PEM in a folder that goes with the value. Moorline's own [`Authority`] signs; what it would never
//! sign is put together here.

mod version1;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use moorline_certs::{Authority, PrivateKey, PublicKey, Revoked, Serial, ServerNames, Validity};
use moorline_protocol::Imei;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use crate::failure::Failure;

/// A CA in a folder of its own, and what it signs there. Each call makes new files, but for the list's.
pub struct Pki {
    folder: TempDir,
    authority: Authority,
    keys: Keys,
    made: AtomicU64,
    lists: AtomicU64,
}

/// A certificate and its key, in PEM files.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's file, mode 0600.
    pub key: PathBuf,
    /// The certificate's serial number.
    pub serial: Serial,
}

/// Which keys a [`Pki`] uses, its CA's included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// ECDSA on P-256, as `moorline-certs` makes them: a new one each time.
    Ecdsa,
    /// RSA of 2048 bits, as older fleets have: one for each role in a process, for they take long to make.
    Rsa,
}

/// What is the matter with a device's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceFlaw {
    /// It ended yesterday.
    Expired,
    /// It begins tomorrow.
    NotYetValid,
    /// Another CA signed it.
    WrongCa,
    /// It is for servers only: its extended key usage is serverAuth.
    ForServers,
    /// It is X.509 v1, so it has no extensions; its common name is the IMEI.
    Version1,
    /// No IMEI is in it.
    NoImei,
}

/// What is the matter with a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerFlaw {
    /// It ended yesterday.
    Expired,
    /// It begins tomorrow.
    NotYetValid,
    /// Another CA signed it.
    WrongCa,
    /// It names `elsewhere.example` alone.
    WrongName,
    /// It is for clients only: its extended key usage is clientAuth.
    ForClients,
    /// It is X.509 v1, so it has no extensions; its common name is `localhost`.
    Version1,
}

impl Pki {
    /// A CA with ECDSA keys.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn new() -> Result<Self, Failure> {
        Self::with_keys(Keys::Ecdsa)
    }

    /// A CA with such keys.
    ///
    /// # Errors
    /// The files cannot be written, or RSA keys are wanted and there is no `openssl` program.
    pub fn with_keys(keys: Keys) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("moorline-pki-").tempdir()?;
        let authority = authority("Moorline test CA", private_key(keys, Role::Authority)?)?;
        fs::write(folder.path().join("ca.pem"), authority.certificate_pem())?;
        write_key(&folder.path().join("ca.key"), &authority.key_pem())?;
        Ok(Self { folder, authority, keys, made: AtomicU64::new(0), lists: AtomicU64::new(0) })
    }

    /// The folder with all of it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The CA itself, for certificates that need no file.
    #[must_use]
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The CA's certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.folder().join("ca.pem")
    }

    /// A server's certificate for `localhost`, `127.0.0.1` and `::1`.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn server(&self) -> Result<Credentials, Failure> {
        self.server_valid(lasting())
    }

    /// As [`Self::server`], for such a time.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn server_valid(&self, validity: Validity) -> Result<Credentials, Failure> {
        self.keep("server", Role::Server, |key, serial| {
            Ok(self.authority.issue_server(&local_names()?, key, serial, validity)?.pem)
        })
    }

    /// A device's certificate.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn device(&self, imei: Imei) -> Result<Credentials, Failure> {
        self.device_valid(imei, lasting())
    }

    /// As [`Self::device`], for such a time.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn device_valid(&self, imei: Imei, validity: Validity) -> Result<Credentials, Failure> {
        self.keep(&format!("device-{imei}"), Role::Device, |key, serial| {
            Ok(self.authority.issue_device(imei, key, serial, validity)?.pem)
        })
    }

    /// A device's certificate that a server has to refuse.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn flawed_device(&self, imei: Imei, flaw: DeviceFlaw) -> Result<Credentials, Failure> {
        let name = format!("device-{imei}-{flaw:?}");
        let odd = |change: &dyn Fn(&mut CertificateParams) -> Result<(), Failure>| {
            self.keep(&name, Role::Device, |key, serial| {
                let mut params = device_params(imei, &serial)?;
                change(&mut params)?;
                Ok(self.authority.sign(&params, key)?)
            })
        };
        match flaw {
            DeviceFlaw::Expired => self.device_valid(imei, past()),
            DeviceFlaw::NotYetValid => self.device_valid(imei, future()),
            DeviceFlaw::WrongCa => self.keep(&name, Role::Device, |key, serial| {
                Ok(self.another()?.issue_device(imei, key, serial, lasting())?.pem)
            }),
            DeviceFlaw::ForServers => odd(&|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                Ok(())
            }),
            DeviceFlaw::Version1 => self.keep_version1(&name, Role::Device, &imei.to_string()),
            DeviceFlaw::NoImei => odd(&|params| {
                params.distinguished_name = common_name("device without a number");
                params.subject_alt_names = vec![SanType::DnsName("device.example".try_into()?)];
                Ok(())
            }),
        }
    }

    /// A server's certificate that a device has to refuse.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn flawed_server(&self, flaw: ServerFlaw) -> Result<Credentials, Failure> {
        let name = format!("server-{flaw:?}");
        match flaw {
            ServerFlaw::Expired => self.server_valid(past()),
            ServerFlaw::NotYetValid => self.server_valid(future()),
            ServerFlaw::WrongCa => self.keep(&name, Role::Server, |key, serial| {
                Ok(self.another()?.issue_server(&local_names()?, key, serial, lasting())?.pem)
            }),
            ServerFlaw::WrongName => self.keep(&name, Role::Server, |key, serial| {
                let names = ServerNames::new(["elsewhere.example"], [])?;
                Ok(self.authority.issue_server(&names, key, serial, lasting())?.pem)
            }),
            ServerFlaw::ForClients => self.keep(&name, Role::Server, |key, serial| {
                let mut params = leaf_params("localhost", &serial);
                params.subject_alt_names = vec![SanType::DnsName("localhost".try_into()?)];
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                Ok(self.authority.sign(&params, key)?)
            }),
            ServerFlaw::Version1 => self.keep_version1(&name, Role::Server, "localhost"),
        }
    }

    /// The CA's revocation list with these certificates, always in the same file, with the next number.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn crl(&self, revoked: &[&Credentials]) -> Result<PathBuf, Failure> {
        self.crl_valid(revoked, lasting())
    }

    /// As [`Self::crl`], but the next list was due yesterday.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn expired_crl(&self, revoked: &[&Credentials]) -> Result<PathBuf, Failure> {
        self.crl_valid(revoked, past())
    }

    fn crl_valid(&self, revoked: &[&Credentials], validity: Validity) -> Result<PathBuf, Failure> {
        let entry = |credentials: &&Credentials| Revoked {
            serial: credentials.serial.clone(),
            at: validity.not_before,
            reason: None,
        };
        let revoked: Vec<_> = revoked.iter().map(entry).collect();
        let number = self.lists.fetch_add(1, Ordering::Relaxed) + 1;
        let file = self.folder().join("ca.crl");
        let unfinished = self.folder().join("ca.crl.new");
        fs::write(&unfinished, self.authority.crl(number, &revoked, validity)?)?;
        fs::rename(&unfinished, &file)?;
        Ok(file)
    }

    /// A CA of the same name as no other, which nobody here trusts.
    fn another(&self) -> Result<Authority, Failure> {
        authority("Another CA", PrivateKey::generate()?)
    }

    fn keep_version1(&self, name: &str, role: Role, common_name: &str) -> Result<Credentials, Failure> {
        self.keep(name, role, |key, serial| {
            version1::sign(&self.authority, common_name, key, &serial, lasting())
        })
    }

    /// Makes a key, has it certified, and writes both.
    fn keep(
        &self,
        name: &str,
        role: Role,
        certify: impl FnOnce(&PublicKey, Serial) -> Result<String, Failure>,
    ) -> Result<Credentials, Failure> {
        let key = private_key(self.keys, role)?;
        let serial = Serial::random()?;
        let certificate = certify(&key.public(), serial.clone())?;
        let stem = format!("{:02}-{name}", self.made.fetch_add(1, Ordering::Relaxed) + 1);
        let credentials = Credentials {
            certificate: self.folder().join(format!("{stem}.pem")),
            key: self.folder().join(format!("{stem}.key")),
            serial,
        };
        fs::write(&credentials.certificate, certificate)?;
        write_key(&credentials.key, &key.pem())?;
        Ok(credentials)
    }
}

/// A validity from yesterday for fifty days: so many that nobody is told of their end.
#[must_use]
pub fn lasting() -> Validity {
    Validity::days(OffsetDateTime::now_utc(), 50)
}

/// A validity that ended yesterday.
fn past() -> Validity {
    let now = OffsetDateTime::now_utc();
    Validity { not_before: now - Duration::days(30), not_after: now - Duration::DAY }
}

/// A validity that begins tomorrow.
fn future() -> Validity {
    let now = OffsetDateTime::now_utc();
    Validity { not_before: now + Duration::DAY, not_after: now + Duration::days(30) }
}

fn authority(name: &str, key: PrivateKey) -> Result<Authority, Failure> {
    let validity = Validity::days(OffsetDateTime::now_utc() - Duration::days(60), 120);
    Ok(Authority::create(name, key, &Serial::random()?, validity)?)
}

fn local_names() -> Result<ServerNames, Failure> {
    let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    Ok(ServerNames::new(["localhost"], addresses)?)
}

fn device_params(imei: Imei, serial: &Serial) -> Result<CertificateParams, Failure> {
    let mut params = leaf_params(&imei.to_string(), serial);
    params.subject_alt_names = vec![SanType::URI(imei.urn().as_str().try_into()?)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn leaf_params(name: &str, serial: &Serial) -> CertificateParams {
    let mut params = bare_params(name, serial, lasting());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

/// No extensions at all.
fn bare_params(name: &str, serial: &Serial, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.serial_number = Some(serial.into());
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Whose key it is.
#[derive(Clone, Copy, Debug)]
enum Role {
    Authority,
    Server,
    Device,
}

fn private_key(keys: Keys, role: Role) -> Result<PrivateKey, Failure> {
    match keys {
        Keys::Ecdsa => Ok(PrivateKey::generate()?),
        Keys::Rsa => Ok(PrivateKey::from_pem(rsa_key(role)?)?),
    }
}

/// ring makes no RSA keys, so `openssl` does.
fn rsa_key(role: Role) -> Result<&'static str, Failure> {
    static MADE: [OnceLock<Result<String, String>>; 3] = [const { OnceLock::new() }; 3];
    let key = MADE[role as usize].get_or_init(make_rsa_key);
    key.as_deref().map_err(|text| Failure::new(text.as_str()))
}

fn make_rsa_key() -> Result<String, String> {
    let output = Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot start openssl, which makes RSA keys for tests: {error}"))?;
    if !output.status.success() {
        return Err(format!("openssl made no RSA key: {}", String::from_utf8_lossy(&output.stderr)));
    }
    String::from_utf8(output.stdout).map_err(|error| error.to_string())
}

fn write_key(file: &Path, pem: &str) -> Result<(), Failure> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    Ok(file.write_all(pem.as_bytes())?)
}
