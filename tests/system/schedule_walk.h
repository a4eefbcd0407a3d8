/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The fault schedule: every point of the standard scenario, each in a daemon of its own
 *
 * A first run counts the points of each kind, in the daemon and in the client's libtier. Then each of them goes wrong,
 * and what comes of it is one of these:
 *
 *   nothing to be seen    clients got all they asked for, with right results
 *   told                  a client got an error and a sentence; the next client gets all it asks for
 *   did not start         exit status 2 or 3, and a sentence
 *
 *
 * What goes wrong for good from a point on ("write:9+": the disk is full) leaves nobody a second try: errors with
 * sentences are fine then. Afterwards the daemon ends as it should, nobody is left, and its journal verifies. Between
 * any two of its turns it has checked the core's invariants itself.
 *
 * TIER_TEST_LONG=1 walks all points, otherwise a sample that is spread over them. TIER_SCHEDULE=alloc:17 walks that
 * one, TIER_SCHEDULE=alloc that kind, TIER_SCHEDULE=client.alloc that of the client; TIER_SCHEDULE_KEEP=1
 * leaves all folders behind. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include "system/schedule.h"
#include "util/base.h"
#include "util/fault.h"

#define CLIENTS_MAX 3u	   /* one after the other, until one of them has all */
#define SAMPLE UINT64_C(3) /* points of a kind */
#define PARALLEL 2u
#define SLOW_NS UINT64_C(4000000000) /* is said, for whoever wonders what waits for what */
#define END_NS UINT64_C(30000000000) /* giving probes back takes the kernel its time */
#define RUN_SECONDS 120u

enum outcome { OUTCOME_FINE, OUTCOME_TOLD, OUTCOME_NO_START, OUTCOME_NOT_REACHED, _OUTCOME_N, OUTCOME_BAD = 99 };

#define KIND_WORD(name, word, text) [FAULT_##name] = word,
static const char *const kinds[_FAULT_KIND_N] = { FAULT_KIND_LIST(KIND_WORD) };

/* A successor's points are those of its taking over, counted from its predecessor's death on. */
enum side { SIDE_DAEMON, SIDE_CLIENT, SIDE_SUCCESSOR, _SIDE_N };
static const char *const sides[_SIDE_N] = { "", "client.", "successor." };

struct point {
	enum side side;
	enum fault_kind kind;
	uint64_t n;
	bool on; /* and all later ones */
};

static struct {
	char folder[64], module[96], body[96];
	struct fault_file *counts; /* points of the scenario, by side */
	unsigned int n_tried, n_outcomes[_OUTCOME_N], n_bad, n_running;
} walk;

/* -- A run: a process with a folder, a daemon, and clients one after the other --- */
struct run {
	const struct point *point; /* NULL: nothing goes wrong */
	char name[40], schedules[_SIDE_N][64], points[_SIDE_N][112];
	char folder[96], socket[112], journal[112], cache[112], log[112];
	struct fault_file *files[_SIDE_N];
	pid_t daemon;
};

static _Noreturn void run_bad(struct run *run, const char *what)
{
	fprintf(stderr, "%s: %s; see %s\n", run->name, what, run->log);
	if (run->daemon)
		kill(run->daemon, SIGKILL);
	_exit(OUTCOME_BAD);
}

static void must_run(struct run *run, const char *command)
{
	if (system(command))
		run_bad(run, command);
}

static void run_prepare_points(struct run *run, enum side side)
{
	const struct point *point = run->point;
	int fd;

	if (side == SIDE_DAEMON && point && point->side == SIDE_SUCCESSOR) {
		int n = snprintf(run->schedules[side], sizeof(run->schedules[side]), "exit:%lu,after",
				 walk.counts[SIDE_DAEMON].n[FAULT_EXIT] / 2);

		if (point->n)
			snprintf(run->schedules[side] + n, sizeof(run->schedules[side]) - n, ",%s:%lu", kinds[point->kind],
				 point->n);
	} else if (point && point->n && point->side == side)
		snprintf(run->schedules[side], sizeof(run->schedules[side]), "%s:%lu%s", kinds[point->kind], point->n,
			 point->on ? "+" : "");
	else
		strcpy(run->schedules[side], "count");
	snprintf(run->points[side], sizeof(run->points[side]), "%s/%spoints", run->folder, sides[side]);
	fd = open(run->points[side], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, sizeof(*run->files[side])))
		run_bad(run, "cannot make the file of points");
	run->files[side] = mmap(NULL, sizeof(*run->files[side]), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
}

static void run_prepare(struct run *run, const char *cache)
{
	char command[256];

	snprintf(run->socket, sizeof(run->socket), "%s/sock", run->folder);
	snprintf(run->journal, sizeof(run->journal), "%s/journal", run->folder);
	snprintf(run->cache, sizeof(run->cache), "%s/cache", run->folder);
	snprintf(run->log, sizeof(run->log), "%s/log", run->folder);
	if (mkdir(run->folder, 0700))
		run_bad(run, "cannot make its folder");
	if (cache) {
		snprintf(command, sizeof(command), "cp -rp %s %s", cache, run->cache);
		must_run(run, command);
	}
	for (enum side side = 0; side < _SIDE_N; side++)
		run_prepare_points(run, side);
}

/* Whoever dies has a keeper, and a successor, which goes on counting. */
static bool is_kept(const struct run *run)
{
	return run->point && (run->point->kind == FAULT_EXIT || run->point->side == SIDE_SUCCESSOR);
}

static void daemon_exec(const struct run *run, int ready_fd)
{
	const char *build = getenv("TIER_BUILD");
	const bool hangs = run->point && run->point->kind == FAULT_HANG;
	const char *compile_limit = hangs ? "--compile-limit=500ms" : "--compile-limit=5s";
	char program[4096], ready[32];
	int log = open(run->log, O_WRONLY | O_CREAT | O_APPEND, 0600);

	snprintf(program, sizeof(program), "%s/faults/tierd", build ? build : "build");
	snprintf(ready, sizeof(ready), "--ready-fd=%d", ready_fd);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(log, STDERR_FILENO);
	dup2(log, STDOUT_FILENO);
	execl(program, program, is_kept(run) ? "--keep" : "--foreground", "--foreground", ready, "--socket", run->socket,
	      "--journal", run->journal, "--code-cache", run->cache, events_by_kernel() ? "--events=kernel" : "--events=socket",
	      "--call-counting-delay=1ms", "--delay-single-proc-multiplier=1", "--call-count-threshold=2", "--osr-hit-limit=1",
	      "--osr-initial-counter=100", "--osr-counter-bump=100", compile_limit,
	      hangs ? "--load-limit=500ms" : "--load-limit=5s", "--fault", run->schedules[SIDE_DAEMON], "--fault-file",
	      run->points[SIDE_DAEMON], NULL);
	_exit(127);
}

static bool log_has(const struct run *run, const char *text)
{
	char line[1200];
	FILE *log = fopen(run->log, "r");
	bool is_there = false;

	while (log && !is_there && fgets(line, sizeof(line), log))
		is_there = strstr(line, text);
	if (log)
		fclose(log);
	return is_there;
}

/* True: it serves. False: it has ended with a sentence, and with 2. */
static bool daemon_started(struct run *run)
{
	struct pollfd ready = { .events = POLLIN };
	char line[16];
	int ends[2], status;

	if (pipe(ends))
		run_bad(run, "no pipe");
	run->daemon = fork();
	if (!run->daemon) {
		close(ends[0]);
		daemon_exec(run, ends[1]);
	}
	close(ends[1]);
	ready.fd = ends[0];
	if (poll(&ready, 1, 20000) != 1)
		run_bad(run, "the daemon is not ready in time");
	if (read(ends[0], line, sizeof(line)) > 0) {
		close(ends[0]);
		return true;
	}
	close(ends[0]);
	waitpid(run->daemon, &status, 0);
	run->daemon = 0;
	if (!WIFEXITED(status) || (WEXITSTATUS(status) != 2 && WEXITSTATUS(status) != 3))
		run_bad(run, "the daemon could not start, and ended otherwise than with status 2 or 3");
	if (!log_has(run, "<3>tierd: "))
		run_bad(run, "the daemon could not start, and does not say why");
	return false;
}

static uint64_t n_fired(const struct run *run)
{
	uint64_t n = 0;

	for (enum side side = 0; side < _SIDE_N; side++)
		for (int kind = 0; kind < _FAULT_KIND_N; kind++)
			n += run->files[side]->n_fired[kind];
	return n;
}

/* Nobody serves until somebody does something about it: waiting does not help clients. */
static bool lasts(const struct point *point)
{
	return point && (point->on || (point->side == SIDE_SUCCESSOR && point->kind != FAULT_AGAIN));
}

static int client_status(struct run *run, bool is_first)
{
	struct scenario scenario = { .socket = run->socket,
				     .module = walk.module,
				     .body = walk.body,
				     .patience_ns = lasts(run->point) ? 1000000000u : 5000000000u,
				     .schedule = is_first ? run->schedules[SIDE_CLIENT] : NULL,
				     .points = run->points[SIDE_CLIENT] };
	int status, log;
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(RUN_SECONDS / 2);
		log = open(run->log, O_WRONLY | O_APPEND);
		dup2(log, STDERR_FILENO);
		dup2(log, STDOUT_FILENO);
		scenario_run(&scenario);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		run_bad(run, "a client died");
	return WEXITSTATUS(status);
}

/* Clients until one has all. One that has not must have met the fault; if that is there for good, one is enough. */
static enum outcome run_clients(struct run *run)
{
	uint64_t n_before = 0;

	for (unsigned int i = 0; i < CLIENTS_MAX; i++) {
		int status = client_status(run, !i);

		if (!status)
			return i ? OUTCOME_TOLD : OUTCOME_FINE;
		if (status != CLIENT_FAILED)
			run_bad(run, status == CLIENT_WRONG ? "a wrong result" : "an error without a sentence");
		if (i && n_fired(run) == n_before)
			run_bad(run, "an error again, and nothing more went wrong");
		if (!n_fired(run))
			run_bad(run, "an error, and nothing had gone wrong");
		n_before = n_fired(run);
		if (is_kept(run) && log_has(run, "does not start any more"))
			kill(run->daemon, SIGHUP); /* as the log asks for */
		if (run->point->on)
			return OUTCOME_TOLD;
	}
	run_bad(run, "no client got what it asked for");
}

/* Nobody of the daemon's is left: they would be this process's children now. */
static void check_nobody_is_left(struct run *run)
{
	uint64_t deadline = test_now_ns() + 5000000000u;
	pid_t pid;

	while ((pid = waitpid(-1, NULL, WNOHANG)) >= 0) {
		if (!pid)
			usleep(1000);
		if (test_now_ns() > deadline)
			run_bad(run, "the daemon is gone, and a process of it is left");
	}
}

static void daemon_end(struct run *run)
{
	const uint64_t n_before = n_fired(run);
	uint64_t deadline = test_now_ns() + END_NS;
	int status;

	kill(run->daemon, SIGTERM);
	while (!waitpid(run->daemon, &status, WNOHANG)) {
		usleep(500);
		if (test_now_ns() > deadline)
			run_bad(run, "the daemon does not end");
	}
	run->daemon = 0;
	/* killed while it ended, or so late that no successor came: there is no more to ask */
	if (is_kept(run) && (n_fired(run) != n_before || (n_before && !log_has(run, "is started again"))))
		return;
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		run_bad(run, "the daemon ended otherwise than with 0");
	if (log_has(run, "died of signal 6") || log_has(run, "died of signal 11"))
		run_bad(run, "a daemon died otherwise than on purpose");
	if (log_has(run, " is lost: it cannot be taken over"))
		run_bad(run, "a module was lost");
	if (!access(run->socket, F_OK))
		run_bad(run, "the daemon left its socket");
}

static void check_journal(struct run *run)
{
	const char *build = getenv("TIER_BUILD");
	char command[4400];

	snprintf(command, sizeof(command), "%s/tierctl journal verify %s >>%s 2>&1", build ? build : "build", run->journal,
		 run->log);
	if (access(run->journal, F_OK) || !system(command))
		return;
	if (!run->point || !run->point->on
	    || !log_has(run, "there is no journal in this folder")) /* nothing could be written at all */
		run_bad(run, "the journal does not verify");
}

static enum outcome run_all(struct run *run)
{
	enum outcome outcome;

	if (!daemon_started(run))
		return OUTCOME_NO_START;
	outcome = run_clients(run);
	daemon_end(run);
	check_nobody_is_left(run);
	check_journal(run);
	return run->point && run->point->n && !n_fired(run) ? OUTCOME_NOT_REACHED : outcome;
}

/* What a run without a fault, or only with a death, was for */
static void walk_take_counts(const struct run *run)
{
	const struct fault_file *file = run->files[SIDE_DAEMON];

	if (!run->point) {
		walk.counts[SIDE_DAEMON] = *file;
		walk.counts[SIDE_CLIENT] = *run->files[SIDE_CLIENT];
	} else if (run->point->side == SIDE_DAEMON) {
		walk.counts[SIDE_DAEMON].n[FAULT_EXIT] = file->n[FAULT_EXIT];
	} else {
		memcpy(walk.counts[SIDE_SUCCESSOR].n, file->n_ready, sizeof(file->n_ready));
		walk.counts[SIDE_SUCCESSOR].n[FAULT_EXIT] = 0; /* they are AGAIN's */
	}
}

/* In a process of its own, whose exit status is the outcome */
static _Noreturn void run_main(const char *name, const struct point *point, const char *cache)
{
	const uint64_t begin_ns = test_now_ns();
	struct run run = { .point = point };
	char command[128];
	enum outcome outcome;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	alarm(RUN_SECONDS);
	snprintf(run.name, sizeof(run.name), "%s", name);
	snprintf(run.folder, sizeof(run.folder), "%s/%s", walk.folder, name);
	run_prepare(&run, cache);
	outcome = run_all(&run);
	if (point && !point->on && test_now_ns() - begin_ns > SLOW_NS)
		fprintf(stderr, "%s: took %lu ms\n", name, (test_now_ns() - begin_ns) / 1000000);
	if (!point || !point->n)
		walk_take_counts(&run);
	if (point && point->n && !getenv("TIER_SCHEDULE_KEEP")) {
		snprintf(command, sizeof(command), "rm -rf %s", run.folder);
		must_run(&run, command);
	}
	_exit(outcome);
}

/* -- The walk --- */
static void walk_settle(int status)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) < _OUTCOME_N)
		walk.n_outcomes[WEXITSTATUS(status)]++;
	else
		walk.n_bad++;
}

static pid_t run_start(const char *name, const struct point *point, const char *cache)
{
	pid_t pid = fork();

	if (pid < 0)
		fail_msg("fork: %s", strerror(errno));
	if (!pid)
		run_main(name, point, cache);
	return pid;
}

/* The scenario without faults: fills the cache, and counts once it is full. */
static void walk_count(void)
{
	static const struct point kept[] = { { SIDE_DAEMON, FAULT_EXIT, 0, false }, { SIDE_SUCCESSOR, FAULT_AGAIN, 0, false } };
	static char cache[96];
	int status;

	for (int i = 0; i < 5; i++) {
		char folder[16];

		snprintf(folder, sizeof(folder), "count%d", i);
		waitpid(run_start(folder, i < 3 ? NULL : &kept[i - 3], i ? cache : NULL), &status, 0);
		if (status && i < 4)
			fail_msg("the scenario fails without faults; see %s/%s/log", walk.folder, folder);
		snprintf(cache, sizeof(cache), "%s/%s/cache", walk.folder, i < 2 ? folder : "count2");
	}
	print_message("points:");
	for (enum side side = 0; side < _SIDE_N; side++)
		for (int kind = 0; kind < _FAULT_KIND_N; kind++)
			if (walk.counts[side].n[kind])
				print_message(" %s%s %lu", sides[side], kinds[kind], walk.counts[side].n[kind]);
	print_message("; the core was checked %lu times\n", walk.counts[SIDE_DAEMON].n_checks);
}

static void walk_wait(unsigned int n_max)
{
	int status;

	for (; walk.n_running > n_max; walk.n_running--) {
		waitpid(-1, &status, 0);
		walk_settle(status);
	}
}

static void walk_point(const struct point *point)
{
	char cache[96], name[40];

	snprintf(name, sizeof(name), "%s%s%lu%s", sides[point->side], kinds[point->kind], point->n, point->on ? "on" : "");
	snprintf(cache, sizeof(cache), "%s/count2/cache", walk.folder);
	run_start(name, point, cache);
	walk.n_running++;
	walk.n_tried++;
	walk_wait(PARALLEL - 1);
}

/* What lasts keeps clients waiting until they give up, so of that a sixteenth has to do. And two thousand deaths that
 * each give probes back take the kernel an hour: with its events an eighth, all are walked without. */
static void walk_kind(enum side side, enum fault_kind kind, bool on)
{
	const uint64_t n = walk.counts[side].n[kind];
	const uint64_t part = on ? 16 : kind == FAULT_EXIT && events_by_kernel() ? 8 : 1;
	const uint64_t n_max = test_is_long() ? MAX(n / part, SAMPLE) : on ? 1 : SAMPLE;
	const uint64_t step = n > n_max ? n / n_max : 1;

	for (uint64_t i = on ? step : 1; i <= n; i += step)
		walk_point(&(struct point){ side, kind, i, on });
}

static void walk_begin(void)
{
	snprintf(walk.folder, sizeof(walk.folder), "%.32s/schedule-XXXXXX", temporary_folder());
	assert_non_null(mkdtemp(walk.folder));
	snprintf(walk.module, sizeof(walk.module), "%s", bpf_compile(walk.folder, "m", SCENARIO_SOURCE, "-g"));
	snprintf(walk.body, sizeof(walk.body), "%s", bpf_compile(walk.folder, "leaf", SCENARIO_BODY, "-g"));
	walk.counts = mmap(NULL, _SIDE_N * sizeof(*walk.counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(walk.counts != MAP_FAILED);
}

static void walk_end(void)
{
	char command[128];

	walk_wait(0);
	print_message("%u points tried: nothing to be seen %u, told %u, did not start %u, not reached %u, bad %u\n", walk.n_tried,
		      walk.n_outcomes[OUTCOME_FINE], walk.n_outcomes[OUTCOME_TOLD], walk.n_outcomes[OUTCOME_NO_START],
		      walk.n_outcomes[OUTCOME_NOT_REACHED], walk.n_bad);
	munmap(walk.counts, _SIDE_N * sizeof(*walk.counts));
	if (getenv("TIER_SCHEDULE_KEEP"))
		return;
	if (walk.n_bad)
		fail_msg("%u of %u points end badly; see %s", walk.n_bad, walk.n_tried, walk.folder);
	snprintf(command, sizeof(command), "rm -rf %s", walk.folder);
	assert_int_equal(system(command), 0);
}

/* "alloc:17", "client.alloc:3", "write:9+", "alloc" or "write+" */
static void walk_chosen(const char *chosen)
{
	const enum side side = !strncmp(chosen, "client.", 7)	    ? SIDE_CLIENT
			       : !strncmp(chosen, "successor.", 10) ? SIDE_SUCCESSOR
								    : SIDE_DAEMON;
	const char *word = chosen + strlen(sides[side]);
	const bool on = strchr(word, '+');
	const size_t n = strcspn(word, ":+");

	for (int kind = 0; kind < _FAULT_KIND_N; kind++) {
		if (strlen(kinds[kind]) != n || strncmp(word, kinds[kind], n))
			continue;
		if (word[n] == ':')
			walk_point(&(struct point){ side, kind, strtoull(word + n + 1, NULL, 10), on });
		else
			walk_kind(side, kind, on);
	}
}

static void walk_all(bool (*is_mine)(enum side side, enum fault_kind kind))
{
	for (enum side side = 0; side < _SIDE_N; side++)
		for (int kind = 0; kind < _FAULT_KIND_N; kind++) {
			if (!is_mine(side, kind))
				continue;
			walk_kind(side, kind, false);
			if (side != SIDE_SUCCESSOR && (kind == FAULT_ALLOC || kind == FAULT_OPEN || kind == FAULT_WRITE))
				walk_kind(side, kind, true);
		}
}

/* All kinds that @is_mine says, or what TIER_SCHEDULE chooses */
static void walk_schedule(bool (*is_mine)(enum side side, enum fault_kind kind))
{
	walk_begin();
	walk_count();
	if (getenv("TIER_SCHEDULE"))
		walk_chosen(getenv("TIER_SCHEDULE"));
	else
		walk_all(is_mine);
	walk_end();
}
