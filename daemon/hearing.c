/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include "hearing.h"
#include "host.h"
#include "parts.h"
#include "util/error.h"
#include "util/log.h"

/* Anybody who has mapped the probe page can call its sites with whatever arguments: forked children, clients that have closed
 * their handles, processes in other namespaces, and those that lie. So nobody is asked who he is. What a report says is true if
 * the counter in shared memory says so, too: for a threshold the version's cell, for OSR code the patchpoint's hits. Whoever can
 * write these may have the method promoted anyway. What no counter confirms is counted, and changes nothing. */

#define BELLS_PER_SECOND 50000u		/* records that one process may cause: a garbage one costs the loop a tenth of a microsecond */
#define RECOVER_AFTER_NS 10000000u	/* how soon after kernel events the tracer is asked for what the ring had no room for */

static bool hearing_osr(struct tierd *tierd, const struct tier_kernel_event *event)
{
	struct module *module = core_module_by_id(tierd->core, event->module);
	struct host *host = module ? core_module_context(module) : NULL;
	const struct tier_patchpoint *patchpoint;

	if (!host || event->version >= arena_layout(host->arena)->n_patchpoints)
		return false;
	patchpoint = arena_patchpoint(host->arena, event->version);
	if (patchpoint->method != event->method || arena_hits(host->arena, event->version) < patchpoint->limit)
		return false;
	core_osr_request(tierd->core, event->module, event->version);
	return true;
}

static bool hearing_event(void *context, const struct tier_kernel_event *event)
{
	struct tierd *tierd = context;
	bool is_work = false;

	switch (event->probe) {
	case TIER_PROBE_THRESHOLD:
		is_work = core_threshold(tierd->core, event->module, event->method, event->version, event->pid, event->tid,
					 event->time_ns, TIER_SOURCE_KERNEL);
		break;
	case TIER_PROBE_OSR_REQUESTED:
		is_work = hearing_osr(tierd, event);
		if (!is_work)
			core_note_unconfirmed(tierd->core);
		break;
	case TIER_PROBE_HELLO:
		if (tierd->server)
			server_hello_seen(tierd->server, event->module);
		break;
	default:	/* our own publications: they are for everybody else who listens */
		break;
	}
	if (!list_is_linked(&tierd->recover_timer.link))
		dispatch_timer_arm(&tierd->recover_timer, clock_now_ns() + RECOVER_AFTER_NS);
	return is_work;
}

static void hearing_recover(struct tierd *tierd)
{
	uint64_t when;

	if (tracer_recover(tierd->tracer, &when))
		core_sweep(tierd->core, NULL);
	if (when)
		dispatch_timer_arm(&tierd->recover_timer, when);
}

static int recover_timer_due(struct dispatch_timer *timer, uint64_t now_ns)
{
	hearing_recover(container_of(timer, struct tierd, recover_timer));
	return 0;
}

void hearing_init(struct tierd *tierd)
{
	dispatch_timer_init(&tierd->recover_timer, &tierd->dispatch, recover_timer_due, "recover");
}

static int keep_take(void *context, const char *name)
{
	return store_take(context, name);
}

static int keep_put(void *context, const char *name, int fd)
{
	return store_put(context, name, fd);
}

static void keep_remove(void *context, const char *name)
{
	store_remove(context, name);
}

int hearing_start(struct tierd *tierd)
{
	const struct options *o = tierd->options;
	const struct tracer_keep keep = { .take = keep_take, .put = keep_put, .remove = keep_remove, .context = tierd->store };
	const struct tracer_config config = {
		.kernel = o->events != OPTIONS_EVENTS_SOCKET, .ring_bytes = o->ring_bytes, .per_second = BELLS_PER_SECOND, .keep = &keep,
	};
	int r;

	r = tracer_new(&tierd->tracer, &tierd->dispatch, &config, hearing_event, tierd);
	if (r)
		return error_fold(r);
	log_line(LOG_INFO, "events: %s", tracer_status(tierd->tracer));
	if (o->events == OPTIONS_EVENTS_KERNEL && !tracer_is_attached(tierd->tracer)) {
		log_line(LOG_ERROR, "--events=kernel, and the kernel refuses: %s", tracer_status(tierd->tracer));
		return -EPERM;
	}
	return 0;
}

void hearing_catch_up(struct tierd *tierd)
{
	tracer_drain(tierd->tracer);
	hearing_recover(tierd);
}
