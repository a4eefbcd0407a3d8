/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "connection.h"
#include "error.h"
#include "mapping.h"
#include "module.h"
#include "prestub.h"
#include "sync.h"
#include "sys.h"

/* First the whole span is reserved, only if nothing is there yet; then the segments are laid over the reservation. So a
 * span that is taken fails before anything of it is mapped, and no guard page can be taken later.
 *
 * Another thread may fork at any moment in between. The fork then has a span, or a part of one, that is in no list; it
 * finds in `unsettled` what the thread was about to do. Where the span alone may not be there yet or any more, a records
 * header at the right place tells that it is: that is why the reservation is a mapping of the records' file. */

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#define PAGE 4096u
#define ADDRESS_MAX (1ull << 47)

static struct mapping *mappings;

/* The span that is being mapped or unmapped right now */
static struct {
	uint64_t base, size, module;
	uint64_t header;	/* where the records header is seen, if the span is there; 0: the span is there for sure */
} unsettled;

static void unsettled_begin(const struct mapping *mapping, uint64_t header)
{
	unsettled.base = mapping->layout.base;
	unsettled.module = mapping->module;
	unsettled.header = header;
	/* Forks see these stores in their order: the rest before the size that makes it count. */
	__atomic_store_n(&unsettled.size, mapping->layout.size, __ATOMIC_RELEASE);
}

static void unsettled_end(void)
{
	__atomic_store_n(&unsettled.size, 0, __ATOMIC_SEQ_CST);
}

/* In a fork: whether the span is there and ours. */
static bool unsettled_is_mapped(void)
{
	struct tier_records_header header;

	if (!unsettled.size)
		return false;
	if (!unsettled.header)
		return true;
	return sys_peek(sys_getpid(), (void *)unsettled.header, &header, sizeof(header)) == sizeof(header)
	    && header.magic == TIER_RECORDS_MAGIC && header.module == unsettled.module && header.layout.base == unsettled.base;
}

static const struct {
	const char *name;
	int protection, flags;
} segments[] = {
	[TIER_SEGMENT_CODE] = { "code", PROT_READ | PROT_EXEC, MAP_SHARED },
	[TIER_SEGMENT_RECORDS] = { "records", PROT_READ, MAP_SHARED },
	[TIER_SEGMENT_COUNTERS] = { "counters", PROT_READ | PROT_WRITE, MAP_SHARED },
	[TIER_SEGMENT_PRIVATE] = { "private", PROT_READ | PROT_WRITE, MAP_PRIVATE },
};
_Static_assert(sizeof(segments) / sizeof(segments[0]) == _TIER_SEGMENT_N, "map every segment");

/* -- What the daemon says --- */
static bool range_fits(uint64_t offset, uint64_t size, uint64_t n)
{
	return offset <= n && size <= n - offset;
}

/* Whether [offset, size) of the span lies inside the segment. */
static bool segment_holds(const struct tier_layout *layout, enum tier_segment segment, uint64_t offset, uint64_t size)
{
	return offset >= layout->segment[segment].offset
	    && range_fits(offset - layout->segment[segment].offset, size, layout->segment[segment].size);
}

static const char *slots_wrong(const struct tier_layout *layout)
{
	const uint64_t after_rodata = layout->rodata + layout->n_rodata;

	if (!layout->n_slots)
		return NULL;
	if ((layout->slots | layout->n_slots | layout->call_cells) % sizeof(uint64_t))
		return "its vtable slots are not aligned";
	if (layout->slots < layout->rodata || !range_fits(layout->slots - layout->rodata, layout->n_slots, layout->n_rodata))
		return "its vtable slots lie outside .rodata";
	if (layout->call_cells < after_rodata
	    || !segment_holds(layout, TIER_SEGMENT_RECORDS, layout->call_cells, layout->n_slots))
		return "its call cells lie outside their segment, or in .rodata";
	return NULL;
}

/* Behind the method records, and behind the cells and the visits. */
static const char *patchpoints_wrong(const struct tier_layout *layout)
{
	const uint64_t size = (uint64_t)layout->n_patchpoints * sizeof(struct tier_patchpoint);
	const uint64_t records_end = layout->segment[TIER_SEGMENT_RECORDS].offset + TIER_RECORDS_OFFSET
				   + (uint64_t)layout->n_methods * sizeof(struct tier_record);

	if (!layout->n_patchpoints)
		return NULL;
	if (layout->patchpoints % sizeof(uint64_t) || layout->patchpoints < records_end
	    || !segment_holds(layout, TIER_SEGMENT_RECORDS, layout->patchpoints, size))
		return "its patchpoints lie outside their segment, or among the records";
	if (layout->hits % sizeof(uint32_t) || layout->hits < layout->visits + sizeof(struct tier_visits)
	    || !segment_holds(layout, TIER_SEGMENT_COUNTERS, layout->hits, layout->n_patchpoints * sizeof(uint32_t)))
		return "its patchpoints' hits lie outside their segment, or among the counters";
	return NULL;
}

static const char *layout_wrong(const struct tier_layout *layout)
{
	const uint64_t heads[] = {
		[TIER_SEGMENT_CODE] = TIER_PRECODES_OFFSET + (uint64_t)layout->n_methods * TIER_PRECODE_SIZE,
		[TIER_SEGMENT_RECORDS] = TIER_RECORDS_OFFSET + (uint64_t)layout->n_methods * sizeof(struct tier_record),
		[TIER_SEGMENT_COUNTERS] = (uint64_t)layout->n_cells * sizeof(uint32_t),
		[TIER_SEGMENT_PRIVATE] = sizeof(struct tier_private) + (uint64_t)layout->n_imports * sizeof(uint64_t),
	};
	const char *wrong;
	uint64_t end = 0;

	if (!layout->size || layout->size > TIER_SPAN_MAX || (layout->base | layout->size) % PAGE || layout->base < PAGE
	    || !range_fits(layout->base, layout->size, ADDRESS_MAX))
		return "its span is not a range of pages that a process can have";
	for (int i = 0; i < _TIER_SEGMENT_N; i++) {
		const uint64_t offset = layout->segment[i].offset, size = layout->segment[i].size;

		if (!size || (offset | size) % PAGE || offset < end || !range_fits(offset, size, layout->size))
			return "its segments do not lie in order inside the span";
		if (heads[i] > size)
			return "a segment is smaller than what it must hold";
		end = offset + size;
	}
	if (!segment_holds(layout, TIER_SEGMENT_RECORDS, layout->rodata, layout->n_rodata)
	    || !segment_holds(layout, TIER_SEGMENT_PRIVATE, layout->data, layout->n_data)
	    || !segment_holds(layout, TIER_SEGMENT_PRIVATE, layout->bss, layout->n_bss))
		return "its data lie outside their segments";
	if (layout->visits % 8 || !segment_holds(layout, TIER_SEGMENT_COUNTERS, layout->visits, sizeof(struct tier_visits))
	    || layout->visits - layout->segment[TIER_SEGMENT_COUNTERS].offset < heads[TIER_SEGMENT_COUNTERS])
		return "its visits lie outside their segment, or among the counters";
	wrong = slots_wrong(layout);
	return wrong ? wrong : patchpoints_wrong(layout);
}

/* A file shorter than its segment would be a SIGBUS later. */
static int segment_check(const struct wire_module *reply, int segment, int fd)
{
	struct stat status;
	int r;

	r = sys_fstat(fd, &status);
	if (r < 0)
		return error_set(r, "module '%s': cannot examine the %s segment's descriptor: %s", reply->name,
				 segments[segment].name, error_word(r));
	if (!S_ISREG(status.st_mode) || (uint64_t)status.st_size < reply->layout.segment[segment].size)
		return error_set(-EPROTO, "module '%s': the descriptor of the %s segment is not a file of %lu bytes",
				 reply->name, segments[segment].name, (unsigned long)reply->layout.segment[segment].size);
	return 0;
}

int layout_check(const struct wire_module *reply, const int fds[_TIER_SEGMENT_N])
{
	const char *wrong = layout_wrong(&reply->layout);
	int r = 0;

	if (wrong)
		return error_set(-EPROTO, "the daemon's layout of module '%s' is wrong: %s", reply->name, wrong);
	for (int i = 0; i < _TIER_SEGMENT_N && !r; i++)
		r = segment_check(reply, i, fds[i]);
	return r;
}

/* -- The span --- */
static void span_unmap(const struct tier_layout *layout)
{
	sys_munmap((void *)layout->base, layout->size);
}

static int span_reserve(const struct mapping *mapping, int records_fd)
{
	const struct tier_layout *layout = &mapping->layout;
	void *const wanted = (void *)layout->base, *at;
	int r;

	at = sys_mmap(wanted, layout->size, PROT_READ, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED_NOREPLACE, records_fd, 0);
	if (at == wanted)
		return 0;
	r = sys_is_error(at) ? (int)(intptr_t)at : -EEXIST;
	if (!sys_is_error(at))
		sys_munmap(at, layout->size);	/* a kernel that takes the address for a hint */
	if (r == -EEXIST)
		return error_set(-EADDRINUSE,
				 "module '%s' needs the addresses 0x%lx-0x%lx, which this process uses for something else",
				 mapping->name, (unsigned long)layout->base, (unsigned long)(layout->base + layout->size));
	return error_set(r, "module '%s': cannot reserve the addresses 0x%lx-0x%lx: %s", mapping->name,
			 (unsigned long)layout->base, (unsigned long)(layout->base + layout->size), error_word(r));
}

static int span_map(const struct mapping *mapping, const int fds[_TIER_SEGMENT_N])
{
	const struct tier_layout *layout = &mapping->layout;
	void *guards;

	guards = sys_mmap((void *)layout->base, layout->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
			  0);
	if (sys_is_error(guards))
		return error_set((int)(intptr_t)guards, "module '%s': cannot map the span: %s", mapping->name,
				 error_word((int)(intptr_t)guards));
	for (int i = 0; i < _TIER_SEGMENT_N; i++) {
		void *const at = sys_mmap((void *)tier_layout_segment(layout, i), layout->segment[i].size, segments[i].protection,
					  segments[i].flags | MAP_FIXED, fds[i], 0);

		if (sys_is_error(at))
			return error_set((int)(intptr_t)at, "module '%s': cannot map the %s segment: %s", mapping->name,
					 segments[i].name, error_word((int)(intptr_t)at));
	}
	return 0;
}

static int header_check(const struct mapping *mapping)
{
	const struct tier_records_header *header = (void *)tier_layout_segment(&mapping->layout, TIER_SEGMENT_RECORDS);

	if (header->magic != TIER_RECORDS_MAGIC || header->version != TIER_RECORDS_VERSION
	    || header->record_size != sizeof(struct tier_record))
		return error_set(-EPROTO, "module '%s': its records are not of format %u", mapping->name, TIER_RECORDS_VERSION);
	if (header->module != mapping->module || memcmp(&header->layout, &mapping->layout, sizeof(header->layout)) != 0)
		return error_set(-EPROTO, "module '%s': its records belong to another module", mapping->name);
	return 0;
}

/* Before anything can run: every way out of the module's code leads somewhere. */
static void table_fill(struct mapping *mapping)
{
	struct tier_private *const table = mapping->table;

	table->prestub = (uintptr_t)tier_enter_prestub;
	table->threshold = (uintptr_t)tier_enter_threshold;
	table->osr = (uintptr_t)tier_enter_osr;
	table->unbound_import = unbound_entry(UNBOUND_ENTRIES - 1);
	table->client = (uintptr_t)mapping;
	for (uint32_t i = 0; i < mapping->layout.n_imports; i++)
		table->imports[i] = mapping->imports[i].flags & 1 ? 0 : unbound_entry(i);
}

/* -- Mappings --- */
static size_t notes_size(const struct tier_layout *layout)
{
	const uint64_t n_cells = layout->n_slots / sizeof(uint64_t);

	return sizeof(struct mapping_notes) + (n_cells + 63) / 64 * sizeof(uint64_t);
}

struct mapping *mapping_new(const struct wire_module *reply)
{
	const struct tier_layout *layout = &reply->layout;
	const size_t n = sizeof(struct mapping) + layout->n_imports * sizeof(struct mapping_import)
		       + layout->n_methods * sizeof(struct mapping_name);
	struct mapping *mapping;

	mapping = sys_mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (sys_is_error(mapping)) {
		error_set(-ENOMEM, "module '%s': out of memory", reply->name);
		return NULL;
	}
	mapping->n_bytes = n;
	mapping->imports = (struct mapping_import *)(mapping + 1);
	mapping->names = (struct mapping_name *)(mapping->imports + layout->n_imports);
	mapping->layout = *layout;
	mapping->module = reply->module;
	text_copy(mapping->name, sizeof(mapping->name), reply->name);
	if (layout->n_slots)
		mapping->notes = wiped_memory_new(notes_size(layout));
	if (layout->n_slots && !mapping->notes) {
		sys_munmap(mapping, n);
		return NULL;
	}
	return mapping;
}

static void mapping_link(struct mapping *mapping)
{
	lock_take(&process_page()->links, UINT64_MAX);
	mapping->next = mappings;
	__atomic_store_n(&mappings, mapping, __ATOMIC_RELEASE);
	lock_give(&process_page()->links);
}

static void mapping_unlink(struct mapping *mapping)
{
	struct mapping **at;

	lock_take(&process_page()->links, UINT64_MAX);
	for (at = &mappings; *at; at = &(*at)->next)
		if (*at == mapping) {
			__atomic_store_n(at, mapping->next, __ATOMIC_RELEASE);
			break;
		}
	lock_give(&process_page()->links);
}

static void mapping_set_pointers(struct mapping *mapping)
{
	const struct tier_layout *layout = &mapping->layout;

	mapping->records = (void *)tier_layout_record(layout, 0);
	mapping->cells = (void *)tier_layout_cell(layout, 0);
	mapping->visits = (void *)(layout->base + layout->visits);
	mapping->hits = (void *)(layout->base + layout->hits);
	mapping->table = (void *)tier_layout_segment(layout, TIER_SEGMENT_PRIVATE);
}

int mapping_map(struct mapping *mapping, const int fds[_TIER_SEGMENT_N])
{
	const struct tier_layout *layout = &mapping->layout;
	struct stat status;
	int r;

	unsettled_begin(mapping, layout->base);
	r = span_reserve(mapping, fds[TIER_SEGMENT_RECORDS]);
	if (r < 0) {
		unsettled_end();
		return r;
	}
	__atomic_store_n(&unsettled.header, 0, __ATOMIC_RELEASE);
	r = span_map(mapping, fds);
	if (!r)
		r = header_check(mapping);
	if (!r)
		r = sys_fstat(fds[TIER_SEGMENT_RECORDS], &status);
	if (r < 0) {
		/* from here on it may be gone already, and the addresses be somebody else's */
		__atomic_store_n(&unsettled.header, tier_layout_segment(layout, TIER_SEGMENT_RECORDS), __ATOMIC_RELEASE);
		span_unmap(layout);
		unsettled_end();
		return r;
	}
	mapping->device = status.st_dev;
	mapping->inode = status.st_ino;
	mapping_set_pointers(mapping);
	table_fill(mapping);
	mapping_link(mapping);
	unsettled_end();
	return 0;
}

void mapping_free(struct mapping *mapping)
{
	if (mapping->records) {
		unsettled_begin(mapping, tier_layout_segment(&mapping->layout, TIER_SEGMENT_RECORDS));
		mapping_unlink(mapping);
		span_unmap(&mapping->layout);
		unsettled_end();
	}
	if (mapping->notes)
		sys_munmap(mapping->notes, notes_size(&mapping->layout));
	sys_munmap(mapping, mapping->n_bytes);
}

bool mapping_is_of(const struct mapping *mapping, int records_fd)
{
	struct stat status;

	return records_fd >= 0 && sys_fstat(records_fd, &status) == 0 && mapping->device == status.st_dev
	    && mapping->inode == status.st_ino;
}

struct mapping *mapping_find(int records_fd)
{
	struct mapping *mapping = mappings;

	while (mapping && !mapping_is_of(mapping, records_fd))
		mapping = mapping->next;
	return mapping;
}

/* A span whose mapping is in the list is whole, however the fork caught it. */
void mapping_tidy(void)
{
	bool is_known = false;

	if (process_page()->mine)
		return;
	for (struct mapping *mapping = mappings; mapping; mapping = mapping->next)
		is_known |= mapping->layout.base == unsettled.base;
	if (!is_known && unsettled_is_mapped())
		sys_munmap((void *)unsettled.base, unsettled.size);
	unsettled_end();
	process_page()->mine = 1;
}

void mapping_tell_again(struct mapping *mapping)
{
	struct mapping_notes *const notes = mapping->notes;
	const uint64_t n_cells = mapping->layout.n_slots / sizeof(uint64_t);

	if (notes && notes->has_session)
		for (uint64_t i = 0; i < (n_cells + 63) / 64; i++)
			__atomic_store_n(&notes->posted[i], 0, __ATOMIC_RELAXED);
	mapping_hear(mapping);
}

static struct mapping *mapping_of_header(const struct tier_records_header *header)
{
	const struct tier_private *table = (const void *)tier_layout_segment(&header->layout, TIER_SEGMENT_PRIVATE);

	return (struct mapping *)(uintptr_t)table->client;
}

struct mapping *mapping_of_record(const struct tier_record *record)
{
	return mapping_of_header((const void *)((const char *)(record - record->index) - TIER_RECORDS_OFFSET));
}

struct mapping *mapping_of_patchpoint(const struct tier_patchpoint *patchpoint)
{
	return mapping_of_header((const void *)((const char *)patchpoint - patchpoint->offset));
}

struct mapping *mapping_of_code(uint64_t address)
{
	struct mapping *mapping;

	lock_take(&process_page()->links, UINT64_MAX);
	for (mapping = mappings; mapping; mapping = mapping->next)
		if (address - tier_layout_segment(&mapping->layout, TIER_SEGMENT_CODE)
		    < mapping->layout.segment[TIER_SEGMENT_CODE].size)
			break;
	lock_give(&process_page()->links);
	return mapping;
}

static bool module_is_orphan(const struct tier_module *module)
{
	return __atomic_load_n(&module->is_orphan, __ATOMIC_RELAXED);
}

/* The better, the larger: those that are lost still say what is wrong. */
static int holder_rank(const struct tier_module *module)
{
	return 2 * !module_is_orphan(module) + !lane_is_broken(&module->conn->prestub);
}

static struct tier_conn *mapping_find_conn(struct mapping *mapping, bool for_note)
{
	struct tier_module *found = NULL;
	struct tier_conn *conn = NULL;

	lock_take(&process_page()->links, UINT64_MAX);
	for (struct tier_module *module = mapping->holders; module; module = module->next_holder) {
		if (__atomic_load_n(&module->conn->is_closed, __ATOMIC_RELAXED) || (for_note && module_is_orphan(module)))
			continue;
		if (!found || holder_rank(module) > holder_rank(found))
			found = module;
	}
	if (found) {	/* the module may be closed as soon as the lock is given */
		conn = found->conn;
		conn_ref(conn);
	}
	lock_give(&process_page()->links);
	return conn;
}

struct tier_conn *mapping_conn(struct mapping *mapping)
{
	return mapping_find_conn(mapping, false);
}

struct tier_conn *mapping_conn_for_note(struct mapping *mapping)
{
	return mapping_find_conn(mapping, true);
}

int mapping_check(const struct mapping *mapping, const struct tier_conn *conn)
{
	int r = 0;

	lock_take(&process_page()->links, UINT64_MAX);
	for (const struct tier_module *module = mapping->holders; module && !r; module = module->next_holder)
		if (module->conn == conn)
			r = module_check(module);
	lock_give(&process_page()->links);
	return r;
}
