/* SPDX-License-Identifier: Apache-2.0 */
#include "tiering/internal.h"

/* The mark: what a client goes by that must know whether anything happened to a module's code while it measured
 *
 * One number, odd while clients may see some of a change and not yet the rest. There is one writer, and a change is never in
 * the middle of another, so begin and end need not be counted. A daemon that dies in the middle leaves an odd number; its
 * successor writes all again, and ends it.
 *
 * What is being compiled is counted beside it. A job that a predecessor had outside has begun and not ended, wherever it is: it
 * is started again, but the history has one beginning of it, and so has this. */

static void mark_count(struct module *module)
{
	/* Synchronizes with the acquire loads in tier_records_mark(): what was counted is there. */
	__atomic_store_n(&module->header->changes, module->header->changes + 1, __ATOMIC_RELEASE);
}

void mark_begin(struct module *module)
{
	if (module->header->changes % 2 == 0)
		mark_count(module);
	/* Synchronizes with the acquire fence in tier_records_mark(): who has met one of the stores to come finds the
	 * number odd. */
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

void mark_end(struct module *module)
{
	if (module->header->changes % 2)
		mark_count(module);
}

static void mark_store_compiling(struct module *module)
{
	__atomic_store_n(&module->header->n_compiling, module->n_compiling, __ATOMIC_RELEASE);
}

/* An end is counted before it is seen, and a beginning seen before it is counted: who sees nothing compiled has the ends. */
void mark_compiling(struct module *module, int n)
{
	module->n_compiling += n;
	if (!module->header)
		return;
	if (n > 0)
		mark_store_compiling(module);
	__atomic_store_n(&module->header->changes, module->header->changes + 2, __ATOMIC_RELEASE);
	if (n < 0)
		mark_store_compiling(module);
}

void mark_recover(struct module *module)
{
	mark_end(module);
	if (module->header->n_compiling != module->n_compiling)
		mark_compiling(module, 0);
	mark_store_compiling(module);
}

/* -- Questions --- */
struct tier_records_mark core_mark(const struct module *module)
{
	return tier_records_mark(module->header);
}

uint32_t core_n_compiling(const struct module *module)
{
	return module->n_compiling;
}
