//! What packaging/ promises before anything is built: its targets are known wherever they are named.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use moorline_config::Document;
use moorline_testbed::failure::Failure;

#[test]
fn cross_knows_every_target_and_nothing_else() -> Result<(), Failure> {
    let cross = Document::read(&source("Cross.toml"))?;
    let named = cross.root().section("target");
    for target in targets()? {
        let named = named.section(&target);
        assert!(named.string("runner").is_some(), "Cross.toml does not name {target}");
        // Asked for, so that it is no unknown key.
        let _ = named.section("env").strings("passthrough");
    }
    Ok(cross.finish()?)
}

#[test]
fn every_target_is_explained() -> Result<(), Failure> {
    let explained = fs::read_to_string(source("packaging/README.md"))?;
    for target in targets()? {
        assert!(explained.contains(&target), "packaging/README.md says nothing of {target}");
    }
    Ok(())
}

#[test]
fn boards_get_a_smallest_agent_that_is_static() -> Result<(), Failure> {
    let listed = said(&build(&["--list", "--flavour", "smallest"])?);
    assert_eq!(listed, "armv7-unknown-linux-musleabihf smallest\naarch64-unknown-linux-musl smallest\n");
    Ok(())
}

#[test]
fn unknown_target_is_refused_with_the_known_ones() -> Result<(), Failure> {
    let refused = build(&["--list", "armv6-unknown-linux-gnueabihf"])?;
    assert!(!refused.status.success());
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(error.contains("unknown target armv6-unknown-linux-gnueabihf"), "{error}");
    assert!(error.contains("armv7-unknown-linux-gnueabihf"), "{error}");
    Ok(())
}

/// What SPECIFICATION.md promises of the agent's size on a board.
const BUDGETS: [(&str, u64); 2] = [
    ("armv7-unknown-linux-musleabihf/smallest/moorline-agent", 560 << 10),
    ("armv7-unknown-linux-gnueabihf/standard/moorline-agent", 950 << 10),
];

#[test]
#[ignore = "needs what packaging/build makes"]
fn agents_for_boards_keep_their_budgets() -> Result<(), Failure> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| source("target"), PathBuf::from);
    for (program, budget) in BUDGETS {
        let size = fs::metadata(target.join("dist").join(program))?.len();
        assert!(size <= budget, "{program} has {size} bytes, which is more than {budget}");
    }
    Ok(())
}

/// The targets that the build lists.
fn targets() -> Result<BTreeSet<String>, Failure> {
    let listed = said(&build(&["--list"])?);
    let targets: BTreeSet<_> =
        listed.lines().filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect();
    assert!(targets.len() >= 5, "{listed}");
    Ok(targets)
}

fn build(arguments: &[&str]) -> Result<Output, Failure> {
    Ok(Command::new(source("packaging/build")).args(arguments).output()?)
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}
