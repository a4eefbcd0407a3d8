/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "caching.h"
#include "cache/agree.h"
#include "util/base.h"
#include "util/error.h"
#include "util/log.h"
#include "worker/job.h"

/* The profiles of an entry are those of the job's bodies, one after the other: a number, then so many counts. Whatever of them
 * does not fit the job is as good as nothing.
 *
 * A body that nobody has counted in this daemon gets the profile that was known of it: that is how profiles survive. */

#define COMPLAINT_NS 60000000000u

struct key_head {
	char word[8];
	uint32_t uid, reserved;
	struct compiler compiler;
};

struct lookup {
	struct caching *caching;
	struct task task;
	lookup_fn fn;		/* NULL: nobody waits */
	void *context;
	struct key_head head;
	int fd;			/* the job */
	size_t n;
	struct entry entry;	/* the parts are the lookup's own */
	bool is_refused;	/* what was found is to go */
	int error;		/* of keeping */
};

static void lookup_free(struct lookup *lookup)
{
	close_fd(lookup->fd);
	free((void *)lookup->entry.key.bytes);
	free((void *)lookup->entry.profiles.bytes);
	free((void *)lookup->entry.code.bytes);
	free(lookup);
}

/* -- The job, its key, its profiles: in the thread --- */
static void *read_job(int fd, size_t n)
{
	uint8_t *bytes = malloc(n);

	for (size_t done = 0; bytes && done < n;) {
		ssize_t got = pread(fd, bytes + done, n - done, done);

		if (got <= 0) {
			free(bytes);
			return NULL;
		}
		done += got;
	}
	return bytes;
}

/* The job without profiles, behind the head */
static bool make_key(struct entry_part *ret, const struct key_head *head, const struct job_compile *job)
{
	_cleanup_(freep) struct job_body *bodies = calloc(job->n_bodies, sizeof(*bodies));
	_cleanup_(freep) void *bytes = NULL;
	struct job_compile bare = *job;
	uint8_t *key;
	size_t n;

	if (!bodies)
		return false;
	memcpy(bodies, job->bodies, job->n_bodies * sizeof(*bodies));
	for (uint32_t i = 0; i < job->n_bodies; i++) {
		bodies[i].profile = NULL;
		bodies[i].n_profile = 0;
	}
	bare.bodies = bodies;
	if (job_put_compile(&bare, &bytes, &n))
		return false;
	key = malloc(sizeof(*head) + n);
	if (!key)
		return false;
	memcpy(key, head, sizeof(*head));
	memcpy(key + sizeof(*head), bytes, n);
	*ret = (struct entry_part){ key, sizeof(*head) + n };
	return true;
}

static bool put_profiles(struct entry_part *ret, const struct job_compile *job)
{
	size_t n = job->n_bodies * sizeof(uint64_t);
	uint8_t *bytes, *at;

	for (uint32_t i = 0; i < job->n_bodies; i++)
		n += job->bodies[i].n_profile * sizeof(struct profile_count);
	bytes = at = malloc(n);
	if (!bytes)
		return false;
	for (uint32_t i = 0; i < job->n_bodies; i++) {
		const struct job_body *body = &job->bodies[i];
		const uint64_t n_counts = body->n_profile;

		memcpy(at, &n_counts, sizeof(n_counts));
		at += sizeof(n_counts);
		if (n_counts)
			memcpy(at, body->profile, n_counts * sizeof(*body->profile));
		at += n_counts * sizeof(*body->profile);
	}
	*ret = (struct entry_part){ bytes, n };
	return true;
}

/* The next body's counts; false: there are no such. */
static bool next_profile(struct entry_part *left, const struct profile_count **ret, uint64_t *ret_n)
{
	uint64_t n;

	if (left->n < sizeof(n))
		return false;
	memcpy(&n, left->bytes, sizeof(n));
	left->n -= sizeof(n);
	if (n > left->n / sizeof(struct profile_count))
		return false;
	*ret = (const void *)((const uint8_t *)left->bytes + sizeof(n));
	*ret_n = n;
	left->bytes = *ret + n;
	left->n -= n * sizeof(struct profile_count);
	return true;
}

static struct profile_count *copy_counts(const struct profile_count *counts, uint64_t n)
{
	struct profile_count *copy = malloc(n * sizeof(*copy));

	if (copy)
		memcpy(copy, counts, n * sizeof(*copy));
	return copy;
}

/* Whether the body's profile agrees with what was @known; *ret_merged, if not NULL, says what both say. */
static bool agree_body(const struct job_body *body, const struct profile_count *known, uint64_t n_known,
		       struct profile_count **ret_merged, uint32_t *ret_n)
{
	*ret_merged = NULL;
	if (!n_known) {
		for (uint32_t i = 0; i < body->n_profile; i++)
			if (body->profile[i].n >= AGREE_SEEN)
				return false;
		return true;
	}
	if (body->n_profile && (body->n_profile != n_known || !agree_sites(body->profile, known, n_known)))
		return false;
	if (n_known > UINT32_MAX)
		return false;
	*ret_n = n_known;
	*ret_merged = copy_counts(known, n_known);
	if (!body->n_profile || !*ret_merged)
		return *ret_merged;
	agree_add(*ret_merged, body->profile, n_known);
	return agree(body->profile, known, n_known);
}

/* Puts into the job what was known before. Returns whether the code that was made with that is what the job asks for. @merged:
 * what the caller frees, by body. */
static bool merge_profiles(struct job_compile *job, const struct entry_part *profiles, struct profile_count **merged)
{
	struct entry_part left = *profiles;
	bool is_same = true;

	for (uint32_t i = 0; i < job->n_bodies; i++) {
		struct job_body *body = &job->bodies[i];
		const struct profile_count *known;
		uint64_t n_known;
		uint32_t n;

		if (!next_profile(&left, &known, &n_known))
			return false;
		is_same &= agree_body(body, known, n_known, &merged[i], &n);
		if (!merged[i])
			continue;
		body->profile = merged[i];
		body->n_profile = n;
	}
	return is_same && !left.n;
}

static int memfd_of(const void *bytes, size_t n)
{
	_cleanup_(closep) int fd = memfd_create("tierd-compile", MFD_CLOEXEC);

	for (size_t done = 0; fd >= 0 && done < n;) {
		ssize_t put = pwrite(fd, (const uint8_t *)bytes + done, n - done, done);

		if (put < 0 && errno != EINTR)
			return -errno;
		done += MAX(put, (ssize_t)0);
	}
	return TAKE_FD(fd);
}

/* The worker gets the job with what was known. False: that is not sound. */
static bool replace_job(struct lookup *lookup, const struct job_compile *job)
{
	_cleanup_(freep) void *bytes = NULL;
	struct job_compile again = { .bodies = NULL };
	struct refusal refusal;
	size_t n;
	int fd;

	if (job_put_compile(job, &bytes, &n) || !job_get_compile(&again, bytes, n, &refusal))
		return false;
	free(again.bodies);
	fd = memfd_of(bytes, n);
	if (fd < 0)
		return false;
	close_fd(lookup->fd);
	lookup->fd = fd;
	lookup->n = n;
	return true;
}

static void take_code(struct lookup *lookup, const struct entry_part *code)
{
	void *bytes = malloc(MAX(code->n, (size_t)1));

	if (!bytes)
		return;
	memcpy(bytes, code->bytes, code->n);
	lookup->entry.code = (struct entry_part){ bytes, code->n };
}

static void look_among(struct lookup *lookup, struct job_compile *job)
{
	struct profile_count *merged[JOB_BODIES_MAX] = { NULL };
	struct job_body own[JOB_BODIES_MAX];
	_cleanup_(freep) void *block = NULL;
	struct entry found;

	if (job->n_bodies > JOB_BODIES_MAX || !make_key(&lookup->entry.key, &lookup->head, job))
		return;
	memcpy(own, job->bodies, job->n_bodies * sizeof(*own));
	if (cache_find(lookup->caching->cache, lookup->head.uid, &lookup->entry.key, &found, &block)) {
		if (merge_profiles(job, &found.profiles, merged))
			take_code(lookup, &found.code);
		else if (!replace_job(lookup, job))
			memcpy(job->bodies, own, job->n_bodies * sizeof(*own));
	}
	put_profiles(&lookup->entry.profiles, job);
	for (uint32_t i = 0; i < job->n_bodies; i++)
		free(merged[i]);
}

static void look(struct task *task)
{
	struct lookup *lookup = container_of(task, struct lookup, task);
	_cleanup_(freep) void *bytes = read_job(lookup->fd, lookup->n);
	struct job_compile job = { .bodies = NULL };
	struct refusal refusal;

	if (bytes && job_get_compile(&job, bytes, lookup->n, &refusal))
		look_among(lookup, &job);
	free(job.bodies);
}

static void looked(struct task *task)
{
	struct lookup *lookup = container_of(task, struct lookup, task);

	if (!lookup->fn) {
		lookup_free(lookup);
		return;
	}
	if (lookup->entry.code.bytes)
		lookup->caching->n_hits++;
	else
		lookup->caching->n_misses++;
	lookup->fn(lookup->context, lookup);
}

/* -- Keeping --- */
static void keep(struct task *task)
{
	struct lookup *lookup = container_of(task, struct lookup, task);

	if (lookup->is_refused)
		cache_drop(lookup->caching->cache, lookup->head.uid, &lookup->entry.key);
	if (lookup->entry.code.bytes)
		lookup->error = cache_keep(lookup->caching->cache, lookup->head.uid, &lookup->entry);
}

static void kept(struct task *task)
{
	struct lookup *lookup = container_of(task, struct lookup, task);
	struct caching *caching = lookup->caching;
	const uint64_t now = clock_now_ns();

	if (!task->ran)		/* the daemon ends, and has time for it */
		keep(task);
	if (lookup->error && (!caching->complained_ns || now - caching->complained_ns >= COMPLAINT_NS)) {
		caching->complained_ns = now;
		log_line(LOG_WARNING, "code cannot be kept in the cache: %s", strerrordesc_np(-lookup->error));
	}
	lookup_free(lookup);
}

/* -- The loop's side --- */
int caching_look(struct caching *caching, uid_t uid, const struct compiler *compiler, int job_fd, size_t n, lookup_fn fn,
		 void *context, struct lookup **ret)
{
	struct lookup *lookup = calloc(1, sizeof(*lookup));

	if (!lookup)
		return error_origin(-ENOMEM);
	*lookup = (struct lookup){
		.caching = caching, .fn = fn, .context = context, .n = n, .fd = fcntl(job_fd, F_DUPFD_CLOEXEC, 0),
		.head = { .word = "TIERKEY", .uid = uid, .compiler = *compiler },
	};
	lookup->task = (struct task)TASK_NULL(lookup->task);
	if (lookup->fd < 0) {
		free(lookup);
		return error_origin(-errno);
	}
	task_submit(caching->thread, &lookup->task, look, looked);
	*ret = lookup;
	return 0;
}

void *lookup_take_code(struct lookup *lookup, size_t *ret_n)
{
	void *bytes = (void *)lookup->entry.code.bytes;

	*ret_n = lookup->entry.code.n;
	lookup->entry.code = (struct entry_part){ NULL, 0 };
	return bytes;
}

int lookup_job(const struct lookup *lookup, size_t *ret_n)
{
	*ret_n = lookup->n;
	return lookup->fd;
}

void caching_refuse(struct lookup *lookup)
{
	lookup->is_refused = true;
}

void caching_keep(struct lookup *lookup, void *code, size_t n)
{
	lookup->entry.code = (struct entry_part){ code, n };
	if (!lookup->entry.key.bytes || !lookup->entry.profiles.bytes || !lookup->caching->thread)
		lookup_free(lookup);
	else
		task_submit(lookup->caching->thread, &lookup->task, keep, kept);
}

void caching_forget(struct lookup *lookup)
{
	if (!lookup)
		return;
	lookup->fn = NULL;
	if (lookup->task.under_way)
		return;
	if (lookup->is_refused && lookup->caching->thread)
		task_submit(lookup->caching->thread, &lookup->task, keep, kept);
	else
		lookup_free(lookup);
}

/* -- The whole --- */
static const char *why_not(int r)
{
	switch (r) {
	case -EBUSY:
		return "another daemon uses it";
	case -EPERM:
		return "it is another user's, or others may write there";
	case -ELOOP:
		return "it is a symbolic link";
	default:
		return strerrordesc_np(-r);
	}
}

int caching_open(struct caching *caching, struct dispatch *dispatch, const char *path, uint64_t n_bytes_max)
{
	int r;

	r = cache_open(&caching->cache, path, n_bytes_max);
	if (!r)
		r = task_thread_new(&caching->thread, dispatch, "cache");
	if (r) {
		log_line(LOG_WARNING, "code is not kept in %s: %s", path, why_not(r));
		caching->cache = cache_close(caching->cache);
	}
	return r;
}

void caching_stop(struct caching *caching)
{
	struct task_thread *thread = TAKE_PTR(caching->thread);

	task_thread_free(thread);
}

void caching_close(struct caching *caching)
{
	caching->cache = cache_close(caching->cache);
}

void caching_figures(const struct caching *caching, struct caching_figures *ret)
{
	*ret = (struct caching_figures){ .n_hits = caching->n_hits, .n_misses = caching->n_misses };
	if (caching->cache)
		cache_figures(caching->cache, &ret->cache);
}
