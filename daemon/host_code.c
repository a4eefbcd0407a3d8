/* SPDX-License-Identifier: Apache-2.0 */
/* Code that the daemon makes itself: tier 0, call-counting stubs, forwarders
 *
 * Tier 0 takes about 50 ns per instruction in the loop, at a method's first call or when it is instrumented. For a huge method
 * that would be most of a millisecond, so its tier 0 is compiled while the module is built, and it is never instrumented. */
#include <errno.h>
#include <stdlib.h>
#include "bytecode/flow.h"
#include "host.h"
#include "jit/baseline.h"
#include "jit/stubs.h"
#include "util/base.h"
#include "util/error.h"

#define TIER0_ALIGN 16u
#define LADDER_PART 4u	/* of the code segment, that one in so many is for promotions alone */
#define STUB_BOUND (2 * STUB_SIZE - 1)	/* with what its alignment takes */

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

int host_compile_tier0(struct host *host, const struct insn *insns, uint32_t n_insns, const struct baseline_extra *extra,
		       struct core_code *ret)
{
	const struct baseline_module module = {
		.layout = arena_layout(host->arena), .records = arena_record(host->arena, 0),
		.data = host->base ? host_data(host) : 0, .bss = host->base ? host_bss(host) : 0,
	};
	_cleanup_(flow_freep) struct flow *flow = NULL;
	struct code_span span;
	struct emit e;
	int r;

	r = flow_new(&flow, insns, n_insns);
	if (r)
		return error_origin(r);
	if (arena_reserve(host->arena, baseline_bound(insns, n_insns, extra), TIER0_ALIGN, &span))
		return CORE_E_FULL;
	e = (struct emit){ .p = span.write, .n_max = span.n_max, .address = span.address };
	r = baseline_compile(&e, insns, flow, &module, extra);
	if (!r && !emit_fits(&e))
		r = -EOVERFLOW;
	if (r) {
		arena_abort(host->arena, &span);
		return error_origin(r);
	}
	host_publish(host, &span, e.n, ret);
	return 0;
}

bool host_has_room_beside(const struct host *host)
{
	return host_has_room(host, arena_layout(host->arena)->segment[TIER_SEGMENT_CODE].size / LADDER_PART);
}

/* -- Tier 0 --- */
/* Patchpoints are the own body's; MinOptJitted has none, since nothing is ever optimized there. */
static struct baseline_extra own_extra(const struct host *host, uint32_t method, enum tier_level level)
{
	const struct host_method *m = &host->own[method];

	return (struct baseline_extra){
		.patchpoints = m->n_patchpoints && level != TIER_LEVEL_MIN_OPT_JITTED,
		.patchpoint = m->patchpoint,
		.osr_counter = host->config.osr_initial_counter,
	};
}

/* The method has its first code, or will get it somewhere else. */
void host_repay(struct host *host, uint32_t method)
{
	host->n_owed -= host->own[method].n_owed;
	host->own[method].n_owed = 0;
}

static int host_compile_own(struct host *host, uint32_t method, enum tier_level level, struct core_code *ret)
{
	const struct baseline_extra extra = own_extra(host, method, level);
	int r;

	r = host_compile_tier0(host, image_method_insns(&host->image, method), host->image.methods[method].n_insns, &extra, ret);
	if (!r)
		host_repay(host, method);
	return r;
}

static bool host_is_huge(const struct host *host, uint32_t method)
{
	return host->image.methods[method].n_insns >= HOST_INSNS_HUGE;
}

static int host_tier0(struct host *host, const struct core_compile *compile, struct core_code *ret)
{
	const struct host_body *body = host_body_of(host, compile->method, compile->body);

	*ret = (struct core_code){ .size = 0 };
	if (body)
		*ret = body->tier0;
	for (uint32_t i = 0; !body && host_is_huge(host, compile->method) && i < host->n_ahead; i++)
		if (host->ahead[i].method == compile->method)
			*ret = (struct core_code){ .address = host->ahead[i].address, .size = host->ahead[i].size };
	if (!ret->address)
		return host_compile_own(host, compile->method, compile->level, ret);
	ret->code_used = arena_code_used(host->arena);
	return 0;
}

int host_instrument(struct host *host, const struct core_compile *compile, struct core_code *ret)
{
	const struct host_body *body = host_body_of(host, compile->method, compile->body);
	const struct insn *insns = body ? body->bound.insns : image_method_insns(&host->image, compile->method);
	const uint32_t n_insns = body ? body->bound.n_insns : host->image.methods[compile->method].n_insns;
	struct baseline_extra extra = { .profile = NULL };
	_cleanup_(freep) struct profile_map *map = NULL;
	int r;

	if (!body)
		extra = own_extra(host, compile->method, compile->level);
	r = profile_map_new(&map, insns, n_insns);
	if (r)
		return error_fold(r);
	extra.profile = map;
	extra.profile_cell = compile->profile;
	if (!host_has_room(host, TIER0_ALIGN - 1 + baseline_bound(insns, n_insns, &extra)))
		return CORE_E_FULL;
	r = host_compile_tier0(host, insns, n_insns, &extra, ret);
	if (!r && !body)
		host_repay(host, compile->method);
	return r;
}

int host_first(struct host *host, const struct core_compile *compile, struct core_result *ret)
{
	switch (compile->level) {
	case TIER_LEVEL_READY_TO_RUN:
		return host_ready_to_run(host, compile->method, ret);
	case TIER_LEVEL_TIER0_INSTRUMENTED:
		return host_instrument(host, compile, &ret->code);
	default:
		return host_tier0(host, compile, &ret->code);
	}
}

/* -- Stubs --- */
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

void host_repay_stub(struct host *host, uint32_t method)
{
	host->n_owed -= host->own[method].owes_stub ? STUB_BOUND : 0;
	host->own[method].owes_stub = false;
}

int host_stub(struct host *host, uint32_t method, uint32_t cell, uint64_t version, uint64_t code, struct core_code *ret)
{
	struct code_span span;
	struct emit e;

	if (!host_take_stub_room(host, method, code, &span)) {
		if (!host->own[method].owes_stub && !host_has_room(host, STUB_BOUND))
			return CORE_E_FULL;	/* of a later version: it leaves what first calls take */
		if (arena_reserve(host->arena, STUB_SIZE, STUB_SIZE, &span))
			return CORE_E_FULL;
		arena_publish(host->arena, &span, STUB_SIZE);	/* nothing leads there yet */
		host_repay_stub(host, method);
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
	for (uint32_t i = 0; i < host->image.n_methods; i++) {
		const struct baseline_extra extra = own_extra(host, i, TIER_LEVEL_TIER0);
		struct host_method *method = &host->own[i];

		method->n_owed = TIER0_ALIGN - 1 + baseline_bound(image_method_insns(&host->image, i), host->image.methods[i].n_insns, &extra);
		method->owes_stub = true;
		host->n_owed += method->n_owed + STUB_BOUND;
	}
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
		struct core_code code;

		if (!host_is_huge(host, method))
			continue;
		r = host_compile_own(host, method, TIER_LEVEL_TIER0, &code);
		if (r < 0)
			return r;
		if (r == CORE_E_FULL)
			break;
		host->ahead[host->n_ahead++] = (struct host_ahead){ .method = method, .address = code.address, .size = code.size };
	}
	return 0;
}
