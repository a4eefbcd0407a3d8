/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The fake daemon's memory: real memfds, in which machine code is written by hand
 *
 * Thunks, precodes, call-counting stubs and methods as the daemon makes them. The probe page's sites are not nops: they
 * write down who called. What tests and forks look at lies in memory that forks share. */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "tier/tier.h"
#include "tier/wire.h"

#define FAKE_SECOND 1000000000ull
#define FAKE_MODULES 3u
#define FAKE_CONNS 160u
#define FAKE_THRESHOLD 5u
#define FAKE_PAGE 4096u

/* What goes wrong with the answer to requests of one type */
enum twist {
	TWIST_NONE,
	TWIST_HOLD,		/* answered when the twist is lifted */
	TWIST_SILENT,		/* never answered */
	TWIST_REFUSE,		/* ERROR CODE_FULL "no room for you" */
	TWIST_QUOTA,		/* ERROR QUOTA */
	TWIST_LIE,		/* DONE, but nothing is done */
	TWIST_GARBAGE, TWIST_SHORT, TWIST_LONG, TWIST_TYPE, TWIST_FUTURE, TWIST_VERSION,
	TWIST_FEW_FDS, TWIST_SMALL_FILE, TWIST_PIPE, TWIST_LAYOUT, TWIST_OTHER_RECORDS,
	TWIST_PATCHPOINTS, TWIST_HITS,	/* they lie where other things are */
	TWIST_UNSETTLED,	/* a method that there is not */
	TWIST_LAST_WORD,	/* ERROR with serial 0, then hangs up */
	TWIST_HANGUP,
	TWIST_DIE,		/* the daemon dies, once, and its successor is there at once */
};

struct fake_module {
	struct wire_module info;
	int fds[_TIER_SEGMENT_N];	/* as clients get them */
	uint8_t *alias[_TIER_SEGMENT_N];
	uint32_t n_used;		/* of the code segment */
	uint64_t n_versions;
};

struct fake_looks {			/* the answers of one page of everything; the second page is what a cursor gets */
	struct wire_versions versions;
	struct wire_names names;
	struct wire_insns insns;
	struct wire_source source;
};

struct fake_session {
	uint64_t token[2], nonce;
	uint32_t n_lanes;
	int32_t n_held[FAKE_MODULES];
};

struct fake_conn {
	int fd;
	uint32_t session;		/* 1 + index; 0: no HELLO yet */
	bool is_holding;
	struct wire_header held;	/* the request that is held back */
	char held_body[2048];
	int held_fd;
	uint64_t events_serial, events_from;
	uint32_t lane;			/* enum wire_lane */
};

#define FAKE_SESSIONS 512u
#define FAKE_EVENTS 600u

/* Lies in memory that forks share. */
struct fake {
	struct sockaddr_un address;
	char folder[64];
	pthread_t thread;
	pthread_mutex_t lock;
	int listen_fd, wake_fd, probe_fd;
	bool is_stopping;

	/* told by tests */
	enum twist twist;
	enum wire_type twist_type;
	uint32_t twist_session;		/* only this one (1 + index); 0: all */
	uint32_t twist_method;		/* only about this one (1 + index), of requests with a method; 0: all */
	bool is_kernel, has_no_page;
	uint32_t more_sites;		/* that the kernel path has, beside THRESHOLD and HELLO */
	uint32_t delay_replies_us;

	struct fake_module modules[FAKE_MODULES];
	struct fake_session sessions[FAKE_SESSIONS];
	struct fake_conn conns[FAKE_CONNS];
	uint32_t n_conns;
	uint32_t pending;
	bool is_promoting;		/* a bell makes its method final */
	uint64_t closure;		/* SETTLED: the methods of module 0 that count, whichever is asked for: a bit each */
	bool is_unnamed[FAKE_MODULES];
	bool is_gone[FAKE_MODULES];	/* this daemon does not know it */
	struct tier_event events[FAKE_EVENTS];
	uint32_t n_events, n_forgotten, n_hidden;	/* events 1..n_forgotten are a gap, those up to n_hidden others' */
	struct fake_looks looks[2];

	/* seen by the server */
	uint32_t n_sessions, n_live, n_requests[64], n_held;
	struct wire_bell bell;
	uint32_t n_bells;
	struct wire_load load;
	struct wire_rejit rejit;
	struct wire_instantiate instantiate;
	struct wire_slot slot;
	struct wire_osr osr;
	uint32_t n_osr;
	uint32_t n_freezes;		/* of module 0 */
	uint32_t n_slots_done;
	uint64_t ticket;		/* of the last SLOT_DONE */
	char object[64];
	long n_object, object_seals;

	/* written by the probe page: hits, then the last three arguments */
	struct { uint64_t n, a, b, c; } hits[_TIER_PROBE_N];
};

static inline struct fake *fake_of(void **state) { return *state; }
static inline uint32_t fake_load(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }

/* Until *p is at least n: the test fails after ten seconds. */
static inline void fake_expect(const uint32_t *p, uint32_t n)
{
	for (int i = 0; i < 100000 && fake_load(p) < n; i++)
		usleep(100);
	assert_true(fake_load(p) >= n);
}

/* -- Machine code --- */
static inline uint8_t *put(uint8_t *at, unsigned int n, ...)
{
	va_list list;

	va_start(list, n);
	while (n--)
		*at++ = va_arg(list, int);
	va_end(list);
	return at;
}
static inline uint8_t *put_32(uint8_t *at, uint32_t value) { memcpy(at, &value, 4); return at + 4; }
static inline uint8_t *put_64(uint8_t *at, uint64_t value) { memcpy(at, &value, 8); return at + 8; }
/* disp32 from the end of the instruction, which ends with it; @from is where clients see @at */
static inline uint8_t *put_rip(uint8_t *at, uint64_t from, uint64_t to) { return put_32(at, to - (from + 4)); }

static inline int fake_file(uint64_t n, uint8_t **ret_alias)
{
	int fd = memfd_create("fake", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert(fd >= 0 && ftruncate(fd, n) == 0);
	*ret_alias = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert(*ret_alias != MAP_FAILED);
	return fd;
}

static inline int fake_reopen(int fd)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* Records arguments where forks can see them. */
static inline void fake_make_probes(struct fake *fake, uint32_t version)
{
	uint8_t *page;
	int fd = fake_file(FAKE_PAGE, &page);

	for (int i = 0; i < _TIER_PROBE_N; i++) {
		uint8_t *at = page + TIER_PROBE_OFFSET(i);

		at = put(at, 5, 0x0f, 0x1f, 0x44, 0x00, 0x00);				/* nop5 */
		at = put_64(put(at, 2, 0x48, 0xb8), (uintptr_t)&fake->hits[i]);		/* movabs rax, hits */
		at = put(at, 4, 0x48, 0x89, 0x78, 0x08);				/* mov [rax+8], rdi */
		at = put(at, 4, 0x48, 0x89, 0x70, 0x10);				/* mov [rax+16], rsi */
		at = put(at, 4, 0x48, 0x89, 0x50, 0x18);				/* mov [rax+24], rdx */
		put(at, 5, 0xf0, 0x48, 0xff, 0x00, 0xc3);				/* lock inc qword [rax]; ret */
	}
	*(struct tier_probe_header *)(page + TIER_PROBE_HEADER_OFFSET) = (struct tier_probe_header){
		.magic = TIER_PROBE_MAGIC, .version = version, .n_slots = TIER_PROBE_SLOTS,
	};
	munmap(page, FAKE_PAGE);
	fake->probe_fd = fake_reopen(fd);
	close(fd);
}

static inline struct tier_record *fake_record(struct fake_module *module, uint32_t method)
{
	return (struct tier_record *)(module->alias[TIER_SEGMENT_RECORDS] + TIER_RECORDS_OFFSET) + method;
}
static inline uint32_t *fake_cell(struct fake_module *module, uint32_t cell)
{
	return (uint32_t *)module->alias[TIER_SEGMENT_COUNTERS] + cell;
}

/* One atomic store, and whoever waits wakes. */
static inline void fake_set_state(struct fake_module *module, uint32_t method, unsigned int stage, unsigned int tier,
				  unsigned int reason)
{
	struct tier_record *record = fake_record(module, method);
	uint64_t state = tier_state_make(tier_state_generation(record->state) + 1, reason, tier, stage);

	__atomic_store_n(&record->state, state, __ATOMIC_RELEASE);
	syscall(SYS_futex, &record->state, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

/* Methods that have vtable slots in "demo", by the number of the slot; one word among them is none. */
#define FAKE_SLOTS 4u
static const int fake_slots[FAKE_SLOTS] = { 4, 6, -1, 4 };
static inline bool fake_is_backpatchable(uint32_t method) { return method == 4 || method == 6; }
/* What the slot's call cell holds */
static inline uint64_t *fake_call_cell(struct fake_module *module, uint32_t slot)
{
	const struct tier_layout *layout = &module->info.layout;

	return (uint64_t *)(module->alias[TIER_SEGMENT_RECORDS] + layout->call_cells
			    - layout->segment[TIER_SEGMENT_RECORDS].offset) + slot;
}
static inline struct tier_visits *fake_visits(struct fake_module *module)
{
	const struct tier_layout *layout = &module->info.layout;

	return (struct tier_visits *)(module->alias[TIER_SEGMENT_COUNTERS] + layout->visits
				      - layout->segment[TIER_SEGMENT_COUNTERS].offset);
}

/* Every patchpoint is method 7's. */
#define FAKE_PATCHPOINTS 3u
#define FAKE_OSR_LIMIT 3u
#define FAKE_OSR_BUMP 100u
static inline struct tier_patchpoint *fake_patchpoint(struct fake_module *module, uint32_t number)
{
	const struct tier_layout *layout = &module->info.layout;

	return (struct tier_patchpoint *)(module->alias[TIER_SEGMENT_RECORDS] + layout->patchpoints
					  - layout->segment[TIER_SEGMENT_RECORDS].offset) + number;
}
static inline uint32_t *fake_hits(struct fake_module *module, uint32_t number)
{
	const struct tier_layout *layout = &module->info.layout;

	return (uint32_t *)(module->alias[TIER_SEGMENT_COUNTERS] + layout->hits
			    - layout->segment[TIER_SEGMENT_COUNTERS].offset) + number;
}

/* Methods by number: 1 and 3 call imports 0 and 1, 5 calls method 0 through E, others mix their five arguments. */
static inline uint64_t fake_mix(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
	return a + 2 * b + 4 * c + 8 * d + 16 * e;
}

static inline uint8_t *fake_body(const struct tier_layout *layout, uint32_t method, uint8_t *at, uint64_t here)
{
	uint8_t *const start = at;

	if (method == 1 || method == 3 || method == 5) {
		uint64_t cell = method == 5 ? tier_layout_entry(layout, 0) : tier_layout_import(layout, method / 2);

		at = put(at, 4, 0x48, 0x83, 0xec, 0x08);				/* sub rsp, 8 */
		at = put(at, 2, 0xff, 0x15);						/* call [rip -> cell] */
		at = put_rip(at, here + (at - start), cell);
		return put(at, 5, 0x48, 0x83, 0xc4, 0x08, 0xc3);			/* add rsp, 8; ret */
	}
	at = put(at, 4, 0x48, 0x8d, 0x04, 0x77);					/* lea rax, [rdi+2*rsi] */
	at = put(at, 4, 0x48, 0x8d, 0x04, 0x90);					/* lea rax, [rax+4*rdx] */
	at = put(at, 4, 0x48, 0x8d, 0x04, 0xc8);					/* lea rax, [rax+8*rcx] */
	at = put(at, 4, 0x49, 0xc1, 0xe0, 0x04);					/* shl r8, 4 */
	return put(at, 4, 0x4c, 0x01, 0xc0, 0xc3);					/* add rax, r8; ret */
}

/* The same bytes as daemon/jit/stubs.c emits. */
static inline void fake_stub(struct fake_module *module, uint32_t method, uint8_t *at, uint64_t here, uint64_t code)
{
	const struct tier_layout *layout = &module->info.layout;
	const struct tier_stub_data data = { .version = module->n_versions, .code = code };
	uint8_t *const start = at;

#define HERE (here + (at - start))
	at = put(at, 3, 0xf0, 0xff, 0x0d);						/* lock dec [rip -> cell] */
	at = put_rip(at, HERE, tier_layout_cell(layout, method));
	at = put(at, 2, 0x74, 0x05);							/* je 1f */
	at = put(at, 1, 0xe9);								/* jmp code */
	at = put_rip(at, HERE, code);
	at = put(at, 3, 0x4c, 0x8d, 0x1d);						/* 1: lea r11, record */
	at = put_rip(at, HERE, tier_layout_record(layout, method));
	at = put(at, 3, 0x4c, 0x8d, 0x15);						/* lea r10, data */
	at = put_rip(at, HERE, here + 48);
	at = put(at, 1, 0xe9);								/* jmp thunk */
	put_rip(at, HERE, tier_layout_thunk(layout, TIER_THUNK_THRESHOLD));
	memcpy(start + 48, &data, sizeof(data));
#undef HERE
}

static inline uint64_t fake_prestub(const struct fake_module *module)
{
	return tier_layout_thunk(&module->info.layout, TIER_THUNK_PRESTUB);
}

/* P, in the record and as the precode has it */
static inline void fake_set_precode(struct fake_module *module, uint32_t method, uint64_t precode)
{
	const struct tier_layout *layout = &module->info.layout;
	int32_t *jump = (int32_t *)(module->alias[TIER_SEGMENT_CODE] + TIER_PRECODES_OFFSET + method * TIER_PRECODE_SIZE
				    + TIER_PRECODE_JUMP);

	__atomic_store_n(&fake_record(module, method)->precode, precode, __ATOMIC_RELEASE);
	__atomic_store_n(jump, tier_layout_precode_jump(layout, method, precode), __ATOMIC_RELEASE);
}

/* E and what follows it, as --backpatch=lazy has it */
static inline void fake_set_entry(struct fake_module *module, uint32_t method, uint64_t entry)
{
	struct tier_record *record = fake_record(module, method);

	__atomic_store_n(&record->entry, entry, __ATOMIC_RELEASE);
	if (record->flags & TIER_RECORD_BACKPATCHABLE)
		__atomic_store_n(&record->funcptr, entry, __ATOMIC_RELEASE);
}

/* Publishes a version as the daemon does: the code first, the state word last. */
static inline void fake_publish(struct fake_module *module, uint32_t method, unsigned int stage)
{
	struct tier_record *record = fake_record(module, method);
	uint64_t here = tier_layout_segment(&module->info.layout, TIER_SEGMENT_CODE) + module->n_used;
	uint8_t *at = module->alias[TIER_SEGMENT_CODE] + module->n_used;

	module->n_used += 128;
	module->n_versions++;
	fake_body(&module->info.layout, method, at, here);
	record->version = module->n_versions;
	record->threshold = FAKE_THRESHOLD;
	record->cell = method;
	*fake_cell(module, method) = FAKE_THRESHOLD;
	if (stage == TIER_STAGE_COUNTING)
		fake_stub(module, method, at + 64, here + 64, here);
	__atomic_store_n(&record->code, here, __ATOMIC_RELEASE);
	if (stage == TIER_STAGE_FINAL)
		fake_set_entry(module, method, here);
	if (stage != TIER_STAGE_FINAL || !(record->flags & TIER_RECORD_BACKPATCHABLE))
		fake_set_precode(module, method, stage == TIER_STAGE_COUNTING ? here + 64 : here);
	else
		fake_set_precode(module, method, fake_prestub(module));
	fake_set_state(module, method, stage, stage == TIER_STAGE_FINAL ? TIER_LEVEL_TIER1 : TIER_LEVEL_TIER0,
		       stage == TIER_STAGE_FINAL ? TIER_REASON_PROMOTED : TIER_REASON_FIRST_CALL);
}

/* The method's body is replaced: there is no code. */
static inline void fake_reset(struct fake_module *module, uint32_t method)
{
	struct tier_record *record = fake_record(module, method);
	const struct tier_layout *layout = &module->info.layout;

	fake_set_state(module, method, TIER_STAGE_COLD, TIER_LEVEL_NONE, TIER_REASON_NONE);
	fake_set_entry(module, method, tier_layout_precode(layout, method));
	fake_set_precode(module, method, fake_prestub(module));
	__atomic_store_n(&record->code, 0, __ATOMIC_RELEASE);
}

/* -- Modules --- */
static inline void fake_write_head(struct fake_module *module)
{
	const struct tier_layout *layout = &module->info.layout;
	static const uint8_t entries[] = { 0, 8, 16 };
	const struct tier_records_header header = {
		.magic = TIER_RECORDS_MAGIC, .version = TIER_RECORDS_VERSION, .record_size = sizeof(struct tier_record),
		.module = module->info.module, .layout = *layout,
	};

	memcpy(module->alias[TIER_SEGMENT_RECORDS], &header, sizeof(header));
	for (uint32_t i = 0; i < _TIER_THUNK_N; i++) {
		uint8_t *at = put(module->alias[TIER_SEGMENT_CODE] + i * TIER_THUNK_SIZE, 2, 0xff, 0x25);

		put_rip(at, tier_layout_thunk(layout, i) + 2, tier_layout_segment(layout, TIER_SEGMENT_PRIVATE) + entries[i]);
	}
	for (uint32_t i = 0; i < layout->n_methods; i++) {
		uint64_t here = tier_layout_precode(layout, i);
		uint8_t *at = module->alias[TIER_SEGMENT_CODE] + TIER_PRECODES_OFFSET + i * TIER_PRECODE_SIZE;
		struct tier_record *record = fake_record(module, i);

		at = put(at, 4, 0x0f, 0x1f, 0x00, 0xe9);						/* nop; jmp P */
		at = put_32(at, tier_layout_precode_jump(layout, i, fake_prestub(module)));
		at = put_rip(put(at, 2, 0xff, 0x25), here + TIER_FUNCPTR_OFFSET + 2,			/* jmp [record.F] */
			     tier_layout_record(layout, i) + offsetof(struct tier_record, funcptr));
		at = put_rip(put(at, 5, 0x90, 0x90, 0x4c, 0x8d, 0x1d), here + TIER_PRECODE_PRESTUB + 3,	/* lea r11, record */
			     tier_layout_record(layout, i));
		put_rip(put(at, 1, 0xe9), here + TIER_PRECODE_PRESTUB + 8, fake_prestub(module));	/* jmp thunk */
		*record = (struct tier_record){ .index = i, .precode = fake_prestub(module), .entry = here, .funcptr = here };
		record->flags = layout->n_slots && fake_is_backpatchable(i) ? TIER_RECORD_BACKPATCHABLE : 0;
	}
	for (uint32_t i = 0; i < layout->n_patchpoints; i++)
		*fake_patchpoint(module, i) = (struct tier_patchpoint){
			.method = 7, .number = i, .limit = FAKE_OSR_LIMIT, .bump = FAKE_OSR_BUMP,
			.offset = tier_layout_patchpoint(layout, i) - tier_layout_segment(layout, TIER_SEGMENT_RECORDS),
		};
	for (uint32_t i = 0; i < layout->n_slots / 8; i++)
		*fake_call_cell(module, i) = fake_slots[i] < 0 ? 4711 : tier_layout_precode(layout, fake_slots[i]);
}

static inline void fake_make_module(struct fake *fake, uint32_t index, const char *name, uint64_t base, uint32_t n_methods,
				    uint32_t n_imports)
{
	struct fake_module *module = &fake->modules[index];
	struct tier_layout *layout = &module->info.layout;
	uint64_t offset = 0;

	*layout = (struct tier_layout){ .base = base, .n_methods = n_methods, .n_imports = n_imports, .n_cells = 1024 };
	for (int i = 0; i < _TIER_SEGMENT_N; i++) {
		layout->segment[i].offset = offset;
		layout->segment[i].size = i == TIER_SEGMENT_CODE ? 64 * FAKE_PAGE : 4 * FAKE_PAGE;
		offset += layout->segment[i].size + FAKE_PAGE;
	}
	layout->size = offset;
	layout->rodata = layout->segment[TIER_SEGMENT_RECORDS].offset + 3 * FAKE_PAGE;
	layout->visits = layout->segment[TIER_SEGMENT_COUNTERS].offset + FAKE_PAGE;
	layout->n_patchpoints = FAKE_PATCHPOINTS;
	layout->patchpoints = layout->segment[TIER_SEGMENT_RECORDS].offset + 2 * FAKE_PAGE;
	layout->hits = layout->segment[TIER_SEGMENT_COUNTERS].offset + 2 * FAKE_PAGE;
	if (index == 0) {
		layout->n_rodata = 64;
		layout->slots = layout->rodata + 8;
		layout->n_slots = FAKE_SLOTS * sizeof(uint64_t);
		layout->call_cells = layout->rodata + 64;
	}
	layout->data = layout->bss = layout->segment[TIER_SEGMENT_PRIVATE].offset + 3 * FAKE_PAGE;
	layout->n_data = 8;
	module->info.module = 100 + index;
	module->info.uid = getuid();
	snprintf(module->info.name, sizeof(module->info.name), "%s", name);
	module->n_used = 16 * FAKE_PAGE;
	for (int i = 0; i < _TIER_SEGMENT_N; i++) {
		module->fds[i] = fake_file(layout->segment[i].size, &module->alias[i]);
		if (i != TIER_SEGMENT_COUNTERS) {
			int fd = fake_reopen(module->fds[i]);

			close(module->fds[i]);
			module->fds[i] = fd;
		}
	}
	memcpy(module->alias[TIER_SEGMENT_PRIVATE] + 3 * FAKE_PAGE, "initial", 8);
	fake_write_head(module);
}

/* $TMPDIR, if that leaves room for a socket's path */
static inline const char *fake_temporary(void)
{
	const char *folder = getenv("TMPDIR");

	return folder && *folder == '/' && strlen(folder) <= 32 ? folder : "/tmp";
}
