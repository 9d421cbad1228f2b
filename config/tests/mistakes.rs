//! What a person reads for each mistake of a configuration: the exact lines.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, process};

use moorline_config::{Document, MAX_FILE, Mistakes, Section};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Protocol {
    Auto,
    Native,
}

/// What `read` makes of `text`, and the mistakes, one a line.
fn read<T>(text: &str, read: impl FnOnce(Section<'_>) -> T) -> (T, String) {
    let document = Document::parse(Path::new("a.toml"), text).expect("valid TOML");
    let value = read(document.root());
    (value, lines(document.finish()))
}

fn lines(outcome: Result<(), Mistakes>) -> String {
    outcome.map_or_else(|mistakes| mistakes.to_string(), |()| String::new())
}

fn syntax(text: &str) -> String {
    lines(Document::parse(Path::new("a.toml"), text).map(|_| ()))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn right_values_are_read_without_a_mistake() {
    let text = r#"
        top = "level"
        [server]
        address = ["a:1", "b:2"]
        single = "c:3"
        port = 0x2_382
        checked = true
        interval = "1h30m"
        protocol = "native"
        socket = "[::1]:9089"
        inner = { deep = "er" }
        dotted.name = "x"
    "#;
    let ((), mistakes) = read(text, |root| {
        assert_eq!(root.string("top").as_deref(), Some("level"));
        let server = root.section("server");
        assert_eq!(server.strings("address"), Some(vec!["a:1".to_owned(), "b:2".to_owned()]));
        assert_eq!(server.strings("single"), Some(vec!["c:3".to_owned()]));
        assert_eq!(server.integer("port", 1..=65535), Some(9090));
        assert_eq!(server.boolean("checked"), Some(true));
        assert_eq!(server.duration("interval", seconds(1)..=seconds(86_400)), Some(seconds(5400)));
        let choices = [("auto", Protocol::Auto), ("native", Protocol::Native)];
        assert_eq!(server.choice("protocol", &choices), Some(Protocol::Native));
        let socket: Option<SocketAddr> = server.parsed("socket", "an address with a port");
        assert_eq!(socket.map(|socket| socket.port()), Some(9089));
        assert_eq!(server.section("inner").string("deep").as_deref(), Some("er"));
        assert_eq!(server.section("dotted").require("name").string("name").as_deref(), Some("x"));
    });
    assert_eq!(mistakes, "");
}

#[test]
fn absent_keys_and_tables_are_none_without_a_mistake() {
    let ((), mistakes) = read("", |root| {
        let server = root.section("server");
        assert!(!server.contains("name"));
        assert_eq!(server.string("name"), None);
        assert_eq!(server.strings("name"), None);
        assert_eq!(server.integer("name", 0..=1), None);
        assert_eq!(server.boolean("name"), None);
        assert_eq!(server.duration("name", seconds(1)..=seconds(2)), None);
        assert_eq!(server.choice("name", &[("a", 1)]), None);
        assert_eq!(server.parsed::<u8>("name", "a number"), None);
        assert_eq!(server.section("deeper").string("name"), None);
    });
    assert_eq!(mistakes, "");
}

#[test]
fn unknown_keys_and_tables_name_what_was_meant() {
    let text = "stray = 1\n[server]\nadress = 'x'\ncolour = 1\n[heartbeet]\ninterval = 1\n[zebra]\n";
    let ((), mistakes) = read(text, |root| {
        let server = root.section("server");
        let _ = (server.string("address"), server.string("name"), root.section("heartbeat"));
    });
    assert_eq!(
        mistakes,
        "a.toml:1: stray: unknown key; known here: server, heartbeat\n\
         a.toml:3: server.adress: unknown key, did you mean `address`?\n\
         a.toml:4: server.colour: unknown key; known here: address, name\n\
         a.toml:5: heartbeet: unknown table, did you mean `heartbeat`?\n\
         a.toml:7: zebra: unknown table; known here: server, heartbeat"
    );
}

#[test]
fn wrong_types_say_what_is_wanted_and_what_is_there() {
    let text = "string = 1\nstrings = 2.5\nelement = [\n  'a',\n  3,\n  'b',\n  true]\ninteger = '1'\nboolean = 'true'\n\
                duration = true\nchoice = []\nparsed = 2020-01-01\nsection = 'x'\ntable = {}\n[[several]]\n";
    let ((), mistakes) = read(text, |root| {
        assert_eq!(root.string("string"), None);
        assert_eq!(root.strings("strings"), None);
        assert_eq!(root.strings("element"), None);
        assert_eq!(root.integer("integer", 0..=9), None);
        assert_eq!(root.boolean("boolean"), None);
        assert_eq!(root.duration("duration", seconds(1)..=seconds(2)), None);
        assert_eq!(root.choice("choice", &[("a", 1)]), None);
        assert_eq!(root.parsed::<u8>("parsed", "a number"), None);
        assert_eq!(root.section("section").string("inner"), None);
        assert_eq!(root.string("table"), None);
        assert_eq!(root.section("several").string("inner"), None);
    });
    assert_eq!(
        mistakes,
        "a.toml:1: string: must be a string, not an integer\n\
         a.toml:2: strings: must be a string or an array of strings, not a number with a fraction\n\
         a.toml:5: element: must be a string or an array of strings, not an integer\n\
         a.toml:7: element: must be a string or an array of strings, not a boolean\n\
         a.toml:8: integer: must be an integer, not a string\n\
         a.toml:9: boolean: must be true or false, not a string\n\
         a.toml:10: duration: must be a duration, as in \"60s\", not a boolean\n\
         a.toml:11: choice: must be a string, not an array\n\
         a.toml:12: parsed: must be a string, not a date or time\n\
         a.toml:13: section: must be a table, not a string\n\
         a.toml:14: table: must be a string, not a table\n\
         a.toml:15: several: must be a table, not an array"
    );
}

#[test]
fn wrong_values_say_what_is_wrong() {
    let text = "low = 0\nhigh = 65536\nhuge = 99999999999999999999\nbare = 60\nunitless = '60'\nunit = '5min'\n\
                short = '1s'\nchoice = 'nativ'\nparsed = 'x\"y'\nempty = ''\nnone = []\nhole = ['a', '']\n";
    let ((), mistakes) = read(text, |root| {
        let minutes = || seconds(5)..=seconds(600);
        assert_eq!(root.integer("low", 1..=65535), None);
        assert_eq!(root.integer("high", 1..=65535), None);
        assert_eq!(root.integer("huge", 1..=65535), None);
        for key in ["bare", "unitless", "unit", "short"] {
            assert_eq!(root.duration(key, minutes()), None);
        }
        let choices = [("auto", Protocol::Auto), ("native", Protocol::Native)];
        assert_eq!(root.choice("choice", &choices), None);
        assert_eq!(root.parsed::<u8>("parsed", "a number"), None);
        assert_eq!(root.string("empty"), None);
        assert_eq!(root.strings("none"), None);
        assert_eq!(root.strings("hole"), None);
    });
    assert_eq!(
        mistakes,
        "a.toml:1: low: is out of range: must be from 1 to 65535\n\
         a.toml:2: high: is out of range: must be from 1 to 65535\n\
         a.toml:3: huge: is out of range: must be from 1 to 65535\n\
         a.toml:4: bare: 60 needs a unit (ms, s, m, h or d), as in \"60s\"\n\
         a.toml:5: unitless: \"60\" needs a unit (ms, s, m, h or d), as in \"60s\"\n\
         a.toml:6: unit: \"5min\" has an unknown unit; the units are ms, s, m, h and d\n\
         a.toml:7: short: is out of range: must be from 5 s to 10m\n\
         a.toml:8: choice: \"nativ\" is none of auto, native\n\
         a.toml:9: parsed: \"x\\\"y\" is not a number: invalid digit found in string\n\
         a.toml:10: empty: is empty; leave the key out instead\n\
         a.toml:11: none: is empty; leave the key out instead\n\
         a.toml:12: hole: is empty; leave the key out instead"
    );
}

#[test]
fn readers_add_mistakes_of_their_own() {
    let ((), mistakes) = read("[server]\nname = 'x'\n", |root| {
        let server = root.section("server");
        assert_eq!(server.require("address").string("address"), None);
        assert_eq!(server.require("name").string("name").as_deref(), Some("x"));
        root.section("modem").require("port");
        server.mistake("name", "is not a host's name");
    });
    assert_eq!(
        mistakes,
        "a.toml:2: server.name: is not a host's name\n\
         a.toml: server.address: is missing\n\
         a.toml: modem.port: is missing"
    );
}

#[test]
fn key_asked_for_twice_is_one_key() {
    let ((), mistakes) = read("name = 'x'\nother = 1\n", |root| {
        assert_eq!(root.string("name"), root.string("name"));
    });
    assert_eq!(mistakes, "a.toml:2: other: unknown key; known here: name");
}

/// What is said after the place is the parser's wording.
#[test]
fn broken_toml_is_shown_by_line_and_column() {
    for (text, place, wording) in [
        ("a = 1\nb = 'x' 'y'\n", "a.toml:2:9: ", "unexpected key or value"),
        ("a = 1\na = 2\n", "a.toml:2:1: ", "duplicate key"),
        ("[a]\n[a]\n", "a.toml:2:2: ", "duplicate key"),
        ("[a\nb = 1\n", "a.toml:1:3: ", "unclosed table"),
        ("a = 1\n'gr\u{fc}\u{df}e' 1\n", "a.toml:2:9: ", "="),
        ("a = 60s\n", "a.toml:1:5: ", "must be quoted"),
        ("a = \"x", "a.toml:1:7: ", "string"),
        ("a =", "a.toml:1:4: ", "value"),
        ("\0", "a.toml:1:2: ", "key"),
    ] {
        let faults = syntax(text);
        assert!(faults.starts_with(place) && faults.contains(wording), "{text:?}: {faults}");
    }
}

#[test]
fn nesting_without_end_is_refused() {
    for text in
        ["[".repeat(10_000), format!("a={}", "[".repeat(10_000)), format!("a{}=1", ".a".repeat(10_000))]
    {
        assert!(syntax(&text).starts_with("a.toml:1:"));
    }
}

#[test]
fn syntax_errors_of_several_lines_come_out_at_once() {
    let faults = syntax("a = 60s\nb = 1\nc = nonsense\n");
    let places: Vec<_> = faults.lines().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(places, ["a.toml:1:5", "a.toml:3:5"]);
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_are_taken() {
    let ((), mistakes) = read("\u{feff}a = 1\r\n\r\nb = 'x'\r\n", |root| {
        assert_eq!(root.integer("a", 0..=1), Some(1));
    });
    assert_eq!(mistakes, "a.toml:3: b: unknown key; known here: a");
}

/// A folder of this test's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("moorline-config-{}-{name}", process::id()));
        fs::create_dir(&path).expect("a fresh folder");
        Self(path)
    }

    /// What reading `name` says, without the folder's path.
    fn read(&self, name: &str) -> String {
        let outcome = Document::read(&self.0.join(name)).and_then(Document::finish);
        lines(outcome).replace(&format!("{}/", self.0.display()), "")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.join(name), bytes).expect("a file in its folder");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let folder = Folder::new("unreadable");
    folder.write("empty.toml", b"");
    folder.write("latin1.toml", b"# first\n# gr\xfc\xdfe\n");
    folder.write("largest.toml", &[b'\n'; MAX_FILE]);
    folder.write("larger.toml", &[b'\n'; MAX_FILE + 1]);
    fs::create_dir(folder.0.join("d.toml")).expect("a folder in its folder");
    assert_eq!(folder.read("empty.toml"), "");
    assert_eq!(folder.read("largest.toml"), "");
    assert_eq!(folder.read("larger.toml"), "larger.toml: is larger than 64 KiB, so hardly a configuration");
    assert_eq!(folder.read("latin1.toml"), "latin1.toml:2: is not UTF-8 text");
    assert_eq!(folder.read("d.toml"), "d.toml: is a directory, not a file");
    assert_eq!(folder.read("missing.toml"), "missing.toml: there is no such file");
    assert_eq!(folder.read("empty.toml/x"), "empty.toml/x: cannot be read: Not a directory (os error 20)");
}

#[cfg(unix)]
#[test]
fn file_of_another_user_says_so() {
    use std::os::unix::fs::PermissionsExt;

    let folder = Folder::new("forbidden");
    folder.write("a.toml", b"");
    let file = folder.0.join("a.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).expect("a file of ours");
    // To root every file is readable.
    let expected = if fs::File::open(&file).is_ok() { "" } else { "a.toml: may not be read by this user" };
    assert_eq!(folder.read("a.toml"), expected);
}
