/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A tracer with its loop and what it delivered; and a store of descriptors that outlives it */

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "trace/attach.h"
#include "trace/page.h"
#include "trace/tracer.h"
#include "util/base.h"

#define PATIENCE_MS 5000
#define KEPT_MAX 128

/* -- The store --- */
struct kept {
	struct {
		char name[32];
		int fd;
	} rows[KEPT_MAX];
	size_t n;
	bool is_broken;		/* nothing can be put */
};

static inline int kept_find(const struct kept *kept, const char *name)
{
	for (size_t i = 0; i < kept->n; i++)
		if (!strcmp(kept->rows[i].name, name))
			return i;
	return -1;
}

static inline int kept_take(void *context, const char *name)
{
	const struct kept *kept = context;
	int i = kept_find(kept, name);

	return i < 0 ? -1 : fcntl(kept->rows[i].fd, F_DUPFD_CLOEXEC, 3);
}

static inline int kept_put(void *context, const char *name, int fd)
{
	struct kept *kept = context;

	if (kept->is_broken)
		return -EPIPE;
	assert_true(kept->n < KEPT_MAX && strlen(name) < sizeof(kept->rows[0].name));
	strcpy(kept->rows[kept->n].name, name);
	kept->rows[kept->n].fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	assert_true(kept->rows[kept->n++].fd >= 0);
	return 0;
}

static inline void kept_remove(void *context, const char *name)
{
	struct kept *kept = context;

	for (int i; (i = kept_find(kept, name)) >= 0;) {	/* all of that name, as systemd does */
		attach_end(&kept->rows[i].fd, 1, false);	/* the last one of a link takes long */
		kept->rows[i] = kept->rows[--kept->n];
	}
}

static inline void kept_replace(struct kept *kept, const char *name, int fd)
{
	kept_remove(kept, name);
	if (fd >= 0) {
		kept_put(kept, name, fd);
		close(fd);
	}
}

static inline void kept_clear(struct kept *kept)
{
	while (kept->n)
		attach_end(&kept->rows[--kept->n].fd, 1, false);
}

static inline size_t kept_links(const struct kept *kept)
{
	size_t n = 0;

	for (size_t i = 0; i < kept->n; i++)
		n += !strncmp(kept->rows[i].name, "link.", 5);
	return n;
}

/* -- The tracer --- */
struct fixture {
	struct dispatch dispatch;
	struct tracer *tracer;
	struct tier_kernel_event *events;
	size_t n_events, n_max;
	uint8_t *page;		/* as a client maps it */
	uint32_t n_nested;	/* records that a drain inside the callback delivered */
	bool is_work;		/* what the callback says of every record */
};

static inline bool fixture_event(void *context, const struct tier_kernel_event *event)
{
	struct fixture *fixture = context;

	if (fixture->n_events == fixture->n_max) {
		fixture->n_max = fixture->n_max ? 2 * fixture->n_max : 1024;
		fixture->events = realloc(fixture->events, fixture->n_max * sizeof(*event));
		assert_non_null(fixture->events);
	}
	fixture->events[fixture->n_events++] = *event;
	fixture->n_nested += tracer_drain(fixture->tracer);
	return fixture->is_work;
}

static inline void fixture_init_with(struct fixture *fixture, const struct tracer_config *config, struct kept *kept)
{
	const struct tracer_keep keep = { .take = kept_take, .put = kept_put, .remove = kept_remove, .context = kept };
	struct tracer_config with = *config;

	with.keep = kept ? &keep : NULL;
	*fixture = (struct fixture){ 0 };
	assert_int_equal(dispatch_init(&fixture->dispatch), 0);
	assert_int_equal(tracer_new(&fixture->tracer, &fixture->dispatch, &with, fixture_event, fixture), 0);
	assert_int_equal(page_map(&fixture->page, tracer_page_fd(fixture->tracer)), 0);
}

/* What is kept stays, so for the kernel this is the same as being killed. */
static inline void fixture_deinit(struct fixture *fixture)
{
	assert_int_equal(fixture->n_nested, 0);
	page_unmap(fixture->page);
	tracer_free(fixture->tracer);
	dispatch_deinit(&fixture->dispatch);
	free(fixture->events);
}

/* Skips the test where the kernel refuses probes, with the tracer's own sentence as the reason. */
static inline void fixture_need_kernel(struct fixture *fixture)
{
	if (tracer_is_attached(fixture->tracer))
		return;
	print_message("skipped: %s\n", tracer_status(fixture->tracer));
	fixture_deinit(fixture);
	skip();
}

typedef void (*site_fn)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

static inline void hit(uint8_t *page, enum tier_probe probe, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
	((site_fn)(void *)page_site(page, probe))(a, b, c, d, e);
}

/* Turns the loop until @n records are there, or nothing has come for a long time. */
static inline void expect_events(struct fixture *fixture, size_t n)
{
	uint64_t deadline = clock_now_ns() + PATIENCE_MS * 1000000ull;

	while (fixture->n_events < n && clock_now_ns() < deadline)
		assert_int_equal(dispatch_turn(&fixture->dispatch, 100), 0);
	assert_int_equal(fixture->n_events, n);
	assert_int_equal(tracer_drain(fixture->tracer), 0);
}

/* A whole pass, in as many turns as it takes */
static inline uint64_t recover(struct fixture *fixture)
{
	uint64_t n_missed, when;

	do {
		n_missed = tracer_recover(fixture->tracer, &when);
		assert_true(!when || !n_missed);
	} while (when);
	return n_missed;
}

static inline struct tracer_stats stats_of(struct fixture *fixture)
{
	struct tracer_stats stats;

	tracer_stats(fixture->tracer, &stats);
	return stats;
}

/* -- Children --- */
static inline void child_exit(bool is_right)
{
	fflush(NULL);
	_exit(is_right ? 0 : 1);
}

static inline void expect_child(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}
