//! What packaging/ promises before anything is built: its targets are known wherever they are named.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use moorline_config::Document;
use moorline_testbed::failure::Failure;
use moorline_testbed::footprint::Footprint;
use moorline_testbed::left_out::left_out;
use moorline_testbed::programs::distribution;
use tempfile::TempDir;

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
    let expected = [
        "armv7-unknown-linux-musleabihf/smallest",
        "aarch64-unknown-linux-musl/smallest",
        "x86_64-unknown-linux-musl/smallest",
    ];
    assert_eq!(agents(&["--flavour", "smallest"])?, expected);
    Ok(())
}

#[test]
fn toolchain_is_asked_first_for_what_it_has() -> Result<(), Failure> {
    let toolchain = TempDir::new()?;
    let rustlib = toolchain.path().join("lib/rustlib");
    let roads = || -> Result<Vec<String>, Failure> {
        let listed = Command::new(source("packaging/build"))
            .args(["--list", "armv7-unknown-linux-gnueabihf", "armv7-unknown-linux-musleabihf"])
            .env("PATH", format!("{}:/usr/bin:/bin", source("tests/toolchain").display()))
            .env("TOOLCHAIN", toolchain.path())
            .output()?;
        Ok(said(&listed).lines().filter_map(|line| line.rsplit(' ').next()).map(str::to_owned).collect())
    };
    // In the list's order: glibc; musl, standard and smallest.
    assert_eq!(roads()?, ["distribution", "distribution", "distribution"]);
    let target = rustlib.join("armv7-unknown-linux-gnueabihf/lib");
    fs::create_dir_all(&target)?;
    fs::write(target.join("libstd-0123456789abcdef.rlib"), "")?;
    assert_eq!(roads()?, ["prebuilt", "distribution", "distribution"]);
    let library = rustlib.join("src/rust/library");
    fs::create_dir_all(&library)?;
    fs::write(library.join("Cargo.lock"), "")?;
    assert_eq!(roads()?, ["prebuilt", "source", "source"]);
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

#[test]
fn every_agent_has_a_promised_size() -> Result<(), Failure> {
    let promised: Vec<_> = promises()?.into_iter().map(|(agent, _)| agent).collect();
    assert_eq!(promised, agents(&[])?);
    Ok(())
}

#[test]
#[ignore = "needs what packaging/build makes"]
fn agents_keep_their_promised_sizes() -> Result<(), Failure> {
    for (agent, promise) in promises()? {
        let size = fs::metadata(distribution().join(&agent).join("moorline-agent"))?.len();
        assert!(size <= promise, "{agent} has {size} bytes, which is more than {promise}");
    }
    Ok(())
}

#[test]
#[ignore = "needs what packaging/build makes"]
fn panic_of_a_standard_agent_says_where() -> Result<(), Failure> {
    for agent in agents(&[])? {
        let program = fs::read(distribution().join(&agent).join("moorline-agent"))?;
        let holds = |text: &str| program.windows(text.len()).any(|bytes| bytes == text.as_bytes());
        // The words of the message, and the name of a file that it may name.
        let says = holds("panicked at ") && holds("agent/src/uplink.rs");
        assert_eq!(says, agent.ends_with("/standard"), "{agent}");
    }
    Ok(())
}

/// What runs here is measured here; those of other machines in guests, by `guest_memory.rs`.
#[test]
#[ignore = "needs what packaging/build makes"]
fn smallest_agent_of_a_pc_holds_little_memory() -> Result<(), Failure> {
    if !cfg!(target_arch = "x86_64") {
        left_out("the memory of x86_64-unknown-linux-musl/smallest: this is another machine");
        return Ok(());
    }
    let agent = distribution().join("x86_64-unknown-linux-musl/smallest/moorline-agent");
    let footprint = Footprint::of_an_agent(&agent)?;
    println!("{footprint:?}");
    assert!(footprint.pss_kib <= 1126, "{footprint:?} is more than 1.1 MiB");
    Ok(())
}

#[test]
fn procd_starts_the_agent_once_it_is_configured() -> Result<(), Failure> {
    let script = source("packaging/openwrt/moorline-agent/files/moorline-agent.init");
    let folder = TempDir::new()?;
    let place = folder.path().display();
    let start = || -> Result<String, Failure> {
        let service = Command::new("sh").args(["-euc", PROCD]).arg(&script).arg(folder.path()).output()?;
        Ok(said(&service))
    };
    assert_eq!(start()?, "");
    fs::write(folder.path().join("agent.toml"), "")?;
    let told = start()?;
    for parameter in [
        format!("command /usr/bin/moorline-agent -c {place}/agent.toml"),
        format!("env STATE_DIRECTORY={place}/state RUNTIME_DIRECTORY={place}/run"),
        "respawn 3600 5 0".to_owned(),
        "reload_signal HUP".to_owned(),
    ] {
        assert!(told.lines().any(|line| line == parameter), "{parameter}\nis not in\n{told}");
    }
    assert_eq!(fs::metadata(folder.path().join("state"))?.permissions().mode() & 0o777, 0o700);
    Ok(())
}

/// procd, which says what it is told. Arguments: the script, and a folder in place of the router's own.
const PROCD: &str = r#"
    procd_open_instance() { :; }
    procd_close_instance() { :; }
    procd_set_param() { echo "$*"; }
    . "$0"
    CONFIG=$1/agent.toml STATE=$1/state RUNTIME=$1/run
    start_service
"#;

/// The agents and their sizes in bytes that SPECIFICATION.md promises, in its order.
fn promises() -> Result<Vec<(String, u64)>, Failure> {
    let specification = fs::read_to_string(source("SPECIFICATION.md"))?;
    specification
        .lines()
        .skip_while(|line| !line.starts_with("| the agent's program |"))
        // The head's two lines.
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(promise)
        .collect()
}

/// One of them, from its row: `| agent | what it is | measured | at most a promise |`.
fn promise(row: &str) -> Result<(String, u64), Failure> {
    let parts: Vec<_> = row.split('|').map(str::trim).collect();
    let [_, agent, _, _, promise, _] = parts.as_slice() else {
        return Err(Failure::new(format!("{row}: a row has four parts")));
    };
    let bytes = promise.trim_start_matches("at most ").replace(',', "");
    Ok((agent.trim_matches('`').to_owned(), bytes.parse()?))
}

/// The agents that the build lists, as TRIPLE/FLAVOUR.
fn agents(options: &[&str]) -> Result<Vec<String>, Failure> {
    let listed = said(&build(&[&["--list"], options].concat())?);
    let words = listed.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    Ok(words.filter_map(|words| Some(words.get(..2)?.join("/"))).collect())
}

/// The targets that the build lists.
fn targets() -> Result<BTreeSet<String>, Failure> {
    let agents = agents(&[])?;
    let targets: BTreeSet<_> =
        agents.iter().filter_map(|agent| Some(agent.split_once('/')?.0.to_owned())).collect();
    assert!(targets.len() >= 5, "{agents:?}");
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
