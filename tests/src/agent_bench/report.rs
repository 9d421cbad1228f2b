//! What was measured, as a page with a table and a picture.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::Figures;
use super::picture::{Panel, draw};
use crate::bench::Machine;
use crate::failure::Failure;
use crate::upkeep::Upkeep;

const INTRODUCTION: &str = "\
# The agent beside others

What it costs a device to keep one mutually authenticated session up: Moorline's agent, and what one would take in its place, all
in one run on one machine.

```sh
apt install mosquitto-clients stunnel4 python3 strace gcc libc6-dev
cargo run --release -p moorline-testbed --bin moorline-agent-bench     # twenty minutes; with --quick fourteen, into target/bench
```

It builds the agent as `packaging/build` does, says what is missing, and writes this page and its picture. All clients speak TLS 1.3
with ECDSA P-256 certificates of one CA, each with one of its own, over loopback, through a relay that counts; the servers are
Moorline's own and Eclipse Mosquitto's, release builds.
";

const HOW: &str = "\
## How it is measured

- **Memory**: `/proc/PID/smaps_rollup` of the client by itself, after fourteen heartbeats. It has copies of its libraries, the C library
  aside, so that none is shared with a broker that runs beside it: Pss is then what it would take of a device where nothing else
  needs them. Private is what no other process has.
- **Files**: all that is mapped to be run, the program and its libraries; of Python without the modules that it reads and does not map.
- **Wake-ups**: `voluntary_ctxt_switches` of all of a client's threads, while all of them run side by side, from one quiet moment to
  another. Two of a heartbeat's are its own: it is due, and its answer comes. The rest are between heartbeats. The agent runs without
  systemd's watchdog here; under its unit that adds one in half of `WatchdogSec`.
  The agent keeps its counters on disk when it is one minute old, two, four and so on, and every six hours in the end; by this count the
  waits for the disk are wake-ups. Four and a half minutes pass before it is counted, so none is among these. `--test agent_upkeep`
  asserts the 2 of a heartbeat.
- **System calls**: by `strace -f`, the wait included, in four heartbeats, once fourteen have passed. What the agent writes of its
  counters is 8 calls each time.
- **Heap**: a library over `malloc` (`tests/src/agent_bench/heap.c`) counts allocations in four heartbeats and the most that was live
  since the start. Python gets most of its objects from an allocator of its own, which takes whole arenas, and is not seen.
- **Bytes**: TCP payload at the relay, both ways. Connecting is all from the start to the first quiet moment, before a heartbeat: TLS
  with the tickets, and what each says then: Hello, Welcome and the time; CONNECT and SUBSCRIBE; REGISTER, with Python a heartbeat and
  the time. A heartbeat is the mean of fourteen, in one of which Python asks for the time.
";

const LIMITS: &str = "\
## What is not measured

- The heap of the smallest agent: it is static, so nothing can be laid over its `malloc`. Its code is the standard agent's, less TLS
  1.2 and the public roots; `--test budget` counts its 2 allocations for each heartbeat in process, `--test agent_heap` its peak.
- The plain program that pings through stunnel, which is a thread of the benchmark: stunnel's own figures are all that is shown, and a
  device would have both.
- ARM: the peers run there as well, but there is no board here, and QEMU's user mode says nothing of memory. What the agent holds on a
  board that QEMU boots is in [SPECIFICATION.md](../SPECIFICATION.md).
- Energy and a radio: wake-ups and bytes stand for them. What bytes cost on a line with headers is in [README.md](../README.md).
- Reconnecting: mosquitto_sub 2.0.11 and Python's plain client begin each time with a full handshake.
";

/// Writes the page to `page` and its picture beside it.
///
/// # Errors
/// They cannot be written.
pub fn write(
    page: &Path,
    machine: &Machine,
    figures: &[Figures],
    upkeeps: &[Upkeep],
    every: Duration,
) -> Result<String, Failure> {
    let folder = page.parent().unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(folder)?;
    fs::write(folder.join("benchmark-agent.svg"), picture(figures, upkeeps, every))?;
    let text = text(machine, figures, upkeeps, every);
    fs::write(page, &text)?;
    Ok(text)
}

fn text(machine: &Machine, figures: &[Figures], upkeeps: &[Upkeep], every: Duration) -> String {
    let mut page = format!("{INTRODUCTION}\n{machine}\n");
    page.push_str("| client | version | settings |\n| --- | --- | --- |\n");
    for Figures { kind, .. } in figures {
        let _ = writeln!(page, "| {} | {} | {} |", kind.name(), kind.version(), kind.settings());
    }
    page.push_str("\n## Figures\n\n");
    table(&mut page, figures, &rows(upkeeps, every), Cell::shown);
    page.push_str("\n## As ratios\n\nTimes as much as the smallest agent, the first column.\n\n");
    table(&mut page, figures, &rows(upkeeps, every), Cell::ratio);
    let minutes = every.as_secs() * upkeeps.first().map_or(0, |upkeep| upkeep.beats) / 60;
    let _ = writeln!(
        page,
        "\nWake-ups are of {minutes} minutes, a heartbeat every {} s; all else of one every 5 s.",
        every.as_secs()
    );
    let _ = write!(page, "\n![The agent beside others](benchmark-agent.svg)\n\n{HOW}\n{LIMITS}");
    page
}

/// A figure of a client, which is at this place among all of them.
type Of<'r> = Box<dyn Fn(&Figures, usize) -> Option<f64> + 'r>;

/// A row of the table: what it is, and its figure of a client with its number.
struct Row<'r> {
    name: String,
    of: Of<'r>,
    digits: usize,
}

fn rows<'r>(upkeeps: &'r [Upkeep], every: Duration) -> Vec<Row<'r>> {
    let row = |name: &str, digits, of: Of<'r>| Row { name: name.to_owned(), of, digits };
    let woken = move |at: usize| upkeeps.get(at).map(|upkeep| upkeep.wake_ups as f64 / upkeep.beats as f64);
    let seconds = every.as_secs();
    vec![
        row("program, KiB", 0, Box::new(|figures, _| Some(figures.program as f64 / 1024.0))),
        row("with its libraries, KiB", 0, Box::new(|figures, _| Some(figures.files as f64 / 1024.0))),
        row("Pss, KiB", 0, Box::new(|figures, _| Some(figures.footprint.pss_kib as f64))),
        row("private, KiB", 0, Box::new(|figures, _| Some(figures.footprint.private_kib as f64))),
        row("of it no file's, KiB", 0, Box::new(|figures, _| Some(figures.footprint.anonymous_kib as f64))),
        row(&format!("wake-ups in {seconds} s, a heartbeat's included"), 1, Box::new(move |_, at| woken(at))),
        row(
            "of them between heartbeats",
            1,
            Box::new(move |_, at| woken(at).map(|woken| (woken - 2.0).max(0.0))),
        ),
        row("system calls for a heartbeat", 1, Box::new(|figures, _| figures.calls)),
        row("heap allocations for a heartbeat", 1, Box::new(|figures, _| Some(figures.heap?.0))),
        row("heap at its peak, KiB", 1, Box::new(|figures, _| Some(figures.heap?.1 as f64 / 1024.0))),
        row("bytes for a heartbeat", 0, Box::new(|figures, _| Some(figures.heartbeat.sum() as f64))),
        row("bytes for connecting, up", 0, Box::new(|figures, _| Some(figures.connecting.up as f64))),
        row("bytes for connecting, down", 0, Box::new(|figures, _| Some(figures.connecting.down as f64))),
    ]
}

/// One figure beside the smallest agent's.
struct Cell {
    value: f64,
    smallest: Option<f64>,
    digits: usize,
}

impl Cell {
    fn shown(&self) -> String {
        format!("{:.*}", self.digits, self.value)
    }

    fn ratio(&self) -> String {
        match self.smallest {
            Some(smallest) if smallest > 0.0 => format!("{:.1}", self.value / smallest),
            _ => "–".to_owned(),
        }
    }
}

fn table(page: &mut String, figures: &[Figures], rows: &[Row<'_>], show: fn(&Cell) -> String) {
    let _ =
        writeln!(page, "| | {} |", figures.iter().map(|of| of.kind.name()).collect::<Vec<_>>().join(" | "));
    let _ = writeln!(page, "| --- |{}", " ---: |".repeat(figures.len()));
    for row in rows {
        let smallest = figures.first().and_then(|figures| (row.of)(figures, 0));
        let cells = figures.iter().enumerate().map(|(at, of)| {
            let value = (row.of)(of, at);
            value.map_or_else(|| "–".to_owned(), |value| show(&Cell { value, smallest, digits: row.digits }))
        });
        let _ = writeln!(page, "| {} | {} |", row.name, cells.collect::<Vec<_>>().join(" | "));
    }
}

fn picture(figures: &[Figures], upkeeps: &[Upkeep], every: Duration) -> String {
    let rows = rows(upkeeps, every);
    let panels = [1, 2, 5, 7].map(|row| &rows[row]);
    let panels = panels.map(|row| Panel {
        title: row.name.clone(),
        digits: row.digits,
        bars: figures
            .iter()
            .enumerate()
            .filter_map(|(at, of)| Some((of.kind.name(), (row.of)(of, at)?)))
            .collect(),
    });
    draw(&panels)
}
