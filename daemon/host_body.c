/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies that replace those of the image (DESIGN §4, rejit)
 *
 *   host_bind()           off the loop   may it be, what does it name, who is called
 *   host_body_reserve()   in the loop    is there room for all of it; a place for its .rodata
 *   host_body_fill()      off the loop   its .rodata gets there, its instructions learn where
 *   host_body_compile()   in the loop    its tier 0
 *   host_body_exchange()                 it is the method's
 *
 * A megabyte of .rodata full of pointers takes tens of milliseconds to bind, and one to copy: hence the two ways to and fro.
 * Tier 0 is made before anybody is told that the body is the method's: whoever calls it then would die for want of room.
 *
 * A method keeps one of them, the newest: the core never asks for an older one again. What the older ones had in the code
 * segment stays, since activations may still run in it. */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "bytecode/bind.h"
#include "bytecode/loops.h"
#include "host.h"
#include "jit/baseline.h"
#include "jit/stubs.h"
#include "util/base.h"
#include "util/error.h"

DEFINE_CLEANUP(struct host_body *, host_body_free)

void host_body_deinit(struct host_body *body)
{
	body->calls = calls_free(body->calls);
	bound_body_deinit(&body->bound);
	free(TAKE_PTR(body->signature));
	free(TAKE_PTR(body->section));
}

struct host_body *host_body_free(struct host_body *body)
{
	if (!body)
		return NULL;
	charge_deinit(&body->memory);
	host_body_deinit(body);
	free(body);
	return NULL;
}

/* -- Binding --- */
static int64_t target_method(void *context, const char *name)
{
	const struct host *host = context;

	return symtab_find(host->symtab, name);
}

static int64_t target_import(void *context, const char *name)
{
	const struct host *host = context;

	return symtab_find(host->imports, name);
}

_Static_assert(SYMTAB_AMBIGUOUS == BIND_AMBIGUOUS, "one word for it");

static int64_t target_object(void *context, const char *name)
{
	const struct host *host = context;

	return symtab_find(host->objects, name);
}

static uint64_t target_address(void *context, unsigned int ref, uint32_t index, int64_t offset)
{
	const struct host *host = context;
	const struct tier_layout *layout = arena_layout(host->arena);

	switch (ref) {
	case INSN_REF_METHOD:
		return tier_layout_method(layout, index, arena_record(host->arena, index)->flags);
	case INSN_REF_RODATA:
		return layout->base + layout->rodata + offset;
	case INSN_REF_DATA:
		return host_data(host) + offset;
	default:
		return host_bss(host) + offset;
	}
}

static enum tier_error error_of_bind(int r, struct refusal *refusal)
{
	switch (r) {
	case 0:
		return TIER_ERROR_NONE;
	case BIND_E_SIGNATURE:
		return TIER_ERROR_SIGNATURE;
	case BIND_E_UNBOUND:
		return TIER_ERROR_UNBOUND;
	case BIND_E_REFUSED:
		return TIER_ERROR_BAD_MODULE;
	default:
		refuse(refusal, "out of memory");
		return TIER_ERROR_NO_MEMORY;
	}
}

_Static_assert(HOST_BODY_INSNS_MAX == 16384 && HOST_BODY_RODATA_MAX == 1u << 20, "as the sentences below say");

static bool body_is_small(const struct image *source, uint32_t method, struct refusal *refusal)
{
	if (source->methods[method].n_insns > HOST_BODY_INSNS_MAX)
		refuse(refusal, "function '%.160s' has %u instructions; a new body may have at most 16384",
		       image_method_name(source, method), source->methods[method].n_insns);
	else if (source->n_rodata > HOST_BODY_RODATA_MAX)
		refuse(refusal, "the object has %u bytes of .rodata; with a new body at most 1 MiB may come", source->n_rodata);
	else
		return true;
	return false;
}

/* What people are told about it, and who it calls */
static int body_describe(struct host_body *body, const struct host *host, const struct image *source, uint32_t method)
{
	const struct image_method *m = &source->methods[method];
	const int64_t n_loops = loops_find(body->bound.insns, body->bound.n_insns, NULL);

	if (n_loops < 0)
		return n_loops;
	body->has_loops = n_loops > 0;
	body->n_profile = host_profile_words(host, body->bound.insns, body->bound.n_insns);
	body->section_offset = m->section_offset;
	body->n_params = m->n_params;
	body->signature_hash = m->signature_hash;
	body->section = strdup(source->strings + m->section);
	if (!body->section)
		return -ENOMEM;
	if (m->signature) {
		body->signature = strdup(image_method_signature(source, method));
		if (!body->signature)
			return -ENOMEM;
	}
	return calls_new_body(&body->calls, &host->image, body->bound.insns, body->bound.n_insns);
}

enum tier_error host_bind(struct host_body **ret, const struct host *host, uint32_t target, const struct image *source, uint32_t method,
			  bool force, struct refusal *refusal)
{
	const struct bind_target bind = {
		.image = &host->image, .method = target, .context = (void *)host, .address = target_address,
		.find_method = target_method, .find_import = target_import, .find_object = target_object,
	};
	_cleanup_(host_body_freep) struct host_body *body = calloc(1, sizeof(*body));
	int r = 0;

	if (!body)
		return error_of_bind(-ENOMEM, refusal);
	if (!body_is_small(source, method, refusal))
		return TIER_ERROR_BAD_MODULE;
	if (!force)
		r = bind_signature(&bind, source, method, refusal);
	if (!r)
		r = bind_body(&body->bound, &bind, source, method, refusal);
	if (!r)
		r = body_describe(body, host, source, method);
	if (r)
		return error_of_bind(r, refusal);
	*ret = TAKE_PTR(body);
	return TIER_ERROR_NONE;
}

/* -- Placing --- */
/* Bytes that its code and the stub behind it take at most */
static uint64_t body_code_bound(const struct host_body *body)
{
	return baseline_bound(body->bound.insns, body->bound.n_insns, NULL) + 2 * STUB_SIZE;
}

enum tier_error host_body_reserve(struct host *host, struct host_body *body, const struct image *source)
{
	const uint32_t n = body->bound.n_rodata, align = MAX(source->header->align[IMAGE_RODATA], 16u);
	struct code_span span;

	if (!host_has_room(host, (uint64_t)n + align + body_code_bound(body)))
		return TIER_ERROR_CODE_FULL;
	if (n) {
		if (arena_reserve(host->arena, n, align, &span))
			return TIER_ERROR_CODE_FULL;
		arena_publish(host->arena, &span, n);
		body->rodata = span.address;
		body->write = span.write;
	}
	body->id = ++host->n_bodies;
	return TIER_ERROR_NONE;
}

void host_body_fill(struct host_body *body, const struct image *source, uint32_t method)
{
	struct bound_body *bound = &body->bound;

	bound_body_place(bound, source, method, body->rodata);
	if (bound->n_rodata)
		memcpy(body->write, bound->rodata, bound->n_rodata);
	free(TAKE_PTR(bound->rodata));
}

int host_body_compile(struct host *host, struct host_body *body)
{
	struct code_span stub;
	int r;

	if (!host_has_room(host, body_code_bound(body)))
		return CORE_E_FULL;
	r = host_compile_tier0(host, body->bound.insns, body->bound.n_insns, NULL, &body->tier0);
	if (r)
		return r;
	if (arena_reserve(host->arena, STUB_SIZE, STUB_SIZE, &stub))
		return CORE_E_FULL;
	arena_publish(host->arena, &stub, STUB_SIZE);
	body->stub = stub.address;
	return 0;
}

/* -- Which one it is --- */
int host_bodies_reserve(struct host *host)
{
	if (!host->bodies)
		host->bodies = calloc(host->image.n_methods, sizeof(*host->bodies));
	return host->bodies ? 0 : error_origin(-ENOMEM);
}

struct host_body *host_body_exchange(struct host *host, uint32_t method, struct host_body *body)
{
	struct host_body *before = host->bodies[method];

	host->bodies[method] = body;
	return before;
}

bool host_has_body(const struct host *host, uint32_t method, uint32_t id)
{
	return !id || (host->bodies && host->bodies[method] && host->bodies[method]->id == id);
}

const struct host_body *host_body_of(const struct host *host, uint32_t method, uint32_t id)
{
	if (!id)
		return NULL;
	assert(host_has_body(host, method, id));
	return host->bodies[method];
}

const struct host_body *host_body_current(const struct host *host, uint32_t method)
{
	return host_body_of(host, method, host->bodies ? core_method_body(host->module, method) : 0);
}
