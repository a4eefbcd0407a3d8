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

/* The probe sites, each with its arguments, which never change: new sites come at the end. Each is a function of up to five
 * integers that begins with a 5-byte nop and returns. Those that the daemon calls it calls once a transition is committed, in
 * the order of the journal; after a takeover the last one may be told again, with its old number. */
#define TIER_PROBE_LIST(_)                                                                                             \
	_(THRESHOLD, 0, "threshold") /* (module, method, version) from the calling thread */                           \
	_(PUBLISH, 1, "publish")     /* (module, method, version, from << 8 | to, sequence) from the daemon */         \
	_(HELLO, 2, "hello")         /* (nonce) from a client that connects */                                         \
	_(COUNTING_BEGUN, 3, "counting_begun") /* (module, method, version, from << 8 | to, sequence) */               \
	_(OSR_REQUESTED, 4, "osr_requested")   /* (module, method, patchpoint) from the looping thread */              \
	_(DELAY_PAUSED, 5, "delay_paused")     /* (uid, sequence) from the daemon */                                   \
	_(DELAY_RESUMED, 6, "delay_resumed")   /* (uid, sequence) from the daemon */                                   \
	_(COMPILE_STARTED, 7, "compile_started") /* (module, method, version, from << 8 | to, sequence) */             \
	_(COMPILE_ENDED, 8, "compile_ended") /* (module, method, version, reason << 16 | from << 8 | to, sequence) */

#define TIER_PROBE_ENUM(name, number, ...) TIER_PROBE_##name = number,
enum tier_probe { TIER_PROBE_LIST(TIER_PROBE_ENUM) _TIER_PROBE_N };

/* The probe page, as every client maps it:
 *
 *      0  an ELF shared object's headers and symbols: tracers find the sites by name. No loader ever sees it.
 *   2032  struct tier_probe_header
 *   2048  the sites, 64 bytes each: one cache line
 *
 * It outlives the daemon that made it, and its clients, so any two of them may be of different versions. Therefore every slot is a
 * site, whether it has a name yet or not: calling one that the page's maker did not know is harmless. Which of them are listened
 * to is the daemon's to say (struct wire_path). */
#define TIER_PROBE_PAGE_SIZE 4096u
#define TIER_PROBE_HEADER_OFFSET 2032u
#define TIER_PROBE_SITES_OFFSET 2048u
#define TIER_PROBE_SITE_SIZE 64u
#define TIER_PROBE_SLOTS 32u
#define TIER_PROBE_NOP_SIZE 5u
#define TIER_PROBE_OFFSET(probe) (TIER_PROBE_SITES_OFFSET + (probe) * TIER_PROBE_SITE_SIZE)

#define TIER_PROBE_MAGIC UINT64_C(0x7365626f72702e74)	/* "t.probes" */
#define TIER_PROBE_VERSION 1u				/* of the page's layout */
struct tier_probe_header {
	uint64_t magic;
	uint32_t version;
	uint32_t n_slots;
};

/* What a kernel program writes into the ring buffer */
struct tier_kernel_event {
	uint64_t time_ns;	/* CLOCK_MONOTONIC */
	uint64_t module;	/* HELLO: the nonce */
	uint64_t version;	/* OSR_REQUESTED: the patchpoint's number in the module */
	uint64_t sequence;	/* PUBLISH: the journal's number of the publication; else 0 */
	uint32_t method;
	uint32_t probe;		/* enum tier_probe */
	uint32_t pid, tid;	/* in the initial pid namespace, wherever the process and the daemon are */
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

/* What the kernel programs and the daemon tell each other, in memory that a daemon leaves to its successor, as it does the
 * programs while they are the same */
#define TIER_KERNEL_FORMAT 1u	/* of this, the record and the key; another one is another daemon's */
struct tier_kernel_shared {
	/* the daemon's */
	uint64_t format;	/* 0: not in use yet */
	uint64_t programs;	/* which programs are attached; 0: some, maybe */
	uint64_t limit_cost_ns;	/* what a hit costs a process, in time; 0: nothing */
	uint64_t limit_burst_ns; /* how much of that it may owe */
	uint64_t daemon_dev, daemon_ino;	/* the daemon's pid namespace, */
	uint32_t daemon_pid;			/* and its process there */
	uint32_t reserved;
	uint64_t n_answered;	/* of n_missed, those that were dealt with */

	/* the programs' */
	uint64_t n_dropped;	/* hits for which the ring had no room */
	uint64_t n_limited;	/* hits of processes that had too many */
	uint64_t n_refused;	/* hits of the daemon's own sites by others */
	uint64_t n_missed;	/* thresholds among those: they are in the map only */
	uint64_t n_reserved;	/* of a build with faults on purpose: records that were to be written */
	uint64_t more[3];
};

#ifndef __bpf__
TIER_STATIC_ASSERT(sizeof(struct tier_kernel_event) == 56, "kernel event format 1");
TIER_STATIC_ASSERT(sizeof(struct tier_kernel_shared) == 128, "kernel event format 1: a cache line for each side");
TIER_STATIC_ASSERT(TIER_PROBE_OFFSET(TIER_PROBE_SLOTS) == TIER_PROBE_PAGE_SIZE, "slots up to the end of the page");
TIER_STATIC_ASSERT(_TIER_PROBE_N <= TIER_PROBE_SLOTS, "each site has a slot");

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
TIER_STATIC_ASSERT(sizeof(struct tier_event) == 64, "event format 1");
#endif
