/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "host_file.h"
#include "host_kept.h"
#include "util/base.h"
#include "util/error.h"
#include "util/log.h"

/* -- Files --- */
static int write_at(int fd, const void *bytes, size_t n, uint64_t offset)
{
	for (size_t done = 0; done < n;) {
		ssize_t put = pwrite(fd, (const uint8_t *)bytes + done, n - done, offset + done);

		if (put < 0 && errno != EINTR)
			return error_origin(-errno);
		done += MAX(put, (ssize_t)0);
	}
	return 0;
}

struct part { const void *bytes; size_t n; };

static int file_write(const char *name, const struct part *parts, unsigned int n_parts)
{
	_cleanup_(closep) int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	uint64_t offset = 0;
	int r;

	if (fd < 0)
		return error_origin(-errno);
	for (unsigned int i = 0; i < n_parts; i++) {
		r = write_at(fd, parts[i].bytes, parts[i].n, offset);
		if (r)
			return error_fold(r);
		offset += parts[i].n;
	}
	if (fcntl(fd, F_ADD_SEALS, FILE_SEALS) < 0)
		return error_origin(-errno);
	return TAKE_FD(fd);
}

int host_save(const struct host *host)
{
	struct host_file file = {
		.magic = HOST_FILE_MAGIC, .id = host->id, .base = host->base ? host->base->id : 0,
		.n_image = host->base ? 0 : host->image.header->size, .kind = host->base ? HOST_INSTANCE : HOST_IMAGE,
		.n_ahead = host->n_ahead, .pgo = host->config.pgo, .osr = host->config.osr,
		.osr_hit_limit = host->config.osr_hit_limit, .osr_counter_bump = host->config.osr_counter_bump,
		.osr_initial_counter = host->config.osr_initial_counter, .ready_to_run = host->ready_to_run,
		.compiler = host->compiler, .n_knobs = host->knobs.n,
	};
	const struct part parts[] = {
		{ &file, sizeof(file) }, { host->ahead, host->n_ahead * sizeof(*host->ahead) }, { host->bytes, file.n_image },
	};

	for (uint32_t i = 0; i < host->knobs.n; i++) {
		file.knobs[i].object = host->knobs.knobs[i].object;
		file.knobs[i].value = host->knobs.knobs[i].value;
	}
	return file_write("tierd-host", parts, ARRAY_SIZE(parts));
}

int host_body_save(const struct host *host, uint32_t method, const struct host_body *body, const void *bytes, size_t n,
		   uint32_t source_method)
{
	const struct body_file file = {
		.magic = BODY_FILE_MAGIC, .module = host->id, .n_image = n, .rodata = body->rodata, .tier0 = body->tier0.address,
		.n_tier0 = body->tier0.size, .stub = body->stub, .method = method, .id = body->id, .source_method = source_method,
	};
	const struct part parts[] = { { &file, sizeof(file) }, { bytes, n } };

	return file_write("tierd-body", parts, ARRAY_SIZE(parts));
}

/* -- Names --- */
void host_kept_name(char name[STORE_NAME_MAX], uint64_t id, const char *part)
{
	snprintf(name, STORE_NAME_MAX, "m%llu.%s", (unsigned long long)id, part);
}

void host_kept_body_name(char name[STORE_NAME_MAX], uint64_t id, uint32_t body)
{
	snprintf(name, STORE_NAME_MAX, "m%llu.b%u", (unsigned long long)id, body);
}

const char *host_kept_segment(enum tier_segment segment)
{
	static const char *const names[] = { "code", "records", "counters", "private" };

	_Static_assert(ARRAY_SIZE(names) == _TIER_SEGMENT_N, "name every segment");
	return names[segment];
}

/* -- Modules --- */
static int put_all(const struct host *host, int host_fd)
{
	char name[STORE_NAME_MAX];
	int r = 0;

	for (int i = 0; i < _TIER_SEGMENT_N && !r; i++) {
		host_kept_name(name, host->id, host_kept_segment(i));
		r = store_put(host->store, name, arena_own_fd(host->arena, i));
	}
	host_kept_name(name, host->id, "host");
	return r ? r : store_put(host->store, name, host_fd);
}

void host_keep(struct host *host, struct store *store)
{
	_cleanup_(closep) int fd = -1;
	int r;

	if (!store || !store_is_kept(store))
		return;
	fd = host_save(host);
	host->store = store;
	r = fd < 0 ? fd : put_all(host, fd);
	if (!r)
		return;
	log_line(LOG_WARNING, "module %llu will not outlive this daemon: %s", (unsigned long long)host->id, strerrordesc_np(-r));
	host_unkeep(host);
}

void host_unkeep(struct host *host)
{
	struct store *store = TAKE_PTR(host->store);
	char name[STORE_NAME_MAX];

	if (!store)
		return;
	for (int i = 0; i < _TIER_SEGMENT_N; i++) {
		host_kept_name(name, host->id, host_kept_segment(i));
		store_remove(store, name);
	}
	host_kept_name(name, host->id, "host");
	store_remove(store, name);
	for (uint32_t method = 0; host->bodies && method < host->image.n_methods; method++)
		if (host->bodies[method] && host->bodies[method]->is_kept)
			host_unkeep_body(store, NULL, host->id, host->bodies[method]->id);
}

/* -- Bodies --- */
void host_keep_body(const struct host *host, uint32_t method, struct host_body *body, const void *bytes, size_t n,
		    uint32_t source_method)
{
	_cleanup_(closep) int fd = -1;
	char name[STORE_NAME_MAX];
	int r;

	if (!host->store)
		return;
	fd = host_body_save(host, method, body, bytes, n, source_method);
	host_kept_body_name(name, host->id, body->id);
	r = fd < 0 ? fd : store_put(host->store, name, fd);
	body->is_kept = !r;
	if (r)
		log_line(LOG_WARNING, "module %llu will not outlive this daemon: the new body of its method %u cannot be kept: %s",
			 (unsigned long long)host->id, method, strerrordesc_np(-r));
}

struct removal {
	struct task task;
	struct store *store;
	char name[STORE_NAME_MAX];
};

static void removal_run(struct task *task)
{
	struct removal *removal = container_of(task, struct removal, task);

	store_remove(removal->store, removal->name);
}

/* What never ran because the daemon ends is left to the successor, which drops it. */
static void removal_done(struct task *task)
{
	free(container_of(task, struct removal, task));
}

void host_unkeep_body(struct store *store, struct task_thread *thread, uint64_t id, uint32_t body)
{
	struct removal *removal = thread ? calloc(1, sizeof(*removal)) : NULL;
	char name[STORE_NAME_MAX];

	host_kept_body_name(name, id, body);
	if (!removal) {
		store_remove(store, name);
		return;
	}
	*removal = (struct removal){ .store = store };
	removal->task = (struct task)TASK_NULL(removal->task);
	strcpy(removal->name, name);
	task_submit(thread, &removal->task, removal_run, removal_done);
}
