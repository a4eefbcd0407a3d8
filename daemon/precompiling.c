/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "precompiling.h"
#include "util/base.h"
#include "util/error.h"
#include "util/log.h"

/* An object may have hundreds of megabytes: its way from the pool's memory into the client's memfd is the thread's. */

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

struct object {
	struct list link; /* precompiling.objects */
	struct precompiling *precompiling;
	struct server_load *answer_to;
	struct pool_job *job;
	struct task task;
	bool is_canceled;
	void *bytes; /* with code inside */
	size_t n;
	int fd; /* or -errno */
};

static void object_end(struct object *object, enum tier_error error, const char *text)
{
	list_remove(&object->link);
	server_precompiled(object->answer_to, error ? -1 : object->fd, object->n, error, text);
	close_fd(object->fd);
	free(object->bytes);
	free(object);
}

static int object_memfd(void)
{
	int fd = memfd_create("tierd-object", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("tierd-object", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd < 0 ? -errno : fd;
}

static int object_write(const uint8_t *bytes, size_t n)
{
	_cleanup_(closep) int fd = object_memfd();

	for (size_t done = 0; fd >= 0 && done < n;) {
		ssize_t put = pwrite(fd, bytes + done, n - done, done);

		if (put < 0 && errno != EINTR)
			return -errno;
		done += MAX(put, (ssize_t)0);
	}
	if (fd >= 0)
		fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	return TAKE_FD(fd);
}

/* In the thread */
static void object_copy(struct task *task)
{
	struct object *object = container_of(task, struct object, task);

	object->fd = object_write(object->bytes, object->n);
	free(TAKE_PTR(object->bytes));
}

/* Back in the loop */
static void object_copied(struct task *task)
{
	struct object *object = container_of(task, struct object, task);

	if (!task->ran || object->is_canceled)
		return object_end(object, TIER_ERROR_CANCELED, task->ran ? "nobody waits for it" : "the daemon ends");
	if (object->fd < 0)
		return object_end(object, TIER_ERROR_NO_MEMORY, strerrordesc_np(-object->fd));
	object_end(object, TIER_ERROR_NONE, NULL);
}

static void object_compiled(void *context, enum tier_reason reason, void *bytes, size_t n,
			    const struct refusal *refusal)
{
	struct object *object = context;

	if (reason == TIER_REASON_COMPILE_FAILED) /* the worker's own word about the object */
		return object_end(object, TIER_ERROR_BAD_MODULE, refusal->text);
	if (reason)
		return object_end(object, TIER_ERROR_WORKER, *refusal->text ? refusal->text : tier_reason_name(reason));
	object->bytes = bytes;
	object->n = n;
	task_submit(object->precompiling->checker, &object->task, object_copy, object_copied);
}

int precompiling_start(struct precompiling *precompiling, uid_t uid, int object_fd, uint64_t n,
		       struct server_load *answer_to)
{
	struct object *object = calloc(1, sizeof(*object));
	int r;

	if (!object)
		return TIER_ERROR_NO_MEMORY;
	*object = (struct object){ .precompiling = precompiling, .answer_to = answer_to, .fd = -1 };
	object->task = (struct task)TASK_NULL(object->task);
	list_init(&object->link);
	r = pool_submit(precompiling->pool, uid, JOB_PRECOMPILE, object_fd, n, object_compiled, object, &object->job);
	if (r) {
		free(object);
		log_line(LOG_WARNING, "cannot hand an object file to a worker: %s", strerrordesc_np(-r));
		return TIER_ERROR_WORKER;
	}
	list_append(&precompiling->objects, &object->link);
	return TIER_ERROR_NONE;
}

/* The worker is stopped; the thread is not, it ends soon by itself. */
void precompiling_cancel(struct precompiling *precompiling, const struct server_load *answer_to)
{
	struct list *pos, *after;

	list_for_each_safe(pos, after, &precompiling->objects)
	{
		struct object *object = list_entry(pos, struct object, link);

		if (object->answer_to != answer_to)
			continue;
		object->is_canceled = true;
		if (object->task.under_way)
			return;
		pool_cancel(object->job);
		object_end(object, TIER_ERROR_CANCELED, "nobody waits for it");
		return;
	}
}

void precompiling_init(struct precompiling *precompiling)
{
	*precompiling = (struct precompiling){ .objects = LIST_INIT(precompiling->objects) };
}

void precompiling_stop(struct precompiling *precompiling)
{
	struct list *first;

	while ((first = list_first(&precompiling->objects)))
		object_end(list_entry(first, struct object, link), TIER_ERROR_CANCELED, "the daemon ends");
}
