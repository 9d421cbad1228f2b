//! The agent and what it may ask of the network: bounds that hold over restarts, and what is said of them.

use std::fs;

use moorline_testbed::failure::Failure;
use moorline_testbed::relay::Relay;
use moorline_testbed::rig::{Agent, IMEI, Rig, free_address};
use rustix::process::Signal;

/// Three of four attempts are near the bound, so the fourth has half of the hour for itself.
#[test]
fn attempts_that_are_spent_stay_spent_over_restarts() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut agent = rig.agent(free_address()?, IMEI)?.set_number("budget.attempts_per_hour", 4).start()?;
    agent.wait_for("budget: 3 of 4 attempts this hour")?;
    agent.wait_for("for budget.attempts_per_hour")?;
    assert_eq!(attempts(&agent), 3);
    agent.stop()?;
    agent.start_again()?;
    agent.wait_for("for budget.attempts_per_hour")?;
    agent.kill()?;
    agent.start_again()?;
    agent.wait_for("for budget.attempts_per_hour")?;
    assert_eq!(attempts(&agent), 0);
    assert!(!agent.said("3 of 4"), "told once: {:#?}", agent.lines());
    let status = fs::read_to_string(agent.folder().join("status"))?;
    assert!(status.contains("\nbudget   3 of 4 attempts this hour; 3 attempts this day; "), "{status}");
    agent.stop()
}

#[test]
fn killed_again_and_again_it_gets_nothing_back() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut agent = rig.agent(free_address()?, IMEI)?.set_number("budget.attempts_per_hour", 6).start()?;
    let mut made = 0;
    for _ in 0..8 {
        agent.wait_for("next try in")?;
        agent.kill()?;
        made += attempts(&agent);
        agent.start_again()?;
    }
    assert!((3..=6).contains(&made), "{made}");
    agent.wait_for("for budget.attempts_per_hour")?;
    agent.stop()
}

#[test]
fn bytes_are_shown_by_what_they_were_for() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let relay = Relay::start(server.devices());
    let mut agent = rig.agent(relay.address(), IMEI)?.start()?;
    agent.wait_for("registered")?;
    relay.cut();
    agent.wait_for("registered")?;
    agent.stop()?;
    let status = fs::read_to_string(agent.folder().join("status"))?;
    let line = status.lines().find(|line| line.starts_with("traffic  "));
    let line = line.ok_or_else(|| Failure::new(status.clone()))?;
    for part in
        ["full handshakes ", "resumed handshakes ", "time ", "other ", "in all ", "headers by estimate"]
    {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
    Ok(())
}

#[test]
fn spent_month_keeps_the_session_or_ends_it() -> Result<(), Failure> {
    for (spent, words) in
        [("trickle", "a lost session is tried again every 6 h only"), ("stop", "nothing is sent any more")]
    {
        let rig = Rig::new()?;
        let server = rig.server()?.start()?;
        let setup = rig.agent(server.devices(), IMEI)?;
        let mut agent = setup.set("budget.bytes_per_month", "1 GB").set("budget.spent", spent).start()?;
        agent.wait_for("registered")?;
        agent.stop()?;
        spend(&agent, 600_000, 10)?;
        agent.start_again()?;
        agent.wait_for("registered")?;
        bound(&agent, "500 kB")?;
        agent.wait_for(words)?;
        if spent == "stop" {
            agent.wait_for("for budget.bytes_per_month")?;
            server.operators().wait_online(IMEI, false)?;
            let events = server
                .operators()
                .wait_events(IMEI, &["online", "offline", "online", "budget", "offline"])?;
            let told = events.last().and_then(|event| event["text"].as_str());
            assert_eq!(told, Some("it said goodbye, as its month's bytes are spent or nearly so"));
        } else {
            server.operators().wait_online(IMEI, true)?;
            assert!(!agent.said("offline: next try"), "{:#?}", agent.lines());
        }
        agent.stop()?;
    }
    Ok(())
}

/// Whether a session stands by then or has to end, the server is told once that the bytes are spent, and once that they are free
/// again when the month is over.
#[test]
fn server_is_told_once_that_the_month_is_spent_and_once_that_it_is_over() -> Result<(), Failure> {
    for (spent, kinds) in [
        ("trickle", &["online", "offline", "online", "budget", "budget"][..]),
        ("stop", &["online", "offline", "online", "budget", "offline", "online", "budget"]),
    ] {
        let rig = Rig::new()?;
        let server = rig.server()?.start()?;
        let setup = rig.agent(server.devices(), IMEI)?;
        let mut agent = setup.set("budget.bytes_per_month", "1 GB").set("budget.spent", spent).start()?;
        agent.wait_for("registered")?;
        agent.stop()?;
        spend(&agent, 600_000, 20)?;
        agent.start_again()?;
        agent.wait_for("registered")?;
        let path = format!("/api/devices/{IMEI}");
        let free = server.operators().wait_until(&path, "what was used", |device| {
            let month = &device["usage"]["bytes_per_month"];
            (month["used"].as_u64()? >= 600_000).then(|| month.clone())
        })?;
        assert_eq!((&free["limit"], &free["level"]), (&1_000_000_000.into(), &"free".into()));
        bound(&agent, "500 kB")?;
        let events = server.operators().wait_events(IMEI, kinds)?;
        let told: Vec<_> = events.iter().filter(|event| event["kind"] == "budget").collect();
        let causes = told.iter().map(|event| event["cause"].as_str());
        assert!(causes.eq([Some("bytes_per_month_spent"), Some("bytes_per_month_free")]), "{told:#?}");
        let text = told[0]["text"].as_str().unwrap_or_default();
        assert!(text.starts_with("its bytes of 30 days are spent: 60"), "{text}");
        assert!(text.contains(" kB of 500 kB, for another "), "{text}");
        let month = server.operators().json(&path)?["usage"]["bytes_per_month"].clone();
        assert_eq!(month["level"], "free", "{month}");
        agent.stop()?;
        assert_eq!(server.operators().wait_events(IMEI, &["offline"])?.len(), kinds.len() + 1);
    }
    Ok(())
}

#[test]
fn server_is_told_of_attempts_that_are_nearly_spent() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let relay = Relay::start(server.devices());
    let mut agent = rig.agent(relay.address(), IMEI)?.set_number("budget.attempts_per_hour", 4).start()?;
    for _ in 0..2 {
        agent.wait_for("registered")?;
        relay.cut();
    }
    agent.wait_for("registered")?;
    let events = server.operators().wait_events(IMEI, &["budget"])?;
    let told = events.last().map(|event| (event["cause"].as_str(), event["text"].as_str()));
    let (Some("attempts_per_hour_near"), Some(text)) = told.ok_or_else(|| Failure::new("no event"))? else {
        return Err(Failure::new(format!("{events:#?}")));
    };
    assert!(
        text.starts_with("its connection attempts of an hour are nearly spent: 3 of 4, for another "),
        "{text}"
    );
    agent.stop()
}

/// Ten seconds before its month is over, a device whose heartbeats are fixed has used most of its bytes.
#[test]
fn month_near_its_bound_has_rare_heartbeats_until_it_is_over() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    agent.wait_for("heartbeat 1 s")?;
    agent.stop()?;
    spend(&agent, 9_000_000, 10)?;
    agent.start_again()?;
    agent.wait_for("budget: 9 MB of 10 MB in these 30 days")?;
    agent.wait_for("heartbeat 29m")?;
    agent.wait_for("budget: 30 days are over: ")?;
    agent.wait_for("heartbeat 1 s")?;
    agent.stop()
}

#[test]
fn budget_that_is_garbage_is_begun_anew() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let mut agent = rig.agent(server.devices(), IMEI)?.start()?;
    agent.wait_for("registered")?;
    agent.stop()?;
    fs::write(agent.folder().join("state/budget"), b"\0\xff 12 \n")?;
    agent.start_again()?;
    agent.wait_for("registered")?;
    agent.stop()
}

fn attempts(agent: &Agent) -> usize {
    agent.lines().iter().filter(|line| line.contains("-> connecting to ")).count()
}

/// Has the agent read a configuration with this bound anew, which has been a gigabyte.
fn bound(agent: &Agent, bytes_per_month: &str) -> Result<(), Failure> {
    let config = agent.folder().join("config.toml");
    fs::write(&config, fs::read_to_string(&config)?.replace("1 GB", bytes_per_month))?;
    agent.signal(Signal::HUP)
}

/// Has the month's bytes be so many, and the month end in so many seconds, when the agent, which was stopped, starts again.
fn spend(agent: &Agent, bytes: u64, seconds: u64) -> Result<(), Failure> {
    // Boot and time; version; hour and day, each with what was told of it; then the month's seconds and bytes.
    const MONTH: usize = 2 + 1 + 3 + 3;
    const SECONDS: u64 = 30 * 24 * 3600;
    let file = agent.folder().join("state/budget");
    let kept = fs::read_to_string(&file)?;
    let mut words: Vec<_> = kept.split_whitespace().map(str::to_owned).collect();
    words[MONTH] = (SECONDS - seconds).to_string();
    words[MONTH + 1] = bytes.to_string();
    Ok(fs::write(file, words.join(" "))?)
}
