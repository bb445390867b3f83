/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An object that goes to the disk, comes back, and is written (engine/tier.h, index_move(),
 * index_writer(), index_copy_drop()). It is in memory, away, copied (in memory, and on the disk
 * as its copy), or copied without a copy. The journal has what would be there after a power
 * loss: the version on the disk, or nothing; each change of that is an event, and they become durable
 * one after the other, some time later. Two mounts write, others read, the eviction moves it out,
 * the log of the disk comes round.
 *
 * Checked: whenever power is lost, what is there is no older version than one that somebody
 * was told is published (P8); the log of events is as long as it may be.
 *
 * Guards, each of which -D<GUARD>=0 takes out, after which the model must fail:
 *	REFUSE   nobody begins to write what is away or copied
 *	WAIT     it is copied until the journal has that it has no copy
 *	STILL    what somebody writes is not moved
 *	ONEJOB   one at a time brings it back, or ends its copy
 */
#ifndef REFUSE
#define REFUSE 1
#endif
#ifndef WAIT
#define WAIT 1
#endif
#ifndef STILL
#define STILL 1
#endif
#ifndef ONEJOB
#define ONEJOB 1
#endif
#define EVENTS 16
#define MOVES 3		/* that the eviction makes */
#define DROPS 1		/* that the log makes */

mtype = { MEMORY, AWAY, COPIED, BARE };

mtype rec = MEMORY;
byte version = 1, told = 1;	/* published; that somebody was told of */
byte writing;			/* `w` of the two mounts */
bool job;			/* somebody brings it back, or ends its copy */
byte kept[EVENTS];		/* what is there after each event: a version, or 0 */
byte added, durable;

#define LOG(v)								\
	if								\
	:: kept[added] != (v) ->					\
		assert(added < EVENTS - 1); added++; kept[added] = (v)	\
	:: else -> skip							\
	fi

proctype mount() {
	byte mark;

again:
	if
	:: atomic { rec == MEMORY || (rec != AWAY && !REFUSE) -> writing++ }
	:: atomic { rec != MEMORY && !(job && ONEJOB) -> job = true };
		atomic { if :: rec == AWAY -> rec = COPIED :: else -> skip fi };
		atomic {
			if
			:: rec == COPIED || rec == BARE -> rec = BARE; LOG(0); mark = added
			:: else -> mark = 0
			fi
		};
		(durable >= mark || !WAIT);
		atomic {
			if
			:: rec == BARE && mark -> rec = MEMORY
			:: else -> skip
			fi;
			job = false
		};
		goto again
	fi;
	atomic { version++; rec = MEMORY; LOG(0) }
	told = version;
	atomic { mark = 0; writing-- }
}

proctype reader() {
	do
	:: atomic { rec == AWAY && !(job && ONEJOB) -> job = true };
		atomic {
			if
			:: rec == AWAY -> rec = COPIED
			:: else -> skip
			fi;
			job = false
		}
	:: rec != AWAY -> break
	od
}

proctype eviction() {
	byte moves, drops;

	do
	:: moves < MOVES ->
		atomic {
			if
			:: writing && STILL -> skip
			:: else ->
				if
				:: rec == MEMORY || rec == BARE -> rec = AWAY; LOG(version)
				:: rec == COPIED -> rec = AWAY
				:: else -> skip
				fi
			fi;
			moves++
		}
	:: drops < DROPS ->
		atomic {
			if
			:: rec == COPIED -> rec = BARE; LOG(0)
			:: else -> skip
			fi;
			drops++
		}
	:: moves == MOVES && drops == DROPS -> break
	od
}

active proctype journal() {
end:	do
	:: durable < added -> durable++
	od
}

active proctype power() {
end:	atomic { kept[durable] != 0 && kept[durable] < told -> assert(false) }
}

init {
	atomic { run mount(); run mount(); run reader(); run eviction() }
}
