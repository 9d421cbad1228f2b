//! The real `moorline-certs` with tables of devices: what it takes for one, what it issues and revokes, and that nothing is
//! half done or done twice, whenever it is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use moorline_certs::{PrivateKey, PublicKey, Serial};
use moorline_protocol::Imei;
use moorline_testbed::failure::Failure;
use moorline_testbed::programs::program;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tempfile::TempDir;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

/// A folder with a CA, and a table beside it.
struct Fleet(TempDir);

impl Fleet {
    fn new() -> Result<Self, Failure> {
        let fleet = Self(tempfile::tempdir()?);
        fleet.done(&["ca"])?;
        Ok(fleet)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn table(&self, text: &str) -> Result<(), Failure> {
        Ok(fs::write(self.path("table.csv"), text)?)
    }

    fn command(&self, arguments: &[&str]) -> Result<Command, Failure> {
        let mut command = Command::new(built()?);
        command
            .args(arguments)
            .arg("--dir")
            .arg(self.0.path())
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        Ok(command)
    }

    fn run(&self, arguments: &[&str]) -> Result<Output, Failure> {
        Ok(self.command(arguments)?.output()?)
    }

    #[track_caller]
    fn done(&self, arguments: &[&str]) -> Result<String, Failure> {
        let output = self.run(arguments)?;
        if !output.status.success() {
            return Err(Failure::new(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr))));
        }
        assert!(output.stderr.is_empty(), "a bar where nobody looks: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str]) -> Result<String, Failure> {
        let output = self.run(arguments)?;
        if output.status.code() != Some(1) || !output.stdout.is_empty() {
            return Err(Failure::new(format!("{arguments:?} was not refused: {output:?}")));
        }
        Ok(String::from_utf8(output.stderr)?)
    }

    /// The serial numbers in the index, one for each line.
    fn indexed(&self) -> Result<Vec<String>, Failure> {
        let text = fs::read_to_string(self.path("index.txt")).unwrap_or_default();
        Ok(text.lines().filter_map(|line| line.split('\t').nth(3)).map(str::to_owned).collect())
    }

    /// The number of the list and how many it revokes.
    fn list(&self) -> Result<(u64, usize), Failure> {
        let der = der(&self.path("ca.crl"))?;
        let (_, list) = CertificateRevocationList::from_der(&der)?;
        let number = list.crl_number().ok_or_else(|| Failure::new("the list has no number"))?;
        Ok((number.try_into()?, list.iter_revoked_certificates().count()))
    }

    /// Every file of a folder with what is in it.
    fn contents(&self, folder: &str) -> Result<BTreeMap<PathBuf, Vec<u8>>, Failure> {
        let mut contents = BTreeMap::new();
        for entry in fs::read_dir(self.path(folder))? {
            let path = entry?.path();
            if path.is_file() {
                contents.insert(path.clone(), fs::read(path)?);
            }
        }
        Ok(contents)
    }

    /// That these and no others have a certificate of this CA with their own key, each with a number that the index has once,
    /// and that the folder holds nothing else.
    fn assert_whole(&self, out: &str, imeis: &[String]) -> Result<(), Failure> {
        let ca = der(&self.path("ca.pem"))?;
        let (_, ca) = X509Certificate::from_der(&ca)?;
        let mut serials = BTreeSet::new();
        for imei in imeis {
            let (certificate, key) =
                (self.path(out).join(format!("{imei}.pem")), self.path(out).join(format!("{imei}.key")));
            assert_eq!(fs::metadata(&key)?.permissions().mode() & 0o7777, 0o600, "{imei}");
            assert_eq!(fs::metadata(&certificate)?.permissions().mode() & 0o7777, 0o644, "{imei}");
            let public = PublicKey::from_pem(&fs::read_to_string(&certificate)?)?;
            assert_eq!(PrivateKey::from_pem(&fs::read_to_string(&key)?)?.public(), public, "{imei}");
            let der = der(&certificate)?;
            let (_, x509) = X509Certificate::from_der(&der)?;
            assert_eq!(x509.subject().to_string(), format!("CN={imei}"));
            assert!(x509.verify_signature(Some(ca.public_key())).is_ok(), "{imei}");
            serials.insert(Serial::from_octets(x509.raw_serial()).to_string());
        }
        assert_eq!(serials.len(), imeis.len());
        assert_eq!(self.contents(out)?.len(), 2 * imeis.len());
        let indexed = self.indexed()?;
        assert_eq!((indexed.len(), indexed.into_iter().collect::<BTreeSet<_>>()), (imeis.len(), serials));
        Ok(())
    }
}

/// IMEIs of one model.
fn imeis(count: u64) -> Result<Vec<String>, Failure> {
    let imei = |number| Ok(Imei::from_urn(&format!("urn:gsma:imei:86973105-{number:06}-0"))?.to_string());
    (0..count).map(imei).collect()
}

fn built() -> Result<&'static Path, Failure> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if BUILT.get().is_none() {
        let _ = BUILT.set(program("moorline-certs")?);
    }
    BUILT.get().map(PathBuf::as_path).ok_or_else(|| Failure::new("the program is not built"))
}

fn der(file: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = fs::read(file)?;
    let block = Pem::iter_from_buffer(&bytes).next();
    Ok(block.ok_or_else(|| Failure::new(format!("no PEM in {}", file.display())))??.contents)
}

/// A terminal, and the side of it that a program writes to.
fn terminal() -> Result<(File, File), Failure> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let side = rustix::fs::open(name.as_c_str(), flags, Mode::empty())?;
    Ok((master.into(), side.into()))
}

#[test]
fn table_of_a_spreadsheet_becomes_certificates() -> Result<(), Failure> {
    let fleet = Fleet::new()?;
    let all = imeis(5)?;
    let rows: String = all.iter().map(|imei| format!("\"Crane; \"\"north\"\"\";{imei};x\r\n")).collect();
    fleet.table(&format!("\u{feff}Site;IMEI;Note\r\n{rows};;\r\n"))?;
    let said = fleet.done(&["devices", "--csv", "table.csv"])?;
    assert!(said.starts_with("Made 5 certificates, 0 were there already"), "{said}");
    fleet.assert_whole("devices", &all)?;
    // The same again changes nothing.
    let before = fleet.contents("devices")?;
    let said = fleet.done(&["devices", "--csv", "table.csv"])?;
    assert!(said.starts_with("Made 0 certificates, 5 were there already"), "{said}");
    assert!(fleet.contents("devices")? == before);
    fleet.assert_whole("devices", &all)
}

#[test]
fn one_bad_line_issues_nothing_and_every_bad_line_is_told() -> Result<(), Failure> {
    let fleet = Fleet::new()?;
    let all = imeis(2)?;
    fleet.table(&format!("{0}\nhello\n{1}\n\n{0}\n869731052403820\n8.69731E+14\n", all[0], all[1]))?;
    for arguments in
        [&["devices", "--csv", "table.csv", "--out", "made"][..], &["revoke", "--csv", "table.csv"]]
    {
        let error = fleet.refused(arguments)?;
        for words in [
            "table.csv: 4 lines are wrong, so nothing was done:",
            "line 2: \"hello\": this is no IMEI: it holds something other than digits",
            &format!("line 5: \"{}\": it repeats line 1", all[0]),
            "line 6: \"869731052403820\": this is no IMEI: its check digit is 0 where 1 would be right",
            "line 7: \"8.69731E+14\": this is no IMEI",
        ] {
            assert!(error.contains(words), "{words:?} is not in {error}");
        }
        assert!(!fleet.path("made").exists() && fleet.indexed()?.is_empty());
    }
    fleet.table("imei\n")?;
    let error = fleet.refused(&["devices", "--csv", "table.csv"])?;
    assert!(error.contains("table.csv: there is no IMEI in it"), "{error}");
    let error = fleet.refused(&["devices", "--csv", "none.csv"])?;
    assert!(error.contains("cannot read none.csv"), "{error}");
    Ok(())
}

#[test]
fn what_is_in_the_way_is_told_before_the_first_key() -> Result<(), Failure> {
    let (fleet, other) = (Fleet::new()?, Fleet::new()?);
    let all = imeis(5)?;
    let [foreign, revoked, garbled, swapped, fresh] = &all[..] else { unreachable!("there are five") };
    other.done(&["device", "--imei", foreign])?;
    fleet.done(&["device", "--imei", revoked])?;
    fleet.done(&["revoke", "--imei", revoked])?;
    fleet.done(&["device", "--imei", swapped])?;
    let devices = fleet.path("devices");
    fs::copy(other.path("devices").join(format!("{foreign}.pem")), devices.join(format!("{foreign}.pem")))?;
    fs::write(devices.join(format!("{garbled}.key")), "half a k")?;
    fs::copy(devices.join(format!("{revoked}.pem")), devices.join(format!("{swapped}.pem")))?;
    fleet.table(&all.join("\n"))?;
    let before = fleet.contents("devices")?;
    let error = fleet.refused(&["devices", "--csv", "table.csv"])?;
    for (line, words) in [
        (1, "another CA signed it, `CN=Moorline CA`; move it and its key away"),
        (2, "it is revoked; move it and its key away"),
        (3, "there is no private key in it"),
        (4, "it is of another device"),
    ] {
        let told = error.lines().find(|told| told.trim_start().starts_with(&format!("line {line}: ")));
        assert!(told.is_some_and(|told| told.contains(words)), "{words:?} is not in {error}");
    }
    assert!(!error.contains(fresh.as_str()), "{error}");
    assert!(fleet.contents("devices")? == before, "a refusal changed a file");
    Ok(())
}

/// Killed again and again, wherever it happens to be, it comes to the same as if it had never been.
#[test]
fn killed_run_is_gone_on_with() -> Result<(), Failure> {
    let fleet = Fleet::new()?;
    let all = imeis(150)?;
    fleet.table(&all.join("\n"))?;
    let arguments = ["devices", "--csv", "table.csv", "--out", "made"];
    for kill_at in [7, 31, 64, 90, 123] {
        let (mut screen, side) = terminal()?;
        let mut run = fleet.command(&arguments)?.stdout(Stdio::null()).stderr(side).spawn()?;
        let mut shown = String::new();
        while bar(&shown).is_none_or(|done| done < kill_at) {
            let mut more = [0; 256];
            let len = screen.read(&mut more)?;
            shown.push_str(&String::from_utf8_lossy(&more[..len]));
        }
        run.kill()?;
        run.wait()?;
        assert!(shown.contains(" of 150, "), "{shown}");
    }
    let keys = |contents: BTreeMap<PathBuf, Vec<u8>>| {
        contents.into_iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "key"))
    };
    let before: Vec<_> = keys(fleet.contents("made")?).collect();
    assert!(before.len() >= 123, "{}", before.len());
    fleet.done(&arguments)?;
    fleet.assert_whole("made", &all)?;
    let after: BTreeMap<_, _> = keys(fleet.contents("made")?).collect();
    for (path, key) in before {
        assert!(after[&path] == key, "{} was written over", path.display());
    }
    Ok(())
}

/// How many are done, by the last whole bar.
fn bar(shown: &str) -> Option<u64> {
    let (whole, _) = shown.rsplit_once(" of 150, ")?;
    whole.rsplit(' ').next()?.parse().ok()
}

/// What a run that was killed can leave, put there by hand: each is gone on with.
#[test]
fn each_half_done_device_is_finished() -> Result<(), Failure> {
    let fleet = Fleet::new()?;
    let all = imeis(4)?;
    fleet.table(&all.join("\n"))?;
    fleet.done(&["devices", "--csv", "table.csv"])?;
    let file = |imei: &str, end: &str| fleet.path("devices").join(format!("{imei}.{end}"));
    let [unplaced, uncertified, unlisted, half_a_key] = &all[..] else { unreachable!("there are four") };
    // Killed before the last step.
    fs::rename(file(unplaced, "pem"), file(unplaced, "pem.new"))?;
    // Killed before the certificate, right after the key got its name.
    fs::remove_file(file(uncertified, "pem"))?;
    fs::hard_link(file(uncertified, "key"), file(uncertified, "key.new"))?;
    // Killed between the certificate and the index's line.
    fs::rename(file(unlisted, "pem"), file(unlisted, "pem.new"))?;
    // Killed within the key.
    fs::remove_file(file(half_a_key, "pem"))?;
    fs::remove_file(file(half_a_key, "key"))?;
    fs::write(file(half_a_key, "key.new"), "-----BEGIN PRI")?;
    let index = fs::read_to_string(fleet.path("index.txt"))?;
    let kept: String =
        index.lines().filter(|line| line.contains(unplaced)).map(|line| format!("{line}\n")).collect();
    fs::write(fleet.path("index.txt"), &kept)?;

    let said = fleet.done(&["devices", "--csv", "table.csv"])?;
    assert!(said.starts_with("Made 4 certificates, 0 were there already"), "{said}");
    fleet.assert_whole("devices", &all)?;
    assert!(fs::read_to_string(fleet.path("index.txt"))?.starts_with(&kept), "a number was given anew");
    Ok(())
}

#[test]
fn runs_at_once_share_the_work() -> Result<(), Failure> {
    let fleet = Fleet::new()?;
    let all = imeis(40)?;
    fleet.table(&all.join("\n"))?;
    let start = || -> Result<_, Failure> {
        let mut command = fleet.command(&["devices", "--csv", "table.csv"])?;
        Ok(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?)
    };
    let runs = [start()?, start()?, start()?];
    for run in runs {
        let output = run.wait_with_output()?;
        assert!(output.status.success(), "{output:?}");
    }
    fleet.assert_whole("devices", &all)
}

#[test]
fn table_of_lost_devices_becomes_one_list() -> Result<(), Failure> {
    let fleet = Fleet::new()?;
    let all = imeis(6)?;
    fleet.table(&all[..5].join("\n"))?;
    fleet.done(&["devices", "--csv", "table.csv"])?;
    fleet.done(&["revoke", "--imei", &all[0]])?;
    assert_eq!(fleet.list()?, (1, 1));

    fleet.table(&all[3..].join("\n"))?;
    let error = fleet.refused(&["revoke", "--csv", "table.csv"])?;
    assert!(
        error.contains(&format!("line 3: \"{}\": index.txt has no certificate of it", all[5])),
        "{error}"
    );
    assert_eq!(fleet.list()?, (1, 1));

    fleet.table(&all[..4].join("\n"))?;
    let said = fleet.done(&["revoke", "--csv", "table.csv", "--reason", "keyCompromise"])?;
    assert!(
        said.starts_with("Revoked 3 certificates of 4 devices; what was revoked before stays so."),
        "{said}"
    );
    assert_eq!(fleet.list()?, (2, 4));
    let said = fleet.done(&["revoke", "--csv", "table.csv"])?;
    assert!(said.starts_with("Revoked 0 certificates of 4 devices"), "{said}");
    assert_eq!(fleet.list()?, (3, 4));
    Ok(())
}
