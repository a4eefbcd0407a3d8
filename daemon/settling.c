/* SPDX-License-Identifier: Apache-2.0 */
#include "bytecode/profile.h"
#include "host.h"
#include "server/server.h"
#include "settling.h"
#include "util/base.h"

/* What the code says: direct calls, and the methods whose addresses it takes. What a call through a pointer may lead to: whom
 * the profile saw there, if there is one, and every method whose address stands in the module's data, for a profile sees one
 * target of several. So nothing that was called is missed, but for pointers that came from outside or from others' code;
 * whoever asks leaves out what was never called at all.
 *
 * The cursor is a part and a place in it. */

enum part { PART_CALLEES, PART_ADDRESSES, PART_CALLX, PART_PROFILE, PART_TABLES, PART_ALL, _PART_N };
#define PART_SHIFT 56
#define SETTLING_LOOKS 4096u	/* instructions or table entries per call */

static uint64_t cursor_at(enum part part, uint64_t place)
{
	return (uint64_t)part << PART_SHIFT | place;
}

/* What the method runs now */
struct code {
	const struct host_body *body;	/* NULL: its own */
	const struct insn *insns;
	uint32_t n_insns;
};

static struct code code_of(const struct host *host, uint32_t method)
{
	const struct host_body *body = host_body_current(host, method);

	if (body)
		return (struct code){ .body = body, .insns = body->bound.insns, .n_insns = body->bound.n_insns };
	return (struct code){ .insns = image_method_insns(&host->image, method), .n_insns = host->image.methods[method].n_insns };
}

static uint32_t called_by_code(const struct host *host, const struct host_body *body, uint32_t method, enum part part, uint64_t place,
			       uint64_t *from, uint32_t *ret, uint32_t n_max)
{
	const enum calls_relation relation = part == PART_CALLEES ? CALLS_CALLEES : CALLS_ADDRESSES;
	uint32_t n, n_ret = 0;
	const uint32_t *targets = body ? calls_of(body->calls, relation, 0, &n) : calls_of(host->calls, relation, method, &n);

	while (place < n && n_ret < n_max)
		ret[n_ret++] = targets[place++];
	*from = place < n ? cursor_at(part, place) : cursor_at(part + 1, 0);
	return n_ret;
}

/* Whether it calls through pointers at all */
static void look_for_callx(const struct code *code, uint64_t place, uint64_t *from)
{
	const uint64_t end = MIN(place + SETTLING_LOOKS, (uint64_t)code->n_insns);

	for (; place < end; place += insn_slots(&code->insns[place]))
		if (insn_is_callx(&code->insns[place])) {
			*from = cursor_at(PART_PROFILE, 0);
			return;
		}
	*from = place < code->n_insns ? cursor_at(PART_CALLX, place) : SERVER_CALLED_END;
}

/* @place: of the profile. Huge methods have none, so this is short. */
static uint32_t called_by_profile(const struct host *host, const struct code *code, uint32_t method, uint64_t place, uint64_t *from,
				  uint32_t *ret, uint32_t n_max)
{
	uint32_t n = 0, n_ret = 0;
	_cleanup_(freep) struct profile_count *counts = host_profile(host, method, code->insns, code->n_insns, &n);

	for (; counts && place < n && n_ret < n_max; place++)
		if (counts[place].kind == PROFILE_CALLX && counts[place].method != PROFILE_NO_METHOD)
			ret[n_ret++] = counts[place].method;
	/* which methods a replaced body's own tables name is not kept */
	*from = counts && place < n ? cursor_at(PART_PROFILE, place)
	      : cursor_at(code->body && code->body->rodata ? PART_ALL : PART_TABLES, 0);
	return n_ret;
}

static uint32_t called_through_tables(const struct image *image, uint64_t place, uint64_t *from, uint32_t *ret, uint32_t n_max)
{
	const uint64_t end = MIN(place + SETTLING_LOOKS, (uint64_t)image->n_relocs);
	uint32_t n_ret = 0;

	for (; place < end && n_ret < n_max; place++)
		if (image->relocs[place].ref == INSN_REF_METHOD)
			ret[n_ret++] = image->relocs[place].index;
	*from = place < image->n_relocs ? cursor_at(PART_TABLES, place) : SERVER_CALLED_END;
	return n_ret;
}

static uint32_t called_perhaps(const struct image *image, uint64_t place, uint64_t *from, uint32_t *ret, uint32_t n_max)
{
	uint32_t n_ret = 0;

	while (place < image->n_methods && n_ret < n_max)
		ret[n_ret++] = place++;
	*from = place < image->n_methods ? cursor_at(PART_ALL, place) : SERVER_CALLED_END;
	return n_ret;
}

uint32_t settling_called(void *context, uint32_t method, uint64_t *from, uint32_t *ret, uint32_t n_max)
{
	const struct host *host = context;
	const struct code code = code_of(host, method);
	const enum part part = *from >> PART_SHIFT;
	const uint64_t place = *from & ((UINT64_C(1) << PART_SHIFT) - 1);

	switch (part) {
	case PART_CALLEES: case PART_ADDRESSES:
		return called_by_code(host, code.body, method, part, place, from, ret, n_max);
	case PART_CALLX:
		look_for_callx(&code, place, from);
		return 0;
	case PART_PROFILE:
		return called_by_profile(host, &code, method, place, from, ret, n_max);
	case PART_TABLES:
		return called_through_tables(&host->image, place, from, ret, n_max);
	case PART_ALL:
		return called_perhaps(&host->image, place, from, ret, n_max);
	default:
		*from = SERVER_CALLED_END;
		return 0;
	}
}
