//! The server under more load than it can work off at once: everybody is served in the end, those who are there stay, and
//! nothing is left behind. The same with many thousand devices is `moorline-bench`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use moorline_testbed::failure::Failure;
use moorline_testbed::http::Operators;
use moorline_testbed::load::{Beats, Crowd, Entry, Hostile, Pool, Seen, Speech, Usage};
use moorline_testbed::rig::Rig;

/// What a debug build brings in within a few seconds.
const STORM: usize = 250;
const HONEST: usize = 100;

fn online(operators: Operators, count: usize) -> Result<(), Failure> {
    operators.wait_until("/api/devices?limit=1&online=true", &format!("{count} online"), |answer| {
        (answer["total"] == count).then_some(())
    })
}

fn expect_all_served(beats: &Beats) {
    assert_eq!(
        (beats.lost, beats.delays.len()),
        (0, beats.asked),
        "lost, and answered of those that were asked"
    );
}

#[test]
fn fleet_comes_back_at_once_to_a_server_that_was_killed() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let mut server = rig.server()?.start()?;
    let pool = Pool::new(rig.pki(), STORM as u32)?;
    let mut crowd = Crowd::new(&pool, 0..STORM, server.devices(), Speech::Native, false)?;
    crowd.arrive(Entry::in_turn())?;
    server.kill()?;
    // Everybody has to notice, or would not ask again.
    crowd.idle(Duration::from_millis(500))?;
    assert_eq!(crowd.up(), 0);
    server.start_again()?;

    let (operators, over, asked) = (server.operators(), AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                operators.json("/api/devices?limit=1")?;
                asked.fetch_add(1, Ordering::SeqCst);
            }
            Ok::<_, Failure>(())
        });
        let arrival = crowd.arrive(Entry::at_once());
        over.store(true, Ordering::SeqCst);
        asking.join().map_err(|_| Failure::new("the operator panicked"))??;
        assert_eq!(arrival?.waits.len(), STORM, "each was taken in");
        Ok::<_, Failure>(())
    })?;
    assert!(asked.load(Ordering::SeqCst) > 0, "operators were answered meanwhile");
    expect_all_served(&crowd.beat_once()?);
    online(server.operators(), STORM)
}

#[test]
fn hostile_connections_cost_no_honest_session() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let pool = Pool::new(rig.pki(), HONEST as u32)?;
    let mut honest = Crowd::new(&pool, 0..HONEST, server.devices(), Speech::Native, false)?;
    honest.arrive(Entry::in_turn())?;
    let hostile = Hostile { stalled: 50, dribbling: 50, renewing: 2 };
    let (pki, address, seen) = (rig.pki(), server.devices(), Seen::default());
    thread::scope(|scope| {
        let hostiles = scope.spawn(|| hostile.trouble(pki, address, &seen));
        let beats = honest.beat(100, |passed| {
            // As long as it takes for the keys to have been renewed often.
            passed < Duration::from_secs(60) && seen.renewed() < 200
        });
        seen.end();
        hostiles.join().map_err(|_| Failure::new("a hostile one panicked"))??;
        assert!(seen.renewed() >= 200, "keys were renewed");
        expect_all_served(&beats?);
        Ok::<_, Failure>(())
    })?;
    assert_eq!(honest.up(), HONEST);
    expect_all_served(&honest.beat_once()?);
    Ok(())
}

#[test]
fn fleet_that_comes_and_goes_leaves_nothing_behind() -> Result<(), Failure> {
    let rig = Rig::new()?;
    let server = rig.server()?.start()?;
    let pool = Pool::new(rig.pki(), 60)?;
    let mut crowd = Crowd::new(&pool, 0..60, server.devices(), Speech::Native, true)?;
    let mut after = Vec::new();
    for _ in 0..10 {
        crowd.arrive(Entry::in_turn())?;
        expect_all_served(&crowd.beat_once()?);
        crowd.leave();
        online(server.operators(), 0)?;
        after.push(Usage::of(server.id())?);
    }
    let (early, late) = (after[4], after[9]);
    assert!(late.descriptors <= early.descriptors + 2, "{after:?}");
    // Five times sixty sessions of 6 KB, had they stayed, are 1.8 MB.
    assert!(late.resident < early.resident + 1024 * 1024, "{after:?}");
    Ok(())
}
