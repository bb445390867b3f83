#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""storm.py DIR SECONDS: four processes put files under temporary names and move them in
place, read them, some mapped, and remove some, while the file system forgets what it has no
room for. Each file says what it is: its name, a number and a checksum, all through. A file
that is there is whole; the only error is that it is not there."""
import errno
import hashlib
import mmap
import os
import random
import sys
import time

NAMES = 60


def content(name, number, size):
    head = f"{name} {number} {size} ".encode()
    head += hashlib.blake2b(head, digest_size=16).hexdigest().encode() + b"\n"
    return (head * (size // len(head) + 1))[:size]


def check(name, data):
    words = data[:200].split(b" ")
    if len(words) < 4 or content(name, int(words[1]), int(words[2])) != data:
        sys.exit(f"{name}: not what was written: {data[:80]!r}, {len(data)} bytes")


def put(dir, name, number):
    size = random.choice([200, 4096, 70000, 1 << 20, (1 << 20) + 17])
    tmp = f"{dir}/tmp-{os.getpid()}"
    with open(tmp, "wb") as f:
        f.write(content(name, number, size))
    try:
        os.rename(tmp, f"{dir}/{name}")
    except FileNotFoundError:
        pass  # it had been published, and was forgotten


def get(dir, name):
    with open(f"{dir}/{name}", "rb") as f:
        size = os.fstat(f.fileno()).st_size
        if random.random() < 0.3 and size:
            with mmap.mmap(f.fileno(), size, prot=mmap.PROT_READ) as m:
                check(name, bytes(m))
        else:
            check(name, f.read())


def work(dir, seconds, which):
    random.seed(f"{which} {os.environ.get('SEED', '')}")
    end, number, hits, misses = time.monotonic() + seconds, 0, 0, 0
    while time.monotonic() < end:
        name = f"f{random.randrange(NAMES)}"
        dice = random.random()
        if dice < 0.4:
            number += 1
            put(dir, name, number)
            continue
        try:
            if dice < 0.95:
                get(dir, name)
            else:
                os.unlink(f"{dir}/{name}")
            hits += 1
        except OSError as e:
            if e.errno != errno.ENOENT:
                sys.exit(f"{name}: {e}")
            misses += 1
    print(f"{number} written, {hits} read, {misses} not there")
    if not number or not hits or not misses:
        sys.exit("nothing came of it")


def main():
    dir, seconds = sys.argv[1], float(sys.argv[2])
    pids = []
    for which in range(4):
        pid = os.fork()
        if not pid:
            work(dir, seconds, which)
            os._exit(0)
        pids.append(pid)
    status = [os.waitpid(pid, 0)[1] for pid in pids]
    sys.exit(1 if any(status) else 0)


if __name__ == "__main__":
    main()
