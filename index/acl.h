/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * POSIX access control lists as extended attributes carry them (format 2, as
 * <linux/posix_acl_xattr.h>): pure functions, from and to bytes.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/bytes.h"

enum acl_tag {
	ACL_USER_OBJ = 0x01,
	ACL_USER = 0x02,
	ACL_GROUP_OBJ = 0x04,
	ACL_GROUP = 0x08,
	ACL_MASK = 0x10,
	ACL_OTHER = 0x20,
};

enum {
	ACL_ENTRIES_MAX = 1024,
	ACL_NO_ID = -1,
};

struct acl_entry {
	uint16_t tag;  /* enum acl_tag */
	uint16_t perm; /* 0..7 */
	uint32_t id;   /* of ACL_USER and ACL_GROUP; else ACL_NO_ID */
};

struct acl {
	uint32_t n; /* 0: no ACL */
	struct acl_entry v[ACL_ENTRIES_MAX];
};

/* Hostile bytes -> a valid list: one owner, group and other each, in the order of
 * the tags, a mask if anybody is named. No entries at all is valid too (n 0).
 * -EINVAL; -E2BIG beyond ACL_ENTRIES_MAX. */
int acl_decode(struct bytes b, struct acl *ret);
void acl_encode(const struct acl *a, struct writer *w);

/* Says the list no more than these permission bits (`mode`, of 0777)? Else it is
 * the mode that goes with it: the group's bits are the mask's. */
bool acl_is_mode(const struct acl *a, mode_t *ret_mode);

/* An object's mode becomes `mode`. */
void acl_chmod(struct acl *a, mode_t mode);

/* A default ACL becomes the access ACL of an object created with `mode`: neither
 * grants what the other does not. Returns the object's mode (type bits and the
 * like stay). */
mode_t acl_create(struct acl *a, mode_t mode);
