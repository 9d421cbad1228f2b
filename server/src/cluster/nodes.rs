//! Who of the nodes is heard. Pure: beats and the time in, who is lost out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::wire::Beat;

/// How often a node is heard.
pub(super) const BEAT: Duration = Duration::from_secs(2);
/// A node that was not heard for so long is lost.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(10);
/// Who was not asked for so long was halted, or without NATS, and knows of nobody.
const HALTED: Duration = Duration::from_secs(4);

/// See the module.
#[derive(Debug)]
pub(super) struct Nodes {
    own: u8,
    heard: BTreeMap<u8, Heard>,
    /// When it was last asked, with NATS at hand.
    asked: Instant,
}

#[derive(Debug)]
struct Heard {
    name: Box<str>,
    at: Instant,
    beat: Beat,
}

impl Nodes {
    pub(super) const fn new(own: u8, now: Instant) -> Self {
        Self { own, heard: BTreeMap::new(), asked: now }
    }

    /// A node is heard.
    pub(super) fn hear(&mut self, name: &str, beat: Beat, now: Instant) {
        self.heard.insert(beat.number, Heard { name: name.into(), at: now, beat });
    }

    /// Whose sessions this node has to take for lost: of all that are heard the one with the lowest number does so. To be
    /// asked every second or so, as long as NATS is at hand.
    pub(super) fn lost(&mut self, now: Instant) -> Vec<u8> {
        let was_halted = now.duration_since(std::mem::replace(&mut self.asked, now)) > HALTED;
        let own = self.heard.get(&self.own).map(|heard| now.duration_since(heard.at));
        if was_halted || own.is_none_or(|silent| silent > HALTED) {
            // It is this node that does not hear, not even itself.
            self.heard
                .iter_mut()
                .filter(|(number, _)| **number != self.own)
                .for_each(|(_, heard)| heard.at = now);
            return Vec::new();
        }
        let is_heard = |heard: &Heard| !heard.beat.left && now.duration_since(heard.at) < LOST_AFTER;
        let others = self.heard.iter().filter(|(number, _)| **number != self.own);
        if others.clone().any(|(number, heard)| *number < self.own && is_heard(heard)) {
            return Vec::new();
        }
        others.filter(|(_, heard)| !is_heard(heard)).map(|(number, _)| *number).collect()
    }

    /// What each node is called, how many sessions it holds, and whether it is heard.
    pub(super) fn all(&self, now: Instant) -> Vec<(u8, Box<str>, usize, bool)> {
        let shown = |(number, heard): (&u8, &Heard)| {
            let is_heard =
                !heard.beat.left && (*number == self.own || now.duration_since(heard.at) < LOST_AFTER);
            (*number, heard.name.clone(), heard.beat.online, is_heard)
        };
        self.heard.iter().map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn beat(number: u8) -> Beat {
        Beat { number, boot: "b".to_owned(), left: false, version: "0.1.0".to_owned(), online: 0 }
    }

    /// Seconds of which each node is heard in those that it is in.
    fn run(nodes: &mut Nodes, start: Instant, seconds: std::ops::Range<u64>, heard: &[u8]) -> Vec<u8> {
        let mut lost = Vec::new();
        for second in seconds {
            let now = start + Duration::from_secs(second);
            heard.iter().for_each(|number| nodes.hear("n", beat(*number), now));
            lost = nodes.lost(now);
        }
        lost
    }

    #[test]
    fn node_is_lost_ten_seconds_after_it_was_heard_last() {
        let start = clock::now().instant;
        let mut nodes = Nodes::new(0, start);
        assert_eq!(run(&mut nodes, start, 0..5, &[0, 1, 2]), [0; 0]);
        assert_eq!(run(&mut nodes, start, 5..14, &[0, 2]), [0; 0]);
        assert_eq!(run(&mut nodes, start, 14..15, &[0, 2]), [1]);
        assert_eq!(run(&mut nodes, start, 15..16, &[0, 1, 2]), [0; 0]);
    }

    #[test]
    fn lowest_of_those_that_are_heard_takes_the_others_for_lost() {
        let start = clock::now().instant;
        let mut nodes = Nodes::new(1, start);
        run(&mut nodes, start, 0..1, &[0, 1, 2]);
        assert_eq!(run(&mut nodes, start, 1..30, &[0, 1]), [0; 0], "node 0 does it");
        assert_eq!(run(&mut nodes, start, 30..50, &[1]), [0, 2], "node 0 is lost as well");
    }

    #[test]
    fn node_that_was_halted_takes_nobody_for_lost() {
        let start = clock::now().instant;
        let mut nodes = Nodes::new(0, start);
        run(&mut nodes, start, 0..2, &[0, 1]);
        // A minute without a look.
        assert_eq!(nodes.lost(start + Duration::from_secs(62)), [0; 0]);
        assert_eq!(run(&mut nodes, start, 63..71, &[0]), [0; 0]);
        assert_eq!(run(&mut nodes, start, 71..74, &[0]), [1], "but it is lost all the same");
    }

    #[test]
    fn node_that_does_not_hear_itself_takes_nobody_for_lost() {
        let start = clock::now().instant;
        let mut nodes = Nodes::new(0, start);
        run(&mut nodes, start, 0..2, &[0, 1]);
        assert_eq!(run(&mut nodes, start, 2..60, &[]), [0; 0]);
        assert_eq!(run(&mut nodes, start, 60..69, &[0]), [0; 0]);
        assert_eq!(run(&mut nodes, start, 69..72, &[0]), [1]);
    }

    #[test]
    fn node_that_left_is_not_heard() {
        let start = clock::now().instant;
        let mut nodes = Nodes::new(0, start);
        nodes.hear("a", beat(0), start);
        nodes.hear("b", Beat { left: true, ..beat(1) }, start);
        assert_eq!(nodes.lost(start), [1]);
        let shown = nodes.all(start);
        assert_eq!(
            shown.iter().map(|(_, name, _, heard)| (&**name, *heard)).collect::<Vec<_>>(),
            [("a", true), ("b", false)]
        );
    }
}
