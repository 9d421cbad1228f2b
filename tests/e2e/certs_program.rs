//! The real `moorline-certs`, as a person at a shell meets it: what it writes, what it refuses and in which words.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::thread;

use moorline_testbed::failure::Failure;
use moorline_testbed::programs::program;
use rustix::process::geteuid;
use tempfile::TempDir;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

const IMEI: &str = "869731052403821";
const OTHER_IMEI: &str = "015184008301272";

#[test]
fn files_have_their_modes() -> Result<(), Failure> {
    let fleet = Fleet::with_server_and_device()?;
    for key in ["ca.key", "server.key", "devices/869731052403821.key"] {
        assert_eq!(fleet.mode(key)?, 0o600, "{key}");
    }
    fleet.done(&["crl"])?;
    let others = ["ca.pem", "server.pem", "devices/869731052403821.pem", "ca.crl", "index.txt", "crlnumber"];
    for other in others {
        assert_eq!(fleet.mode(other)?, 0o644, "{other}");
    }
    Ok(())
}

#[test]
fn new_folder_is_its_owners_alone() -> Result<(), Failure> {
    let place = tempfile::tempdir()?;
    let folder = place.path().join("fleet");
    let output = Fleet::run_in(&folder, &["ca"])?;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::metadata(&folder)?.permissions().mode() & 0o7777, 0o700);
    Ok(())
}

#[test]
fn umask_opens_no_key_and_shuts_no_certificate() -> Result<(), Failure> {
    let fleet = Fleet::new()?;
    for (umask, imei) in [("000", IMEI), ("077", OTHER_IMEI)] {
        let script = format!("umask {umask}; exec \"$0\" device --dir \"$1\" --imei {imei}");
        let output = Command::new("sh").args(["-c", &script]).arg(built()?).arg(fleet.path()).output()?;
        assert!(output.status.success(), "{output:?}");
        assert_eq!(fleet.mode(&format!("devices/{imei}.key"))?, 0o600, "umask {umask}");
        assert_eq!(fleet.mode(&format!("devices/{imei}.pem"))?, 0o644, "umask {umask}");
    }
    Ok(())
}

#[test]
fn key_is_never_overwritten() -> Result<(), Failure> {
    let fleet = Fleet::with_server_and_device()?;
    let before = fleet.contents()?;
    for (arguments, key, hint) in [
        (&["ca"][..], "ca.key", "choose another folder with --dir"),
        (&["server", "--dns", "gw.example.com"], "server.key", "--public-key"),
        (&["device", "--imei", IMEI], "devices/869731052403821.key", "--public-key"),
    ] {
        let error = fleet.refused(arguments)?;
        assert!(error.contains(&format!("{key} exists")), "{error}");
        assert!(error.contains(hint), "{error}");
    }
    assert!(fleet.contents()? == before, "a refusal changed a file");
    Ok(())
}

#[test]
fn ca_is_not_overwritten_when_its_key_is_elsewhere() -> Result<(), Failure> {
    let fleet = Fleet::new()?;
    fs::remove_file(fleet.path().join("ca.key"))?;
    let error = fleet.refused(&["ca"])?;
    assert!(error.contains("ca.pem exists"), "{error}");
    Ok(())
}

#[test]
fn key_is_not_written_through_a_link() -> Result<(), Failure> {
    let fleet = Fleet::new()?;
    let elsewhere = fleet.path().join("elsewhere");
    symlink(&elsewhere, fleet.path().join("server.key"))?;
    let error = fleet.refused(&["server", "--dns", "gw.example.com"])?;
    assert!(error.contains("server.key exists"), "{error}");
    assert!(!elsewhere.exists());
    Ok(())
}

#[test]
fn certificate_that_cannot_be_written_leaves_no_key() -> Result<(), Failure> {
    let fleet = Fleet::new()?;
    fs::create_dir(fleet.path().join("server.pem"))?;
    let error = fleet.refused(&["server", "--dns", "gw.example.com"])?;
    assert!(error.contains("cannot write") && error.contains("server.pem"), "{error}");
    assert!(!fleet.path().join("server.key").exists());
    Ok(())
}

#[test]
fn unwritable_folder_is_named() -> Result<(), Failure> {
    // Root writes everywhere but where the kernel itself says no.
    let place = tempfile::tempdir()?;
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o555))?;
    let folder = if geteuid().is_root() { Path::new("/sys") } else { place.path() };
    let output = Fleet::run_in(folder, &["ca"])?;
    let error = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&format!("cannot write {}/ca.key: ", folder.display())), "{error}");
    assert!(error.contains("denied") || error.contains("not permitted"), "{error}");
    Ok(())
}

#[test]
fn folder_without_ca_gets_the_command_that_makes_one() -> Result<(), Failure> {
    let place = tempfile::tempdir()?;
    let output = Fleet::run_in(place.path(), &["device", "--imei", IMEI])?;
    let error = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains(&format!("moorline-certs ca --dir {}", place.path().display())), "{error}");
    assert_eq!(fs::read_dir(place.path())?.count(), 0, "a refusal left something behind");
    Ok(())
}

#[test]
fn wrong_imei_is_refused_with_the_reason() -> Result<(), Failure> {
    let fleet = Fleet::new()?;
    for (imei, reason) in [
        ("869731052403820", "its check digit is 0 where 1 would be right"),
        ("86973105240382", "it has 14 digits, an IMEI has 15"),
        ("3521869700469801", "it is an IMEISV"),
        ("000000000000000", "all zeros"),
    ] {
        let output = fleet.run(&["device", "--imei", imei])?;
        let error = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(reason), "{error}");
    }
    assert!(!fleet.path().join("devices").exists());
    Ok(())
}

#[test]
fn wrong_arguments_end_with_2() -> Result<(), Failure> {
    let fleet = Fleet::new()?;
    for arguments in [
        &["server"][..],
        &["server", "--ip", "gw.example.com"],
        &["device"],
        &["device", "--imei", IMEI, "--days", "0"],
        &["revoke"],
        &["revoke", "--unlisted", "--imei", IMEI],
        &["revoke", "--imei", IMEI, "--reason", "bad mood"],
        &["revoke", "--serial", "0x1234"],
        &["renew"],
        &[],
    ] {
        let output = fleet.run(arguments)?;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
    Ok(())
}

#[test]
fn name_that_is_no_host_is_refused() -> Result<(), Failure> {
    let fleet = Fleet::new()?;
    let error = fleet.refused(&["server", "--dns", "203.0.113.7"])?;
    assert!(error.contains("`203.0.113.7` is not a host's name; an address is given with --ip"), "{error}");
    Ok(())
}

#[test]
fn nothing_outlives_its_ca() -> Result<(), Failure> {
    let fleet = Fleet::with(&["ca", "--days", "30"])?;
    fleet.done(&["device", "--imei", IMEI, "--days", "3650"])?;
    let end_of = |name: &str| -> Result<i64, Failure> {
        let der = der(&fleet.path().join(name))?;
        Ok(X509Certificate::from_der(&der)?.1.validity().not_after.timestamp())
    };
    assert_eq!(end_of("devices/869731052403821.pem")?, end_of("ca.pem")?);
    Ok(())
}

#[test]
fn list_counts_up_and_keeps_whom_it_revokes() -> Result<(), Failure> {
    let fleet = Fleet::with_server_and_device()?;
    fleet.done(&["device", "--imei", OTHER_IMEI])?;
    fleet.done(&["crl"])?;
    assert_eq!(fleet.list()?, (1, BTreeSet::new()));

    let device = fleet.serial_of("devices/869731052403821.pem")?;
    let said = fleet.done(&["revoke", "--imei", IMEI, "--reason", "keyCompromise"])?;
    assert!(said.contains(&format!("Revoked {device}.")), "{said}");
    assert_eq!(fleet.list()?, (2, BTreeSet::from([device.clone()])));

    let server = fleet.serial_of("server.pem")?;
    let file = fleet.path().join("server.pem");
    fleet.done(&["revoke", &file.to_string_lossy(), "--serial", &device])?;
    assert_eq!(fleet.list()?, (3, BTreeSet::from([device.clone(), server.clone()])));

    fleet.done(&["crl"])?;
    assert_eq!(fleet.list()?, (4, BTreeSet::from([device, server])));
    Ok(())
}

#[test]
fn revoking_twice_says_since_when() -> Result<(), Failure> {
    let fleet = Fleet::with_server_and_device()?;
    fleet.done(&["revoke", "--imei", IMEI])?;
    let index = fs::read_to_string(fleet.path().join("index.txt"))?;
    let said = fleet.done(&["revoke", "--imei", IMEI, "--reason", "superseded"])?;
    assert!(said.contains("was revoked already on 2"), "{said}");
    assert_eq!(fs::read_to_string(fleet.path().join("index.txt"))?, index);
    Ok(())
}

#[test]
fn unknown_target_revokes_nobody() -> Result<(), Failure> {
    let fleet = Fleet::with_server_and_device()?;
    let before = fleet.contents()?;
    let error = fleet.refused(&["revoke", "--imei", IMEI, "--imei", OTHER_IMEI])?;
    assert!(error.contains("no certificate for IMEI 015184008301272 is in index.txt"), "{error}");
    let error = fleet.refused(&["revoke", "--serial", "1234"])?;
    assert!(error.contains("--unlisted"), "{error}");
    assert!(fleet.contents()? == before, "a refusal changed a file");
    fleet.done(&["revoke", "--serial", "12:34", "--unlisted"])?;
    assert_eq!(fleet.list()?, (1, BTreeSet::from(["1234".to_owned()])));
    Ok(())
}

#[test]
fn certificate_of_another_ca_is_not_revoked() -> Result<(), Failure> {
    let (fleet, other) = (Fleet::new()?, Fleet::with(&["ca", "--name", "Another fleet"])?);
    other.done(&["device", "--imei", IMEI])?;
    let file = other.path().join("devices/869731052403821.pem");
    let error = fleet.refused(&["revoke", &file.to_string_lossy()])?;
    assert!(error.contains("this CA did not sign it; its issuer is `CN=Another fleet`"), "{error}");
    Ok(())
}

#[test]
fn lost_counter_and_index_revoke_nobody_less() -> Result<(), Failure> {
    let fleet = Fleet::with_server_and_device()?;
    let device = fleet.serial_of("devices/869731052403821.pem")?;
    fleet.done(&["revoke", "--imei", IMEI])?;
    fs::remove_file(fleet.path().join("crlnumber"))?;
    fs::remove_file(fleet.path().join("index.txt"))?;
    fleet.done(&["crl"])?;
    assert_eq!(fleet.list()?, (2, BTreeSet::from([device])));
    Ok(())
}

#[test]
fn list_of_another_ca_is_not_replaced() -> Result<(), Failure> {
    let (fleet, other) = (Fleet::new()?, Fleet::new()?);
    other.done(&["crl"])?;
    fs::copy(other.path().join("ca.crl"), fleet.path().join("ca.crl"))?;
    let error = fleet.refused(&["crl"])?;
    assert!(error.contains("no revocation list of this CA"), "{error}");
    Ok(())
}

#[test]
fn broken_index_is_named_by_line() -> Result<(), Failure> {
    let fleet = Fleet::with_server_and_device()?;
    let index = fs::read_to_string(fleet.path().join("index.txt"))?;
    fs::write(fleet.path().join("index.txt"), index + "half a li")?;
    for arguments in [&["crl"][..], &["revoke", "--imei", IMEI], &["device", "--imei", OTHER_IMEI]] {
        let error = fleet.refused(arguments)?;
        assert!(error.contains("index.txt: line 3: "), "{error}");
    }
    Ok(())
}

#[test]
fn unended_index_is_gone_on_with() -> Result<(), Failure> {
    let fleet = Fleet::with_server_and_device()?;
    let index = fs::read_to_string(fleet.path().join("index.txt"))?;
    fs::write(fleet.path().join("index.txt"), index.trim_end())?;
    fleet.done(&["device", "--imei", OTHER_IMEI])?;
    fleet.done(&["revoke", "--imei", IMEI, "--imei", OTHER_IMEI])?;
    assert_eq!(fleet.list()?.1.len(), 2);
    Ok(())
}

#[test]
fn same_key_again_gets_another_serial_number() -> Result<(), Failure> {
    let fleet = Fleet::with_server_and_device()?;
    let file = fleet.path().join("devices/869731052403821.pem");
    let (first, first_key) = (fleet.serial_of("devices/869731052403821.pem")?, public_key(&file)?);
    fleet.done(&["device", "--imei", IMEI, "--public-key", &file.to_string_lossy()])?;
    assert_ne!(fleet.serial_of("devices/869731052403821.pem")?, first);
    assert_eq!(public_key(&file)?, first_key);
    Ok(())
}

#[test]
fn programs_at_once_give_no_serial_number_twice() -> Result<(), Failure> {
    let fleet = Fleet::new()?;
    // The 15th digit is the check digit of the 14 before it.
    let imeis = ["869731052403805", "869731052403813", "869731052403821", "869731052403839"];
    let fleet = &fleet;
    thread::scope(|scope| {
        let issue = |imei| scope.spawn(move || fleet.done(&["device", "--imei", imei]));
        let issued: Vec<_> = imeis.into_iter().map(issue).collect();
        issued.into_iter().try_for_each(|one| {
            let done = one.join().map_err(|_| Failure::new("a thread panicked"))?;
            done.map(drop)
        })
    })?;
    let index = fs::read_to_string(fleet.path().join("index.txt"))?;
    let serials: BTreeSet<_> = index.lines().filter_map(|line| line.split('\t').nth(3)).collect();
    assert_eq!((index.lines().count(), serials.len()), (imeis.len(), imeis.len()), "{index}");
    Ok(())
}

#[test]
fn damaged_ca_is_told_apart() -> Result<(), Failure> {
    let other = Fleet::new()?;
    let device = Fleet::with_server_and_device()?;
    let of = |fleet: &Fleet, name: &str| fs::read(fleet.path().join(name));
    for (file, content, words) in [
        ("ca.key", of(&other, "ca.key")?, "the key does not belong to the certificate"),
        ("ca.key", b"nothing\n".to_vec(), "there is no private key in it"),
        (
            "ca.key",
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_vec(),
            "cannot be used",
        ),
        ("ca.pem", of(&device, "ca.key")?, "there is no certificate in it"),
    ] {
        let fleet = Fleet::new()?;
        fs::write(fleet.path().join(file), content)?;
        let error = fleet.refused(&["crl"])?;
        assert!(error.contains(words), "{error}");
    }
    // A leaf with its own key is no CA.
    let fleet = Fleet::new()?;
    fs::write(fleet.path().join("ca.pem"), of(&device, "server.pem")?)?;
    fs::write(fleet.path().join("ca.key"), of(&device, "server.key")?)?;
    let error = fleet.refused(&["crl"])?;
    assert!(error.contains("the certificate is not a CA's"), "{error}");
    Ok(())
}

/// A folder that goes with the value.
struct Fleet(TempDir);

impl Fleet {
    fn new() -> Result<Self, Failure> {
        Self::with(&["ca"])
    }

    fn with(arguments: &[&str]) -> Result<Self, Failure> {
        let fleet = Self(tempfile::tempdir()?);
        fleet.done(arguments)?;
        Ok(fleet)
    }

    fn with_server_and_device() -> Result<Self, Failure> {
        let fleet = Self::new()?;
        fleet.done(&["server", "--dns", "gw.example.com"])?;
        fleet.done(&["device", "--imei", IMEI])?;
        Ok(fleet)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, arguments: &[&str]) -> Result<Output, Failure> {
        Self::run_in(self.path(), arguments)
    }

    fn run_in(folder: &Path, arguments: &[&str]) -> Result<Output, Failure> {
        let mut command = Command::new(built()?);
        Ok(command.args(arguments).arg("--dir").arg(folder).output()?)
    }

    /// What it says when it does what it is asked.
    #[track_caller]
    fn done(&self, arguments: &[&str]) -> Result<String, Failure> {
        let output = self.run(arguments)?;
        if !output.status.success() {
            return Err(Failure::new(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr))));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The one line that it says when it does not.
    #[track_caller]
    fn refused(&self, arguments: &[&str]) -> Result<String, Failure> {
        let output = self.run(arguments)?;
        let error = String::from_utf8(output.stderr)?;
        if output.status.code() != Some(1) || error.lines().count() != 1 || !output.stdout.is_empty() {
            return Err(Failure::new(format!("{arguments:?} was not refused in one line: {error}")));
        }
        Ok(error)
    }

    fn mode(&self, name: &str) -> Result<u32, Failure> {
        Ok(fs::metadata(self.path().join(name))?.permissions().mode() & 0o7777)
    }

    fn serial_of(&self, name: &str) -> Result<String, Failure> {
        let der = der(&self.path().join(name))?;
        Ok(hexadecimal(X509Certificate::from_der(&der)?.1.raw_serial()))
    }

    /// The number of `ca.crl` and the serial numbers in it.
    fn list(&self) -> Result<(u64, BTreeSet<String>), Failure> {
        let der = der(&self.path().join("ca.crl"))?;
        let (_, list) = CertificateRevocationList::from_der(&der)?;
        let number = list.crl_number().ok_or_else(|| Failure::new("the list has no number"))?;
        let serials = list.iter_revoked_certificates().map(|entry| hexadecimal(entry.raw_serial()));
        Ok((number.try_into()?, serials.collect()))
    }

    /// Every file with what is in it.
    fn contents(&self) -> Result<Vec<(PathBuf, Vec<u8>)>, Failure> {
        let mut contents = Vec::new();
        for folder in [self.path().to_owned(), self.path().join("devices")] {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_type()?.is_file() {
                    contents.push((entry.path(), fs::read(entry.path())?));
                }
            }
        }
        contents.sort();
        Ok(contents)
    }
}

/// The program, built once for all tests.
fn built() -> Result<&'static Path, Failure> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if BUILT.get().is_none() {
        let _ = BUILT.set(program("moorline-certs")?);
    }
    BUILT.get().map(PathBuf::as_path).ok_or_else(|| Failure::new("the program is not built"))
}

fn der(file: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = fs::read(file)?;
    let mut blocks = Pem::iter_from_buffer(&bytes);
    let block = blocks.next().ok_or_else(|| Failure::new(format!("no PEM in {}", file.display())))?;
    Ok(block?.contents)
}

fn public_key(file: &Path) -> Result<Vec<u8>, Failure> {
    let der = der(file)?;
    Ok(X509Certificate::from_der(&der)?.1.public_key().raw.to_vec())
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02X}")).collect()
}
