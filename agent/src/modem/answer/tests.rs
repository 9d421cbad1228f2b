use proptest::prelude::*;

use super::*;

const IMEI: &str = "869731052403821";

fn imei(digits: &str) -> Verdict {
    Verdict::Imei(digits.parse().unwrap())
}

fn is_error(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Error(_))
}

/// The answer to AT+CGSN that consists of `line`.
fn answered(line: &str) -> Verdict {
    judge("AT+CGSN", format!("\r\n{line}\r\n\r\nOK\r\n").as_bytes())
}

#[test]
fn every_way_to_tell_an_imei_is_read() {
    for line in [
        "869731052403821",
        "  869731052403821 ",
        "\"869731052403821\"",
        "+CGSN: 869731052403821",
        "+CGSN:869731052403821",
        "+CGSN: \"869731052403821\"",
        "+cgsn: 869731052403821",
        "+GSN: \"869731052403821\"",
        "#CGSN: 869731052403821",
        "+EGMR: \"869731052403821\"",
        "+CGSN: IMEI869731052403821",
        "IMEI869731052403821",
        "IMEI: 869731052403821",
        "IMEI:869731052403821",
        "IMEI = 869731052403821",
        "IMEI number: 869731052403821",
        "IMEI1: 869731052403821",
        "IMEI: +CGSN:869731052403821",
        "IMEI: 869731052403821 SVN: 01",
        "869731052403821,PR29A1F08T",
        "+CGSN: 869731052403821,01",
        "+CGSN:86973105 240382 1",
        "86973105-240382-1",
        "869731-05-240382-1",
        "86973105240382 1",
        "869731052403821!",
        "AT+CGSN869731052403821",
    ] {
        assert_eq!(answered(line), imei(IMEI), "{line}");
    }
}

#[test]
fn other_numbers_are_no_imei() {
    for line in [
        // 14 and 16 digits, with the right digits in front or behind.
        "86973105240382",
        "8697310524038210",
        "1869731052403821",
        "+CGSN: \"8697310524038201\"",
        "+CGSN:86973105 240382 01",
        "IMEISV: 8697310524038201",
        "IMEI SV: 12",
        "IMEISV: 869731052403821",
        "IMEI2: 869731052403821",
        // Glued.
        "SN869731052403821",
        "869731052403821A",
        "869731052403821-2",
        "869731052403821.1",
        "x 869731052403821",
        "0x869731052403821",
        "+869731052403821",
        "-869731052403821",
        // Other people's.
        "MEID: 869731052403821",
        "ESN: 869731052403821",
        "FSN: 869731052403821",
        "IMSI: 869731052403821",
        "Revision: 869731052403821",
        "+CIMI: 869731052403821",
        "+CNUM: ,\"869731052403821\",129",
        "+CCID: 89860348822975370229",
        "45317471585658170:2161753034",
        "0x00A1000013FB653A:0x80D9BBCA",
        "2017/05/19 06:23:09",
        "MP0623208BB17E0",
        "2623CKLQ0009707",
        "IMEI:",
        "+CGSN: ",
        "8697310 52403821",
        "869 731 052 403 821",
    ] {
        assert!(is_error(&answered(line)) || answered(line) == judge("AT+CGSN", b"\r\nOK\r\n"), "{line}");
    }
}

#[test]
fn fifteen_digits_that_are_no_imei_are_refused_with_what_was_seen() {
    let refused = |line| match answered(line) {
        Verdict::Refused(refusal) => refusal.to_string(),
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(refused("868998031093568"), "868998031093568: its check digit is 8 where 6 would be right");
    assert!(refused("+CGSN: 000000000000000!").contains("all zeros"));
    assert!(refused("\"626936922362011\"").contains("check digit"));
}

#[test]
fn second_number_is_not_chosen_from() {
    let verdict = answered("869731052403821\r\n862095062526113");
    assert!(matches!(verdict, Verdict::Refused(Refusal::Two(..))), "{verdict:?}");
    assert_eq!(answered("869731052403821\r\n869731052403821"), imei(IMEI));
    assert_eq!(answered("868998031093568\r\nIMEI: 869731052403821"), imei(IMEI));
}

#[test]
fn answers_to_other_questions_hold_no_imei() {
    for command in ["AT+CIMI", "AT+CCID", "AT+CGSN=2", "AT+CGSN=3", "AT+CGSN=?", "AT+CNUM", "AT", "ATE0", ""]
    {
        let verdict = judge(command, b"\r\n869731052403821\r\n\r\nOK\r\n");
        assert!(is_error(&verdict), "{command}: {verdict:?}");
    }
    for command in
        ["at+gsn", "AT+CGSN?", "AT#CGSN=1", "AT+GSV;+GSN", "ATI", "ATI9", "AT+EGMR=0,7", "AT+SIMCOMATI"]
    {
        assert_eq!(judge(command, b"\r\n869731052403821\r\n\r\nOK\r\n"), imei(IMEI), "{command}");
    }
}

#[test]
fn unsolicited_lines_anywhere_do_no_harm() {
    let response = b"\r\n+QIND: SMS DONE\r\nT*EMRD\r\n*EMRDY: 1\r\nAT+CGSN\r\r\n^RSSI:26\r\n\r\n\
        ^BOOT:44964621,0,0,0,99\r\n\r\n869731052403821\r\n\r\n+CREG: 1\r\n\r\nOK\r\n\r\nRDY\r\n\r\nOK\r\n";
    assert_eq!(judge("AT+CGSN", response), imei(IMEI));
}

#[test]
fn noise_does_no_harm_and_garbles_its_own_line() {
    assert_eq!(judge("AT+CGSN", b"\0\0\xff\xfe8??\r\n\0869731052403821\r\nOK\r\n"), imei(IMEI));
    assert!(is_error(&judge("AT+CGSN", b"\xff869731052403821\r\nOK\r\n")));
    assert!(is_error(&judge("AT+CGSN", b"8697\x1b31052403821\r\nOK\r\n")));
}

#[test]
fn result_may_be_missing_late_or_an_error() {
    assert_eq!(judge("AT+CGSN", b"AT+CGSN\r\r\n869731052403821\r\n"), imei(IMEI));
    assert_eq!(judge("AT+CGSN", b"AT+CGSN\r\r\n869731052403821"), imei(IMEI));
    assert_eq!(judge("AT+CGSN", b"OK\r\n869731052403821\r\n\r\nOK\r\n"), imei(IMEI));
    assert_eq!(judge("ATI", b"IMEI: 869731052403821\r\n\r\nERROR\r\n"), imei(IMEI));
}

#[test]
fn answer_to_the_command_before_is_not_ours() {
    let stale = b"AT+CIMI\r\r\n869731052403821\r\n\r\nOK\r\n";
    assert_eq!(judge("AT+CGSN", stale), Verdict::NoAnswer);
    let both = [stale.as_slice(), b"AT+CGSN\r\r\n862095062526113\r\n\r\nOK\r\n"].concat();
    assert_eq!(judge("AT+CGSN", &both), imei("862095062526113"));
    let echo_went_off = [stale.as_slice(), b"\r\n862095062526113\r\n\r\nOK\r\n"].concat();
    assert_eq!(judge("AT+CGSN", &echo_went_off), imei("862095062526113"));
    // Whichever question for the IMEI it answers, it is the IMEI.
    assert_eq!(judge("AT+GSN", b"AT+CGSN\r\r\n869731052403821\r\n\r\nOK\r\n"), imei(IMEI));
}

#[test]
fn results_of_every_maker_end_an_answer() {
    for result in [
        "ERROR",
        "+CME ERROR: 4",
        "+CME ERROR: memory failure",
        "+CMS ERROR: 500",
        "COMMAND NOT SUPPORT",
        "NA",
        "MODEM ERROR: 3",
    ] {
        assert!(is_error(&answered(result)), "{result}");
        let mut exchange = Exchange::new("AT+CGSN");
        exchange.handle_bytes(format!("\r\n{result}\r\n").as_bytes());
        assert_eq!(exchange.progress(), Progress::Ended, "{result}");
    }
}

#[test]
fn busy_is_told_from_wrong() {
    for why in ["SIM busy", "14", "operation not allowed", "3", "SIM not inserted", "10", "Device busy"] {
        let verdict = judge("AT+CGSN", format!("\r\n+CME ERROR: {why}\r\n").as_bytes());
        assert!(matches!(verdict, Verdict::SimOrBusy(_)), "{why}: {verdict:?}");
    }
    for why in ["operation not supported", "4", "memory failure", "23", "unknown", "100"] {
        assert!(is_error(&judge("AT+CGSN", format!("\r\n+CME ERROR: {why}\r\n").as_bytes())), "{why}");
    }
}

#[test]
fn silence_echo_and_banners_are_no_answer() {
    for response in [
        b"".as_slice(),
        b"AT+CGSN\r\r\n",
        b"\xff\xff\xff\xfe\xff\xff",
        b"\r\nRDY\r\n\r\n+CPIN: READY\r\n\r\nSMS DONE\r\n",
        b"\0\0\0\0",
    ] {
        assert_eq!(judge("AT+CGSN", response), Verdict::NoAnswer, "{response:?}");
    }
}

#[test]
fn text_is_found_among_other_lines() {
    for (command, response, text) in [
        (
            "AT+CGMM",
            "\r\n+CPIN: READY\r\n\r\nSMS DONE\r\nAT+CGMM\r\r\nSIM7670G-MNGV\r\n\r\nOK\r\n",
            "SIM7670G-MNGV",
        ),
        ("AT+CGMM", "AT+CGMM\r\n\r\n+CGMM: \"Air724UG\"\r\n\r\nOK\r\n", "Air724UG"),
        ("AT+CGMM", "\r\n+CGMM:N706\r\nOK\r\n\r\nRDY\r\n", "N706"),
        ("AT+CGMI", "\r\nAT&T\r\n\r\nOK\r\n", "AT&T"),
    ] {
        let mut exchange = Exchange::new(command);
        exchange.handle_bytes(response.as_bytes());
        assert_eq!(exchange.text(), Some(text), "{response:?}");
    }
}

proptest! {
    #[test]
    fn cuts_change_nothing(cuts in prop::collection::vec(1_usize..9, 1..40)) {
        let response = b"\r\n^RSSI:20\r\nAT+CGSN\r\r\n+CGSN: \"869731052403821\"\r\n\r\nOK\r\n";
        let mut exchange = Exchange::new("AT+CGSN");
        let mut rest = response.as_slice();
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            exchange.handle_bytes(piece);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(exchange.progress(), Progress::Ended);
        prop_assert_eq!(exchange.verdict(), imei(IMEI));
    }

    #[test]
    fn arbitrary_bytes_never_panic(command in "[ -~]{0,12}", response in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = judge(&command, &response);
        let _ = judge("AT+CGSN", &response);
    }

    #[test]
    fn arbitrary_text_never_panics(response in "[0-9A-Z+#:=\"', !\r\n-]{0,80}") {
        for command in ["AT+CGSN", "ATI", "AT+CGMM"] {
            let _ = judge(command, response.as_bytes());
        }
    }

    #[test]
    fn digits_beside_an_imei_make_it_none(before in "[0-9A-Za-z]{1,4}", after in "[0-9A-Za-z]{1,4}") {
        prop_assume!(!before.eq_ignore_ascii_case("imei"));
        for line in [format!("{before}{IMEI}"), format!("{IMEI}{after}"), format!("{before}{IMEI}{after}")] {
            prop_assert!(!matches!(answered(&line), Verdict::Imei(_)), "{}", line);
        }
    }
}
