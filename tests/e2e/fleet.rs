//! A fleet of 100,000 that loses its server in one second, in virtual time: whatever the outage, no second asks more of the
//! server than it can do, and everybody is back within a stated time.

use std::time::Duration;

use moorline_testbed::fleet::Outage;

const DEVICES: u32 = 100_000;

#[test]
fn return_never_exceeds_what_the_server_can_do() {
    for rate in [500, 2_000] {
        for dead in [2, 60, 600] {
            let outage = Outage::new(DEVICES, rate, Duration::from_secs(dead), 7);
            let back = outage.play();
            assert!(back.busiest() <= rate, "dead for {dead} s: {} in one second, of {rate}", back.busiest());
            assert_eq!(back.abandoned, 0, "dead for {dead} s, {rate} a second");
        }
    }
}

#[test]
fn everybody_is_back_within_the_promised_time() {
    for (dead, rate) in [(2, 1_000), (600, 1_000), (600, 500)] {
        let outage = Outage::new(DEVICES, rate, Duration::from_secs(dead), 7);
        let back = outage.play();
        // SPECIFICATION.md: one and a half windows, or `reconnect.max` where that is longer.
        let promised = (outage.spread * 3 / 2).max(Duration::from_secs(600)) + Duration::from_secs(1);
        assert!(back.all_back() <= promised, "{:?} of {promised:?}", back.all_back());
        assert_eq!(back.online.iter().sum::<u32>(), DEVICES);
    }
}

/// What the window is for: without it a short outage brings more in a second than the server can do.
#[test]
fn without_a_window_the_return_is_a_storm() {
    let outage = Outage { spread: Duration::ZERO, ..Outage::new(DEVICES, 1_000, Duration::from_secs(2), 7) };
    assert!(outage.play().busiest() > 10_000);
}
