/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include "bytecode/flow.h"
#include "bytecode/loops.h"
#include "differential/osr.h"
#include "util/base.h"

static struct osr *running;	/* the interpreter's questions do not say whose run it is */

/* -- Compiling --- */
static bool add_entries(struct osr *osr, uint32_t method, const struct flow *flow, const uint32_t *heads, uint32_t n,
			bool inlines, struct refusal *refusal)
{
	for (uint32_t i = 0; i < n; i++) {
		struct osr_entry *entry = &osr->entries[osr->n_entries];

		*entry = (struct osr_entry){ .method = method, .pc = heads[i], .live = flow->live[heads[i]] };
		if (!tiers_compile_osr(osr->tiers, method, heads[i], inlines, &entry->code, refusal))
			return false;
		osr->numbers[osr->tiers->image.methods[method].insn + heads[i]] = ++osr->n_entries;
	}
	return true;
}

static bool add_method(struct osr *osr, uint32_t method, bool inlines, struct refusal *refusal)
{
	const struct insn *insns = image_method_insns(&osr->tiers->image, method);
	const uint32_t n_insns = osr->tiers->image.methods[method].n_insns;
	_cleanup_(freep) uint32_t *heads = NULL;
	const int64_t n = loops_find(insns, n_insns, NULL);
	struct osr_entry *entries;
	struct flow *flow = NULL;
	bool ok;

	if (n <= 0)
		return !n;
	heads = calloc(n, sizeof(*heads));
	entries = realloc(osr->entries, (osr->n_entries + n) * sizeof(*entries));
	osr->entries = entries ?: osr->entries;
	if (!heads || !entries || flow_new(&flow, insns, n_insns)) {
		refuse(refusal, "out of memory");
		return false;
	}
	loops_find(insns, n_insns, heads);
	ok = add_entries(osr, method, flow, heads, n, inlines, refusal);
	flow_free(flow);
	return ok;
}

bool osr_init(struct osr *osr, struct tiers *tiers, bool inlines, struct refusal *refusal)
{
	*osr = (struct osr){ .tiers = tiers, .numbers = calloc(tiers->image.n_insns, sizeof(*osr->numbers)) };
	if (!osr->numbers) {
		refuse(refusal, "out of memory");
		return false;
	}
	for (uint32_t i = 0; i < tiers->image.n_methods; i++)
		if (!add_method(osr, i, inlines, refusal))
			return false;
	return true;
}

void osr_deinit(struct osr *osr)
{
	free(osr->entries);
	free(osr->numbers);
	*osr = (struct osr){ .n_entries = 0 };
}

/* -- Running --- */
static bool on_insn(void *userdata, uint32_t method, uint32_t pc, const uint64_t reg[_INSN_REG_N], uint64_t *ret)
{
	struct osr *osr = running;
	const uint32_t number = osr->numbers[osr->tiers->image.methods[method].insn + pc];
	uint64_t registers[INSN_R10];
	struct osr_entry *entry;
	const char *fault;

	if (!number)
		return false;
	entry = &osr->entries[number - 1];
	entry->n_arrivals++;
	if (!osr->enters(osr, entry))
		return false;
	osr->n_entered++;
	for (unsigned int i = 0; i < INSN_R10; i++)
		registers[i] = entry->live >> i & 1 ? reg[i] : 0xbad0000bad000000 + i;
	fault = tiers_call_osr(entry->code, registers, reg[INSN_R10], ret);
	osr->fault = osr->fault ?: fault;
	return true;
}

const char *osr_run(struct osr *osr, uint32_t method, const uint64_t args[5], uint64_t *ret)
{
	const char *fault;

	for (uint32_t i = 0; i < osr->n_entries; i++)
		osr->entries[i].n_arrivals = 0;
	osr->n_entered = 0;
	osr->fault = NULL;
	running = osr;
	osr->tiers->leave = on_insn;
	fault = tiers_interpret(osr->tiers, method, args, ret);
	osr->tiers->leave = NULL;
	return osr->fault ?: fault;
}
