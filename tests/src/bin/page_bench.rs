//! `moorline-page-bench`: how soon the operators' page is there when the server knows a large fleet, as a table.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use moorline_testbed::browser::Browser;
use moorline_testbed::failure::Failure;
use moorline_testbed::rig::{Rig, Server};
use moorline_testbed::stored_fleet;

/// Stores a fleet, starts a server on it, and asks for pages as a browser does. Build it with --release.
#[derive(Parser)]
struct Arguments {
    /// Devices that the server knows
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(200..=999_999))]
    devices: u64,
    /// How often each page is asked for
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    times: u64,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure:?}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let rig = Rig::new()?;
    let database = rig.folder().join("fleet.db");
    stored_fleet::store(&database, arguments.devices)?;
    let server = rig.server()?.set("store.path", database.display()).start()?;
    let last = stored_fleet::imei(arguments.devices - 60)?;
    println!("{} devices, each page {} times\n", arguments.devices, arguments.times);
    println!("{:44} {:>8} {:>9} {:>9} {:>9}", "", "KiB", "least", "median", "most");
    for (what, path) in [
        ("first page", "/".to_owned()),
        ("last page", format!("/?after={last}")),
        ("search that finds a tenth", "/?search=crane".to_owned()),
        ("search that finds nothing", "/?search=nothing+like+it".to_owned()),
        ("search by digits", "/?search=499901".to_owned()),
        ("blocked", "/?state=blocked".to_owned()),
        ("weak signal, one version", "/?signal_below=-100&agent_version=0.2.0".to_owned()),
        ("last page of a filter", format!("/?protocol=native&after={last}")),
        ("one device", format!("/devices/{last}")),
    ] {
        let (bytes, mut times) = ask(&server, &path, arguments.times)?;
        times.sort_unstable();
        let [least, median, most] = [0, times.len() / 2, times.len() - 1].map(|place| shown(times[place]));
        println!("{what:44} {:>8.1} {least:>9} {median:>9} {most:>9}", bytes as f64 / 1024.0);
    }
    let Some(mut browser) = Browser::start()? else { return Ok(()) };
    println!("\nfirst page in Chromium, from the click on:");
    for (what, expression) in [
        ("first byte", "performance.getEntriesByType('navigation')[0].responseStart"),
        ("last byte", "performance.getEntriesByType('navigation')[0].responseEnd"),
        ("shown", "performance.getEntriesByName('first-contentful-paint')[0].startTime"),
    ] {
        let mut times = Vec::new();
        for _ in 0..arguments.times.min(10) {
            browser.open(&server.operators().url("/"))?;
            browser.wait_until("performance.getEntriesByName('first-contentful-paint').length > 0")?;
            times.push(browser.value(expression)?.as_f64().unwrap_or_default());
        }
        times.sort_unstable_by(f64::total_cmp);
        println!(
            "{what:44} {:>8} {:>6.1} ms {:>6.1} ms {:>6.1} ms",
            "",
            times[0],
            times[times.len() / 2],
            times[times.len() - 1]
        );
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "how long it takes is the question")]
fn ask(server: &Server, path: &str, times: u64) -> Result<(usize, Vec<Duration>), Failure> {
    let mut taken = Vec::new();
    let mut bytes = 0;
    for _ in 0..times {
        let begin = Instant::now();
        bytes = server.operators().text(path)?.len();
        taken.push(begin.elapsed());
    }
    Ok((bytes, taken))
}

fn shown(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
