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

/* One page of an answer: where it begins, what it has, and where the next one does */
struct page {
	const struct host *host;
	uint32_t method;
	const struct host_body *body;	/* that it runs now; NULL: its own */
	const struct insn *insns;
	uint32_t n_insns;
	enum part part;
	uint64_t place;
	uint32_t *methods, n, n_max;
	uint64_t next;
};

static void page_begin(struct page *page)
{
	const struct image *image = &page->host->image;

	page->body = host_body_current(page->host, page->method);
	page->insns = page->body ? page->body->bound.insns : image_method_insns(image, page->method);
	page->n_insns = page->body ? page->body->bound.n_insns : image->methods[page->method].n_insns;
}

static void page_add(struct page *page, uint32_t method)
{
	page->methods[page->n++] = method;
}

static uint64_t cursor_at(enum part part, uint64_t place)
{
	return (uint64_t)part << PART_SHIFT | place;
}

/* The part goes on at page->place, or when that is @n, @behind it something else. */
static void page_end(struct page *page, uint64_t n, uint64_t behind)
{
	page->next = page->place < n ? cursor_at(page->part, page->place) : behind;
}

/* -- The parts --- */
static void called_by_code(struct page *page)
{
	const enum calls_relation relation = page->part == PART_CALLEES ? CALLS_CALLEES : CALLS_ADDRESSES;
	const struct calls *calls = page->body ? page->body->calls : page->host->calls;
	uint32_t n;
	const uint32_t *targets = calls_of(calls, relation, page->body ? 0 : page->method, &n);

	while (page->place < n && page->n < page->n_max)
		page_add(page, targets[page->place++]);
	page_end(page, n, cursor_at(page->part + 1, 0));
}

/* Whether it calls through pointers at all */
static void look_for_callx(struct page *page)
{
	const uint64_t end = MIN(page->place + SETTLING_LOOKS, (uint64_t)page->n_insns);

	for (; page->place < end; page->place += insn_slots(&page->insns[page->place]))
		if (insn_is_callx(&page->insns[page->place])) {
			page->next = cursor_at(PART_PROFILE, 0);
			return;
		}
	page_end(page, page->n_insns, SERVER_CALLED_END);
}

/* Huge methods have no profile, so this is short. Which methods a replaced body's own tables name is not kept. */
static void called_by_profile(struct page *page)
{
	uint32_t n = 0;
	_cleanup_(freep) struct profile_count *counts = host_profile(page->host, page->method, page->insns, page->n_insns, &n);

	for (; counts && page->place < n && page->n < page->n_max; page->place++)
		if (counts[page->place].kind == PROFILE_CALLX && counts[page->place].method != PROFILE_NO_METHOD)
			page_add(page, counts[page->place].method);
	page_end(page, counts ? n : 0, cursor_at(page->body && page->body->rodata ? PART_ALL : PART_TABLES, 0));
}

static void called_through_tables(struct page *page)
{
	const struct image *image = &page->host->image;
	const uint64_t end = MIN(page->place + SETTLING_LOOKS, (uint64_t)image->n_relocs);

	for (; page->place < end && page->n < page->n_max; page->place++)
		if (image->relocs[page->place].ref == INSN_REF_METHOD)
			page_add(page, image->relocs[page->place].index);
	page_end(page, image->n_relocs, SERVER_CALLED_END);
}

static void called_perhaps(struct page *page)
{
	const uint32_t n = page->host->image.n_methods;

	while (page->place < n && page->n < page->n_max)
		page_add(page, page->place++);
	page_end(page, n, SERVER_CALLED_END);
}

uint32_t settling_called(void *host, uint32_t method, uint64_t *from, uint32_t *ret, uint32_t n_max)
{
	static void (*const parts[_PART_N])(struct page *page) = {
		[PART_CALLEES] = called_by_code, [PART_ADDRESSES] = called_by_code, [PART_CALLX] = look_for_callx,
		[PART_PROFILE] = called_by_profile, [PART_TABLES] = called_through_tables, [PART_ALL] = called_perhaps,
	};
	struct page page = {
		.host = host, .method = method, .part = *from >> PART_SHIFT, .place = *from & ((UINT64_C(1) << PART_SHIFT) - 1),
		.methods = ret, .n_max = n_max, .next = SERVER_CALLED_END,
	};

	page_begin(&page);
	if (page.part < _PART_N)
		parts[page.part](&page);
	*from = page.next;
	return page.n;
}
