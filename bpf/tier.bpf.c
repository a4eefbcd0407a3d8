/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include <linux/bpf.h>
#include <linux/ptrace.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "tier/events.h"

/* The kernel programs on the probe page
 *
 * A hit becomes one record in the ring buffer, whoever caused it: which process may say what about which method is the
 * daemon's to judge, from the counter. The kernel adds what nobody can forge: time, process, thread, user. Only what the daemon
 * itself tells is taken from nobody else.
 *
 * A process that hits all the time would fill the ring and leave no room for others', so each has an allowance. The ring may be
 * full all the same, because the daemon is busy or there is none at the moment. What has no place in it is counted, and for a
 * threshold the newest event of each method is still in a map, put there before.
 *
 * Maps outlive the daemon in its descriptor store, and the programs run on while there is none. A successor that has the same
 * programs leaves them attached; another one attaches its own to the same maps, and for a moment both write: nothing here is told
 * apart by program.
 *
 * Takes Linux 5.12, for atomic instructions that return what was there; the ring buffer is of 5.8, telling the daemon in its own
 * pid namespace of 5.7. */

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* -- What is left behind --- */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);	/* bytes; the tracer sets what it was configured for */
} ring SEC(".maps");

/* Bounded: methods that crossed their threshold longest ago make room, and the daemon's sweep finds those. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct tier_newest_key);
	__type(value, struct tier_kernel_event);
} newest SEC(".maps");

/* Per process, the time at which it owes nothing any more: each hit adds its cost to that. Bounded,
 * and a process that is forgotten begins anew: who forks that often fills the ring, which costs others the map's way. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, uint32_t);
	__type(value, uint64_t);
} limits SEC(".maps");

/* In .bss, which the daemon maps and looks at for nothing; written here only when something goes wrong. */
struct tier_kernel_shared shared = {};

static __always_inline void count(uint64_t *n)
{
	__sync_fetch_and_add(n, 1);
}

#ifdef TIER_FAULTS
/* The n-th reservation of all finds no room, on purpose (daemon/util/fault.h). */
const volatile uint64_t fault_reserve = 0;

static __always_inline int is_full(void)
{
	return __sync_fetch_and_add(&shared.n_reserved, 1) + 1 == fault_reserve;
}
#else
#define is_full() 0
#endif

/* -- Records --- */
static __always_inline void stamp(struct tier_kernel_event *event, enum tier_probe probe)
{
	uint64_t pid_tgid = bpf_get_current_pid_tgid();

	event->time_ns = bpf_ktime_get_ns();
	event->probe = probe;
	event->pid = pid_tgid >> 32;
	event->tid = pid_tgid;
	event->uid = bpf_get_current_uid_gid();
}

/* Threads of a process share its debt; what several take at the same time is all counted, and what one may not have is given
 * back, so a neighbour may now and then be refused a hit that it could have had. */
static __always_inline int is_allowed(const struct tier_kernel_event *event)
{
	uint64_t now = event->time_ns, *debt, seen, first;
	const uint64_t cost = shared.limit_cost_ns;
	uint32_t pid = event->pid;

	if (!cost)
		return 1;
	debt = bpf_map_lookup_elem(&limits, &pid);
	if (!debt) {
		first = now + cost;
		bpf_map_update_elem(&limits, &pid, &first, BPF_ANY);
		return 1;
	}
	seen = *(volatile uint64_t *)debt;
	if (seen < now)
		__sync_val_compare_and_swap(debt, seen, now);
	if (__sync_fetch_and_add(debt, cost) + cost <= now + shared.limit_burst_ns)
		return 1;
	__sync_fetch_and_add(debt, -cost);
	return 0;
}

/* Whether the daemon will read it */
static __always_inline int submit(const struct tier_kernel_event *event)
{
	struct tier_kernel_event *record = is_full() ? NULL : bpf_ringbuf_reserve(&ring, sizeof(*record), 0);

	if (!record) {
		count(&shared.n_dropped);
		return 0;
	}
	*record = *event;
	bpf_ringbuf_submit(record, 0);
	return 1;
}

static __always_inline int tell(struct tier_kernel_event *event)
{
	if (is_allowed(event))
		return submit(event);
	count(&shared.n_limited);
	return 0;
}

static __always_inline int is_daemon(void)
{
	struct bpf_pidns_info self = {};

	return !bpf_get_ns_current_pid_tgid(shared.daemon_dev, shared.daemon_ino, &self, sizeof(self))
	    && self.tgid == shared.daemon_pid;
}

/* -- Sites --- */
SEC("uprobe")
int BPF_KPROBE(on_threshold, uint64_t module, uint32_t method, uint64_t version)
{
	struct tier_kernel_event event = { .module = module, .method = method, .version = version };
	struct tier_newest_key key = { .module = module, .method = method };

	stamp(&event, TIER_PROBE_THRESHOLD);
	bpf_map_update_elem(&newest, &key, &event, BPF_ANY);
	if (!tell(&event))
		count(&shared.n_missed);
	return 0;
}

SEC("uprobe")
int BPF_KPROBE(on_publish, uint64_t module, uint32_t method, uint64_t version, uint32_t levels, uint64_t sequence)
{
	struct tier_kernel_event event = {
		.module = module, .method = method, .version = version, .levels = levels, .sequence = sequence,
	};

	stamp(&event, TIER_PROBE_PUBLISH);
	if (is_daemon())
		submit(&event);
	else
		count(&shared.n_refused);
	return 0;
}

SEC("uprobe")
int BPF_KPROBE(on_hello, uint64_t nonce)
{
	struct tier_kernel_event event = { .module = nonce };

	stamp(&event, TIER_PROBE_HELLO);
	tell(&event);
	return 0;
}

/* A note that got lost is sent again when the loop's hits have doubled. */
SEC("uprobe")
int BPF_KPROBE(on_osr_requested, uint64_t module, uint32_t method, uint32_t patchpoint)
{
	struct tier_kernel_event event = { .module = module, .method = method, .version = patchpoint };

	stamp(&event, TIER_PROBE_OSR_REQUESTED);
	tell(&event);
	return 0;
}
