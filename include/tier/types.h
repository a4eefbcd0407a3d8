/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The words of tierd, each list written once
 *
 * Tiers, stages, statuses, reasons, errors and events are X-macro lists. Enums, names in output, man pages and
 * tests all grow from the same row, so a new word cannot be half known. Numbers are given in the rows because
 * they cross process boundaries (shared records, wire, journal): append, never renumber. */

#include <stdint.h>

/* C and C++ have different words for it. */
#ifdef __cplusplus
#define TIER_STATIC_ASSERT(condition, text) static_assert(condition, text)
#else
#define TIER_STATIC_ASSERT(condition, text) _Static_assert(condition, text)
#endif

/* The tier of a code version. 0..5 are CoreCLR's frozen numbers; MinOptJitted and ReadyToRun are reported only. */
#define TIER_LEVEL_LIST(_)                                                                                             \
	_(TIER0, 0, "Tier0")                                                                                           \
	_(TIER1, 1, "Tier1")                                                                                           \
	_(OSR, 2, "OSR")                                                                                               \
	_(OPTIMIZED, 3, "Optimized")                                                                                   \
	_(TIER0_INSTRUMENTED, 4, "Tier0Instrumented")                                                                  \
	_(TIER1_INSTRUMENTED, 5, "Tier1Instrumented")                                                                  \
	_(MIN_OPT_JITTED, 6, "MinOptJitted")                                                                           \
	_(READY_TO_RUN, 7, "ReadyToRun")                                                                               \
	_(NONE, 8, "none")

/* Where a method stands on its way; one byte of its state word. Order matters: stages only grow within one version. */
#define TIER_STAGE_LIST(_)                                                                                             \
	_(COLD, 0, "cold", "no code yet")                                                                              \
	_(UNCOUNTED, 1, "uncounted", "has code, calls are not counted yet (call-counting delay)")                      \
	_(COUNTING, 2, "counting", "every call decrements the counter")                                                \
	_(REACHED, 3, "reached", "threshold reached, next version not queued yet")                                     \
	_(QUEUED, 4, "queued", "next version waits in the background queue")                                           \
	_(COMPILING, 5, "compiling", "next version is being compiled")                                                 \
	_(FINAL, 6, "final", "no further promotion will come")

/* The answer to "is this method at its final tier?" */
#define TIER_STATUS_LIST(_)                                                                                            \
	_(COLD, 0, "cold")                                                                                             \
	_(OPTIMIZING, 1, "optimizing")                                                                                 \
	_(FINAL, 2, "final")

/* Why a method is final, or why a transition happened */
#define TIER_REASON_LIST(_)                                                                                            \
	_(NONE, 0, "none")                                                                                             \
	_(FIRST_CALL, 1, "first call")                                                                                 \
	_(DELAY_ENDED, 2, "call-counting delay ended")                                                                 \
	_(CALLS, 3, "call count reached")                                                                              \
	_(PROMOTED, 4, "reached its final tier")                                                                       \
	_(COMPILE_FAILED, 5, "the compiler refused the method")                                                        \
	_(WORKER_DIED, 6, "the compile worker died")                                                                   \
	_(WORKER_TIMEOUT, 7, "the compile worker exceeded its time limit")                                             \
	_(WORKER_MEMORY, 8, "the compile worker exceeded its memory limit")                                            \
	_(RESULT_REFUSED, 9, "the compile worker's result was refused")                                                \
	_(ARENA_FULL, 10, "the module's code segment is full")                                                         \
	_(COUNTING_OFF, 11, "call counting is off")                                                                    \
	_(COUNTERS_FULL, 12, "the module's counters segment is full")                                                  \
	_(NO_WORKER, 13, "no compile worker could be started")                                                         \
	_(TOO_LARGE, 14, "the method is too large to optimize")                                                        \
	_(REJIT, 15, "its body was replaced")                                                                          \
	_(REVERT, 16, "its own body came back")                                                                        \
	_(INLINEE_REPLACED, 17, "a method that it had inlined was replaced")                                           \
	_(NO_OPTIMIZATION, 18, "its attribute asks for no optimization")                                               \
	_(AGGRESSIVE_OPTIMIZATION, 19, "its attribute asks for optimization at once")                                  \
	_(PINNED, 20, "its attribute keeps it at its precompiled code")                                                \
	_(TIERING_OFF, 21, "tiered compilation is off")                                                                \
	_(QUICK_JIT_OFF, 22, "quick compilation is off")                                                               \
	_(LOOP, 23, "a loop of it runs for long")                                                                      \
	_(CLIENT, 24, "a client asked for it")

/* What can go wrong in an answer: number on the wire, errno that libtier returns (negated), text */
#define TIER_ERROR_LIST(_)                                                                                             \
	_(NONE, 0, 0, "success")                                                                                       \
	_(PROTOCOL, 1, EPROTO, "malformed message")                                                                    \
	_(VERSION, 2, EPROTONOSUPPORT, "protocol version not supported")                                               \
	_(NO_MODULE, 3, ENOENT, "no such module")                                                                      \
	_(NO_METHOD, 4, ENOENT, "no such method")                                                                      \
	_(EXISTS, 5, EEXIST, "a module of that name is already loaded")                                                \
	_(BAD_MODULE, 6, ENOEXEC, "the object is not a module that tierd can run")                                     \
	_(DENIED, 7, EACCES, "not permitted")                                                                          \
	_(QUOTA, 8, EDQUOT, "quota exhausted")                                                                         \
	_(NO_MEMORY, 9, ENOMEM, "out of memory")                                                                       \
	_(CODE_FULL, 10, ENOSPC, "the module's code segment is full")                                                  \
	_(WORKER, 11, EIO, "the load worker failed")                                                                   \
	_(CANCELED, 12, ECANCELED, "canceled")                                                                         \
	_(TIMEOUT, 13, ETIMEDOUT, "deadline passed")                                                                   \
	_(ARGUMENT, 14, EINVAL, "invalid argument")                                                                    \
	_(SPAN_TAKEN, 15, EADDRINUSE, "the module's span of addresses is taken in this process")                       \
	_(GAP, 16, ENODATA, "events no longer kept")                                                                   \
	_(INTERNAL, 17, EIO, "internal error")                                                                         \
	_(SIGNATURE, 18, EPROTOTYPE, "the new body has another signature")                                             \
	_(UNBOUND, 19, ENOLINK, "the new body uses a name that the module does not have")

/* Kinds of journalled events. A transition names the method, its version and tiers from and to. */
#define TIER_EVENT_LIST(_)                                                                                             \
	_(MODULE_LOADED, 1, "module-loaded")                                                                           \
	_(MODULE_UNLOADED, 2, "module-unloaded")                                                                       \
	_(PUBLISHED, 3, "published")                                                                                   \
	_(COUNTING_BEGUN, 4, "counting-begun")                                                                         \
	_(THRESHOLD, 5, "threshold")                                                                                   \
	_(QUEUED, 6, "queued")                                                                                         \
	_(COMPILE_STARTED, 7, "compile-started")                                                                       \
	_(COMPILE_ENDED, 8, "compile-ended")                                                                           \
	_(FINAL, 9, "final")                                                                                           \
	_(DELAY_PAUSED, 10, "delay-paused")                                                                            \
	_(DELAY_RESUMED, 11, "delay-resumed")                                                                          \
	_(REJITTED, 12, "rejitted")                                                                                    \
	_(REVERTED, 13, "reverted")                                                                                    \
	_(WITHDRAWN, 14, "withdrawn")                                                                                  \
	_(OSR_REQUESTED, 15, "osr-requested")                                                                          \
	_(OSR_READY, 16, "osr-ready")                                                                                  \
	_(FROZEN, 17, "frozen")                                                                                        \
	_(THAWED, 18, "thawed")

/* What a code version is: on its way, in use (or kept for activations that still run in it), or given up */
#define TIER_VERSION_LIST(_)                                                                                           \
	_(MAKING, 0, "making")                                                                                         \
	_(LIVE, 1, "live")                                                                                             \
	_(FAILED, 2, "failed")

/* How the daemon learnt of an event */
#define TIER_SOURCE_LIST(_)                                                                                            \
	_(DAEMON, 0, "daemon")                                                                                         \
	_(KERNEL, 1, "kernel")                                                                                         \
	_(SOCKET, 2, "socket")                                                                                         \
	_(SWEEP, 3, "recovered")

/* How entry points are kept (DESIGN §4); chosen when the daemon starts */
#define TIER_BACKPATCH_LIST(_)                                                                                         \
	_(LAZY, 0, "lazy")           /* non-final tiers store the precode's target and nothing else */                 \
	_(EAGER, 1, "eager")         /* the precode serves counting; slots are reset and patched at every transition */ \
	_(FORWARDER, 2, "forwarder") /* a forwarder stub serves counting; slots are patched at every transition */

/* The paths by which an entry point is set: CoreCLR's labels (reference §6.6), and what has none there */
#define TIER_PATH_LIST(_)                                                                                              \
	_(INITIAL_PUBLISH_NON_FINAL, 0, "InitialPublish-NonFinal")                                                     \
	_(CALL_COUNTING_STUB, 1, "CallCountingStub")                                                                   \
	_(THRESHOLD_REACHED, 2, "ThresholdReached")                                                                    \
	_(NON_FINAL, 3, "NonFinal")                                                                                    \
	_(FINAL_TIER, 4, "FinalTier")                                                                                  \
	_(FINAL_TIER_NON_DEFAULT, 5, "FinalTier-NonDefault")                                                           \
	_(SAME_VERSION_NON_FINAL, 6, "SameVersion-NonFinal")                                                           \
	_(DIFF_VERSION_FINAL_TIER, 7, "DiffVersion-FinalTier")                                                         \
	_(DIFF_VERSION_NON_FINAL, 8, "DiffVersion-NonFinal")                                                           \
	_(DELAY_ACTIVATION_NON_FINAL, 9, "DelayActivation-NonFinal")                                                   \
	_(RESET, 10, "Reset")         /* no code: everything leads to the prestub */                                   \
	_(WITHDRAWN, 11, "Withdrawn") /* back to the first code, because an inlined method was replaced */             \
	_(RECOVERED, 12, "Recovered") /* what the ledger says, after a takeover */

/* Why a call came to the prestub */
#define TIER_VISIT_LIST(_)                                                                                             \
	_(COLD, 0, "cold", "there was no code: the daemon was asked")                                                  \
	_(RACE, 1, "race", "there was code, and the precode led to it by then")                                        \
	_(COUNTED, 2, "counted", "the prestub itself counted the call (no call-counting stubs)")                       \
	_(SLOT, 3, "slot", "through a vtable slot for the first time in the process: the daemon was told")             \
	_(SLOT_AGAIN, 4, "slot-again", "through a vtable slot that is not patched yet")                                \
	_(POINTER, 5, "pointer", "through the method's temporary entry point, after its final tier")

/* What a recorded slot is (reference §1.7) */
#define TIER_SLOT_LIST(_)                                                                                              \
	_(DATA, 0, "data")   /* a pointer in data: a funcptr precode's target, a host's own */                         \
	_(VTABLE, 1, "vtable") /* a call cell */                                                                       \
	_(REL32, 2, "rel32") /* an aligned displacement in code */

#define TIER_LEVEL_ENUM(name, number, ...) TIER_LEVEL_##name = number,
#define TIER_STAGE_ENUM(name, number, ...) TIER_STAGE_##name = number,
#define TIER_STATUS_ENUM(name, number, ...) TIER_STATUS_##name = number,
#define TIER_REASON_ENUM(name, number, ...) TIER_REASON_##name = number,
#define TIER_ERROR_ENUM(name, number, ...) TIER_ERROR_##name = number,
#define TIER_EVENT_ENUM(name, number, ...) TIER_EVENT_##name = number,
#define TIER_SOURCE_ENUM(name, number, ...) TIER_SOURCE_##name = number,
#define TIER_VERSION_ENUM(name, number, ...) TIER_VERSION_##name = number,
#define TIER_BACKPATCH_ENUM(name, number, ...) TIER_BACKPATCH_##name = number,
#define TIER_PATH_ENUM(name, number, ...) TIER_PATH_##name = number,
#define TIER_VISIT_ENUM(name, number, ...) TIER_VISIT_##name = number,
#define TIER_SLOT_ENUM(name, number, ...) TIER_SLOT_##name = number,

enum tier_level { TIER_LEVEL_LIST(TIER_LEVEL_ENUM) _TIER_LEVEL_N };
enum tier_stage { TIER_STAGE_LIST(TIER_STAGE_ENUM) _TIER_STAGE_N };
enum tier_status { TIER_STATUS_LIST(TIER_STATUS_ENUM) _TIER_STATUS_N };
enum tier_reason { TIER_REASON_LIST(TIER_REASON_ENUM) _TIER_REASON_N };
enum tier_error { TIER_ERROR_LIST(TIER_ERROR_ENUM) _TIER_ERROR_N };
enum tier_event_kind { TIER_EVENT_LIST(TIER_EVENT_ENUM) _TIER_EVENT_N };
enum tier_source { TIER_SOURCE_LIST(TIER_SOURCE_ENUM) _TIER_SOURCE_N };
enum tier_version_state { TIER_VERSION_LIST(TIER_VERSION_ENUM) _TIER_VERSION_N };
enum tier_backpatch { TIER_BACKPATCH_LIST(TIER_BACKPATCH_ENUM) _TIER_BACKPATCH_N };
enum tier_path { TIER_PATH_LIST(TIER_PATH_ENUM) _TIER_PATH_N };
enum tier_visit { TIER_VISIT_LIST(TIER_VISIT_ENUM) _TIER_VISIT_N };
enum tier_slot_kind { TIER_SLOT_LIST(TIER_SLOT_ENUM) _TIER_SLOT_N };

/* A name is never NULL: an unknown number reads "unknown". */
#define TIER_NAME_ROW(name, number, text, ...) case number: return text;
#define TIER_NAME_FUNCTION(function, LIST)                                                                             \
	static inline const char *function(unsigned int number)                                                        \
	{                                                                                                              \
		switch (number) { LIST(TIER_NAME_ROW) }                                                                \
		return "unknown";                                                                                      \
	}
#define TIER_ERROR_NAME_ROW(name, number, code, text) case number: return text;
#define TIER_ERROR_ERRNO_ROW(name, number, code, text) case number: return code;

#ifndef __bpf__
#include <errno.h>
TIER_NAME_FUNCTION(tier_level_name, TIER_LEVEL_LIST)
TIER_NAME_FUNCTION(tier_stage_name, TIER_STAGE_LIST)
TIER_NAME_FUNCTION(tier_status_name, TIER_STATUS_LIST)
TIER_NAME_FUNCTION(tier_reason_name, TIER_REASON_LIST)
TIER_NAME_FUNCTION(tier_event_name, TIER_EVENT_LIST)
TIER_NAME_FUNCTION(tier_source_name, TIER_SOURCE_LIST)
TIER_NAME_FUNCTION(tier_version_state_name, TIER_VERSION_LIST)
TIER_NAME_FUNCTION(tier_backpatch_name, TIER_BACKPATCH_LIST)
TIER_NAME_FUNCTION(tier_path_name, TIER_PATH_LIST)
TIER_NAME_FUNCTION(tier_visit_name, TIER_VISIT_LIST)
TIER_NAME_FUNCTION(tier_slot_name, TIER_SLOT_LIST)

static inline const char *tier_error_name(unsigned int number)
{
	switch (number) { TIER_ERROR_LIST(TIER_ERROR_NAME_ROW) }
	return "unknown";
}

/* The positive errno that stands for an error number from the wire; EPROTO for one this build does not know. */
static inline int tier_error_errno(unsigned int number)
{
	switch (number) { TIER_ERROR_LIST(TIER_ERROR_ERRNO_ROW) }
	return EPROTO;
}
#endif
