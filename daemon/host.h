/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A hosted module: its checked image, its arena and its symbols
 *
 * host_build() turns what the load worker sent into a module that is ready to run: checked, verified, laid out, placed at
 * addresses that no other module has had, relocated. It works on private data only and may take long, so it runs off the
 * loop; everything else here is the loop's, but for what says otherwise.
 *
 * A method whose body was replaced has a struct host_body beside what the image says about it: always the newest one that it
 * was given. Which of the two is in use the core knows (core_method_body()). */

#include <stddef.h>
#include <stdint.h>
#include "arena/arena.h"
#include "arena/place.h"
#include "arena/symtab.h"
#include "bytecode/bind.h"
#include "bytecode/calls.h"
#include "bytecode/image.h"
#include "tier/types.h"
#include "tiering/core.h"
#include "util/charge.h"
#include "util/task.h"
#include "worker/compiler.h"
#include "worker/job.h"
#include "worker/precompiled.h"

/* What the options say of code: the same for all modules of a daemon */
struct host_config {
	bool pgo;			/* there are instrumented tiers */
	bool osr;			/* tier 0 has patchpoints */
	uint32_t osr_hit_limit, osr_counter_bump, osr_initial_counter;	/* 1..INT32_MAX */
};

/* Of a method's own body */
struct host_method {
	uint32_t patchpoint, n_patchpoints;	/* number of the first, and how many */
	uint32_t n_owed;			/* bytes of the code segment that its first code may still take; */
	uint32_t n_profile;			/* cells that its instrumented code counts in; 0: it is not instrumented */
	bool owes_stub;				/* so may the stub of a version of it */
	bool has_loops;
};

struct baseline_extra;

/* Knobs and their values (host_instance.c) */
#define HOST_KNOBS_MAX 16u
struct host_knobs {
	uint32_t n;
	struct host_knob {
		uint32_t object;	/* of the image: a variable of .rodata */
		uint64_t value;		/* as many bytes of it as the variable has */
	} knobs[HOST_KNOBS_MAX];	/* in order of names, each once */
};

struct host {
	uint64_t id;		/* of the module */
	struct module *module;	/* the core's; NULL until it was added there */
	struct host *base;	/* of an instantiation: the module that it was made of, which outlives it, and whose image, symbols,
				 * .data and .bss it uses. NULL: it is none */
	uint32_t n_instances;	/* that were made of it; the loop's */
	struct host_knobs knobs;	/* of an instantiation */
	uint8_t *rodata;	/* of an instantiation: the image's with its values; owned */
	void *bytes;		/* the image; owned; NULL: the base's */
	struct image image;
	struct host_config config;
	struct host_method *own;	/* by method; owned */
	struct arena *arena;
	struct symtab *symtab, *imports, *objects;	/* names of methods, imports, variables */
	struct calls *calls;
	struct host_body **bodies;	/* by method; owned, as what it points to; NULL until one is replaced */
	uint32_t n_bodies;		/* ids given to bodies so far */
	struct host_ahead *ahead;	/* tier-0 code of huge methods, by method; owned */
	uint32_t n_ahead;
	bool ready_to_run;		/* it is used, if it fits this compiler: the one that there was when the module came */
	struct compiler compiler;
	struct precompiled precompiled;	/* code that the object brought, if it fits */
	struct refusal unfit;		/* why it does not; "": it does, or there is none */
	const struct core_call_site *first_sites;	/* of the first code that was placed last; owned */
	uint64_t n_owed;	/* the same of all methods, stubs included */
	struct charge methods, memory;	/* of the uid; taken by loading.c, given back in the loop */
	struct store *store;	/* has what a successor needs of it; NULL: nobody has (host_kept.h) */
	struct task end;	/* host_release() */
};

struct host_plan {
	uint64_t id;
	struct window *window;	/* only one host_build() at a time may use it */
	uint64_t n_code;	/* code segment's size; 0: by the module's size */
	struct host_config config;
	bool ready_to_run;	/* precompiled code is used, if it is */
	struct compiler compiler;	/* this one's */
};

/* Takes @bytes (malloc()ed, @n) in any case. On success TIER_ERROR_NONE and *ret; else the error, @refusal its sentence. */
enum tier_error host_build(struct host **ret, const struct host_plan *plan, void *bytes, size_t n, struct refusal *refusal);
/* The same for an instantiation of @base, which lives on and is only read. @plan->ready_to_run says nothing: code that the object
 * brought is for other values. */
enum tier_error host_instantiate(struct host **ret, const struct host_plan *plan, struct host *base, const struct host_knobs *knobs,
				 struct refusal *refusal);
struct host *host_free(struct host *host);
/* The same in @thread, and the store forgets it: unmapping a module of a million instructions takes milliseconds. Nobody may use it
 * any more, and the ledger no longer names it. */
void host_release(struct host *host, struct task_thread *thread);

/* While the module is built: what of an arena it needs; names, and who calls whom. 0, -ENOMEM. */
int host_needs(struct host *host, struct arena_needs *needs);
int host_make_tables(struct host *host);
/* An instantiation uses what its base has. */
void host_borrow(struct host *host, struct host *base);

/* Addresses of .data and .bss */
static inline uint64_t host_data(const struct host *host)
{
	const struct tier_layout *layout = arena_layout((host->base ? host->base : host)->arena);

	return layout->base + layout->data;
}
static inline uint64_t host_bss(const struct host *host)
{
	const struct tier_layout *layout = arena_layout((host->base ? host->base : host)->arena);

	return layout->base + layout->bss;
}

/* -- Knobs: variables of .rodata (host_instance.c) --- */
/* Finds the variable of that name and checks that it holds @value, which *ret gets as it will stand there: as an unsigned number. False
 * with a sentence. */
bool host_find_knob(struct host_knob *ret, const struct host *host, const char *name, uint64_t value, struct refusal *refusal);
/* Adds it where it belongs; false with a sentence: they overlap, or are too many. */
bool host_add_knob(struct host_knobs *knobs, const struct host *host, const struct host_knob *knob, struct refusal *refusal);
bool host_knobs_are_equal(const struct host_knobs *a, const struct host_knobs *b);
/* The image's .rodata with those values: malloc()ed, NULL without memory */
uint8_t *host_rodata_with(const struct image *image, const struct host_knobs *knobs);

/* -- Code that is made here (host_code.c) --- */
#define HOST_INSNS_HUGE 8192u	/* slots from which on tier 0 takes too long for a turn of the loop */

/* As struct core_ops.first and .stub: 0, CORE_E_FULL or -errno. Tier 0 of a huge method and of a body that came later is there
 * already. */
int host_first(struct host *host, const struct core_compile *compile, struct core_result *ret);
int host_stub(struct host *host, uint32_t method, uint32_t cell, uint64_t version, uint64_t code, struct core_code *ret);
/* Tier 0 that counts, of a body for which host_n_profile() is not 0, out of room that first calls leave: likewise */
int host_instrument(struct host *host, const struct core_compile *compile, struct core_code *ret);

/* As struct core_ops.forwarder and .alias */
int host_forwarder(struct host *host, uint64_t target, struct core_code *ret);
void *host_alias(struct host *host, uint64_t address);

/* A method that cannot be compiled at its first call takes its caller with it; one that is not promoted or replaced goes on as
 * it is. So bodies and optimized code get no room but what first calls leave: are there @n bytes of it, alignment included? */
bool host_has_room(const struct host *host, uint64_t n);
/* Whether there is room for code that is beside the ladder: a part of the segment is for promotions, however many loops there are
 * and however often their code is taken away. */
bool host_has_room_beside(const struct host *host);
/* Tier 0 of any instructions; @extra: as baseline_compile() */
int host_compile_tier0(struct host *host, const struct insn *insns, uint32_t n_insns, const struct baseline_extra *extra,
		       struct core_code *ret);

/* While the module is built: what first calls take is kept for them, and code of huge methods is made. -ENOMEM */
void host_owe_first_calls(struct host *host);
int host_compile_ahead(struct host *host);
/* In a successor: the method got what it was owed from a predecessor. */
void host_repay(struct host *host, uint32_t method);
void host_repay_stub(struct host *host, uint32_t method);
/* Code that was made ahead, by method */
struct host_ahead {
	uint32_t method, reserved;
	uint64_t address, size;
};

/* -- What its instructions and attributes say of a method (host_traits.c) --- */
/* As struct core_ops.traits and .n_profile: the core asks at every promotion, hundreds in a turn of the loop */
uint32_t host_traits(const struct host *host, uint32_t method, uint32_t body);
uint32_t host_n_profile(const struct host *host, uint32_t method, uint32_t body);
/* The same from a body's instructions; linear */
uint32_t host_profile_words(const struct host *host, const struct insn *insns, uint32_t n_insns);
/* While the module is built: looks for loops, and says what patchpoints and profiles need; or does without them all, where the
 * span is too small; later the patchpoints' records are written. 0 or -ENOMEM */
int host_measure(struct host *host, struct arena_needs *needs);
void host_forgo(struct host *host, struct arena_needs *needs);
int host_fill_patchpoints(struct host *host);

/* -- Compile jobs (host_job.c) --- */
/* The methods whose bodies a compile job carries, first the one to compile. The compiler decides what of the others it
 * inlines; these bounds only keep jobs small. */
#define HOST_BODIES_MAX JOB_BODIES_MAX
struct host_bodies {
	uint32_t n;
	uint32_t methods[HOST_BODIES_MAX];
};

/* The input of a compile job in a new memfd: the body that the core names with others' current ones that may be inlined into it,
 * each with what was counted about it, and a small .rodata with its pointers. 0 and *bodies, *ret_fd, *ret_n;
 * CORE_E_TOO_LARGE (too much to copy in a turn of the loop), or -errno. */
int host_compile_job(struct host *host, const struct core_compile *compile, struct host_bodies *bodies, int *ret_fd, size_t *ret_n);

/* The output of the compile worker that was given @bodies becomes code of the module. NONE and *ret, which borrows from @bytes
 * (inlined) and owns its sites: free() them; else the reason with a sentence. */
enum tier_reason host_place(struct host *host, const struct host_bodies *bodies, const void *bytes, size_t n,
			    struct core_result *ret, struct refusal *refusal);

/* The same of code that was checked */
enum tier_reason host_place_code(struct host *host, const struct code_result *code, struct core_result *ret, struct refusal *refusal);

/* -- Precompiled code (host_ready.c) --- */
/* While the module is built: looks whether the object's code fits @compiler and the image. */
void host_find_precompiled(struct host *host, const struct compiler *compiler);
/* Whether the method, on its own body, may start at precompiled code; not while a method that was inlined there is replaced. */
bool host_has_precompiled(const struct host *host, uint32_t method);
/* Places it: 0 and *ret, whose arrays are the host's and valid until the next call; CORE_E_FULL, -EBADMSG, -ENOMEM */
int host_ready_to_run(struct host *host, uint32_t method, struct core_result *ret);

/* What was counted about the method's current body, which has these instructions: free() it. It is a hint: NULL when nothing was, and
 * without memory for it. */
struct profile_count *host_profile(const struct host *host, uint32_t method, const struct insn *insns, uint32_t n_insns, uint32_t *ret_n);

/* -- Entry points --- */
/* The method whose call cell lies at @cell, an address in the span; -1: no call cell lies there. Logarithmic. */
int64_t host_slot_method(const struct host *host, uint64_t cell);

/* -- Bodies (host_body.c) --- */
#define HOST_BODY_INSNS_MAX 16384u	/* its tier 0 is compiled within a turn of the loop */
#define HOST_BODY_RODATA_MAX (1u << 20)

struct host_body {
	uint32_t id;			/* as core_rejit() gets it; 0 until host_body_reserve() */
	struct bound_body bound;	/* its .rodata is gone once it was copied */
	uint64_t rodata;		/* address; 0: it has none */
	uint8_t *write;			/* the same in the daemon's alias */
	uint32_t n_profile;		/* as in struct host_method */
	bool has_loops;
	struct core_code tier0;		/* once host_body_compile() returned 0 */
	uint64_t stub;			/* address of the room for tier 0's call-counting stub; 0: no longer free */
	struct calls *calls;		/* its own, as method 0; owned */
	char *signature, *section;	/* as in struct image_method, of its object; owned; signature NULL: unknown */
	uint32_t section_offset, n_params;
	uint64_t signature_hash;
	bool is_kept;			/* the store has its file */
	struct charge memory;		/* of the module's uid */
};

/* Off the loop: method @method of @source, checked and verified, is bound; the host must live, only what never changes of it is
 * looked at. NONE and *ret, or the error with its sentence; @force: whatever the signatures say. */
enum tier_error host_bind(struct host_body **ret, const struct host *host, uint32_t target, const struct image *source, uint32_t method,
			  bool force, struct refusal *refusal);
/* Gives the body its id, and its .rodata a place in the code segment, to which nothing leads yet. NONE, or CODE_FULL when there
 * is no room for all that the body takes there: then it took nothing. */
enum tier_error host_body_reserve(struct host *host, struct host_body *body, const struct image *source);
/* Off the loop, as above: its .rodata gets there, its instructions learn where. @source, @method: as it was bound. */
void host_body_fill(struct host_body *body, const struct image *source, uint32_t method);
/* In the loop again: its tier 0 is made and its stub gets room, so that neither its first call nor the counting of its calls
 * fails for want of it. 0, CORE_E_FULL (others came first), -ENOMEM. */
int host_body_compile(struct host *host, struct host_body *body);
/* The method's newest body is @body (or NULL) from now on. Returns the one before, which the caller owns then. Cannot fail once
 * host_bodies_reserve() returned 0 (or -ENOMEM). */
struct host_body *host_body_exchange(struct host *host, uint32_t method, struct host_body *body);
int host_bodies_reserve(struct host *host);
struct host_body *host_body_free(struct host_body *body);
void host_body_deinit(struct host_body *body);	/* all but its charge, which is the loop's; idempotent */
/* Whether the method still has the body called @id */
bool host_has_body(const struct host *host, uint32_t method, uint32_t id);
/* The body called @id of the method, which has it; NULL: the image's (@id 0) */
const struct host_body *host_body_of(const struct host *host, uint32_t method, uint32_t id);
/* The one that calls run now; NULL likewise */
const struct host_body *host_body_current(const struct host *host, uint32_t method);
