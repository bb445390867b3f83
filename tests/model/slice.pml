/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A slice's life in one process (engine/pool.h, engine/publish.c, engine/drop.c):
 * pins as ownership, references counted in memory, the index as the truth after
 * a restart. One name, NSL slices; two writers overwrite the name (alloc, write,
 * seal, publish), a reader opens it (pin) and reads, somebody unlinks it; the
 * daemon may be killed at any step and starts again from the index.
 *
 * Checked: a reader that has pinned reads the bytes of the version that it opened
 * (P1, I4); after a restart exactly what the index names is not free (I2, P5,
 * P8); at the end nothing is held and nothing leaked (P10).
 *
 * Guards, each of which -D<GUARD>=0 takes out, after which the model must fail:
 *	PINS     a slice is freed only when its last pin goes
 *	GENCHK   a pin names the generation, and is refused when stale
 *	REFSFIRST references are added before the transaction that publishes
 *	SEALED   a version is published only when its bytes are placed
 *	REBUILD  after a restart what the index does not name is free
 */
#ifndef PINS
#define PINS 1
#endif
#ifndef GENCHK
#define GENCHK 1
#endif
#ifndef REFSFIRST
#define REFSFIRST 1
#endif
#ifndef SEALED
#define SEALED 1
#endif
#ifndef REBUILD
#define REBUILD 1
#endif
#define NSL 3
#define NONE 9

byte used[NSL];		/* 1: not FREE */
byte pins[NSL], gen[NSL], content[NSL];
short refs[NSL];
byte name = NONE, name_gen, name_version;	/* the index: durable */
byte versions;
byte starts;		/* incarnation: processes of an earlier one are dead */

#define FREE_IF_IDLE(s)							\
	if								\
	:: used[s] && refs[s] == 0 && (pins[s] == 0 || !PINS) ->	\
		used[s] = 0; gen[s]++					\
	:: else -> skip							\
	fi

inline unpin(s) { pins[s]--; FREE_IF_IDLE(s) }
inline drop(s) { refs[s]--; assert(refs[s] >= 0); FREE_IF_IDLE(s) }
#define ALIVE (mine == starts)

proctype writer() {
	byte mine = starts, s = NONE, v, old, i;

	atomic {	/* pool_alloc() */
		if
		:: ALIVE && !used[0] -> s = 0
		:: ALIVE && !used[1] -> s = 1
		:: ALIVE && !used[2] -> s = 2
		:: else -> goto gone
		fi;
		used[s] = 1; pins[s] = 1; refs[s] = 0; content[s] = 0;
		versions++; v = versions
	}
	atomic { if :: SEALED && ALIVE -> content[s] = v :: SEALED && !ALIVE -> goto gone :: else -> skip fi }
	atomic { if :: REFSFIRST && ALIVE -> refs[s]++ :: REFSFIRST && !ALIVE -> goto gone :: else -> skip fi }
	atomic {	/* the transaction */
		if
		:: ALIVE -> old = name; name = s; name_gen = gen[s]; name_version = v
		:: else -> goto gone
		fi
	}
	atomic { if :: !SEALED && ALIVE -> content[s] = v :: !SEALED && !ALIVE -> goto gone :: else -> skip fi }
	atomic { if :: !REFSFIRST && ALIVE -> refs[s]++ :: !REFSFIRST && !ALIVE -> goto gone :: else -> skip fi }
	atomic { if :: ALIVE && old != NONE -> drop(old) :: else -> skip fi }
	atomic { if :: ALIVE -> unpin(s) :: else -> skip fi }
gone:	skip
}

proctype unlinker() {
	byte mine = starts, old;

	atomic { if :: ALIVE -> old = name; name = NONE :: else -> goto gone fi }
	atomic { if :: ALIVE && old != NONE -> drop(old) :: else -> skip fi }
gone:	skip
}

proctype reader() {
	byte mine = starts, s, g, v;
	byte tries;

again:	tries++;
	atomic {	/* index_stat() */
		if
		:: ALIVE && name != NONE -> s = name; g = name_gen; v = name_version
		:: else -> goto gone
		fi
	}
	atomic {	/* pool_pin(): -ESTALE means: read the record again */
		if
		:: !ALIVE -> goto gone
		:: ALIVE && used[s] && (gen[s] == g || !GENCHK) -> pins[s]++
		:: ALIVE && !(used[s] && (gen[s] == g || !GENCHK)) ->
			if :: tries < 3 -> goto again :: else -> goto gone fi
		fi
	}
	atomic { if :: ALIVE -> assert(content[s] == v) :: else -> goto gone fi }
	atomic { if :: ALIVE -> assert(content[s] == v); unpin(s) :: else -> skip fi }
gone:	skip
}

/* kill -9, then rebuild.c: the table comes from the index alone. */
proctype killer() {
	byte i;

	if
	:: skip
	:: atomic {
		starts++;
		i = 0;
		do
		:: i < NSL ->
			pins[i] = 0; refs[i] = 0;
			used[i] = used[i] && !REBUILD;
			i++
		:: else -> break
		od;
		if
		:: name != NONE ->
			used[name] = 1; refs[name] = 1; gen[name] = name_gen;
			assert(content[name] == name_version)	/* P8: whole */
		:: else -> skip
		fi
	   }
	fi
}

init {
	byte i;

	atomic { run writer(); run writer(); run unlinker(); run reader(); run killer() }
	(_nr_pr == 1);
	do
	:: i < NSL ->
		assert(pins[i] == 0);
		assert((used[i] != 0) == (name == i));
		assert(!used[i] || refs[i] == 1);
		i++
	:: else -> break
	od
}
