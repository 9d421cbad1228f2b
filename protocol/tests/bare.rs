//! That the crate runs where there is no operating system and no allocator. The way of a microcontroller's build, which
//! needs that target installed, is `cargo build -p moorline-protocol --target thumbv7em-none-eabi`; this needs nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// `#![no_std]` leaves `core` alone to be named; only `extern crate` could bring the others back.
#[test]
#[cfg_attr(miri, ignore = "it reads sources and starts cargo, which Miri cannot")]
fn sources_link_neither_std_nor_alloc() {
    let sources = sources();
    let links = sources.iter().flat_map(|file| {
        let text = fs::read_to_string(file).expect("a readable source");
        text.lines().filter(|line| line.contains("extern crate")).map(str::to_owned).collect::<Vec<_>>()
    });
    assert_eq!(links.collect::<Vec<_>>(), ["extern crate std;"], "the one of the unit tests");
    let contents = fs::read_to_string(source_dir().join("lib.rs")).expect("a readable source");
    assert!(contents.contains("\n#![no_std]\n"));
    assert!(contents.contains("\n#[cfg(test)]\nextern crate std;\n"));
}

/// Built alone, that is: in the workspace the programs switch their own features on.
#[test]
#[cfg_attr(miri, ignore = "it reads sources and starts cargo, which Miri cannot")]
fn dependencies_are_built_without_std_and_alloc() {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = Command::new(cargo)
        .args(["tree", "--offline", "--locked", "--package", "moorline-protocol"])
        .args(["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p} [{f}]"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo");
    let tree = String::from_utf8(tree.stdout).expect("UTF-8");
    assert!(tree.contains("postcard v"), "{tree}");
    for line in tree.lines() {
        let features = line.rsplit_once('[').map_or("", |(_, features)| features.trim_end_matches(']'));
        let hosted = features.split(',').find(|feature| matches!(*feature, "std" | "alloc" | "use-std"));
        assert_eq!(hosted, None, "{line}");
    }
}

fn source_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<PathBuf> {
    let entries = fs::read_dir(source_dir()).expect("the sources");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}
