# SPDX-License-Identifier: Apache-2.0
"""A mount's end of docs/protocol.md, as far as the tests of a node need it; written
from that page alone, so that it also tests the page.

    m = wire.Mount("127.0.0.1:7747", token=b"...")
    m.stat()["free"]
"""
import hashlib
import hmac
import os
import socket
import struct

HELLO, CHALLENGE, PROOF, WELCOME = 1, 2, 3, 4
VERSION = 6
PING, BYE, STAT = 16, 17, 18
ALLOC, SEAL, PIN, UNPIN = 32, 33, 34, 35
HEADER = struct.Struct("<IHHQiI")


def connect(at, timeout=20):
    host, port = at.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout)


class Refused(Exception):
    pass


class Mount:
    def __init__(self, at, token=None, name=b"test"):
        self.s = connect(at)
        self.key = hashlib.blake2b(token, digest_size=32).digest() if token else bytes(32)
        self.id = 0
        self.begin(name)

    def begin(self, name):
        hello = struct.pack("<8sHHIBBHQI32sH", b"slicefs", VERSION, VERSION, 0, 0, 0, 0, 0, 0,
                            os.urandom(32), len(name)) + name
        self.send(HELLO, hello)
        challenge = self.receive(CHALLENGE)
        said, proof = challenge[:40], challenge[40:]
        said = said[:2] + said[4:]  # without its zero
        if not hmac.compare_digest(proof, self.prove(b"N", hello, said)):
            raise Refused("the node has another token")
        self.send(PROOF, self.prove(b"M", hello, said) + bytes(32))
        welcome = self.receive(WELCOME)
        self.session, _, _, self.pages = struct.unpack_from("<QQQI", welcome)

    def prove(self, side, hello, said):
        return hmac.new(self.key, side + hello + said, hashlib.sha512).digest()[:32]

    def send(self, kind, body=b"", number=0):
        self.s.sendall(HEADER.pack(len(body), kind, 0, number, 0, 0) + body)

    def read(self, n):
        got = b""
        while len(got) < n:
            more = self.s.recv(n - len(got))
            if not more:
                raise Refused("the node closed the connection")
            got += more
        return got

    def receive(self, kind):
        length, got, _, _, self.result, _ = HEADER.unpack(self.read(HEADER.size))
        body = self.read(length)
        assert got == kind, (got, kind)
        return body

    def ask(self, kind, body=b""):
        self.id += 1
        self.send(kind, body, self.id)
        return self.receive(kind)

    def stat(self):
        names = ("total", "free", "evictable", "evictable_objects", "evict_dirs", "index_size",
                 "index_used", "keys", "session_keys")
        return dict(zip(names, struct.unpack_from("<9Q", self.ask(STAT))))

    def alloc(self, pages):
        """A slice: (page, gen, pages)."""
        n, *one = struct.unpack("<HIII", self.ask(ALLOC, struct.pack("<HI", 1, pages)))
        assert n == 1
        return tuple(one)

    def seal(self, one):
        return struct.unpack("<Hi", self.ask(SEAL, struct.pack("<HIII", 1, *one)))[1]

    def unpin(self, one):
        self.send(UNPIN, struct.pack("<HII", 1, *one[:2]))

    def is_closed(self):
        """By the node; waits for it."""
        try:
            while self.s.recv(65536):
                pass
        except ConnectionError:
            pass
        return True
