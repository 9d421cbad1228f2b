//! The server before a TLS client that is nobody's of this project: `openssl s_client`. What came of it is judged by what
//! the server logs, counts and shows.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use moorline_protocol::{DeviceMessage, ServerMessage, classic};
use moorline_testbed::certs::{Credentials, Keys};
use moorline_testbed::client::hello;
use moorline_testbed::failure::Failure;
use moorline_testbed::process::PATIENCE;
use moorline_testbed::rig::{IMEI, Rig, SERVER_NAME, Server};
use rustix::process::{Pid, Signal, kill_process};

const OTHER: &str = "015184008301272";
const APP_ID: &[u8; 36] = b"996da38d-a7be-4947-aa4c-f8208b5f4ade";
const OK: [u8; 6] = [0, 0, 0, 2, 0, 0];
const REFUSED: [u8; 6] = [0, 0, 0, 2, 0, 0xff];

/// `openssl s_client`, of which only what is inside TLS passes; it ends with the value, or after [`PATIENCE`].
struct SClient {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl SClient {
    #[track_caller]
    fn start(
        rig: &Rig,
        server: &Server,
        certified: Option<&Credentials>,
        options: &[&str],
    ) -> Result<Self, Failure> {
        let errors = File::create(rig.folder().join("s_client.txt"))?;
        let mut command = Command::new("timeout");
        command
            .arg(PATIENCE.as_secs().to_string())
            .args(["openssl", "s_client", "-quiet", "-verify_return_error", "-verify_hostname", SERVER_NAME])
            .args(["-servername", SERVER_NAME, "-connect", &server.devices().to_string(), "-CAfile"])
            .arg(rig.pki().ca())
            .args(options);
        if let Some(by) = certified {
            command.arg("-cert").arg(&by.certificate).arg("-key").arg(&by.key);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.ok_or_else(|| Failure::new("no pipes"))?;
        Ok(Self { child, input, output })
    }

    #[track_caller]
    fn say(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.input.write_all(bytes).and_then(|()| self.input.flush())?)
    }

    #[track_caller]
    fn hear<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let mut bytes = [0; N];
        self.output.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Waits until it has ended by itself and returns what it complained of.
    #[track_caller]
    fn complaint(mut self, rig: &Rig) -> Result<String, Failure> {
        // In TLS 1.3 it learns of a refusal only by reading on.
        let mut said = Vec::new();
        let _ = self.output.read_to_end(&mut said);
        assert!(said.is_empty(), "nothing comes through TLS: {said:?}");
        self.child.wait()?;
        Ok(std::fs::read_to_string(rig.folder().join("s_client.txt"))?)
    }
}

impl Drop for SClient {
    /// Both fail only when it is gone already. `timeout` passes the signal on to what it runs, where it can.
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

fn register(imei: &str) -> Result<Vec<u8>, Failure> {
    let imei = imei.as_bytes().try_into()?;
    Ok(classic::Request::Register { app_id: *APP_ID, imei }.encode().to_vec())
}

fn device(rig: &Rig) -> Result<Credentials, Failure> {
    rig.pki().device(IMEI.parse()?)
}

#[test]
fn client_without_alpn_is_a_classic_device() -> Result<(), Failure> {
    for keys in [Keys::Ecdsa, Keys::Rsa] {
        let rig = Rig::with_keys(keys)?;
        let server = rig.server()?.start()?;
        let mut client = SClient::start(&rig, &server, Some(&device(&rig)?), &[])?;
        client.say(&register(IMEI)?)?;
        assert_eq!(client.hear()?, OK);
        let shown = server.operators().device(IMEI)?;
        assert_eq!(
            (&shown["online"], &shown["protocol"], &shown["tls"]),
            (&true.into(), &"classic".into(), &"1.3".into())
        );
        drop(client);
        server.operators().wait_online(IMEI, false)?;
    }
    Ok(())
}

#[test]
fn client_that_offers_the_protocol_is_a_native_device() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let mut client = SClient::start(&rig, &server, Some(&device(&rig)?), &["-alpn", "moorline/1"])?;
    let mut frame = [0; DeviceMessage::MAX_ENCODED];
    let len = DeviceMessage::Hello(hello(IMEI.parse()?)).encode(&mut frame)?;
    client.say(&frame[..len])?;
    let [length] = client.hear()?;
    let mut body = vec![0; length.into()];
    client.output.read_exact(&mut body)?;
    assert!(matches!(ServerMessage::decode(&body)?, ServerMessage::Welcome(_)));
    assert_eq!(server.operators().device(IMEI)?["protocol"], "native");
    Ok(())
}

#[test]
fn refusals_are_alerts_that_others_understand() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let certified = device(&rig)?;
    let cases: [(_, &[&str], _, _); 4] = [
        (None, &[], "alert certificate required", "the device sent no certificate"),
        (Some(&certified), &["-tls1_2"], "alert protocol version", "only older TLS versions"),
        (Some(&certified), &["-alpn", "h2"], "no application protocol", "the device speaks another protocol"),
        (
            Some(&certified),
            &["-alpn", "moorline/2"],
            "no application protocol",
            "the device speaks another protocol",
        ),
    ];
    for (certified, options, alert, words) in cases {
        let mut server = rig.server()?.start()?;
        let client = SClient::start(&rig, &server, certified, options)?;
        let line = server.wait_for("refused: ")?;
        assert!(line.contains(words), "{words:?} is not in {line}");
        let complaint = client.complaint(&rig)?;
        assert!(complaint.contains(alert), "{alert:?} is not in {complaint}");
    }
    Ok(())
}

#[test]
fn revoked_certificate_is_refused_by_its_alert() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let certified = device(&rig)?;
    let list = rig.pki().crl(&[&certified])?;
    let mut server = rig.server()?.set("tls.crl", list.display()).start()?;
    let client = SClient::start(&rig, &server, Some(&certified), &[])?;
    assert!(server.wait_for("refused: ")?.contains("client certificate is revoked"));
    let complaint = client.complaint(&rig)?;
    assert!(complaint.contains("alert certificate revoked"), "{complaint}");
    Ok(())
}

/// In each version of TLS: the session that is resumed needs no certificate, and is the device's that it began with.
#[test]
fn session_is_resumed_and_bound_to_its_device() -> Result<(), Failure> {
    for (version, option) in [("1.3", "-tls1_3"), ("1.2", "-tls1_2")] {
        let rig = Rig::with_keys(Keys::Rsa)?;
        let mut server = rig.server()?.set("tls.min_version", "1.2").start()?;
        let kept = rig.folder().join("session.pem");
        let kept = kept.to_string_lossy();
        let mut first = SClient::start(&rig, &server, Some(&device(&rig)?), &[option, "-sess_out", &kept])?;
        first.say(&register(IMEI)?)?;
        assert_eq!(first.hear()?, OK);
        assert_eq!(server.operators().device(IMEI)?["tls"], version);
        drop(first);
        assert!(Path::new(&*kept).exists(), "openssl got no session to keep");
        assert_eq!(handshakes(&server, "resumed")?, 0);

        // A reload in between keeps the sessions that can be resumed.
        server.reload()?;
        let mut again =
            SClient::start(&rig, &server, None, &[option, "-sess_in", &kept, "-sess_out", &kept])?;
        again.say(&register(IMEI)?)?;
        assert_eq!(again.hear()?, OK);
        assert_eq!((handshakes(&server, "full")?, handshakes(&server, "resumed")?), (1, 1), "{version}");
        drop(again);

        let mut thief = SClient::start(&rig, &server, None, &[option, "-sess_in", &kept])?;
        thief.say(&register(OTHER)?)?;
        assert_eq!(thief.hear()?, REFUSED);
        let line = server.wait_for("refused: ")?;
        assert!(line.contains(&format!("names IMEI {IMEI}, the device says {OTHER}")), "{line}");
        assert_eq!(handshakes(&server, "resumed")?, 2, "{version}");
    }
    Ok(())
}

fn handshakes(server: &Server, kind: &str) -> Result<u32, Failure> {
    let series = format!("moorline_handshakes_total{{result=\"ok\",reason=\"none\",kind=\"{kind}\"}} ");
    let text = server.operators().text("/metrics")?;
    let count = text.lines().find_map(|line| line.strip_prefix(&series)).unwrap_or("0");
    Ok(count.parse()?)
}

#[test]
fn hello_retried_or_in_many_records_is_taken() -> Result<(), Failure> {
    let rig = Rig::with_keys(Keys::Rsa)?;
    let server = rig.server()?.start()?;
    let certified = device(&rig)?;
    // The first key share is of a group that the server does not know, so it asks for another (HelloRetryRequest).
    for options in [&["-groups", "X448:X25519"][..], &["-max_send_frag", "512"]] {
        let mut client = SClient::start(&rig, &server, Some(&certified), options)?;
        client.say(&register(IMEI)?)?;
        assert_eq!(client.hear()?, OK, "{options:?}");
    }
    Ok(())
}
