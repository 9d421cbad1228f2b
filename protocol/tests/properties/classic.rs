//! Classic requests and replies.

use moorline_protocol::classic::{
    APP_ID_LEN, ClassicError, DATETIME_LEN, IMEI_LEN, MAX_BODY, Received, Reply, ReplyDecoder, Request,
    RequestDecoder, id,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::stream::{drain, pieces};

/// A reply that outlives its decoder.
type OwnedReply = (i8, i8, Vec<u8>);

/// A frame by the book.
fn frame(ids: [i8; 2], payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(ids.len() + payload.len()).expect("a short payload");
    [&length.to_be_bytes()[..], &ids.map(i8::cast_unsigned), payload].concat()
}

fn requests(stream: &[u8], sizes: &[usize]) -> (Vec<Received>, Option<ClassicError>) {
    let mut decoder = RequestDecoder::default();
    drain(stream, sizes, |piece| decoder.next(piece))
}

fn replies(stream: &[u8], sizes: &[usize]) -> (Vec<OwnedReply>, Option<ClassicError>) {
    let mut decoder = ReplyDecoder::default();
    drain(stream, sizes, |piece| {
        let reply = decoder.next(piece)?;
        Ok(reply.map(|reply| (reply.message, reply.error, reply.payload.to_vec())))
    })
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        (any::<[u8; APP_ID_LEN]>(), any::<[u8; IMEI_LEN]>())
            .prop_map(|(app_id, imei)| Request::Register { app_id, imei }),
        Just(Request::Heartbeat),
        Just(Request::DateTime),
    ]
}

/// A request's frame and what it is to be received as.
fn sent() -> impl Strategy<Value = (Vec<u8>, Received)> {
    let unknown = (any::<i8>(), 3..=i8::MAX, payload());
    let wrong_length = (any::<i8>(), 0..=2_i8, vec(any::<u8>(), 1..200))
        .prop_filter("no REGISTER", |(_, message, payload)| {
            *message != id::REGISTER || payload.len() != APP_ID_LEN + IMEI_LEN
        });
    let refused = |(client, message, payload): (i8, i8, Vec<u8>)| {
        (frame([client, message], &payload), Received::Refused { message })
    };
    prop_oneof![
        6 => request().prop_map(|request| (request.encode().to_vec(), Received::Request(request))),
        2 => unknown.prop_map(refused),
        2 => wrong_length.prop_map(refused),
    ]
}

/// Mostly short, now and then up to the longest.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        12 => vec(any::<u8>(), 0..100),
        1 => (0..=LONGEST).prop_map(|length| vec![0x55; length]),
        1 => Just(vec![0x55; LONGEST]),
    ]
}

const LONGEST: usize = if cfg!(miri) { 300 } else { MAX_BODY as usize - 2 };

proptest! {
    #![proptest_config(crate::cases())]

    #[test]
    fn any_cut_gives_the_same_requests(sent in vec(sent(), 0..12), sizes in pieces()) {
        let (frames, expected): (Vec<_>, Vec<_>) = sent.into_iter().unzip();
        prop_assert_eq!(requests(&frames.concat(), &sizes), (expected, None));
    }

    #[test]
    fn any_cut_gives_the_same_replies(
        sent in vec((any::<i8>(), any::<i8>(), vec(any::<u8>(), 0..=DATETIME_LEN)), 0..12),
        sizes in pieces(),
    ) {
        let encode = |(message, error, payload): &OwnedReply| {
            Reply { message: *message, error: *error, payload }.encode().to_vec()
        };
        let stream = sent.iter().flat_map(encode).collect::<Vec<_>>();
        prop_assert_eq!(replies(&stream, &sizes), (sent, None));
    }

    #[test]
    fn longer_replies_are_cut_and_the_next_is_found(payload in payload(), sizes in pieces()) {
        let kept = payload[..payload.len().min(DATETIME_LEN)].to_vec();
        let stream = [frame([9, 0], &payload), frame([id::HEARTBEAT, 0], &[])].concat();
        prop_assert_eq!(replies(&stream, &sizes), (vec![(9, 0, kept), (id::HEARTBEAT, 0, vec![])], None));
    }

    #[test]
    fn wrong_lengths_end_the_stream_after_what_came_before(
        before in vec(request(), 0..5),
        length in prop_oneof![0..2_u32, MAX_BODY + 1..=MAX_BODY + 9, MAX_BODY + 1..=u32::MAX],
        sizes in pieces(),
    ) {
        let mut stream = before.iter().flat_map(Request::encode).collect::<Vec<_>>();
        stream.extend(length.to_be_bytes());
        stream.extend([0; 100]);
        let error = if length < 2 { ClassicError::TooShort(length) } else { ClassicError::TooLong(length) };
        let expected = before.into_iter().map(Received::Request).collect::<Vec<_>>();
        prop_assert_eq!(requests(&stream, &sizes), (expected, Some(error)));
        prop_assert_eq!(replies(&stream, &sizes).1, Some(error));
    }

    #[test]
    fn any_bytes_end_the_same_however_cut(
        // Small numbers, so that lengths are often possible ones.
        stream in vec(prop_oneof![8 => Just(0_u8), 4 => 0..60_u8, 1 => any::<u8>()], 0..crate::LONG),
        sizes in pieces(),
    ) {
        prop_assert_eq!(requests(&stream, &sizes), requests(&stream, &[usize::MAX]));
        prop_assert_eq!(replies(&stream, &sizes), replies(&stream, &[1]));
    }
}

#[test]
#[cfg_attr(miri, ignore = "so many bytes, each by itself, take Miri minutes")]
fn longest_body_is_65536_bytes() {
    for sizes in [1, 7, usize::MAX] {
        let longest = [&[0, 1, 0, 0, 0, 42][..], &vec![7; 65_534]].concat();
        assert_eq!(requests(&longest, &[sizes]), (vec![Received::Refused { message: 42 }], None));
        assert_eq!(requests(&longest[..longest.len() - 1], &[sizes]), (vec![], None));
        assert_eq!(replies(&longest, &[sizes]), (vec![(0, 42, vec![7; DATETIME_LEN])], None));
        let longer = [&[0, 1, 0, 1, 0, 42][..], &vec![7; 65_535]].concat();
        assert_eq!(requests(&longer, &[sizes]), (vec![], Some(ClassicError::TooLong(65_537))));
        assert_eq!(replies(&longer, &[sizes]), (vec![], Some(ClassicError::TooLong(65_537))));
    }
}

#[test]
fn shortest_body_is_2_bytes() {
    assert_eq!(requests(&[0, 0, 0, 1, 1], &[1]), (vec![], Some(ClassicError::TooShort(1))));
    assert_eq!(requests(&[0, 0, 0, 0], &[4]), (vec![], Some(ClassicError::TooShort(0))));
    assert_eq!(replies(&[0, 0, 0, 1, 1], &[1]), (vec![], Some(ClassicError::TooShort(1))));
}

#[test]
fn two_hundred_requests_in_one_piece() {
    let stream = Request::Heartbeat.encode().repeat(200);
    let (found, error) = requests(&stream, &[usize::MAX]);
    assert_eq!((found.len(), error), (200, None));
}

#[test]
fn longer_reply_payload_is_cut_when_sent() {
    let reply = Reply { message: 2, error: 0, payload: &[b'9'; 40] };
    assert_eq!(reply.encode(), frame([2, 0], &[b'9'; DATETIME_LEN]).as_slice());
}

// A server holds one for each classic session: REGISTER's body and little more.
const _: () = assert!(size_of::<RequestDecoder>() <= 2 + APP_ID_LEN + IMEI_LEN + 48);
