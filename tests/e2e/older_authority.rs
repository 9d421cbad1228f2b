//! CAs that fleets bring along, in all the forms that `openssl` leaves them in: which sign, and what is said of the rest.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use moorline_certs::{Authority, PrivateKey, Serial, Validity};
use moorline_testbed::failure::Failure;
use moorline_testbed::programs::program;
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer as _, X509Version};
use x509_parser::revocation_list::CertificateRevocationList;

const RSA: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
const P384: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
const V3_ROOT: &str = "basicConstraints = critical, CA:TRUE";

#[test]
fn version_1_root_signs_devices_and_lists() -> Result<(), Failure> {
    let folder = Older::root(RSA, "CN = Old root", "")?;
    assert_eq!(folder.version()?, X509Version::V1);
    folder.issues_and_lists()
}

#[test]
fn other_keys_and_names_sign() -> Result<(), Failure> {
    for (key, name) in [
        (RSA, "C = DE\nO = Mühle & Söhne\nCN = Root of 2012"),
        (P384, "O = \"Example, Inc.\"\nOU = Devices"),
        (&["-algorithm", "ED25519"], "DC = example\nemailAddress = ca@example.com"),
    ] {
        Older::root(key, name, V3_ROOT)?.issues_and_lists()?;
    }
    Ok(())
}

#[test]
fn bundle_serves_by_the_certificate_of_the_key() -> Result<(), Failure> {
    let folder = Older::root(P384, "CN = New root", V3_ROOT)?;
    let older = fs::read_to_string(Older::root(RSA, "CN = Old root", V3_ROOT)?.path().join("ca.pem"))?;
    let newer = fs::read_to_string(folder.path().join("ca.pem"))?;
    fs::write(folder.path().join("ca.pem"), older + &newer)?;
    folder.issues_and_lists()
}

#[test]
fn key_in_another_form_gets_the_command_that_converts_it() -> Result<(), Failure> {
    for (key, form, label) in [
        (RSA, &["rsa", "-traditional"][..], "RSA PRIVATE KEY"),
        (P384, &["ec"], "EC PRIVATE KEY"),
        (RSA, &["pkcs8", "-topk8", "-passout", "pass:secret"], "ENCRYPTED PRIVATE KEY"),
    ] {
        let folder = Older::root(key, "CN = Old root", V3_ROOT)?;
        fs::rename(folder.path().join("ca.key"), folder.path().join("OLD.key"))?;
        folder.openssl(&[form, &["-in", "OLD.key", "-out", "ca.key"]].concat())?;
        let error = folder.refused(&["crl"])?;
        let (text, command) = error.split_once("convert it: ").ok_or_else(|| Failure::new(error.as_str()))?;
        assert!(text.contains(&format!("`BEGIN {label}`")), "{error}");

        // The command, for the key's new home, does what it promises.
        fs::rename(folder.path().join("ca.key"), folder.path().join("OLD.key"))?;
        let mut words: Vec<_> =
            command.split_whitespace().map(|word| word.replace("NEW.key", "ca.key")).collect();
        if label.starts_with("ENCRYPTED") {
            words.extend(["-passin".to_owned(), "pass:secret".to_owned()]);
        }
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        assert_eq!(words.first(), Some(&"openssl"));
        folder.openssl(&words[1..])?;
        folder.issues_and_lists()?;
    }
    Ok(())
}

#[test]
fn name_that_would_come_out_otherwise_is_refused() -> Result<(), Failure> {
    for name in ["0.DC = com\n1.DC = example\nCN = Root", "O = Example\n+CN = Root"] {
        let folder = Older::root(P384, name, V3_ROOT)?;
        let error = folder.refused(&["device", "--imei", "869731052403821"])?;
        assert!(error.contains("issue with openssl instead"), "{error}");
    }
    Ok(())
}

#[test]
fn ca_that_may_not_sign_lists_is_told_so() -> Result<(), Failure> {
    let folder = Older::root(
        P384,
        "CN = Root",
        "basicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign",
    )?;
    folder.done(&["device", "--imei", "869731052403821"])?;
    let error = folder.refused(&["crl"])?;
    assert!(error.contains("no cRLSign"), "{error}");
    Ok(())
}

#[test]
fn expired_ca_issues_nothing() -> Result<(), Failure> {
    let folder = Older(tempfile::tempdir()?);
    let now = OffsetDateTime::now_utc();
    let validity = Validity { not_before: now - Duration::days(30), not_after: now - Duration::DAY };
    let authority = Authority::create("Root", PrivateKey::generate()?, &Serial::random()?, validity)?;
    fs::write(folder.path().join("ca.pem"), authority.certificate_pem())?;
    fs::write(folder.path().join("ca.key"), authority.key_pem())?;
    let error = folder.refused(&["device", "--imei", "869731052403821"])?;
    assert!(error.contains("the CA expired on 2"), "{error}");
    assert!(!folder.path().join("devices").exists());
    Ok(())
}

#[test]
fn request_signed_by_another_key_is_refused() -> Result<(), Failure> {
    let folder = Older::root(P384, "CN = Root", V3_ROOT)?;
    folder.openssl(&[
        "req", "-new", "-key", "ca.key", "-config", "root.cnf", "-out", "good.csr", "-outform", "DER",
    ])?;
    let mut request = fs::read(folder.path().join("good.csr"))?;
    // The signature ends the request.
    if let Some(last) = request.last_mut() {
        *last ^= 1;
    }
    fs::write(folder.path().join("bad.der"), request)?;
    let pem = |from: &str, to: &str| folder.openssl(&["req", "-inform", "DER", "-in", from, "-out", to]);
    pem("good.csr", "good.pem")?;
    pem("bad.der", "bad.pem")?;
    let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    folder.done(&["device", "--imei", "869731052403821", "--public-key", &file("good.pem")])?;
    let error = folder.refused(&["device", "--imei", "869731052403821", "--public-key", &file("bad.pem")])?;
    assert!(error.contains("bad.pem: the certificate request is not signed by the key"), "{error}");
    Ok(())
}

#[test]
fn file_without_public_key_is_refused() -> Result<(), Failure> {
    let folder = Older::root(P384, "CN = Root", V3_ROOT)?;
    for file in ["ca.key", "root.cnf"] {
        let path = folder.path().join(file);
        let error = folder.refused(&["server", "--ip", "::1", "--public-key", &path.to_string_lossy()])?;
        assert!(error.contains(&format!("{file}: it does not begin with")), "{error}");
    }
    Ok(())
}

/// A folder with a CA that `openssl` made.
struct Older(TempDir);

impl Older {
    fn root(key: &[&str], name: &str, extensions: &str) -> Result<Self, Failure> {
        let folder = Self(tempfile::tempdir()?);
        let section = if extensions.is_empty() { String::new() } else { format!("[root]\n{extensions}\n") };
        let config =
            format!("[req]\nprompt = no\nutf8 = yes\ndistinguished_name = name\n[name]\n{name}\n{section}");
        fs::write(folder.path().join("root.cnf"), config)?;
        folder.openssl(&[&["genpkey", "-out", "ca.key"][..], key].concat())?;
        let request =
            ["req", "-x509", "-config", "root.cnf", "-key", "ca.key", "-out", "ca.pem", "-days", "3650"];
        if extensions.is_empty() {
            // Newer ones make v1 only when told to, and older ones know no such option.
            let told = folder.openssl(&[&request[..], &["-x509v1"]].concat());
            told.or_else(|_| folder.openssl(&request))?;
        } else {
            folder.openssl(&[&request[..], &["-extensions", "root"]].concat())?;
        }
        Ok(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn version(&self) -> Result<X509Version, Failure> {
        let pem = fs::read(self.path().join("ca.pem"))?;
        Ok(parse_x509_pem(&pem)?.1.parse_x509()?.version())
    }

    /// Issues a device's certificate, revokes it, and has openssl verify both with the CA alone.
    #[track_caller]
    fn issues_and_lists(&self) -> Result<(), Failure> {
        self.done(&["device", "--imei", "869731052403821"])?;
        let device = "devices/869731052403821.pem";
        self.openssl(&["verify", "-CAfile", "ca.pem", "-purpose", "sslclient", device])?;
        self.done(&["revoke", "--imei", "869731052403821"])?;
        self.openssl(&["crl", "-in", "ca.crl", "-CAfile", "ca.pem", "-noout"])?;
        let pem = fs::read(self.path().join("ca.crl"))?;
        let (_, pem) = parse_x509_pem(&pem)?;
        let (_, list) = CertificateRevocationList::from_der(&pem.contents)?;
        assert_eq!(list.iter_revoked_certificates().count(), 1);
        Ok(())
    }

    #[track_caller]
    fn openssl(&self, arguments: &[&str]) -> Result<(), Failure> {
        let mut command = Command::new("openssl");
        let output = command.args(arguments).current_dir(self.path()).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::new(format!("openssl {arguments:?}: {error}")));
        }
        Ok(())
    }

    fn run(&self, arguments: &[&str]) -> Result<Output, Failure> {
        let mut command = Command::new(program("moorline-certs")?);
        Ok(command.args(arguments).arg("--dir").arg(self.path()).output()?)
    }

    #[track_caller]
    fn done(&self, arguments: &[&str]) -> Result<(), Failure> {
        let output = self.run(arguments)?;
        if !output.status.success() {
            return Err(Failure::new(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr))));
        }
        Ok(())
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str]) -> Result<String, Failure> {
        let output = self.run(arguments)?;
        let error = String::from_utf8(output.stderr)?;
        if output.status.code() != Some(1) {
            return Err(Failure::new(format!("{arguments:?} was not refused: {error}")));
        }
        Ok(error)
    }
}
