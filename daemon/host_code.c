/* SPDX-License-Identifier: Apache-2.0 */
/* Code that the daemon makes itself: tier 0, call-counting stubs, forwarders */
#include <errno.h>
#include <stdlib.h>
#include "bytecode/flow.h"
#include "host.h"
#include "jit/baseline.h"
#include "jit/stubs.h"
#include "util/base.h"
#include "util/error.h"

/* Tier 0 of a method takes about 50 ns per instruction in the loop at its first call; from this size on that would be
 * most of a millisecond, so it is compiled while the module is built. */
#define AHEAD_INSNS_MIN 8192u

#define TIER0_ALIGN 16u
#define STUB_BOUND (2 * STUB_SIZE - 1)	/* with what its alignment takes */

struct host_ahead {
	uint32_t method;
	struct core_code code;
};

DEFINE_CLEANUP(struct flow *, flow_free)

static void host_publish(struct host *host, const struct code_span *span, size_t n, struct core_code *ret)
{
	arena_publish(host->arena, span, n);
	*ret = (struct core_code){ .address = span->address, .size = n, .code_used = arena_code_used(host->arena) };
}

bool host_has_room(const struct host *host, uint64_t n)
{
	const uint64_t n_free = arena_layout(host->arena)->segment[TIER_SEGMENT_CODE].size - arena_code_used(host->arena);

	return n_free >= host->n_owed && n_free - host->n_owed >= n;
}

int host_compile_tier0(struct host *host, const struct insn *insns, uint32_t n_insns, struct core_code *ret)
{
	const struct baseline_module module = { .layout = arena_layout(host->arena), .records = arena_record(host->arena, 0) };
	_cleanup_(flow_freep) struct flow *flow = NULL;
	struct code_span span;
	struct emit e;
	int r;

	r = flow_new(&flow, insns, n_insns);
	if (r)
		return error_origin(r);
	if (arena_reserve(host->arena, baseline_bound(insns, n_insns, NULL), TIER0_ALIGN, &span))
		return CORE_E_FULL;
	e = (struct emit){ .p = span.write, .n_max = span.n_max, .address = span.address };
	r = baseline_compile(&e, insns, flow, &module, NULL);
	if (!r && !emit_fits(&e))
		r = -EOVERFLOW;
	if (r) {
		arena_abort(host->arena, &span);
		return error_origin(r);
	}
	host_publish(host, &span, e.n, ret);
	return 0;
}

/* What its first call takes */
static uint64_t host_own_bound(const struct host *host, uint32_t method)
{
	return TIER0_ALIGN - 1
	     + baseline_bound(image_method_insns(&host->image, method), host->image.methods[method].n_insns, NULL);
}

static int host_compile_own(struct host *host, uint32_t method, struct core_code *ret)
{
	int r;

	r = host_compile_tier0(host, image_method_insns(&host->image, method), host->image.methods[method].n_insns, ret);
	if (!r)
		host->n_owed -= MIN(host->n_owed, host_own_bound(host, method));
	return r;
}

static bool host_is_huge(const struct host *host, uint32_t method)
{
	return host->image.methods[method].n_insns >= AHEAD_INSNS_MIN;
}

int host_tier0(struct host *host, uint32_t method, uint32_t id, struct core_code *ret)
{
	const struct host_body *body = host_body_of(host, method, id);
	const struct core_code *made = body ? &body->tier0 : NULL;

	for (uint32_t i = 0; !id && host_is_huge(host, method) && i < host->n_ahead; i++)
		if (host->ahead[i].method == method)
			made = &host->ahead[i].code;
	if (!made)
		return host_compile_own(host, method, ret);
	*ret = *made;
	ret->code_used = arena_code_used(host->arena);
	return 0;
}

/* A body that came later has brought room for the stub of its tier 0. */
static bool host_take_stub_room(struct host *host, uint32_t method, uint64_t code, struct code_span *ret)
{
	struct host_body *body = host->bodies ? host->bodies[method] : NULL;

	if (!body || !body->stub || code != body->tier0.address)
		return false;
	*ret = (struct code_span){ .address = body->stub, .write = arena_alias(host->arena, body->stub, STUB_SIZE), .n_max = STUB_SIZE };
	body->stub = 0;
	return true;
}

int host_stub(struct host *host, uint32_t method, uint32_t cell, uint64_t version, uint64_t code, struct core_code *ret)
{
	struct code_span span;
	struct emit e;

	if (!host_take_stub_room(host, method, code, &span)) {
		if (arena_reserve(host->arena, STUB_SIZE, STUB_SIZE, &span))
			return CORE_E_FULL;
		arena_publish(host->arena, &span, STUB_SIZE);	/* nothing leads there yet */
		host->n_owed -= MIN(host->n_owed, STUB_BOUND);
	}
	e = (struct emit){ .p = span.write, .n_max = span.n_max, .address = span.address };
	stubs_counting(&e, arena_layout(host->arena), method, cell, version, code);
	*ret = (struct core_code){ .address = span.address, .size = e.n, .code_used = arena_code_used(host->arena) };
	return 0;
}

int host_forwarder(struct host *host, uint64_t target, struct core_code *ret)
{
	struct code_span span;
	struct emit e;

	if (arena_reserve(host->arena, FORWARDER_SIZE, FORWARDER_SIZE, &span))
		return CORE_E_FULL;
	e = (struct emit){ .p = span.write, .n_max = span.n_max, .address = span.address };
	stubs_forwarder(&e, target);
	host_publish(host, &span, e.n, ret);
	return 0;
}

/* What is written there has 4 or 8 bytes and is aligned; so 4 in the segment say enough of both. */
void *host_alias(struct host *host, uint64_t address)
{
	return arena_alias(host->arena, address, sizeof(uint32_t));
}

/* -- While the module is built --- */
void host_owe_first_calls(struct host *host)
{
	for (uint32_t method = 0; method < host->image.n_methods; method++)
		host->n_owed += host_own_bound(host, method) + STUB_BOUND;
}

/* A code segment that is too small for all of them is no reason to refuse the module: the rest is tried again at its
 * first call, and says so there. */
int host_compile_ahead(struct host *host)
{
	uint32_t n_huge = 0;
	int r;

	for (uint32_t method = 0; method < host->image.n_methods; method++)
		n_huge += host_is_huge(host, method);
	if (!n_huge)
		return 0;
	host->ahead = calloc(n_huge, sizeof(*host->ahead));
	if (!host->ahead)
		return -ENOMEM;
	for (uint32_t method = 0; method < host->image.n_methods; method++) {
		struct host_ahead *ahead = &host->ahead[host->n_ahead];

		if (!host_is_huge(host, method))
			continue;
		r = host_compile_own(host, method, &ahead->code);
		if (r < 0)
			return r;
		if (r == CORE_E_FULL)
			break;
		ahead->method = method;
		host->n_ahead++;
	}
	return 0;
}
