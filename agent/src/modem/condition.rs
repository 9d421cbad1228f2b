//! How the modem stands with its network: signal, registration, operator and access technology, out of its answers. Pure;
//! which command is sent when is `survey.rs`'s matter.
//!
//! Answers are those of 3GPP TS 27.007: +CSQ (8.5), +CREG and +CEREG (7.2, 10.1.22), +COPS (7.3).

use std::fmt;

use heapless::String;
use moorline_protocol::Status;

use super::answer::Exchange;

/// What a modem told of its network; what it did not is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Received signal strength, dBm.
    pub signal_dbm: Option<i16>,
    /// Registration.
    pub registration: Option<Registration>,
    /// The operator.
    pub operator: Option<Operator>,
    /// How the radio reaches it.
    pub access: Option<Access>,
}

/// The operator as MCC-MNC, `262-01`.
pub type Operator = String<8>;

/// `<stat>` of +CREG (TS 27.007 section 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration(pub u8);

impl Registration {
    /// Whether data may flow: at home, roaming, or either with voice over another network.
    #[must_use]
    pub const fn is_registered(self) -> bool {
        matches!(self.0, 1 | 5 | 9 | 10)
    }

    /// Which of two answers, of which each speaks of another domain, tells more: that of the domain that carries data,
    /// else the one that a person has to know of.
    const fn weight(self) -> u8 {
        match self.0 {
            _ if self.is_registered() => 4,
            3 => 3,
            2 => 2,
            6..=8 => 1,
            _ => 0,
        }
    }
}

impl fmt::Display for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "not registered and not searching",
            1 | 9 => "registered",
            2 => "searching for a network",
            3 => "denied by the network",
            5 | 10 => "registered, roaming",
            6 | 7 => "registered for short messages only",
            8 => "fit for emergency calls only",
            _ => "registration unknown",
        })
    }
}

/// The access technology, as far as it matters to how often a device may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// GSM, GPRS and EDGE.
    Gsm,
    /// UMTS and what came of it.
    Umts,
    /// LTE.
    Lte,
    /// LTE-M.
    LteM,
    /// NB-IoT.
    NbIot,
    /// 5G.
    Nr,
}

impl Access {
    /// From `<AcT>` (TS 27.007 section 7.3). It has no number for LTE-M: makers of modems that know it say 8, which is
    /// EC-GSM-IoT there and in no network, or 7 as for all of LTE; then `modem`, maker and model, tells.
    #[must_use]
    pub fn new(act: u8, modem: &str) -> Option<Self> {
        Some(match act {
            0 | 1 | 3 => Self::Gsm,
            2 | 4..=6 => Self::Umts,
            7 if NO_OTHER_LTE.iter().any(|name| modem.contains(name)) => Self::LteM,
            7 => Self::Lte,
            8 => Self::LteM,
            9 => Self::NbIot,
            10..=13 => Self::Nr,
            _ => return None,
        })
    }
}

/// Modems whose only LTE is LTE-M, by what they call themselves.
const NO_OTHER_LTE: [&str; 12] = [
    "BG95", "BG96", "BG77", "SIM7000", "SIM7070", "SIM7080", "SIM7090", "nRF91", "SARA-R4", "SARA-R5",
    "ME910", "ME310",
];

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gsm => "GSM",
            Self::Umts => "UMTS",
            Self::Lte => "LTE",
            Self::LteM => "LTE-M",
            Self::NbIot => "NB-IoT",
            Self::Nr => "5G",
        })
    }
}

/// Less than this is what a signal does by itself.
const SIGNAL_STEP: u16 = 6;

impl Condition {
    /// Whether the server should hear of it, after it was told `told`.
    #[must_use]
    pub fn is_news_after(&self, told: &Self) -> bool {
        let signal = match (self.signal_dbm, told.signal_dbm) {
            (Some(new), Some(old)) => new.abs_diff(old) >= SIGNAL_STEP,
            (new, old) => new.is_some() != old.is_some(),
        };
        signal || self.registration != told.registration || self.is_elsewhere_than(told)
    }

    /// Whether another network serves, so that what was learnt of the one before does not hold. An answer that is lacking
    /// tells nothing.
    #[must_use]
    pub fn is_elsewhere_than(&self, before: &Self) -> bool {
        self.operator.is_some() && self.operator != before.operator
    }

    /// Whether it is registered, if it said so.
    #[must_use]
    pub fn is_registered(&self) -> Option<bool> {
        self.registration.map(Registration::is_registered)
    }

    /// Adds it to a report on the device.
    #[must_use]
    pub fn report(self, mut device: Status) -> Status {
        device.signal_dbm = self.signal_dbm;
        device.registration = self.registration.map(|registration| registration.0);
        device.operator = self.operator;
        device
    }

    /// Takes +CREG's or +CEREG's answer in, beside what the other has said.
    pub(super) fn add_registration(&mut self, answer: &str, modem: &str) {
        let Some((new, act)) = registration(answer) else { return };
        if self.registration.is_none_or(|old| new.weight() > old.weight()) {
            self.registration = Some(new);
            self.access = act.and_then(|act| Access::new(act, modem)).or(self.access);
        }
    }
}

/// In words, for the log and the status.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.registration {
            Some(registration) => registration.fmt(f)?,
            None => f.write_str("registration not told")?,
        }
        if let Some(operator) = &self.operator {
            write!(f, " at {operator}")?;
        }
        if let Some(access) = self.access {
            write!(f, " over {access}")?;
        }
        match self.signal_dbm {
            Some(dbm) => write!(f, ", {dbm} dBm"),
            None => Ok(()),
        }
    }
}

/// Judges all that came back for one of the commands that ask for a condition.
#[must_use]
pub fn judge(command: &str, response: &[u8]) -> Condition {
    let mut exchange = Exchange::new(command);
    exchange.handle_bytes(response);
    let (mut condition, value) = (Condition::default(), exchange.value().unwrap_or_default());
    match command {
        "AT+CSQ" => condition.signal_dbm = signal_dbm(value),
        "AT+CREG?" | "AT+CGREG?" | "AT+CEREG?" => condition.add_registration(value, ""),
        "AT+COPS?" => {
            let selection = selection(value);
            condition.operator = selection.and_then(|selection| mcc_mnc(selection.operator));
            condition.access = selection.and_then(|selection| Access::new(selection.act?, ""));
        }
        _ => {}
    }
    condition
}

/// What follows `+CSQ:` as dBm; 99 is "not known", and so is whatever is beyond TS 27.007's scale.
pub(super) fn signal_dbm(answer: &str) -> Option<i16> {
    let rssi: i16 = answer.split(',').next()?.trim().parse().ok()?;
    (0..=31).contains(&rssi).then(|| rssi * 2 - 113)
}

/// What follows `+CREG:` and its kin: `<n>,<stat>[,<lac>,<ci>[,<AcT>…]]`, or the unsolicited `<stat>[,<lac>,<ci>[,<AcT>]]`.
/// The area's code may be quoted, not quoted, or quoted on one side.
fn registration(answer: &str) -> Option<(Registration, Option<u8>)> {
    let fields: heapless::Vec<&str, 8> = answer.split(',').map(str::trim).take(8).collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u8>().ok());
    // A location area's code has four hexadecimal digits, a registration one or two decimal ones.
    let second = fields.get(1).filter(|field| field.len() <= 2).and_then(|_| number(1));
    let (stat, act) = match second {
        Some(stat) => (Some(stat), number(4)),
        None => (number(0), number(3)),
    };
    stat.filter(|stat| *stat <= 11).map(|stat| (Registration(stat), act))
}

/// What follows `+COPS:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Selection<'l> {
    /// How the operator is written: 0 and 1 as a name, 2 as a number.
    pub(super) format: u8,
    /// It.
    pub(super) operator: &'l str,
    /// The access technology.
    pub(super) act: Option<u8>,
}

/// `<mode>[,<format>,<oper>[,<AcT>]]`; `None` while no operator serves.
pub(super) fn selection(answer: &str) -> Option<Selection<'_>> {
    let (_, rest) = answer.split_once(',')?;
    let (format, rest) = rest.split_once(',')?;
    // A name may hold a comma, so what is quoted ends with its quote.
    let (operator, rest) = match rest.trim_start().strip_prefix('"') {
        Some(quoted) => quoted.split_once('"')?,
        None => rest.split_at(rest.find(',').unwrap_or(rest.len())),
    };
    let act = rest.trim_start_matches([',', ' ']).split(',').next().and_then(|act| act.trim().parse().ok());
    Some(Selection { format: format.trim().parse().ok()?, operator: operator.trim(), act })
}

/// `26201` as `262-01`: three digits of the country, two or three of the network (ITU-T E.212).
pub(super) fn mcc_mnc(digits: &str) -> Option<Operator> {
    if !matches!(digits.len(), 5 | 6) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (mcc, mnc) = digits.split_at(3);
    let mut operator = Operator::try_from(mcc).ok()?;
    operator.push('-').ok()?;
    operator.push_str(mnc).ok()?;
    Some(operator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_is_on_the_scale_or_unknown() {
        for (answer, dbm) in [
            ("0,0", Some(-113)),
            ("31,99", Some(-51)),
            ("15,3", Some(-83)),
            ("99,99", None),
            ("131,99", None),
            ("", None),
            ("-1,0", None),
        ] {
            assert_eq!(signal_dbm(answer), dbm, "{answer}");
        }
    }

    #[test]
    fn registration_is_found_in_answers_and_unsolicited_lines() {
        for (answer, stat, act) in [
            ("0,1", 1, None),
            ("2", 2, None),
            ("2,5,\"2CF7\",\"8A5A782\",6", 5, Some(6)),
            ("2,1,4CA,81DE445", 1, None),
            ("2,1,\"0B,\"0100701\",7", 1, Some(7)),
            ("5,\"792D\",\"04947221\"", 5, None),
            ("1,\"792D\",\"04947221\",9", 1, Some(9)),
            ("0,2,,,,,,", 2, None),
        ] {
            assert_eq!(registration(answer), Some((Registration(stat), act)), "{answer}");
        }
        for answer in ["", "x", "0,77", "\"792D\""] {
            assert_eq!(registration(answer), None, "{answer}");
        }
    }

    #[test]
    fn registered_domain_outweighs_the_other() {
        for (eps, cs, stat) in [("0,0", "0,1", 1), ("0,5", "0,0", 5), ("0,3", "0,2", 3), ("0,0", "0,2", 2)] {
            let mut condition = Condition::default();
            condition.add_registration(eps, "");
            condition.add_registration(cs, "");
            assert_eq!(condition.registration, Some(Registration(stat)), "{eps} {cs}");
        }
    }

    #[test]
    fn operator_is_found_with_its_format() {
        let read = |answer| selection(answer).map(|s| (s.format, s.operator, s.act));
        assert_eq!(read("0,2,\"46011\",7"), Some((2, "46011", Some(7))));
        assert_eq!(read("0,0,\"Three, UK\",2"), Some((0, "Three, UK", Some(2))));
        assert_eq!(read("1,2,310410"), Some((2, "310410", None)));
        for answer in ["0", "0,2", "0,2,\"4601", ""] {
            assert_eq!(read(answer), None, "{answer}");
        }
        assert_eq!(mcc_mnc("310410").as_deref(), Some("310-410"));
        for digits in ["", "4601", "4601a", "1234567", "é2601"] {
            assert_eq!(mcc_mnc(digits), None, "{digits}");
        }
    }

    #[test]
    fn lte_m_is_told_by_number_or_by_model() {
        for (act, modem, access) in [
            (0, "", Some(Access::Gsm)),
            (6, "", Some(Access::Umts)),
            (7, "Quectel EC25", Some(Access::Lte)),
            (7, "SIMCOM_SIM7080G", Some(Access::LteM)),
            (8, "Quectel BG96", Some(Access::LteM)),
            (9, "", Some(Access::NbIot)),
            (11, "", Some(Access::Nr)),
            (99, "", None),
        ] {
            assert_eq!(Access::new(act, modem), access, "{act} {modem}");
        }
    }

    #[test]
    fn small_changes_of_the_signal_are_no_news() {
        let at = |dbm, stat, operator: &str| Condition {
            signal_dbm: dbm,
            registration: Some(Registration(stat)),
            operator: mcc_mnc(operator),
            access: None,
        };
        let told = at(Some(-80), 1, "26201");
        for (condition, news) in [
            (at(Some(-85), 1, "26201"), false),
            (at(Some(-75), 1, ""), false),
            (at(Some(-86), 1, "26201"), true),
            (at(None, 1, "26201"), true),
            (at(Some(-80), 2, "26201"), true),
            (at(Some(-80), 1, "26202"), true),
        ] {
            assert_eq!(condition.is_news_after(&told), news, "{condition}");
        }
        assert_eq!(told.to_string(), "registered at 262-01, -80 dBm");
    }
}
