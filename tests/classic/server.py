#!/usr/bin/env python3
"""A plain classic server: what an older fleet's program answers, over Python's ssl module and nothing else.

It knows no ALPN, requires a client certificate, and answers REGISTER, HEARTBEAT and DATETIME with one write each, in
the order asked. One thread serves one device. Every event is one line on standard output.
"""

import argparse
import datetime
import socket
import ssl
import struct
import sys
import threading

REGISTER, HEARTBEAT, DATETIME = 0, 1, 2
APP_ID_LENGTH, IMEI_LENGTH = 36, 15
OK, ERROR = 0, -1
MAX_BODY = 64 * 1024
HANDSHAKE_SECONDS = 10


def say(*words):
    # In one piece, or another thread's words come in between.
    sys.stdout.write(" ".join(map(str, words)).rstrip() + "\n")
    sys.stdout.flush()


def reply(message, code, payload=b""):
    """One answer as a whole frame: length, message id, error code, payload."""
    return struct.pack(">Ibb", 2 + len(payload), message, code) + payload


class Lost(Exception):
    """The session is over; the text says why."""


def read_exactly(connection, count):
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise Lost("cut in the middle" if data else "closed by the device")
        data += piece
    return data


def read_request(connection):
    """One request: length, client id, message id, payload."""
    (length,) = struct.unpack(">I", read_exactly(connection, 4))
    if not 2 <= length <= MAX_BODY:
        raise Lost(f"a frame of length {length}")
    body = read_exactly(connection, length)
    client, message = struct.unpack(">bb", body[:2])
    if client != 0:
        raise Lost(f"client id {client}")
    return message, body[2:]


def answer(message, payload):
    """What a request is answered with; says what it was."""
    if message == REGISTER and len(payload) == APP_ID_LENGTH + IMEI_LENGTH:
        app_id, imei = payload[:APP_ID_LENGTH].decode("ascii"), payload[APP_ID_LENGTH:].decode("ascii")
        say("register", imei, app_id)
        return reply(REGISTER, OK)
    if message == HEARTBEAT and not payload:
        say("heartbeat")
        return reply(HEARTBEAT, OK)
    if message == DATETIME and not payload:
        now = datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        say("datetime", now)
        return reply(DATETIME, OK, now.encode("ascii"))
    say("unknown", message, payload.hex())
    return reply(message, ERROR)


def common_name(certificate):
    return next((value for rdn in certificate["subject"] for key, value in rdn if key == "commonName"), "-")


def serve(plain, address, tls):
    """One device from its first byte to its last."""
    where = "%s:%d" % address[:2]
    try:
        # Here and not in accept, so that a device which says nothing holds up no other.
        plain.settimeout(HANDSHAKE_SECONDS)
        with tls.wrap_socket(plain, server_side=True) as connection:
            connection.settimeout(None)
            say("connected", where, connection.version(), common_name(connection.getpeercert()))
            while True:
                connection.sendall(answer(*read_request(connection)))
    except (OSError, UnicodeDecodeError, Lost) as error:
        say("lost", where, error)
    finally:
        plain.close()


def context(options):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(options.certificate, options.key)
    tls.load_verify_locations(options.ca)
    tls.verify_mode = ssl.CERT_REQUIRED
    if options.tls:
        version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[options.tls]
        tls.minimum_version = tls.maximum_version = version
    return tls


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("host")
    parser.add_argument("port", type=int, help="0: a free one, which the first line tells")
    parser.add_argument("--ca", required=True, help="PEM bundle that devices' certificates are checked against")
    parser.add_argument("--certificate", required=True, help="the server's PEM chain")
    parser.add_argument("--key", required=True, help="the server's private key")
    parser.add_argument("--tls", choices=["1.2", "1.3"], help="this version alone")
    return parser.parse_args()


def main():
    options = arguments()
    tls = context(options)
    with socket.create_server((options.host, options.port)) as listener:
        say("listening on %s:%d" % listener.getsockname()[:2])
        while True:
            plain, address = listener.accept()
            threading.Thread(target=serve, args=(plain, address, tls), daemon=True).start()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
