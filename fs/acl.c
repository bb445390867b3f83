/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a chmod does to an access ACL and an access ACL to the mode, for drafts:
 * their attributes are kept here, those of published objects in the index. The
 * bytes are the kernel's encoding (linux/posix_acl_xattr.h): a 32-bit version,
 * then entries of tag (16 bits), permissions (16) and id (32), little-endian.
 */
#include <errno.h>
#include <string.h>

#include "fs/priv.h"

enum {
	ACL_VERSION = 2,
	ACL_ENTRY_BYTES = 8,
	ACL_USER_OBJ = 0x01,
	ACL_GROUP_OBJ = 0x04,
	ACL_MASK = 0x10,
	ACL_OTHER = 0x20,
};

/* The shift of the mode's bits that an entry of tag stands for, -1: none. */
static int shift_of(uint16_t tag, bool has_mask)
{
	switch (tag) {
	case ACL_USER_OBJ:
		return 6;
	case ACL_GROUP_OBJ:
		return has_mask ? -1 : 3;
	case ACL_MASK:
		return 3;
	case ACL_OTHER:
		return 0;
	default:
		return -1;
	}
}

static int parse(struct bytes acl, bool *ret_has_mask)
{
	struct reader r = reader_of(acl);

	*ret_has_mask = false;
	if (read_u32(&r) != ACL_VERSION || r.bad || r.left % ACL_ENTRY_BYTES)
		return -EINVAL;
	while (r.left) {
		*ret_has_mask |= read_u16(&r) == ACL_MASK;
		read_bytes(&r, ACL_ENTRY_BYTES - 2);
	}
	return 0;
}

int acl_bytes_mode(struct bytes acl, uint32_t mode, uint32_t *ret)
{
	struct reader r = reader_of(acl);
	bool has_mask;

	if (parse(acl, &has_mask) < 0)
		return -EINVAL;
	read_u32(&r);
	while (r.left) {
		int shift = shift_of(read_u16(&r), has_mask);
		uint32_t perm = read_u16(&r) & 7;
		read_u32(&r);
		if (shift >= 0)
			mode = (mode & ~(7u << shift)) | perm << shift;
	}
	*ret = mode;
	return 0;
}

int acl_bytes_chmod(struct bytes acl, uint32_t mode, void *ret)
{
	uint8_t *out = ret;
	bool has_mask;

	if (parse(acl, &has_mask) < 0)
		return -EINVAL;
	memcpy(out, acl.p, acl.len);
	for (size_t at = 4; at < acl.len; at += ACL_ENTRY_BYTES) {
		int shift = shift_of((uint16_t)(out[at] | out[at + 1] << 8), has_mask);
		if (shift >= 0)
			out[at + 2] = mode >> shift & 7, out[at + 3] = 0;
	}
	return 0;
}
