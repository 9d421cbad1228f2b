//! A short campaign of faults upon three servers: the long one is `moorline-campaign`.

use std::time::Duration;

use moorline_testbed::campaign::{Campaign, Fault, Round, row};
use moorline_testbed::failure::Failure;
use moorline_testbed::several::allowed;

#[test]
fn faults_leave_no_ghost_no_double_and_no_gap() -> Result<(), Failure> {
    if !allowed() {
        return Ok(());
    }
    let round =
        |faults: &[Fault], seconds| Round { faults: faults.to_vec(), lasts: Duration::from_secs(seconds) };
    let rounds = [
        round(&[Fault::Hop, Fault::Kill(1)], 5),
        round(&[Fault::KillAllNats, Fault::WrongClock { server: 0, ahead: true }], 3),
        round(&[Fault::CutOff(2), Fault::Hop], 5),
    ];
    let outcomes =
        Campaign { seed: 7, devices: 45, nats: 1 }.run(rounds, |outcome| println!("{}", row(outcome)))?;
    assert_eq!(outcomes.len(), 4, "{outcomes:#?}");
    assert!(outcomes.iter().all(|outcome| outcome.wrong.is_empty()), "{outcomes:#?}");
    assert!(outcomes[1..].iter().all(|outcome| outcome.begun > 0), "devices came and went: {outcomes:#?}");
    Ok(())
}
