/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "error.h"
#include "module.h"
#include "object.h"
#include "sys.h"

/* Replacing a method's body, and what keeping entry points took. The daemon does it all, and answers when every process
 * runs the new body. */

/* Takes @fd. */
static int rejit_send(const struct tier_method *method, int fd, const char *symbol, unsigned int flags)
{
	struct wire_rejit rejit = { .module = method->module->mapping->module, .method = method->index,
				    .flags = flags & TIER_REJIT_FORCE ? WIRE_REJIT_FORCE : 0 };
	int r;

	text_copy(rejit.symbol, sizeof(rejit.symbol), symbol ? symbol : "");
	r = conn_request(method->module->conn, &(struct request){ .type = WIRE_REJIT, .body = &rejit, .fd = fd,
								  .reply_type = WIRE_DONE, .module = method->module });
	sys_close(fd);
	return r;
}

/* Before anything is copied */
static int rejit_check(const char *symbol, unsigned int flags)
{
	if (flags & ~(unsigned int)TIER_REJIT_FORCE)
		return error_set(-EINVAL, "unknown rejit flags 0x%x", flags);
	if (symbol && (!*symbol || strlen(symbol) >= WIRE_METHOD_NAME_MAX))
		return error_set(-EINVAL, "the symbol '%s' does not have 1 to %u characters", symbol, WIRE_METHOD_NAME_MAX - 1);
	return 0;
}

int tier_rejit(const struct tier_method *method, const char *path, const char *symbol, unsigned int flags)
{
	int fd, r;

	r = rejit_check(symbol, flags);
	if (r < 0)
		return r;
	fd = object_of_file(path);
	return fd < 0 ? fd : rejit_send(method, fd, symbol, flags);
}

int tier_rejit_bytes(const struct tier_method *method, const void *bytes, size_t n, const char *symbol, unsigned int flags)
{
	int fd, r;

	r = rejit_check(symbol, flags);
	if (r < 0)
		return r;
	fd = object_of_bytes(bytes, n, symbol ? symbol : tier_method_name(method));
	return fd < 0 ? fd : rejit_send(method, fd, symbol, flags);
}

int tier_revert(const struct tier_method *method)
{
	const struct wire_method_ref ref = { .module = method->module->mapping->module, .method = method->index };

	return conn_ask_about(method->module, WIRE_REVERT, &ref, WIRE_DONE, NULL);
}

int tier_counters(struct tier_conn *conn, struct wire_counters *ret)
{
	const struct wire_empty nothing = { 0 };

	return conn_ask(conn, WIRE_COUNTERS, &nothing, WIRE_COUNTED, ret);
}
