//! How operators reach a real server: loopback, a Unix socket, a token, a certificate; and what is refused.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use moorline_protocol::Imei;
use moorline_testbed::certs::Pki;
use moorline_testbed::failure::Failure;
use moorline_testbed::process::{PATIENCE, Program};
use moorline_testbed::programs::program;
use moorline_testbed::rig::{IMEI, Rig, SERVER_STOP, Server, ServerSetup};

/// What people are told to type.
const GUIDE: &str = include_str!("../../docs/operating.md");
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const NEXT: &str = "fedcba9876543210fedcba9876543210";

fn ctl(words: &[&str]) -> Result<Output, Failure> {
    Ok(Command::new(program("moorlinectl")?).env_clear().args(words).output()?)
}

/// Asks for devices as `words` say; the answer's exit code, and all that was said.
fn devices(words: &[&str]) -> Result<(Option<i32>, String), Failure> {
    let output = ctl(&[&["devices"], words].concat())?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

#[track_caller]
fn assert_lists(words: &[&str]) -> Result<(), Failure> {
    let (code, said) = devices(words)?;
    assert_eq!(code, Some(0), "{words:?}: {said}");
    Ok(())
}

#[track_caller]
fn assert_refused(words: &[&str], wanted: &str) -> Result<(), Failure> {
    let (code, said) = devices(words)?;
    assert!(code == Some(1) && said.contains(wanted), "{words:?}: {code:?} {said}");
    Ok(())
}

fn secret(rig: &Rig, name: &str, text: &str) -> Result<PathBuf, Failure> {
    let file = rig.folder().join(name);
    fs::write(&file, text)?;
    fs::set_permissions(&file, Permissions::from_mode(0o600))?;
    Ok(file)
}

fn shown(file: &Path) -> String {
    file.display().to_string()
}

/// What the server says of this configuration, when asked and when started; it has to refuse both.
fn refusal(setup: &ServerSetup) -> Result<String, Failure> {
    let by_hand = setup.command()?;
    let mut check = Command::new(by_hand.get_program());
    let check = check.env_clear().arg("check").args(by_hand.get_args()).output()?;
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert_eq!(check.status.code(), Some(78), "{said}");
    let mut server = Program::start(&mut setup.command()?)?;
    assert_eq!(server.wait_exit(PATIENCE)?.code(), Some(78), "{:?}", server.lines());
    for mistake in said.lines() {
        assert!(server.said(mistake), "{mistake} is not in {:?}", server.lines());
    }
    Ok(said)
}

#[test]
fn other_machines_are_not_let_in_without_a_secret() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let open = || Ok::<_, Failure>(rig.server()?.set("listen.operators", "0.0.0.0:0"));
    let own = rig.pki().server()?;
    let with_tls = || {
        let setup = open()?.set("operators.certificate", own.certificate.display());
        Ok::<_, Failure>(setup.set("operators.key", own.key.display()))
    };
    let everybodys = secret(&rig, "everybodys", TOKEN)?;
    fs::set_permissions(&everybodys, Permissions::from_mode(0o644))?;
    let short = secret(&rig, "short", "letmein\n")?;
    for (setup, key, words) in [
        (open()?, "listen.operators", "0.0.0.0:0 is reached from other machines"),
        (
            with_tls()?,
            "listen.operators",
            "name a token_file in [operators], or certificate, key and client_ca",
        ),
        (
            open()?.set("operators.token_file", everybodys.display()),
            "operators.token_file",
            "is open to every user (mode 0644): chmod 600",
        ),
        (
            open()?.set("operators.token_file", short.display()),
            "operators.token_file",
            "short:1: this token can be guessed",
        ),
        (
            with_tls()?.set("operators.client_ca", rig.pki().ca().display()),
            "operators.client_ca",
            "each device could steer the fleet with its certificate",
        ),
    ] {
        let said = refusal(&setup)?;
        assert!(
            said.lines().any(|line| line.contains(&format!(": {key}: ")) && line.contains(words)),
            "{said}"
        );
        assert!(!said.contains("letmein"), "{said}");
    }
    Ok(())
}

#[test]
fn token_opens_and_is_changed_without_a_moment_in_which_none_does() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let (first, second) = (secret(&rig, "first", TOKEN)?, secret(&rig, "second", NEXT)?);
    let (first_shown, second_shown) = (shown(&first), shown(&second));
    let own = secret(&rig, "own", TOKEN)?;
    let mut server = rig
        .server()?
        .set("listen.operators", "0.0.0.0:0")
        .set("operators.token_file", own.display())
        .start()?;
    assert!(server.said("without TLS: whoever listens on the way reads the token"), "{:?}", server.lines());
    let address = format!("127.0.0.1:{}", server.operators().0.port());
    let with = |file: &str| devices(&["--server", &address, "--token-file", file]);
    assert_refused(&["--server", &address], "Name the file with the token by --token-file")?;
    assert_eq!(with(&first_shown)?.0, Some(0));
    assert_eq!(with(&second_shown)?.0, Some(1));
    // Both, while those who have the first one learn the second.
    fs::write(&own, format!("# until the end of May\n{TOKEN}\n{NEXT}\n"))?;
    server.reload()?;
    assert_eq!((with(&first_shown)?.0, with(&second_shown)?.0), (Some(0), Some(0)));
    fs::write(&own, NEXT)?;
    server.reload()?;
    assert_eq!((with(&first_shown)?.0, with(&second_shown)?.0), (Some(1), Some(0)));
    // A file that cannot be used changes nothing.
    fs::write(&own, "letmein")?;
    server.signal(rustix::process::Signal::HUP)?;
    server.wait_for("nothing was read anew")?;
    assert_eq!((with(&first_shown)?.0, with(&second_shown)?.0), (Some(1), Some(0)));
    server.wait_for("an operator was refused: a wrong token was shown")?;
    assert!(!server.said(TOKEN) && !server.said(NEXT) && !server.said("letmein"), "{:?}", server.lines());
    Ok(())
}

#[test]
fn token_of_another_address_is_not_for_the_one_that_is_listened_on() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let (first, second) = (secret(&rig, "first", TOKEN)?, secret(&rig, "second", NEXT)?);
    let mut server = rig.server()?.set("operators.token_file", first.display()).start()?;
    let address = server.operators().0.to_string();
    server.reload_with("operators.token_file", second.display())?;
    assert_lists(&["--server", &address, "--token-file", &shown(&second)])?;
    server.reload_with("listen.operators", "127.0.0.1:9")?;
    server.reload_with("operators.token_file", first.display())?;
    assert!(server.said("listen.operators has changed and needs a restart"));
    assert_lists(&["--server", &address, "--token-file", &shown(&second)])
}

#[test]
fn guesses_are_counted_told_and_slowed_down() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let token = secret(&rig, "token", TOKEN)?;
    let mut server = rig.server()?.set("operators.token_file", token.display()).start()?;
    let ask = |authorization: &str| {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let answer =
            agent.get(server.operators().url("/metrics")).header("Authorization", authorization).call()?;
        let waits = answer.headers().get("retry-after").is_some();
        Ok::<_, Failure>((answer.status().as_u16(), waits))
    };
    // As Prometheus does with `authorization: credentials_file`, and as a browser does.
    assert_eq!(ask(&format!("Bearer {TOKEN}"))?, (200, false));
    assert_eq!(ask("Basic b3BzOjAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGVm")?, (200, false));
    let guesses: Result<Vec<_>, _> = (0..30).map(|guess| ask(&format!("Bearer {guess:032}"))).collect();
    let guesses = guesses?;
    assert!(guesses.iter().filter(|guess| **guess == (401, false)).count() >= 10, "{guesses:?}");
    assert!(guesses.iter().filter(|guess| **guess == (429, true)).count() >= 15, "{guesses:?}");
    assert!(guesses.iter().all(|(status, _)| matches!(status, 401 | 429)), "{guesses:?}");
    server.wait_for("an operator was refused: a wrong token was shown")?;
    Ok(())
}

#[test]
fn operators_show_certificates_that_no_device_has() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let (imei, operators) = (IMEI.parse::<Imei>()?, Pki::new()?);
    // What an operator's certificate names does not matter.
    let (operator, dismissed) = (operators.device(imei)?, operators.device(imei)?);
    let (own, device) = (rig.pki().server()?, rig.pki().device(imei)?);
    let mut server = rig
        .server()?
        .set("listen.operators", "0.0.0.0:0")
        .set("operators.certificate", own.certificate.display())
        .set("operators.key", own.key.display())
        .set("operators.client_ca", operators.ca().display())
        .set("operators.crl", operators.crl(&[&dismissed])?.display())
        .start()?;
    assert!(server.said("operators are let in there with a certificate"), "{:?}", server.lines());
    let port = server.operators().0.port();
    let ca = shown(&rig.pki().ca());
    let as_one = |by: &moorline_testbed::certs::Credentials, host: &str, ca: &str| {
        let server = format!("https://{host}:{port}");
        let (certificate, key) = (shown(&by.certificate), shown(&by.key));
        devices(&[
            "--server",
            &server,
            "--ca",
            ca,
            "--client-certificate",
            &certificate,
            "--client-key",
            &key,
        ])
    };
    for host in ["localhost", "127.0.0.1"] {
        let (code, said) = as_one(&operator, host, &ca)?;
        assert_eq!(code, Some(0), "{said}");
    }
    for stranger in [&device, &dismissed] {
        let (code, said) = as_one(stranger, "localhost", &ca)?;
        assert!(code == Some(1) && said.contains("no answer from https://localhost:"), "{said}");
    }
    let (code, said) = as_one(&operator, "localhost", &shown(&operators.ca()))?;
    assert!(code == Some(1) && said.contains("invalid peer certificate"), "the server is another: {said}");
    let plain = format!("https://localhost:{port}");
    assert_refused(&["--server", &plain, "--ca", &ca], "no answer from https://localhost:")?;
    assert_refused(&["--server", &format!("http://localhost:{port}")], "no answer from http://localhost:")?;
    server.wait_for("an operator was refused: TLS: ")?;
    Ok(())
}

#[test]
fn commands_of_the_guide_make_an_operators_certificate() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let begin = "```sh\nopenssl req -x509";
    let block = GUIDE.split_once(begin).and_then(|(_, rest)| rest.split_once("```"));
    let (rest, _) = block.ok_or_else(|| Failure::new("the guide has no such commands"))?;
    let (commands, _) = rest.split_once("moorlinectl").ok_or_else(|| Failure::new("it does not use them"))?;
    let script = format!("set -e; openssl req -x509{commands}");
    let done = Command::new("bash").args(["-c", &script]).current_dir(rig.folder()).output()?;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let own = rig.pki().server()?;
    let server = rig
        .server()?
        .set("operators.certificate", own.certificate.display())
        .set("operators.key", own.key.display())
        .set("operators.client_ca", rig.folder().join("operators-ca.pem").display())
        // For which the server's certificate is.
        .set("listen.operators", "127.0.0.1:0")
        .start()?;
    let address = format!("https://{}", server.operators().0);
    let [certificate, key] = ["alice.pem", "alice.key"].map(|name| shown(&rig.folder().join(name)));
    let ca = shown(&rig.pki().ca());
    assert_lists(&[
        "--server",
        &address,
        "--ca",
        &ca,
        "--client-certificate",
        &certificate,
        "--client-key",
        &key,
    ])
}

#[test]
fn socket_is_for_whom_its_file_lets_in() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let token = secret(&rig, "token", TOKEN)?;
    let socket = rig.folder().join("operators.sock");
    let server = rig
        .server()?
        .set("listen.operators_socket", socket.display())
        .set("operators.token_file", token.display())
        .start()?;
    assert_eq!(fs::metadata(&socket)?.permissions().mode() & 0o777, 0o660);
    let address = format!("unix:{}", socket.display());
    assert_lists(&["--server", &address])?;
    assert_refused(&["--server", &server.operators().0.to_string()], "a token is asked for")?;
    // The environment names it too.
    let by_environment = Command::new(program("moorlinectl")?)
        .env_clear()
        .env("MOORLINE_SERVER", &address)
        .args(["events", "--json"])
        .output()?;
    assert!(by_environment.status.success(), "{by_environment:?}");
    let nobody = format!("unix:{}", rig.folder().join("no.sock").display());
    assert_refused(&["--server", &nobody], "is moorline-server running")
}

#[test]
fn socket_of_a_dead_server_makes_way_and_a_live_ones_stays() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let socket = rig.folder().join("operators.sock");
    let address = format!("unix:{}", socket.display());
    let setup = || Ok::<_, Failure>(rig.server()?.set("listen.operators_socket", socket.display()));
    let mut first = setup()?.start()?;
    let mut second = Program::start(&mut setup()?.command()?)?;
    second.wait_for("listen.operators_socket: cannot listen on ")?;
    assert_eq!(second.wait_exit(PATIENCE)?.code(), Some(1));
    assert!(second.said("another server listens there"), "{:?}", second.lines());
    assert_lists(&["--server", &address])?;
    first.kill()?;
    assert!(socket.exists(), "a killed server leaves it");
    first.start_again()?;
    assert_lists(&["--server", &address])?;
    first.stop()?;
    assert!(!socket.exists(), "one that ends takes it with it");
    fs::write(&socket, "precious")?;
    let mut third = Program::start(&mut setup()?.command()?)?;
    third.wait_for("there is a file that is no socket")?;
    assert_eq!(third.wait_exit(PATIENCE)?.code(), Some(1));
    assert_eq!(fs::read_to_string(&socket)?, "precious");
    Ok(())
}

#[test]
fn server_without_a_port_for_operators_has_its_socket() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let socket = rig.folder().join("operators.sock");
    let setup = rig.server()?.set("listen.operators", "off");
    let said = refusal(&setup)?;
    assert!(said.contains("nobody could ask this server"), "{said}");
    let setup = setup.set("listen.operators_socket", socket.display());
    let mut server = Program::start(&mut setup.command()?)?;
    server.wait_for(&format!("operators on unix:{}", socket.display()))?;
    server.wait_for("listening for devices on ")?;
    assert!(!server.said("operators on http"), "{:?}", server.lines());
    assert_lists(&["--server", &format!("unix:{}", socket.display())])?;
    server.stop(SERVER_STOP)
}

#[test]
fn socket_that_systemd_holds_outlives_the_server() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let socket = rig.folder().join("operators.sock");
    let setup = rig.server()?.set("listen.operators_socket", socket.display());
    let by_hand = setup.command()?;
    let mut activation = Command::new("systemd-socket-activate");
    activation
        .arg(format!("--listen={}", socket.display()))
        .arg(by_hand.get_program())
        .args(by_hand.get_args());
    let mut systemd = Program::start(&mut activation)?;
    systemd.wait_for("Listening on ")?;
    assert_lists(&["--server", &format!("unix:{}", socket.display())])?;
    systemd.stop(SERVER_STOP)?;
    assert!(socket.exists(), "it is systemd's");
    // The same, and the configuration names another.
    let setup = rig.server()?.set("listen.operators_socket", rig.folder().join("another.sock").display());
    let by_hand = setup.command()?;
    fs::remove_file(&socket)?;
    let mut activation = Command::new("systemd-socket-activate");
    activation
        .arg(format!("--listen={}", socket.display()))
        .arg(by_hand.get_program())
        .args(by_hand.get_args());
    let mut systemd = Program::start(&mut activation)?;
    systemd.wait_for("Listening on ")?;
    // It is not answered, but it starts the server.
    let _ = devices(&["--server", &format!("unix:{}", socket.display())])?;
    systemd.wait_for("listen.operators_socket: systemd hands over the Unix socket")?;
    assert_eq!(systemd.wait_exit(PATIENCE)?.code(), Some(78));
    Ok(())
}

/// All events that the server has, by their ids.
fn ids(server: &Server) -> Result<Vec<i64>, Failure> {
    let page = server.operators().json("/api/events?after=0&limit=1000")?;
    let events = page["events"].as_array().cloned().unwrap_or_default();
    Ok(events.iter().filter_map(|event| event["id"].as_i64()).collect())
}

#[test]
fn who_follows_through_restarts_misses_nothing_and_sees_nothing_twice() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let mut tool = Command::new(program("moorlinectl")?);
    tool.env_clear().args([
        "--server",
        &server.operators().0.to_string(),
        "events",
        "--follow",
        "--json",
        "--after",
        "0",
    ]);
    let mut tool = Program::start(&mut tool)?;
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    tool.wait_for("\"kind\":\"online\"")?;
    for round in 0..3 {
        if round == 1 {
            server.kill()?;
        } else {
            server.stop()?;
        }
        tool.wait_for("Asking again until it answers")?;
        server.start_again()?;
        tool.wait_for("the server answers again")?;
        tool.wait_for("\"kind\":\"online\"")?;
    }
    agent.stop()?;
    tool.wait_for("it said goodbye")?;
    let shown: Vec<_> = tool
        .lines()
        .iter()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()?["id"].as_i64())
        .collect();
    assert_eq!(shown, ids(&server)?);
    Ok(())
}
