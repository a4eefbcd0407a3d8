/* SPDX-License-Identifier: Apache-2.0 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include "trace/page.h"
#include "trace/tracer.h"
#include "util/base.h"
#include "util/error.h"
#include "util/fault.h"
#include "util/log.h"
#include "tracer.skel.h"

/* The tracer: page, programs, ring
 *
 *   page ──► open ──► size the ring ──► load ──► attach a program to each site ──► watch the ring
 *              └──────────┴───────────────┴──────────────┴── refused: everything of the kernel's is given back, the page
 *                                                            stays, tracer_status() says which step and why
 *
 * The ring is first in, first out for all processes, so each thread's events come in the order of its calls. The loop
 * takes a bounded number per turn: the ring's descriptor stays readable while something is left, and epoll
 * comes back to it after the other files had theirs. A flood delays others, it does not stop them. */

#define TRACER_TURN 512		/* records per turn of the loop: well below a millisecond */
#define TRACER_DRAIN 4096	/* records per drain: the answer that waits is made from counters, which need no records */
#define TRACER_WORK 8		/* one that leads to work, which takes microseconds, counts as so many */
#define TRACER_BATCH 256	/* map entries per turn: each may lead to work */

struct tracer {
	struct dispatch_file file;
	tracer_event_fn fn;
	void *context;
	int page_fd;
	uint8_t *page;
	struct tracer_bpf *skel;	/* NULL: not attached */
	struct ring_buffer *ring;
	int32_t n_left;			/* records that may still be delivered */
	uint32_t n_delivered;
	bool is_consuming;
	struct recovery {
		uint64_t n_done;		/* failed reservations that tracer_recover() has answered for */
		uint64_t n_failed;		/* those that the present pass is about; 0: there is none */
		bool has_cursor;
		struct tier_newest_key cursor;	/* in the map; the kernel's is no larger than a key */
	} recovery;
	uint64_t n_events[_TIER_PROBE_N];
	char status[192];
};
#define TRACER_NULL(x) { .file = DISPATCH_FILE_NULL((x).file), .page_fd = -1 }

DEFINE_CLEANUP(struct tracer *, tracer_free)

/* -- Attaching --- */
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

/* Notes why there are no kernel probes. Returns @r. */
static int tracer_refuse(struct tracer *tracer, const char *step, const char *what, int r)
{
	const char *hint = r == -EPERM || r == -EACCES ? " (it takes root, or CAP_BPF and CAP_PERFMON)" : "";

	snprintf(tracer->status, sizeof(tracer->status), "no kernel probes: %s%s: %s%s", step, what, strerrordesc_np(-r), hint);
	return r;
}

static int tracer_attach_site(struct tracer *tracer, enum tier_probe probe, struct bpf_program *program, struct bpf_link **ret)
{
	static const char *const names[] = {
#define PROBE_NAME(name, number, text) [number] = text,
		TIER_PROBE_LIST(PROBE_NAME)
	};
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", tracer->page_fd);
	*ret = bpf_program__attach_uprobe(program, false, -1, path, probe * TIER_PROBE_SITE_SIZE);
	if (*ret)
		log_event(LOG_TRACE, LOG_INFO100, "attached to the site %s", names[probe]);
	return *ret ? 0 : tracer_refuse(tracer, "attaching to the site ", names[probe], -errno);
}

/* Which reservation fails on purpose is the kernel program's to count. */
#ifdef TIER_FAULTS
#define tracer_arm_fault(skel) ((skel)->rodata->fault_reserve = fault_at(FAULT_RESERVE))
#define tracer_count_faults(skel) fault_set(FAULT_RESERVE, (skel)->bss->n_reserved)
#else
#define tracer_arm_fault(skel) ((void)0)
#define tracer_count_faults(skel) ((void)0)
#endif

static int tracer_attach(struct tracer *tracer, uint32_t ring_bytes)
{
	struct tracer_bpf *skel = tracer->skel = tracer_bpf__open();
	int r;

	if (!skel)
		return tracer_refuse(tracer, "opening the kernel programs", "", -errno);
	tracer_arm_fault(skel);
	r = bpf_map__set_max_entries(skel->maps.ring, ring_bytes);
	if (r)
		return tracer_refuse(tracer, "sizing the ring buffer", "", r);
	r = tracer_bpf__load(skel);
	if (r)
		return tracer_refuse(tracer, "loading the kernel programs", "", r);
	r = tracer_attach_site(tracer, TIER_PROBE_THRESHOLD, skel->progs.on_threshold, &skel->links.on_threshold);
	r = r ? r : tracer_attach_site(tracer, TIER_PROBE_PUBLISH, skel->progs.on_publish, &skel->links.on_publish);
	return r ? r : tracer_attach_site(tracer, TIER_PROBE_HELLO, skel->progs.on_hello, &skel->links.on_hello);
}

static void tracer_detach(struct tracer *tracer)
{
	dispatch_file_deinit(&tracer->file);
	if (tracer->ring)
		tracer_count_faults(tracer->skel);
	ring_buffer__free(tracer->ring);
	tracer->ring = NULL;
	tracer_bpf__destroy(tracer->skel);
	tracer->skel = NULL;
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
	int fd = bpf_map__fd(tracer->skel->maps.ring), r;

	tracer->ring = ring_buffer__new(fd, tracer_record, tracer, NULL);
	if (!tracer->ring)
		return tracer_refuse(tracer, "mapping the ring buffer", "", -errno);
	r = dispatch_file_init(&tracer->file, dispatch, tracer_dispatch, "ring buffer", fd, EPOLLIN);
	return r ? tracer_refuse(tracer, "watching the ring buffer", "", r) : 0;
}

/* -- Tracers --- */
int tracer_new(struct tracer **ret, struct dispatch *dispatch, const struct tracer_config *config, tracer_event_fn fn,
	       void *context)
{
	_cleanup_(tracer_freep) struct tracer *tracer = NULL;
	int r;

	tracer = malloc(sizeof(*tracer));
	if (!tracer)
		return error_origin(-ENOMEM);
	*tracer = (struct tracer)TRACER_NULL(*tracer);
	tracer->fn = fn;
	tracer->context = context;
	r = page_new(&tracer->page_fd);
	if (r)
		return error_fold(r);
	r = page_map(&tracer->page, tracer->page_fd);
	if (r)
		return error_fold(r);
	libbpf_set_print(tracer_print);
	if (!config->kernel)
		snprintf(tracer->status, sizeof(tracer->status), "no kernel probes: switched off by configuration");
	else if (tracer_attach(tracer, config->ring_bytes) || tracer_watch(tracer, dispatch))
		tracer_detach(tracer);
	else
		snprintf(tracer->status, sizeof(tracer->status), "kernel probes");
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
	return tracer->skel != NULL;
}

const char *tracer_status(const struct tracer *tracer)
{
	return tracer->status;
}

uint32_t tracer_drain(struct tracer *tracer)
{
	return tracer_consume(tracer, TRACER_DRAIN);
}

void tracer_publish(struct tracer *tracer, uint64_t module, uint32_t method, uint64_t version, unsigned int from, unsigned int to,
		    uint64_t sequence)
{
	void (*site)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t) = (void *)page_site(tracer->page, TIER_PROBE_PUBLISH);

	site(module, method, version, from << 8 | to, sequence);
}

/* -- Recovering --- */
static uint64_t tracer_dropped(const struct tracer *tracer)
{
	return tracer->skel ? __atomic_load_n(&tracer->skel->bss->n_dropped, __ATOMIC_ACQUIRE) : 0;
}

/* The map's entries in no order; some may be replaced meanwhile, which puts them into the ring as well. Whether there are
 * more. */
static bool tracer_deliver_newest(struct tracer *tracer)
{
	struct recovery *recovery = &tracer->recovery;
	int fd = bpf_map__fd(tracer->skel->maps.newest), r;
	void *in = recovery->has_cursor ? &recovery->cursor : NULL;
	struct tier_newest_key keys[TRACER_BATCH];
	struct tier_kernel_event events[TRACER_BATCH];
	uint32_t n = TRACER_BATCH;

	r = bpf_map_lookup_batch(fd, in, &recovery->cursor, keys, events, &n, NULL);
	if (r && r != -ENOENT) {
		log_line(LOG_WARNING, "reading the newest events from the kernel: %s", strerrordesc_np(-r));
		return false;
	}
	for (uint32_t i = 0; i < n; i++)
		tracer->fn(tracer->context, &events[i]);
	recovery->has_cursor = true;
	return !r;
}

/* A pass over the map deals with the failures that were counted before it began. */
uint64_t tracer_recover(struct tracer *tracer, bool *ret_more)
{
	struct recovery *recovery = &tracer->recovery;
	uint64_t n_failed;

	*ret_more = false;
	if (!recovery->n_failed) {
		recovery->n_failed = tracer_dropped(tracer) - recovery->n_done;
		recovery->has_cursor = false;
	}
	if (!recovery->n_failed)
		return 0;
	*ret_more = tracer_deliver_newest(tracer);
	if (*ret_more)
		return 0;
	n_failed = recovery->n_failed;
	recovery->n_failed = 0;
	recovery->n_done += n_failed;
	log_event(LOG_TRACE, LOG_INFO100, "the ring had no room for %llu events: the newest were read from the map",
		  (unsigned long long)n_failed);
	return n_failed;
}

void tracer_stats(struct tracer *tracer, struct tracer_stats *ret)
{
	memcpy(ret->n_events, tracer->n_events, sizeof(ret->n_events));
	ret->n_dropped = tracer_dropped(tracer);
}
