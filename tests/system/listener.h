/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Another tracer on the probe page, as tierd(8) says how to make one: a kernel program on each site that tells its arguments */

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdlib.h>
#include "system/raw.h"

#define LISTENER_MAX 65536u

struct told {
	uint64_t site, args[5];
	uint32_t tid, pid;
};

struct listener {
	struct bpf_object *object;
	struct bpf_link *links[_TIER_PROBE_N];
	struct ring_buffer *ring;
	struct told *told;
	size_t n;
};

/* Registers lie in the kernel's order; helpers are called by number. */
static const char listener_source[] =
	"typedef unsigned long u64; typedef unsigned int u32;\n"
	"struct regs { u64 r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi; };\n"
	"struct told { u64 site, args[5]; u64 pid_tgid; };\n"
	"struct { int (*type)[27]; int (*max_entries)[1 << 22]; } ring __attribute__((section(\".maps\"), used));\n"
	"static long (*output)(void *, void *, u64, u64) = (void *)130;\n"
	"static u64 (*pid_tgid)(void) = (void *)14;\n"
	"static u64 (*cookie)(void *) = (void *)174;\n"
	"char terms[] __attribute__((section(\"license\"), used)) = \"GPL\";\n"
	"__attribute__((section(\"uprobe\"), used)) int tell(struct regs *r)\n"
	"{\n"
	"	struct told told = { cookie(r), { r->rdi, r->rsi, r->rdx, r->rcx, r->r8 }, pid_tgid() };\n"
	"	output(&ring, &told, sizeof(told), 0);\n"
	"	return 0;\n"
	"}\n";

static inline int listener_hear(void *context, void *data, size_t n)
{
	struct listener *listener = context;

	assert_true(n == sizeof(struct told) && listener->n < LISTENER_MAX);
	memcpy(&listener->told[listener->n++], data, n);
	return 0;
}

/* By the path that stats tell, and by the sites' names or their offsets */
static inline void listener_start(struct listener *listener, const struct daemon *daemon, const char *path, bool by_name)
{
	static const char *const names[] = {
#define LISTENER_NAME(name, number, text) [number] = text,
		TIER_PROBE_LIST(LISTENER_NAME)
	};
	struct bpf_program *program;

	*listener = (struct listener){ .told = calloc(LISTENER_MAX, sizeof(struct told)) };
	listener->object = bpf_object__open_file(bpf_compile(daemon->folder, "listener", listener_source, "-g"), NULL);
	assert_non_null(listener->object);
	assert_int_equal(bpf_object__load(listener->object), 0);
	program = bpf_object__find_program_by_name(listener->object, "tell");
	assert_non_null(program);
	for (unsigned int i = 0; i < _TIER_PROBE_N; i++) {
		LIBBPF_OPTS(bpf_uprobe_opts, opts, .bpf_cookie = i, .func_name = by_name ? names[i] : NULL);

		listener->links[i] = bpf_program__attach_uprobe_opts(program, -1, path, by_name ? 0 : 2048 + 64 * i, &opts);
		if (!listener->links[i])
			fail_msg("%s at %s: %s", names[i], path, strerror(errno));
	}
	listener->ring = ring_buffer__new(bpf_object__find_map_fd_by_name(listener->object, "ring"), listener_hear, listener, NULL);
	assert_non_null(listener->ring);
}

static inline void listener_stop(struct listener *listener)
{
	ring_buffer__free(listener->ring);
	for (unsigned int i = 0; i < _TIER_PROBE_N; i++)
		bpf_link__destroy(listener->links[i]);
	bpf_object__close(listener->object);
	free(listener->told);
}

static inline void listener_read(struct listener *listener)
{
	assert_true(ring_buffer__consume(listener->ring) >= 0);
}

/* The next of that site from *at on; NULL: no more */
static inline const struct told *listener_next(const struct listener *listener, enum tier_probe probe, size_t *at)
{
	while (*at < listener->n)
		if (listener->told[(*at)++].site == probe)
			return &listener->told[*at - 1];
	return NULL;
}

static inline size_t listener_count(const struct listener *listener, enum tier_probe probe)
{
	size_t n = 0, at = 0;

	while (listener_next(listener, probe, &at))
		n++;
	return n;
}
