/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publish, pin, release, free: the protocol of slices between the index, one
 * node and two clients (I3-I8). One name, two slices; each client overwrites
 * the name and reads it; sessions end, and clients die, at any step. Writes are
 * one-sided: they land whenever the network likes, until the queue pair is torn
 * down. Asserted: a reader sees the bytes of the version that it looked up, a
 * pin of what is named is not refused, and in the end no slice is lost.
 *
 * Guards, each of which -D<GUARD>=0 takes out, after which the model must fail:
 *	FENCE    a session's queue pair is torn down before its slices are freed
 *	SESSCMP  publishing compares the session in the index
 *	GENCHK   a pin names the generation, and is refused when stale
 *	BARRIER  sealed and published only after the write was placed
 *	REFCHK   SEALED slices of a dead session: the index says what they are
 *	PINS     a slice is freed only when its last pin goes
 *	ORDER    the node gives up on a session after the index did
 */
#ifndef FENCE
#define FENCE 1     /* node kills the client's QP before freeing its slices / pins */
#endif
#ifndef SESSCMP
#define SESSCMP 1   /* publish txn compares the session key in the index */
#endif
#ifndef GENCHK
#define GENCHK 1    /* node checks the slice generation at PIN */
#endif
#ifndef BARRIER
#define BARRIER 1   /* seal+publish only after the write is acknowledged/placed */
#endif
#ifndef REFCHK
#define REFCHK 1    /* node asks the index before reclaiming a dead session's SEALED slices */
#endif
#ifndef PINS
#define PINS 1      /* GC waits for pins */
#endif
#ifndef ORDER
#define ORDER 1     /* node reaps only after the session key is gone from the INDEX (0 = on its own local timer) */
#endif
#ifndef GMOD
#define GMOD 100    /* generation wraps at GMOD */
#endif
#ifndef MAXW
#define MAXW 2
#endif
#ifndef MAXR
#define MAXR 1
#endif
#define NS 2
#define NC 2
#define NI 6        /* object (inode) ids: client c's k-th write = 1+c+2k (1..4); 5 = initial; 0 = none */
#define FREE 0
#define WRITING 1
#define SEALED 2
#define LIVE 3
#define DYING 4
byte st[NS]; byte gen[NS]; byte own[NS]; byte data[NS]; byte pinc[NS]; /* pinc: bitmask-less count */
bit  pinned[4];            /* pinned[c*NS+s] by client c on slice s */
byte name;                 /* index: name -> ino */
byte oslice[NI]; byte ogen[NI]; bit gcq[NI];
bit sess[NC]; bit qp[NC];
bit wr_pend[NC]; byte wr_s[NC]; byte wr_v[NC]; bit wr_ack[NC];  /* one-sided write in flight per client QP */
bit nodeclean[NC];
byte tmp;
#define REFD(s) (name!=0 && oslice[name]==s && ogen[name]==gen[s])
#define G1(k,s) (gcq[k] && oslice[k]==s && ogen[k]==gen[s])
#define INGC(s) (G1(1,s)||G1(2,s)||G1(3,s)||G1(4,s)||G1(5,s))
inline dofree(s){ st[s]=FREE; gen[s]=(gen[s]+1)%GMOD; own[s]=9; }

/* the NIC: delivers an in-flight write at any later time, unless the QP was killed */
proctype nic(){ byte c;
end: do
 :: atomic{ wr_pend[0] -> c=0; wr_pend[0]=0; if :: (qp[0]||!FENCE) -> data[wr_s[0]]=wr_v[0]; wr_ack[0]=1 :: else fi }
 :: atomic{ wr_pend[1] -> c=1; wr_pend[1]=0; if :: (qp[1]||!FENCE) -> data[wr_s[1]]=wr_v[1]; wr_ack[1]=1 :: else fi }
 od }

proctype client(byte c){ byte s; byte g; byte ino; byte old; byte ri; byte rs; byte rg; bit ok; byte nw; byte nr;
 nw=0; nr=0;
again:
 if :: nw<MAXW -> goto wr0 :: nr<MAXR -> goto rd :: goto done fi;
 /* ---- write path ---- */
wr0: ino=1+c+2*nw; nw++; ok=0;
 atomic{ /* ALLOC at node */ if
   :: (qp[c] && st[0]==FREE) -> s=0; st[0]=WRITING; own[0]=c; g=gen[0]; ok=1
   :: (qp[c] && st[1]==FREE) -> s=1; st[1]=WRITING; own[1]=c; g=gen[1]; ok=1
   :: (!qp[c] || (st[0]!=FREE && st[1]!=FREE)) -> ok=0 fi }
 if :: !ok -> goto again :: else fi;
 atomic{ wr_s[c]=s; wr_v[c]=ino; wr_ack[c]=0; wr_pend[c]=1 }       /* post RDMA WRITE */
 if :: goto done :: skip fi;                                         /* client may die here */
 if :: (wr_ack[c] || !BARRIER) :: (!qp[c]) -> goto done fi;           /* wait for completion; QP error => session lost */
 atomic{ /* SEAL rpc */ if :: ((qp[c]||!FENCE) && st[s]==WRITING && own[s]==c && gen[s]==g) -> st[s]=SEALED :: else -> goto done fi }
 if :: goto done :: skip fi;
 atomic{ /* PUBLISH txn in the index */
   if :: (!SESSCMP || sess[c]) -> oslice[ino]=s; ogen[ino]=g; old=name; name=ino; if :: old!=0 -> gcq[old]=1 :: else fi
      :: else -> goto done fi }
 goto again;
 /* ---- read path ---- */
rd: nr++;
 atomic{ ri=name; rs=oslice[ri]; rg=ogen[ri] }   /* LOOKUP */
 ok=0;
 atomic{ /* PIN rpc */ if
   :: ((qp[c]||!FENCE) && (!GENCHK || gen[rs]==rg) && (st[rs]==SEALED||st[rs]==LIVE||(!GENCHK && st[rs]!=FREE))) -> pinned[c*NS+rs]=1; ok=1
   :: else ->
#ifndef ROLLBACK
   assert(name!=ri || !qp[c]);
#endif
   ok=0 fi }   /* refused: legal only if the name moved on or our session is dead */
 if :: !ok -> goto again :: else fi;
 atomic{ if :: (qp[c]||!FENCE) -> assert(data[rs]==ri) :: else fi }  /* one-sided READ: completes only if QP alive */
 atomic{ pinned[c*NS+rs]=0 }
 goto again;
done: skip }

/* lease expiry can hit any client at any time (slow or dead looks the same) */
proctype lease(byte c){ if :: atomic{ sess[c]=0 } :: skip fi }

#ifdef ROLLBACK
proctype rollback(){ if :: atomic{ name!=5 -> name=5; gcq[5]=0 } :: skip fi }
#endif
/* memory node: session reaper + GC */
proctype node(){ byte i; bit r0; bit r1; byte k;
end: do
 :: atomic{ ((!sess[0]||!ORDER) && !nodeclean[0]) -> i=0 } goto reap
 :: atomic{ ((!sess[1]||!ORDER) && !nodeclean[1]) -> i=1 } goto reap
 :: atomic{ (gcq[1]) -> k=1 } goto gc
 :: atomic{ (gcq[2]) -> k=2 } goto gc
 :: atomic{ (gcq[3]) -> k=3 } goto gc
 :: atomic{ (gcq[4]) -> k=4 } goto gc
 :: atomic{ (gcq[5]) -> k=5 } goto gc
 od;
reap:
 atomic{ qp[i]=0; }                         /* FENCE point (models ignoring it when FENCE=0 elsewhere) */
 atomic{ pinned[i*NS+0]=0; pinned[i*NS+1]=0 }
 atomic{ r0=REFD(0)||INGC(0); r1=REFD(1)||INGC(1) }   /* linearizable index read: named, or queued for GC */
 atomic{ if :: (own[0]==i && st[0]==WRITING) -> dofree(0)
            :: (own[0]==i && st[0]==SEALED) -> if :: (REFCHK && r0) -> st[0]=LIVE; own[0]=9
                 :: (REFCHK && !r0) -> dofree(0)
                 :: (!REFCHK) -> dofree(0) fi
            :: else fi }
 atomic{ if :: (own[1]==i && st[1]==WRITING) -> dofree(1)
            :: (own[1]==i && st[1]==SEALED) -> if :: (REFCHK && r1) -> st[1]=LIVE; own[1]=9
                 :: (REFCHK && !r1) -> dofree(1)
                 :: (!REFCHK) -> dofree(1) fi
            :: else fi }
 nodeclean[i]=1; goto end;
gc:
 atomic{ if :: (gen[oslice[k]]!=ogen[k] || st[oslice[k]]==FREE) -> gcq[k]=0; goto end     /* already freed */
            :: else -> st[oslice[k]]=DYING fi }
 atomic{ if :: (!PINS || (!pinned[0*NS+oslice[k]] && !pinned[1*NS+oslice[k]])) -> dofree(oslice[k]); gcq[k]=0
            :: else -> skip fi }            /* retry later */
 goto end }

init{ atomic{ /* start with object 3 already published in slice 0 */
 st[0]=LIVE; own[0]=9; own[1]=9; gen[0]=1; gen[1]=1; data[0]=5; name=5; oslice[5]=0; ogen[5]=1;
 sess[0]=1; sess[1]=1; qp[0]=1; qp[1]=1;
 run nic(); run node(); run client(0); run client(1); run lease(0); run lease(1);
#ifdef ROLLBACK
 run rollback();
#endif
 }
#ifndef NOLEAK
 /* quiescence: no leak */
 (timeout) ; /* everything blocked or finished */
 atomic{ 
  byte s; s=0; do :: s<NS -> assert( st[s]==FREE || REFD(s) || (own[s]<NC && !nodeclean[own[s]]) || (pinned[s]||pinned[NS+s]) ); s++ :: else -> break od }
#endif
}
