#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""keepers.py: files that are pinned, have an end, a priority, or lie under a quota, below a
file system that has no room for them, whose processes are killed meanwhile.

  keepers.py make  LEDGER MNT NAME...         their directories
  keepers.py work  LEDGER MNT[:OTHER] NAME... one process each, until there is LEDGER/stop
                                              or the mount has ended
  keepers.py check LEDGER MNT                 after that: what is there is what was promised
  keepers.py rest  LEDGER MNT                 the same, until nothing changes by itself any more
  keepers.py turns MNT                        who has a lower priority goes before others

STRICT=1: nothing is forgotten for want of room. AWAY=1: the mount outlives what it depends on,
so calls may fail, but not for want of room. TORN=1: the mount was told to end, which closes what
is open, as the end of a program would: so it may be published as far as it was written.
TIMEOUT_S=n: what the mounts have for --timeout. SEED=n: the dice.

A file says whose it is, its number, and a checksum, all through (storm.py). Each keeper has
names of its own in four directories, and a ledger outside the mount: for each name what may
be there. One version, as a rule; from the beginning of a change until its end both; and
nothing, where the file may be forgotten. What is seen has to be one of these, and is the only
one then. Names r* are only ever replaced by a rename, so anybody reads them at any time;
names i* are written in place."""
import calendar
import errno
import json
import os
import random
import sys
import time
import traceback

sys.dont_write_bytecode = True
from storm import content  # noqa: E402

DIRS = ["n", "p", "q", "t"]  # where things happen; pinned; with a quota; with an end: at first
NAMES = [f"{kind}{i}" for kind in "ri" for i in range(6)]
SIZES = [200, 4096, 70000, 300000, 500017]
PINNED_MAX = 1 << 20  # of each
FOREVER = -1
LATE_S = 15  # what has an end goes in this time after it, on any host
# No call takes longer (P6) than --timeout, and what it takes on a machine at work until four
# keepers, two mounts and a node have had their turns: single calls are up to a second late then.
CALL_S = float(os.environ.get("TIMEOUT_S", 10)) + 6 * int(os.environ.get("SLOW", 1))
INLINE_MAX = 1024
GONE = (errno.ENOENT, errno.ESTALE)
CUT = (errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV)
STRICT = os.environ.get("STRICT") == "1"
AWAY = os.environ.get("AWAY") == "1"
TORN = os.environ.get("TORN") == "1"
X = "user.slicefs."


class Cut(Exception):
    """The mount has ended."""


class Away(Exception):
    """A call failed, since something is not there for a while."""


class Wrong(Exception):
    pass


# What is said of a file or directory, and of a version ------------------------------------

NOTHING = {"pin": 0, "ttl": 0, "by_use": False, "priority": "normal", "quota": 0}


def text_of(keep, what):
    """As the attribute has it; None: nothing was said."""
    if what == "pin":
        if keep["pin"] == FOREVER:
            return "forever"
        when = time.gmtime(keep["pin"])
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", when) if keep["pin"] else None
    if what == "ttl":
        return f"{keep['ttl']}s" + (" after use" if keep["by_use"] else "") if keep["ttl"] else None
    if what == "priority":
        return keep["priority"] if keep["priority"] != "normal" else None
    return f"{keep['quota'] >> 20}M" if keep["quota"] else None


def texts(keep):
    return {what: text_of(keep, what) for what in ("pin", "ttl", "priority", "quota")}


def is_pinned(v):
    return v is not None and (v["pin"] == FOREVER or time.time() < v["pin"])


def may_be_gone(v, path):
    """Of a version that was there: may it be forgotten by now?"""
    if v is None:
        return True
    if is_pinned(v):
        return False
    if not STRICT or "/q/" in path:
        return True
    # It is counted by a clock that is some milliseconds late.
    return v["ttl"] > 0 and time.time() >= max(v["since"] - 0.02 + v["ttl"], v["pin"])


def has_ended(v, late_s):
    """It ought to have gone by now, so long ago."""
    if v is None or not v["ttl"] or v["pin"] == FOREVER:
        return False
    return time.time() > max(v["until"] + v["ttl"], v["pin"]) + late_s


def number_in(who, data, path):
    """Which version this is. Nothing else than one whole version may be there."""
    words = data[:200].split(b" ")
    at = 0
    try:
        want = content(who, int(words[1]), int(words[2]))
        if want == data:
            return int(words[1])
        at = next((i for i, (a, b) in enumerate(zip(want, data)) if a != b), 0)
    except (ValueError, IndexError):
        pass
    raise Wrong(f"{who}: {path}: not what he has written: {data[:60]!r}, {len(data)} bytes; "
                f"at {at}: {data[at:at + 60]!r}")


class Keeper:
    def __init__(self, ledger, mnt, who, other=None):
        self.file, self.mnt, self.who, self.other = f"{ledger}/{who}", mnt, who, other
        self.dev = os.stat(mnt).st_dev
        with open(self.file) as f:
            s = json.load(f)
        self.names, self.dirs = s["names"], s["dirs"]
        self.number, self.moves, self.temps = s["number"], s["moves"], s["temps"]
        self.everybody, self.torn = s["everybody"], s["torn"]
        self.counts = dict.fromkeys(["written", "read", "gone", "said", "away", "longest"], 0)
        self.log = open(f"{self.file}.log", "a", buffering=1)
        self.busy = None  # a name that is being written, slowly

    def save(self):
        keys = ["names", "dirs", "number", "moves", "temps", "everybody", "torn"]
        with open(self.file + ".new", "w") as f:
            json.dump({k: getattr(self, k) for k in keys}, f)
        os.rename(self.file + ".new", self.file)

    def note(self, *words):
        print(f"{time.time():.3f}", *words, file=self.log)

    def wrong(self, what):
        raise Wrong(f"{self.who}: {what}")

    # Calls --------------------------------------------------------------------------------

    def timed(self, f, *args):
        begun = time.monotonic()
        try:
            return f(*args)
        finally:
            took = time.monotonic() - begun
            self.counts["longest"] = max(self.counts["longest"], took)
            if took > CALL_S:
                self.wrong(f"{f.__name__} {args[0]} took {took:.1f} s")

    def read_all(self, fd):
        parts = []
        while True:
            part = self.timed(os.read, fd, 1 << 20)
            if not part:
                return b"".join(parts)
            parts.append(part)

    def read_keep(self, at):
        """All that is said of what is at a path, or open: as texts."""
        said = {}
        for what in ("pin", "ttl", "priority", "quota"):
            try:
                said[what] = self.timed(os.getxattr, at, X + what).decode()
            except OSError as e:
                if e.errno != errno.ENODATA:
                    raise
                said[what] = None
        return said

    def is_there(self):
        """Cut, if the mount has ended. The kernel may know attributes of what has."""
        try:
            self.timed(os.statvfs, self.mnt)
            if self.timed(os.stat, self.mnt).st_dev == self.dev:
                return
        except OSError as e:
            if AWAY and e.errno == errno.ETIMEDOUT:
                return
            if e.errno not in CUT + GONE:
                raise
        raise Cut()

    def call(self, f, *args):
        return self.judge(self.timed, f, *args)

    def judge(self, f, *args):
        """Where something is away it may fail, but not for want of room, which there is always; else
        only since there is no such file."""
        try:
            return f(*args)
        except OSError as e:
            what = [getattr(a, "__name__", str(a)[:60]) for a in (f, *args) if a != self.timed]
            self.note("  ", *what, e)
            for _ in range(20 if e.errno in CUT else 1):
                self.is_there()
                if e.errno in CUT and not AWAY:
                    time.sleep(0.1)
            if e.errno in (*GONE, errno.ENODATA):
                raise
            if not AWAY or e.errno == errno.ENOSPC:
                self.wrong(f"{' '.join(what)}: {e}")
            self.counts["away"] += 1
            raise Away(str(e)) from e

    def path(self, name):
        return f"{self.mnt}/{self.who}/{name}"

    # What is there ---------------------------------------------------------------------------

    def absent(self, name):
        v = self.names[name]
        if not any(may_be_gone(x, f"/{name}") for x in v):
            self.wrong(f"{name} is not there; it was {v}")
        self.counts["gone"] += 1
        self.names[name] = [None]

    def look(self, name):
        """Opens and reads it; what is there is the only thing that may be, from then on."""
        try:
            fd = self.call(os.open, self.path(name), os.O_RDONLY)
        except OSError:
            return self.absent(name)
        try:
            data = self.judge(self.read_all, fd)
            said = self.judge(self.read_keep, fd)
        finally:
            self.timed(os.close, fd)
        if TORN and self.is_torn(name, data):
            self.timed(os.unlink, self.path(name))
            self.names[name] = [None]
            return None
        n = number_in(self.who, data, name)
        for v in self.names[name]:
            if v and v["number"] == n and texts(v) == said:
                self.counts["read"] += 1
                if v["by_use"]:
                    v["until"] = time.time()
                self.names[name] = [v]
                return None
        return self.wrong(f"{name} is version {n}, {said}; it was {self.names[name]}")

    def is_torn(self, name, data):
        """Of a write that was not ended: some of the new version, or nothing yet, over the old one,
        or where there was none."""
        if name not in self.torn:
            return False
        new, old = [content(self.who, v["number"], v["size"]) if v else None
                    for v in self.torn[name]]
        n = next((i for i, (a, b) in enumerate(zip(new, data)) if a != b), min(len(new), len(data)))
        return data != old and data[n:] == (old or b"")[n:][:len(data) - n]

    def look_at_dir(self, d):
        said = self.judge(self.read_keep, self.path(d))
        for keep in self.dirs[d]:
            if texts(keep) == said:
                self.dirs[d] = [keep]
                return
        self.wrong(f"directory {d} has {said}; it was {self.dirs[d]}")

    def settle(self):
        """Whatever is not known for certain, after a call that failed."""
        for d in DIRS:
            if len(self.dirs[d]) > 1:
                self.look_at_dir(d)
        for name in self.names:
            if len(self.names[name]) > 1 and name != self.busy:
                self.look(name)
        for name in [n for n in self.torn if n != self.busy]:
            self.look(name)
            self.torn.pop(name, None)
        for a, b, v in self.moves:
            at = [x for x in (a, b) for w in self.names[x] if w and w["number"] == v["number"]]
            if len(at) > 1 or (not at and not may_be_gone(v, f"/{a}")):
                self.wrong(f"{a} was moved to {b}, and is at {at}: {v}")
        self.moves = []
        for temp, was_closed in list(self.temps.items()):
            try:
                self.call(os.unlink, self.path(temp))
                if not was_closed and not TORN:
                    self.wrong(f"{temp} was never closed, and is there")
            except OSError:
                pass
            del self.temps[temp]

    # What is done ----------------------------------------------------------------------------

    def version(self, d, size, keep):
        self.number += 1
        now = time.time()
        return {"number": self.number, "size": size, **keep, "quota": 0, "since": now, "until": now}

    def is_certain(self, name):
        return len(self.names[name]) == 1 and name != self.busy

    def known(self, name):
        return self.names[name][0] if self.is_certain(name) else None

    def change(self, name, before, after):
        """From now on it may be this, too."""
        self.names[name] = before + [after]

    def pinned_bytes(self):
        return sum(max(v["size"] if v and v["pin"] else 0 for v in all)
                   for all in self.names.values())

    def size_for(self, keep):
        size = self.dice.choice(SIZES)
        return size if not keep["pin"] or self.pinned_bytes() + size < PINNED_MAX else 200

    def write(self, fd, data):
        while data:
            n = self.dice.choice([4096, 65536, 1 << 20])
            self.call(os.write, fd, data[:n])
            data = data[n:]

    def publish(self, fd, name, before, v, data):
        """Writes it, syncs it or not, and closes it. What is not written in full is nowhere."""
        self.write(fd, data)
        self.call(os.ftruncate, fd, v["size"])
        v["since"] = time.time()
        if name in self.names:
            self.change(name, before, v)
        else:
            self.temps[name] = True
        v["until"] = v["since"] + LATE_S  # of one whose end nobody has seen
        if self.dice.random() < 0.2:
            self.call(os.fsync, fd)
        self.note("closes", name, v["number"])
        self.call(os.close, fd)
        self.torn.pop(name, None)
        v["until"] = time.time()
        self.counts["written"] += 1
        if name in self.names:
            self.names[name] = [v]

    def close_quietly(self, fd):
        try:
            self.timed(os.close, fd)
        except OSError:
            pass

    def put(self, name):
        """Under another name first."""
        if not self.is_certain(name):
            return
        d = name.split("/")[0]
        keep = self.dirs[d][0]
        v = self.version(d, self.size_for(keep), keep)
        temp = f"{d}/{v['number']}.tmp"
        self.note("puts", name, v)
        self.temps[temp] = False
        fd = self.call(os.open, self.path(temp), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        try:
            self.publish(fd, temp, [], v, content(self.who, v["number"], v["size"]))
        except Exception:
            self.close_quietly(fd)
            raise
        before = self.names[name]
        self.change(name, before, v)
        try:
            self.call(os.rename, self.path(temp), self.path(name))
        except OSError:
            if not may_be_gone(v, f"/{temp}"):
                self.wrong(f"{temp} is not there; it was {v}")
            self.names[name] = before
        else:
            self.names[name] = [v]
        del self.temps[temp]

    def begin(self, name):
        """To write it in place, or make it: its descriptor and the version it will be."""
        d, now = name.split("/")[0], self.names[name][0]
        if now is None:
            keep = self.dirs[d][0]
            flags = os.O_CREAT | os.O_EXCL
        else:
            keep = {k: now[k] for k in NOTHING}
            flags = self.dice.choice([0, os.O_TRUNC])
        v = self.version(d, self.size_for(keep), keep)
        self.note("writes", name, v, "for", now)
        self.torn[name] = [v, now]
        try:
            fd = self.call(os.open, self.path(name), flags | os.O_WRONLY)
        except OSError:
            self.absent(name)
            return -1, None
        return fd, v

    def overwrite(self, name):
        if not self.is_certain(name):
            return
        fd, v = self.begin(name)
        if fd < 0:
            return
        try:
            self.publish(fd, name, self.names[name], v,
                         content(self.who, v["number"], v["size"]))
        except Exception:
            self.close_quietly(fd)
            raise

    def overwrite_slowly(self, name):
        """Others go on meanwhile, and whoever ends the mount may come before its end."""
        if self.busy or not self.is_certain(name):
            return
        fd, v = self.begin(name)
        if fd < 0:
            return
        self.busy, self.slow = name, (fd, v, content(self.who, v["number"], v["size"]))
        self.end_at = self.dice.randrange(5, 40)
        self.call(os.write, fd, self.slow[2][:v["size"] // 2])

    def end_slowly(self):
        name, (fd, v, data) = self.busy, self.slow
        self.busy = None
        try:
            self.call(os.lseek, fd, 0, os.SEEK_SET)
            self.publish(fd, name, self.names[name], v, data)
        except Exception:
            self.close_quietly(fd)
            raise

    def move(self, a, b):
        """r* to r*: who reads b while it is written in place would see that."""
        if a == b or not self.known(a) or not self.is_certain(b):
            return
        v, before = self.names[a][0], self.names[b]
        self.note("moves", a, b, v)
        self.moves = [(a, b, v)]
        self.names[a], self.names[b] = [v, None], before + [v]
        try:
            self.call(os.rename, self.path(a), self.path(b))
        except OSError:
            self.names[a], self.names[b] = [v], before
            self.absent(a)
        else:
            self.names[a], self.names[b] = [None], [v]
        self.moves = []

    def unlink(self, name):
        if not self.known(name):
            return
        before = self.names[name]
        self.note("unlinks", name)
        self.change(name, before, None)
        try:
            self.call(os.unlink, self.path(name))
        except OSError:
            self.names[name] = before
            self.absent(name)
        self.names[name] = [None]

    def choose(self, keep, size, may_quota):
        """Something else to say: what, the value or None, and what it comes to."""
        what = self.dice.choice(["pin", "pin", "ttl", "priority"] + ["quota"] * may_quota)
        new = dict(keep)
        if text_of(keep, what) is not None and self.dice.random() < 0.5:
            new.update({k: NOTHING[k] for k in ([what] if what != "ttl" else ["ttl", "by_use"])})
            return what, None, new
        if what == "pin":
            if self.pinned_bytes() + size > PINNED_MAX:
                return None
            new["pin"] = self.dice.choice([FOREVER, int(time.time()) + self.dice.randrange(1, 5)])
            return what, "forever" if new["pin"] == FOREVER else f"@{new['pin']}", new
        if what == "ttl":
            new["ttl"], new["by_use"] = self.dice.randrange(1, 4), self.dice.random() < 0.4
        elif what == "priority":
            new["priority"] = self.dice.choice(["low", "high"])
        else:
            new["quota"] = self.dice.randrange(1, 4) << 20
        return what, text_of(new, what), new

    def say_it(self, path, chosen):
        what, value, _ = chosen
        if value is None:
            self.call(os.removexattr, path, X + what)
        else:
            self.call(os.setxattr, path, X + what, value.encode())
        self.counts["said"] += 1

    def say(self, name):
        """Of a file."""
        v = self.known(name)
        chosen = v and self.choose(v, v["size"], False)
        if not chosen:
            return
        what, _, new = chosen
        self.note("says", name, chosen[:2], v)
        if what == "ttl":
            new["since"], new["until"] = time.time(), time.time() + LATE_S
        self.change(name, [v], new)
        try:
            self.say_it(self.path(name), chosen)
        except OSError as e:
            if e.errno == errno.ENODATA:
                self.wrong(f"{name} has no {what} to be removed; it was {v}")
            self.names[name] = [v]
            self.absent(name)
            return
        if what == "ttl":
            new["until"] = time.time()
        self.names[name] = [new]

    def say_of_dir(self, d):
        keep = self.dirs[d][0]
        chosen = self.choose(keep, 0, d == "q")
        if not chosen:
            return
        self.note("says", d, chosen[:2], keep)
        self.dirs[d] = [keep, chosen[2]]
        try:
            self.say_it(self.path(d), chosen)
        except OSError as e:
            self.wrong(f"directory {d}, which has {keep}: {chosen[:2]}: {e}")
        self.dirs[d] = [chosen[2]]

    def read_another(self):
        """What is somebody else's is whole, whoever he is, and by whichever mount."""
        who, d = self.dice.choice(self.everybody), self.dice.choice(DIRS)
        path = f"{self.who_reads()}/{who}/{d}/r{self.dice.randrange(6)}"
        try:
            fd = self.timed(os.open, path, os.O_RDONLY)
        except OSError as e:
            return self.read_failed(path, e)
        try:
            number_in(who, self.read_all(fd), path)
        except OSError as e:
            self.read_failed(path, e)
        finally:
            self.timed(os.close, fd)
        return None

    def who_reads(self):
        return self.other if self.other and self.dice.random() < 0.5 else self.mnt

    def read_failed(self, path, e):
        self.is_there()
        if e.errno not in GONE and not AWAY:
            self.wrong(f"{path}: {e}")

    def look_from_elsewhere(self, name):
        """What was closed here is opened there (P2)."""
        v = self.known(name)
        if not self.other or not v:
            return
        try:
            fd = self.timed(os.open, f"{self.other}/{self.who}/{name}", os.O_RDONLY)
        except OSError as e:
            # The other mount may have ended, and its directory be empty.
            if e.errno in GONE and self.timed(os.path.isdir, f"{self.other}/{self.who}"):
                self.absent(name)
            return
        try:
            n = number_in(self.who, self.read_all(fd), name)
        except OSError:
            return
        finally:
            self.timed(os.close, fd)
        if n != v["number"]:
            self.wrong(f"{name}: elsewhere it is version {n}; it was {v}")

    # All together ------------------------------------------------------------------------

    def step(self):
        dice, d = self.dice.random(), self.dice.choice(DIRS)
        name = f"{d}/{self.dice.choice(NAMES)}"
        if self.busy:
            self.end_at -= 1
        if self.busy and self.end_at < 0:
            self.end_slowly()
        elif dice < 0.30:
            self.put(name) if "/r" in name else self.overwrite(name)
        elif dice < 0.33 and "/i" in name:
            self.overwrite_slowly(name)
        elif dice < 0.50:
            if self.is_certain(name):
                self.look(name)
        elif dice < 0.60:
            self.read_another()
        elif dice < 0.65:
            self.look_from_elsewhere(name)
        elif dice < 0.75:
            self.move(f"{d}/r{self.dice.randrange(6)}",
                      f"{self.dice.choice(DIRS)}/r{self.dice.randrange(6)}")
        elif dice < 0.79:
            self.unlink(name)
        elif dice < 0.96:
            self.say(name)
        else:
            self.say_of_dir(d)

    def work(self, stop):
        self.dice = random.Random(f"{os.environ.get('SEED')} {self.who} {self.number}")
        unsettled = True
        while not os.path.exists(stop):
            try:
                if unsettled:
                    self.settle()
                    unsettled = False
                self.step()
            except Away as e:
                self.note("   away:", e)
                unsettled = True
                time.sleep(0.05)
        if self.busy:
            self.end_slowly()

    def end(self):
        """The mount has ended, but what is open may be written yet (umount --lazy)."""
        if not self.busy:
            return
        try:
            self.end_slowly()
            self.note("   closed after the end")
        except (Cut, Away, OSError) as e:
            self.note("   not closed after the end:", repr(e))

    def tell(self, what):
        """What was done to what is wrong, and last of all."""
        with open(self.file + ".log") as f:
            lines = f.readlines()
        words = [w for w in str(what).replace(":", " ").split() if w in self.names]
        lines = [x for i, x in enumerate(lines)
                 if i >= len(lines) - 8 or any(w in x for w in words)]
        print(f"# {what}\n" + "".join(f"# {x[:500]}" for x in lines[-40:]), end="")

    # After the end ------------------------------------------------------------------------

    def check(self):
        for d in DIRS:
            self.look_at_dir(d)
        for name in self.names:
            self.look(name)
        self.settle()
        for d in DIRS:
            for name in self.timed(os.listdir, self.path(d)):
                if self.names.get(f"{d}/{name}", [None]) == [None]:
                    self.wrong(f"{d}/{name} is there, and nobody has made it")

    def is_here(self, name):
        try:
            return self.timed(os.stat, self.path(name))
        except OSError as e:
            if e.errno not in GONE:
                raise
            return None

    def overdue(self, late_s=0):
        return [n for n, v in self.names.items() if has_ended(v[0], late_s) and self.is_here(n)]

    def over_quota(self):
        """Directories with more than they may have, or counted wrongly."""
        bad = []
        for d in DIRS:
            quota = self.dirs[d][0]["quota"]
            if not quota:
                continue
            used, there, can_go = int(os.getxattr(self.path(d), X + "used")), 0, False
            for name in self.timed(os.listdir, self.path(d)):
                st = self.is_here(f"{d}/{name}")
                if not st or st.st_size <= INLINE_MAX:
                    continue
                if os.getxattr(self.path(f"{d}/{name}"), X + "location") == b"memory":
                    there += st.st_blocks * 512
                    can_go |= not is_pinned(self.names.get(f"{d}/{name}", [None])[0])
            if used != there or (used > quota and can_go):
                bad.append(f"{d}: {used} of {quota}, and there are {there}")
        return bad


# Commands ---------------------------------------------------------------------------------


def all_of(ledger, mnt):
    names = sorted(x for x in os.listdir(ledger) if x.isalnum() and x != "stop")
    return [Keeper(ledger, mnt, x) for x in names]


def make(ledger, mnt, everybody):
    for who in everybody:
        at = {d: [dict(NOTHING)] for d in DIRS}
        at["p"][0]["pin"] = FOREVER
        at["q"][0]["quota"] = 1 << 20
        at["t"][0]["ttl"] = 3
        for d in DIRS:
            os.makedirs(f"{mnt}/{who}/{d}")
            for what, value in texts(at[d][0]).items():
                if value:
                    os.setxattr(f"{mnt}/{who}/{d}", X + what, value.encode())
        state = {"names": {f"{d}/{n}": [None] for d in DIRS for n in NAMES}, "dirs": at,
                 "number": 0, "moves": [], "temps": {}, "everybody": everybody, "torn": {}}
        with open(f"{ledger}/{who}", "w") as f:
            json.dump(state, f)


def work_as(ledger, mnt, other, who):
    k = Keeper(ledger, mnt, who, other)
    open(f"{ledger}/{who}.at-work", "w").close()
    status = 0
    try:
        k.work(f"{ledger}/stop")
    except Cut:
        k.end()
    except Wrong as e:
        k.tell(e)
        status = 1
    k.save()
    os.unlink(f"{ledger}/{who}.at-work")
    print(f"# {who}: " + ", ".join(f"{n:.4g} {what}" for what, n in k.counts.items()), flush=True)
    return status


def work(ledger, mnts, names):
    mnt, _, other = mnts.partition(":")
    pids = []
    for who in names:
        pid = os.fork()
        if not pid:
            status = 1
            try:
                status = work_as(ledger, mnt, other, who)
            except BaseException:
                traceback.print_exc(file=sys.stdout)
            finally:
                sys.stdout.flush()
                os._exit(status)
        pids.append(pid)
    return any([os.waitpid(pid, 0)[1] for pid in pids])


def until_none(what, f, seconds):
    end = time.monotonic() + seconds
    while True:
        left = f()
        if not left:
            return
        if time.monotonic() > end:
            raise Wrong(f"{what} after {seconds} s: {left}")
        time.sleep(0.2)


def check_all(all, rest):
    for k in all:
        k.check()
    for k in all:
        until_none(f"{k.who}: has lived, and is there", k.overdue, LATE_S)
    for k in all:
        until_none(f"{k.who}: quotas", k.over_quota, 10)
    if rest:
        wait_for_ends(all)
        for k in all:
            k.check()


def check(ledger, mnt, rest):
    all = all_of(ledger, mnt)
    try:
        check_all(all, rest)
    except Wrong as e:
        for k in all:
            if str(e).startswith(k.who):
                k.tell(e)
        raise
    for k in all:
        k.save()
    there = [v for k in all for v in k.names.values() if v != [None]]
    print(f"# {len(there)} files there, {sum(is_pinned(v[0]) for v in there)} pinned, "
          f"{sum(v[0]['ttl'] > 0 for v in there)} with an end")


def wait_for_ends(all):
    """With nobody about: who has no end stays, and all others go."""
    time.sleep(1)
    there = [(k, n, k.names[n][0]) for k in all for n in k.names if k.is_here(n)]
    ends = [max(v["until"] + v["ttl"], v["pin"]) for _, _, v in there
            if v["ttl"] and v["pin"] != FOREVER]
    time.sleep(max([0] + [x - time.time() for x in ends]) + 0.1)
    for k in all:
        until_none(f"{k.who}: has lived, and is there", k.overdue, LATE_S)
    for k, n, v in there:
        if not k.is_here(n) and (is_pinned(v) or not v["ttl"]) and "q/" not in n:
            k.wrong(f"{n} has gone, though nobody had wanted room: {v}")


def turns(mnt):
    """Files of all priorities, and then more, until some of them have gone."""
    rank = {"low": 0, "normal": 1, "high": 2}
    size, there = 100000, {}
    dir = f"{mnt}/turns"
    os.mkdir(dir)

    def put(name, priority):
        with open(f"{dir}/{name}", "wb") as f:
            f.write(content(name, 1, size))
        if priority != "normal":
            os.setxattr(f"{dir}/{name}", X + "priority", priority.encode())
        there[name] = priority

    for i in range(24):
        for priority in rank:
            put(f"{priority}{i}", priority)
    for i in range(400):
        put(f"more{i}", "normal")
    left, before = set(os.listdir(dir)), None
    while left != before:  # eviction goes on for a moment
        time.sleep(1)
        left, before = set(os.listdir(dir)), left
    count = {p: sum(there[n] == p for n in left) for p in rank}
    print(f"# left of each priority: {count}, of {len(there)} files")
    if len(left) == len(there):
        raise Wrong("nothing has gone")
    for name in set(there) - left:
        for p in rank:
            if rank[p] < rank[there[name]] and count[p]:
                raise Wrong(f"{name} has gone, and there are {count[p]} of priority {p}")
    for name in left:
        with open(f"{dir}/{name}", "rb") as f:
            number_in(name, f.read(), name)


def main():
    command, *args = sys.argv[1:]
    try:
        if command == "make":
            make(args[0], args[1], args[2:])
        elif command == "work":
            sys.exit(work(args[0], args[1], args[2:]))
        elif command == "turns":
            turns(args[0])
        else:
            check(args[0], args[1], command == "rest")
    except Wrong as e:
        sys.exit(f"# {e}")


if __name__ == "__main__":
    main()
