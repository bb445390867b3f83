/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POSIX access control lists, as the kernel's fs/posix_acl.c treats them: what
 * chmod and creation do to a list, and which mode a list shows. Pure functions.
 *
 * The one thing to know: with a mask, the mode's group bits *are* the mask, and
 * the owning group's own entry is seen in the list only.
 */
#include "index/acl.h"

#include <errno.h>
#include <sys/stat.h>

enum { ACL_VERSION = 2, ACL_HEADER_BYTES = 4, ACL_ENTRY_BYTES = 8 };

static bool acl_has_id(uint16_t tag)
{
	return tag == ACL_USER || tag == ACL_GROUP;
}

/* The tags rise, and only those with an id may come twice. */
static bool acl_is_valid(const struct acl *a)
{
	unsigned seen = 0;
	uint16_t before = 0;

	for (uint32_t i = 0; i < a->n; i++) {
		const struct acl_entry *e = &a->v[i];
		if (e->tag < before || (e->tag == before && !acl_has_id(e->tag)))
			return false;
		if (e->perm > 7 || (acl_has_id(e->tag) && e->id == (uint32_t)ACL_NO_ID))
			return false;
		seen |= e->tag;
		before = e->tag;
	}
	unsigned must = ACL_USER_OBJ | ACL_GROUP_OBJ | ACL_OTHER;
	if (seen & (ACL_USER | ACL_GROUP))
		must |= ACL_MASK;
	return (seen & must) == must;
}

static bool acl_tag_is_known(uint16_t tag)
{
	return tag && tag <= ACL_OTHER && !(tag & (tag - 1));
}

int acl_decode(struct bytes b, struct acl *ret)
{
	struct reader r = reader_of(b);

	if (read_u32(&r) != ACL_VERSION || r.bad || r.left % ACL_ENTRY_BYTES)
		return -EINVAL;
	if (r.left / ACL_ENTRY_BYTES > ACL_ENTRIES_MAX)
		return -E2BIG;
	ret->n = (uint32_t)(r.left / ACL_ENTRY_BYTES);
	for (uint32_t i = 0; i < ret->n; i++) {
		struct acl_entry *e = &ret->v[i];
		e->tag = read_u16(&r);
		e->perm = read_u16(&r);
		e->id = read_u32(&r);
		if (!acl_tag_is_known(e->tag))
			return -EINVAL;
		if (!acl_has_id(e->tag))
			e->id = (uint32_t)ACL_NO_ID;
	}
	return !ret->n || acl_is_valid(ret) ? 0 : -EINVAL;
}

void acl_encode(const struct acl *a, struct writer *w)
{
	write_u32(w, ACL_VERSION);
	for (uint32_t i = 0; i < a->n; i++) {
		write_u16(w, a->v[i].tag);
		write_u16(w, a->v[i].perm);
		write_u32(w, a->v[i].id);
	}
}

/* The entries that the three digits of a mode stand for. */
struct acl_digits {
	struct acl_entry *user, *group, *other;
};

static struct acl_digits acl_digits(struct acl *a)
{
	struct acl_digits d = { 0 };

	for (uint32_t i = 0; i < a->n; i++) {
		struct acl_entry *e = &a->v[i];
		if (e->tag == ACL_USER_OBJ)
			d.user = e;
		else if (e->tag == ACL_MASK || (e->tag == ACL_GROUP_OBJ && !d.group))
			d.group = e; /* the mask comes later, and counts */
		else if (e->tag == ACL_OTHER)
			d.other = e;
	}
	return d;
}

bool acl_is_mode(const struct acl *a, mode_t *ret_mode)
{
	bool is_mode = true;
	mode_t mode = 0;

	for (uint32_t i = 0; i < a->n; i++) {
		mode_t perm = a->v[i].perm;
		switch (a->v[i].tag) {
		case ACL_USER_OBJ:
			mode |= perm << 6;
			break;
		case ACL_GROUP_OBJ:
			mode |= perm << 3;
			break;
		case ACL_OTHER:
			mode |= perm;
			break;
		case ACL_MASK:
			mode = (mode & ~(mode_t)S_IRWXG) | perm << 3;
			is_mode = false;
			break;
		default:
			is_mode = false;
		}
	}
	*ret_mode = mode;
	return is_mode;
}

void acl_chmod(struct acl *a, mode_t mode)
{
	if (!a->n)
		return;
	struct acl_digits d = acl_digits(a);
	d.user->perm = mode >> 6 & 7;
	d.group->perm = mode >> 3 & 7;
	d.other->perm = mode & 7;
}

mode_t acl_create(struct acl *a, mode_t mode)
{
	if (!a->n)
		return mode;
	struct acl_digits d = acl_digits(a);
	d.user->perm &= mode >> 6 & 7;
	d.group->perm &= mode >> 3 & 7;
	d.other->perm &= mode & 7;
	return (mode & ~(mode_t)0777) | (mode_t)(d.user->perm << 6) |
	       (mode_t)(d.group->perm << 3) | d.other->perm;
}
