#!/usr/bin/env python3
"""A plain classic device: what an older fleet's program does, over Python's ssl module and nothing else.

It has the habits that a server has to live with: no ALPN, a heartbeat and a question for the time before it
registers, REGISTER once per process and not again after a reconnect, requests written without waiting for answers,
and the four length bytes of an answer read in a single recv. Every event is one line on standard output.
"""

import argparse
import select
import socket
import ssl
import struct
import sys
import threading

CLIENT_ID = 0
REGISTER, HEARTBEAT, DATETIME = 0, 1, 2
NAMES = {REGISTER: "register", HEARTBEAT: "heartbeat", DATETIME: "datetime"}
HEARTBEAT_SECONDS = 3
HEARTBEATS_PER_DATETIME = 10
RECONNECT_SECONDS = 2
CONNECT_SECONDS = 10


def say(*words):
    # In one piece, or another thread's words come in between.
    sys.stdout.write(" ".join(map(str, words)).rstrip() + "\n")
    sys.stdout.flush()


def request(message, payload=b""):
    """One request as a whole frame: length, client id, message id, payload."""
    return struct.pack(">Ibb", 2 + len(payload), CLIENT_ID, message) + payload


class Lost(Exception):
    """The session is over; the text says why."""


class Session:
    """One TLS session, read by the main thread and written by the heartbeat thread.

    OpenSSL forbids two threads inside one connection at a time, so the socket never blocks: each call into OpenSSL
    is short and under the lock, and waiting happens outside of it.
    """

    def __init__(self, connection):
        connection.setblocking(False)
        self.connection = connection
        self.inside = threading.Lock()
        self.over = threading.Event()

    def recv(self, limit):
        while True:
            try:
                with self.inside:
                    data = self.connection.recv(limit)
            except ssl.SSLWantReadError:
                select.select([self.connection], [], [])
                continue
            if not data:
                raise Lost("closed by the server")
            return data

    def send(self, frame):
        while True:
            try:
                with self.inside:
                    self.connection.sendall(frame)
                return
            except ssl.SSLWantWriteError:
                select.select([], [self.connection], [])

    def read_reply(self):
        """One answer: length, message id, error code, payload."""
        field = self.recv(4)
        if len(field) != 4:
            raise Lost(f"the length came in pieces: {field.hex()}")
        (length,) = struct.unpack(">I", field)
        body = b""
        while len(body) < length:
            body += self.recv(length - len(body))
        message, code = struct.unpack(">bb", body[:2])
        return message, code, body[2:].decode("ascii")

    def keep_alive(self, register, every):
        """The heartbeat thread: a heartbeat at once and every so many seconds, a question for the time now and then."""
        try:
            beats = 0
            while True:
                self.send(request(HEARTBEAT))
                if beats % HEARTBEATS_PER_DATETIME == 0:
                    self.send(request(DATETIME))
                if beats == 0 and register is not None:
                    self.send(register)
                    say("sent register")
                beats += 1
                if self.over.wait(every):
                    return
        except OSError as error:
            # The main thread finds the same end while reading and speaks of it.
            say("could not send:", error)


def context(options):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.load_verify_locations(options.ca)
    tls.load_cert_chain(options.certificate, options.key)
    if options.tls:
        version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[options.tls]
        tls.minimum_version = tls.maximum_version = version
    return tls


def run_session(options, tls, register, registered):
    """From connecting to the end of the session, which is always an exception."""
    with socket.create_connection((options.host, options.port), timeout=CONNECT_SECONDS) as plain:
        with tls.wrap_socket(plain, server_hostname=options.name or options.host) as connection:
            say("connected", connection.version())
            session = Session(connection)
            writer = threading.Thread(target=session.keep_alive, args=(register, options.every), daemon=True)
            writer.start()
            try:
                while True:
                    message, code, payload = session.read_reply()
                    say("reply", NAMES.get(message, message), code, payload)
                    if message == REGISTER and code == 0:
                        registered.set()
            finally:
                session.over.set()
                writer.join(timeout=CONNECT_SECONDS)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--ca", required=True, help="PEM bundle that the server's certificate is checked against")
    parser.add_argument("--certificate", required=True, help="the device's PEM chain")
    parser.add_argument("--key", required=True, help="the device's private key")
    parser.add_argument("--name", help="the name in the server's certificate; default: the host")
    parser.add_argument("--imei", required=True, help="15 digits")
    parser.add_argument("--app-id", default="996da38d-a7be-4947-aa4c-f8208b5f4ade", help="a UUID")
    parser.add_argument("--every", type=float, default=HEARTBEAT_SECONDS, help="seconds between heartbeats")
    parser.add_argument("--tls", choices=["1.2", "1.3"], help="this version alone")
    return parser.parse_args()


def main():
    options = arguments()
    tls = context(options)
    register = request(REGISTER, options.app_id.encode("ascii") + options.imei.encode("ascii"))
    registered = threading.Event()
    pause = threading.Event()
    while True:
        try:
            run_session(options, tls, None if registered.is_set() else register, registered)
        except (OSError, Lost) as error:
            say("lost:", error)
        pause.wait(RECONNECT_SECONDS)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
