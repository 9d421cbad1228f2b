//! The server on sockets that systemd holds: told apart by port, compared with the configuration, and kept open over a
//! restart.

use std::net::SocketAddr;

use moorline_protocol::{Imei, ServerMessage};
use moorline_testbed::client::Settings;
use moorline_testbed::failure::Failure;
use moorline_testbed::held_sockets::HeldSockets;
use moorline_testbed::process::PATIENCE;
use moorline_testbed::rig::{IMEI, Rig, SERVER_STOP, free_address};

#[test]
fn sockets_are_told_apart_by_port() -> Result<(), Failure> {
    let (rig, sockets) = (Rig::new()?, HeldSockets::new()?);
    let [first, second] = sockets.addresses()?;
    // Either order, and so no order, is right.
    for (devices, operators) in [(first, second), (second, first)] {
        let setup = rig.server()?.set("listen.devices", devices).set("listen.operators", operators);
        let mut server = sockets.start(&setup)?;
        server.wait_for(&format!("operators on http://{operators}"))?;
        server.wait_for(&format!("listening for devices on {devices}"))?;
        rig.agent(devices, IMEI)?.start()?.wait_for("-> online")?;
        assert!(ureq::get(format!("http://{operators}/healthz")).call().is_ok());
        server.stop(SERVER_STOP)?;
    }
    Ok(())
}

#[test]
fn restart_refuses_nobody() -> Result<(), Failure> {
    let (rig, sockets) = (Rig::new()?, HeldSockets::new()?);
    let [devices, operators] = sockets.addresses()?;
    let setup = rig.server()?.set("listen.devices", devices).set("listen.operators", operators);
    let mut first = sockets.start(&setup)?;
    first.wait_for("listening for devices on ")?;
    first.stop(SERVER_STOP)?;

    // Nobody serves now. The connection stands all the same, and waits.
    let imei: Imei = IMEI.parse()?;
    let settings = Settings::new(rig.pki(), Some(&rig.pki().device(imei)?))?;
    #[expect(clippy::disallowed_methods, reason = "a device's socket on loopback")]
    let waiting = std::net::TcpStream::connect(devices)?;
    waiting.set_read_timeout(Some(PATIENCE))?;

    let mut second = sockets.start(&setup)?;
    second.wait_for("listening for devices on ")?;
    let mut client = settings.connect_over(waiting)?;
    client.say_hello(imei)?;
    assert!(matches!(client.hear()?, Some(ServerMessage::Welcome(_))));
    Ok(())
}

#[test]
fn configuration_that_disagrees_is_told_in_words() -> Result<(), Failure> {
    let (rig, sockets) = (Rig::new()?, HeldSockets::new()?);
    let [devices, operators] = sockets.addresses()?;
    let elsewhere = free_address()?;
    let other_address = SocketAddr::new("127.0.0.1".parse()?, devices.port());
    let cases = [
        (elsewhere, operators, format!("listen: systemd hands over {devices}, a port of neither devices")),
        (
            devices,
            elsewhere,
            "listen.operators: systemd hands over sockets, and none of them has port".to_owned(),
        ),
        (
            other_address,
            operators,
            format!("listen.devices: here it is {other_address}, and systemd hands over"),
        ),
    ];
    for (devices, operators, words) in cases {
        let setup = rig.server()?.set("listen.devices", devices).set("listen.operators", operators);
        let mut server = sockets.start(&setup)?;
        server.wait_for(&words)?;
        assert_eq!(server.wait_exit(PATIENCE)?.code(), Some(78));
    }
    Ok(())
}
