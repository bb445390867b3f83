/* SPDX-License-Identifier: Apache-2.0 */
/* libsodium's keyed hash (HMAC-SHA-512-256), and the file that its key is from. */
#include "engine/auth.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "common/error.h"

_Static_assert(crypto_auth_hmacsha512256_BYTES == WIRE_NONCE &&
		       crypto_auth_hmacsha512256_KEYBYTES == sizeof(struct auth_key) &&
		       crypto_auth_BYTES == crypto_auth_hmacsha512256_BYTES,
	       "crypto_auth(), in pieces");

enum { TOKEN_MAX = 64 * 1024 };

/* The token -------------------------------------------------------------------- */

static int open_token(const char *path, int *ret, size_t *ret_len, char **ret_why)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return why(ret_why, -errno, "token file %s: %s", path, error_text(errno));
	if (!S_ISREG(st.st_mode))
		return why(ret_why, -EINVAL, "token file %s: not a file", path);
	if (st.st_mode & (S_IRWXG | S_IRWXO))
		return why(ret_why, -EPERM, "token file %s: its mode %03o lets others at it. "
			   "Try: chmod 600 %s", path, st.st_mode & 0777, path);
	if (!st.st_size || st.st_size > TOKEN_MAX)
		return why(ret_why, -EINVAL, "token file %s: %s. "
			   "Try: head -c 32 /dev/urandom | base64 > %s", path,
			   st.st_size ? "longer than 64 KiB" : "empty", path);
	*ret = fd;
	fd = -1;
	*ret_len = (size_t)st.st_size;
	return 0;
}

/* All of it, in as many reads as it takes. */
static int read_token(int fd, uint8_t *to, size_t len)
{
	for (size_t at = 0; at < len;) {
		ssize_t n = read(fd, to + at, len - at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO; /* became shorter */
		at += (size_t)n;
	}
	return 0;
}

int auth_key_load(const char *path, struct auth_key *ret, char **ret_why)
{
	_cleanup_(closep) int fd = -1;
	struct auth_key key;
	size_t len = 0;

	if (!path) {
		*ret = (struct auth_key){ 0 };
		return 0;
	}
	int r = open_token(path, &fd, &len, ret_why);
	if (r < 0)
		return r;
	_cleanup_(freep) uint8_t *token = malloc(len);
	if (!token)
		return -ENOMEM;
	r = read_token(fd, token, len);
	if (r < 0)
		return why(ret_why, r, "token file %s: %s", path, error_text(r));
	crypto_generichash(key.b, sizeof(key.b), token, len, NULL, 0);
	sodium_memzero(token, len);
	*ret = key;
	return 0;
}

/* Proofs ------------------------------------------------------------------------- */

void auth_random(uint8_t ret[WIRE_NONCE])
{
	int r = sodium_init(); /* from here on it cannot fail; any thread, any time */

	assert(r >= 0);
	randombytes_buf(ret, WIRE_NONCE);
}

uint64_t auth_random_number(void)
{
	uint8_t random[WIRE_NONCE];
	uint64_t n;

	auth_random(random);
	memcpy(&n, random, sizeof(n));
	return n;
}

void auth_prove(const struct auth_key *key, enum auth_side side, struct bytes hello,
		const struct wire_challenge *c, uint8_t ret[WIRE_NONCE])
{
	crypto_auth_hmacsha512256_state st;
	uint8_t said[1 + 2 + 4] = { (uint8_t)side };

	for (unsigned i = 0; i < 2; i++)
		said[1 + i] = (uint8_t)(c->version >> 8 * i);
	for (unsigned i = 0; i < 4; i++)
		said[3 + i] = (uint8_t)(c->features >> 8 * i);
	crypto_auth_hmacsha512256_init(&st, key->b, sizeof(key->b));
	crypto_auth_hmacsha512256_update(&st, said, 1);
	crypto_auth_hmacsha512256_update(&st, hello.p, hello.len);
	crypto_auth_hmacsha512256_update(&st, said + 1, sizeof(said) - 1);
	crypto_auth_hmacsha512256_update(&st, c->nonce, sizeof(c->nonce));
	crypto_auth_hmacsha512256_final(&st, ret);
	sodium_memzero(&st, sizeof(st));
}

bool auth_proves(const struct auth_key *key, enum auth_side side, struct bytes hello,
		 const struct wire_challenge *c, const uint8_t proof[WIRE_NONCE])
{
	uint8_t right[WIRE_NONCE];

	auth_prove(key, side, hello, c, right);
	return !sodium_memcmp(right, proof, sizeof(right));
}

int auth_challenged(const struct auth_key *key, const struct writer *hello,
		    uint32_t offered, const struct wire_header *h, struct bytes body,
		    struct wire_challenge *ret, uint8_t ret_proof[WIRE_NONCE])
{
	if (h->type != WIRE_CHALLENGE || wire_read_challenge(body, ret) < 0 || hello->bad)
		return -EPROTO;
	if (!auth_proves(key, AUTH_NODE, writer_bytes(hello), ret, ret->proof))
		return -EKEYREJECTED;
	if (ret->version != WIRE_VERSION || (ret->features & ~offered))
		return -EPROTONOSUPPORT;
	auth_prove(key, AUTH_MOUNT, writer_bytes(hello), ret, ret_proof);
	return 0;
}

bool auth_is_secret(const uint8_t secret[WIRE_TICKET], const uint8_t *said)
{
	return !sodium_memcmp(secret, said, WIRE_TICKET);
}
