//! Every reader of a peer's bytes, and of people's files, under bytes that nobody honest sends: the corpora of `fuzz/corpus`, and
//! what a seed makes of them. `fuzz/README.md` says how to have more of it, and one input again.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use moorline_config::read_table;
use moorline_testbed::hostile::{Campaign, TARGETS, Target, corpus};
use moorline_testbed::left_out::left_out;

/// Any would do; it is always the same, so that a run says the same today and tomorrow.
const SEED: u64 = 20_261_125;
/// All targets together take some seconds.
const RUNS: usize = 1500;

fn number<T: FromStr>(name: &str, default: T) -> T {
    let read = |text: String| text.parse().unwrap_or_else(|_| panic!("{name}={text}: this is no number"));
    variable(name).map_or(default, read)
}

/// Runs one target: the one input that the environment names, or its corpus and what is made of it.
fn try_target(target: &Target, more: Vec<(String, Vec<u8>)>) {
    if let Some(file) = variable("MOORLINE_FUZZ_INPUT") {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("").join(file);
        return target.run(&fs::read(&file).expect("the file that MOORLINE_FUZZ_INPUT names"));
    }
    let campaign =
        Campaign { seed: number("MOORLINE_FUZZ_SEED", SEED), runs: number("MOORLINE_FUZZ_RUNS", RUNS) };
    let mut inputs = corpus(target.name).expect("a folder in fuzz/corpus");
    assert!(inputs.len() > 1, "fuzz/corpus/{} is empty", target.name);
    inputs.extend(more);
    if let Err(finding) = campaign.run(target, &inputs) {
        let file = finding.keep().expect("a place for the input");
        panic!(
            "{finding}\nOnce more: MOORLINE_FUZZ_INPUT={} cargo test -p moorline-testbed --test hostile {}",
            file.display(),
            target.name
        );
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            try_target(Target::named(stringify!($name)).expect("a target"), recorded(stringify!($name)));
        })*

        const TRIED: &[&str] = &[$(stringify!($name)),*];
    };
}

targets! {
    frames messages classic_requests classic_replies device_session server_session imei at_dialogue at_survey agent_config
    server_config agent_state table proxy client_hello records certificate
}

/// What real modems said, where somebody has collected it: each as the answer to whatever is asked.
fn recorded(target: &str) -> Vec<(String, Vec<u8>)> {
    if !target.starts_with("at_") {
        return Vec::new();
    }
    let folder = variable("MOORLINE_MODEM_CORPUS").unwrap_or_else(|| "../../shared/modem".to_owned());
    let mut inputs = Vec::new();
    for name in ["imei.jsonl", "other.jsonl"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(&folder).join(name);
        match fs::read_to_string(&file) {
            Ok(text) => inputs.extend(text.lines().zip(1..).map(|(text, line)| {
                let record: serde_json::Value = serde_json::from_str(text).expect("JSON");
                let response = record["response"].as_str().unwrap_or_default();
                // Their bytes are the characters of Latin-1; the pauses let each question out that is answered so.
                let answer: Vec<u8> = format!("~{response}").chars().map(|c| c as u8).collect();
                (format!("{name}:{line}"), answer.repeat(8))
            })),
            Err(error) => {
                left_out(&format!("{}: {error}; MOORLINE_MODEM_CORPUS names its folder", file.display()));
            }
        }
    }
    inputs
}

fn variable(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "where this program starts")]
    env::var(name).ok()
}

/// Every target is tried here and is a program under `fuzz/`, which nothing else would build.
#[test]
fn every_target_is_run_by_both() {
    let names: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names, TRIED.iter().map(ToString::to_string).collect());
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).expect("fuzz/Cargo.toml");
    for name in &names {
        assert!(
            manifest.contains(&format!("\nname = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\n")),
            "{name}"
        );
        let source = fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).expect("its program");
        assert!(source.contains(&format!("hostile!(\"{name}\");")), "{source}");
    }
    let programs = fs::read_dir(fuzz.join("fuzz_targets")).expect("a folder");
    assert_eq!(programs.count(), names.len());
    let corpora = fs::read_dir(fuzz.join("corpus")).expect("a folder");
    assert_eq!(corpora.count(), names.len());
}

/// A table may have 16 MiB over HTTP. One that is none must not take a multiple of that.
#[test]
fn large_file_that_is_no_table_takes_little() {
    for part in [",", "a\n", "\"", "a,a\n", "\n"] {
        let table = part.repeat((4 << 20) / part.len());
        let held = allocation_counter::measure(|| drop(read_table(table.as_bytes()))).bytes_max;
        assert!(held < 24 << 20, "4 MiB of {part:?} took {held} bytes");
    }
}

/// A reader with a fault that no input of the corpus shows: the runner has to find it, make it small, and find it again.
#[test]
fn planted_fault_is_found_and_made_small() {
    fn faulty(bytes: &[u8]) {
        let at = bytes.windows(2).position(|pair| pair == b"\x80\x20");
        assert!(at.is_none_or(|at| at < 3), "a length of 4096 behind {} bytes", at.unwrap_or(0));
    }
    let target = Target::new("planted", faulty, &[b"\x80\x20"], 200, 1024);
    let corpus = [("harmless".to_owned(), b"a harmless input that is long enough".to_vec())];
    let campaign = Campaign { seed: SEED, runs: 200 };
    let finding = campaign.run(&target, &corpus).expect_err("the fault");
    assert_eq!(finding.input.len(), 5, "{finding}");
    assert!(finding.input.ends_with(b"\x80\x20") && finding.length > 5, "{finding}");
    let shown = finding.to_string();
    assert!(shown.contains("a length of 4096 behind 3 bytes") && shown.contains("\\x80 "), "{shown}");
    assert!(shown.contains(&format!("of the seed {SEED}")), "{shown}");
    let again = campaign.run(&target, &corpus).expect_err("the fault");
    assert_eq!((again.origin, again.input), (finding.origin, finding.input));
}

/// What grows out of proportion is a fault as well.
#[test]
fn planted_hunger_is_found() {
    fn hungry(bytes: &[u8]) {
        let asked = bytes.first().map_or(0, |byte| usize::from(*byte) << 12);
        std::hint::black_box(vec![0_u8; asked]);
    }
    let target = Target::new("planted", hungry, &[], 200, 64 * 1024);
    let campaign = Campaign { seed: SEED, runs: 500 };
    let finding = campaign.run(&target, &[("small".to_owned(), vec![1])]).expect_err("the fault");
    assert!(finding.fault.contains("bytes of memory"), "{finding}");
    assert_eq!(finding.input.len(), 1, "{finding}");
}
