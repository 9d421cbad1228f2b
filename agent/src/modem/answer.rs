//! What one answer of a modem means: the command that was sent and the bytes that came back, and nothing else. Which
//! command is sent when is `at.rs`'s matter, which number is an IMEI is `moorline_protocol`'s.
//!
//! A number is believed only where an answer to a question for the IMEI can stand: on a line of its own, or behind a label
//! that names it (`+CGSN:`, `IMEI:`). Any other line is somebody else's: unsolicited, of another command, a version, a
//! serial number. The results are those of V.250 and 3GPP TS 27.007, and what makers say instead.

use std::fmt;

use heapless::String;
use moorline_protocol::{Imei, ImeiError};

use super::line::Lines;

/// A line as it is shown to people, cut to what tells it.
pub type Seen = String<48>;

/// What one exchange gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An IMEI.
    Imei(Imei),
    /// A number where the IMEI belongs, which must not be taken for one.
    Refused(Refusal),
    /// The modem answered, and no IMEI is in the answer.
    Error(Seen),
    /// Nothing that answers the command.
    NoAnswer,
    /// The modem or its SIM is not ready: ask again.
    SimOrBusy(Seen),
}

/// Why a number is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has 15 digits and is no IMEI.
    Number(String<15>, ImeiError),
    /// Two different IMEIs in one answer: one of them is not the modem's.
    Two(Imei, Imei),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(digits, fault) => write!(f, "{digits}: {fault}"),
            Self::Two(one, other) => write!(f, "{one} and {other}: they cannot both be its IMEI"),
        }
    }
}

/// Judges all that came back for `command`.
#[must_use]
pub fn judge(command: &str, response: &[u8]) -> Verdict {
    let mut exchange = Exchange::new(command);
    exchange.handle_bytes(response);
    exchange.verdict()
}

/// One exchange while it goes on.
#[derive(Debug)]
pub(super) struct Exchange<'c> {
    command: &'c str,
    wants: Wants,
    lines: Lines,
    /// The lines follow the echo of another command, up to its result: an answer that came late.
    foreign: bool,
    /// Somebody else's command was echoed: another program uses the port.
    shared: bool,
    found: Option<Imei>,
    refused: Option<Refusal>,
    /// The line that tells most, for people: see [`Self::on_text`].
    text: Seen,
    result: Option<FinalResult>,
}

/// What answers a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    Imei,
    /// Lines, such as a model's name.
    Text,
    /// A result alone.
    Result,
}

/// How a modem ends an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FinalResult {
    Ok,
    Error,
    SimOrBusy,
}

/// How far an exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// No result yet.
    Open,
    /// OK, though an answer belongs before it: it may be the late result of the command before.
    BareOk,
    /// A result.
    Ended,
}

impl<'c> Exchange<'c> {
    pub(super) fn new(command: &'c str) -> Self {
        Self {
            command,
            wants: wants(command),
            lines: Lines::default(),
            foreign: false,
            shared: false,
            found: None,
            refused: None,
            text: Seen::new(),
            result: None,
        }
    }

    /// Takes what came in.
    pub(super) fn handle_bytes(&mut self, mut input: &[u8]) {
        let mut lines = std::mem::take(&mut self.lines);
        while let Some(line) = lines.next(&mut input) {
            self.on_line(line);
        }
        self.lines = lines;
    }

    pub(super) fn progress(&self) -> Progress {
        match self.result {
            None => Progress::Open,
            Some(FinalResult::Ok)
                if self.wants != Wants::Result && self.text.is_empty() && !self.has_number() =>
            {
                Progress::BareOk
            }
            Some(_) => Progress::Ended,
        }
    }

    /// Whether any line came that is no echo.
    pub(super) fn heard_text(&self) -> bool {
        self.result.is_some() || !self.text.is_empty() || self.has_number()
    }

    /// The line that answered a question for text.
    pub(super) fn text(&self) -> Option<&str> {
        (self.result == Some(FinalResult::Ok) && !self.text.is_empty()).then_some(self.text.as_str())
    }

    /// The line that answered, also when the result is still out or was left away.
    pub(super) fn value(&self) -> Option<&str> {
        (self.result.is_none_or(|result| result == FinalResult::Ok) && !self.text.is_empty())
            .then_some(self.text.as_str())
    }

    /// Whether the modem did as it was told.
    pub(super) fn is_ok(&self) -> bool {
        self.result == Some(FinalResult::Ok)
    }

    /// Whether another program's command was seen, which none of this agent's is.
    pub(super) const fn is_shared(&self) -> bool {
        self.shared
    }

    /// Judges what came. A number is also taken when the modem left the line end or the result away.
    pub(super) fn verdict(mut self) -> Verdict {
        let mut lines = std::mem::take(&mut self.lines);
        self.on_line(lines.unfinished());
        match (self.refused, self.found, self.result) {
            (Some(two @ Refusal::Two(..)), ..) => Verdict::Refused(two),
            (_, Some(imei), _) => Verdict::Imei(imei),
            (Some(refusal), ..) => Verdict::Refused(refusal),
            (.., Some(FinalResult::SimOrBusy)) => Verdict::SimOrBusy(self.text),
            (.., Some(_)) => Verdict::Error(self.text),
            (.., None) => Verdict::NoAnswer,
        }
    }

    fn has_number(&self) -> bool {
        self.found.is_some() || self.refused.is_some()
    }

    fn on_line(&mut self, line: &[u8]) {
        // A line with any other byte in it is noise: it was garbled, or it is no text at all.
        let Ok(line) = str::from_utf8(line) else { return };
        let line = line.trim();
        if !line.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t')) || line.is_empty() {
            return;
        }
        if let Some(command) = echo(line, self.command) {
            self.foreign = !command.eq_ignore_ascii_case(self.command) && wants(command) != Wants::Imei;
            self.shared |= self.foreign && !is_own(command);
        } else if let Some(result) = final_result(line) {
            self.on_result(result, line);
        } else if !self.foreign {
            self.on_text(line);
        }
    }

    fn on_result(&mut self, result: FinalResult, line: &str) {
        if std::mem::take(&mut self.foreign) {
            return;
        }
        // An OK that comes too late or twice takes nothing back.
        if result != FinalResult::Ok && !self.has_number() {
            self.text = seen(line);
        }
        if self.result.is_none_or(|before| before == FinalResult::Ok) {
            self.result = Some(result);
        }
    }

    fn on_text(&mut self, line: &str) {
        match self.wants {
            Wants::Imei => match number(line, self.command) {
                Some(digits) => self.on_number(digits),
                None if self.text.is_empty() && !is_unsolicited(line) => self.text = seen(line),
                None => {}
            },
            // What is unsolicited comes before the answer more often than after it.
            Wants::Text if self.result.is_none() => {
                if let Some(value) = value_of(line, self.command) {
                    self.text = seen(value);
                }
            }
            // A positioning receiver's `$GPGGA,…` tells nothing of a modem.
            Wants::Result if !line.starts_with('$') => self.text = seen(line),
            Wants::Text | Wants::Result => {}
        }
    }

    fn on_number(&mut self, digits: String<15>) {
        match (digits.parse::<Imei>(), self.found) {
            (Ok(imei), Some(before)) if imei != before => self.refused = Some(Refusal::Two(before, imei)),
            (Ok(imei), _) => self.found = Some(imei),
            (Err(fault), _) if self.refused.is_none() => self.refused = Some(Refusal::Number(digits, fault)),
            (Err(_), _) => {}
        }
    }
}

/// What answers `command`.
fn wants(command: &str) -> Wants {
    match without_prefix(command, "AT") {
        Some(rest) if rest.split(';').any(asks_for_imei) => Wants::Imei,
        Some("" | "E0") => Wants::Result,
        Some(set) if set.starts_with("+COPS=") || set.starts_with("+CFUN=") => Wants::Result,
        _ => Wants::Text,
    }
}

/// Whether the agent itself may have sent `command` before.
fn is_own(command: &str) -> bool {
    const OWN: [&str; 7] = ["AT+CGMI", "AT+CGMM", "AT+CSQ", "AT+CEREG?", "AT+CREG?", "AT+COPS?", "AT+COPS=3"];
    OWN.into_iter().any(|own| without_prefix(command, own).is_some()) || wants(command) == Wants::Result
}

/// Whether a command (without `AT`) asks for the IMEI. `+CGSN=2` asks for the IMEISV and `+CGSN=3` for its version (TS
/// 27.007 section 5.4), whatever the modem says then.
fn asks_for_imei(command: &str) -> bool {
    if without_prefix(command, "I").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit())) {
        return true;
    }
    let command = command.trim_start_matches(SYMBOLS);
    let (name, parameter) = command.split_at(command.find(['=', '?']).unwrap_or(command.len()));
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    match parameter {
        "" | "?" | "=0" | "=1" => ["CGSN", "GSN", "IMEI", "SIMCOMATI"].into_iter().any(is),
        "=0,7" => is("EGMR"),
        _ => false,
    }
}

/// The command that `line` is the echo of. A maker's name may begin with AT, so another's command is one only with the
/// symbol of an extended command; of the others there are those of `at.rs`.
fn echo<'l>(line: &'l str, command: &str) -> Option<&'l str> {
    let rest = without_prefix(line, "AT")?;
    let is_ours = line.eq_ignore_ascii_case(command)
        || ["", "E0", "I"].into_iter().any(|basic| rest.eq_ignore_ascii_case(basic));
    let is_extended = rest.starts_with(SYMBOLS) && !has_glued_number(line, command);
    (is_ours || is_extended).then_some(line)
}

/// The modem echoed our command and went on without a line end.
fn has_glued_number(line: &str, command: &str) -> bool {
    without_prefix(line, command).is_some_and(|rest| fifteen_digits(rest, false).is_some())
}

/// The result that `line` is.
fn final_result(line: &str) -> Option<FinalResult> {
    const ERRORS: [&str; 7] = [
        "ERROR",
        "COMMAND NOT SUPPORT",
        "COMMAND NOT SUPPORTED",
        "NA",
        "NO CARRIER",
        "TOO MANY PARAMETERS",
        "NOT SUPPORTED",
    ];
    if line.eq_ignore_ascii_case("OK") {
        return Some(FinalResult::Ok);
    }
    for prefix in ["+CME ERROR", "+CMS ERROR"] {
        if let Some(why) = without_prefix(line, prefix) {
            let why = why.trim_start_matches([':', ' ']);
            return Some(if is_sim_or_busy(why) { FinalResult::SimOrBusy } else { FinalResult::Error });
        }
    }
    let is_error = ERRORS.into_iter().any(|error| line.eq_ignore_ascii_case(error))
        || ["MODEM ERROR:", "ERROR:"].into_iter().any(|prefix| without_prefix(line, prefix).is_some());
    is_error.then_some(FinalResult::Error)
}

/// Whether an error passes by itself: the codes of TS 27.007 section 9.2 and TS 27.005 section 3.2.5 that speak of the SIM,
/// of an operation that is not allowed (now) and of being busy, as numbers or in words.
fn is_sim_or_busy(why: &str) -> bool {
    match why.parse::<u16>() {
        Ok(code) => matches!(code, 3 | 5..=7 | 10..=18 | 302 | 310..=318),
        Err(_) => ["SIM", "busy", "not allowed"].into_iter().any(|word| contains(why, word)),
    }
}

/// The 15 digits that stand in `line` where an IMEI can stand.
fn number(line: &str, command: &str) -> Option<String<15>> {
    // With the echo on, an answer may follow on its line.
    let line = without_prefix(line, command).unwrap_or(line);
    let Some(value) = labelled(line) else { return fifteen_digits(line, false) };
    // `IMEI: +CGSN:860018047510129` has two.
    fifteen_digits(labelled(value).unwrap_or(value), true)
}

/// What follows a label that names the IMEI.
fn labelled(line: &str) -> Option<&str> {
    const BETWEEN: [char; 4] = [' ', '\t', ':', '='];
    let line = line.trim_start();
    let name = line.strip_prefix(SYMBOLS).unwrap_or(line);
    for label in ["CGSN", "GSN", "EGMR"] {
        if let Some(value) = without_prefix(name, label).filter(|value| value.starts_with(BETWEEN)) {
            return Some(value.trim_start_matches(BETWEEN));
        }
    }
    if let Some((label, value)) = name.split_once([':', '=']) {
        return names_imei(label).then_some(value.trim_start_matches(BETWEEN));
    }
    // Motorola: `IMEI353256…`.
    without_prefix(name, "IMEI").map(|value| value.trim_start_matches(BETWEEN))
}

/// `IMEI`, `IMEI1`, `IMEI number`; but `IMEI SV` is its software version, and the second IMEI of a modem with two SIMs is
/// not the one that it is known by.
fn names_imei(label: &str) -> bool {
    let mut words = label.split(|c: char| !c.is_ascii_alphanumeric());
    let mut named = false;
    words.all(|word| {
        named |= ["IMEI", "IMEI1"].into_iter().any(|name| word.eq_ignore_ascii_case(name));
        !["SV", "SVN", "2", "IMEI2"].into_iter().any(|other| word.eq_ignore_ascii_case(other))
    }) && named
}

/// The number that `value` begins with: 15 digits in one, or grouped as TS 23.003 does, and then an end. Neither longer
/// numbers nor what is glued to letters is it.
fn fifteen_digits(value: &str, labelled: bool) -> Option<String<15>> {
    let value = value.trim().trim_start_matches(['"', '\'']);
    let digits = value.split_at(value.bytes().take_while(u8::is_ascii_digit).count());
    if digits.0.len() == 15 && ends_number(digits.1, labelled) {
        return String::try_from(digits.0).ok();
    }
    let end = value.find([',', ';', '"', '\'']).unwrap_or(value.len());
    grouped(value.get(..end)?.trim_end())
}

/// Whether a number ends before `rest`: at the end, at a quote or a comma (`354533020656122,PR29A1F08T`), at a stray `!`
/// (`000000000000000!`); and, if a label says that it is one number, at a blank.
fn ends_number(rest: &str, labelled: bool) -> bool {
    rest.is_empty()
        || rest.starts_with([',', ';', '"', '\'', '!'])
        || labelled && rest.starts_with([' ', '\t'])
}

/// `86343106 246380 0`: type, serial number, check digit, and the older ways to write the type.
fn grouped(value: &str) -> Option<String<15>> {
    const WAYS: [&[usize]; 4] = [&[8, 6, 1], &[6, 2, 6, 1], &[2, 6, 6, 1], &[14, 1]];
    [' ', '-'].into_iter().find_map(|between| {
        let is_way = |way: &&&[usize]| value.split(between).map(str::len).eq(way.iter().copied());
        WAYS.iter().find(is_way)?;
        let mut digits = String::new();
        for digit in value.split(between).flat_map(str::chars) {
            digits.push(digit).ok().filter(|()| digit.is_ascii_digit())?;
        }
        Some(digits)
    })
}

/// A line that a modem sends by itself, or the answer to another command.
fn is_unsolicited(line: &str) -> bool {
    line.starts_with(SYMBOLS)
}

/// The answer in `line`: bare, or behind the command's own label and in quotes. The current value of a setting (`?`)
/// always has its label.
fn value_of<'l>(line: &'l str, command: &str) -> Option<&'l str> {
    let asks_setting = command.ends_with('?');
    let name = without_prefix(command.trim_end_matches('?'), "AT");
    match name.and_then(|name| without_prefix(line, name)) {
        Some(value) if asks_setting => value.strip_prefix(':').map(str::trim),
        Some(value) => Some(value.trim_start_matches([':', ' ']).trim_matches('"')),
        None if is_unsolicited(line) || asks_setting => None,
        None => Some(line.trim_matches('"')),
    }
}

/// What extended commands and their answers begin with.
const SYMBOLS: [char; 7] = ['+', '#', '^', '*', '$', '%', '_'];

fn without_prefix<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn contains(text: &str, word: &str) -> bool {
    text.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
}

fn seen(line: &str) -> Seen {
    let mut seen = Seen::new();
    // Cut where the capacity ends. A line has no control character but this one.
    let _ = line.chars().try_for_each(|c| seen.push(if c == '\t' { ' ' } else { c }));
    seen
}

#[cfg(test)]
mod tests;
