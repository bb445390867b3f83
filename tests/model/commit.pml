/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who commits (index/lmdb.c): submitters queue, one of them leads. Checked: every
 * request is answered exactly once, and the end is reached (no one waits for
 * ever), whatever the interleaving; the answering of one group may overlap with
 * the next leader's commit.
 *
 * Guards, each of which -D<GUARD>=0 takes out, after which the model must fail:
 *	LOOKAGAIN  a leader looks at the queue after it has answered
 *	GIVEUP     it gives the lead up before it answers (a done() may wait for
 *	           another request of its own)
 *	ONELEAD    a submitter leads only if nobody does
 */
#ifndef LOOKAGAIN
#define LOOKAGAIN 1
#endif
#ifndef GIVEUP
#define GIVEUP 1
#endif
#ifndef ONELEAD
#define ONELEAD 1
#endif
#define NS 3		/* submitters */
#define TERM 2		/* groups until a leader is tired */

byte queued;		/* requests in the queue, one bit a submitter's own */
byte answered[NS];
bool led, tired;
byte relievers, committing;
byte terms;

#define BIT(i) (1 << (i))

/* Answers the requests in g; submitter 0's done() submits another request, and
 * waits for it if nobody below it leads: kv_wait() inside done(). */
inline answer(g) {
	i = 0;
	do
	:: i < NS ->
		if
		:: g & BIT(i) -> answered[i]++
		:: else
		fi;
		i++
	:: else -> break
	od
}

proctype submitter(byte me) {
	byte g, i, groups, seen;
	bool leads = false;

	/* enqueue() */
	atomic {
		queued = queued | BIT(me);
		if
		:: led && tired && relievers == 0 -> relievers++; seen = terms; goto wait_turn
		:: else -> skip
		fi
	}
	goto decide;
wait_turn:
	atomic { (!led || terms != seen) -> relievers-- }
decide:
	atomic {
		if
		:: led && ONELEAD -> goto out
		:: else -> led = true; leads = true
		fi
	}
	groups = 0;
again:
	groups++;
	atomic { g = queued; queued = 0; tired = (groups >= TERM) }
	committing++;
	assert(committing == 1);	/* LMDB has one writer */
	committing--;
	atomic { if :: GIVEUP -> led = false; tired = false; terms++ :: else -> skip fi }
	answer(g);
	if
	:: (g & BIT(0)) && me != 0 ->
		/* a done() that waits for a request of its own (kv_wait()) */
		(!led)
	:: else -> skip
	fi;
	atomic { if :: !GIVEUP -> led = false; tired = false; terms++ :: else -> skip fi }
	atomic {
		if
		:: LOOKAGAIN && !led && queued != 0 -> led = true; goto again
		:: else -> skip
		fi
	}
out:
	skip
}

init {
	atomic { run submitter(0); run submitter(1); run submitter(2) }
	(_nr_pr == 1);
	assert(answered[0] == 1 && answered[1] == 1 && answered[2] == 1);
	assert(queued == 0 && !led && relievers == 0)
}
