//! Runs a target with the stable compiler: every file of its corpus, then inputs made of them by a seed. What fails is made
//! smaller, kept, and shown with how to have it again.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Once;

use super::Target;
use super::mutate::{Dice, mutated};

/// How long, and from which seed.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// Other seeds give other inputs.
    pub seed: u64,
    /// So many inputs are made beside those of the corpus.
    pub runs: usize,
}

/// An input that a target fails on.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The target.
    pub target: &'static str,
    /// The input, made as small as was easy.
    pub input: Vec<u8>,
    /// How long it was before.
    pub length: usize,
    /// What the target said.
    pub fault: String,
    /// Where the input came from.
    pub origin: String,
}

impl Campaign {
    /// Runs a target over its corpus and over what is made of it. Tells how many inputs that were.
    ///
    /// # Errors
    /// The first input that it fails on.
    pub fn run(&self, target: &Target, corpus: &[(String, Vec<u8>)]) -> Result<usize, Box<Finding>> {
        for (name, input) in corpus {
            try_one(target, input, || format!("the corpus's {name}"))?;
        }
        let inputs: Vec<Vec<u8>> = corpus.iter().map(|(_, input)| input.clone()).collect();
        for run in 0..self.runs {
            // Each by a seed of its own, so that none hangs on how many were made before.
            let mut dice = Dice::new(self.seed ^ (run as u64).wrapping_mul(0x2545_f491_4f6c_dd1d));
            let input = mutated(&mut dice, &inputs, target.words, target.longest);
            try_one(target, &input, || format!("run {run} of the seed {}", self.seed))?;
        }
        Ok(corpus.len() + self.runs)
    }
}

/// A target's corpus: the files under `fuzz/corpus`, in the order of their names.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn corpus(target: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
    let folder = fuzz().join("corpus").join(target);
    let mut files =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    files.sort();
    files
        .into_iter()
        .map(|file| {
            Ok((file.file_name().unwrap_or_default().to_string_lossy().into_owned(), fs::read(file)?))
        })
        .collect()
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("fuzz")
}

fn try_one(target: &Target, input: &[u8], origin: impl FnOnce() -> String) -> Result<(), Box<Finding>> {
    let Some(_) = fault(target, input) else { return Ok(()) };
    let smaller = minimised(target, input);
    let fault = fault(target, &smaller).unwrap_or_else(|| "it fails only sometimes".to_owned());
    Err(Box::new(Finding {
        target: target.name,
        input: smaller,
        length: input.len(),
        fault,
        origin: origin(),
    }))
}

/// More tries are not worth their time.
const TRIES: usize = 2000;

/// Leaves away what can be left away, from large parts to single bytes.
fn minimised(target: &Target, input: &[u8]) -> Vec<u8> {
    let (mut smallest, mut tries) = (input.to_vec(), TRIES);
    let mut part = smallest.len().div_ceil(2);
    while part > 0 && tries > 0 {
        let mut at = 0;
        while at < smallest.len() && tries > 0 {
            let mut shorter = smallest.clone();
            shorter.drain(at..(at + part).min(shorter.len()));
            tries -= 1;
            if fault(target, &shorter).is_some() { smallest = shorter } else { at += part }
        }
        part /= 2;
    }
    smallest
}

thread_local! {
    /// This thread tries inputs: a panic is an answer, and not to be printed.
    static TRYING: Cell<bool> = const { Cell::new(false) };
    /// What it said, and where.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What a target says against an input.
fn fault(target: &Target, input: &[u8]) -> Option<String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(
            move |panic| {
                if TRYING.get() { SAID.set(panic.to_string()) } else { before(panic) }
            },
        ));
    });
    TRYING.set(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| target.run(input)));
    TRYING.set(false);
    outcome.is_err().then(|| SAID.take())
}

impl Finding {
    /// Keeps the input where cargo-fuzz keeps its own, and names the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&self) -> io::Result<PathBuf> {
        let folder = fuzz().join("artifacts").join(self.target);
        fs::create_dir_all(&folder)?;
        // FNV-1a: the same input, the same name.
        let mark = self.input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |mark, byte| {
            (mark ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
        let file = folder.join(format!("seeded-{mark:016x}"));
        fs::write(&file, &self.input)?;
        Ok(file)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, input, length, fault, origin } = self;
        writeln!(f, "{target} fails on {origin}: {fault}")?;
        write!(f, "the input, {} of {length} bytes: {}", input.len(), input.escape_ascii())
    }
}
