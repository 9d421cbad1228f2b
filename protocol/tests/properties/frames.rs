//! Native frames.

use moorline_protocol::frame::{Decoder, FrameError, HEAD, MAX_BODY, MAX_FRAME, Spill};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::stream::{drain, pieces};

type Inline = heapless::Vec<u8, MAX_FRAME>;

/// A spill as a server has it.
#[derive(Debug, Default)]
struct HeapSpill(Vec<u8>);

impl Spill for HeapSpill {
    fn append(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        assert!(self.0.len() <= MAX_FRAME);
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn release(&mut self) {
        self.0 = Vec::new();
    }
}

/// A spill that nothing may come to.
#[derive(Debug, Default)]
struct NoSpill;

impl Spill for NoSpill {
    fn append(&mut self, bytes: &[u8]) {
        panic!("{} bytes spilled", bytes.len());
    }

    fn bytes(&self) -> &[u8] {
        &[]
    }

    fn release(&mut self) {}
}

// A server holds one for each of its sessions: the head, the heap's handle, and not much more.
const _: () = assert!(size_of::<Decoder<HeapSpill>>() <= HEAD + size_of::<HeapSpill>() + 8);

/// A frame by the book, length and body.
fn frame(body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let field = if length < 0x80 {
        vec![length as u8]
    } else {
        vec![(length & 0x7f) as u8 | 0x80, (length >> 7) as u8]
    };
    [field.as_slice(), body].concat()
}

fn decode<S: Spill>(stream: &[u8], sizes: &[usize]) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let mut decoder = Decoder::<S>::default();
    drain(stream, sizes, |piece| Ok(decoder.next(piece)?.map(<[u8]>::to_vec)))
}

fn whole(stream: &[u8]) -> (Vec<Vec<u8>>, Option<FrameError>) {
    decode::<NoSpill>(stream, &[usize::MAX])
}

/// Bodies of all sizes, those around the head's end and the length field's growth often.
fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => vec(any::<u8>(), 1..12),
        3 => vec(any::<u8>(), HEAD - 3..HEAD + 3),
        3 => vec(any::<u8>(), 125..131),
        1 => vec(any::<u8>(), 131..LONGEST),
        1 => vec(any::<u8>(), LONGEST),
    ]
}

const LONGEST: usize = if cfg!(miri) { 200 } else { MAX_BODY };

proptest! {
    #![proptest_config(crate::cases())]

    #[test]
    fn any_cut_gives_the_same_frames(bodies in vec(body(), 0..12), sizes in pieces()) {
        let stream = bodies.iter().flat_map(|body| frame(body)).collect::<Vec<_>>();
        prop_assert_eq!(decode::<HeapSpill>(&stream, &sizes), (bodies.clone(), None));
        prop_assert_eq!(decode::<Inline>(&stream, &sizes), (bodies, None));
    }

    #[test]
    fn short_frames_never_spill(bodies in vec(vec(any::<u8>(), 1..HEAD), 0..12), sizes in pieces()) {
        let stream = bodies.iter().flat_map(|body| frame(body)).collect::<Vec<_>>();
        prop_assert_eq!(decode::<NoSpill>(&stream, &sizes), (bodies, None));
    }

    #[test]
    fn whole_frames_are_lent_from_the_input(bodies in vec(body(), 0..12)) {
        let stream = bodies.iter().flat_map(|body| frame(body)).collect::<Vec<_>>();
        let mut decoder = Decoder::<NoSpill>::default();
        let mut rest = stream.as_slice();
        while let Some(body) = decoder.next(&mut rest).expect("frames") {
            prop_assert!(stream.as_ptr_range().contains(&body.as_ptr()));
        }
    }

    #[test]
    fn frames_before_a_fault_are_not_lost(
        bodies in vec(body(), 0..6),
        fault in prop_oneof![
            Just((&[0x00][..], FrameError::Empty)),
            Just((&[0x85, 0x00][..], FrameError::NonMinimal)),
            Just((&[0x81, 0x20][..], FrameError::TooLong)),
            Just((&[0xff, 0xff, 0xff, 0xff, 0x0f][..], FrameError::TooLong)),
        ],
        sizes in pieces(),
    ) {
        let (field, error) = fault;
        let mut stream = bodies.iter().flat_map(|body| frame(body)).collect::<Vec<_>>();
        stream.extend_from_slice(field);
        prop_assert_eq!(decode::<HeapSpill>(&stream, &sizes), (bodies, Some(error)));
    }

    #[test]
    #[cfg_attr(miri, ignore = "so many bytes, each by itself, take Miri minutes")]
    fn any_bytes_end_the_same_however_cut(stream in vec(any::<u8>(), 0..crate::LONG), sizes in pieces()) {
        let mut endless = stream;
        // No fault may hide behind the end of the bytes: a whole frame can be cut there, a decided one not.
        endless.resize(endless.len() + MAX_FRAME, 1);
        let in_pieces = decode::<HeapSpill>(&endless, &sizes);
        prop_assert_eq!(&in_pieces, &decode::<Inline>(&endless, &[1]));
        prop_assert_eq!(in_pieces, decode::<HeapSpill>(&endless, &[usize::MAX]));
    }
}

#[test]
fn longest_body_is_4096_bytes() {
    let longest = [&[0x80, 0x20][..], &[7; 4096]].concat();
    assert_eq!(whole(&longest), (vec![vec![7; 4096]], None));
    let longer = [&[0x81, 0x20][..], &[7; 4097]].concat();
    assert_eq!(whole(&longer), (vec![], Some(FrameError::TooLong)));
}

#[test]
fn length_grows_to_two_bytes_at_128() {
    assert_eq!(whole(&[&[0x7f][..], &[7; 127]].concat()), (vec![vec![7; 127]], None));
    assert_eq!(whole(&[&[0x80, 0x01][..], &[7; 128]].concat()), (vec![vec![7; 128]], None));
    assert_eq!(whole(&[&[0xff, 0x00][..], &[7; 127]].concat()), (vec![], Some(FrameError::NonMinimal)));
}

#[test]
fn fault_stays_a_fault_when_asked_again() {
    for sizes in [1, 2] {
        let mut decoder = Decoder::<HeapSpill>::default();
        for piece in [0x85, 0x00].chunks(sizes) {
            let _ = decoder.next(&mut &*piece);
        }
        assert_eq!(decoder.next(&mut &[0x85, 0x00][..]), Err(FrameError::NonMinimal));
    }
}

#[test]
fn long_frame_gives_its_memory_back() {
    let stream = frame(&[7; 1000]);
    let mut decoder = Decoder::<Counted>::default();
    for mut byte in stream.chunks(1) {
        let _ = decoder.next(&mut byte).expect("a frame");
    }
    assert_eq!(decoder.next(&mut &[][..]), Ok(None));
    assert_eq!(HELD.get(), 0);
}

std::thread_local! {
    /// What the [`Counted`] spill of this thread holds.
    static HELD: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// A spill whose memory can be watched from outside of its decoder.
#[derive(Debug, Default)]
struct Counted(HeapSpill);

impl Spill for Counted {
    fn append(&mut self, bytes: &[u8]) {
        self.0.append(bytes);
        HELD.set(self.0.0.capacity());
    }

    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    fn release(&mut self) {
        self.0.release();
        HELD.set(self.0.0.capacity());
    }
}
