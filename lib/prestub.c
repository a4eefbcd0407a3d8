/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include "connection.h"
#include "error.h"
#include "mapping.h"
#include "prestub.h"
#include "sync.h"
#include "sys.h"

/* The first call, and the call that crosses the threshold
 *
 * Prestub:    the record first: whoever comes while there is code just goes on to it. Otherwise one bounded round trip
 *             on a lane of its own, after which there is code; a call that cannot be served never returns a wrong
 *             result, it goes to the failure handler. The first call runs the code, not its counting stub: it does not
 *             count.
 * Threshold:  rings the bell, which may get lost (the counter is the truth), and goes on. Never waits.
 *
 * All signals are blocked from the check for a fork until the last use of what it checked: a handler that forks in
 * between would leave the fork with its parent's lanes and a probe page that is not there. That includes the signal by
 * which the C library cancels threads. errno is never touched, because no wrapper of the C library's runs. */

static void failure_abort(const char *module, const char *method, const char *text)
{
	char line[1024];

	text_format(line, sizeof(line), "libtier: %s:%s cannot be called: %s\n", module, method, text);
	sys_write(2, line, strlen(line));
	abort();
}

static tier_failure_fn failure_handler = failure_abort;

void tier_set_failure_handler(tier_failure_fn fn)
{
	__atomic_store_n(&failure_handler, fn ? fn : failure_abort, __ATOMIC_RELEASE);
}

/* Signals are blocked, no lock is held: a handler may leave by longjmp. */
static _Noreturn void failure(const char *module, const char *method, const char *text)
{
	__atomic_load_n(&failure_handler, __ATOMIC_ACQUIRE)(module, method, text);
	abort();
}

static _Noreturn void failure_of_method(const struct mapping *mapping, uint32_t method, const char *text)
{
	const struct mapping_name *name = &mapping->names[method];
	char number[16];

	text_format(number, sizeof(number), "#%u", method);
	failure(mapping->name, __atomic_load_n(&name->is_known, __ATOMIC_ACQUIRE) ? name->text : number, text);
}

/* Where a call that finds code goes; 0: there is none. A final method's entry point cell says it, else the record. */
static uint64_t prestub_target(const struct tier_record *record)
{
	const struct mapping *mapping = mapping_of_record(record);
	/* Synchronizes with the release store in entry.c: the code's bytes before the word that names them. */
	const uint64_t code = __atomic_load_n(&record->code, __ATOMIC_ACQUIRE);
	const uint64_t entry = __atomic_load_n(&record->entry, __ATOMIC_ACQUIRE);

	return code && entry != tier_layout_precode(&mapping->layout, record->index) ? entry : code;
}

static int prestub_ask(struct mapping *mapping, const struct tier_record *record)
{
	struct tier_conn *conn;
	int r;

	conn = mapping_conn(mapping);
	if (!conn)
		return error_set(-ENOTCONN, "it has no code yet, and every connection that opened it was closed");
	r = conn_prepare(conn, record, mapping->module, record->index);
	conn_unref(conn);
	return r;
}

uint64_t prestub_enter(const struct tier_record *record, uint64_t cell)
{
	uint64_t target = prestub_target(record), mask;
	struct mapping *mapping;
	int r;

	if (target)
		return target;
	mask = signals_block();
	mapping = mapping_of_record(record);
	r = prestub_ask(mapping, record);
	target = prestub_target(record);
	if (!target)
		failure_of_method(mapping, record->index,
				  r < 0 ? tier_error_text() : "the daemon says that there is code, but there is none");
	signals_restore(mask);
	return target;
}

uint64_t threshold_enter(const struct tier_record *record, const struct tier_stub_data *data)
{
	struct mapping *mapping = mapping_of_record(record);
	const uint64_t mask = signals_block();
	struct tier_conn *conn = mapping_conn(mapping);

	if (conn) {
		conn_threshold(conn, mapping->module, record->index, data->version);
		conn_unref(conn);
	}
	signals_restore(mask);
	return data->code;
}

uint64_t osr_enter(const struct tier_record *record, uint64_t unused)
{
	signals_block();
	failure_of_method(mapping_of_record(record), record->index, "its code asks for on-stack replacement, which this "
								     "version of libtier does not know");
}

void unbound_enter(uint32_t import, uint64_t return_address)
{
	const struct mapping *mapping;
	const char *name = "#?";
	char text[WIRE_TEXT_MAX];

	signals_block();
	mapping = mapping_of_code(return_address);
	if (mapping && import < UNBOUND_ENTRIES - 1 && import < mapping->layout.n_imports)
		name = mapping->imports[import].name;
	text_format(text, sizeof(text), "the import '%s' is not bound in this process; bind it with tier_bind()", name);
	failure(mapping ? mapping->name : "?", name, text);
}
