/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Faults on purpose
 *
 * A program that is built with TIER_FAULTS (`make faults`: build/faults/) counts its points, of each kind on its own:
 * places where the system may refuse, or where the process may end. A schedule says which of them go wrong:
 *
 *	tierd --fault=alloc:17,exit:230    the 17th allocation finds no memory; at place 230 the daemon dies
 *	tierd --fault=write:9+             from the 9th write on the disk is full
 *	tierd --fault=exit:230,after,alloc:4   behind "after" points count from the first death on: a successor's
 *	tierd --fault=count                nothing goes wrong; the counts are on standard error at the end
 *
 * --fault-file PATH keeps the counts in a file, which the daemon, its workers and its successors share: what has gone
 * wrong once does not go wrong for the successor again, and a test reads there how far a run came.
 *
 * What the C library and the kernel are asked for is intercepted by the linker (--wrap, fault_wrap.c), so all other
 * code is the very code of the production build. That one has nothing of this: no option, symbol or instruction. */

#include <stdbool.h>
#include <stdint.h>

/* name, word in a schedule, what goes wrong */
#define FAULT_KIND_LIST(_)                                                                                             \
	_(ALLOC, "alloc", "an allocation, a mapping or a thread: there is no memory")                                  \
	_(OPEN, "open", "a descriptor: there are no more")                                                             \
	_(WRITE, "write", "a file: the disk is full")                                                                  \
	_(SHORT, "short", "a file: half of it is written")                                                             \
	_(SEND, "send", "a socket: the other side has no room")                                                        \
	_(RESERVE, "reserve", "a record in the kernel's ring: it is full")                                             \
	_(WORKER, "worker", "a step of a compile worker: it dies")                                                     \
	_(HANG, "hang", "likewise: it hangs")                                                                          \
	_(GARBAGE, "garbage", "an output of a compile worker: it is scrambled")                                        \
	_(EXIT, "exit", "a place to die: the daemon is killed")                                                        \
	_(AGAIN, "again", "likewise, counted from the first death on: a successor is killed")

#define FAULT_ENUM(name, word, text) FAULT_##name,
enum fault_kind { FAULT_KIND_LIST(FAULT_ENUM) _FAULT_KIND_N };
#undef FAULT_ENUM

#define FAULT_FILE_MAGIC 0x31544c4146524954ull /* "TIRFALT1" */
struct fault_file {
	uint64_t magic;
	uint64_t n[_FAULT_KIND_N];       /* points that were passed */
	uint64_t n_fired[_FAULT_KIND_N]; /* of them, that went wrong */
	uint64_t n_ready[_FAULT_KIND_N]; /* n when a daemon last began to serve */
	uint64_t n_checks;               /* of the core's invariants */
};

#ifdef TIER_FAULTS

const char *fault_choose(const char *schedule); /* why the text is no schedule, as in "'x' is WHY"; NULL: taken */
const char *fault_choose_file(const char *path);
void fault_begin(void);       /* from now on points count; children inherit the schedule through the environment */
void fault_begin_child(void); /* takes it from there */

bool fault_due(enum fault_kind kind); /* passes a point; true: it goes wrong */
void fault_exit(void);                /* a place to die */
void fault_hook(void (**hook)(void)); /* likewise wherever that is called */
_Noreturn void fault_die(void);       /* as if killed */
void fault_step(void);                /* a worker's */
void fault_scramble(void *bytes, uint64_t n);
uint64_t fault_at(enum fault_kind kind);          /* the point that goes wrong, for whoever counts elsewhere; 0: none */
void fault_set(enum fault_kind kind, uint64_t n); /* how many points were passed elsewhere */

/* The daemon serves. From now on @check is called at the begin of each of the loop's callbacks: NULL, or what is
 * broken, which ends the daemon. */
void fault_watch(const char *(*check)(void *context), void *context);
void fault_turn(void); /* such a begin: also a place to die */

#else

#define fault_begin()               ((void)0)
#define fault_begin_child()         ((void)0)
#define fault_hook(hook)            ((void)0)
#define fault_step()                ((void)0)
#define fault_scramble(bytes, n)    ((void)0)
#define fault_watch(check, context) ((void)0)
#define fault_turn()                ((void)0)

#endif
