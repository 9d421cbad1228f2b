//! What was measured, as a page with tables and pictures.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::picture::{Line, chart};
use super::{Floor, Growth, Kind, Machine, Return, Siege, Soak, Start, Step, Storm, Turns};
use crate::failure::Failure;

/// See the module.
#[derive(Default)]
pub struct Report {
    /// What TLS alone costs.
    pub floor: Option<Floor>,
    /// One for each server.
    pub growths: Vec<Growth>,
    /// Heartbeats of two servers in turns.
    pub turns: Option<Turns>,
    /// Storms beside standing sessions.
    pub storms: Vec<Storm>,
    /// Returns after a crash.
    pub returns: Vec<Return>,
    /// Honest devices beside hostile peers.
    pub sieges: Vec<Siege>,
    /// Servers over time.
    pub soaks: Vec<Soak>,
    /// Starts with known devices.
    pub starts: Vec<Start>,
}

const INTRODUCTION: &str = "\
# Benchmarks

The server beside what else one would run, tried in one run by the same devices. `cargo run --release -p moorline-testbed --bin
moorline-bench` makes this page and its pictures anew; with `--quick` it takes five minutes instead of twenty and writes them under
`target/bench`; `--only PART` tries one part and shows it.

What counts is a server's own processor time (user and kernel, from `/proc/PID/stat`) and its resident memory over what it holds
when nobody is there (`smaps_rollup`, after 20 devices had come and gone; Moorline with one arena for all threads, as its unit has it): others may use the machine meanwhile, so times by the
clock say less. Each server runs on one core and the devices on another. Each device has a certificate of its own, ECDSA P-256,
which the server requires; TLS 1.3, X25519 and, since the devices ask for it first,
TLS13_AES_128_GCM_SHA256. A handshake here is all that a device's arrival costs: accept, TLS, the
first message and its answer, and what the server notes of it. Moorline stores each arrival in SQLite and logs it, Mosquitto
logs it and stores nothing. `mosquitto` is CONNECT and PINGREQ over mutual TLS, with as many tickets as Moorline gives (one,
by OpenSSL's `NumTickets`); `python` is `tests/classic/server.py`, a thread for each device.
";

const REMARK: &str = "
Of an arrival most is TLS alone, and of the rest most is the kernel's: \"Where it goes\", below. A heartbeat is a
read, a write and a share of an `epoll_wait`; the write, with what the kernel does for the receiver in it, is half of it. Where more than
1,000 a second come, Moorline answers those of 2 ms together, which is seen in how soon they are answered.

";

const LIMITS: &str = "\
## What is not measured

- More than 19,000 sessions: a process may open 20,000 descriptors on the machine that this was made on.
- The kernel's memory: about 4 KB for each socket, the same for every server.
- A network: all of it is loopback, whose segments are 64 KB, so nothing is lost and nothing waits for a round trip.
- EMQX, NanoMQ, VerneMQ: Debian has no package of them.
- ARM: there is no hardware here, and what QEMU makes of it says nothing of time.
";

impl Report {
    /// Writes the page to `page` and its pictures beside it.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write(&self, page: &Path, machine: &Machine) -> Result<(), Failure> {
        let folder = page.parent().unwrap_or_else(|| Path::new("."));
        fs::create_dir_all(folder)?;
        fs::write(folder.join("benchmark-memory.svg"), self.memory_picture())?;
        fs::write(folder.join("benchmark-handshakes.svg"), self.handshake_picture())?;
        Ok(fs::write(page, self.page(machine))?)
    }

    /// The page.
    #[must_use]
    pub fn page(&self, machine: &Machine) -> String {
        let mut page = format!("{INTRODUCTION}\n{machine}\n");
        self.aims(&mut page);
        self.growth_tables(&mut page);
        self.turns_table(&mut page);
        self.storm_tables(&mut page);
        self.sieges.iter().for_each(|siege| siege.table(&mut page));
        self.soaks.iter().for_each(|soak| soak.table(&mut page));
        self.start_table(&mut page);
        page.push_str(LIMITS);
        page
    }

    /// What the server is to come to with the most sessions that were tried, and whether it does.
    fn aims(&self, page: &mut String) {
        let last = |kind| self.growths.iter().find(|growth| growth.kind == kind)?.steps.last();
        let resumed = |growth: &Growth| growth.resumed.map(|time| time.as_secs_f64());
        let kinds = [Kind::Moorline { sessions: 0 }, Kind::Moorline { sessions: 20_000 }];
        let ([Some(bare), Some(ours)], Some(theirs)) =
            (kinds.map(last), last(Kind::Mosquitto { tickets: 1 }))
        else {
            return;
        };
        let our_resumed = self.growths.iter().find(|growth| growth.kind == kinds[1]).and_then(resumed);
        let resumed =
            self.mosquitto().and_then(resumed).zip(our_resumed).map_or(0.0, |(theirs, ours)| theirs / ours);
        let share = |of: fn(&Step) -> Duration| of(theirs).as_secs_f64() / of(ours).as_secs_f64();
        page.push_str("## What was aimed at\n\n| with the most sessions | aim | measured | |\n| --- | ---: | ---: | --- |\n");
        let turns = self.turns.iter().flat_map(|turns| &turns.costs).map(|(pace, [ours, theirs])| {
            let what =
                pace.map_or_else(|| "of as many as can be".to_owned(), |rate| format!("at {rate} a second"));
            (
                format!("a heartbeat {what}, in turns: of what it takes mosquitto"),
                false,
                0.7,
                ours.as_secs_f64() / theirs.as_secs_f64(),
            )
        });
        let grown = [
            ("bytes each, no tickets", false, 6_000.0, bare.bytes_each as f64),
            ("bytes each, 1 ticket", false, 7_200.0, ours.bytes_each as f64),
            ("full handshakes: times what mosquitto does", true, 3.5, share(|step| step.handshake)),
            ("resumed ones", true, 4.0, resumed),
        ];
        let grown = grown.map(|(what, at_least, aim, measured)| (what.to_owned(), at_least, aim, measured));
        for (what, at_least, aim, measured) in grown.into_iter().chain(turns) {
            let (bound, reached) =
                if at_least { ("at least", measured >= aim) } else { ("at most", measured <= aim) };
            let digits = if aim < 100.0 { 2 } else { 0 };
            let reached = if reached { "reached" } else { "missed" };
            let _ = writeln!(page, "| {what} | {bound} {aim:.digits$} | {measured:.digits$} | {reached} |");
        }
        page.push_str(REMARK);
    }

    fn growth_tables(&self, page: &mut String) {
        page.push_str(
            "## Memory\n\nResident bytes for each idle session, all in: TLS, session, registry, timers, what the store holds.\n\n\
             | server | sessions | bytes each | mosquitto: times as much |\n| --- | ---: | ---: | ---: |\n",
        );
        for (growth, step) in self.steps() {
            let ratio = self.ratio(step, |step| step.bytes_each as f64);
            let _ = writeln!(
                page,
                "| {} | {} | {} | {ratio} |",
                growth.kind.name(),
                step.sessions,
                step.bytes_each
            );
        }
        page.push_str("\n![Resident bytes for each session](benchmark-memory.svg)\n\n## Handshakes\n\n");
        page.push_str(
            "Processor time for each device that comes. \"A second\" is by the clock, with 64 on their way at a time and the\n\
             devices' own work on the other core, which is as much: it bounds what is seen there.\n\n\
             | server | up to sessions | full | a core, a second | mosquitto: times as much | by the clock |\n\
             | --- | ---: | ---: | ---: | ---: | ---: |\n",
        );
        for (growth, step) in self.steps() {
            let ratio = self.ratio(step, |step| step.handshake.as_secs_f64());
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} | {ratio} | {} |",
                growth.kind.name(),
                step.sessions,
                shown(step.handshake),
                per_second(step.handshake),
                step.per_second,
            );
        }
        page.push_str(
            "\n| server | resumed | a core, a second | mosquitto: times as much |\n| --- | ---: | ---: | ---: |\n",
        );
        let theirs = self.mosquitto().and_then(|growth| growth.resumed);
        for growth in &self.growths {
            let Some(resumed) = growth.resumed else { continue };
            let ratio = times(theirs.map(|theirs| theirs.as_secs_f64()), resumed.as_secs_f64());
            let name = growth.kind.name();
            let _ = writeln!(page, "| {name} | {} | {} | {ratio} |", shown(resumed), per_second(resumed));
        }
        self.breakdown(page);
        page.push_str(
            "\n![Processor time of a full handshake](benchmark-handshakes.svg)\n\n## Heartbeats\n\n\
             | server | sessions | a second | processor time each | for a million | mosquitto: times as much | answered in, median | 99 % |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        );
        for (growth, step) in self.steps() {
            let ratio = self.ratio(step, |step| step.heartbeat.as_secs_f64());
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} | {:.1} s | {ratio} | {} | {} |",
                growth.kind.name(),
                step.sessions,
                step.rate,
                shown(step.heartbeat),
                step.heartbeat.as_secs_f64() * 1e6,
                shown(step.beats.delays.per_mille(500)),
                shown(step.beats.delays.per_mille(990)),
            );
        }
        page.push_str(
            "\nAs many as there can be: all who came last send one, without a pause, and again when all are answered.\n\n\
             | server | sessions | a second | processor time each | for a million | mosquitto: times as much |\n\
             | --- | ---: | ---: | ---: | ---: | ---: |\n",
        );
        for (growth, step) in self.steps() {
            let ratio = self.ratio(step, |step| step.flat_out.as_secs_f64());
            let (sessions, rate, name) = (step.sessions, step.flat_out_rate, growth.kind.name());
            // Microseconds for one are seconds for a million.
            let each = step.flat_out.as_secs_f64() * 1e6;
            let _ = writeln!(page, "| {name} | {sessions} | {rate} | {each:.1} µs | {each:.1} s | {ratio} |");
        }
    }

    fn turns_table(&self, page: &mut String) {
        let Some(Turns { kinds: [one, other], sessions, rounds, costs }) = &self.turns else { return };
        let _ = write!(
            page,
            "\nIn turns: both servers stand at once, with {sessions} sessions each, and each has {rounds} turns, so that whatever else the \
             machine\ndoes meets both alike. Processor time of each heartbeat.\n\n\
             | a second | {} | {} | of it |\n| --- | ---: | ---: | ---: |\n",
            one.name(),
            other.name(),
        );
        for (pace, [one, other]) in costs {
            let pace = pace.map_or_else(|| "as many as can be".to_owned(), |rate| rate.to_string());
            let [one, other] = [one, other].map(|cost| cost.as_secs_f64() * 1e6);
            let _ = writeln!(page, "| {pace} | {one:.1} µs | {other:.1} µs | {:.2} |", one / other);
        }
    }

    /// Where a device's arrival goes.
    fn breakdown(&self, page: &mut String) {
        let Some(floor) = self.floor else { return };
        let _ = write!(
            page,
            "\nWhere it goes. TLS alone, which is cryptography for the most part, is the same handshake in memory: {} for a full one, {} for one \
             that is\nresumed. The rest of what is spent in user space is the server's own: what reads and writes sockets, tasks, the session, the \
             registry, the\nlog and the store. Mosquitto's TLS is OpenSSL's; what it alone costs was not measured.\n\n\
             | server | up to sessions | full | in the kernel | TLS alone | the rest |\n| --- | ---: | ---: | ---: | ---: | ---: |\n",
            shown(floor.full),
            shown(floor.resumed),
        );
        for (growth, step) in self.steps() {
            let (kernel, name) = (step.handshake_kernel, growth.kind.name());
            let user = step.handshake.saturating_sub(kernel);
            let (tls, rest) = match growth.kind {
                Kind::Moorline { .. } | Kind::Classic => {
                    (shown(floor.full), shown(user.saturating_sub(floor.full)))
                }
                Kind::Mosquitto { .. } | Kind::Python => {
                    ("?".to_owned(), format!("with TLS {}", shown(user)))
                }
            };
            let (sessions, whole, kernel) = (step.sessions, shown(step.handshake), shown(kernel));
            let _ = writeln!(page, "| {name} | {sessions} | {whole} | {kernel} | {tls} | {rest} |");
        }
    }

    fn storm_tables(&self, page: &mut String) {
        page.push_str(
            "\n## In a storm\n\nDevices that stand send 500 heartbeats a second while others come all at once.\n\n\
             | server | come | median, before | 99 % | median, meanwhile | 99 % | longest | sessions lost | all were in after |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        );
        for Storm { kind, before, during, arrival } in &self.storms {
            let [calm, late] = [before, during].map(|beats| beats.delays.per_mille(500));
            let [calm99, late99] = [before, during].map(|beats| beats.delays.per_mille(990));
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {:.1} s |",
                kind.name(),
                arrival.waits.len(),
                shown(calm),
                shown(calm99),
                shown(late),
                shown(late99),
                shown(during.delays.per_mille(1000)),
                during.lost,
                arrival.took.as_secs_f64(),
            );
        }
        page.push_str(
            "\n## After a crash\n\nThe server is killed and started again, and every device asks at once, without the agent's spreading of a\n\
             return and without tickets; whoever is sent away tries again 200 ms later.\n\
             An operator asks for a page of the fleet meanwhile, again and again.\n\n\
             | server | devices | median wait | longest | tries in vain | resident, then | at the most | pages, median | longest |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        );
        for Return { kind, devices, arrival, usage, pages } in &self.returns {
            let page_in = |per_mille| {
                pages.as_ref().map_or_else(String::new, |times| shown(times.per_mille(per_mille)))
            };
            let _ = writeln!(
                page,
                "| {} | {devices} | {} | {} | {} | {:.1} MB | {:.1} MB | {} | {} |",
                kind.name(),
                shown(arrival.waits.per_mille(500)),
                shown(arrival.waits.per_mille(1000)),
                arrival.again,
                usage.resident as f64 / 1e6,
                usage.most_resident as f64 / 1e6,
                page_in(500),
                page_in(1000),
            );
        }
        page.push('\n');
    }

    fn start_table(&self, page: &mut String) {
        page.push_str("## Starting\n\n| devices known | events | until it listens | processor time | resident | database |\n| ---: | ---: | ---: | ---: | ---: | ---: |\n");
        for Start { known, events, database, took, usage } in &self.starts {
            let _ = writeln!(
                page,
                "| {known} | {events} | {} | {} | {:.1} MB | {:.1} MB |",
                shown(*took),
                shown(usage.processor),
                usage.resident as f64 / 1e6,
                *database as f64 / 1e6,
            );
        }
        page.push('\n');
    }

    fn steps(&self) -> impl Iterator<Item = (&Growth, &Step)> {
        self.growths.iter().flat_map(|growth| growth.steps.iter().map(move |step| (growth, step)))
    }

    /// The peer with as many tickets.
    fn mosquitto(&self) -> Option<&Growth> {
        self.growths.iter().find(|growth| growth.kind == Kind::Mosquitto { tickets: 1 })
    }

    /// How many times as much the peer takes at as many sessions.
    fn ratio(&self, step: &Step, of: impl Fn(&Step) -> f64) -> String {
        let theirs = self
            .mosquitto()
            .and_then(|peer| peer.steps.iter().find(|theirs| theirs.sessions == step.sessions));
        times(theirs.map(&of), of(step))
    }

    fn memory_picture(&self) -> String {
        let lines = self.lines(|step| step.bytes_each as f64 * step.sessions as f64 / 1e6);
        chart("Resident memory over an empty server's", "MB", &lines)
    }

    fn handshake_picture(&self) -> String {
        let lines = self.lines(|step| step.handshake.as_secs_f64() * 1e6);
        chart("Processor time of a device's arrival, full handshake", "microseconds", &lines)
    }

    fn lines(&self, of: impl Fn(&Step) -> f64) -> Vec<Line> {
        let points =
            |growth: &Growth| growth.steps.iter().map(|step| (step.sessions as f64, of(step))).collect();
        self.growths.iter().map(|growth| (growth.kind.name(), points(growth))).collect()
    }
}

fn times(theirs: Option<f64>, ours: f64) -> String {
    match theirs {
        Some(theirs) if ours > 0.0 => format!("{:.2}", theirs / ours),
        _ => "not measured".to_owned(),
    }
}

pub(super) fn shown(time: Duration) -> String {
    match time.as_micros() {
        // The kernel counts in ticks of 10 ms.
        0 => "under 10 ms".to_owned(),
        1..10_000 => format!("{} µs", time.as_micros()),
        10_000..10_000_000 => format!("{} ms", time.as_millis()),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

fn per_second(each: Duration) -> u64 {
    (1.0 / each.as_secs_f64().max(1e-9)) as u64
}
