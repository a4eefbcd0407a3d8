/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include "trace/keep.h"
#include "trace/page.h"
#include "trace/programs.h"
#include "trace/tracer.h"
#include "util/base.h"
#include "util/error.h"
#include "util/log.h"

/* The tracer: page, programs, ring
 *
 *   page ──► programs (programs.c) ──► watch the ring
 *                └───────────────────────┴── refused: everything of the kernel's is given back, the page stays,
 *                                            tracer_status() says which step and why
 *
 * The ring is first in, first out for all processes, so each thread's events come in the order of its calls. The loop
 * takes a bounded number per turn: the ring's descriptor stays readable while something is left, and epoll
 * comes back to it after the other files had theirs. A flood delays others, it does not stop them. */

#define TRACER_TURN 512		/* records per turn of the loop: well below a millisecond */
#define TRACER_DRAIN 4096	/* records per drain: the answer that waits is made from counters, which need no records */
#define TRACER_WORK 8		/* one that leads to work, which takes microseconds, counts as so many */
#define TRACER_BATCH 256	/* map entries per turn: each may lead to work */
#define TRACER_LIMITED_NS 100000000u	/* between passes while a process floods: else it could have the daemon do nothing else */

struct tracer {
	struct dispatch_file file;
	tracer_event_fn fn;
	void *context;
	int page_fd;
	uint8_t *page;
	struct programs programs;	/* skel NULL: not attached */
	struct ring_buffer *ring;
	int32_t n_left;			/* records that may still be delivered */
	uint32_t n_delivered;
	bool is_consuming;		/* the callback is being called */
	struct recovery {
		uint64_t n_missed;		/* thresholds that the present pass is about; 0: there is none */
		uint64_t n_limited;		/* as counted when the last pass began */
		uint64_t after_ns;		/* no pass begins earlier */
		bool has_cursor;
		struct tier_newest_key cursor;	/* in the map; the kernel's is no larger than a key */
	} recovery;
	uint64_t n_events[_TIER_PROBE_N];
	char status[192];
};
#define TRACER_NULL(x) { .file = DISPATCH_FILE_NULL((x).file), .page_fd = -1 }

DEFINE_CLEANUP(struct tracer *, tracer_free)

static int tracer_print(enum libbpf_print_level level, const char *format, va_list args)
{
	char line[512];

	if (level == LIBBPF_DEBUG || !log_is_on(LOG_TRACE, LOG_INFO1000))
		return 0;
	vsnprintf(line, sizeof(line), format, args);
	line[strcspn(line, "\n")] = '\0';
	log_event(LOG_TRACE, LOG_INFO1000, "libbpf: %s", line);
	return 0;
}

static void tracer_detach(struct tracer *tracer)
{
	dispatch_file_deinit(&tracer->file);
	ring_buffer__free(tracer->ring);
	tracer->ring = NULL;
	programs_stop(&tracer->programs);
}

/* -- The page --- */
static int tracer_init_page(struct tracer *tracer, const struct tracer_keep *keep)
{
	_cleanup_(closep) int fd = keep_take(keep, "page");
	const char *fault = fd >= 0 ? page_check(fd) : NULL;
	int r;

	if (fault) {
		log_line(LOG_WARNING, "the probe page of the daemon before is not used: %s", fault);
		keep_remove(keep, "page");
		fd = close_fd(fd);
	}
	if (fd < 0) {
		r = page_new(&fd);
		if (r)
			return error_fold(r);
		keep_put(keep, "page", fd);
	}
	r = page_map(&tracer->page, fd);
	if (r)
		return error_fold(r);
	tracer->page_fd = TAKE_FD(fd);
	return 0;
}

/* -- Consuming --- */
/* libbpf keeps the ring's position before it passes an error on: stopping here loses nothing. */
static int tracer_record(void *context, void *data, size_t n)
{
	struct tracer *tracer = context;
	const struct tier_kernel_event *event = data;
	bool is_work = false;

	if (n == sizeof(*event) && event->probe < _TIER_PROBE_N) {
		tracer->n_events[event->probe]++;
		is_work = tracer->fn(tracer->context, event);
	}
	tracer->n_delivered++;
	tracer->n_left -= is_work ? TRACER_WORK : 1;
	return tracer->n_left > 0 ? 0 : -ECANCELED;
}

static uint32_t tracer_consume(struct tracer *tracer, int32_t n_max)
{
	if (!tracer->ring || tracer->is_consuming)
		return 0;
	tracer->is_consuming = true;
	tracer->n_left = n_max;
	tracer->n_delivered = 0;
	ring_buffer__consume(tracer->ring);
	tracer->is_consuming = false;
	return tracer->n_delivered;
}

static int tracer_dispatch(struct dispatch_file *file, uint32_t events)
{
	tracer_consume(container_of(file, struct tracer, file), TRACER_TURN);
	return 0;
}

static int tracer_watch(struct tracer *tracer, struct dispatch *dispatch)
{
	int fd = programs_ring(&tracer->programs), r = 0;

	tracer->ring = ring_buffer__new(fd, tracer_record, tracer, NULL);
	if (!tracer->ring)
		r = -errno;
	if (!r)
		r = dispatch_file_init(&tracer->file, dispatch, tracer_dispatch, "ring buffer", fd, EPOLLIN);
	if (r)
		snprintf(tracer->status, sizeof(tracer->status), "no kernel probes: reading the ring buffer: %s", strerrordesc_np(-r));
	return r;
}

/* -- Tracers --- */
static void tracer_attach(struct tracer *tracer, struct dispatch *dispatch, const struct tracer_config *config)
{
	if (programs_start(&tracer->programs, config, tracer->page_fd, tracer->status, sizeof(tracer->status)))
		return;
	if (!tracer_watch(tracer, dispatch)) {
		snprintf(tracer->status, sizeof(tracer->status), "kernel probes");
		return;
	}
	programs_unkeep(&tracer->programs, config->keep);
	tracer_detach(tracer);
}

int tracer_new(struct tracer **ret, struct dispatch *dispatch, const struct tracer_config *config, tracer_event_fn fn,
	       void *context)
{
	_cleanup_(tracer_freep) struct tracer *tracer = NULL;
	int r;

	tracer = malloc(sizeof(*tracer));
	if (!tracer)
		return error_origin(-ENOMEM);
	*tracer = (struct tracer)TRACER_NULL(*tracer);
	programs_init(&tracer->programs);
	tracer->fn = fn;
	tracer->context = context;
	r = tracer_init_page(tracer, config->keep);
	if (r)
		return error_fold(r);
	libbpf_set_print(tracer_print);
	if (config->kernel) {
		tracer_attach(tracer, dispatch, config);
	} else {
		snprintf(tracer->status, sizeof(tracer->status), "no kernel probes: switched off by configuration");
		programs_forget(config->keep);
	}
	*ret = TAKE_PTR(tracer);
	return 0;
}

struct tracer *tracer_free(struct tracer *tracer)
{
	if (!tracer)
		return NULL;
	tracer_detach(tracer);
	page_unmap(tracer->page);
	close_fd(tracer->page_fd);
	free(tracer);
	return NULL;
}

int tracer_page_fd(const struct tracer *tracer)
{
	return tracer->page_fd;
}

bool tracer_is_attached(const struct tracer *tracer)
{
	return tracer->programs.skel != NULL;
}

uint32_t tracer_sites(const struct tracer *tracer)
{
	uint32_t sites = 0;

	for (unsigned int i = 0; i < TIER_PROBE_SLOTS; i++)
		if (tracer->programs.links[i] >= 0)
			sites |= UINT32_C(1) << i;
	return sites;
}

const char *tracer_status(const struct tracer *tracer)
{
	return tracer->status;
}

uint32_t tracer_drain(struct tracer *tracer)
{
	return tracer_consume(tracer, TRACER_DRAIN);
}

/* -- Firing --- */
void tracer_fire(struct tracer *tracer, const struct tier_event *event)
{
	static const enum tier_probe probes[_TIER_EVENT_N] = {
		[TIER_EVENT_PUBLISHED] = TIER_PROBE_PUBLISH,
		[TIER_EVENT_COUNTING_BEGUN] = TIER_PROBE_COUNTING_BEGUN,
		[TIER_EVENT_COMPILE_STARTED] = TIER_PROBE_COMPILE_STARTED,
		[TIER_EVENT_COMPILE_ENDED] = TIER_PROBE_COMPILE_ENDED,
		[TIER_EVENT_DELAY_PAUSED] = TIER_PROBE_DELAY_PAUSED,
		[TIER_EVENT_DELAY_RESUMED] = TIER_PROBE_DELAY_RESUMED,
	};
	const enum tier_probe probe = event->kind < _TIER_EVENT_N ? probes[event->kind] : 0;
	void (*site)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t) = (void *)page_site(tracer->page, probe);
	uint64_t what = event->from << 8 | event->to;

	static_assert(TIER_PROBE_THRESHOLD == 0, "the site that is never the daemon's stands for none");
	if (!probe)
		return;
	if (probe == TIER_PROBE_COMPILE_ENDED)
		what |= (uint64_t)event->reason << 16;
	if (probe == TIER_PROBE_DELAY_PAUSED || probe == TIER_PROBE_DELAY_RESUMED)
		site(event->uid, event->sequence, 0, 0, 0);
	else
		site(event->module, event->method, event->version, what, event->sequence);
}

/* -- Recovering --- */
/* The map's entries in no order; some may be replaced meanwhile, which puts them into the ring as well. Whether there are
 * more. */
static bool tracer_deliver_newest(struct tracer *tracer)
{
	struct recovery *recovery = &tracer->recovery;
	int fd = programs_newest(&tracer->programs), r;
	void *in = recovery->has_cursor ? &recovery->cursor : NULL;
	struct tier_newest_key keys[TRACER_BATCH];
	struct tier_kernel_event events[TRACER_BATCH];
	uint32_t n = TRACER_BATCH;

	r = bpf_map_lookup_batch(fd, in, &recovery->cursor, keys, events, &n, NULL);
	if (r && r != -ENOENT) {
		log_line(LOG_WARNING, "reading the newest events from the kernel: %s", strerrordesc_np(-r));
		return false;
	}
	tracer->is_consuming = true;
	for (uint32_t i = 0; i < n; i++)
		tracer->fn(tracer->context, &events[i]);
	tracer->is_consuming = false;
	recovery->has_cursor = true;
	return !r;
}

/* Whether a pass is under way now; a new one deals with what was counted before it began. */
static bool recovery_begin(struct recovery *recovery, const struct tier_kernel_shared *shared, uint64_t *ret_when)
{
	const uint64_t n_limited = __atomic_load_n(&shared->n_limited, __ATOMIC_ACQUIRE);
	const uint64_t n_missed = __atomic_load_n(&shared->n_missed, __ATOMIC_ACQUIRE) - shared->n_answered;
	uint64_t now;

	if (recovery->n_missed || !n_missed)
		return recovery->n_missed;
	now = clock_now_ns();
	if (now < recovery->after_ns) {
		*ret_when = recovery->after_ns;
		return false;
	}
	if (n_limited != recovery->n_limited)
		recovery->after_ns = now + TRACER_LIMITED_NS;
	recovery->n_limited = n_limited;
	recovery->n_missed = n_missed;
	recovery->has_cursor = false;
	return true;
}

uint64_t tracer_recover(struct tracer *tracer, uint64_t *ret_when)
{
	struct tier_kernel_shared *shared = programs_shared(&tracer->programs);
	struct recovery *recovery = &tracer->recovery;
	uint64_t n_missed;

	*ret_when = 0;
	if (!shared || !recovery_begin(recovery, shared, ret_when))
		return 0;
	if (tracer_deliver_newest(tracer)) {
		*ret_when = clock_now_ns();
		return 0;
	}
	n_missed = recovery->n_missed;
	recovery->n_missed = 0;
	shared->n_answered += n_missed;		/* a successor goes on from there */
	log_event(LOG_TRACE, LOG_INFO100, "the ring had no room for %llu thresholds: the newest were read from the map",
		  (unsigned long long)n_missed);
	return n_missed;
}

void tracer_stats(struct tracer *tracer, struct tracer_stats *ret)
{
	const struct tier_kernel_shared *shared = programs_shared(&tracer->programs);

	*ret = (struct tracer_stats){ 0 };
	memcpy(ret->n_events, tracer->n_events, sizeof(ret->n_events));
	if (!shared)
		return;
	ret->n_dropped = __atomic_load_n(&shared->n_dropped, __ATOMIC_ACQUIRE);
	ret->n_limited = __atomic_load_n(&shared->n_limited, __ATOMIC_ACQUIRE);
	ret->n_refused = __atomic_load_n(&shared->n_refused, __ATOMIC_ACQUIRE);
}
