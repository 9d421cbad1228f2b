//! The queue in virtual time: a machine that does so many handshakes a tick, and who gets them.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const NAT: Source = 1;
const HONEST: Source = 2;
/// The first of many.
const HOSTILE: Source = 1000;

fn serve(queue: &mut Queue<Source>, turns: usize) -> HashMap<Source, usize> {
    let mut served = HashMap::new();
    for source in std::iter::from_fn(|| queue.pop()).take(turns) {
        *served.entry(source).or_default() += 1;
    }
    served
}

#[test]
fn one_source_that_floods_gets_one_turn_of_two() {
    let mut queue = Queue::default();
    for _ in 0..10_000 {
        queue.push(HOSTILE, false, HOSTILE);
    }
    for _ in 0..100 {
        queue.push(HONEST, false, HONEST);
    }
    assert_eq!(serve(&mut queue, 200)[&HONEST], 100);
}

#[test]
fn newcomer_waits_for_one_turn_of_each_source() {
    let mut queue = Queue::default();
    for source in HOSTILE..HOSTILE + 50 {
        for _ in 0..100 {
            queue.push(source, false, source);
        }
    }
    queue.push(HONEST, false, HONEST);
    assert_eq!(serve(&mut queue, 51)[&HONEST], 1);
}

/// A thousand hostile sources, and a carrier's NAT with five thousand devices: strangers all, after a restart. Once one of
/// the devices has registered, its neighbours get three turns of four.
#[test]
fn devices_behind_one_address_return_through_a_flood() {
    let mut queue = Queue::default();
    for source in HOSTILE..HOSTILE + 1000 {
        for _ in 0..30 {
            queue.push(source, false, source);
        }
    }
    for _ in 0..5000 {
        queue.push(NAT, false, NAT);
    }
    let until_the_first = (1..).find(|_| queue.pop() == Some(NAT)).unwrap();
    assert_eq!(until_the_first, 1001);
    queue.befriend(NAT);
    let served = serve(&mut queue, 4 * 4999 / 3 + 1);
    assert_eq!(served[&NAT], 4999);
}

#[test]
fn familiar_sources_leave_strangers_a_quarter() {
    let mut queue = Queue::default();
    for _ in 0..10_000 {
        queue.push(NAT, true, NAT);
    }
    for _ in 0..10_000 {
        queue.push(HONEST, false, HONEST);
    }
    let served = serve(&mut queue, 4000);
    assert_eq!((served[&NAT], served[&HONEST]), (3000, 1000));
}

#[test]
fn longest_line_of_strangers_goes_first_and_its_newest() {
    let mut queue = Queue::default();
    for n in 0..100 {
        queue.push(NAT, true, n);
    }
    for n in 100..103 {
        queue.push(HOSTILE, false, n);
    }
    queue.push(HONEST, false, 200);
    assert_eq!([queue.evict(), queue.evict()], [Some(102), Some(101)]);
    // All strangers have one each: the order among them is fixed and no matter.
    assert!(queue.evict().is_some() && queue.evict().is_some());
    assert_eq!(queue.evict(), Some(99), "then the newest of the longest line of the others");
}

/// Twice as many come as can be served, for a minute: those who are served waited no longer than the bound allows.
#[test]
fn overload_is_worked_through_and_never_wedges() {
    let (per_tick, bound) = (20, 200);
    let (mut queue, mut waited, mut served) = (Queue::default(), 0, 0);
    for tick in 0..6000 {
        for n in 0..2 * per_tick {
            // Half come from one address.
            let source = if n % 2 == 0 { NAT } else { HOSTILE + n as Source };
            queue.push(source, source == NAT, tick);
            if queue.len() > bound {
                queue.evict();
            }
        }
        for came in std::iter::from_fn(|| queue.pop()).take(per_tick) {
            (waited, served) = (waited.max(tick - came), served + 1);
        }
    }
    assert_eq!(served, 6000 * per_tick);
    // Every one of the sources of one each stands at most a quarter's turn behind all others.
    assert!(waited <= bound / per_tick * 4, "{waited} ticks");
}

#[derive(Clone, Debug)]
enum Step {
    Push(Source, bool),
    Pop,
    Evict,
    Remove(usize),
    Befriend(Source),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..5_u128, any::<bool>()).prop_map(|(source, familiar)| Step::Push(source, familiar)),
        2 => Just(Step::Pop),
        1 => Just(Step::Evict),
        1 => any::<usize>().prop_map(Step::Remove),
        1 => (0..5_u128).prop_map(Step::Befriend),
    ]
}

proptest! {
    #[test]
    fn everyone_leaves_once_and_nothing_is_left(steps in prop::collection::vec(step(), 0..200)) {
        let mut queue = Queue::default();
        let mut inside: HashMap<u64, Source> = HashMap::new();
        for step in steps {
            let left = match step {
                Step::Push(source, familiar) => {
                    let next = queue.next;
                    let seat = queue.push(source, familiar, next);
                    prop_assert_eq!(seat, next);
                    inside.insert(seat, source);
                    None
                }
                Step::Pop => {
                    let popped = queue.pop();
                    prop_assert_eq!(popped.is_some(), !inside.is_empty());
                    popped
                }
                Step::Evict => queue.evict(),
                Step::Remove(n) => {
                    let seats: Vec<_> = inside.keys().copied().collect();
                    let seat = seats.get(n % seats.len().max(1)).copied();
                    seat.and_then(|seat| queue.remove(inside[&seat], seat))
                }
                Step::Befriend(source) => {
                    queue.befriend(source);
                    None
                }
            };
            if let Some(seat) = left {
                prop_assert!(inside.remove(&seat).is_some());
            }
            prop_assert_eq!(queue.len(), inside.len());
        }
        prop_assert_eq!(std::iter::from_fn(|| queue.pop()).count(), inside.len());
        for ring in [&queue.familiar, &queue.strangers] {
            prop_assert!(ring.lines.is_empty() && ring.order.is_empty() && ring.lengths.is_empty());
        }
    }
}
