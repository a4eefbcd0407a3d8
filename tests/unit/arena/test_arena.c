/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "arena/arena.h"
#include "util/base.h"
#include "util/dispatch.h"

/* What the arena promises: a plan that holds together, descriptors that cannot be widened, code memory as a transaction.
 * What a receiver tries with a descriptor happens in a forked child of another uid, with the descriptors it inherits. */

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN (1UL << 0)
#endif

#define NOBODY 65534

static const struct arena_needs small = {
	.n_methods = 3, .n_imports = 2, .n_insns = 100, .n_rodata = 5000, .n_data = 100, .n_bss = 20000,
	.align_rodata = 64, .align_data = 4096, .align_bss = 32, .slots = 8, .n_slots = 48, .n_patchpoints = 200, .n_profile = 70000,
};

static struct window window;

static struct arena *arena_make(const struct arena_needs *needs)
{
	struct tier_layout layout;
	struct arena *arena;

	assert_int_equal(arena_plan(&layout, needs), 0);
	layout.base = window_take(&window, layout.size);
	assert_true(layout.base != 0);
	assert_int_equal(arena_new(&arena, &layout, 42), 0);
	return arena;
}

static void child_exit(bool is_right)
{
	fflush(NULL);
	_exit(is_right ? 0 : 1);
}

static void expect_child(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* -- Planning --- */
static void a_plan_puts_everything_where_it_fits_and_is_aligned(void **state)
{
	struct tier_layout layout;
	uint64_t end = 0;

	assert_int_equal(arena_plan(&layout, &small), 0);
	assert_int_equal(layout.base, 0);
	for (int i = 0; i < _TIER_SEGMENT_N; i++) {
		assert_int_equal(layout.segment[i].offset % 4096, 0);
		assert_int_equal(layout.segment[i].size % 4096, 0);
		assert_true(layout.segment[i].size > 0);
		assert_true(i == 0 || layout.segment[i].offset >= end + 4096);	/* a guard page at least */
		end = layout.segment[i].offset + layout.segment[i].size;
	}
	assert_true(layout.size >= end + 4096 && layout.size < TIER_SPAN_MAX);
	assert_true(layout.n_cells >= 8 * small.n_methods + small.n_profile);
	assert_true(tier_layout_cell(&layout, layout.n_cells)
		    <= tier_layout_segment(&layout, TIER_SEGMENT_COUNTERS) + layout.segment[TIER_SEGMENT_COUNTERS].size);
	assert_int_equal(layout.rodata % 64, 0);
	assert_int_equal(layout.data % 4096, 0);
	assert_int_equal(layout.bss % 32, 0);
	assert_true(layout.rodata >= tier_layout_record(&layout, 3));
	assert_true(layout.rodata + layout.n_rodata
		    <= layout.segment[TIER_SEGMENT_RECORDS].offset + layout.segment[TIER_SEGMENT_RECORDS].size);
	assert_true(layout.call_cells >= layout.rodata + layout.n_rodata);
	assert_true(layout.patchpoints >= layout.call_cells + layout.n_slots);
	assert_int_equal(layout.patchpoints % 64, 0);		/* two to a cache line */
	assert_int_equal(layout.n_patchpoints, 200);
	assert_true(tier_layout_patchpoint(&layout, 200)
		    <= layout.segment[TIER_SEGMENT_RECORDS].offset + layout.segment[TIER_SEGMENT_RECORDS].size);
	assert_true(layout.visits >= tier_layout_cell(&layout, layout.n_cells));
	assert_true(layout.hits >= layout.visits + sizeof(struct tier_visits) && layout.hits % 4 == 0);
	assert_true(layout.hits + 200 * sizeof(uint32_t)
		    <= layout.segment[TIER_SEGMENT_COUNTERS].offset + layout.segment[TIER_SEGMENT_COUNTERS].size);
	assert_true(layout.data >= tier_layout_import(&layout, 2));
	assert_true(layout.bss >= layout.data + layout.n_data);
	assert_true(layout.bss + layout.n_bss <= end);
	assert_true(layout.segment[TIER_SEGMENT_CODE].size >= 256 << 10);
}

static void a_module_of_nothing_has_a_plan(void **state)
{
	struct arena_needs needs = { 0 };
	struct tier_layout layout;

	assert_int_equal(arena_plan(&layout, &needs), 0);
	assert_true(layout.n_cells > 0);
	for (int i = 0; i < _TIER_SEGMENT_N; i++)
		assert_true(layout.segment[i].size > 0);
}

static void what_does_not_fit_a_span_is_too_large(void **state)
{
	struct arena_needs needs = small;
	struct tier_layout layout;

	needs.n_bss = TIER_SPAN_MAX - (1 << 20);	/* only a little is left: the code segment shrinks, as it may */
	assert_int_equal(arena_plan(&layout, &needs), 0);
	assert_true(layout.size < TIER_SPAN_MAX);
	needs.n_code = 2 << 20;				/* but not when a size was asked for */
	assert_int_equal(arena_plan(&layout, &needs), ARENA_E_TOO_LARGE);
	needs.n_code = 0;
	needs.n_bss = TIER_SPAN_MAX - 4096;
	assert_int_equal(arena_plan(&layout, &needs), ARENA_E_TOO_LARGE);
	needs.n_bss = UINT64_MAX;
	assert_int_equal(arena_plan(&layout, &needs), ARENA_E_TOO_LARGE);
	needs = small;
	needs.n_code = UINT64_MAX;
	assert_int_equal(arena_plan(&layout, &needs), ARENA_E_TOO_LARGE);
	needs = small;
	needs.n_rodata = needs.n_data = needs.n_bss = TIER_SPAN_MAX;
	assert_int_equal(arena_plan(&layout, &needs), ARENA_E_TOO_LARGE);
	needs = small;
	needs.n_profile = TIER_SPAN_MAX / sizeof(uint32_t);
	assert_int_equal(arena_plan(&layout, &needs), ARENA_E_TOO_LARGE);
	needs.n_profile = UINT64_MAX;
	assert_int_equal(arena_plan(&layout, &needs), ARENA_E_TOO_LARGE);
	needs = small;
	needs.n_patchpoints = UINT32_MAX;
	assert_int_equal(arena_plan(&layout, &needs), ARENA_E_TOO_LARGE);
	needs = small;
	needs.n_insns = 1u << 24;			/* the loader's limit still has room for its tier 0 */
	assert_int_equal(arena_plan(&layout, &needs), 0);
	assert_true(layout.size < TIER_SPAN_MAX);
	needs.n_insns = 1u << 26;
	assert_int_equal(arena_plan(&layout, &needs), ARENA_E_TOO_LARGE);
}

/* -- Content --- */
static void a_new_arena_is_cold_everywhere(void **state)
{
	struct arena *arena = arena_make(&small);
	const struct tier_layout *layout = arena_layout(arena);
	const struct tier_records_header *header =
		(void *)((uint8_t *)arena_record(arena, 0) - TIER_RECORDS_OFFSET);

	assert_true(header->magic == TIER_RECORDS_MAGIC && header->module == 42);
	assert_int_equal(header->version, TIER_RECORDS_VERSION);
	assert_int_equal(header->record_size, sizeof(struct tier_record));
	assert_memory_equal(&header->layout, layout, sizeof(*layout));
	for (uint32_t i = 0; i < small.n_methods; i++) {
		const struct tier_record *record = arena_record(arena, i);
		struct tier_answer answer = tier_record_answer(record, arena_counters(arena), layout->n_cells);

		assert_int_equal(answer.status, TIER_STATUS_COLD);
		assert_int_equal(answer.remaining, 1);
		assert_int_equal(answer.tier, TIER_LEVEL_NONE);
		assert_int_equal(answer.generation, 0);
		assert_true(record->precode == tier_layout_thunk(layout, TIER_THUNK_PRESTUB));
		assert_true(record->entry == tier_layout_precode(layout, i));
		assert_int_equal(record->index, i);
		assert_true(record->code == 0 && record->version == 0);
	}
	assert_ptr_equal(arena_alias(arena, tier_layout_patchpoint(layout, 199), sizeof(struct tier_patchpoint)),
			 arena_patchpoint(arena, 199));
	arena_free(arena);
	assert_null(arena_free(NULL));
}

static void what_the_daemon_writes_is_what_a_client_maps(void **state)
{
	struct arena *arena = arena_make(&small);
	const struct tier_layout *layout = arena_layout(arena);
	static const int protections[] = { PROT_READ | PROT_EXEC, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE };

	strcpy((char *)arena_rodata(arena), "read-only");
	strcpy((char *)arena_data(arena), "data");
	arena_head(arena)[0] = 0x90;
	arena_counters(arena)[layout->n_cells - 1] = 30;
	for (int i = 0; i < _TIER_SEGMENT_N; i++) {
		void *at = (void *)tier_layout_segment(layout, i), *p;

		p = mmap(at, layout->segment[i].size, protections[i],
			 (i == TIER_SEGMENT_PRIVATE ? MAP_PRIVATE : MAP_SHARED) | MAP_FIXED_NOREPLACE, arena_client_fd(arena, i), 0);
		assert_ptr_equal(p, at);
	}
	assert_string_equal((char *)(layout->base + layout->rodata), "read-only");
	assert_string_equal((char *)(layout->base + layout->data), "data");
	assert_int_equal(*(uint8_t *)tier_layout_thunk(layout, 0), 0x90);
	assert_int_equal(*(uint32_t *)tier_layout_cell(layout, layout->n_cells - 1), 30);
	assert_int_equal(*(uint8_t *)(layout->base + layout->bss + layout->n_bss - 1), 0);

	__atomic_fetch_sub((uint32_t *)tier_layout_cell(layout, 0), 1, __ATOMIC_SEQ_CST);	/* counters: shared */
	assert_true(arena_counters(arena)[0] == UINT32_MAX);
	*(char *)(layout->base + layout->data) = 'D';						/* private: not */
	assert_string_equal((char *)arena_data(arena), "data");
	for (int i = 0; i < _TIER_SEGMENT_N; i++)
		munmap((void *)tier_layout_segment(layout, i), layout->segment[i].size);
	arena_free(arena);
}

/* -- Descriptors --- */
static bool is_read_only(int fd, size_t n)
{
	void *p;

	if (write(fd, "x", 1) >= 0 || pwrite(fd, "x", 1, 0) >= 0)
		return false;
	if (mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED)
		return false;
	p = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);
	return p != MAP_FAILED && mprotect(p, n, PROT_READ | PROT_WRITE) < 0 && munmap(p, n) == 0;
}

/* With every open mode and the file's own name, by somebody who does not own it. */
static bool cannot_be_widened(int fd)
{
	static const int flags[] = { O_RDWR, O_WRONLY, O_RDWR | O_TRUNC };
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (open(path, flags[i] | O_CLOEXEC) >= 0)
			return false;
	return fchmod(fd, 0666) < 0 && fcntl(fd, F_SETFL, O_RDWR) == 0 && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY;
}

static void a_receiver_of_another_uid_cannot_write_through_its_descriptors(void **state)
{
	static const enum tier_segment segments[] = { TIER_SEGMENT_CODE, TIER_SEGMENT_RECORDS, TIER_SEGMENT_PRIVATE };
	struct arena *arena = arena_make(&small);
	pid_t pid;

	for (size_t i = 0; i < ARRAY_SIZE(segments); i++)
		assert_true(is_read_only(arena_client_fd(arena, segments[i]), 4096));
	if (getuid() != 0) {
		arena_free(arena);
		print_message("skipped: takes root to become somebody else\n");
		skip();
	}
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		bool is_right = !setresgid(NOBODY, NOBODY, NOBODY) && !setresuid(NOBODY, NOBODY, NOBODY);

		for (size_t i = 0; i < ARRAY_SIZE(segments); i++) {
			int fd = arena_client_fd(arena, segments[i]);

			is_right = is_right && is_read_only(fd, 4096) && cannot_be_widened(fd);
		}
		child_exit(is_right);
	}
	expect_child(pid);
	arena_free(arena);
}

static void no_descriptor_can_be_resized_or_sealed_further(void **state)
{
	struct arena *arena = arena_make(&small);

	for (int i = 0; i < _TIER_SEGMENT_N; i++) {
		int fd = arena_client_fd(arena, i), owner;
		char path[64];
		struct stat st;

		assert_int_equal(fstat(fd, &st), 0);
		assert_int_equal(st.st_mode & 07777, 0600);
		assert_int_equal(st.st_size, arena_layout(arena)->segment[i].size);
		assert_int_equal(fcntl(fd, F_GET_SEALS) & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | F_SEAL_FUTURE_WRITE),
				 F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		owner = open(path, O_RDWR | O_CLOEXEC);		/* as the daemon's own uid may */
		assert_true(owner >= 0);
		assert_int_equal(ftruncate(owner, 4096 * 4096), -1);
		assert_int_equal(ftruncate(owner, 0), -1);
		assert_int_equal(fcntl(owner, F_ADD_SEALS, F_SEAL_WRITE), -1);
		close(owner);
	}
	arena_free(arena);
}

static void counters_are_the_only_segment_that_clients_write(void **state)
{
	struct arena *arena = arena_make(&small);
	uint32_t *cells = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, arena_client_fd(arena, TIER_SEGMENT_COUNTERS), 0);

	assert_ptr_not_equal(cells, MAP_FAILED);
	cells[7] = 1234;
	assert_int_equal(arena_counters(arena)[7], 1234);
	munmap(cells, 4096);
	arena_free(arena);
}

/* -- Code memory --- */
static void code_runs_at_its_span_also_under_mdwe(void **state)
{
	static const uint8_t return_42[] = { 0xb8, 0x2a, 0x00, 0x00, 0x00, 0xc3 };	/* mov $42, %eax; ret */
	struct arena *arena = arena_make(&small);
	const struct tier_layout *layout = arena_layout(arena);
	struct code_span span;
	pid_t pid;

	assert_int_equal(arena_reserve(arena, sizeof(return_42), 16, &span), 0);
	memcpy(span.write, return_42, sizeof(return_42));
	arena_publish(arena, &span, sizeof(return_42));
	for (int mdwe = 0; mdwe < 2; mdwe++) {
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			void *at = (void *)tier_layout_segment(layout, TIER_SEGMENT_CODE);

			if (mdwe && prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) < 0)
				print_message("no PR_SET_MDWE here: %s\n", strerror(errno));
			if (mmap(at, layout->segment[TIER_SEGMENT_CODE].size, PROT_READ | PROT_EXEC,
				 MAP_SHARED | MAP_FIXED_NOREPLACE, arena_client_fd(arena, TIER_SEGMENT_CODE), 0) != at)
				child_exit(false);
			child_exit(((int (*)(void))span.address)() == 42);
		}
		expect_child(pid);
	}
	arena_free(arena);
}

static void a_reservation_starts_after_the_precodes_and_is_aligned(void **state)
{
	struct arena *arena = arena_make(&small);
	const struct tier_layout *layout = arena_layout(arena);
	struct code_span span;

	assert_int_equal(arena_reserve(arena, 100, 16, &span), 0);
	assert_true(span.address >= tier_layout_precode(layout, small.n_methods));
	assert_int_equal(span.address % 16, 0);
	assert_int_equal(span.n_max, 100);
	assert_true(span.write - arena_head(arena) == (ptrdiff_t)(span.address - tier_layout_segment(layout, TIER_SEGMENT_CODE)));
	arena_publish(arena, &span, 33);
	assert_int_equal(arena_code_used(arena), span.write - arena_head(arena) + 33);
	assert_int_equal(arena_reserve(arena, 100, 4096, &span), 0);
	assert_int_equal(span.address % 4096, 0);
	arena_abort(arena, &span);
	arena_free(arena);
}

static void an_aborted_reservation_leaves_nothing_taken(void **state)
{
	struct arena *arena = arena_make(&small);
	uint64_t used = arena_code_used(arena);
	struct code_span first, second;

	assert_int_equal(arena_reserve(arena, 1000, 64, &first), 0);
	memset(first.write, 0xcc, 1000);
	arena_abort(arena, &first);
	assert_int_equal(arena_code_used(arena), used);
	assert_int_equal(arena_reserve(arena, 1000, 64, &second), 0);
	assert_true(second.address == first.address);
	arena_abort(arena, &second);
	arena_free(arena);
}

static void a_full_segment_says_so_and_smaller_code_still_fits(void **state)
{
	struct arena_needs needs = small;
	struct arena *arena;
	struct code_span span;
	uint64_t n_total = 0, size;
	int r;

	needs.n_code = 64 << 10;
	arena = arena_make(&needs);
	size = arena_layout(arena)->segment[TIER_SEGMENT_CODE].size;
	assert_int_equal(arena_reserve(arena, SIZE_MAX, 16, &span), ARENA_E_FULL);
	while (!(r = arena_reserve(arena, 5000, 16, &span))) {
		arena_publish(arena, &span, 5000);
		n_total += 5000;
	}
	assert_int_equal(r, ARENA_E_FULL);
	assert_true(n_total + 5000 + 16 > needs.n_code - 5000);
	assert_int_equal(arena_reserve(arena, 16, 16, &span), 0);
	arena_abort(arena, &span);
	arena_code_resume(arena, size);
	assert_int_equal(arena_reserve(arena, 1, 16, &span), ARENA_E_FULL);
	assert_int_equal(arena_reserve(arena, 0, 4096, &span), 0);
	arena_abort(arena, &span);
	arena_free(arena);
}

static void a_mark_is_restored_where_it_was(void **state)
{
	struct arena *arena = arena_make(&small);
	struct code_span first, second;
	uint64_t mark;

	assert_int_equal(arena_reserve(arena, 100, 16, &first), 0);
	arena_publish(arena, &first, 100);
	mark = arena_code_used(arena);
	assert_int_equal(arena_reserve(arena, 100, 16, &second), 0);
	arena_publish(arena, &second, 100);
	arena_code_resume(arena, mark);
	assert_int_equal(arena_reserve(arena, 100, 16, &first), 0);
	assert_true(first.address == second.address);
	arena_abort(arena, &first);
	arena_free(arena);
}

/* -- Takeovers --- */
/* What a predecessor leaves behind: duplicates of its descriptors */
static void keep_fds(const struct arena *arena, int fds[_TIER_SEGMENT_N])
{
	for (int i = 0; i < _TIER_SEGMENT_N; i++)
		fds[i] = fcntl(arena_own_fd(arena, i), F_DUPFD_CLOEXEC, 0);
}

static void a_successor_gets_the_same_memory(void **state)
{
	struct arena *before = arena_make(&small), *after;
	const struct tier_layout layout = *arena_layout(before);
	struct code_span placed, lost, next;
	struct refusal refusal;
	int fds[_TIER_SEGMENT_N];

	assert_int_equal(arena_reserve(before, 100, 16, &placed), 0);
	memset(placed.write, 0xc3, 100);
	arena_publish(before, &placed, 100);
	assert_int_equal(arena_reserve(before, 100, 16, &lost), 0);	/* half written when it dies */
	arena_record(before, 2)->version = 77;
	arena_counters(before)[9] = 5;
	arena_rodata(before)[1] = 6;
	arena_data(before)[2] = 7;
	keep_fds(before, fds);
	arena_free(before);
	assert_int_equal(arena_adopt(&after, &layout, 42, fds, &refusal), 0);
	for (int i = 0; i < _TIER_SEGMENT_N; i++)
		assert_int_equal(fds[i], -1);
	assert_memory_equal(arena_layout(after), &layout, sizeof(layout));
	assert_int_equal(*(uint8_t *)arena_alias(after, placed.address + 99, 1), 0xc3);
	assert_int_equal(arena_record(after, 2)->version, 77);
	assert_int_equal(arena_counters(after)[9], 5);
	assert_int_equal(arena_rodata(after)[1], 6);
	assert_int_equal(arena_data(after)[2], 7);
	assert_int_equal(arena_reserve(after, 100, 16, &next), 0);
	assert_true(next.address == lost.address);	/* nothing led there */
	arena_publish(after, &next, 100);
	assert_int_equal(fcntl(arena_client_fd(after, TIER_SEGMENT_CODE), F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_int_equal(fcntl(arena_client_fd(after, TIER_SEGMENT_COUNTERS), F_GETFL) & O_ACCMODE, O_RDWR);
	arena_free(after);
}

static void expect_refused(const struct tier_layout *layout, uint64_t module, int fds[_TIER_SEGMENT_N], const char *text)
{
	struct refusal refusal = { "" };
	struct arena *arena;

	assert_int_equal(arena_adopt(&arena, layout, module, fds, &refusal), -EBADMSG);
	if (!strstr(refusal.text, text))
		fail_msg("'%s' does not say '%s'", refusal.text, text);
	for (int i = 0; i < _TIER_SEGMENT_N; i++)
		assert_int_equal(fds[i], -1);
}

static void a_descriptor_that_is_no_segment_of_the_module_is_refused(void **state)
{
	struct arena *arena = arena_make(&small);
	const struct tier_layout layout = *arena_layout(arena);
	const uint64_t size = layout.segment[TIER_SEGMENT_RECORDS].size;
	int fds[_TIER_SEGMENT_N];

	keep_fds(arena, fds);
	fds[TIER_SEGMENT_PRIVATE] = close_fd(fds[TIER_SEGMENT_PRIVATE]);
	expect_refused(&layout, 42, fds, "tier:private is missing");
	keep_fds(arena, fds);
	close(fds[TIER_SEGMENT_RECORDS]);
	fds[TIER_SEGMENT_RECORDS] = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(fds[TIER_SEGMENT_RECORDS], size - 1), 0);
	expect_refused(&layout, 42, fds, "tier:records has");
	keep_fds(arena, fds);
	close(fds[TIER_SEGMENT_RECORDS]);
	fds[TIER_SEGMENT_RECORDS] = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(fds[TIER_SEGMENT_RECORDS], size), 0);
	expect_refused(&layout, 42, fds, "tier:records is not sealed");
	keep_fds(arena, fds);
	close(fds[TIER_SEGMENT_CODE]);
	fds[TIER_SEGMENT_CODE] = fcntl(arena_client_fd(arena, TIER_SEGMENT_CODE), F_DUPFD_CLOEXEC, 0);
	expect_refused(&layout, 42, fds, "tier:code cannot be written to");
	keep_fds(arena, fds);
	close(fds[TIER_SEGMENT_COUNTERS]);
	fds[TIER_SEGMENT_COUNTERS] = open("/dev/null", O_RDWR | O_CLOEXEC);
	expect_refused(&layout, 42, fds, "tier:counters has");
	arena_free(arena);
}

static void records_that_say_otherwise_than_the_ledger_are_refused(void **state)
{
	struct arena *arena = arena_make(&small);
	struct tier_records_header *header = arena_header(arena);
	struct tier_layout layout = *arena_layout(arena);
	const uint64_t used = header->code_used;
	int fds[_TIER_SEGMENT_N];

	keep_fds(arena, fds);
	expect_refused(&layout, 43, fds, "are module 42's");
	header->code_used = layout.segment[TIER_SEGMENT_CODE].size + 1;
	keep_fds(arena, fds);
	expect_refused(&layout, 42, fds, "of the code segment are used");
	header->code_used = used - 1;
	keep_fds(arena, fds);
	expect_refused(&layout, 42, fds, "of the code segment are used");
	header->version++;
	keep_fds(arena, fds);
	expect_refused(&layout, 42, fds, "its method records have format");
	header->magic++;
	keep_fds(arena, fds);
	expect_refused(&layout, 42, fds, "holds no method records");
	header->magic--;
	header->version--;
	layout.n_rodata--;
	keep_fds(arena, fds);
	expect_refused(&layout, 42, fds, "laid out otherwise");
	arena_free(arena);
}

static void twenty_thousand_methods_take_milliseconds(void **state)
{
	const struct arena_needs needs = { .n_methods = 20000, .n_imports = 100, .n_insns = 2000000, .n_rodata = 1 << 20 };
	uint64_t before = clock_now_ns();
	struct arena *arena = arena_make(&needs);
	uint64_t made = clock_now_ns();

	assert_int_equal(arena_record(arena, 19999)->index, 19999);
	arena_free(arena);
	print_message("20000 methods: arena made in %.2f ms, freed in %.2f ms\n", (made - before) / 1e6,
		      (clock_now_ns() - made) / 1e6);
}

/* -- The window --- */
static void spans_are_disjoint_aligned_and_inside_the_window(void **state)
{
	struct window w;
	uint64_t end;

	window_init(&w, 0);
	assert_true(w.base >= TIER_WINDOW_LOW && w.base < TIER_WINDOW_HIGH);
	end = w.base;
	for (int i = 0; i < 8000; i++) {
		uint64_t base = window_take(&w, i % 2 ? TIER_SPAN_MAX - 4096 : 4096u * (i + 1));

		assert_true(base >= end);
		assert_int_equal(base % (2 << 20), 0);
		end = w.next;
		assert_true(end <= TIER_WINDOW_HIGH);
	}
}

static void a_used_up_window_hands_out_nothing(void **state)
{
	struct window w;

	window_init(&w, TIER_WINDOW_HIGH - (4 << 20));
	assert_true(window_take(&w, 8 << 20) == 0);
	assert_true(window_take(&w, 3 << 20) == TIER_WINDOW_HIGH - (4 << 20));
	assert_true(window_take(&w, 4096) == 0);
	window_init(&w, UINT64_MAX);
	assert_true(window_take(&w, 4096) == 0);
}

static void an_administrator_may_choose_a_base_elsewhere(void **state)
{
	struct window w;

	window_init(&w, 0x550000001000);
	assert_true(window_take(&w, 4096) == 0x550000200000);
	window_init(&w, 0x7d0000000000);
	assert_true(window_take(&w, 4096) == 0x7d0000000000);
}

static void two_windows_differ(void **state)
{
	struct window a, b;

	window_init(&a, 0);
	window_init(&b, 0);
	assert_true(a.base != b.base);
}

static int setup(void **state)
{
	window_init(&window, 0);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_plan_puts_everything_where_it_fits_and_is_aligned),
		cmocka_unit_test(a_module_of_nothing_has_a_plan),
		cmocka_unit_test(what_does_not_fit_a_span_is_too_large),
		cmocka_unit_test(a_new_arena_is_cold_everywhere),
		cmocka_unit_test(what_the_daemon_writes_is_what_a_client_maps),
		cmocka_unit_test(a_receiver_of_another_uid_cannot_write_through_its_descriptors),
		cmocka_unit_test(no_descriptor_can_be_resized_or_sealed_further),
		cmocka_unit_test(counters_are_the_only_segment_that_clients_write),
		cmocka_unit_test(code_runs_at_its_span_also_under_mdwe),
		cmocka_unit_test(a_reservation_starts_after_the_precodes_and_is_aligned),
		cmocka_unit_test(an_aborted_reservation_leaves_nothing_taken),
		cmocka_unit_test(a_full_segment_says_so_and_smaller_code_still_fits),
		cmocka_unit_test(a_mark_is_restored_where_it_was),
		cmocka_unit_test(a_successor_gets_the_same_memory),
		cmocka_unit_test(a_descriptor_that_is_no_segment_of_the_module_is_refused),
		cmocka_unit_test(records_that_say_otherwise_than_the_ledger_are_refused),
		cmocka_unit_test(twenty_thousand_methods_take_milliseconds),
		cmocka_unit_test(spans_are_disjoint_aligned_and_inside_the_window),
		cmocka_unit_test(a_used_up_window_hands_out_nothing),
		cmocka_unit_test(an_administrator_may_choose_a_base_elsewhere),
		cmocka_unit_test(two_windows_differ),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
