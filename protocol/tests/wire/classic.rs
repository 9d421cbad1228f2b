//! The classic layout: big-endian, a u32 length before every body. If this fails, do not change the test: see the
//! folder's `main.rs`.

use moorline_protocol::classic::{Received, Reply, ReplyDecoder, Request, RequestDecoder, code, id};

/// A device's request is these bytes, and these bytes are that request.
#[track_caller]
fn device_asks(request: Request, frame: &[u8]) {
    assert_eq!(request.encode(), frame);
    assert_eq!(received(frame), Ok(Some(Received::Request(request))));
}

/// The server's answer is these bytes, and these bytes are that answer.
#[track_caller]
fn server_answers(reply: Reply<'_>, frame: &[u8]) {
    assert_eq!(reply.encode(), frame);
    assert_eq!(ReplyDecoder::default().next(&mut &*frame), Ok(Some(reply)));
}

fn received(frame: &[u8]) -> Result<Option<Received>, moorline_protocol::classic::ClassicError> {
    RequestDecoder::default().next(&mut &*frame)
}

#[test]
fn register() {
    let request =
        Request::Register { app_id: *b"996da38d-a7be-4947-aa4c-f8208b5f4ade", imei: *b"490154203237518" };
    let frame = [
        &[
            0x00, 0x00, 0x00, 0x35, // 53 bytes follow
            0x00, // client id
            0x00, // REGISTER
        ],
        b"996da38d-a7be-4947-aa4c-f8208b5f4ade".as_slice(), // 36 bytes of application id
        b"490154203237518",                                 // 15 bytes of IMEI
    ];
    device_asks(request, &frame.concat());
}

#[test]
fn heartbeat() {
    let frame = [
        0x00, 0x00, 0x00, 0x02, // 2 bytes follow
        0x00, // client id
        0x01, // HEARTBEAT
    ];
    device_asks(Request::Heartbeat, &frame);
}

#[test]
fn datetime() {
    let frame = [
        0x00, 0x00, 0x00, 0x02, // 2 bytes follow
        0x00, // client id
        0x02, // DATETIME
    ];
    device_asks(Request::DateTime, &frame);
}

#[test]
fn unknown_request() {
    let frame = [
        0x00, 0x00, 0x00, 0x05, // 5 bytes follow
        0x00, // client id
        0x2a, // 42, which is nothing
        0x01, 0x02, 0x03, // its payload
    ];
    assert_eq!(received(&frame), Ok(Some(Received::Refused { message: 42 })));
}

#[test]
fn register_answered() {
    let frame = [
        0x00, 0x00, 0x00, 0x02, // 2 bytes follow
        0x00, // REGISTER
        0x00, // done
    ];
    server_answers(Reply { message: id::REGISTER, error: code::OK, payload: &[] }, &frame);
}

#[test]
fn register_refused() {
    let frame = [
        0x00, 0x00, 0x00, 0x02, // 2 bytes follow
        0x00, // REGISTER
        0xff, // -1
    ];
    server_answers(Reply { message: id::REGISTER, error: code::ERROR, payload: &[] }, &frame);
}

#[test]
fn heartbeat_answered() {
    let frame = [
        0x00, 0x00, 0x00, 0x02, // 2 bytes follow
        0x01, // HEARTBEAT
        0x00, // done
    ];
    server_answers(Reply { message: id::HEARTBEAT, error: code::OK, payload: &[] }, &frame);
}

#[test]
fn datetime_answered() {
    let frame = [
        &[
            0x00, 0x00, 0x00, 0x15, // 21 bytes follow
            0x02, // DATETIME
            0x00, // done
        ],
        b"2026-03-01 12:34:56".as_slice(), // the server's local time
    ];
    let reply = Reply { message: id::DATETIME, error: code::OK, payload: b"2026-03-01 12:34:56" };
    server_answers(reply, &frame.concat());
}

#[test]
fn unknown_request_answered() {
    let frame = [
        0x00, 0x00, 0x00, 0x02, // 2 bytes follow
        0xd6, // -42, as it was asked
        0xff, // -1
    ];
    server_answers(Reply { message: -42, error: code::ERROR, payload: &[] }, &frame);
}
