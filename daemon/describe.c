/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "describe.h"
#include "host.h"
#include "util/base.h"

_Static_assert((int)WIRE_METHOD_GLOBAL == IMAGE_METHOD_GLOBAL && (int)WIRE_METHOD_WEAK == IMAGE_METHOD_WEAK
	       && (int)WIRE_METHOD_NO_OPTIMIZATION == IMAGE_METHOD_NO_OPTIMIZATION
	       && (int)WIRE_METHOD_AGGRESSIVE_OPTIMIZATION == IMAGE_METHOD_AGGRESSIVE_OPTIMIZATION
	       && (int)WIRE_METHOD_PINNED == IMAGE_METHOD_PINNED, "the image's flags are the wire's");
_Static_assert(sizeof(((struct wire_insns *)0)->insns[0]) == sizeof(struct insn), "instructions travel as they are");
_Static_assert(WIRE_SIGNATURE_MAX > IMAGE_SIGNATURE_MAX && WIRE_METHOD_NAME_MAX > IMAGE_NAME_MAX, "every text fits");

static const struct image *image_of(void *host)
{
	return &((const struct host *)host)->image;
}

static void describe_body(const struct host_body *body, struct wire_description *ret)
{
	ret->body = body->id;
	ret->n_insns = body->bound.n_insns;
	ret->n_params = body->n_params;
	ret->section_offset = body->section_offset;
	ret->signature_hash = body->signature_hash;
	strncpy(ret->signature, body->signature ? body->signature : "", sizeof(ret->signature) - 1);
	strncpy(ret->section, body->section, sizeof(ret->section) - 1);
}

static void describe_own(const struct image *image, uint32_t index, struct wire_description *ret)
{
	const struct image_method *method = &image->methods[index];

	ret->n_insns = method->n_insns;
	ret->n_params = method->n_params;
	ret->section_offset = method->section_offset;
	ret->signature_hash = method->signature_hash;
	strncpy(ret->signature, image_method_signature(image, index), sizeof(ret->signature) - 1);
	strncpy(ret->section, image->strings + method->section, sizeof(ret->section) - 1);
}

/* Cut where there is no more room */
static void note_add(struct wire_description *ret, const char *text)
{
	const size_t at = strlen(ret->note);

	memcpy(ret->note + at, text, MIN(strlen(text), sizeof(ret->note) - 1 - at));
}

/* What of the object was left out: of its debug information, and code that did not fit. */
static void describe_note(const struct host *host, struct wire_description *ret)
{
	const uint32_t note = host->image.header->note;

	if (note)
		note_add(ret, host->image.strings + note);
	if (note && *host->unfit.text)
		note_add(ret, "; ");
	note_add(ret, host->unfit.text);
}

void describe_method(void *host, uint32_t index, struct wire_description *ret)
{
	const struct image *image = image_of(host);
	const struct host_body *body = host_body_current(host, index);

	ret->flags = image->methods[index].flags;
	if (body)
		describe_body(body, ret);
	else
		describe_own(image, index, ret);
	describe_note(host, ret);
}

/* -- Names --- */
/* False: the page is full. */
static bool names_add(struct wire_names *names, uint32_t index, uint32_t flags, const char *name)
{
	struct wire_name_row *row = &names->rows[names->n];

	if (names->n == WIRE_NAMES_MAX) {
		names->more = 1;
		return false;
	}
	row->index = index;
	row->flags = flags;
	strncpy(row->name, name, sizeof(row->name) - 1);
	names->n++;
	return true;
}

/* Rows [from, n) of a table of strings. */
static void names_of_strings(struct wire_names *ret, const struct image *image, const uint32_t *table, uint32_t n, uint64_t from)
{
	for (uint64_t i = from; i < n && names_add(ret, i, 0, image->strings + table[i]); i++)
		;
}

static bool names_add_method(struct wire_names *ret, const struct image *image, uint32_t method)
{
	return names_add(ret, method, image->methods[method].flags & IMAGE_METHOD_GLOBAL, image_method_name(image, method));
}

static void names_of_calls(struct wire_names *ret, const struct host *host, uint32_t method, enum calls_relation relation,
			   uint64_t from)
{
	const struct host_body *body = host_body_current(host, method);
	const struct image *image = &host->image;
	uint32_t n;
	const uint32_t *targets = body ? calls_of(body->calls, relation, 0, &n) : calls_of(host->calls, relation, method, &n);

	for (uint64_t i = from; i < n; i++) {
		uint32_t target = targets[i];

		if (relation != CALLS_IMPORTS ? !names_add_method(ret, image, target)
					      : !names_add(ret, target, image->imports[target].flags & IMAGE_IMPORT_WEAK,
							   image_import_name(image, target)))
			return;
	}
}

static bool body_calls(const struct host_body *body, uint32_t method)
{
	uint32_t n;
	const uint32_t *callees = calls_of(body->calls, CALLS_CALLEES, 0, &n);

	for (uint32_t i = 0; i < n; i++)
		if (callees[i] == method)
			return true;
	return false;
}

/* Both lists that make up the callers are in ascending order: the image's, and the methods with bodies of their own. */
static void names_of_callers(struct wire_names *ret, const struct host *host, uint32_t method, uint64_t from)
{
	uint32_t n, k = 0;
	const uint32_t *callers = calls_of(host->calls, CALLS_CALLERS, method, &n);
	uint64_t seen = 0;

	for (uint32_t caller = 0; caller < host->image.n_methods; caller++) {
		const struct host_body *body = host_body_current(host, caller);
		bool calls = k < n && callers[k] == caller;

		k += calls;
		if (body)
			calls = body_calls(body, method);
		if (calls && seen++ >= from && !names_add_method(ret, &host->image, caller))
			return;
	}
}

void describe_related(void *context, uint32_t method, enum wire_relation relation, uint64_t from, struct wire_names *ret)
{
	static const enum calls_relation relations[] = {
		[WIRE_RELATION_CALLEES] = CALLS_CALLEES,
		[WIRE_RELATION_ADDRESSES] = CALLS_ADDRESSES,
		[WIRE_RELATION_IMPORTS] = CALLS_IMPORTS,
	};
	const struct host *host = context;
	const struct image *image = &host->image;
	const struct image_method *m = &image->methods[method];

	switch (relation) {
	case WIRE_RELATION_TAGS:
		names_of_strings(ret, image, image->tags + m->tag, m->n_tags, from);
		return;
	case WIRE_RELATION_FILES:
		names_of_strings(ret, image, image->files, image->n_files, from);
		return;
	case WIRE_RELATION_CALLERS:
		if (host->bodies)
			names_of_callers(ret, host, method, from);
		else
			names_of_calls(ret, host, method, CALLS_CALLERS, from);
		return;
	case WIRE_RELATION_CALLEES: case WIRE_RELATION_ADDRESSES: case WIRE_RELATION_IMPORTS:
		names_of_calls(ret, host, method, relations[relation], from);
		return;
	default:	/* what a version inlined is the core's to tell */
		return;
	}
}

/* -- Code --- */
void describe_insns(void *host, uint32_t method, uint64_t from, struct wire_insns *ret)
{
	const struct image *image = image_of(host);
	const struct host_body *body = host_body_current(host, method);
	const struct insn *insns = body ? body->bound.insns : image_method_insns(image, method);
	uint32_t n_insns = body ? body->bound.n_insns : image->methods[method].n_insns;

	if (from >= n_insns)
		return;
	ret->n = MIN(n_insns - from, (uint64_t)WIRE_INSNS_MAX);
	ret->more = from + ret->n < n_insns;
	memcpy(ret->insns, insns + from, ret->n * sizeof(struct insn));
}

void describe_lines(void *host, uint32_t method, uint64_t from, struct wire_source *ret)
{
	const struct image *image = image_of(host);
	const struct image_method *m = &image->methods[method];

	if (from >= m->n_insns || host_body_current(host, method))
		return;
	for (uint32_t i = image_lines_from(image, m->insn + from); i < image->n_lines; i++) {
		const struct image_line *line = &image->lines[i];

		if (line->insn >= m->insn + m->n_insns)
			return;
		if (ret->n == WIRE_LINES_MAX) {
			ret->more = 1;
			return;
		}
		ret->rows[ret->n++] = (struct wire_line_row){
			.insn = line->insn - m->insn, .file = line->file, .line = line->line, .column = line->column,
		};
	}
}
