//! The server under more load than it can work off at once: everybody is served in the end, those who are there stay, and
//! nothing is left behind. The same with many thousand devices is `moorline-bench`.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use moorline_protocol::DeviceMessage;
use moorline_testbed::certs::Pki;
use moorline_testbed::client::Settings;
use moorline_testbed::failure::Failure;
use moorline_testbed::http::Operators;
use moorline_testbed::load::{Beats, Crowd, Entry, Pool, Speech, Usage};
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
    let (pki, address, over) = (rig.pki(), server.devices(), AtomicBool::new(false));
    let renewed = AtomicUsize::new(0);
    thread::scope(|scope| {
        let hostile = [
            scope.spawn(|| stall_and_dribble(address, &over)),
            scope.spawn(|| renew(pki, address, &over, &renewed)),
        ];
        let beats = honest.beat(100, |passed| {
            // As long as it takes for the keys to have been renewed often.
            passed < Duration::from_secs(60) && renewed.load(Ordering::SeqCst) < 200
        });
        over.store(true, Ordering::SeqCst);
        for one in hostile {
            one.join().map_err(|_| Failure::new("a hostile one panicked"))??;
        }
        assert!(renewed.load(Ordering::SeqCst) >= 200, "keys were renewed");
        expect_all_served(&beats?);
        Ok::<_, Failure>(())
    })?;
    assert_eq!(honest.up(), HONEST);
    expect_all_served(&honest.beat_once()?);
    Ok(())
}

/// Fifty connections that say nothing or the beginning of a ClientHello, and fifty that send one byte after the other.
#[expect(clippy::disallowed_methods, reason = "peers that speak no TLS")]
fn stall_and_dribble(server: SocketAddr, over: &AtomicBool) -> Result<(), Failure> {
    let hello = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc];
    let connect = || TcpStream::connect(server);
    let mut stalled = (0..50).map(|_| connect()).collect::<Result<Vec<_>, _>>()?;
    for (number, socket) in stalled.iter_mut().enumerate() {
        socket.write_all(&hello[..number % hello.len()])?;
    }
    let mut dribbling = (0..50).map(|_| connect()).collect::<Result<Vec<_>, _>>()?;
    let (_silent, pace) = mpsc::channel::<()>();
    for place in 0.. {
        if over.load(Ordering::SeqCst) {
            return Ok(());
        }
        for socket in &mut dribbling {
            // Those that were sent away come again.
            if socket.write_all(&[hello.get(place % 400).copied().unwrap_or(0)]).is_err() {
                *socket = connect()?;
            }
        }
        let _ = pace.recv_timeout(Duration::from_millis(50));
    }
    Ok(())
}

/// A device that has the server take new keys with each heartbeat.
fn renew(pki: &Pki, server: SocketAddr, over: &AtomicBool, renewed: &AtomicUsize) -> Result<(), Failure> {
    // None of the pool's, which begins with 0.
    let imei = "869731052403821".parse()?;
    let settings = Settings::new(pki, Some(&pki.device(imei)?))?;
    while !over.load(Ordering::SeqCst) {
        let mut client = settings.connect(server)?;
        client.say_hello(imei)?;
        while client.hear().is_ok_and(|heard| heard.is_some()) && !over.load(Ordering::SeqCst) {
            client.renew_keys()?;
            renewed.fetch_add(1, Ordering::SeqCst);
            if client.send(&DeviceMessage::Heartbeat).is_err() {
                break;
            }
        }
    }
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
