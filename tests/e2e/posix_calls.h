/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands of a case: each one is about one system call. Paths go through path();
 * file descriptors are A to H. A command returns what the call did, or -errno.
 */
#define CALL(name) static long do_##name(char **v, int n)
#define UNUSED (void)n

CALL(mk) /* type path [mode [uid [gid]]] */
{
	mode_t mode = n > 2 ? mode_of(v[2]) : v[0][0] == 'd' ? 0755 : 0644;
	const char *p = path(v[1]);
	long r = make(v[0][0], p, mode);

	if (r == 0 && n > 3)
		r = sys(lchown(p, id_of(v[3]), id_of(v[n > 4 ? 4 : 3])));
	if (r == 0 && n > 3 && v[0][0] != 'l')
		r = sys(chmod(p, mode)); /* chown took set-id bits away */
	return r;
}

CALL(open) /* fd path flags [mode] */
{
	int f = open(path(v[1]), flags_of(v[2]), n > 3 ? mode_of(v[3]) : 0644);

	*fd_slot(v[0]) = f;
	return f < 0 ? -errno : 0;
}

CALL(close) { UNUSED; int f = fd(v[0]); *fd_slot(v[0]) = -1; return sys(close(f)); }
CALL(umask) { UNUSED; umask(mode_of(v[0])); return 0; }
CALL(chdir) { UNUSED; return sys(chdir(path(v[0]))); }
CALL(chmod) { UNUSED; return sys(chmod(path(v[0]), mode_of(v[1]))); }
CALL(fchmod) { UNUSED; return sys(fchmod(fd(v[0]), mode_of(v[1]))); }
CALL(chown) { UNUSED; return sys(chown(path(v[0]), id_of(v[1]), id_of(v[2]))); }
CALL(lchown) { UNUSED; return sys(lchown(path(v[0]), id_of(v[1]), id_of(v[2]))); }
CALL(fchown) { UNUSED; return sys(fchown(fd(v[0]), id_of(v[1]), id_of(v[2]))); }
CALL(trunc) { UNUSED; return sys(truncate(path(v[0]), num(v[1]))); }
CALL(ftrunc) { UNUSED; return sys(ftruncate(fd(v[0]), num(v[1]))); }
CALL(mkdir) { return sys(mkdir(path(v[0]), n > 1 ? mode_of(v[1]) : 0755)); }
CALL(mkfifo) { return sys(mkfifo(path(v[0]), n > 1 ? mode_of(v[1]) : 0644)); }
CALL(rmdir) { UNUSED; return sys(rmdir(path(v[0]))); }
CALL(unlink) { UNUSED; return sys(unlink(path(v[0]))); }
CALL(remove) { UNUSED; return sys(remove(path(v[0]))); }
CALL(link) { UNUSED; return sys(link(path(v[0]), path(v[1]))); }
CALL(symlink) { UNUSED; return sys(symlink(path(v[0]), path(v[1]))); }
CALL(exists) { UNUSED; return sys(access(path(v[0]), F_OK)); }
CALL(fsync) { UNUSED; return sys(fsync(fd(v[0]))); }

CALL(linkat) /* from to: follows a symbolic link */
{
	UNUSED;
	return sys(linkat(AT_FDCWD, path(v[0]), AT_FDCWD, path(v[1]), AT_SYMLINK_FOLLOW));
}

CALL(linkfd) /* fd to: by /proc/self/fd */
{
	char p[64];

	UNUSED;
	snprintf(p, sizeof(p), "/proc/self/fd/%d", fd(v[0]));
	return sys(linkat(AT_FDCWD, p, AT_FDCWD, path(v[1]), AT_SYMLINK_FOLLOW));
}

CALL(linkempty) /* fd to: AT_EMPTY_PATH */
{
	UNUSED;
	return sys(linkat(fd(v[0]), "", AT_FDCWD, path(v[1]), AT_EMPTY_PATH));
}

CALL(mknod) /* type path mode */
{
	static const char types[] = "fdpsbc";
	static const mode_t modes[] = { S_IFREG, S_IFDIR, S_IFIFO, S_IFSOCK, S_IFBLK, S_IFCHR };
	const char *t = strchr(types, v[0][0]);

	UNUSED;
	return sys(mknod(path(v[1]), (t ? modes[t - types] : 0) | mode_of(v[2]), makedev(1, 7)));
}

CALL(bind) /* path: a socket */
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int s = socket(AF_UNIX, SOCK_STREAM, 0);

	UNUSED;
	if (v[0][0] == '%' || strchr(v[0], '%'))
		return close(s), 0; /* does not fit into the address */
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path(v[0]));
	long r = sys(bind(s, (struct sockaddr *)&a, sizeof(a)));
	close(s);
	return r;
}

CALL(rename) /* from to [noreplace|exchange|whiteout,...] */
{
	unsigned f = 0;

	if (n > 2)
		f = (strstr(v[2], "noreplace") ? RENAME_NOREPLACE : 0) |
		    (strstr(v[2], "exchange") ? RENAME_EXCHANGE : 0) |
		    (strstr(v[2], "whiteout") ? RENAME_WHITEOUT : 0) |
		    (strstr(v[2], "wrong") ? 1U << 9 : 0);
	return sys(f ? renameat2(AT_FDCWD, path(v[0]), AT_FDCWD, path(v[1]), f) :
		       rename(path(v[0]), path(v[1])));
}

/* atime mtime, each: now, omit, bad, or seconds[.nanoseconds] */
static void times_of(char **v, struct timespec ts[2])
{
	for (int i = 0; i < 2; i++) {
		char *end;
		ts[i].tv_sec = strtoll(v[i], &end, 10);
		ts[i].tv_nsec = !strcmp(v[i], "now") ? UTIME_NOW :
				!strcmp(v[i], "omit") ? UTIME_OMIT :
				!strcmp(v[i], "bad") ? 1000000000 :
				*end == '.' ? strtol(end + 1, NULL, 10) : 0;
	}
}

static void show_both(const struct stat *st)
{
	say("[%lld.%09ld %lld.%09ld] ", (long long)st->st_atim.tv_sec, st->st_atim.tv_nsec,
	    (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
}

CALL(utimes) /* path atime mtime [nofollow]; "null" alone is both now */
{
	struct timespec ts[2];

	if (!strcmp(v[1], "null"))
		return sys(utimensat(AT_FDCWD, path(v[0]), NULL, 0));
	times_of(v + 1, ts);
	return sys(utimensat(AT_FDCWD, path(v[0]), ts, n > 3 ? AT_SYMLINK_NOFOLLOW : 0));
}

CALL(futimes) /* fd atime mtime */
{
	struct timespec ts[2];

	UNUSED;
	times_of(v + 1, ts);
	return sys(futimens(fd(v[0]), ts));
}

CALL(times) /* path: shows atime and mtime */
{
	struct stat st;

	UNUSED;
	if (lstat(path(v[0]), &st) < 0)
		return -errno;
	show_both(&st);
	return 0;
}

static void show_stat(const struct stat *st)
{
	say("[%o links %lu owner %u:%u", st->st_mode, (unsigned long)st->st_nlink, st->st_uid,
	    st->st_gid);
	if (!S_ISDIR(st->st_mode))
		say(" size %lld", (long long)st->st_size);
	say("] ");
}

CALL(stat)
{
	struct stat s;

	UNUSED;
	if (stat(path(v[0]), &s) < 0)
		return -errno;
	show_stat(&s);
	return 0;
}

CALL(lstat)
{
	struct stat s;

	UNUSED;
	if (lstat(path(v[0]), &s) < 0)
		return -errno;
	show_stat(&s);
	return 0;
}

CALL(fstat)
{
	struct stat s;

	UNUSED;
	if (fstat(fd(v[0]), &s) < 0)
		return -errno;
	show_stat(&s);
	return 0;
}


CALL(access) /* path mode: as the effective user */
{
	UNUSED;
	return sys(faccessat(AT_FDCWD, path(v[0]), (int)num(v[1]), AT_EACCESS));
}

CALL(readlink)
{
	char b[5000];
	ssize_t r = readlink(path(v[0]), b, sizeof(b));

	UNUSED;
	if (r > 0 && r < 200)
		say("[%.*s] ", (int)r, b);
	return sys(r);
}

CALL(ls) /* path: how many entries */
{
	int f = open(path(v[0]), O_RDONLY | O_DIRECTORY);
	DIR *d = f < 0 ? NULL : fdopendir(f);
	long i = 0;

	UNUSED;
	if (!d)
		return -errno;
	while (readdir(d))
		i++;
	closedir(d);
	return i;
}

/* Bytes --------------------------------------------------------------------------- */

CALL(write) /* fd offset length; offset "-" is where it stands */
{
	static char b[1 << 20];
	size_t len = (size_t)num(v[2]);

	UNUSED;
	memset(b, 'w', sizeof(b));
	return sys(v[1][0] == '-' ? write(fd(v[0]), b, len) :
				    pwrite(fd(v[0]), b, len, num(v[1])));
}

static unsigned sum(const unsigned char *p, size_t n)
{
	unsigned h = 5381;

	for (size_t i = 0; i < n; i++)
		h = h * 33 + p[i];
	return h;
}

CALL(read) /* fd offset length */
{
	static unsigned char b[1 << 20];
	ssize_t r;

	UNUSED;
	r = v[1][0] == '-' ? read(fd(v[0]), b, (size_t)num(v[2])) :
			     pread(fd(v[0]), b, (size_t)num(v[2]), num(v[1]));
	if (r >= 0)
		say("[sum %u] ", sum(b, (size_t)r));
	return sys(r);
}

CALL(sum) /* path: the sum of all its bytes */
{
	static unsigned char b[4 << 20];
	int f = open(path(v[0]), O_RDONLY | O_NONBLOCK | O_NOATIME);
	size_t at = 0;
	ssize_t r;

	UNUSED;
	if (f < 0)
		return -errno;
	while ((r = read(f, b + at, sizeof(b) - at)) > 0)
		at += (size_t)r;
	if (r < 0)
		r = -errno;
	close(f);
	say("[%zu bytes, sum %u] ", at, sum(b, at));
	return r;
}

CALL(lseek) /* fd offset set|cur|end|data|hole */
{
	static const struct { const char *name; int whence; } w[] = {
		{ "set", SEEK_SET }, { "cur", SEEK_CUR }, { "end", SEEK_END },
		{ "data", SEEK_DATA }, { "hole", SEEK_HOLE }, { "wrong", 99 },
	};
	size_t i = 0;

	UNUSED;
	while (i < 5 && strcmp(w[i].name, v[2]))
		i++;
	return sys(lseek(fd(v[0]), num(v[1]), w[i].whence));
}

CALL(fallocate) /* fd mode offset length; mode: keep,punch,zero,collapse,insert or 0 */
{
	int m = (strstr(v[1], "keep") ? FALLOC_FL_KEEP_SIZE : 0) |
		(strstr(v[1], "punch") ? FALLOC_FL_PUNCH_HOLE : 0) |
		(strstr(v[1], "zero") ? FALLOC_FL_ZERO_RANGE : 0) |
		(strstr(v[1], "collapse") ? FALLOC_FL_COLLAPSE_RANGE : 0) |
		(strstr(v[1], "insert") ? FALLOC_FL_INSERT_RANGE : 0) |
		(strstr(v[1], "wrong") ? 0x100 : 0);

	UNUSED;
	return sys(fallocate(fd(v[0]), m, num(v[2]), num(v[3])));
}

CALL(pfallocate) /* fd offset length */
{
	UNUSED;
	return -posix_fallocate(fd(v[0]), num(v[1]), num(v[2]));
}

CALL(copy) /* fd offset fd offset length */
{
	off_t from = num(v[1]), to = num(v[3]);

	UNUSED;
	return sys(copy_file_range(fd(v[0]), &from, fd(v[2]), &to, (size_t)num(v[4]), 0));
}

CALL(map) /* fd length r|w: sum of a shared mapping, whose last byte is written by w */
{
	size_t len = (size_t)num(v[1]);
	bool w = v[2][0] == 'w';

	UNUSED;
	unsigned char *p = mmap(NULL, len, PROT_READ | (w ? PROT_WRITE : 0), MAP_SHARED,
				fd(v[0]), 0);
	if (p == MAP_FAILED)
		return -errno;
	say("[sum %u] ", sum(p, len));
	if (w)
		p[len - 1] = 'm';
	return sys(munmap(p, len));
}

/* Extended attributes --------------------------------------------------------------- */

CALL(setx) /* path name value [create|replace] */
{
	return sys(lsetxattr(path(v[0]), path(v[1]), path(v[2]), strlen(path(v[2])),
			     n < 4 ? 0 : v[3][0] == 'c' ? XATTR_CREATE : XATTR_REPLACE));
}

CALL(getx) /* path name [size] */
{
	char b[70000];
	ssize_t r = lgetxattr(path(v[0]), path(v[1]), b, n > 2 ? (size_t)num(v[2]) : sizeof(b));

	if (r > 0 && r < 100 && n < 3)
		say("[%.*s] ", (int)r, b);
	return sys(r);
}

CALL(rmx) { UNUSED; return sys(lremovexattr(path(v[0]), path(v[1]))); }

CALL(listx) /* path: names, sorted by how they sum up; security.* are left to the system */
{
	char b[8192];
	ssize_t r = llistxattr(path(v[0]), b, sizeof(b));
	long names = 0;
	unsigned h = 0;

	UNUSED;
	if (r < 0)
		return -errno;
	for (char *p = b; p < b + r; p += strlen(p) + 1) {
		names++;
		h += sum((unsigned char *)p, strlen(p));
	}
	say("[sum %u] ", h);
	return names;
}

/* An ACL as text: u::7,u1:6,g::5,g20009:4,m::6,o::0 */
static size_t acl_of(const char *a, unsigned char *out)
{
	char list[256], *save = NULL;
	size_t at = 4;

	memcpy(out, "\2\0\0\0", 4);
	snprintf(list, sizeof(list), "%s", a);
	for (char *w = strtok_r(list, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
		char *colon = strrchr(w, ':');
		bool named = isdigit(w[1]);
		uint32_t id = named ? (w[2] == ':' ? users[w[1] - '0'].uid :
				       (uint32_t)strtoul(w + 1, NULL, 10)) : UINT32_MAX;
		uint16_t tag = w[0] == 'u' ? (named ? 2 : 1) : w[0] == 'g' ? (named ? 8 : 4) :
			       w[0] == 'm' ? 16 : 32;
		uint16_t perm = (uint16_t)atoi(colon + 1);
		memcpy(out + at, &tag, 2);
		memcpy(out + at + 2, &perm, 2);
		memcpy(out + at + 4, &id, 4);
		at += 8;
	}
	return at;
}

static const char *acl_name(const char *which)
{
	return which[0] == 'd' ? "system.posix_acl_default" : "system.posix_acl_access";
}

CALL(setacl) /* path access|default text */
{
	unsigned char b[512];
	size_t len = acl_of(v[2], b);

	UNUSED;
	return sys(setxattr(path(v[0]), acl_name(v[1]), b, len, 0));
}

CALL(getacl) /* path access|default */
{
	unsigned char b[512];
	ssize_t r = getxattr(path(v[0]), acl_name(v[1]), b, sizeof(b));

	UNUSED;
	for (ssize_t i = 4; i + 8 <= r; i += 8) {
		uint32_t id;
		memcpy(&id, b + i + 4, 4);
		say("%u:%u:%d ", b[i], id, b[i + 2]);
	}
	return sys(r);
}

CALL(rmacl) { UNUSED; return sys(removexattr(path(v[0]), acl_name(v[1]))); }

/* Others --------------------------------------------------------------------------- */

static long in_child(long (*fn)(char **v), char **v)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit((int)-fn(v));
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return -errno;
	return WIFEXITED(status) ? -WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static long run_it(char **v)
{
	execl(path(v[0]), v[0], (char *)NULL);
	return -errno;
}

CALL(exec) { UNUSED; return in_child(run_it, v); }

CALL(install) /* path: a program that does nothing, from the reference's tools */
{
	char b[65536];
	int from = open("/bin/true", O_RDONLY), to = open(path(v[0]), O_CREAT | O_WRONLY, 0755);
	ssize_t r;

	UNUSED;
	while ((r = read(from, b, sizeof(b))) > 0)
		if (write(to, b, (size_t)r) != r)
			return -EIO;
	close(from);
	return sys(close(to));
}

static long lock_it(char **v)
{
	struct flock l = { .l_type = v[2][0] == 'w' ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET,
			   .l_start = num(v[3]), .l_len = num(v[4]) };
	int f = open(path(v[0]), O_RDWR);

	if (f < 0)
		return -errno;
	if (!strcmp(v[1], "flock"))
		return sys(flock(f, (v[2][0] == 'w' ? LOCK_EX : LOCK_SH) | LOCK_NB));
	return sys(fcntl(f, !strcmp(v[1], "ofd") ? F_OFD_SETLK : F_SETLK, &l));
}

CALL(otherlock) { UNUSED; return in_child(lock_it, v); } /* path kind r|w offset len */

CALL(lock) /* fd posix|ofd|flock r|w|u offset len */
{
	short type = v[2][0] == 'w' ? F_WRLCK : v[2][0] == 'r' ? F_RDLCK : F_UNLCK;
	struct flock l = { .l_type = type, .l_whence = SEEK_SET,
			   .l_start = num(v[3]), .l_len = num(v[4]) };

	UNUSED;
	if (!strcmp(v[1], "flock"))
		return sys(flock(fd(v[0]), (type == F_WRLCK ? LOCK_EX :
					    type == F_RDLCK ? LOCK_SH : LOCK_UN) | LOCK_NB));
	return sys(fcntl(fd(v[0]), !strcmp(v[1], "ofd") ? F_OFD_SETLK : F_SETLK, &l));
}

CALL(handle) /* path [drop]: opens it by its file handle, and compares the inode */
{
	union {
		struct file_handle h;
		char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
	} u = { .h.handle_bytes = MAX_HANDLE_SZ };
	struct stat a, b;
	int mount, root = open(".", O_RDONLY | O_DIRECTORY);

	if (root < 0 || lstat(path(v[0]), &a) < 0 ||
	    name_to_handle_at(AT_FDCWD, path(v[0]), &u.h, &mount, 0) < 0)
		return -errno;
	if (n > 1) {
		int c = open("/proc/sys/vm/drop_caches", O_WRONLY);
		(void)!write(c, "2", 1);
		close(c);
	}
	int f = open_by_handle_at(root, &u.h, O_PATH);
	int e = errno;
	close(root);
	if (f < 0)
		return -e;
	fstat(f, &b);
	close(f);
	return a.st_ino == b.st_ino && a.st_mode == b.st_mode ? 0 : -EBADE;
}

CALL(seekdir) /* path: reads it twice from each position; the rest must be the same */
{
	DIR *d = opendir(path(v[0]));
	char rest[64][300];
	long at[64], count = 0;
	struct dirent *e;

	UNUSED;
	if (!d)
		return -errno;
	for (at[0] = telldir(d); (e = readdir(d)) && count < 63; at[++count] = telldir(d))
		snprintf(rest[count], sizeof(rest[0]), "%s", e->d_name);
	for (long i = count - 1; i >= 0; i--) {
		seekdir(d, at[i]);
		for (long j = i; j < count; j++) {
			e = readdir(d);
			if (!e || strcmp(e->d_name, rest[j]))
				return -EBADE;
		}
		if (readdir(d))
			return -EBADE;
	}
	closedir(d);
	return count;
}

CALL(statvfs) /* path: sane? */
{
	struct statvfs s;

	UNUSED;
	if (statvfs(path(v[0]), &s) < 0)
		return -errno;
	return s.f_bfree <= s.f_blocks && s.f_bavail <= s.f_bfree && s.f_ffree <= s.f_files &&
	       s.f_bsize && s.f_blocks && s.f_namemax == 255 ? 0 : -EBADE;
}

CALL(btime) /* path: 1 if statx knows when it was born */
{
	struct statx s;

	UNUSED;
	if (statx(AT_FDCWD, path(v[0]), AT_SYMLINK_NOFOLLOW, STATX_BTIME, &s) < 0)
		return -errno;
	return s.stx_mask & STATX_BTIME && s.stx_btime.tv_sec;
}

CALL(holes) /* fd: data and holes follow each other, cover all, and holes read as zero */
{
	static char b[1 << 20];
	off_t end = lseek(fd(v[0]), 0, SEEK_END), at = 0;

	UNUSED;
	while (at < end) {
		off_t data = lseek(fd(v[0]), at, SEEK_DATA);
		if (data < 0 && errno != ENXIO)
			return -errno;
		off_t stop = data < 0 ? end : data;
		for (off_t p = at; p < stop; p += (off_t)sizeof(b)) {
			ssize_t r = pread(fd(v[0]), b, sizeof(b), p);
			for (off_t i = 0; i < r && p + i < stop; i++)
				if (b[i])
					return -EBADE;
		}
		if (data < 0)
			break;
		off_t hole = lseek(fd(v[0]), data, SEEK_HOLE);
		if (hole <= data || hole > end)
			return -EBADE;
		at = hole;
	}
	return lseek(fd(v[0]), end, SEEK_DATA) < 0 && errno == ENXIO ? 0 : -EBADE;
}

static const struct call {
	const char *name;
	long (*fn)(char **v, int n);
	int args;
} calls[] = {
	{ "mk", do_mk, 2 }, { "open", do_open, 3 }, { "close", do_close, 1 },
	{ "umask", do_umask, 1 }, { "chdir", do_chdir, 1 }, { "chmod", do_chmod, 2 },
	{ "fchmod", do_fchmod, 2 }, { "chown", do_chown, 3 }, { "lchown", do_lchown, 3 },
	{ "fchown", do_fchown, 3 }, { "trunc", do_trunc, 2 }, { "ftrunc", do_ftrunc, 2 },
	{ "mkdir", do_mkdir, 1 }, { "mkfifo", do_mkfifo, 1 }, { "rmdir", do_rmdir, 1 },
	{ "unlink", do_unlink, 1 }, { "remove", do_remove, 1 }, { "link", do_link, 2 },
	{ "symlink", do_symlink, 2 }, { "exists", do_exists, 1 }, { "fsync", do_fsync, 1 },
	{ "linkat", do_linkat, 2 }, { "linkfd", do_linkfd, 2 }, { "linkempty", do_linkempty, 2 },
	{ "mknod", do_mknod, 3 }, { "bind", do_bind, 1 }, { "rename", do_rename, 2 },
	{ "utimes", do_utimes, 2 }, { "futimes", do_futimes, 3 }, { "times", do_times, 1 },
	{ "stat", do_stat, 1 }, { "lstat", do_lstat, 1 }, { "fstat", do_fstat, 1 },
	{ "access", do_access, 2 }, { "readlink", do_readlink, 1 }, { "ls", do_ls, 1 },
	{ "write", do_write, 3 }, { "read", do_read, 3 }, { "sum", do_sum, 1 },
	{ "lseek", do_lseek, 3 }, { "fallocate", do_fallocate, 4 },
	{ "pfallocate", do_pfallocate, 3 }, { "copy", do_copy, 5 }, { "map", do_map, 3 },
	{ "setx", do_setx, 3 }, { "getx", do_getx, 2 }, { "rmx", do_rmx, 2 },
	{ "listx", do_listx, 1 }, { "setacl", do_setacl, 3 }, { "getacl", do_getacl, 2 },
	{ "rmacl", do_rmacl, 2 }, { "exec", do_exec, 1 }, { "install", do_install, 1 },
	{ "otherlock", do_otherlock, 5 }, { "lock", do_lock, 5 }, { "handle", do_handle, 1 },
	{ "seekdir", do_seekdir, 1 }, { "statvfs", do_statvfs, 1 }, { "btime", do_btime, 1 },
	{ "holes", do_holes, 1 }, { 0 },
};
