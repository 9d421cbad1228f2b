//! Agents in the field: behind carriers' NATs and on bad lines, in network namespaces. The field is proven first, with
//! plain TCP: a NAT forgets as it says, a line is as slow as it says.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use moorline_testbed::failure::Failure;
use moorline_testbed::field::{
    Field, Forgetting, Nat, Pair, Quality, Version, heard, listen, may_have_fields,
};
use moorline_testbed::left_out::left_out;

const NAT: Nat = Nat { forgetting: Forgetting::Silent, after: Duration::from_secs(2) };

#[test]
fn silent_nat_drops_both_sides() -> Result<(), Failure> {
    proves(Forgetting::Silent)
}

#[test]
fn remapping_nat_makes_the_server_reset() -> Result<(), Failure> {
    proves(Forgetting::Remapping)
}

#[test]
fn healing_nat_is_mended_by_the_device() -> Result<(), Failure> {
    proves(Forgetting::Healing)
}

#[test]
fn flow_that_is_not_silent_is_kept() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let field = Field::behind(NAT)?;
    let mut pair = Pair::over(&field)?;
    for _ in 0..4 {
        assert_eq!(listen(&mut pair.device, NAT.after / 2)?, "silence");
        pair.server.write_all(b"down")?;
        assert_eq!(heard(&mut pair.device)?, "down");
    }
    // One that remembers proves nothing else.
    assert!(pair.prove(Nat { after: Duration::ZERO, ..NAT }).is_err());
    Ok(())
}

#[test]
fn line_is_as_slow_as_it_says() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let field = Field::new(Version::V6)?;
    let mut pair = Pair::over(&field)?;
    field.line.set(Quality::EDGE);
    let begun = now();
    pair.device.write_all(&[b'x'; 1000])?;
    let mut all = [0; 1000];
    pair.server.set_read_timeout(Some(Duration::from_secs(20)))?;
    pair.server.read_exact(&mut all)?;
    // 1,072 bytes with their headers at 50 kbit/s, and the latency.
    let took = now() - begun;
    assert!(took >= Duration::from_millis(171 + 350), "{took:?}");
    Ok(())
}

fn proves(forgetting: Forgetting) -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let nat = Nat { forgetting, ..NAT };
    Pair::over(&Field::behind(nat)?)?.prove(nat)
}

fn allowed() -> bool {
    let allowed = may_have_fields();
    if !allowed {
        left_out("fields need root, ip, nft and /dev/net/tun");
    }
    allowed
}

#[expect(clippy::disallowed_methods, reason = "a line's latency is measured")]
fn now() -> Instant {
    Instant::now()
}
