//! What was done, in words, and what to do next: which file goes where.

use std::fmt::Write as _;
use std::path::Path;

use moorline_certs::{BadLine, BulkError, Issue, List, Revocation, Written};
use moorline_protocol::Imei;

/// After `ca`.
pub(crate) fn authority(dir: &Path, name: &str, written: &Written) -> String {
    let dir = shown(dir);
    certified(&format!("the CA `{name}`"), written)
        + &format!(
            "The key makes devices: keep it and a copy of it where no server and no device is.\n\
             Next:\n  \
             {certificate} goes to the server as /etc/moorline/ca.pem ([tls] client_ca)\n  \
             {certificate} goes to each device as /etc/moorline/ca.pem ([server] trust)\n  \
             moorline-certs server --dir {dir} --dns NAME\n  \
             moorline-certs device --dir {dir} --imei IMEI\n",
            certificate = written.certificate.display()
        )
}

/// After `server`.
pub(crate) fn server(written: &Written) -> String {
    let mut text = certified("the server's certificate", written);
    text += "Next, on the server:\n";
    goes(&mut text, &written.certificate, "/etc/moorline/server.pem ([tls] certificate)");
    if let Some(key) = &written.key {
        goes(&mut text, key, "/etc/moorline/server.key ([tls] key), readable by the service alone");
    }
    text + "  systemctl reload moorline-server\n"
}

/// After `device`.
pub(crate) fn device(imei: Imei, written: &Written) -> String {
    let mut text = certified(&format!("the certificate of device {imei}"), written);
    text += "Next, on the device:\n";
    goes(&mut text, &written.certificate, "/etc/moorline/device.pem ([identity] certificate)");
    match &written.key {
        Some(key) => {
            goes(&mut text, key, "/etc/moorline/device.key ([identity] key), readable by the service alone");
            text += "  then delete the key here: nobody but the device needs it\n";
        }
        None => text += "  the key is the one that is there\n",
    }
    text + "  systemctl reload moorline-agent\n"
}

/// After `devices`.
pub(crate) fn devices(issue: &Issue) -> String {
    let Issue { issued, before, out } = issue;
    format!(
        "Made {issued} certificates, {before} were there already: {out}/IMEI.pem and IMEI.key.\n\
         Next, on each device:\n  \
         IMEI.pem goes to /etc/moorline/device.pem ([identity] certificate)\n  \
         IMEI.key goes to /etc/moorline/device.key ([identity] key), readable by the service alone\n  \
         then delete the key here: nobody but the device needs it\n",
        out = out.display()
    )
}

/// Before what is to be said of the list, after `revoke --csv`.
pub(crate) fn revoked_devices(devices: usize, certificates: usize) -> String {
    format!("Revoked {certificates} certificates of {devices} devices; what was revoked before stays so.\n")
}

/// Lines of a table that are wrong; more of them are counted.
pub(crate) fn bad_lines(csv: &Path, lines: &[BadLine], error: &BulkError) -> String {
    const SHOWN: usize = 100;
    let mut text = format!("{}: {error}:", csv.display());
    for line in lines.iter().take(SHOWN) {
        let _ = write!(text, "\n  {line}");
    }
    if lines.len() > SHOWN {
        let _ = write!(text, "\n  and {} more", lines.len() - SHOWN);
    }
    text
}

/// After `revoke`, before what is to be said of the list.
pub(crate) fn revocations(revocations: &[Revocation]) -> String {
    revocations.iter().fold(String::new(), |text, revocation| match revocation.before {
        None => text + &format!("Revoked {}.\n", revocation.serial),
        Some(at) => text + &format!("{} was revoked already on {}.\n", revocation.serial, at.date()),
    })
}

/// After `revoke` and `crl`.
pub(crate) fn list(dir: &Path, list: &List) -> String {
    let many = if list.revoked == 1 { "certificate" } else { "certificates" };
    format!(
        "Wrote revocation list {number} to {file}: {revoked} {many}, next one due {due}.\n\
         Next, on the server:\n  \
         {file} goes to /etc/moorline/ca.crl ([tls] crl), and is in force within five seconds\n\
         Before {due}:\n  \
         moorline-certs crl --dir {dir}\n",
        number = list.number,
        file = list.file.display(),
        revoked = list.revoked,
        due = list.next_update.date(),
        dir = shown(dir),
    )
}

fn certified(what: &str, written: &Written) -> String {
    let mut text = format!("Made {what}, valid {}, serial {}.\n", written.validity, written.serial);
    for file in written.key.iter().chain([&written.certificate]) {
        // Writing to a `String` does not fail.
        let _ = writeln!(text, "  {}", file.display());
    }
    text
}

fn goes(text: &mut String, file: &Path, place: &str) {
    let _ = writeln!(text, "  {} goes to {place}", file.display());
}

/// A folder as it can be typed into a shell.
fn shown(dir: &Path) -> String {
    let dir = dir.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+".contains(c);
    if dir.chars().all(plain) { dir } else { format!("'{}'", dir.replace('\'', "'\\''")) }
}
