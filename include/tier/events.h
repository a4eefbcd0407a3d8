/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Events: what the kernel programs write, and what the journal keeps and clients read
 *
 * The kernel's record is a bell with details: the daemon believes it only as far as the method's counter confirms it.
 * The journal's record is the history: one per transition, numbered without holes, in the order in which the daemon
 * committed the transitions. Both are fixed-size and little endian. No libc here: the BPF program includes this file
 * (hence the choice of licenses). */

#ifdef __bpf__
#include <linux/types.h>
typedef __u64 uint64_t;
typedef __u32 uint32_t;
#else
#include <stdint.h>
#include "tier/types.h"
#endif

/* The probe sites, in the order in which they lie on the probe page. Each is a function of up to five integer
 * arguments that begins with a 5-byte nop and returns. */
#define TIER_PROBE_LIST(_)                                                                                             \
	_(THRESHOLD, 0, "threshold") /* (module, method, version) from the calling thread */                           \
	_(PUBLISH, 1, "publish")     /* (module, method, version, from << 8 | to, sequence) from the daemon */         \
	_(HELLO, 2, "hello")         /* (nonce) from a client that connects */

#define TIER_PROBE_ENUM(name, number, ...) TIER_PROBE_##name = number,
enum tier_probe { TIER_PROBE_LIST(TIER_PROBE_ENUM) _TIER_PROBE_N };

#define TIER_PROBE_PAGE_SIZE 4096u
#define TIER_PROBE_SITE_SIZE 64u	/* site i lies at i * 64: one cache line each */
#define TIER_PROBE_NOP_SIZE 5u

/* What a kernel program writes into the ring buffer */
struct tier_kernel_event {
	uint64_t time_ns;	/* CLOCK_MONOTONIC */
	uint64_t module;	/* HELLO: the nonce */
	uint64_t version;
	uint64_t sequence;	/* PUBLISH: the journal's number of the publication; else 0 */
	uint32_t method;
	uint32_t probe;		/* enum tier_probe */
	uint32_t pid, tid;	/* in the initial pid namespace */
	uint32_t levels;	/* PUBLISH: from << 8 | to */
	uint32_t uid;
};

/* Key of the kernel's map of the newest threshold event per method (the value is the event): what is left of them when the
 * ring was full */
struct tier_newest_key {
	uint64_t module;
	uint32_t method;
	uint32_t pad;
};

#ifndef __bpf__
_Static_assert(sizeof(struct tier_kernel_event) == 56, "kernel event format 1");

/* One transition in the journal */
struct tier_event {
	uint64_t sequence;	/* 1, 2, 3, … without holes */
	uint64_t time_ns;	/* CLOCK_REALTIME of the transition; THRESHOLD from the kernel: of the crossing call */
	uint64_t module;
	uint64_t version;	/* the version concerned: counted (THRESHOLD), new (QUEUED…), published (PUBLISHED) */
	uint32_t method;	/* index in the module; UINT32_MAX for events of modules and uids */
	uint32_t uid;		/* who owns the module */
	uint32_t pid, tid;	/* THRESHOLD: of the crossing thread, as far as known; else 0 */
	uint8_t kind;		/* enum tier_event_kind */
	uint8_t from, to;	/* enum tier_level of the active version before and after */
	uint8_t reason;		/* enum tier_reason */
	uint8_t source;		/* enum tier_source */
	uint8_t reserved[7];
	uint32_t crc;		/* of the bytes before it: the journal's business */
};
_Static_assert(sizeof(struct tier_event) == 64, "event format 1");
#endif
