/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>
#include "util/base.h"
#include "worker/channel.h"
#include "worker/worker.h"

/* The daemon's side of a worker that was taken over: the test holds the worker's end of the socket and says what no
 * honest worker would. A child that only waits stands for the process. */

#define JOB 7u
#define PATIENCE_NS 20000000000u

struct fixture {
	struct dispatch dispatch;
	struct graveyard graveyard;
	struct worker *worker;
	int theirs;		/* the worker's end */
	int input;
	/* what came back */
	bool done, gone, usable;
	enum tier_reason reason;
	void *bytes;
	size_t n;
	struct refusal refusal;
};

static void on_done(struct worker *worker, enum tier_reason reason, void *bytes, size_t n, const struct refusal *refusal,
		    bool usable)
{
	struct fixture *fixture = worker->context;

	assert_false(fixture->done);
	fixture->done = true;
	fixture->usable = usable;
	fixture->reason = reason;
	fixture->bytes = bytes;
	fixture->n = n;
	if (refusal)
		fixture->refusal = *refusal;
	if (!usable)
		fixture->worker = worker_free(worker);
}

static void on_gone(struct worker *worker)
{
	struct fixture *fixture = worker->context;

	fixture->gone = true;
	fixture->worker = worker_free(worker);
}

static int make_child(pid_t *ret)
{
	int pidfd;

	*ret = fork();
	if (!*ret) {
		for (;;)
			pause();
	}
	pidfd = syscall(SYS_pidfd_open, *ret, 0);
	assert_true(pidfd >= 0);
	return pidfd;
}

static int setup_job(void **state, enum job_kind kind, uint64_t n_input)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	int sockets[2];
	int pidfd;
	pid_t pid;

	assert_int_equal(dispatch_init(&fixture->dispatch), 0);
	graveyard_init(&fixture->graveyard, &fixture->dispatch);
	pidfd = make_child(&pid);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
	assert_int_equal(worker_new(&fixture->worker, &fixture->dispatch, &fixture->graveyard, pid, sockets[0], pidfd, on_done,
				    on_gone, fixture), 0);
	fixture->theirs = sockets[1];
	fixture->input = memfd_create("input", MFD_CLOEXEC);
	assert_true(worker_assign(fixture->worker, kind, JOB, fixture->input, n_input, PATIENCE_NS));
	*state = fixture;
	return 0;
}

static int setup(void **state) { return setup_job(state, JOB_COMPILE, 0); }
static int setup_load(void **state) { return setup_job(state, JOB_LOAD, 4 << 20); }

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	worker_free(fixture->worker);
	graveyard_deinit(&fixture->graveyard);
	dispatch_deinit(&fixture->dispatch);
	close_fd(fixture->theirs);
	close(fixture->input);
	free(fixture->bytes);
	free(fixture);
	return 0;
}

static void run(struct fixture *fixture)
{
	uint64_t deadline = clock_now_ns() + PATIENCE_NS;

	while (!fixture->done && !fixture->gone) {
		assert_true(clock_now_ns() < deadline);
		assert_int_equal(dispatch_turn(&fixture->dispatch, 100), 0);
	}
}

static void say(struct fixture *fixture, const struct job_reply *reply, int fd)
{
	assert_int_equal(channel_send(fixture->theirs, reply, sizeof(*reply), &fd, fd >= 0), 0);
}

static int memory_of(const void *bytes, size_t n)
{
	int fd = memfd_create("output", MFD_CLOEXEC);

	assert_int_equal(pwrite(fd, bytes, n, 0), n);
	return fd;
}

static void assert_refused(struct fixture *fixture, const char *why)
{
	run(fixture);
	assert_int_equal(fixture->reason, TIER_REASON_RESULT_REFUSED);
	assert_false(fixture->usable);
	assert_null(fixture->bytes);
	if (!strstr(fixture->refusal.text, why))
		fail_msg("'%s' does not say '%s'", fixture->refusal.text, why);
}

static void an_answer_is_copied_and_the_worker_goes_on(void **state)
{
	struct fixture *fixture = *state;
	int fd = memory_of("output!", 7);

	say(fixture, &(struct job_reply){ .id = JOB, .ok = 1, .n_output = 7 }, fd);
	run(fixture);
	close(fd);
	assert_int_equal(fixture->reason, TIER_REASON_NONE);
	assert_true(fixture->usable);
	assert_int_equal(fixture->n, 7);
	assert_memory_equal(fixture->bytes, "output!", 7);
}

static void a_large_output_is_copied_in_many_short_turns(void **state)
{
	struct fixture *fixture = *state;
	size_t n = 40 << 20;
	uint8_t *bytes = malloc(n);
	int fd;

	for (size_t i = 0; i < n; i++)
		bytes[i] = i * 7;
	fd = memory_of(bytes, n);
	say(fixture, &(struct job_reply){ .id = JOB, .ok = 1, .n_output = n }, fd);
	run(fixture);
	assert_memory_equal(fixture->bytes, bytes, n);
	assert_true(fixture->dispatch.n_turns > 100);
	close(fd);
	free(bytes);
}

static void a_sentence_without_an_end_gets_one(void **state)
{
	struct fixture *fixture = *state;
	struct job_reply reply = { .id = JOB };

	memset(reply.refusal.text, 'x', sizeof(reply.refusal.text));
	say(fixture, &reply, -1);
	run(fixture);
	assert_int_equal(fixture->reason, TIER_REASON_COMPILE_FAILED);
	assert_int_equal(strlen(fixture->refusal.text), sizeof(reply.refusal.text) - 1);
	assert_true(fixture->usable);
}

static void the_last_answer_of_a_worker_counts(void **state)
{
	struct fixture *fixture = *state;
	int fd = memory_of("output!", 7);

	say(fixture, &(struct job_reply){ .id = JOB, .ok = 1, .n_output = 7, .flags = JOB_REPLY_LAST }, fd);
	close(fd);
	kill(fixture->worker->pid, SIGKILL);
	run(fixture);
	assert_int_equal(fixture->reason, TIER_REASON_NONE);
	assert_false(fixture->usable);
}

static void an_answer_to_another_question_is_refused(void **state)
{
	struct fixture *fixture = *state;

	say(fixture, &(struct job_reply){ .id = JOB + 1 }, -1);
	assert_refused(fixture, "not asked");
}

static void an_output_that_is_not_there_is_refused(void **state)
{
	struct fixture *fixture = *state;

	say(fixture, &(struct job_reply){ .id = JOB, .ok = 1, .n_output = 7 }, -1);
	assert_refused(fixture, "no memfd");
}

static void an_output_of_absurd_size_is_refused(void **state)
{
	struct fixture *fixture = *state;
	int fd = memory_of("x", 1);

	say(fixture, &(struct job_reply){ .id = JOB, .ok = 1, .n_output = UINT64_MAX }, fd);
	close(fd);
	assert_refused(fixture, "acceptable size");
}

static void an_output_shorter_than_announced_is_refused(void **state)
{
	struct fixture *fixture = *state;
	int fd = memory_of("four", 4);

	say(fixture, &(struct job_reply){ .id = JOB, .ok = 1, .n_output = 5 }, fd);
	close(fd);
	assert_refused(fixture, "shorter");
}

static void an_output_that_could_make_the_daemon_wait_is_refused(void **state)
{
	struct fixture *fixture = *state;
	int ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	say(fixture, &(struct job_reply){ .id = JOB, .ok = 1, .n_output = 5 }, ends[0]);
	assert_refused(fixture, "no memfd");
	close(ends[0]);
	close(ends[1]);
}

static void an_answer_of_the_wrong_size_is_refused(void **state)
{
	struct fixture *fixture = *state;
	char bytes[sizeof(struct job_reply) + 1] = { 0 };

	assert_int_equal(channel_send(fixture->theirs, bytes, sizeof(bytes), NULL, 0), 0);
	assert_refused(fixture, "wrong size");
}

static int count_descriptors(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void too_many_descriptors_are_refused_and_closed(void **state)
{
	struct fixture *fixture = *state;
	int fds[2] = { memory_of("x", 1), memory_of("y", 1) };
	int before = count_descriptors();

	assert_int_equal(channel_send(fixture->theirs, &(struct job_reply){ .id = JOB, .ok = 1, .n_output = 1 },
				      sizeof(struct job_reply), fds, 2), 0);
	assert_refused(fixture, "too many descriptors");
	graveyard_deinit(&fixture->graveyard);
	assert_int_equal(count_descriptors(), before - 2);	/* its socket and its pidfd */
	close(fds[0]);
	close(fds[1]);
}

static void an_answer_without_a_question_is_the_end(void **state)
{
	struct fixture *fixture = *state;

	say(fixture, &(struct job_reply){ .id = JOB }, -1);
	run(fixture);
	assert_true(fixture->usable);
	fixture->done = false;
	say(fixture, &(struct job_reply){ .id = JOB }, -1);
	run(fixture);
	assert_true(fixture->gone);
	assert_null(fixture->worker);
}

static void a_dead_worker_takes_no_job(void **state)
{
	struct fixture *fixture = *state;

	say(fixture, &(struct job_reply){ .id = JOB }, -1);
	run(fixture);
	fixture->theirs = close_fd(fixture->theirs);
	assert_false(worker_assign(fixture->worker, JOB_COMPILE, JOB + 1, fixture->input, 0, PATIENCE_NS));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(an_answer_is_copied_and_the_worker_goes_on),
		cmocka_unit_test_setup_teardown(a_large_output_is_copied_in_many_short_turns, setup_load, teardown),
		CASE(a_sentence_without_an_end_gets_one),
		CASE(the_last_answer_of_a_worker_counts),
		CASE(an_answer_to_another_question_is_refused),
		CASE(an_output_that_is_not_there_is_refused),
		CASE(an_output_of_absurd_size_is_refused),
		CASE(an_output_shorter_than_announced_is_refused),
		CASE(an_output_that_could_make_the_daemon_wait_is_refused),
		CASE(an_answer_of_the_wrong_size_is_refused),
		CASE(too_many_descriptors_are_refused_and_closed),
		CASE(an_answer_without_a_question_is_the_end),
		CASE(a_dead_worker_takes_no_job),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
