/* SPDX-License-Identifier: Apache-2.0 */
#ifdef TIER_FAULTS

#include <fcntl.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include "util/base.h"
#include "util/fault.h"

/* The counts lie in memory that processes share, and a point is one atomic addition: threads and workers may pass
 * points at the same time, and exactly one of them gets each number. */

#define ENV_SCHEDULE "TIER_FAULT"
#define ENV_FILE     "TIER_FAULT_FILE"

#define KIND_WORD(name, word, text) [FAULT_##name] = word,
static const char *const words[_FAULT_KIND_N] = {FAULT_KIND_LIST(KIND_WORD)};
#undef KIND_WORD

static struct {
	const char *schedule, *path;
	struct {
		uint64_t at;
		bool on;
	} due[_FAULT_KIND_N];    /* @on: all later ones, too */
	bool is_after;           /* points count from the first death on */
	bool is_told;            /* the counts at the end */
	struct fault_file *file; /* NULL: points do not count */
	const char *(*check)(void *context);
	void *context;
} fault;

/* -- The schedule --- */
static const char *choose_one(const char *text, size_t n)
{
	for (int kind = 0; kind < _FAULT_KIND_N; kind++) {
		const size_t n_word = strlen(words[kind]);
		char *end;

		if (n <= n_word || strncmp(text, words[kind], n_word) || text[n_word] != ':')
			continue;
		fault.due[kind].at = strtoull(text + n_word + 1, &end, 10);
		fault.due[kind].on = *end == '+';
		return fault.due[kind].at && end + fault.due[kind].on == text + n ? NULL
		                                                                  : "without a number that begins at 1";
	}
	fault.is_after = n == strlen("after") && !strncmp(text, "after", n);
	return fault.is_after ? NULL : "of no kind that there is";
}

const char *fault_choose(const char *schedule)
{
	const char *why = NULL;

	fault.schedule = schedule;
	fault.is_told = !strcmp(schedule, "count");
	for (const char *at = schedule, *end; !fault.is_told && !why && *at; at = *end ? end + 1 : end) {
		end = strchrnul(at, ',');
		why = choose_one(at, end - at);
	}
	return why;
}

const char *fault_choose_file(const char *path)
{
	fault.path = path;
	return *path ? NULL : "empty";
}

/* -- Beginning --- */
static struct fault_file *file_map(const char *path)
{
	const int flags = path ? MAP_SHARED : MAP_SHARED | MAP_ANONYMOUS;
	int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
	struct fault_file *file;

	if (path && (fd < 0 || ftruncate(fd, sizeof(*file)) < 0))
		return NULL;
	file = mmap(NULL, sizeof(*file), PROT_READ | PROT_WRITE, flags, fd, 0);
	close_fd(fd);
	if (file == MAP_FAILED)
		return NULL;
	file->magic = FAULT_FILE_MAGIC;
	return file;
}

static void tell(void)
{
	for (int kind = 0; kind < _FAULT_KIND_N; kind++)
		dprintf(STDERR_FILENO, "fault points: %s %" PRIu64 "\n", words[kind], fault.file->n[kind]);
}

void fault_begin(void)
{
	struct fault_file *file;

	if (!fault.schedule)
		return;
	setenv(ENV_SCHEDULE, fault.schedule, 1);
	if (fault.path)
		setenv(ENV_FILE, fault.path, 1);
	file = file_map(fault.path);
	if (!file) {
		dprintf(STDERR_FILENO, "tierd: --fault-file: cannot map %s\n", fault.path ? fault.path : "memory");
		_exit(2);
	}
	fault.file = file;
	if (fault.is_told)
		atexit(tell);
}

void fault_begin_child(void)
{
	const char *schedule = getenv(ENV_SCHEDULE), *path = getenv(ENV_FILE);

	if (!schedule || fault_choose(schedule))
		return;
	fault.file = file_map(path);
}

/* -- Points --- */
static bool counts(enum fault_kind kind)
{
	if (!fault.file || kind == FAULT_EXIT || !(fault.is_after || kind == FAULT_AGAIN))
		return fault.file;
	return __atomic_load_n(&fault.file->n_fired[FAULT_EXIT], __ATOMIC_RELAXED);
}

bool fault_due(enum fault_kind kind)
{
	uint64_t n;

	if (!counts(kind))
		return false;
	n = __atomic_add_fetch(&fault.file->n[kind], 1, __ATOMIC_RELAXED);
	if (n != fault.due[kind].at && !(fault.due[kind].on && n > fault.due[kind].at))
		return false;
	__atomic_add_fetch(&fault.file->n_fired[kind], 1, __ATOMIC_RELAXED);
	return true;
}

uint64_t fault_at(enum fault_kind kind) { return fault.due[kind].at; }

void fault_set(enum fault_kind kind, uint64_t n)
{
	if (!fault.file)
		return;
	fault.file->n[kind] = n;
	fault.file->n_fired[kind] = fault.due[kind].at && n >= fault.due[kind].at;
}

void fault_die(void)
{
	dprintf(STDERR_FILENO, "tierd: fault: dies at place %" PRIu64 ", %" PRIu64 " after the first death\n",
	        fault.file->n[FAULT_EXIT], fault.file->n[FAULT_AGAIN]);
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

void fault_exit(void)
{
	if (fault_due(FAULT_EXIT) || fault_due(FAULT_AGAIN))
		fault_die();
}

void fault_hook(void (**hook)(void)) { *hook = fault_exit; }

/* The sandbox allows neither a signal to itself nor a sleep; a trap and a futex it does. */
void fault_step(void)
{
	uint32_t word = 0;

	if (fault_due(FAULT_WORKER))
		__builtin_trap();
	while (fault_due(FAULT_HANG))
		for (;;)
			syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

/* Each second byte from the beginning on, so that headers, tables and code have their share */
void fault_scramble(void *bytes, uint64_t n)
{
	uint8_t *p = bytes;

	if (!fault_due(FAULT_GARBAGE))
		return;
	for (uint64_t i = 0; i < n; i += 2)
		p[i] ^= 0x5a + (i >> 1);
}

/* -- Turns --- */
void fault_watch(const char *(*check)(void *context), void *context)
{
	fault.context = context;
	fault.check = check;
	if (fault.file)
		memcpy(fault.file->n_ready, fault.file->n, sizeof(fault.file->n_ready));
}

void fault_turn(void)
{
	const char *broken;

	if (!fault.file)
		return;
	fault_exit();
	if (!fault.check)
		return;
	fault.file->n_checks++;
	broken = fault.check(fault.context);
	if (!broken)
		return;
	dprintf(STDERR_FILENO, "tierd: fault: the core is not as it should be: %s\n", broken);
	abort();
}

#endif
