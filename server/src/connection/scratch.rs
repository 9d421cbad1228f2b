//! The buffers that a connection needs while it works, and not while it waits: one set per thread.

use std::cell::RefCell;

/// A TLS record holds at most 16 KiB and 261 bytes; what is left of one waits in the connection.
const READ: usize = 16 * 1024;

/// A buffer that one answer to a flood has blown up is not kept.
const KEPT: usize = 64 * 1024;

/// One thread's buffers. All are empty between two uses.
pub(super) struct Scratch {
    /// What the socket gave.
    pub(super) read: Box<[u8]>,
    /// Records that go to the socket.
    pub(super) records: Vec<u8>,
    /// Frames that go into records, one record each.
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

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).filter_map(|(start, end)| self.bytes.get(start..*end))
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
        let result = step(scratch);
        empty(&mut scratch.records);
        empty(&mut scratch.frames.bytes);
        scratch.frames.ends.clear();
        result
    })
}

fn empty(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(KEPT);
}
