//! The list of what is in each shipped program, as `packaging/sbom` writes it: what is linked is in it with licence and checksum,
//! what tests need is not, and nothing in it tells of the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use moorline_testbed::failure::Failure;
use serde_json::Value;

const ARMV7: &str = "armv7-unknown-linux-musleabihf";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned()
}

fn written(arguments: &[&str]) -> Result<String, Failure> {
    let done = Command::new(root().join("packaging/sbom")).args(arguments).output()?;
    if !done.status.success() {
        return Err(Failure::new(String::from_utf8_lossy(&done.stderr)));
    }
    Ok(String::from_utf8(done.stdout)?)
}

fn bill(arguments: &[&str]) -> Result<Value, Failure> {
    Ok(serde_json::from_str(&written(arguments)?)?)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The components of this scope, by name.
fn named<'b>(bill: &'b Value, scope: &str) -> BTreeMap<&'b str, &'b Value> {
    let components = list(&bill["components"]).iter().filter(|one| one["scope"] == scope);
    components.filter_map(|one| Some((one["name"].as_str()?, one))).collect()
}

#[test]
fn linked_crates_are_named_and_those_of_the_build_and_the_tests_are_told_apart() -> Result<(), Failure> {
    let agent = bill(&["moorline-agent", "--target", ARMV7])?;
    let (linked, building) = (named(&agent, "required"), named(&agent, "excluded"));
    for name in
        ["rustls", "ring", "heapless", "postcard", "serialport", "moorline-protocol", "moorline-config"]
    {
        assert!(linked.contains_key(name), "{name} is linked");
    }
    assert!(building.contains_key("cc") && building.contains_key("serde_derive"), "{:?}", building.keys());
    let (linked_at_all, all) = (linked.len(), list(&agent["components"]).len());
    assert!(linked_at_all > 30 && linked_at_all + building.len() <= all, "{linked_at_all} of {all}");
    for name in ["proptest", "tokio", "moorline-server", "moorline-testbed", "webpki-roots", "libudev-sys"] {
        assert!(
            !linked.contains_key(name) && !building.contains_key(name),
            "{name} is nothing of the agent's"
        );
    }
    let standard = bill(&["moorline-agent", "--target", ARMV7, "--features", "tls12,webpki-roots"])?;
    assert!(named(&standard, "required").contains_key("webpki-roots"));
    Ok(())
}

#[test]
fn server_names_the_library_inside_a_crate() -> Result<(), Failure> {
    let server = bill(&["moorline-server"])?;
    let linked = named(&server, "required");
    assert!(linked.contains_key("tokio") && linked.contains_key("rusqlite") && !linked.contains_key("rcgen"));
    let sqlite = linked["sqlite"];
    assert!(sqlite["version"].as_str().is_some_and(|version| version.starts_with("3.")), "{sqlite}");
    assert!(named(&bill(&["moorline-certs"])?, "required").contains_key("rcgen"));
    Ok(())
}

/// What CycloneDX 1.5 asks of a document, and what we promise beyond: a licence and a package URL for each component, the
/// checksum of each archive as Cargo.lock has it, and whom each depends on.
#[test]
fn every_component_is_complete() -> Result<(), Failure> {
    let lock = fs::read_to_string(root().join("Cargo.lock"))?;
    for package in ["moorline-agent", "moorline-server", "moorline-certs"] {
        let bill = bill(&[package])?;
        assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
        let program = &bill["metadata"]["component"];
        assert_eq!((&program["type"], &program["name"]), (&"application".into(), &package.into()));
        let mut refs = BTreeSet::from([program["bom-ref"].as_str().unwrap_or_default()]);
        for one in list(&bill["components"]) {
            let text = |key: &str| one[key].as_str().unwrap_or_default();
            assert!(refs.insert(text("bom-ref")), "{one} stands there twice");
            assert_eq!(text("type"), "library");
            assert!(!text("version").is_empty() && text("purl").starts_with("pkg:"), "{one}");
            assert_eq!(list(&one["licenses"]).len(), 1, "{one}");
            let licence = one["licenses"][0].to_string();
            assert!(licence.len() > 10 && !licence.contains('/'), "{one}");
            let checksum = one["hashes"][0]["content"].as_str();
            match text("name") {
                "sqlite" | "moorline-protocol" | "moorline-config" => assert_eq!(checksum, None),
                name => {
                    let entry = format!("name = \"{name}\"\nversion = \"{}\"\n", text("version"));
                    let entry = lock.split("[[package]]\n").find(|found| found.starts_with(&entry));
                    let checksum = checksum.ok_or_else(|| Failure::new(format!("{name} has no checksum")))?;
                    assert!(entry.is_some_and(|entry| entry.contains(checksum)), "{name}");
                }
            }
        }
        let dependencies = list(&bill["dependencies"]);
        let depending: BTreeSet<_> = dependencies.iter().filter_map(|one| one["ref"].as_str()).collect();
        assert_eq!(depending, refs, "each component says whom it depends on");
        for other in dependencies.iter().flat_map(|one| list(&one["dependsOn"])) {
            assert!(other.as_str().is_some_and(|other| refs.contains(other)), "{other} is not listed");
        }
    }
    Ok(())
}

#[test]
fn same_sources_give_the_same_bytes_and_no_path() -> Result<(), Failure> {
    let text = written(&["moorline-server"])?;
    assert_eq!(text, written(&["moorline-server"])?);
    let root = root();
    for path in [root.to_str(), std::env::home_dir().as_deref().and_then(Path::to_str)].into_iter().flatten()
    {
        assert!(!text.contains(&format!("{path}/")), "{path}");
    }
    assert!(!text.contains("timestamp") && !text.contains("serialNumber"));
    Ok(())
}
