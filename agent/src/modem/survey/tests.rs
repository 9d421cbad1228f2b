use super::super::condition::Registration;
use super::*;

const IMEI: &str = "869731052403821";

/// A modem that answers by a table; what is not in it is an ERROR, what is empty no answer.
struct Talked {
    asked: Vec<String<MAX_TRANSMIT>>,
    outcome: Outcome,
    survey: Survey,
}

impl Talked {
    fn commands(&self) -> Vec<&str> {
        self.asked.iter().map(String::as_str).collect()
    }
}

fn survey(purpose: Purpose, known: Option<Name>, now: Instant) -> Survey {
    Survey::new(purpose, Some(IMEI.parse().unwrap()), String::new(), known, now)
}

/// Virtual time runs from deadline to deadline; an answer takes none. The last answer to a command stays.
fn talk(mut survey: Survey, mut now: Instant, answers: &[(&str, &str)]) -> Talked {
    let begun = now;
    let mut asked: Vec<String<MAX_TRANSMIT>> = Vec::new();
    loop {
        if let Some(outcome) = survey.poll_event() {
            assert!(now <= begun + LIMIT);
            return Talked { asked, outcome, survey };
        }
        let mut out = [0; MAX_TRANSMIT];
        if let Some(length) = survey.poll_transmit(&mut out) {
            let command = str::from_utf8(&out[..length]).unwrap().strip_suffix('\r').unwrap();
            asked.push(command.try_into().unwrap());
            let times = asked.iter().filter(|before| *before == command).count();
            let mut fitting =
                answers.iter().filter(|(known, _)| *known == command).map(|(_, answer)| *answer);
            let answer = fitting.clone().nth(times - 1).or_else(|| fitting.next_back());
            survey.handle_bytes(answer.unwrap_or("\r\nERROR\r\n").as_bytes(), now);
        } else {
            now = survey.poll_timeout().unwrap_or(now);
            survey.handle_timeout(now);
        }
    }
}

fn run(purpose: Purpose, known: Option<Name>, answers: &[(&str, &str)]) -> Talked {
    let now = crate::clock::now().instant;
    talk(survey(purpose, known, now), now, answers)
}

fn told(talked: &Talked) -> std::string::String {
    match &talked.outcome {
        Outcome::Told(condition) => condition.to_string(),
        other => panic!("{other:?}"),
    }
}

const GREETED: (&str, &str) = ("AT+CGSN", "\r\n869731052403821\r\n\r\nOK\r\n");
const CSQ: (&str, &str) = ("AT+CSQ", "\r\n+CSQ: 20,99\r\n\r\nOK\r\n");
const CEREG: (&str, &str) = ("AT+CEREG?", "\r\n+CEREG: 0,1\r\n\r\nOK\r\n");
const BY_NAME: (&str, &str) = ("AT+COPS?", "\r\n+COPS: 0,0,\"SGP-M1\",7\r\n\r\nOK\r\n");
const BY_NUMBER: (&str, &str) = ("AT+COPS?", "\r\n+COPS: 0,2,\"26201\",7\r\n\r\nOK\r\n");
const CHOSEN: (&str, &str) = ("AT+COPS=3,2", "\r\nOK\r\n");
const BACK: (&str, &str) = ("AT+COPS=3,0", "\r\nOK\r\n");

#[test]
fn registered_modem_takes_four_questions() {
    let talked = run(Purpose::Read, None, &[GREETED, CSQ, CEREG, BY_NUMBER]);
    assert_eq!(told(&talked), "registered at 262-01 over LTE, -73 dBm");
    assert_eq!(talked.commands(), ["AT+CGSN", "AT+CSQ", "AT+CEREG?", "AT+COPS?"]);
    assert!(!talked.survey.is_shared());
}

#[test]
fn older_domain_is_asked_when_lte_does_not_serve() {
    let creg = ("AT+CREG?", "\r\n+CREG: 2,5,\"2CF7\",\"8A5A782\",6\r\n\r\nOK\r\n");
    let no_operator = ("AT+COPS?", "\r\n+COPS: 0\r\n\r\nOK\r\n");
    let talked = run(Purpose::Read, None, &[GREETED, CSQ, creg, no_operator]);
    assert_eq!(told(&talked), "registered, roaming over UMTS, -73 dBm");
}

#[test]
fn format_is_changed_once_for_a_name_and_put_back() {
    let answers = [GREETED, CSQ, CEREG, BY_NAME, BY_NUMBER, CHOSEN, BACK];
    let talked = run(Purpose::Read, None, &answers);
    assert_eq!(told(&talked), "registered at 262-01 over LTE, -73 dBm");
    assert_eq!(talked.commands()[3..], ["AT+COPS?", "AT+COPS=3,2", "AT+COPS?", "AT+COPS=3,0"]);
    let again = run(Purpose::Read, talked.survey.name(), &[GREETED, CSQ, CEREG, BY_NAME]);
    assert_eq!(told(&again), "registered at 262-01 over LTE, -73 dBm");
    assert_eq!(again.commands()[3..], ["AT+COPS?"]);
}

#[test]
fn format_is_put_back_when_the_number_does_not_come() {
    let short = ("AT+COPS?", "\r\n+COPS: 0,1,\"SGP\"\r\n\r\nOK\r\n");
    let talked = run(Purpose::Read, None, &[GREETED, CSQ, CEREG, short, ("AT+COPS?", ""), CHOSEN]);
    assert_eq!(told(&talked), "registered, -73 dBm");
    assert_eq!(talked.commands().last(), Some(&"AT+COPS=3,1"));
    let refused = run(Purpose::Read, None, &[GREETED, CSQ, CEREG, BY_NAME]);
    assert_eq!(
        refused.commands().last(),
        Some(&"AT+COPS=3,2"),
        "a format that was not changed is not put back"
    );
}

#[test]
fn port_of_another_modem_is_left_at_once() {
    let other = ("AT+CGSN", "\r\n862095062526113\r\n\r\nOK\r\n");
    for purpose in [Purpose::Read, Purpose::Reset] {
        let talked = run(purpose, None, &[other, CSQ, ("AT+CFUN=1,1", "\r\nOK\r\n")]);
        assert_eq!(talked.outcome, Outcome::Other("862095062526113".parse().unwrap()));
        assert_eq!(talked.commands(), ["AT+CGSN"]);
    }
}

#[test]
fn silent_modem_is_asked_twice_and_left() {
    let talked = run(Purpose::Read, None, &[("AT+CGSN", "")]);
    assert_eq!((talked.outcome.clone(), talked.commands()), (Outcome::Silent, vec!["AT+CGSN", "AT+CGSN"]));
}

#[test]
fn modem_is_started_anew_once_whatever_it_says() {
    for answer in ["\r\nOK\r\n", "", "\r\nERROR\r\n"] {
        let talked = run(Purpose::Reset, None, &[GREETED, ("AT+CFUN=1,1", answer)]);
        assert_eq!(
            (talked.outcome.clone(), talked.commands()),
            (Outcome::Reset, vec!["AT+CGSN", "AT+CFUN=1,1"])
        );
    }
}

#[test]
fn late_and_foreign_answers_are_not_believed() {
    let stale = ("AT+CEREG?", "AT+CSQ\r\r\n+CSQ: 3,99\r\n\r\nOK\r\n\r\n+CEREG: 0,5\r\n\r\nOK\r\n");
    let talked = run(Purpose::Read, None, &[GREETED, CSQ, stale, BY_NUMBER]);
    assert_eq!(told(&talked), "registered, roaming at 262-01 over LTE, -73 dBm");
    assert!(!talked.survey.is_shared(), "that was our own question");
    let foreign = ("AT+CSQ", "at+cclk?\r\r\n+CCLK: \"24/01/18,08:32:36+28\"\r\nOK\r\n");
    let talked = run(Purpose::Read, None, &[GREETED, foreign, CEREG, BY_NUMBER]);
    assert_eq!(told(&talked), "registered at 262-01 over LTE");
    assert!(talked.survey.is_shared());
}

#[test]
fn unplugged_modem_leaves_what_it_told() {
    let now = crate::clock::now().instant;
    let mut survey = survey(Purpose::Read, None, now);
    survey.handle_end();
    assert_eq!(survey.poll_event(), Some(Outcome::Silent));
    let mut survey = self::survey(Purpose::Read, None, now);
    survey.condition.registration = Some(Registration(2));
    survey.handle_end();
    assert!(matches!(survey.poll_event(), Some(Outcome::Told(_))));
}
