//! That docs/compliance.md names only tests that exist: what it says of Moorline is worth what its tests are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use moorline_testbed::failure::Failure;

#[test]
fn every_test_that_is_named_exists() -> Result<(), Failure> {
    let document = fs::read_to_string(root().join("docs/compliance.md"))?;
    let mut sources = BTreeMap::new();
    let (mut named, mut missing) = (0, Vec::new());
    for (number, line) in (1..).zip(document.lines()).filter(|(_, line)| line.starts_with('|')) {
        let mut file = None;
        for (path, function) in line.split('`').skip(1).step_by(2).filter_map(|mark| mark.split_once("::")) {
            // `::name` is of the file named before it in the row.
            file = Some(path).filter(|path| !path.is_empty()).or(file);
            named += 1;
            let exists = match file {
                Some(path) => {
                    let text = sources.entry(path).or_insert_with(|| fs::read_to_string(root().join(path)));
                    text.as_ref().is_ok_and(|text| is_test(text, function))
                }
                None => false,
            };
            if !exists {
                missing
                    .push(format!("docs/compliance.md:{number}: {}::{function}", file.unwrap_or_default()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(named > 200, "{named} marks: is the document still written as this reads it?");
    Ok(())
}

#[test]
fn what_is_no_test_is_noticed() {
    let text = "fn helper() {}\n#[test]\nfn first() {}\n#[test]\n#[ignore = \"long\"]\nfn second() {}\n";
    assert!(is_test(text, "first") && is_test(text, "second"));
    assert!(!is_test(text, "helper") && !is_test(text, "fir") && !is_test(text, "third"));
}

/// Whether this source has a function of that name with `#[test]` among the attributes above it.
fn is_test(source: &str, function: &str) -> bool {
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    let head = format!("fn {function}(");
    let found = lines.iter().position(|line| line.trim_start_matches("async ").starts_with(&head));
    let above = found.map(|at| lines[..at].iter().rev().take_while(|line| line.starts_with("#[")));
    above.is_some_and(|mut attributes| {
        attributes.any(|attribute| attribute.starts_with("#[test]") || attribute.starts_with("#[tokio::test"))
    })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
