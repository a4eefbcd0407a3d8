/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#include <linux/bpf.h>
#include <linux/ptrace.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "tier/events.h"

/* The kernel programs on the probe page
 *
 * A hit becomes one record in the ring buffer, whoever caused it: which process may say what about which method is the
 * daemon's to judge, from the counter. The kernel adds what nobody can forge: time, process, thread, user.
 *
 * The ring may be full, because the daemon is busy or there is none at the moment. Then the hit is counted, and for a
 * threshold the newest event of each method is still in a map, put there before. */

char LICENSE[] SEC("license") = "Dual BSD/GPL";

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

/* Failed reservations since load. One cell in .bss, which the daemon maps and looks at for nothing; it is written only
 * when the ring is full. */
uint64_t n_dropped = 0;

#ifdef TIER_FAULTS
/* The n-th reservation of all finds no room, on purpose (daemon/util/fault.h). */
const volatile uint64_t fault_reserve = 0;
uint64_t n_reserved = 0;

static __always_inline int is_full(void)
{
	return __sync_fetch_and_add(&n_reserved, 1) + 1 == fault_reserve;
}
#else
#define is_full() 0
#endif

static __always_inline void stamp(struct tier_kernel_event *event, enum tier_probe probe)
{
	uint64_t pid_tgid = bpf_get_current_pid_tgid();

	event->time_ns = bpf_ktime_get_ns();
	event->probe = probe;
	event->pid = pid_tgid >> 32;
	event->tid = pid_tgid;
	event->uid = bpf_get_current_uid_gid();
}

static __always_inline void submit(const struct tier_kernel_event *event)
{
	struct tier_kernel_event *record = is_full() ? NULL : bpf_ringbuf_reserve(&ring, sizeof(*record), 0);

	if (!record) {
		__sync_fetch_and_add(&n_dropped, 1);
		return;
	}
	*record = *event;
	bpf_ringbuf_submit(record, 0);
}

SEC("uprobe")
int BPF_KPROBE(on_threshold, uint64_t module, uint32_t method, uint64_t version)
{
	struct tier_kernel_event event = { .module = module, .method = method, .version = version };
	struct tier_newest_key key = { .module = module, .method = method };

	stamp(&event, TIER_PROBE_THRESHOLD);
	bpf_map_update_elem(&newest, &key, &event, BPF_ANY);
	submit(&event);
	return 0;
}

SEC("uprobe")
int BPF_KPROBE(on_publish, uint64_t module, uint32_t method, uint64_t version, uint32_t levels, uint64_t sequence)
{
	struct tier_kernel_event event = {
		.module = module, .method = method, .version = version, .levels = levels, .sequence = sequence,
	};

	stamp(&event, TIER_PROBE_PUBLISH);
	submit(&event);
	return 0;
}

SEC("uprobe")
int BPF_KPROBE(on_hello, uint64_t nonce)
{
	struct tier_kernel_event event = { .module = nonce };

	stamp(&event, TIER_PROBE_HELLO);
	submit(&event);
	return 0;
}
