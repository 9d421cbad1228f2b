//! The buffers that a connection needs while it works, and not while it waits: one set per thread.

use std::cell::RefCell;

use crate::session::Dialect;

/// A TLS record holds at most 16 KiB and 261 bytes; what is left of one waits in the connection.
const READ: usize = 16 * 1024;

/// A buffer that one answer to a flood has blown up is not kept.
const KEPT: usize = 64 * 1024;

/// One thread's buffers. `records` and `frames` are empty between two uses.
pub(super) struct Scratch {
    /// What the socket gave.
    pub(super) read: Box<[u8]>,
    /// Records that go to the socket.
    pub(super) records: Vec<u8>,
    /// Frames that go into records.
    pub(super) frames: Frames,
}

/// Frames back to back.
#[derive(Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Frames {
    pub(super) fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len());
    }

    /// What each record is to hold. A classic device reads a record for a frame; a native one reads a stream, and a record's
    /// 22 bytes are paid for.
    pub(super) fn records(&self, dialect: Dialect) -> impl Iterator<Item = &[u8]> {
        let ends = match dialect {
            Dialect::Native => self.ends.last().map_or(&[][..], std::slice::from_ref),
            Dialect::Classic => &self.ends,
        };
        let starts = std::iter::once(0).chain(ends.iter().copied());
        starts.zip(ends).filter_map(|(start, end)| self.bytes.get(start..*end))
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        read: vec![0; READ].into_boxed_slice(),
        records: Vec::new(),
        frames: Frames::default(),
    });
}

/// Lends this thread's buffers for one synchronous step.
pub(super) fn with<T>(step: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        // Before and not after the step: one that panicked has left something behind.
        empty(&mut scratch.records);
        empty(&mut scratch.frames.bytes);
        scratch.frames.ends.clear();
        step(scratch)
    })
}

fn empty(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(KEPT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classic_devices_get_a_record_for_each_frame() {
        let mut frames = Frames::default();
        assert_eq!(frames.records(Dialect::Native).count(), 0);
        for frame in [b"ab".as_slice(), b"c", b"def"] {
            frames.push(frame);
        }
        assert_eq!(frames.records(Dialect::Native).collect::<Vec<_>>(), [b"abcdef"]);
        let classic: Vec<_> = frames.records(Dialect::Classic).collect();
        assert_eq!(classic, [b"ab".as_slice(), b"c", b"def"]);
    }

    #[test]
    fn flood_leaves_no_large_buffer() {
        with(|scratch| scratch.records.resize(1 << 20, 0));
        with(|scratch| assert!(scratch.records.is_empty() && scratch.records.capacity() <= KEPT));
    }
}
