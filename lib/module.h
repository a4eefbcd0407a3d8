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
	uint32_t epoch;		/* the session (tier_conn.epoch) that holds the module */
	size_t n_bytes;
	struct tier_method methods[];
};

/* For a fork's recovery: a module that the new session does not hold yet (0: none is left), and that it does now. */
uint64_t module_next_unattached(struct tier_conn *conn);
void module_attached(struct tier_conn *conn, uint64_t module);

/* Fetches names of the methods [from, ...) as far as one message goes. */
int method_fetch_names(struct tier_conn *conn, struct mapping *mapping, uint32_t from);

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
