/* SPDX-License-Identifier: Apache-2.0 */
/* Who calls whom
 *
 * One pass over all instructions. Methods come in order, so the edges of each relation are one growing array, and where a
 * method's begin is written down when it starts; callers are the callees turned around, by counting. A target is noted
 * once per method: its stamp says which method noted it last. */
#include <errno.h>
#include <stdlib.h>
#include "bytecode/calls.h"
#include "util/base.h"

struct edges {
	uint32_t *first;	/* by method, and one more */
	uint32_t *targets;
	uint32_t n, n_max;
};

struct calls {
	struct edges relation[_CALLS_RELATION_N];
};

struct scan {
	struct calls *calls;
	uint32_t *stamps[_CALLS_RELATION_N];	/* by target: method + 1 */
};

struct calls *calls_free(struct calls *calls)
{
	if (!calls)
		return NULL;
	for (unsigned int i = 0; i < _CALLS_RELATION_N; i++) {
		free(calls->relation[i].first);
		free(calls->relation[i].targets);
	}
	free(calls);
	return NULL;
}
DEFINE_CLEANUP(struct calls *, calls_free)

static void scan_deinit(struct scan *scan)
{
	for (unsigned int i = 0; i < _CALLS_RELATION_N; i++)
		free(scan->stamps[i]);
}

static int edges_append(struct edges *edges, uint32_t target)
{
	uint32_t *targets;

	if (edges->n == edges->n_max) {
		edges->n_max = edges->n_max * 2 + 64;
		targets = reallocarray(edges->targets, edges->n_max, sizeof(*targets));
		if (!targets)
			return -ENOMEM;
		edges->targets = targets;
	}
	edges->targets[edges->n++] = target;
	return 0;
}

static int scan_note(struct scan *scan, enum calls_relation relation, uint32_t method, uint32_t target)
{
	if (scan->stamps[relation][target] == method + 1)
		return 0;
	scan->stamps[relation][target] = method + 1;
	return edges_append(&scan->calls->relation[relation], target);
}

/* What the instruction refers to, if anything; @insn has a second half when it is a lddw. */
static int scan_insn(struct scan *scan, uint32_t method, const struct insn *insn)
{
	if (insn->code == (BPF_JMP | BPF_CALL) && insn->src == INSN_CALL_METHOD)
		return scan_note(scan, CALLS_CALLEES, method, insn->imm);
	if (insn->code == (BPF_JMP | BPF_CALL) && insn->src == INSN_CALL_IMPORT)
		return scan_note(scan, CALLS_IMPORTS, method, insn->imm);
	if (insn_is_lddw(insn) && insn->src == INSN_REF_METHOD)
		return scan_note(scan, CALLS_ADDRESSES, method, insn[1].imm);
	if (insn_is_lddw(insn) && insn->src == INSN_REF_IMPORT)
		return scan_note(scan, CALLS_IMPORTS, method, insn[1].imm);
	return 0;
}

static int scan_method(struct scan *scan, uint32_t method, const struct insn *insns, uint32_t n)
{
	int r;

	for (unsigned int i = 0; i < _CALLS_RELATION_N; i++)
		scan->calls->relation[i].first[method] = scan->calls->relation[i].n;
	for (uint32_t pc = 0; pc < n; pc += insn_slots(&insns[pc])) {
		r = scan_insn(scan, method, &insns[pc]);
		if (r)
			return r;
	}
	return 0;
}

/* Counting sort of the callees' edges by where they lead: first[] counts, then begins, and is moved back at the end. */
static int calls_turn(struct calls *calls, uint32_t n_methods)
{
	const struct edges *callees = &calls->relation[CALLS_CALLEES];
	struct edges *callers = &calls->relation[CALLS_CALLERS];
	uint32_t sum = 0;

	callers->targets = calloc(callees->n + 1u, sizeof(*callers->targets));
	if (!callers->targets)
		return -ENOMEM;
	for (uint32_t i = 0; i <= n_methods; i++)
		callers->first[i] = 0;
	for (uint32_t i = 0; i < callees->n; i++)
		callers->first[callees->targets[i]]++;
	for (uint32_t i = 0; i < n_methods; i++) {
		uint32_t n = callers->first[i];

		callers->first[i] = sum;
		sum += n;
	}
	for (uint32_t method = 0; method < n_methods; method++)
		for (uint32_t i = callees->first[method]; i < callees->first[method + 1]; i++)
			callers->targets[callers->first[callees->targets[i]]++] = method;
	for (uint32_t i = n_methods; i > 0; i--)
		callers->first[i] = callers->first[i - 1];
	callers->first[0] = 0;
	callers->n = callees->n;
	return 0;
}

/* Room for @n methods' edges to anything in @image */
static int scan_init(struct scan *scan, const struct image *image, uint32_t n)
{
	uint32_t n_targets = MAX(image->n_methods, image->n_imports);

	for (unsigned int i = 0; i < _CALLS_RELATION_N; i++) {
		scan->calls->relation[i].first = calloc(n + 1u, sizeof(uint32_t));
		scan->stamps[i] = calloc(n_targets + 1u, sizeof(uint32_t));
		if (!scan->calls->relation[i].first || !scan->stamps[i])
			return -ENOMEM;
	}
	return 0;
}

static void scan_end(struct scan *scan, uint32_t n)
{
	for (unsigned int i = 0; i < _CALLS_RELATION_N; i++)
		scan->calls->relation[i].first[n] = scan->calls->relation[i].n;
}

int calls_new_body(struct calls **ret, const struct image *image, const struct insn *insns, uint32_t n)
{
	_cleanup_(calls_freep) struct calls *calls = calloc(1, sizeof(*calls));
	_cleanup_(scan_deinit) struct scan scan = { .calls = calls };
	int r;

	if (!calls)
		return -ENOMEM;
	r = scan_init(&scan, image, 1);
	if (!r)
		r = scan_method(&scan, 0, insns, n);
	if (r)
		return r;
	scan_end(&scan, 1);
	*ret = TAKE_PTR(calls);
	return 0;
}

int calls_new(struct calls **ret, const struct image *image)
{
	_cleanup_(calls_freep) struct calls *calls = calloc(1, sizeof(*calls));
	_cleanup_(scan_deinit) struct scan scan = { .calls = calls };
	int r;

	if (!calls)
		return -ENOMEM;
	r = scan_init(&scan, image, image->n_methods);
	for (uint32_t method = 0; !r && method < image->n_methods; method++)
		r = scan_method(&scan, method, image_method_insns(image, method), image->methods[method].n_insns);
	if (r)
		return r;
	scan_end(&scan, image->n_methods);
	r = calls_turn(calls, image->n_methods);
	if (r)
		return r;
	*ret = TAKE_PTR(calls);
	return 0;
}

const uint32_t *calls_of(const struct calls *calls, enum calls_relation relation, uint32_t method, uint32_t *ret_n)
{
	const struct edges *edges = &calls->relation[relation];

	*ret_n = edges->first[method + 1] - edges->first[method];
	return edges->targets + edges->first[method];
}
