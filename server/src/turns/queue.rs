//! Whose handshake is next, and who goes when there are too many. Pure bookkeeping.
//!
//! Sources take turns, one handshake each, so that one that knocks a thousand times gets no more than another that knocks
//! once. A carrier's NAT shows thousands of honest devices as one source: as soon as one of them has registered, the
//! source is *familiar*, and familiar ones get three turns of four, however many strangers there are. See
//! docs/decisions/0005-turns-by-source.md.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::admission::Source;

/// Turns for familiar sources between two for strangers, while both wait.
const FAMILIAR_TURNS: u32 = 3;

/// See the module; `T` is what wakes a waiting connection.
#[derive(Debug)]
pub(super) struct Queue<T> {
    familiar: Ring<T>,
    strangers: Ring<T>,
    next: u64,
    /// Turns that familiar sources had since the last stranger's.
    in_a_row: u32,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { familiar: Ring::default(), strangers: Ring::default(), next: 0, in_a_row: 0 }
    }
}

impl<T> Queue<T> {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.familiar.len + self.strangers.len
    }

    /// Waits at the end of its source's line; the number names it there.
    pub(super) fn push(&mut self, source: Source, familiar: bool, waiting: T) -> u64 {
        let seat = self.next;
        self.next += 1;
        // A line stays where it is until it is empty or befriended.
        let ring = if familiar { &mut self.familiar } else { &mut self.strangers };
        ring.push(source, seat, waiting);
        seat
    }

    /// Whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let strangers_turn = self.in_a_row >= FAMILIAR_TURNS && self.strangers.len > 0;
        if self.familiar.len > 0 && !strangers_turn {
            self.in_a_row += 1;
            return self.familiar.pop();
        }
        self.in_a_row = 0;
        self.strangers.pop()
    }

    /// Who goes when there are too many: the newest of the source with the longest line; strangers before others. The newest,
    /// because whoever came earlier is served in time, and if the oldest went, everybody would wait and nobody be served.
    pub(super) fn evict(&mut self) -> Option<T> {
        self.strangers.evict().or_else(|| self.familiar.evict())
    }

    /// It does not wait any more.
    pub(super) fn remove(&mut self, source: Source, seat: u64) -> Option<T> {
        self.strangers.remove(source, seat).or_else(|| self.familiar.remove(source, seat))
    }

    /// A device registered from there.
    pub(super) fn befriend(&mut self, source: Source) {
        if let Some(line) = self.strangers.take(source) {
            line.into_iter().for_each(|(seat, waiting)| self.familiar.push(source, seat, waiting));
        }
    }
}

/// Sources that take turns. Everything here takes logarithmic time: it is what a flood is met with.
#[derive(Debug)]
struct Ring<T> {
    lines: HashMap<Source, Line<T>>,
    /// Who is next, by the lines' places.
    order: BTreeMap<u64, Source>,
    /// For the longest.
    lengths: BTreeSet<(usize, Source)>,
    len: usize,
    next_place: u64,
}

/// Those who wait at one source; never empty.
#[derive(Debug)]
struct Line<T> {
    place: u64,
    /// By seat, so in the order they came.
    waiting: BTreeMap<u64, T>,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        let (lines, order, lengths) = (HashMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { lines, order, lengths, len: 0, next_place: 0 }
    }
}

impl<T> Ring<T> {
    fn push(&mut self, source: Source, seat: u64, waiting: T) {
        let line = self.lines.entry(source).or_insert_with(|| {
            let place = self.next_place;
            self.next_place += 1;
            self.order.insert(place, source);
            Line { place, waiting: BTreeMap::new() }
        });
        self.lengths.remove(&(line.waiting.len(), source));
        line.waiting.insert(seat, waiting);
        self.lengths.insert((line.waiting.len(), source));
        self.len += 1;
    }

    fn pop(&mut self) -> Option<T> {
        let (_, source) = self.order.pop_first()?;
        if let Some(line) = self.lines.get_mut(&source) {
            line.place = self.next_place;
            self.next_place += 1;
            self.order.insert(line.place, source);
        }
        self.shorten(source, |line| line.pop_first().map(|(_, waiting)| waiting))
    }

    fn evict(&mut self) -> Option<T> {
        let (_, source) = *self.lengths.last()?;
        self.shorten(source, |line| line.pop_last().map(|(_, waiting)| waiting))
    }

    fn remove(&mut self, source: Source, seat: u64) -> Option<T> {
        self.shorten(source, |line| line.remove(&seat))
    }

    /// Takes a whole line.
    fn take(&mut self, source: Source) -> Option<BTreeMap<u64, T>> {
        let Line { place, waiting } = self.lines.remove(&source)?;
        self.order.remove(&place);
        self.lengths.remove(&(waiting.len(), source));
        self.len -= waiting.len();
        Some(waiting)
    }

    /// Takes one out of a line, and with the last the line.
    fn shorten(
        &mut self,
        source: Source,
        take: impl FnOnce(&mut BTreeMap<u64, T>) -> Option<T>,
    ) -> Option<T> {
        let line = self.lines.get_mut(&source)?;
        let (before, place) = (line.waiting.len(), line.place);
        let waiting = take(&mut line.waiting)?;
        self.lengths.remove(&(before, source));
        self.len -= 1;
        if before > 1 {
            self.lengths.insert((before - 1, source));
        } else {
            self.lines.remove(&source);
            self.order.remove(&place);
        }
        Some(waiting)
    }
}

#[cfg(test)]
mod tests;
