/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Before and after libfuse mounts: everything that can be wrong is looked for
 * first and said in a sentence, since libfuse and fusermount3 say it on stderr
 * in words of their own, or not at all.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "common/error.h"
#include "common/log.h"
#include "fs/priv.h"

extern char **environ;

/* Options of mount(8) that mean something here. Those with `pass` go on to
 * libfuse; the others are the defaults of what it does. */
static const struct option {
	const char *name;
	bool pass, root_only;
} options[] = {
	{ "allow_other", true, false }, { "allow_root", true, false },
	{ "default_permissions", false, false },
	{ "ro", true, false },          { "rw", false, false },
	{ "suid", true, true },         { "nosuid", true, false },
	{ "dev", true, true },          { "nodev", true, false },
	{ "exec", false, false },       { "noexec", true, false },
	{ "atime", false, false },      { "noatime", true, false },
	{ "relatime", false, false },   { "nodiratime", true, false },
	{ "async", false, false },      { "sync", true, false },
	{ "dirsync", true, false },
};

static const struct option *option_find(const char *name)
{
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		if (!strcmp(options[i].name, name))
			return &options[i];
	return NULL;
}

static void put(struct writer *w, const char *s)
{
	if (w->len)
		write_u8(w, ',');
	write_bytes(w, s, strlen(s));
}

/* key=value with what libfuse's parser takes for syntax escaped. */
static void put_value(struct writer *w, const char *key, const char *value)
{
	put(w, key);
	write_u8(w, '=');
	for (; *value; value++) {
		if (*value == ',' || *value == '\\')
			write_u8(w, '\\');
		write_u8(w, (uint8_t)*value);
	}
}

/* fuse.conf has to allow it, and fusermount3 says so only on stderr. */
static bool user_may_allow_other(void)
{
	_cleanup_(fclosep) FILE *f = fopen("/etc/fuse.conf", "re");
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, "user_allow_other", 16) &&
		    strspn(line + 16, " \t\r\n") == strlen(line + 16))
			return true;
	return false;
}

static int check_option(const char *name, char **ret_why)
{
	const struct option *o = option_find(name);
	bool root = geteuid() == 0;

	if (!o)
		return why(ret_why, -EINVAL, "%s: not a mount option that "
			   "slicefs knows. Try: slicefs help mount", name);
	if (o->root_only && !root)
		return why(ret_why, -EPERM, "option %s: only root may mount "
			   "with it", name);
	if (!strncmp(name, "allow_", 6) && !root && !user_may_allow_other())
		return why(ret_why, -EPERM, "option %s: needs the line "
			   "user_allow_other in /etc/fuse.conf", name);
	return 0;
}

static int put_options(const struct fs_opts *o, struct writer *w, char **ret_why)
{
	_cleanup_(freep) char *copy = strdup(o->options ? o->options : "");
	bool root = geteuid() == 0, suid = root, dev = root;
	char *save, *name;

	if (!copy)
		return -ENOMEM;
	for (name = strtok_r(copy, ",", &save); name;
	     name = strtok_r(NULL, ",", &save)) {
		int r = check_option(name, ret_why);
		if (r < 0)
			return r;
		if (option_find(name)->pass)
			put(w, name);
		suid &= !strstr(name, "suid");
		dev &= strcmp(name, "dev") && strcmp(name, "nodev");
	}
	if (suid)
		put(w, "suid");
	if (dev)
		put(w, "dev");
	if (o->read_only)
		put(w, "ro");
	if (o->noatime)
		put(w, "noatime");
	return 0;
}

static int check_dir(const char *dir, char **ret_why)
{
	struct stat st;

	if (stat(dir, &st) == 0) {
		if (!S_ISDIR(st.st_mode))
			return why(ret_why, -ENOTDIR, "%s: not a directory", dir);
		return 0;
	}
	int err = errno;
	if (err == ENOTCONN)
		return why(ret_why, -ENOTCONN, "%s: a dead mount is in the way. "
			   "Try: slicefs umount %s", dir, dir);
	return why(ret_why, -err, "%s: %s", dir, error_text(err));
}

static const char *const fusermounts[] = {
	"/usr/bin/fusermount3", "/bin/fusermount3", "/usr/local/bin/fusermount3",
};

/* Where it is for this user to run; NULL: nowhere. */
static const char *fusermount_path(void)
{
	for (size_t i = 0; i < sizeof(fusermounts) / sizeof(fusermounts[0]); i++)
		if (access(fusermounts[i], X_OK) == 0)
			return fusermounts[i];
	return NULL;
}

static int check_device(char **ret_why)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd >= 0) {
		close(fd);
	} else if (errno == ENOENT || errno == ENODEV || errno == ENXIO) {
		return why(ret_why, -ENODEV, "/dev/fuse: %s: this kernel or "
			   "container has no FUSE. Try: modprobe fuse",
			   error_text(errno));
	} else if (geteuid() == 0) {
		return why(ret_why, -errno, "/dev/fuse: %s", error_text(errno));
	}
	if (geteuid() && !fusermount_path())
		return why(ret_why, -EPERM, "fusermount3 is not installed, or not "
			   "for this user to run, and only root can mount without "
			   "it. Try: apt-get install fuse3");
	return 0;
}

int mount_options(const struct fs_opts *o, char **ret, char **ret_why)
{
	_cleanup_(writer_fini) struct writer w = { 0 };
	int r = check_dir(o->dir, ret_why);

	if (r == 0)
		r = check_device(ret_why);
	if (r == 0)
		r = put_options(o, &w, ret_why);
	if (r < 0)
		return r;
	put(&w, "default_permissions");
	put_value(&w, "subtype", "slicefs");
	put_value(&w, "fsname", o->source);
	write_u8(&w, 0);
	if (w.bad)
		return -ENOMEM;
	*ret = (char *)steal(&w.p);
	return 0;
}

int fs_check(const struct fs_opts *o, char **ret_why)
{
	_cleanup_(freep) char *checked = NULL;

	return mount_options(o, &checked, ret_why);
}

/*
 * What fusermount3 says. It explains itself on stderr only, which a daemon does
 * not have. So stderr is a file in memory while libfuse runs it.
 */

/* -1: stderr stays as it is, and nothing is heard. */
static int listen_begin(int *ret_fd)
{
	int fd = memfd_create("stderr", MFD_CLOEXEC);
	int was = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);

	if (fd < 0 || was < 0 || dup2(fd, STDERR_FILENO) < 0) {
		closep(&fd);
		closep(&was);
		return -1;
	}
	*ret_fd = fd;
	return was;
}

static const char *by_fusermount(const char *line)
{
	static const char name[] = "fusermount3: ";

	return strncmp(line, name, sizeof(name) - 1) ? NULL :
						       line + sizeof(name) - 1;
}

/* fusermount3's last line, which says why it ends. What comes before it is no
 * reason: it warns of a line of fuse.conf, say. */
static void sort_lines(FILE *f, char *ret_said, size_t cap)
{
	char line[1024];

	*ret_said = 0;
	while (fgets(line, sizeof(line), f)) {
		const char *said = by_fusermount(line);
		if (!said) {
			fputs(line, stderr);
			continue;
		}
		if (*ret_said)
			log_warn("fs", "fusermount3: %s", ret_said);
		line[strcspn(line, "\n")] = 0;
		error_quote(ret_said, cap, said);
	}
}

static void listen_end(int was, int fd, char *ret_said, size_t cap)
{
	dup2(was, STDERR_FILENO);
	close(was);
	FILE *f = lseek(fd, 0, SEEK_SET) == 0 ? fdopen(fd, "r") : NULL;
	if (!f) {
		close(fd);
		return;
	}
	sort_lines(f, ret_said, cap);
	fclose(f);
}

static bool lacks_setuid(void)
{
	const char *path = fusermount_path();
	struct stat st;

	return path && stat(path, &st) == 0 &&
	       (st.st_uid != 0 || !(st.st_mode & S_ISUID));
}

/* What to do about it. */
static const char *remedy(const char *said)
{
	static const struct {
		const char *part, *remedy;
	} known[] = {
		{ "too many FUSE", "unmount another one; or, as root, raise "
				   "mount_max in /etc/fuse.conf" },
		{ "user_allow_other", "without allow_other; or, as root: echo "
				      "user_allow_other >>/etc/fuse.conf" },
		{ "not owned by user", "a directory of your own" },
		{ "no write access", "a directory that you may write to" },
		{ "failed to access mountpoint", "a directory that you may enter" },
		{ "mounting over filesystem", "a directory on a local disk or a "
					      "tmpfs" },
		{ "modprobe", "as root: modprobe fuse" },
		{ "/dev/fuse", "as root: chmod 666 /dev/fuse" },
		{ "username", "a user whom /etc/passwd knows" },
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strstr(said, known[i].part))
			return known[i].remedy;
	return lacks_setuid() ? "as root: chown root, then chmod u+s, of "
				"fusermount3, which is not setuid root" :
				"as root; in a container: --cap-add SYS_ADMIN "
				"--device /dev/fuse";
}

int fs_mount_told(struct engine *e, const struct fs_opts *o, struct fs **ret,
		  char **ret_why)
{
	char said[512] = "";
	int fd;
	int was = listen_begin(&fd);
	int r = fs_mount(e, o, ret, ret_why);

	if (was >= 0)
		listen_end(was, fd, said, sizeof(said));
	if (r < 0 && *said)
		return why(ret_why, r, "%s: fusermount3 refuses to mount there: "
			   "%s. Try: %s", o->dir, said, remedy(said));
	if (*said)
		log_warn("fs", "fusermount3: %s", said);
	return r;
}

int mount_dev(const char *dir, dev_t *ret)
{
	struct statx st;

	if (statx(AT_FDCWD, dir, AT_STATX_DONT_SYNC | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, 0, &st))
		return -errno;
	*ret = makedev(st.stx_dev_major, st.stx_dev_minor);
	return 0;
}

/* A device that is free may be somebody else's by now: it is not while we are connected. */
static bool is_there(struct fuse_session *se, const char *dir, dev_t dev)
{
	struct pollfd p = { .fd = fuse_session_fd(se) };
	dev_t there;

	return poll(&p, 1, 0) == 0 && mount_dev(dir, &there) == 0 && there == dev;
}

int mount_detach(struct fuse_session *se, const char *dir, dev_t dev)
{
	char *argv[] = { "fusermount3", "-q", "-u", "--", (char *)dir, NULL };
	pid_t pid;
	int status;

	if (!is_there(se, dir, dev))
		return -EINVAL;
	if (geteuid() == 0)
		return umount2(dir, UMOUNT_NOFOLLOW) < 0 ? -errno : 0;
	if (posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ))
		return -ENOENT;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return status ? -EBUSY : 0;
}

/* To libfuse the connection has ended then, as by a pipe that nobody reads from. */
static int disconnect(struct fuse_session *se)
{
	int end[2];

	if (pipe2(end, O_CLOEXEC) < 0)
		return -errno;
	close(end[0]);
	int r = dup3(end[1], fuse_session_fd(se), O_CLOEXEC) < 0 ? -errno : 0;
	close(end[1]);
	return r;
}

void mount_end(struct fuse_session *se, const char *dir, dev_t dev)
{
	/* It unmounts what is at that place, if the connection has not ended. */
	if (is_there(se, dir, dev) || disconnect(se) == 0)
		fuse_session_unmount(se);
}
