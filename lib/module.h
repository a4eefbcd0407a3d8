/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A module as one connection has it open: what programs hold; and its methods */

#include <stdint.h>
#include "connection.h"
#include "mapping.h"

struct tier_method {
	struct tier_module *module;
	uint32_t index;
};

struct tier_module {
	struct tier_module *next;		/* of the connection's */
	struct tier_module *next_holder;	/* of the mapping's */
	struct mapping *mapping;
	struct tier_module *base;		/* an instantiation's: opened as often as it is, since its .data lies there; or NULL */
	struct tier_conn *conn;
	uint32_t n_opens;
	uint32_t session;	/* the number of the one that was last asked to hold it */
	uint32_t is_orphan;	/* that one's daemon does not know it: what it calls so, if anything, is another module */
	uint32_t freeze_session, freeze_epoch;	/* in which the program froze it, and the connection's epoch then */
	size_t n_bytes;
	struct tier_method methods[];
};

/* For a new session: the number of a module that it was not asked for yet (0: none is left), and what became of that: @r of the
 * request, and the descriptor of the records. False: the daemon has another module of that number. */
uint64_t module_next_unattached(struct tier_conn *conn);
bool module_attached(struct tier_conn *conn, uint64_t module, int r, int records_fd);

/* Whether the daemon that is there now knows the module. 0, or -ESTALE with a sentence. */
int module_check(const struct tier_module *module);

/* Fetches names of the methods [from, ...) as far as one message goes. */
int method_fetch_names(const struct tier_module *module, uint32_t from);

static inline const struct tier_record *method_record(const struct tier_method *method)
{
	return &method->module->mapping->records[method->index];
}

/* The method's one address for its life */
static inline uint64_t method_address(const struct tier_method *method)
{
	return tier_layout_method(&method->module->mapping->layout, method->index, method_record(method)->flags);
}

/* Opens by id or name. */
int module_open(struct tier_conn *conn, const struct wire_module_ref *ref, struct tier_module **ret);
int module_set_name(struct wire_module_ref *ref, const char *name);
