/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two nodes and an object in two stripes, one at each: the slices of a version lie at both,
 * one transaction of one index publishes it. Two mounts with a session at each node overwrite
 * the name, whole or the second stripe only (the first is shared with the version before),
 * and read it. A session is lost at one node, or in the index, at any step; or a mount stops
 * while its writes are under way; a node's process begins anew once; transfers time out, and
 * answers of the index are lost. Writes are one-sided: they land when the network likes, until
 * their way was closed. A publish may wait in the index while the mount gives up on it.
 *
 * Checked: no reader sees a byte that his version did not write (P9, I4, I6, I9); nothing
 * that a published version names is free (I1, I5, I7, I8); a pin of what is named is not
 * refused; a mount that goes on holds no pin that it does not know of (P10); when all sessions
 * have ended exactly what the name says is not free (I2, P5).
 *
 * Guards, each of which -D<GUARD>=0 takes out, after which the model must fail:
 *	FENCE    a session's way into the slices is closed before they are freed (I6)
 *	LATE     a transfer that timed out is fenced before its slice is given back (I9)
 *	SESSCMP  publishing compares the session (I7): its `w` is there
 *	INCCMP   publishing compares the incarnations of both nodes (I7)
 *	INCFIRST a node tells the index its new incarnation before it reads what is named
 *	ORDER    a node gives up on a session after the index did (I8)
 *	GENCHK   a pin names the generation, and is refused when stale (I3)
 *	PINS     a slice is freed only when its last pin goes (I4)
 *	PARTPIN  pins at one node are given back when the other refuses
 *	BARRIER  sealed only when the writes to both nodes are placed (I5)
 *	REFCHK   what is sealed and given back: the index says whether it is free
 *	RESOLVE  nothing is given back while its publish may still be committed
 *	BASE     a version that shares slices compares that the one before is still named
 *
 * One kind of fault a run, whatever the interleaving. -DFULL=1 is the larger bound: all kinds
 * in one run, a session is lost at either node, and a mount reads what it wrote.
 */
#ifndef FENCE
#define FENCE 1
#endif
#ifndef LATE
#define LATE 1
#endif
#ifndef SESSCMP
#define SESSCMP 1
#endif
#ifndef INCCMP
#define INCCMP 1
#endif
#ifndef INCFIRST
#define INCFIRST 1
#endif
#ifndef ORDER
#define ORDER 1
#endif
#ifndef GENCHK
#define GENCHK 1
#endif
#ifndef PINS
#define PINS 1
#endif
#ifndef PARTPIN
#define PARTPIN 1
#endif
#ifndef BARRIER
#define BARRIER 1
#endif
#ifndef REFCHK
#define REFCHK 1
#endif
#ifndef RESOLVE
#define RESOLVE 1
#endif
#ifndef BASE
#define BASE 1
#endif
#ifndef FULL
#define FULL 0
#endif

#define NN 2			/* nodes */
#define NS 2			/* slices of each */
#define NV 4			/* versions: 1 was there, others are of mounts; 0: none */
#define NOBODY 9
#define AT(n, s) ((n) * NS + (s))
#define BY(c, n) ((c) * NN + (n))
#define OF(v, n) ((v) * NN + (n))
#define HOLDS(c, n, s) pin[(c) * NN * NS + AT(n, s)]

#define FREE 0
#define WRITING 1
#define SEALED 2
#define LIVE 3
#define DYING 4

/* Nodes. */
byte st[4], gen[4], own[4], bytes[4];	/* AT: who wrote the bytes is what they are */
bit pin[8];
bit way[4];			/* BY: what the mount posts can reach the node's slices */
bit lost[4];			/* the node has lost the mount, and the mount the node */
bit reaped[4];
byte inc[NN];
bit restarted;
byte fault;			/* what may go wrong in this run: */
#define LOSS 1			/* mount 0 stops, or its session is lost */
#define RESTART 2		/* of node 1 */
#define LATENESS 3		/* transfers and publishes are given up on */
#define MAY_FAIL(f) (fault == (f) || FULL)
bit over[2];			/* the mount has ended */

/* The network: a write under way from each mount to each node, and one that nobody waits for. */
bit flying[4], placed[4];
bit stray[4];
byte to[4], what[4], stray_to[4], stray_what[4];

/* The index. */
byte name;
byte vs[10], vg[10], vd[10];	/* OF: slice, generation, who wrote it */
bit order[10];			/* OF: what this version had there is to be freed */
bit sess[2];
byte reg[NN];			/* incarnations */
bit pending[2], said_yes[2];	/* a publish of each mount */
byte pv[2], pbase[2];		/* its version; whose stripe it shares, or 0 */
byte pinc[4];			/* BY */

#define SERVES(c, n) (way[BY(c, n)] && !lost[BY(c, n)])
#define HAS(v, n, s) (vs[OF(v, n)] == (s) && vg[OF(v, n)] == gen[AT(n, s)])
#define NAMED(n, s) (HAS(name, n, s))
#define ORDERED(v, n, s) (order[OF(v, n)] && HAS(v, n, s))
#define REFERRED(n, s) (NAMED(n, s) || ORDERED(1, n, s) || ORDERED(2, n, s) || \
			ORDERED(3, n, s) || ORDERED(4, n, s))

inline free_slice(n, s) {
	assert(!NAMED(n, s));
	st[AT(n, s)] = FREE;
	gen[AT(n, s)]++;
	own[AT(n, s)] = NOBODY
}

/* What a session had there and has no more: also when it only has no answer. */
inline disown(n, s) {
	if
	:: st[AT(n, s)] == WRITING -> free_slice(n, s)
	:: st[AT(n, s)] == SEALED && REFCHK && REFERRED(n, s) ->
		st[AT(n, s)] = LIVE;
		own[AT(n, s)] = NOBODY
	:: st[AT(n, s)] == SEALED && !(REFCHK && REFERRED(n, s)) -> free_slice(n, s)
	:: else -> skip
	fi
}

inline land(b) {
	flying[b] = 0;
	if
	:: way[b] || !FENCE -> bytes[AT(b % NN, to[b])] = what[b]; placed[b] = 1
	:: else -> skip
	fi;
	to[b] = 0; what[b] = 0
}

inline land_stray(b) {
	stray[b] = 0;
	if
	:: way[b] || !FENCE -> bytes[AT(b % NN, stray_to[b])] = stray_what[b]
	:: else -> skip
	fi
}

proctype network() {
end:	do
	:: atomic { flying[0] -> land(0) }
	:: atomic { flying[1] -> land(1) }
	:: atomic { flying[2] -> land(2) }
	:: atomic { flying[3] -> land(3) }
	:: atomic { stray[0] -> land_stray(0) }
	:: atomic { stray[1] -> land_stray(1) }
	:: atomic { stray[2] -> land_stray(2) }
	:: atomic { stray[3] -> land_stray(3) }
	od
}

#define SAME(a, b, n) (vs[OF(a, n)] == vs[OF(b, n)] && vg[OF(a, n)] == vg[OF(b, n)])
#define MAY(c) ((sess[c] || !SESSCMP) &&					\
		((pinc[BY(c, 0)] == reg[0] && pinc[BY(c, 1)] == reg[1]) || !INCCMP) && \
		(!pbase[c] || pbase[c] == name || !BASE))

/* A whole slice of each node, sealed, or another version's that is still named. */
#define WHOLE(v, n) (st[AT(n, vs[OF(v, n)])] != FREE &&			\
		     vg[OF(v, n)] == gen[AT(n, vs[OF(v, n)])] &&	\
		     st[AT(n, vs[OF(v, n)])] != WRITING &&		\
		     st[AT(n, vs[OF(v, n)])] != DYING)

inline commit(c) {
	pending[c] = 0; said_yes[c] = 0;
	if
	:: MAY(c) ->
		order[OF(name, 0)] = !SAME(name, pv[c], 0);
		order[OF(name, 1)] = !SAME(name, pv[c], 1);
		name = pv[c];
		said_yes[c] = 1;
		assert(WHOLE(name, 0) && WHOLE(name, 1))
	:: else -> skip
	fi;
	pv[c] = 0; pbase[c] = 0; pinc[BY(c, 0)] = 0; pinc[BY(c, 1)] = 0
}

proctype index() {
end:	do
	:: atomic { pending[0] -> commit(0) }
	:: atomic { pending[1] -> commit(1) }
	od
}

/* Nodes ------------------------------------------------------------------------------ */

#define ENDS(c, n) (!reaped[BY(c, n)] && (!sess[c] || (!ORDER && lost[BY(c, n)])))

/* The way in is closed in a step of its own: what is under way may land before. */
inline close_way(c, n) { way[BY(c, n)] = 0 }

inline reap(c, n) {
	HOLDS(c, n, 0) = 0;
	HOLDS(c, n, 1) = 0;
	if :: own[AT(n, 0)] == c -> disown(n, 0) :: else -> skip fi;
	if :: own[AT(n, 1)] == c -> disown(n, 1) :: else -> skip fi;
	reaped[BY(c, n)] = 1
}

#define PINNED(n, s) (HOLDS(0, n, s) || HOLDS(1, n, s))
#define S(v, n) vs[OF(v, n)]

/* What was replaced: freed, or once nobody holds it. */
#define DUE(v, n) (order[OF(v, n)] && (st[AT(n, S(v, n))] != DYING ||		\
		   vg[OF(v, n)] != gen[AT(n, S(v, n))] || !PINNED(n, S(v, n))))

inline obey(v, n) {
	if
	:: !HAS(v, n, S(v, n)) || st[AT(n, S(v, n))] == FREE -> order[OF(v, n)] = 0
	:: HAS(v, n, S(v, n)) && st[AT(n, S(v, n))] != FREE && (!PINNED(n, S(v, n)) || !PINS) ->
		free_slice(n, S(v, n));
		order[OF(v, n)] = 0
	:: else -> st[AT(n, S(v, n))] = DYING; own[AT(n, S(v, n))] = NOBODY
	fi
}

/* The table comes from the index alone. */
inline rebuild(n) {
	HOLDS(0, n, 0) = 0; HOLDS(0, n, 1) = 0; HOLDS(1, n, 0) = 0; HOLDS(1, n, 1) = 0;
	own[AT(n, 0)] = NOBODY; own[AT(n, 1)] = NOBODY;
	if
	:: REFERRED(n, 0) -> st[AT(n, 0)] = LIVE
	:: else -> free_slice(n, 0)
	fi;
	if
	:: REFERRED(n, 1) -> st[AT(n, 1)] = LIVE
	:: else -> free_slice(n, 1)
	fi;
	reaped[BY(0, n)] = 1; reaped[BY(1, n)] = 1
}

proctype node(byte n) {
end:	do
	:: atomic { lost[BY(0, n)] && sess[0] && ORDER -> sess[0] = 0 }
	:: atomic { lost[BY(1, n)] && sess[1] && ORDER -> sess[1] = 0 }
	:: atomic { ENDS(0, n) -> close_way(0, n) }; atomic { reap(0, n) }
	:: atomic { ENDS(1, n) -> close_way(1, n) }; atomic { reap(1, n) }
	:: atomic { DUE(1, n) -> obey(1, n) }
	:: atomic { DUE(2, n) -> obey(2, n) }
	:: atomic { DUE(3, n) -> obey(3, n) }
	:: atomic { DUE(4, n) -> obey(4, n) }
	:: atomic { n == 1 && !restarted && MAY_FAIL(RESTART) && !(over[0] && over[1]) -> /* killed, and back */
		restarted = 1;
		way[BY(0, 1)] = 0; way[BY(1, 1)] = 0;
		flying[BY(0, 1)] = 0; flying[BY(1, 1)] = 0;
		stray[BY(0, 1)] = 0; stray[BY(1, 1)] = 0;
		inc[1]++;
		if :: INCFIRST -> reg[1] = inc[1] :: else -> skip fi
	   };
	   atomic { rebuild(1) };
	   reg[1] = inc[1]
	od
}

/* Ends each session in the end, so that what is left over shows. */
proctype loss(byte c) {
	if
	:: atomic { MAY_FAIL(LOSS) && c == 0 && !over[c] -> lost[BY(c, 1)] = 1 }
	:: atomic { FULL && c == 0 && !over[c] -> lost[BY(c, 0)] = 1 }
	:: atomic { MAY_FAIL(LOSS) && c == 0 && !over[c] -> sess[c] = 0 }
	:: over[c]
	fi;
	atomic { over[c] -> sess[c] = 0 }
}

/* Mounts ----------------------------------------------------------------------------- */

inline post(n) {
	to[BY(c, n)] = s[n]; what[BY(c, n)] = v; placed[BY(c, n)] = 0; flying[BY(c, n)] = 1
}

/* What was posted touches nothing any more; without LATE it is just forgotten. */
inline fence(n) {
	if
	:: flying[BY(c, n)] && !LATE ->
		stray[BY(c, n)] = 1; stray_to[BY(c, n)] = to[BY(c, n)];
		stray_what[BY(c, n)] = what[BY(c, n)]
	:: else -> skip
	fi;
	flying[BY(c, n)] = 0; placed[BY(c, n)] = 0; to[BY(c, n)] = 0; what[BY(c, n)] = 0
}

inline try_pin(n, sl, g) {
	if
	:: SERVES(c, n) && (gen[AT(n, sl)] == (g) || !GENCHK) &&
	   (st[AT(n, sl)] == SEALED || st[AT(n, sl)] == LIVE || (!GENCHK && st[AT(n, sl)] != FREE)) ->
		HOLDS(c, n, sl) = 1; ok = 1
	:: else -> assert(name != b || !SERVES(c, n)); ok = 0
	fi
}

inline unpin(n, sl) {
	if :: SERVES(c, n) -> HOLDS(c, n, sl) = 0 :: else -> skip fi
}

proctype mount(byte c, writes, reads) {
	byte s[NN], g[NN], v, b, n, sb;
	bit ok, shares;

again:	v = 0; b = 0; n = 0; shares = 0; ok = 0; s[0] = 0; s[1] = 0; g[0] = 0; g[1] = 0;
	if
	:: writes > 0 -> goto write
	:: writes == 0 && reads > 0 -> goto read
	:: else -> goto done
	fi;

write:	writes--;
	v = 2 + c + 2 * writes;
	atomic {
		if :: shares = 1 :: shares = 0 fi;
		if
		:: shares -> b = name; s[0] = S(b, 0); g[0] = vg[OF(b, 0)]
		:: else -> skip
		fi
	}
	if
	:: shares -> atomic { try_pin(0, s[0], g[0]); n = 1; if :: !ok -> goto again :: else -> skip fi }
	:: else -> skip
	fi;
	do
	:: n < NN ->
		atomic {
			if
			:: SERVES(c, n) && st[AT(n, 0)] == FREE -> s[n] = 0
			:: SERVES(c, n) && st[AT(n, 0)] != FREE && st[AT(n, 1)] == FREE -> s[n] = 1
			:: else -> goto back
			fi;
			g[n] = gen[AT(n, s[n])];
			st[AT(n, s[n])] = WRITING; own[AT(n, s[n])] = c;
			pinc[BY(c, n)] = inc[n];
			post(n);
			n++
		}
	:: else -> break
	od;
	if :: MAY_FAIL(LOSS) && c == 0 -> goto done :: skip fi;	/* dies here, or goes on */

	n = shares;
	do
	:: n < NN ->
		if
		:: atomic { placed[BY(c, n)] || (!BARRIER && n == 1) -> placed[BY(c, n)] = 0; n++ }
		:: atomic { !SERVES(c, n) -> goto back }
		:: atomic { flying[BY(c, n)] && MAY_FAIL(LATENESS) -> fence(n); goto back }
		fi
	:: else -> break
	od;
	n = shares;
	do
	:: n < NN ->
		atomic {
			if
			:: SERVES(c, n) && st[AT(n, s[n])] == WRITING && own[AT(n, s[n])] == c &&
			   gen[AT(n, s[n])] == g[n] -> st[AT(n, s[n])] = SEALED; n++
			:: else -> goto back
			fi
		}
	:: else -> break
	od;
	atomic {
		vs[OF(v, 0)] = s[0]; vg[OF(v, 0)] = g[0]; vd[OF(v, 0)] = (shares -> vd[OF(b, 0)] : v);
		vs[OF(v, 1)] = s[1]; vg[OF(v, 1)] = g[1]; vd[OF(v, 1)] = v;
		if :: shares -> pinc[BY(c, 0)] = reg[0] :: else -> skip fi;
		pv[c] = v; pbase[c] = (shares -> b : 0); said_yes[c] = 0; pending[c] = 1
	}
	if
	:: atomic { !pending[c] && said_yes[c] -> said_yes[c] = 0; goto said }
	:: atomic { !pending[c] && (!said_yes[c] || MAY_FAIL(LATENESS)) -> said_yes[c] = 0 }
	:: atomic { !RESOLVE && MAY_FAIL(LATENESS) -> skip }
	fi;

	/* Everything is given back; what is named is the node's to know. */
back:	n = shares;
	do
	:: n < NN ->
		atomic {
			fence(n);
			if
			:: SERVES(c, n) && own[AT(n, s[n])] == c && gen[AT(n, s[n])] == g[n] ->
				disown(n, s[n])
			:: else -> skip
			fi;
			n++
		}
	:: else -> break
	od;
said:	if
	:: shares -> atomic { unpin(0, s[0]) }
	:: else -> skip
	fi;
	goto again;

read:	reads--;
	atomic { b = name; s[0] = S(b, 0); g[0] = vg[OF(b, 0)]; s[1] = S(b, 1); g[1] = vg[OF(b, 1)] }
	atomic { try_pin(0, s[0], g[0]); if :: !ok -> goto again :: else -> skip fi }
	atomic {
		try_pin(1, s[1], g[1]);
		if
		:: !ok && PARTPIN -> unpin(0, s[0]); goto again
		:: !ok && !PARTPIN -> goto again
		:: else -> skip
		fi
	}
	n = 0;
	do
	:: n < NN ->
		atomic {
			if
			:: SERVES(c, n) -> assert(bytes[AT(n, s[n])] == vd[OF(b, n)])
			:: else -> skip
			fi;
			n++
		}
	:: else -> break
	od;
	atomic { unpin(0, s[0]) }
	atomic { unpin(1, s[1]) }
	goto again;

done:	atomic {
		over[c] = 1;
		assert(!SERVES(c, 0) || v || (!HOLDS(c, 0, 0) && !HOLDS(c, 0, 1)));
		assert(!SERVES(c, 1) || v || (!HOLDS(c, 1, 0) && !HOLDS(c, 1, 1)))
	}
}

init {
	byte n, s;

	atomic {
		do
		:: n < NN ->
			st[AT(n, 0)] = LIVE; bytes[AT(n, 0)] = 1; own[AT(n, 0)] = NOBODY;
			own[AT(n, 1)] = NOBODY; vd[OF(1, n)] = 1;
			n++
		:: else -> break
		od;
		n = 0;
		do
		:: n < 4 -> way[n] = 1; n++
		:: else -> break
		od;
		if :: fault = LOSS :: fault = RESTART :: fault = LATENESS fi;
		name = 1; sess[0] = 1; sess[1] = 1;
		run network(); run index(); run node(0); run node(1); run loss(0); run loss(1);
		if
		:: run mount(0, 2, 0); run mount(1, 0, 1)	/* one after the other */
		:: run mount(0, 1, FULL); run mount(1, 1, 1)	/* both at once */
		fi
	}
	timeout;
	atomic {
		n = 0;
		do
		:: n < NN ->
			s = 0;
			do
			:: s < NS ->
				assert((st[AT(n, s)] != FREE) == NAMED(n, s));
				assert(!HOLDS(0, n, s) && !HOLDS(1, n, s));
				s++
			:: else -> break
			od;
			n++
		:: else -> break
		od
	}
}
