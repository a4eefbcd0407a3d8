/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "arena/arena.h"
#include "util/base.h"
#include "util/error.h"

/* One module's memory
 *
 *   memfd ──(writable description)──► the daemon's alias, rw-, at whatever address mmap chose; nobody executes it
 *     └─────(read-only description)─► clients, at the span's addresses; /proc/self/fd makes a description of its own,
 *                                     whose open mode no receiver can widen: the file is 0600 and its owner the daemon
 *
 * The files are as large as they will ever be and sparse: a page costs memory when it is first written. They carry no
 * seal against future writers, because a successor daemon maps them writable again. */

#define ARENA_PAGE 4096u
#define ARENA_CELLS_PER_METHOD 8u	/* versions that are ever counted, over all rejits */
#define ARENA_CELLS_MIN 65536u
#define ARENA_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define ARENA_CODE_MIN (16u << 20)	/* nothing of it is used again after a rejit */

/* Generous: five versions of 160 bytes per instruction, room for stubs and frames. Least: every method's tier 0. */
#define ARENA_CODE_PER_INSN (5u * 160u)
#define ARENA_CODE_PER_METHOD 1024u
#define ARENA_LEAST_PER_INSN 64u
#define ARENA_LEAST_PER_METHOD 256u

/* newer than some C libraries */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
#endif

struct arena_file {
	int fd;			/* writable */
	int client_fd;
	uint8_t *alias;		/* NULL until mapped */
	size_t n;
};
#define ARENA_FILE_NULL { .fd = -1, .client_fd = -1 }

struct arena {
	struct tier_layout layout;
	struct arena_file files[_TIER_SEGMENT_N];
	bool is_reserved;	/* between reserve and publish or abort */
};
#define ARENA_NULL { .files = { ARENA_FILE_NULL, ARENA_FILE_NULL, ARENA_FILE_NULL, ARENA_FILE_NULL } }

DEFINE_CLEANUP(struct arena *, arena_free)

/* -- Planning --- */
static uint64_t plan_page_up(uint64_t n)
{
	return align_up(n, ARENA_PAGE);
}

static uint64_t plan_head(uint32_t n_methods)
{
	return align_up(TIER_PRECODES_OFFSET + (uint64_t)n_methods * TIER_PRECODE_SIZE, 64);
}

/* Bytes of the code segment when @n_free bytes of the span are left for it; 0: not enough. */
static uint64_t plan_code(const struct arena_needs *needs, uint64_t n_free)
{
	uint64_t head = plan_head(needs->n_methods), least, wanted;

	if (needs->n_code) {
		least = wanted = head + needs->n_code;
	} else {
		least = head + needs->n_insns * (uint64_t)ARENA_LEAST_PER_INSN + needs->n_methods * (uint64_t)ARENA_LEAST_PER_METHOD;
		wanted = needs->n_insns * (uint64_t)ARENA_CODE_PER_INSN + needs->n_methods * (uint64_t)ARENA_CODE_PER_METHOD;
		wanted = head + MAX(wanted, (uint64_t)ARENA_CODE_MIN);
	}
	if (plan_page_up(least) > n_free)
		return 0;
	return MIN(plan_page_up(wanted), n_free & ~(uint64_t)(ARENA_PAGE - 1));
}

static uint64_t plan_cells(const struct arena_needs *needs)
{
	return MAX(needs->n_methods * (uint64_t)ARENA_CELLS_PER_METHOD, (uint64_t)ARENA_CELLS_MIN) + needs->n_profile;
}

int arena_plan(struct tier_layout *ret, const struct arena_needs *needs)
{
	struct tier_layout layout = {
		.n_methods = needs->n_methods, .n_imports = needs->n_imports, .n_patchpoints = needs->n_patchpoints,
		.n_rodata = needs->n_rodata, .n_data = needs->n_data, .n_bss = needs->n_bss,
	};
	uint64_t rodata, cells, patchpoints, visits, hits, data, bss, taken = 0, offset = 0, size[_TIER_SEGMENT_N];

	if (needs->n_rodata > TIER_SPAN_MAX || needs->n_data > TIER_SPAN_MAX || needs->n_bss > TIER_SPAN_MAX
	    || needs->n_code > TIER_SPAN_MAX || needs->n_profile > TIER_SPAN_MAX)
		return ARENA_E_TOO_LARGE;

	rodata = align_up(TIER_RECORDS_OFFSET + needs->n_methods * sizeof(struct tier_record), MAX(needs->align_rodata, 8u));
	data = align_up(offsetof(struct tier_private, imports) + needs->n_imports * sizeof(uint64_t), MAX(needs->align_data, 8u));
	bss = align_up(data + needs->n_data, MAX(needs->align_bss, 8u));
	cells = align_up(rodata + needs->n_rodata, 64);
	patchpoints = align_up(cells + needs->n_slots, 64);
	visits = align_up(plan_cells(needs) * sizeof(uint32_t), 64);
	hits = align_up(visits + sizeof(struct tier_visits), 64);
	size[TIER_SEGMENT_RECORDS] = plan_page_up(patchpoints + needs->n_patchpoints * sizeof(struct tier_patchpoint));
	size[TIER_SEGMENT_COUNTERS] = plan_page_up(hits + needs->n_patchpoints * sizeof(uint32_t));
	size[TIER_SEGMENT_PRIVATE] = plan_page_up(bss + needs->n_bss);
	for (int i = TIER_SEGMENT_RECORDS; i < _TIER_SEGMENT_N; i++)
		taken += size[i] + ARENA_PAGE;
	taken += 2 * ARENA_PAGE;	/* code's guard, and strictly less than 2 GiB */
	if (taken >= TIER_SPAN_MAX)
		return ARENA_E_TOO_LARGE;
	size[TIER_SEGMENT_CODE] = plan_code(needs, TIER_SPAN_MAX - taken);
	if (!size[TIER_SEGMENT_CODE])
		return ARENA_E_TOO_LARGE;

	for (int i = 0; i < _TIER_SEGMENT_N; i++) {
		layout.segment[i].offset = offset;
		layout.segment[i].size = size[i];
		offset += size[i] + ARENA_PAGE;
	}
	layout.size = offset;
	layout.n_cells = plan_cells(needs);
	layout.visits = layout.segment[TIER_SEGMENT_COUNTERS].offset + visits;
	layout.rodata = layout.segment[TIER_SEGMENT_RECORDS].offset + rodata;
	layout.slots = layout.rodata + needs->slots;
	layout.n_slots = needs->n_slots;
	layout.call_cells = layout.segment[TIER_SEGMENT_RECORDS].offset + cells;
	layout.patchpoints = layout.segment[TIER_SEGMENT_RECORDS].offset + patchpoints;
	layout.hits = layout.segment[TIER_SEGMENT_COUNTERS].offset + hits;
	layout.data = layout.segment[TIER_SEGMENT_PRIVATE].offset + data;
	layout.bss = layout.segment[TIER_SEGMENT_PRIVATE].offset + bss;
	*ret = layout;
	return 0;
}

/* -- Files --- */
static const char *const file_names[] = { "tier:code", "tier:records", "tier:counters", "tier:private" };
static_assert(ARRAY_SIZE(file_names) == _TIER_SEGMENT_N, "name every segment");

/* Says about execution what the segment needs. Kernels before 6.3 do not know the words, and vm.memfd_noexec=2 forbids
 * the one for code, which matters for execve() but not for mapping: then nothing is said. */
static int file_create(enum tier_segment segment)
{
	unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd;

	fd = memfd_create(file_names[segment], flags | (segment == TIER_SEGMENT_CODE ? MFD_EXEC : MFD_NOEXEC_SEAL));
	if (fd < 0 && (errno == EINVAL || errno == EACCES))
		fd = memfd_create(file_names[segment], flags);
	return fd;
}

/* The client's description and the alias of a file that is there */
static int file_open(struct arena_file *file, enum tier_segment segment, size_t n)
{
	char path[64];
	void *p;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", file->fd);
	file->client_fd = open(path, (segment == TIER_SEGMENT_COUNTERS ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	if (file->client_fd < 0)
		return error_origin(-errno);
	p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, file->fd, 0);
	if (p == MAP_FAILED)
		return error_origin(-errno);
	file->alias = p;
	file->n = n;
	return 0;
}

static int file_init(struct arena_file *file, enum tier_segment segment, size_t n)
{
	file->fd = file_create(segment);
	if (file->fd < 0)
		return error_origin(-errno);
	if (fchmod(file->fd, 0600) < 0 || ftruncate(file->fd, n) < 0 || fcntl(file->fd, F_ADD_SEALS, ARENA_SEALS) < 0)
		return error_origin(-errno);
	return error_fold(file_open(file, segment, n));
}

static void file_deinit(struct arena_file *file)
{
	if (file->alias)
		munmap(file->alias, file->n);
	close_fd(file->client_fd);
	close_fd(file->fd);
}

/* -- Arenas --- */
/* The daemon's alias of an offset from the span's base that lies in @segment */
static uint8_t *arena_at(struct arena *arena, enum tier_segment segment, uint64_t offset)
{
	return arena->files[segment].alias + (offset - arena->layout.segment[segment].offset);
}

static void arena_fill_records(struct arena *arena, uint64_t module)
{
	const struct tier_layout *layout = &arena->layout;
	struct tier_records_header header = {
		.magic = TIER_RECORDS_MAGIC, .version = TIER_RECORDS_VERSION, .record_size = sizeof(struct tier_record),
		.module = module, .layout = *layout, .code_used = plan_head(layout->n_methods),
	};

	memcpy(arena->files[TIER_SEGMENT_RECORDS].alias, &header, sizeof(header));
	for (uint32_t i = 0; i < layout->n_methods; i++)
		*arena_record(arena, i) = (struct tier_record){
			.state = tier_state_make(0, TIER_REASON_NONE, TIER_LEVEL_NONE, TIER_STAGE_COLD),
			.precode = tier_layout_thunk(layout, TIER_THUNK_PRESTUB),
			.entry = tier_layout_precode(layout, i),
			.funcptr = tier_layout_precode(layout, i),
			.index = i,
		};
}

int arena_new(struct arena **ret, const struct tier_layout *layout, uint64_t module)
{
	_cleanup_(arena_freep) struct arena *arena = NULL;
	int r;

	arena = malloc(sizeof(*arena));
	if (!arena)
		return error_origin(-ENOMEM);
	*arena = (struct arena)ARENA_NULL;
	arena->layout = *layout;
	for (int i = 0; i < _TIER_SEGMENT_N; i++) {
		r = file_init(&arena->files[i], i, layout->segment[i].size);
		if (r)
			return error_fold(r);
	}
	arena_fill_records(arena, module);
	*ret = TAKE_PTR(arena);
	return 0;
}

/* -- A predecessor's --- */
static bool adopt_file(const struct arena_file *file, enum tier_segment segment, size_t n, struct refusal *refusal)
{
	const int seals = fcntl(file->fd, F_GET_SEALS), mode = fcntl(file->fd, F_GETFL);
	const char *name = file_names[segment];
	struct stat status;

	if (file->fd < 0 || fstat(file->fd, &status) < 0)
		refuse(refusal, "%s is missing", name);
	else if (!S_ISREG(status.st_mode) || (uint64_t)status.st_size != n)
		refuse(refusal, "%s has %lld bytes instead of %zu", name, (long long)status.st_size, n);
	else if (seals < 0 || (seals & ~F_SEAL_EXEC) != ARENA_SEALS)
		refuse(refusal, "%s is not sealed as it should be", name);
	else if ((mode & O_ACCMODE) != O_RDWR)
		refuse(refusal, "%s cannot be written to", name);
	else
		return true;
	return false;
}

static bool adopt_header(const struct arena *arena, uint64_t module, struct refusal *refusal)
{
	const struct tier_records_header *header = (const void *)arena->files[TIER_SEGMENT_RECORDS].alias;
	const struct tier_layout *layout = &arena->layout;

	if (header->magic != TIER_RECORDS_MAGIC)
		refuse(refusal, "tier:records holds no method records");
	else if (header->version != TIER_RECORDS_VERSION || header->record_size != sizeof(struct tier_record))
		refuse(refusal, "its method records have format %u, of %u bytes each; this daemon's have %u, of %zu", header->version,
		       header->record_size, TIER_RECORDS_VERSION, sizeof(struct tier_record));
	else if (header->module != module)
		refuse(refusal, "the method records are module %llu's", (unsigned long long)header->module);
	else if (memcmp(&header->layout, layout, sizeof(*layout)))
		refuse(refusal, "its method records were laid out otherwise than the ledger says");
	else if (header->code_used < plan_head(layout->n_methods) || header->code_used > layout->segment[TIER_SEGMENT_CODE].size)
		refuse(refusal, "it says that %llu bytes of %llu of the code segment are used", (unsigned long long)header->code_used,
		       (unsigned long long)layout->segment[TIER_SEGMENT_CODE].size);
	else
		return true;
	return false;
}

int arena_adopt(struct arena **ret, const struct tier_layout *layout, uint64_t module, int fds[_TIER_SEGMENT_N],
		struct refusal *refusal)
{
	_cleanup_(arena_freep) struct arena *arena = malloc(sizeof(*arena));
	int r;

	if (!arena) {
		for (int i = 0; i < _TIER_SEGMENT_N; i++)
			fds[i] = close_fd(fds[i]);
		refuse(refusal, "out of memory");
		return error_origin(-ENOMEM);
	}
	*arena = (struct arena)ARENA_NULL;
	arena->layout = *layout;
	for (int i = 0; i < _TIER_SEGMENT_N; i++)
		arena->files[i].fd = TAKE_FD(fds[i]);
	for (int i = 0; i < _TIER_SEGMENT_N; i++) {
		if (!adopt_file(&arena->files[i], i, layout->segment[i].size, refusal))
			return -EBADMSG;
		r = file_open(&arena->files[i], i, layout->segment[i].size);
		if (r) {
			refuse(refusal, "%s cannot be mapped: %s", file_names[i], strerrordesc_np(-r));
			return error_fold(r);
		}
	}
	if (!adopt_header(arena, module, refusal))
		return -EBADMSG;
	*ret = TAKE_PTR(arena);
	return 0;
}

struct arena *arena_free(struct arena *arena)
{
	if (!arena)
		return NULL;
	for (int i = 0; i < _TIER_SEGMENT_N; i++)
		file_deinit(&arena->files[i]);
	free(arena);
	return NULL;
}

const struct tier_layout *arena_layout(const struct arena *arena)
{
	return &arena->layout;
}

struct tier_records_header *arena_header(struct arena *arena)
{
	return (struct tier_records_header *)arena->files[TIER_SEGMENT_RECORDS].alias;
}

struct tier_record *arena_record(struct arena *arena, uint32_t method)
{
	return (struct tier_record *)(arena->files[TIER_SEGMENT_RECORDS].alias + TIER_RECORDS_OFFSET) + method;
}

uint32_t *arena_counters(struct arena *arena)
{
	return (uint32_t *)arena->files[TIER_SEGMENT_COUNTERS].alias;
}

uint8_t *arena_head(struct arena *arena)
{
	return arena->files[TIER_SEGMENT_CODE].alias;
}

uint8_t *arena_rodata(struct arena *arena)
{
	return arena_at(arena, TIER_SEGMENT_RECORDS, arena->layout.rodata);
}

uint8_t *arena_call_cells(struct arena *arena)
{
	return arena_at(arena, TIER_SEGMENT_RECORDS, arena->layout.call_cells);
}

struct tier_patchpoint *arena_patchpoint(struct arena *arena, uint32_t patchpoint)
{
	return (struct tier_patchpoint *)arena_at(arena, TIER_SEGMENT_RECORDS, arena->layout.patchpoints) + patchpoint;
}

struct tier_visits *arena_visits(struct arena *arena)
{
	return (struct tier_visits *)arena_at(arena, TIER_SEGMENT_COUNTERS, arena->layout.visits);
}

uint32_t arena_hits(struct arena *arena, uint32_t patchpoint)
{
	const uint32_t *hits = (const uint32_t *)arena_at(arena, TIER_SEGMENT_COUNTERS, arena->layout.hits);

	return __atomic_load_n(&hits[patchpoint], __ATOMIC_RELAXED);
}

void *arena_alias(struct arena *arena, uint64_t address, size_t n)
{
	static const enum tier_segment segments[] = { TIER_SEGMENT_CODE, TIER_SEGMENT_RECORDS };

	for (unsigned int i = 0; i < ARRAY_SIZE(segments); i++) {
		const uint64_t at = address - tier_layout_segment(&arena->layout, segments[i]);
		const uint64_t size = arena->layout.segment[segments[i]].size;

		if (at < size && n <= size - at)
			return arena->files[segments[i]].alias + at;
	}
	return NULL;
}

uint8_t *arena_data(struct arena *arena)
{
	return arena_at(arena, TIER_SEGMENT_PRIVATE, arena->layout.data);
}

int arena_client_fd(const struct arena *arena, enum tier_segment segment)
{
	return arena->files[segment].client_fd;
}

int arena_own_fd(const struct arena *arena, enum tier_segment segment)
{
	return arena->files[segment].fd;
}

/* -- Code memory --- */
static uint64_t *code_used(const struct arena *arena)
{
	return &((struct tier_records_header *)arena->files[TIER_SEGMENT_RECORDS].alias)->code_used;
}

int arena_reserve(struct arena *arena, size_t n_max, size_t align, struct code_span *ret)
{
	uint64_t offset = align_up(arena_code_used(arena), align);
	uint64_t size = arena->layout.segment[TIER_SEGMENT_CODE].size;

	assert(!arena->is_reserved);
	assert(is_power_of_two(align) && align >= 16 && align <= ARENA_PAGE);
	if (offset > size || n_max > size - offset)
		return ARENA_E_FULL;
	arena->is_reserved = true;
	*ret = (struct code_span){
		.address = tier_layout_segment(&arena->layout, TIER_SEGMENT_CODE) + offset,
		.write = arena->files[TIER_SEGMENT_CODE].alias + offset,
		.n_max = n_max,
	};
	return 0;
}

/* The bytes become somebody's to execute only by the atomic store of their address into P or E, which orders them. A daemon that
 * dies before that has used up some room, no more: the mark is up before anything can lead there. */
void arena_publish(struct arena *arena, const struct code_span *span, size_t n)
{
	assert(arena->is_reserved && n <= span->n_max);
	__atomic_store_n(code_used(arena), span->address - tier_layout_segment(&arena->layout, TIER_SEGMENT_CODE) + n, __ATOMIC_RELEASE);
	arena->is_reserved = false;
}

void arena_abort(struct arena *arena, const struct code_span *span)
{
	assert(arena->is_reserved && span->write >= arena->files[TIER_SEGMENT_CODE].alias + arena_code_used(arena));
	arena->is_reserved = false;
}

uint64_t arena_code_used(const struct arena *arena)
{
	return *code_used(arena);
}

void arena_code_resume(struct arena *arena, uint64_t n_used)
{
	assert(n_used >= plan_head(arena->layout.n_methods) && n_used <= arena->layout.segment[TIER_SEGMENT_CODE].size);
	*code_used(arena) = n_used;
}
