//! The server's configuration with its mistakes: in the file, and in the files that it names. All at once, exit code 78.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use moorline_protocol::Imei;
use moorline_testbed::certs::{Pki, ServerFlaw};
use moorline_testbed::failure::Failure;
use moorline_testbed::programs::program;
use moorline_testbed::rig::IMEI;
use moorline_testbed::settings::Settings;
use tempfile::TempDir;

struct Place {
    folder: TempDir,
    pki: Pki,
}

impl Place {
    fn new() -> Result<Self, Failure> {
        Ok(Self { folder: TempDir::new()?, pki: Pki::new()? })
    }

    fn file(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.folder.path().join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(path)
    }

    fn settings(&self) -> Result<Settings, Failure> {
        let server = self.pki.server()?;
        let mut settings = Settings::default();
        settings.set("tls.certificate", server.certificate.display());
        settings.set("tls.key", server.key.display());
        settings.set("tls.client_ca", self.pki.ca().display());
        settings.set("store.path", self.folder.path().join("fleet.db").display());
        Ok(settings)
    }

    fn check(&self, settings: &Settings) -> Result<Output, Failure> {
        let file = self.file("server.toml", &settings.to_string())?;
        check(&["check", "-c"], &file)
    }
}

fn check(arguments: &[&str], file: &Path) -> Result<Output, Failure> {
    let mut command = Command::new(program("moorline-server")?);
    Ok(command.args(arguments).arg(file).env_clear().stdin(Stdio::null()).output()?)
}

fn said(output: &Output) -> String {
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    let _ = write!(said, "{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn right_configuration_is_described() -> Result<(), Failure> {
    let place = Place::new()?;
    let output = place.check(&place.settings()?)?;
    assert!(output.status.success(), "{}", said(&output));
    let said = said(&output);
    for words in
        ["is right", "devices connect to [::]:9089 over TLS 1.3", "http://127.0.0.1:9090", "list: none"]
    {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    assert!(!place.folder.path().join("fleet.db").exists(), "a check leaves nothing behind");
    Ok(())
}

#[test]
fn each_bad_file_has_its_words() -> Result<(), Failure> {
    let place = Place::new()?;
    let imei: Imei = IMEI.parse()?;
    let other = place.pki.device(imei)?;
    let good = place.pki.server()?;
    let readable = place.file("readable.key", &fs::read_to_string(&good.key)?)?;
    fs::set_permissions(&readable, Permissions::from_mode(0o644))?;
    let ca = fs::read_to_string(place.pki.ca())?;
    let broken = ca.replace("-----BEGIN CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\nAAAA");
    let version_1 = place.pki.flawed_server(ServerFlaw::Version1)?;
    let cases = [
        ("tls.certificate", version_1.certificate, "is X.509 v1, which no device accepts; issue it as v3"),
        ("tls.key", readable, "is open to every user (mode 0644): chmod 600"),
        ("tls.key", other.key, "is not the key of the certificate in"),
        ("tls.key", place.pki.ca(), "is open to every user"),
        ("tls.key", place.file("no.key", &ca)?, "holds no private key in PEM"),
        ("tls.key", place.folder.path().join("missing.key"), "cannot be read: No such file"),
        ("tls.certificate", place.file("no.pem", "not PEM at all\n")?, "holds no certificate in PEM"),
        (
            "tls.client_ca",
            place.file("bundle.pem", &[&ca, &broken, &ca].map(String::as_str).concat())?,
            "certificate 2 of the bundle",
        ),
        (
            "tls.client_ca",
            place.file(
                "cut.pem",
                &[&ca, "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"].concat(),
            )?,
            "section 2 is not PEM",
        ),
        ("tls.crl", place.file("no.crl", &ca)?, "holds no revocation list in PEM"),
        (
            "tls.crl",
            place.file("bad.crl", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")?,
            "this is no revocation list",
        ),
    ];
    for (key, file, words) in cases {
        let mut settings = place.settings()?;
        settings.set(key, file.display());
        let output = place.check(&settings)?;
        let said = said(&output);
        assert_eq!(output.status.code(), Some(78), "{key}: {said}");
        assert!(said.contains(&format!("server.toml: {key}: ")) && said.contains(words), "{words:?}: {said}");
    }
    Ok(())
}

#[test]
fn own_certificate_that_devices_refuse_is_warned_about() -> Result<(), Failure> {
    let place = Place::new()?;
    let flawed = |flaw| -> Result<Output, Failure> {
        let own = place.pki.flawed_server(flaw)?;
        let mut settings = place.settings()?;
        settings.set("tls.certificate", own.certificate.display());
        settings.set("tls.key", own.key.display());
        place.check(&settings)
    };
    // It may be on purpose, as when devices' clocks are wrong too: these are warnings.
    for (flaw, words) in [
        (ServerFlaw::Expired, "expired on 20"),
        (ServerFlaw::NotYetValid, "is not valid before 20"),
        (ServerFlaw::ForClients, "is not for servers: its extended key usage lacks serverAuth"),
    ] {
        let output = flawed(flaw)?;
        assert!(output.status.success(), "{}", said(&output));
        assert!(said(&output).contains("warning: the server's certificate in "), "{}", said(&output));
        assert!(said(&output).contains(words), "{words:?}: {}", said(&output));
    }
    Ok(())
}

#[test]
fn mistakes_of_all_files_come_at_once() -> Result<(), Failure> {
    let place = Place::new()?;
    let mut settings = place.settings()?;
    settings.set("tls.key", place.folder.path().join("missing.key").display());
    settings.set("tls.client_ca", place.file("empty.pem", "")?.display());
    settings.set("listen.devices", "everywhere");
    settings.set("session.heartbeat_min", "1h");
    settings.set("session.heartbeat_maximum", "1h");
    settings.set("identity.binding", "perhaps");
    let file = place.file("server.toml", &settings.to_string())?;
    for arguments in [&["check", "-c"][..], &["-c"]] {
        let output = check(arguments, &file)?;
        let said = said(&output);
        assert_eq!(output.status.code(), Some(78), "{said}");
        for words in [
            "identity.binding: \"perhaps\" is none of required, if-present, off",
            "listen.devices: \"everywhere\" is not an IP address with a port",
            "session.heartbeat_maximum: unknown key",
            "heartbeat_min is 1h, which is more than heartbeat_max, 30m",
            "missing.key cannot be read",
            "empty.pem holds no certificate in PEM",
        ] {
            assert!(said.contains(words), "{words:?} is not in {said}");
        }
    }
    Ok(())
}

#[test]
fn missing_file_is_said_so() -> Result<(), Failure> {
    let output = check(&["-c"], Path::new("/nonexistent/server.toml"))?;
    assert_eq!(output.status.code(), Some(78));
    assert!(said(&output).contains("/nonexistent/server.toml"), "{}", said(&output));
    Ok(())
}
