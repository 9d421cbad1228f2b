//! The tool against a served fleet: its arguments, its answers, its failures.

use super::*;
use crate::admin::rig::Rig;
use crate::store::samples::{event, imei};
use crate::store::{Batch, Kind, Report};

fn ask(server: &str, words: &[&str]) -> Result<String, Failure> {
    let arguments = Arguments::try_parse_from(["moorlinectl"].iter().chain(words)).unwrap();
    let mut out = Vec::new();
    let environment = Environment { server: Some(server.to_owned()), token_file: None };
    run(&arguments, &environment, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn ask_rig(rig: &Rig, words: &[&str]) -> String {
    ask(&format!("http://{}", rig.address), words).unwrap()
}

#[test]
fn devices_are_a_table() {
    let table = ask_rig(&Rig::memory(), &["devices"]);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 5, "{table}");
    assert!(lines[0].starts_with("IMEI             STATE                     SINCE"), "{table}");
    assert!(lines[1].starts_with("004999010640000  offline (server_stopped)  just now"), "{table}");
    assert!(lines[3].starts_with("869731052403821  offline (idle)"), "{table}");
    assert_eq!(lines[4], "3 of 3 devices");
}

#[test]
fn devices_are_filtered_and_limited() {
    let rig = Rig::memory();
    assert!(ask_rig(&rig, &["devices", "--online"]).ends_with("MODEM\n0 of 0 devices\n"));
    assert!(ask_rig(&rig, &["devices", "--offline"]).ends_with("3 of 3 devices\n"));
    assert!(ask_rig(&rig, &["devices", "--search", "0151840"]).ends_with("1 of 1 devices\n"));
    assert!(ask_rig(&rig, &["devices", "--limit", "2"]).ends_with("2 of 3 devices\n"));
}

#[test]
fn json_is_one_object_a_line() {
    let rig = Rig::memory();
    let lines = |words: &[&str]| -> Vec<Value> {
        ask_rig(&rig, words).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let devices = lines(&["devices", "--json"]);
    assert_eq!(devices.len(), 3);
    assert_eq!(lines(&["--json", "device", "869731052403821"]), devices[2..]);
    let events = lines(&["events", "--json", "--after", "1"]);
    assert_eq!(events.iter().map(|event| &event["id"]).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn device_is_told_in_full() {
    let told = ask_rig(&Rig::memory(), &["device", "869731052403821"]);
    for line in [
        "IMEI          869731052403821",
        "State         offline (idle)",
        "Protocol      native over TLS 1.3",
        "Heartbeat     60 s",
        "  bounds      the fleet's",
        "Application   02020202-0202-0202-0202-020202020202",
        "  issued by   CN=Fleet CA",
        "Budget        -",
    ] {
        assert!(told.lines().any(|found| found == line), "{line} is not in\n{told}");
    }
    assert!(told.contains("  expires     2033-05-18 03:33:20 UTC (in "), "{told}");
}

#[test]
fn heartbeat_is_bounded_and_left_to_the_fleet_again() {
    let rig = Rig::memory();
    for (words, bounds) in [
        (&["--min", "1m", "--max", "5m"][..], "60 to 300 s"),
        (&["--min", "90s"], "90 s at least"),
        (&["--max", "1d"], "86400 s at most"),
        (&["--clear"], "the fleet's"),
    ] {
        let told = ask_rig(&rig, &[&["heartbeat", "869731052403821"], words].concat());
        assert!(told.contains(&format!("\n  bounds      {bounds}\n")), "{told}");
    }
    let device = ask_rig(&rig, &["--json", "heartbeat", "869731052403821", "--max", "5m"]);
    let device: Value = serde_json::from_str(&device).unwrap();
    assert_eq!(device["heartbeat_bounds"], serde_json::json!({"min_s": null, "max_s": 300}));
    let server = rig.address.to_string();
    for (words, code, text) in [
        (["990016259811154", "5m", "6m"], 3, "no device with the IMEI 990016259811154"),
        (
            ["869731052403821", "6m", "5m"],
            1,
            "min_s=360 is not possible: min_s is at most max_s, which is 300",
        ),
        (["869731052403821", "0s", "5m"], 1, "min_s=0 is not possible"),
    ] {
        let [imei, min, max] = words;
        let failure = ask(&server, &["heartbeat", imei, "--min", min, "--max", max]).unwrap_err();
        assert!(failure.exit_code() == code && failure.to_string().contains(text), "{failure}");
    }
}

#[test]
fn events_are_a_table() {
    let table = ask_rig(&Rig::memory(), &["events", "--imei", "015184008301272"]);
    assert_eq!(
        table,
        "TIME (UTC)           IMEI             EVENT              ADDRESS                WHAT HAPPENED\n\
         2025-11-24 16:00:00  015184008301272  online             127.0.0.1:4000         session 7: it was silent for \
         too long\n"
    );
}

#[test]
fn all_events_after_an_id_come_however_many() {
    let rig = Rig::memory();
    let events = vec![event(1, Kind::Online); 2500];
    rig.operators.store.apply(&Batch { events, ..Batch::default() }).unwrap();
    assert_eq!(ask_rig(&rig, &["events", "--json", "--after", "0"]).lines().count(), 2503);
    assert_eq!(ask_rig(&rig, &["events", "--json"]).lines().count(), 100);
    assert_eq!(ask_rig(&rig, &["events", "--json", "--after", "99999"]), "");
}

#[test]
fn unknown_device_is_a_failure_of_its_own() {
    let rig = Rig::memory();
    let failure = ask(&rig.address.to_string(), &["device", "990016259811154"]).unwrap_err();
    assert_eq!(failure.exit_code(), 3);
    assert_eq!(failure.to_string(), "no device with the IMEI 990016259811154 ever came or was added");
}

#[test]
fn unreachable_server_is_told_with_what_to_do() {
    // Nobody listens on the discard port of a loopback address.
    let failure = ask("http://127.0.0.1:9", &["devices"]).unwrap_err();
    assert_eq!(failure.exit_code(), 1);
    let told = failure.to_string();
    assert!(told.starts_with("no answer from http://127.0.0.1:9 ("), "{told}");
    assert!(told.contains("is moorline-server running"), "{told}");
}

#[test]
fn mistaken_arguments_are_refused() {
    for words in [
        &["device", "86973105240382"][..],
        &["devices", "--online", "--offline"],
        &["devices", "--limit", "0"],
        &["events", "--after", "-1"],
        &["events", "--imei", "x"],
        &["heartbeat", "869731052403821"],
        &["heartbeat", "--max", "5m"],
        &["heartbeat", "869731052403821", "--max", "300"],
        &["heartbeat", "869731052403821", "--min", "1500ms"],
        &["heartbeat", "869731052403821", "--min", "1m", "--clear"],
        &[],
    ] {
        let refused = Arguments::try_parse_from(["moorlinectl"].iter().chain(words)).unwrap_err();
        assert_eq!(refused.exit_code(), 2, "{words:?}");
    }
}

#[test]
fn device_is_blocked_named_and_let_in_again() {
    let rig = Rig::memory();
    let device = "869731052403821";
    let told = ask_rig(&rig, &["block", device, "--reason", "stolen"]);
    assert!(told.contains("State         blocked\n"), "{told}");
    assert!(told.contains("Admission     blocked since 20") && told.contains(": stolen\n"), "{told}");
    assert!(ask_rig(&rig, &["devices", "--state", "blocked"]).ends_with("1 of 1 devices\n"));
    let told = ask_rig(&rig, &["label", device, "Harbour crane 3"]);
    assert!(told.contains("Label         Harbour crane 3\n"), "{told}");
    assert!(ask_rig(&rig, &["quarantine", device]).contains("State         quarantined\n"));
    let told = ask_rig(&rig, &["unblock", device]);
    assert!(
        told.contains("State         offline (idle)\n") && told.contains("Admission     active\n"),
        "{told}"
    );
    assert_eq!(ask_rig(&rig, &["drop", device]), "869731052403821 was not online\n");
    assert_eq!(ask_rig(&rig, &["drop", device, "--json"]), "{\"dropped\":false}\n");
}

#[test]
fn devices_are_added_from_a_file_or_every_bad_line_is_told() {
    let rig = Rig::memory();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fleet.csv");
    let add = |text: &str| {
        std::fs::write(&file, text).unwrap();
        ask(&format!("http://{}", rig.address), &["add", file.to_str().unwrap()])
    };
    let many: String = (0..9).map(|n| format!("{}\n", ["hello", "1", "x\u{1b}[2J"][n % 3])).collect();
    let refused = add(&format!("990016259811154\n{many}")).unwrap_err();
    assert_eq!(refused.exit_code(), 1);
    let told = refused.to_string();
    assert!(told.contains("9 lines are wrong, so no device was added"), "{told}");
    assert!(
        told.contains("\n  line 2: hello: this is no IMEI: it holds something other than digits"),
        "{told}"
    );
    assert!(told.contains("line 4: x\\u{1b}[2J: "), "{told}");
    assert_eq!(
        add("990016259811154,Pump\n869731052403821\n").unwrap(),
        "1 added, 1 known already, 0 of these labelled anew\n"
    );
    let table = ask_rig(&rig, &["devices", "--never-seen"]);
    assert!(table.contains("990016259811154  never seen  -      -"), "{table}");
    assert!(ask_rig(&rig, &["device", "990016259811154"]).contains("State         never seen\n"));
    assert!(ask_rig(&rig, &["devices", "--offline"]).ends_with("3 of 3 devices\n"));
    let missing = ask(&format!("http://{}", rig.address), &["add", "/no/such/file"]).unwrap_err();
    assert!(missing.to_string().starts_with("/no/such/file: "), "{missing}");
}

#[test]
fn fleet_and_history_are_shown() {
    let rig = Rig::memory();
    let fleet = ask_rig(&rig, &["fleet"]);
    assert!(fleet.contains("Known        3\n") && fleet.contains("Never seen   0\n"), "{fleet}");
    let status = moorline_protocol::Status { signal_dbm: Some(-71), ..Default::default() };
    let reports = vec![(imei(2), Report { status, at_ms: clock::now().utc_ms })];
    rig.operators.store.apply(&Batch { reports, ..Batch::default() }).unwrap();
    let history = ask_rig(&rig, &["history", "869731052403821", "--days", "2"]);
    assert!(history.contains("-71 dBm"), "{history}");
}

#[test]
fn completions_need_no_server() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(ask("http://127.0.0.1:1", &["completions", shell]).unwrap().contains("quarantine"));
    }
}
