#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""storm.py DIR SECONDS: four processes put files under temporary names and move them in
place, write over some, read them, some mapped, and remove some, while the file system forgets
what it has no room for. Each file says what it is: its name, a number and a checksum, all through.
A file that is there is whole; one that only its reader writes is what that one wrote last; the only
error is that it is not there. Nothing takes longer than the limit."""
import argparse
import errno
import hashlib
import mmap
import os
import random
import sys
import time


def content(name, number, size):
    head = f"{name} {number} {size} ".encode()
    head += hashlib.blake2b(head, digest_size=16).hexdigest().encode() + b"\n"
    return (head * (size // len(head) + 1))[:size]


class Storm:
    def __init__(self, opts, which):
        self.opts, self.which = opts, which
        self.written = self.number = self.hits = self.misses = self.failed = 0
        self.last = {}  # of names that are this one's only: the number of what is there

    def check(self, name, data):
        words = data[:200].split(b" ")
        if len(words) < 4 or content(name, int(words[1]), int(words[2])) != data:
            sys.exit(f"{name}: not what was written: {data[:80]!r}, {len(data)} bytes")
        if name.startswith("own") and int(words[1]) != self.last.get(name):
            sys.exit(f"{name}: number {int(words[1])}, and not {self.last.get(name)}")

    def data(self, name):
        self.number += 1
        data = content(name, self.number, random.choice(self.opts.sizes))
        self.written += len(data)
        return data

    def put(self, name):
        tmp = f"{self.opts.dir}/tmp-{os.getpid()}"
        with open(tmp, "wb", buffering=0) as f:
            f.write(self.data(name))
        try:
            os.rename(tmp, f"{self.opts.dir}/{name}")
        except FileNotFoundError:
            return  # it had been published, and was forgotten
        self.last[name] = self.number

    def put_over(self, name):
        f = self.open(name, "wb")
        if f:
            with f:
                f.write(self.data(name))
            self.last[name] = self.number

    def open(self, name, mode):
        try:
            return open(f"{self.opts.dir}/{name}", mode, buffering=0)
        except OSError as e:
            if errno.errorcode[e.errno] not in self.opts.may:
                raise
            self.failed += 1
        return None

    def get(self, name):
        f = self.open(name, "rb")
        if not f:
            return
        with f:
            size = os.fstat(f.fileno()).st_size
            if random.random() < 0.3 and size:
                with mmap.mmap(f.fileno(), size, prot=mmap.PROT_READ) as m:
                    self.check(name, bytes(m))
            else:
                self.check(name, f.read())
        self.hits += 1

    def step(self):
        name, is_own = f"f{random.randrange(self.opts.names)}", random.random() < 0.5
        if is_own:
            name = f"own{self.which}-{name}"
        dice = random.random()
        try:
            if dice < 0.3:
                self.put(name)
            elif dice < 0.4 and is_own:  # others on this mount would see it half-written (P3)
                self.put_over(name)
            elif dice < 0.95:
                self.get(name)
            else:
                os.unlink(f"{self.opts.dir}/{name}")
                self.last.pop(name, None)
        except FileNotFoundError:
            self.last.pop(name, None)  # and it does not come back
            self.misses += 1

    def has_come(self):
        return self.number and self.hits and self.misses and self.written >= self.opts.bytes

    def run(self):
        random.seed(f"{self.which} {os.environ.get('SEED', '')}")
        worst, begun = 0, time.monotonic()
        while (now := time.monotonic()) < begun + self.opts.seconds or (
            not self.has_come() and now < begun + 60 * self.opts.seconds  # where all is slow
        ):
            try:
                self.step()
            except OSError as e:
                sys.exit(f"after {time.monotonic() - now:.1f} s: {e}")
            worst = max(worst, time.monotonic() - now)
        print(
            f"{self.number} written, {self.written >> 20} MiB, {self.hits} read, "
            f"{self.misses} not there, {self.failed} failed, the longest took {worst:.2f} s"
        )
        if worst > self.opts.limit:
            sys.exit("that is too long")
        if not self.has_come():
            sys.exit("nothing came of it")


def options():
    p = argparse.ArgumentParser()
    p.add_argument("dir")
    p.add_argument("seconds", type=float)
    p.add_argument("--names", type=int, default=60)
    p.add_argument("--sizes", type=lambda s: [int(n) for n in s.split(",")])
    p.add_argument("--bytes", type=int, default=0, help="each writes at least so many")
    p.add_argument("--limit", type=float, default=10, help="seconds, of anything that is done")
    p.add_argument("--may", default="", help="other errors of open: EIO,...")
    opts = p.parse_args()
    opts.sizes = opts.sizes or [200, 4096, 70000, 1 << 20, (1 << 20) + 17]
    opts.may = opts.may.split(",")
    return opts


def main():
    opts = options()
    pids = []
    for which in range(4):
        pid = os.fork()
        if not pid:
            Storm(opts, which).run()
            sys.stdout.flush()
            os._exit(0)
        pids.append(pid)
    status = [os.waitpid(pid, 0)[1] for pid in pids]
    sys.exit(1 if any(status) else 0)


if __name__ == "__main__":
    main()
