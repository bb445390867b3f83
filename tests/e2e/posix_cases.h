/* SPDX-License-Identifier: Apache-2.0 */
/* The cases, made from tables: by types of objects, forms of paths, users, flags. */

static const char types[] = "fdlpsbc";	/* of objects; "e" is an empty file */

#define EACH_TYPE(t) for (const char *t = types; *t; t++)
#define EACH(p, ...) \
	for (const char *const all_##p[] = { __VA_ARGS__, NULL }, *const *p = all_##p; *p; p++)

/* Calls with one path, %s, that make, remove or look; for errors of the path. */
static const char *const on_a_path[] = {
	"open A %s r,nonblock", "open A %s rw,nonblock", "open A %s w,creat,nonblock",
	"open A %s w,creat,excl", "open A %s r,path", "open A %s r,dir", "open A %s "
	    "w,trunc,nonblock",
	"open A %s r,nofollow,nonblock", "chmod %s 700", "chown %s 1 1", "lchown %s 1 1",
	"trunc %s 3", "mkdir %s", "mkfifo %s", "mknod f %s 644", "mknod c %s 644", "mknod s %s 600",
	"rmdir %s", "unlink %s", "remove %s", "symlink x %s", "link f %s", "link %s new",
	"linkat %s new", "rename %s new", "rename f %s", "rename d %s", "rename f %s noreplace",
	"rename f %s exchange", "utimes %s 1 2", "utimes %s now now nofollow", "utimes %s null",
	"stat %s", "lstat %s", "access %s 4", "readlink %s", "ls %s", "chdir %s",
	"setx %s trusted.a v", "getx %s trusted.a", "listx %s", "rmx %s trusted.a", "bind %s",
	NULL,
};

static void with_path(const char *prepare, int user, const char *p)
{
	for (const char *const *c = on_a_path; *c; c++) {
		char call[256];
		const char *at = strstr(*c, "%s");
		snprintf(call, sizeof(call), "%.*s%s%s", (int)(at - *c), *c, p, at + 2);
		run("%s | %d %s", prepare, user, call);
	}
}

static void path_forms(void)
{
	const char *there = "mk f f ; mk d d ; mk d d/e ; mk l dangling ; symlink f good ;"
			    "symlink d dirlink ; symlink one two ; symlink two one ; symlink loop "
			    "loop ;"
			    "symlink d/ slashed ; symlink nothing/ bad ; mk p p ; mk d full ; mk "
			    "e full/x";

	EACH(p, "-", ".", "d/.", "d/..", "d/e/..", "f/", "d/", "p/", "dangling", "dangling/",
	    "good",
	     "good/", "dirlink", "dirlink/", "dirlink/e", "dirlink/none", "f/x", "f/.", "p/x",
	     "none", "none/", "none/x", "d/none", "d/none/", "one", "one/x", "loop/", "slashed",
	     "bad", "%255", "%256", "d/%255", "d/%256", "%256/x", "%255/x", "full", "full/",
	     "%p4095", "%p4096", "%p4097", "%bad", "f//", "d//e", "./d/./e/")
		with_path(there, 0, *p);
}

static void by_types(void)
{
	EACH_TYPE(t) {
		char prepare[200];
		snprintf(prepare, sizeof(prepare), "mk f f ; mk d d ; mk %c o", *t);
		with_path(prepare, 0, "o");
		with_path(prepare, 0, "o/");
		with_path(prepare, 0, "o/x");
		snprintf(prepare, sizeof(prepare), "mk f f 644 1 ; mk d d 755 1 ; mk %c o 640 1",
		    *t);
		with_path(prepare, 1, "o");
		with_path(prepare, 2, "o");
		snprintf(prepare, sizeof(prepare), "mk f f 644 1 ; mk d d 755 1 ; mk %c o 606 2",
		    *t);
		with_path(prepare, 1, "o");
		/* one more name, through a symbolic link, and the sticky bit */
		snprintf(prepare, sizeof(prepare),
			 "mk f f ; mk d d ; mk %c x ; symlink x o ; chmod . 1777", *t);
		with_path(prepare, 0, "o");
		with_path(prepare, 1, "o");
	}
}

static void by_permission(void)
{
	/* the parent: searched, not written; written, not searched; neither; sticky */
	EACH(mode, "755", "766", "722", "711", "700", "777", "1777", "1755", "2777", "3777",
	    "070", "007")
		EACH(owner, "0", "1", "2") {
			char prepare[200];
			snprintf(prepare, sizeof(prepare), "mk d q %s %s ; mk f q/o 644 %s ;"
				 "mk f f 644 1 ; mk d d 777 1", *mode, *owner, *owner);
			with_path(prepare, 1, "q/o");
			with_path(prepare, 1, "q/none");
		}
}

static void sticky(void)
{
	EACH_TYPE(t)
		EACH(dir, "0", "1", "2")
			EACH(file, "0", "1", "2") {
				run("mk d q 1777 %s ; mk %c q/o 644 %s | 1 remove q/o", *dir, *t,
				    *file);
				run("mk d q 1777 %s ; mk %c q/o 644 %s | 1 rename q/o new", *dir,
				    *t, *file);
				run("mk d q 1777 %s ; mk %c q/o 644 %s ; mk %c n 644 1 | 1 rename "
				    "n q/o",
				    *dir, *t, *file, *t);
				run("mk d q 1777 %s ; mk %c q/o 644 %s ; mk %c n 644 1 |"
				    "1 rename n q/o exchange", *dir, *t, *file, *t);
				run("mk d q 1777 %s ; mk %c q/o 644 %s ; mk d w 1777 0 ; mk %c "
				    "w/n 644 2 |"
				    "1 rename q/o w/n", *dir, *t, *file, *t);
			}
	/* a fifo or file of somebody else in a sticky directory of everybody */
	EACH(flags, "w,creat,nonblock", "rw,creat", "rw")
		EACH_TYPE(t)
			run("mk d q 1777 2 ; mk %c q/o 666 2 | 1 open A q/o %s ; 0 open B q/o "
			    "%s", *t, *flags,
			    *flags);
}

static void modes(void)
{
	EACH_TYPE(t)
		EACH(mode, "0", "111", "644", "4755", "2755", "6777", "1777", "7777")
			EACH(user, "0", "1", "2", "3") {
				run("mk %c o 644 1 | %s chmod o %s", *t, *user, *mode);
				run("mk %c o 644 1 20009 | %s chmod o %s", *t, *user, *mode);
				run("mk %c o 644 1 2 | %s chmod o %s", *t, *user, *mode);
			}
	EACH(make, "open A n w,creat %s", "mkdir n %s", "mkfifo n %s", "mknod f n %s", "mknod p n "
	    "%s",
	     "open A n w,creat,excl,trunc %s")
		EACH(mode, "0", "777", "4755", "2755", "6777", "1777")
			EACH(mask, "0", "22", "777", "70")
				EACH(dir, "777 0 0", "2777 0 20009", "2777 2 2", "2777 1 1") {
					char call[64];
					snprintf(call, sizeof(call), "%.*s%s",
					    (int)(strlen(*make) - 2),
						 *make, *mode);
					run("mk d q %s ; chdir q | umask %s ; 1 %s ; umask 0",
					    *dir, *mask, call);
				}
	EACH(mode, "0", "100", "200", "300", "400", "500", "600", "700", "70", "7", "4711", "2711")
		EACH(user, "0", "1", "2", "3")
			EACH(t, "f", "d")
				EACH(want, "1", "2", "4", "6", "7")
					run("mk %s o %s 1 20009 | %s access o %s", *t, *mode,
					    *user, *want);
}

static void owners(void)
{
	EACH_TYPE(t)
		EACH(mode, "644", "4755", "2755", "6755", "2644", "6777", "6000")
			EACH(ids, "1 1", "- -", "2 2", "- 20009", "1 20009", "- 2", "2 -", "0 0")
				EACH(user, "0", "1", "2") {
					run("mk %c o %s 1 | %s lchown o %s", *t, *mode, *user,
					    *ids);
					if (*t != 'p')
						continue;
					run("mk f o %s 1 ; open A o r | %s fchown A %s", *mode,
					    *user, *ids);
				}
	/* what clears set-id bits */
	EACH(mode, "4777", "2777", "6777", "2767", "6666", "7777")
		EACH(user, "0", "1", "2", "3")
			EACH(what, "open A o w ; write A 0 1", "trunc o 0", "trunc o 5", "trunc o "
			    "10", "trunc o 100",
			     "open A o w,trunc", "open A o rw ; ftrunc A 3", "open A o w ; "
			     "fallocate A 0 0 100",
			     "open A o w ; fallocate A punch,keep 0 5", "open A o w,append ; "
			     "write A - 3",
			     "open A o rw ; map A 1 w", "open A o rw ; copy A 0 A 20 5", "utimes "
			     "o null",
			     "open A o w ; write A 0 0", "open A o w,direct ; write A 0 5000",
			     "setx o user.a b", "link o p", "rename o p")
				run("mk f o %s 1 20009 ; install t | %s %s", *mode, *user, *what);
	EACH(mode, "4777", "2777", "6777", "2767", "6666", "7777")
		EACH(user, "0", "1", "2", "3")
			EACH(how, "w", "rw", "w,append", "rw,direct")
				EACH(what, "write A 0 1", "write A 0 0", "write A - 5000", "ftrunc A 3",
				     "ftrunc A 10", "fallocate A 0 0 100",
				     "fallocate A punch,keep 0 5")
					run("mk f o %s 1 20009 ; install t | %s open A o %s ; "
					    "%s %s", *mode, *user, *how, *user, *what);
	EACH(mode, "2777", "2767", "6666")
		EACH(user, "0", "1", "2", "3")
			run("mk f o %s 1 20009 ; install t | %s open A o rw ; %s copy A 0 A 20 5",
			    *mode, *user, *user);
	EACH_TYPE(t)
		EACH(mode, "2644", "2755", "6644")
			EACH(gid, "1", "2", "20009") {
				run("mk %c o %s 1 %s | 1 lchown o - 20009", *t, *mode, *gid);
				run("mk %c o %s 1 %s | 1 lchown o 1 -", *t, *mode, *gid);
			}
}

static void opens(void)
{
	EACH_TYPE(t)
		EACH(acc, "r", "w", "rw", "bad")
			EACH(f, "creat", "creat,excl", "trunc", "dir", "nofollow", "append", "path",
			     "sync", "creat,dir", "path,nofollow", "path,dir", "creat,nofollow",
			     "creat,trunc", "creat,excl,nofollow", "noatime", "direct")
				EACH(user, "0", "1") {
					run("mk %c o 644 2 | %s open A o %s,%s,nonblock ; fstat A "
					    "; write A - 3 ;"
					    "read A 0 5 ; fchmod A 600 ; ftrunc A 2", *t, *user,
					    *acc, *f);
					run("mk %c x 666 2 ; symlink x o | %s open A o "
					    "%s,%s,nonblock", *t, *user,
					    *acc, *f);
				}
	EACH(mode, "0", "200", "400", "600")
		EACH(acc, "r", "w", "rw", "r,trunc", "w,trunc", "r,append")
			EACH(user, "0", "1", "2", "3")
				run("mk f o %s 1 20009 | %s open A o %s ; read A 0 9 ; write A 0 "
				    "4", *mode, *user, *acc);
	EACH(mode, "0", "200", "400") /* made with a mode that would not let it be opened */
		run("| 1 open A o rw,creat %s ; write A 0 4 ; read A 0 9 ; 1 open B o rw", *mode);
	EACH(f, "rw,tmp", "w,tmp", "rw,tmp,excl", "r,tmp")
		run("mk d q | open A q %s ; fstat A ; write A 0 4 ; linkfd A new ; fstat A", *f);
	run("mk f o | open A o rw,append ; write A 0 4 ; write A - 3 ; lseek A 0 cur");
	run("install t | open A t w ; exec t ; close A ; exec t");
	run("install t ; chmod t 644 | exec t ; chmod t 111 ; 1 exec t ; 1 open A t r");
	run("mk f o ; mk d d | exec o ; exec d ; exec none ; 1 exec o");
}

static void renames(void)
{
	EACH_TYPE(a)
		EACH_TYPE(b)
			EACH(flags, "", "noreplace", "exchange") {
				run("mk %c a 644 1 ; mk %c b 600 2 | rename a b %s", *a, *b,
				    *flags);
				run("mk d x ; mk d y ; mk %c x/a 644 1 ; mk %c y/b 600 2 | rename "
				    "x/a y/b %s",
				    *a, *b, *flags);
				run("mk d x ; mk d y ; mk %c x/a 644 1 ; mk %c y/b 600 2 | 1 "
				    "rename x/a y/b %s",
				    *a, *b, *flags);
			}
	EACH(flags, "", "noreplace", "exchange", "whiteout", "noreplace,exchange",
	    "whiteout,exchange",
	     "noreplace,whiteout", "wrong")
		EACH(p, "a a", "a b", "b a", "d d", "d d/e", "d/e d", "d d/e/f", "d/e/f d", "d "
		    "none", "a none",
		     "none a", "none none", "full d", "d full", "a full/x", "full/x a", "d "
		     "full/x", "full/x d",
		     "d/e full", "full d/e", "d/. none", "none d/..", ". x", "a .", "a ..", ".. "
		     "a", "d . ",
		     "a/ x", "a x/", "d/ x", "d x/", "d/ x/", "d full/", "a full/", "empty full",
		     "full empty",
		     "empty d/e", "d/e empty", "a d/e/new", "d/e new", "l a", "a l", "l x", "l/ "
		     "x", "dl x", "dl/ x",
		     "d dl", "d dl/", "a dl/new", "a %255", "a %256", "%256 a", "a a/x", "a/x b",
		     "h a", "a h",
		     "h h", "h d/h2", "d/h2 h", "d/h2 a")
			run("mk f a ; mk f b ; mk d d ; mk d d/e ; mk d d/e/f ; mk d empty ; mk d "
			    "full ;"
			    "mk f full/x ; mk l l ; symlink d dl ; link a h ; link a d/h2 | "
			    "rename %s %s", *p, *flags);
	run("mk d x 777 2 ; mk d x/q 755 2 ; mk d y 777 | 1 rename x/q y/q ; 2 rename x/q y/q");
	run("mk d x 777 2 ; mk d x/q 555 1 ; mk d y 777 | 1 rename x/q y/q ; 1 rename x/q x/r");
	run("mk d d ; mk f d/a | chdir d ; open A a r ; rename a b ; fstat A ; read A 0 5 ; "
	    "rename ../d ../e ;"
	    "stat . ; open B c w,creat");
	run("mk d a ; mk d a/s ; mk d b | rename a/s b/s ; stat a ; stat b ; stat b/s/.. ; rmdir "
	    "a ; rmdir b");
	run("mk d a ; mk d b ; mk d a/s ; mk f f | rename a/s f exchange ; stat . ; stat a ; "
	    "rename f b/x ; stat b");
}

static void links(void)
{
	EACH_TYPE(t) {
		run("mk %c o 644 1 | link o n ; lstat o ; unlink o ; lstat n ; link n o", *t);
		run("mk %c o 644 2 | 1 link o n", *t);
		run("mk %c o 666 2 | 1 link o n", *t);
		run("mk %c o 4755 2 | 1 link o n ; 0 link o m", *t);
		run("mk %c o ; open A o r,path,nofollow | linkfd A n ; linkempty A m ; fstat A",
		    *t);
		run("mk %c o ; mkdir d ; open A o r,path,nofollow | linkfd A n ; linkempty A d/m ; "
		    "fstat A", *t);
		run("mk %c o ; open A o r,path,nofollow ; remove o | linkfd A n ; linkempty A m ; "
		    "fstat A", *t);
		run("mk %c x ; symlink x o | link o n ; linkat o m ; lstat n ; lstat m", *t);
		run("mk %c o 644 1 ; open A o r,path,nofollow | fstat A ; remove o ; fstat A ; mk "
		    "f o ; fstat A", *t);
		run("mk %c o ; link o a ; link o b ; open A o r,path,nofollow | unlink a ; fstat "
		    "A ; unlink b ;"
		    "fstat A ; remove o ; fstat A", *t);
		run("mk %c o 644 1 ; mk %c n 600 2 ; open A n r,path,nofollow | rename o n ; "
		    "fstat A", *t, *t);
		if (*t == 'l' || *t == 's' || *t == 'b')
			continue;
		run("mk %c o 644 1 ; open A o r,nonblock | remove o ; fstat A ; fchmod A 600 ; "
		    "fchown A 2 2 ;"
		    "futimes A 5 6 ; fstat A ; linkfd A n ; linkempty A n", *t);
	}
	run("mk d d ; chdir d | stat . ; rmdir ../d ; stat . ; ls . ; mk f x ; mkdir y ; stat .. "
	    "; open A . r");
	run("mk d d ; mk d d/e ; chdir d/e | rmdir ../e ; rmdir ../../d ; stat . ; stat .. ; "
	    "symlink a b");
	run("mk p o ; open A o rw,nonblock | unlink o ; fstat A ; write A - 5 ; read A - 5 ; "
	    "fchmod A 0 ; fstat A");
	run("mk f o ; open A o rw | unlink o ; write A 10 5 ; read A 0 99 ; ftrunc A 3 ; fstat A "
	    "; fsync A ; close A");
	run("mk f o ; open A o rw ; open B o r | unlink o ; mk f o ; write A 0 4 ; read B 0 9 ; "
	    "close A ; fstat B ; sum o");
	run("| open A o rw,creat ; unlink o ; fstat A ; write A 0 5000 ; fstat A ; linkfd A n ; "
	    "fsync A ; close A");
	run("| open A o rw,creat ; link o n ; unlink o ; write A 0 5000 ; fstat A ; close A ; sum "
	    "n ; stat n");
	run("| open A o rw,creat ; mk f x ; rename x o ; write A 0 5 ; fstat A ; close A ; sum o");
	run("| open A o rw,creat ; write A 0 5 ; rename o x ; write A 5 5 ; close A ; sum x ; "
	    "stat x");
}

static void times(void)
{
	EACH_TYPE(t)
		EACH(ts, "now now", "now omit", "omit now", "omit omit", "1 2", "1 omit", "omit "
		    "2", "bad 1", "1 bad",
		     "1.999999999 2.000000001", "-5 -6", "now 3", "4294967296 8589934592", "0 0")
			EACH(user, "0", "1", "2", "3") {
				run("mk %c o 664 1 20009 | %s utimes o %s nofollow", *t, *user,
				    *ts);
				if (*t == 'f')
					run("mk f o 664 1 20009 ; open A o r ; symlink o l |"
					    "%s futimes A %s ; %s utimes l %s", *user, *ts,
					    *user, *ts);
			}
	EACH(ts, "1.999999999 2.000000001", "-5 -6", "-5.5 7.7", "4294967296 8589934592", "omit "
	    "5", "5 omit")
		run("mk f o ; utimes o 100 200 | utimes o %s ; times o", *ts);
	EACH_TYPE(t)
		EACH(mode, "0", "222", "444", "666")
			EACH(user, "0", "1", "2") {
				run("mk %c x %s 1 ; symlink x o | %s utimes o null", *t, *mode,
				    *user);
				run("mk %c x %s 1 ; symlink x o | %s utimes o now now", *t,
				    *mode, *user);
			}
	/* reading: as with relatime */
	run("mk f o ; utimes o 5 6 | open A o r ; read A - 5");
	run("mk f o ; utimes o 9999999999 6 | open A o r ; read A - 5");
	run("mk f o ; utimes o 5 6 | open A o r ; read A 100 5");
	run("mk f o ; utimes o 5 6 | open A o r,noatime ; read A - 5");
	run("mk f o ; utimes o 5 6 | open A o r ; map A 5 r");
	run("mk f o ; utimes o 5 6 | install t ; exec t");
	run("mk f o ; open A o rw | write A 0 0");
	run("mk f o ; open A o rw | write A 0 5 ; stat o");
	run("mk f o ; open A o rw | write A 0 5 ; utimes o 7 8 ; times o ; close A ; times o");
	run("mk f o ; open A o rw ; write A 0 5 ; utimes o 7 8 | close A ; times o ; trunc o 10 ; "
	    "fsync A");
	run("mk f o | trunc o 10");
	run("mk f o | trunc o 5");
	run("mk f o ; open A o rw | ftrunc A 10");
	run("mk e o ; open A o rw | ftrunc A 0");
	run("mk e o | trunc o 0");
	run("mk e o | open A o w,trunc");
	run("mk f o | open A o w,trunc");
	run("mk f o | open A o w,creat ; close A");
	run("mk f o ; open A o rw | fsync A ; close A");
}

static void contents(void)
{
	EACH(t, "f", "e", "d", "p", "c")
		EACH(len, "0", "1", "-1", "4096", "1m", "8g", "0x7fffffffffffffff") {
			run("mk %s o | trunc o %s ; stat o", *t, *len);
			run("mk %s o ; open A o rw,nonblock ; open B o r,nonblock | ftrunc A %s ; "
			    "ftrunc B %s ; fstat B",
			    *t, *len, *len);
		}
	EACH(m, "0", "keep", "punch", "punch,keep", "zero", "zero,keep", "collapse", "insert",
	    "wrong", "punch,zero")
		EACH(r, "0 0", "0 5", "5 100", "4096 8192", "-1 5", "5 -1", "0 10000", "100 1",
		    "0x7ffffffffffffffe 5") {
			run("mk f o ; open A o rw | fallocate A %s %s ; fstat A ; holes A ; sum "
			    "o", *m, *r);
			run("open A o rw,creat ; write A 0 12345 | fallocate A %s %s ; fstat A ; "
			    "holes A ; sum o", *m, *r);
			run("mk f o ; open A o r | fallocate A %s %s", *m, *r);
			run("mk d o ; open A o r | fallocate A %s %s", *m, *r);
			run("mk p o ; open A o rw | fallocate A %s %s", *m, *r);
		}
	EACH(r, "0 0", "0 5", "5 100", "4096 8192", "-1 5", "5 -1")
		run("mk f o ; open A o rw | pfallocate A %s ; fstat A ; sum o", *r);
	EACH(r, "0 A 0 10", "0 A 5 10", "5 A 0 10", "0 A 5 5", "0 A 5 6", "0 A 4096 100", "50 A 0 "
	    "10", "0 A 10 0",
	     "0 B 0 10", "5 B 2 100", "0 B 10000 10", "-1 B 0 5", "0 B -1 5", "0 C 0 5", "0 D 0 "
	     "5", "0 E 0 5",
	     "0 F 0 5", "0 B 0x7ffffffffffffff0 100")
		run("mk f o ; mk f n ; mk d d ; open A o rw ; open B n rw ; open C n r ; open D n "
		    "w,append ; open E d r ;"
		    "mk p p ; open F p rw | copy A %s ; sum o ; sum n ; fstat A ; fstat B", *r);
	EACH(o, "0 data", "0 hole", "5 data", "9 hole", "10 data", "10 hole", "11 hole", "-1 "
	    "data", "-1 hole", "0 wrong",
	     "0 end", "-5 end", "-50 end", "-1 set", "5 cur", "0x7fffffffffffffff end",
	     "0x7fffffffffffffff set")
		run("mk f o ; open A o rw | lseek A %s ; lseek A 0 cur", *o);
	EACH(s, "write A 0 5000", "write A 1m 5", "ftrunc A 2m", "write A 0 5 ; ftrunc A 2m ; "
	    "write A 1m 9000",
	     "write A 0 1m ; fallocate A punch,keep 8192 8192", "write A 0 1m ; fallocate A "
	     "punch,keep 100 500",
	     "write A 500k 100k ; ftrunc A 510k ; ftrunc A 600k", "fallocate A 0 0 100k ; write A "
	     "50k 5")
		run("open A o rw,creat | %s ; holes A ; fstat A ; sum o ; close A ; open A o r ; "
		    "holes A ; sum o", *s);
	EACH(n, "1", "10", "4096") {
		run("mk f o ; open A o rw | map A %s w ; sum o ; fstat A", *n);
		run("mk f o ; open A o r | map A %s r ; map A 5 w", *n);
		run("mk f o ; open A o w | map A %s r", *n);
		run("mk f o ; open A o rw ; write A 0 5000 ; ftrunc A 3000 | map A 4096 w ; "
		    "ftrunc A 5000 ; sum o");
	}
	run("mk f o ; open A o r | write A 0 5 ; ftrunc A 1 ; open B o w ; read B 0 5 ; fsync A ; "
	    "fsync B");
	run("mk d o ; open A o r | read A - 5 ; write A - 5 ; fsync A ; lseek A 0 set");
	run("mk f o ; open A o rw | write A -1 5 ; read A -1 5 ; write A 0x7fffffffffffffff 5 ; "
	    "write A 0x7ffffffffffffffe 1");
	run("mk f o ; open A o rw | write A 8g 5 ; fstat A ; read A 4g 10 ; read A 8g 10 ; ftrunc "
	    "A 5");
	run("mk f o ; open A o rw,direct | write A 0 5000 ; read A 0 9999 ; fstat A ; sum o ; "
	    "write A 3 9 ; sum o");
}

static void xattrs(void)
{
	EACH_TYPE(t)
		EACH(name, "user.a", "trusted.a", "security.a", "system.a",
		    "system.posix_acl_access", "none.a", "user.",
		     "user", ".", "-", "user.%255", "user.%250", "user.%251", "trusted.%247",
		     "trusted.%248", "%bad")
			EACH(user, "0", "1", "2")
				run("mk %c o 644 1 | %s setx o %s val ; %s getx o %s ; listx o ; "
				    "1 listx o ; %s rmx o %s ; listx o",
				    *t, *user, *name, *user, *name, *user, *name);
	run("mk f o | setx o user.a v create ; setx o user.a w create ; setx o user.a ww replace "
	    "; getx o user.a ;"
	    "setx o user.b v replace ; getx o user.a 0 ; getx o user.a 1 ; rmx o user.a ; rmx o "
	    "user.a ; getx o user.a");
	run("mk f o ; setx o user.a v | setx o user.a v ; rmx o user.b");
	run("mk f o ; setx o user.a v | getx o user.a ; listx o");
	run("mk f o | setx o user.a v create");
	run("mk f o ; setx o user.a v | rmx o user.a");
	run("mk d o ; setx o user.a v | rmx o user.a");
	run("mk f o ; setx o user.a v | setx o user.a - ; getx o user.a ; listx o");
	run("mk f o ; setx o user.a v ; link o n | getx n user.a ; setx n user.b w ; rename o x ; "
	    "getx x user.b ;"
	    "unlink x ; listx n");
	run("| open A o rw,creat ; setx o user.a v ; getx o user.a ; write A 0 5 ; close A ; getx "
	    "o user.a ; listx o");
	EACH(mode, "0", "200", "400", "600", "66", "1777")
		EACH(t, "f", "d")
			EACH(user, "1", "2", "3")
				run("mk %s o %s 1 20009 ; setx o user.z v | %s setx o user.a v ; "
				    "%s getx o user.z ;"
				    "%s listx o ; %s rmx o user.z", *t, *mode, *user, *user,
				    *user, *user);
	run("mk d q 1777 ; setx q user.z v | 1 setx q user.a v ; 1 getx q user.z ; 1 rmx q user.z");
}

static void acls(void)
{
	EACH(acl, "u::6,g::4,o::0", "u::6,u1:6,g::4,m::6,o::0", "u::6,u1:6,g::4,m::4,o::0",
	    "u::6,u1:0,g::7,m::7,o::7",
	     "u::0,g20009:6,g::0,m::6,o::0", "u::7,u1:7,u2:0,g::0,m::7,o::5", "u::6,g::4",
	     "u::6,u1:6,g::4,o::0", "o::0",
	     "u::9,g::4,o::0") {
		EACH_TYPE(t) {
			if (*t != 'l')
				run("mk %c o 644 2 ; utimes o 5 6 | setacl o access %s ; getacl o "
				    "access ; 1 getacl o access",
				    *t, *acl);
			if (*t != 'l')
				run("mk %c o 644 2 | setacl o default %s ; getacl o default ; 1 "
				    "setacl o access %s ;"
				    "2 setacl o access %s ; rmacl o access ; rmacl o default",
				    *t, *acl, *acl, *acl);
		}
		EACH(user, "0", "1", "2", "3")
			run("mk f o 640 0 ; mk d d 750 0 | setacl o access %s ; setacl d access "
			    "%s ; %s open A o r ; %s open B o w ;"
			    "%s access o 7 ; %s ls d ; %s mkdir d/x", *acl, *acl, *user, *user,
			    *user, *user, *user);
		EACH(make, "open A d/n w,creat %s", "mkdir d/n %s", "mkfifo d/n %s", "mknod f d/n "
		    "%s", "mknod s d/n %s")
			EACH(mode, "644", "777", "600", "2775")
				EACH(mask, "0", "22", "77") {
					char call[64];
					snprintf(call, sizeof(call), "%.*s%s",
					    (int)(strlen(*make) - 2), *make, *mode);
					run("mk d d 777 ; setacl d default %s | umask %s ; 1 %s ; "
					    "getacl d/n access ;"
					    "getacl d/n default", *acl, *mask, call);
				}
		EACH(mode, "0", "600", "640", "777", "2755")
			EACH(t, "f", "d")
				run("mk %s o 644 1 ; setacl o access %s | 1 chmod o %s ; getacl o "
				    "access ; chmod o 644 ; getacl o access ;"
				    "rmacl o access ; getacl o access", *t, *acl, *mode);
	}
	run("mk f o 2755 1 2 | 1 setacl o access u::7,g::5,o::5 ; stat o");
	run("mk f o 2755 1 20009 | 1 setacl o access u::7,g::5,o::5 ; stat o");
	run("mk f o 2755 1 2 | 1 setacl o access u::7,u2:7,g::5,m::7,o::5 ; stat o");
	run("mk d d 777 ; setacl d default u::7,u1:7,g::5,m::7,o::0 | symlink x d/l ; lstat d/l ; "
	    "open A d/f rw,creat 666 ;"
	    "fstat A ; close A ; mkdir d/s 777 ; mkdir d/s/t 700 ; getacl d/s/t default ; getacl "
	    "d/f access");
	run("| open A o rw,creat 644 ; setacl o access u::6,u1:6,g::4,m::6,o::0 ; fstat A ; "
	    "fchmod A 600 ; getacl o access ;"
	    "write A 0 5 ; close A ; getacl o access ; stat o ; 1 open B o r");
}

static void others(void)
{
	EACH(kind, "posix", "ofd", "flock")
		EACH(mine, "r", "w", "u")
			EACH(other, "posix", "ofd", "flock")
				EACH(theirs, "r", "w")
					run("mk f o ; open A o rw | lock A %s %s 0 10 ; otherlock "
					    "o %s %s 5 10 ; otherlock o %s %s 10 5 ;"
					    "lock A %s u 0 0 ; otherlock o %s %s 0 0", *kind,
					    *mine, *other, *theirs, *other,
					    *theirs, *kind, *other, *theirs);
	run("mk f o ; open A o r | lock A posix w 0 0 ; lock A flock w 0 0 ; lock A posix r -5 2");
	EACH_TYPE(t) {
		run("mk %c o | handle o", *t);
		run("mk d d ; mk d d/e ; mk %c d/e/o | handle d/e/o drop ; handle d/e drop ; "
		    "handle d drop", *t);
		run("mk %c o | btime o", *t);
	}
	run("mk d d ; mk f d/a ; mk f d/b ; mk f d/c ; mk d d/e ; mk l d/l | seekdir d ; ls d ; "
	    "unlink d/a ; seekdir d");
	run("mk d d | ls d ; seekdir d");
	run("| statvfs .");
	run("mk d d ; mk d d/a ; mk d d/b ; mk f d/f | stat d ; rmdir d/a ; stat d ; rmdir d ; "
	    "unlink d/f ; rmdir d/b ; rmdir d");
	EACH(n, "1", "255", "256", "1000", "4094", "4095", "4096")
		run("| symlink %%%s l ; lstat l ; readlink l ; stat l", *n);
	run("| symlink - l ; symlink x - ; symlink a/b/c/ l ; readlink l");
}

static void all_cases(void)
{
	path_forms();
	by_types();
	by_permission();
	sticky();
	modes();
	owners();
	opens();
	renames();
	links();
	times();
	contents();
	xattrs();
	acls();
	others();
}
