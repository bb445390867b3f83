/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The settings of `slicefs mount` and `slicefs serve`, declared once in
 * common/config.def: from that table follow struct config, the parser of command
 * lines and of -o lists, --help, the man pages' lists and the text of
 * .slicefs/config. A command has its own settings only: another's is as unknown to
 * it as a word that nobody has.
 *
 * Sizes are written 4096, 64K, 512M, 4G, 1T, 4GiB or 25%; times 50us, 500ms,
 * 10s, 2m, 6h, 7d; switches --name, --no-name, --name=on|off. Of a setting given twice
 * the last one counts.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"

enum config_huge { CONFIG_HUGE_AUTO, CONFIG_HUGE_ON, CONFIG_HUGE_OFF };

enum config_ttl_from { CONFIG_TTL_FROM_PUBLISHING, CONFIG_TTL_FROM_USE };
enum config_priority { CONFIG_PRIORITY_LOW, CONFIG_PRIORITY_NORMAL, CONFIG_PRIORITY_HIGH };

enum config_transport {
	CONFIG_TRANSPORT_AUTO,
	CONFIG_TRANSPORT_RDMA,
	CONFIG_TRANSPORT_TCP,
};

#define CONFIG_FIELD_BOOL   bool
#define CONFIG_FIELD_SIZE   uint64_t
#define CONFIG_FIELD_TIME   uint64_t
#define CONFIG_FIELD_COUNT  uint64_t
#define CONFIG_FIELD_STRING char *
#define CONFIG_FIELD_ENUM   int /* the place of the word: enum log_level, config_... */

/* The commands that have settings. */
enum config_of { CONFIG_OF_MOUNT = 1, CONFIG_OF_SERVE = 2, CONFIG_OF_BOTH = 3 };

struct config {
#define CONFIG(id, of, type, ...) CONFIG_FIELD_##type id;
#include "common/config.def"
#undef CONFIG
	enum config_of of;  /* whose settings these are; those of others are unset */
	uint64_t given;     /* bit i: setting i was given, not left as it was */
	uint64_t unused;    /* bit i: nothing looks at setting i: config_print() omits it */
	char *kernel_words; /* "nosuid,nodev": mount(8)'s, in order, or NULL */
};

enum config_id {
#define CONFIG(id, ...) CONFIG_##id,
#include "common/config.def"
#undef CONFIG
	CONFIG_COUNT
};

/* All defaults of a command (not BOTH). -ENOMEM. config_fini() also after a failure. */
int config_init(struct config *c, enum config_of of);
void config_fini(struct config *c);

static inline bool config_given(const struct config *c, enum config_id id)
{
	return c->given >> id & 1;
}

enum { CONFIG_HELP = 1 }; /* outcome: --help was there */

/*
 * Takes the options out of argv (as main() has it, argv[0] first): --name value,
 * --name=value, --; of a mount also -o list, -r. What is left, in order, is moved to the front
 * of argv from argv[1] on, NULL after it, and counted in *ret_argc, argv[0]
 * included. 0 or CONFIG_HELP.
 * -EINVAL: *ret_why is one line for the user, to be freed (common/error.h).
 */
int config_parse(struct config *c, int argc, char **argv, int *ret_argc, char **ret_why);

/* "name=value,name,noname,...": what follows -o of a mount. Knows mount(8)'s words too. A
 * comma or backslash in a value has a backslash before it. -EINVAL, -ENOMEM. */
int config_parse_list(struct config *c, const char *list, char **ret_why);

/* One setting by its name; value NULL: the name stood alone. As above. */
int config_set(struct config *c, const char *name, const char *value, char **ret_why);

/* What the kernel and libfuse are to be told, "" if nothing; to be freed.
 * as_root: mounts of root let in everybody, devices and set-id bits unless told
 * otherwise. */
int config_mount_options(const struct config *c, bool as_root, char **ret);

/* Each appends to w: name=value lines; one JSON object; a line per setting for --help
 * (78 columns at most; `often`: of those that are not seldom needed); a .TP per setting for
 * man. */
void config_print(const struct config *c, struct writer *w);
void config_print_json(const struct config *c, struct writer *w);
void config_print_help(enum config_of of, bool often, struct writer *w);
void config_print_man(enum config_of of, struct writer *w);
