/* SPDX-License-Identifier: Apache-2.0 */
/* Who can prove what with which token (engine/auth.h), and what a token file must be. */
#include "tests/unit/kv_kit.h"

#include <sodium.h>

#include "engine/auth.h"

/* What both sides know once HELLO and CHALLENGE have passed. */
struct talk {
	struct writer hello;
	struct wire_challenge challenge;
};

static struct talk talk_begin(void)
{
	struct wire_hello m = { .version_min = 1, .version_max = 1, .name = bytes_str("me") };
	struct talk t = { .challenge = { .version = 1 } };

	auth_random(m.nonce);
	auth_random(t.challenge.nonce);
	wire_write_hello(&t.hello, &m);
	return t;
}

static void prove(struct talk *t, const struct auth_key *key, enum auth_side side,
		  uint8_t ret[WIRE_NONCE])
{
	auth_prove(key, side, writer_bytes(&t->hello), &t->challenge, ret);
}

static bool proves(struct talk *t, const struct auth_key *key, enum auth_side side,
		   const uint8_t proof[WIRE_NONCE])
{
	return auth_proves(key, side, writer_bytes(&t->hello), &t->challenge, proof);
}

static const struct auth_key none, key = { { 1, 2, 3 } }, other = { { 1, 2, 4 } };

static void test_only_the_same_token_proves(void **state)
{
	static const enum auth_side sides[] = { AUTH_NODE, AUTH_MOUNT };
	struct talk t = talk_begin();
	uint8_t proof[WIRE_NONCE];

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		prove(&t, &key, sides[i], proof);
		assert_true(proves(&t, &key, sides[i], proof));
		assert_false(proves(&t, &other, sides[i], proof));
		assert_false(proves(&t, &none, sides[i], proof));
		for (unsigned bit = 0; bit < 8 * WIRE_NONCE; bit++) {
			proof[bit / 8] ^= (uint8_t)(1 << bit % 8);
			assert_false(proves(&t, &key, sides[i], proof));
			proof[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
	}
	prove(&t, &none, AUTH_NODE, proof);
	assert_true(proves(&t, &none, AUTH_NODE, proof));
	writer_fini(&t.hello);
}

static void test_a_proof_cannot_be_reflected(void **state)
{
	struct talk t = talk_begin();
	uint8_t proof[WIRE_NONCE];

	(void)state;
	prove(&t, &key, AUTH_NODE, proof);
	assert_false(proves(&t, &key, AUTH_MOUNT, proof));
	prove(&t, &key, AUTH_MOUNT, proof);
	assert_false(proves(&t, &key, AUTH_NODE, proof));
	writer_fini(&t.hello);
}

static void test_a_proof_cannot_be_replayed(void **state)
{
	struct talk old = talk_begin(), t = talk_begin();
	uint8_t proof[WIRE_NONCE];

	(void)state;
	prove(&old, &key, AUTH_MOUNT, proof);
	assert_false(proves(&t, &key, AUTH_MOUNT, proof));
	/* The same HELLO again, to a node that chose another nonce. */
	writer_fini(&t.hello);
	write_bytes(&t.hello, old.hello.p, old.hello.len);
	assert_false(proves(&t, &key, AUTH_MOUNT, proof));
	t.challenge = old.challenge;
	assert_true(proves(&t, &key, AUTH_MOUNT, proof));
	writer_fini(&t.hello);
	writer_fini(&old.hello);
}

static void test_each_thing_that_was_said_counts(void **state)
{
	struct talk t = talk_begin();
	uint8_t proof[WIRE_NONCE];

	(void)state;
	prove(&t, &key, AUTH_NODE, proof);
	for (size_t i = 0; i < t.hello.len; i++) {
		t.hello.p[i] ^= 1;
		assert_false(proves(&t, &key, AUTH_NODE, proof));
		t.hello.p[i] ^= 1;
	}
	t.challenge.version++;
	assert_false(proves(&t, &key, AUTH_NODE, proof));
	t.challenge.version--;
	t.challenge.features ^= 1u << 31;
	assert_false(proves(&t, &key, AUTH_NODE, proof));
	t.challenge.features ^= 1u << 31;
	t.challenge.nonce[31] ^= 1;
	assert_false(proves(&t, &key, AUTH_NODE, proof));
	t.challenge.nonce[31] ^= 1;
	assert_true(proves(&t, &key, AUTH_NODE, proof));
	writer_fini(&t.hello);
}

/* By the letter of the document, with the plain call. */
static void test_the_hash_is_crypto_auth(void **state)
{
	struct talk t = talk_begin();
	uint8_t proof[WIRE_NONCE], plain[WIRE_NONCE];
	struct writer said = { 0 };

	(void)state;
	t.challenge.features = 0x01020304;
	write_u8(&said, 'M');
	write_bytes(&said, t.hello.p, t.hello.len);
	write_u16(&said, t.challenge.version);
	write_u32(&said, t.challenge.features);
	write_bytes(&said, t.challenge.nonce, WIRE_NONCE);
	crypto_auth(plain, said.p, said.len, key.b);
	prove(&t, &key, AUTH_MOUNT, proof);
	assert_memory_equal(proof, plain, WIRE_NONCE);
	writer_fini(&said);
	writer_fini(&t.hello);
}

/* Token files -------------------------------------------------------------------- */

static int load(struct folder *f, const char *token, mode_t mode, struct auth_key *ret,
		const char *sentence)
{
	_cleanup_(freep) char *reason = NULL;
	const char *path = folder_file(f, "token");

	if (token) {
		FILE *file = fopen(path, "w");
		assert_non_null(file);
		fputs(token, file);
		fclose(file);
		chmod(path, mode);
	}
	int r = auth_key_load(path, ret, &reason);
	if (sentence)
		assert_non_null(strstr(reason, sentence));
	else
		assert_null(reason);
	unlink(path);
	return r;
}

static void test_token_files(void **state)
{
	struct auth_key a, b, no = { { 9 } };
	struct folder f;

	(void)state;
	folder_make(&f);
	assert_int_equal(load(&f, "secret\n", 0600, &a, NULL), 0);
	assert_int_equal(load(&f, "secret\n", 0400, &b, NULL), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	assert_int_equal(load(&f, "secret", 0600, &b, NULL), 0);
	assert_memory_not_equal(&a, &b, sizeof(a));
	memset(&b, 7, sizeof(b));
	assert_int_equal(load(&f, NULL, 0, &b, "No such file"), -ENOENT);
	assert_int_equal(load(&f, "", 0600, &b, "empty"), -EINVAL);
	assert_int_equal(load(&f, "secret", 0644, &b, "chmod 600"), -EPERM);
	assert_int_equal(load(&f, "secret", 0640, &b, "640"), -EPERM);
	assert_int_equal(load(&f, "secret", 0604, &b, "604"), -EPERM);
	_cleanup_(freep) char *reason = NULL;
	assert_int_equal(auth_key_load(f.path, &b, &reason), -EINVAL); /* a directory */
	assert_int_equal(auth_key_load("/dev/zero", &b, &reason), -EINVAL);
	for (unsigned i = 0; i < sizeof(b); i++)
		assert_int_equal(b.b[i], 7); /* written on success only */
	assert_int_equal(auth_key_load(NULL, &no, NULL), 0);
	assert_memory_equal(&no, &none, sizeof(no));
	folder_remove(&f);
}

static void test_what_is_too_long_is_no_token(void **state)
{
	_cleanup_(freep) char *text = malloc(65538);
	struct auth_key a;
	struct folder f;

	(void)state;
	memset(text, 'x', 65537);
	text[65537] = 0;
	folder_make(&f);
	assert_int_equal(load(&f, text, 0600, &a, "64 KiB"), -EINVAL);
	text[65536] = 0;
	assert_int_equal(load(&f, text, 0600, &a, NULL), 0);
	folder_remove(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_only_the_same_token_proves),
		cmocka_unit_test(test_a_proof_cannot_be_reflected),
		cmocka_unit_test(test_a_proof_cannot_be_replayed),
		cmocka_unit_test(test_each_thing_that_was_said_counts),
		cmocka_unit_test(test_the_hash_is_crypto_auth),
		cmocka_unit_test(test_token_files),
		cmocka_unit_test(test_what_is_too_long_is_no_token),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
