/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "store/names.h"
#include "store/store.h"
#include "util/base.h"
#include "util/log.h"

/* The test is the manager: a datagram socket in NOTIFY_SOCKET, descriptors from 3 on for whom LISTEN_FDS speaks. */

#define PASSED_FIRST 3
#define PASSED_LAST 40 /* what the test itself has open lies above */

static int manager = -1;
static struct store *store;
static char logged[4096];
static unsigned int n_logged;

static void remember(const struct log_record *record)
{
	n_logged++;
	snprintf(logged + strlen(logged), sizeof(logged) - strlen(logged), "%s\n", record->text);
}

static void manager_open(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	socklen_t n = sizeof(address);
	char name[sizeof(address.sun_path) + 2];
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	manager = fcntl(fd, F_DUPFD_CLOEXEC, PASSED_LAST + 1);
	close(fd);
	assert_int_equal(bind(manager, (struct sockaddr *)&address, sizeof(sa_family_t)), 0);
	assert_int_equal(getsockname(manager, (struct sockaddr *)&address, &n), 0);
	snprintf(name, sizeof(name), "@%.*s", (int)(n - offsetof(struct sockaddr_un, sun_path) - 1), address.sun_path + 1);
	setenv("NOTIFY_SOCKET", name, 1);
}

/* A message, and the descriptor that came with it; "" when there is none */
static const char *manager_hears(int *ret_fd)
{
	static char text[1024];
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { text, sizeof(text) - 1 };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(manager, &message, MSG_CMSG_CLOEXEC);
	struct cmsghdr *header = n < 0 ? NULL : CMSG_FIRSTHDR(&message);
	int fd = -1;

	text[n < 0 ? 0 : n] = '\0';
	if (header && header->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	if (ret_fd)
		*ret_fd = fd;
	else
		close_fd(fd);
	return text;
}

static int setup(void **state)
{
	*logged = '\0';
	n_logged = 0;
	for (int fd = PASSED_FIRST; fd <= PASSED_LAST; fd++)
		close(fd);
	return 0;
}

static int teardown(void **state)
{
	static const char *const variables[] = { "NOTIFY_SOCKET",  "LISTEN_PID", "LISTEN_FDS",
						 "LISTEN_FDNAMES", "FDSTORE",	 "WATCHDOG_USEC" };

	store = store_free(store);
	manager = close_fd(manager);
	for (size_t i = 0; i < ARRAY_SIZE(variables); i++)
		unsetenv(variables[i]);
	return 0;
}

/* A memfd of @size bytes, by which it is known again, at exactly this number */
static void pass(int at, unsigned int size)
{
	int fd = memfd_create("passed", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	if (fd != at) {
		assert_int_equal(dup2(fd, at), at);
		close(fd);
	}
}

static void pass_listener(int at, int type)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(sa_family_t)), 0);
	if (type != SOCK_DGRAM)
		assert_int_equal(listen(fd, 1), 0);
	if (fd != at) {
		assert_int_equal(dup2(fd, at), at);
		close(fd);
	}
}

static void announce(const char *n, const char *names)
{
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", n, 1);
	if (names)
		setenv("LISTEN_FDNAMES", names, 1);
}

static off_t size_of(int fd)
{
	struct stat status;

	return fstat(fd, &status) ? -1 : status.st_size;
}

static void assert_taken(const char *name, off_t size)
{
	_cleanup_(closep) int fd = store_take(store, name);

	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(size_of(fd), size);
	assert_int_equal(store_take(store, name), -1);
}

static bool is_open(int fd) { return fcntl(fd, F_GETFD) >= 0; }

/* -- What is passed --- */
static void without_a_manager_nothing_is_kept_and_nothing_fails(void **state)
{
	uint32_t at = 0;

	assert_int_equal(store_open(&store), 0);
	assert_false(store_is_kept(store));
	assert_int_equal(store_put(store, "ledger.0", STDIN_FILENO), 0);
	store_remove(store, "ledger.0");
	store_tell_ready(store, "serving");
	store_feed_watchdog(store);
	store_tell_stopping(store);
	assert_int_equal(store_take(store, "ledger.0"), -1);
	assert_int_equal(store_take_listener(store), -1);
	assert_null(store_next(store, &at));
	assert_int_equal(store_watchdog_ns(store), 0);
	store_drop_rest(store);
	assert_int_equal(n_logged, 0);
}

static void a_predecessors_descriptors_are_taken_by_name(void **state)
{
	pass(3, 30);
	pass(4, 40);
	pass_listener(5, SOCK_SEQPACKET);
	announce("3", "ledger.7:C1Dz:socket");
	assert_int_equal(store_open(&store), 0);
	assert_null(getenv("LISTEN_PID"));
	assert_null(getenv("LISTEN_FDS"));
	assert_null(getenv("LISTEN_FDNAMES"));
	assert_taken("m4711.code", 40);
	assert_taken("ledger.7", 30);
	assert_int_equal(store_take(store, "socket"), -1);
	assert_int_equal(store_take_listener(store), 5);
	assert_int_equal(store_take_listener(store), -1);
	assert_int_equal(n_logged, 0);
	close(5);
}

static void only_a_listening_seqpacket_socket_is_the_listener(void **state)
{
	pass_listener(3, SOCK_DGRAM);
	pass_listener(4, SOCK_STREAM);
	pass_listener(5, SOCK_SEQPACKET);
	announce("3", "socket:socket:tierd.socket");
	assert_int_equal(store_open(&store), 0);
	assert_int_equal(store_take_listener(store), 5);
	assert_non_null(strstr(logged, "another one was passed as 'socket'"));
	close(5);
}

static void a_walk_sees_what_nobody_took(void **state)
{
	uint32_t at = 0;

	for (int fd = 3; fd < 7; fd++)
		pass(fd, fd);
	announce("4", "ledger.1:H1:B1.2:ledger.2");
	assert_int_equal(store_open(&store), 0);
	assert_taken("ledger.2", 6);
	assert_string_equal(store_next(store, &at), "ledger.1");
	assert_string_equal(store_next(store, &at), "m1.host");
	assert_taken("m1.host", 4);
	assert_string_equal(store_next(store, &at), "m1.b2");
	assert_null(store_next(store, &at));
	assert_null(store_next(store, &at));
}

static void what_nobody_took_is_dropped_here_and_there(void **state)
{
	manager_open();
	pass(3, 1);
	pass(4, 2);
	pass_listener(5, SOCK_SEQPACKET);
	announce("3", "page:N1:socket");
	assert_int_equal(store_open(&store), 0);
	assert_taken("page", 1);
	store_drop_rest(store);
	assert_string_equal(manager_hears(NULL), "FDSTOREREMOVE=1\nFDNAME=N1");
	assert_string_equal(manager_hears(NULL), "");
	assert_false(is_open(4));
	assert_false(is_open(5));
	store_drop_rest(store);
	assert_string_equal(manager_hears(NULL), "");
}

/* -- What may be wrong --- */
static void descriptors_for_another_process_are_not_ours(void **state)
{
	pass(3, 1);
	announce("1", "page");
	setenv("LISTEN_PID", "1", 1);
	assert_int_equal(store_open(&store), 0);
	assert_int_equal(store_take(store, "page"), -1);
	assert_true(is_open(3));
	assert_non_null(strstr(logged, "for process '1'"));
	assert_null(getenv("LISTEN_FDS"));
}

static void numbers_that_cannot_be_are_ignored(void **state)
{
	static const char *const numbers[] = { "", "-1", "x", "1x", "65537", "99999999999999999999999", "4294967297", " " };

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		pass(3, 1);
		announce(numbers[i], "page");
		assert_int_equal(store_open(&store), 0);
		assert_int_equal(store_take(store, "page"), -1);
		assert_true(is_open(3));
		assert_non_null(strstr(logged, "there cannot be"));
		setup(NULL);
		teardown(NULL);
	}
}

static void too_few_names_leave_the_last_without(void **state)
{
	pass(3, 1);
	pass(4, 2);
	announce("2", "page");
	assert_int_equal(store_open(&store), 0);
	assert_taken("page", 1);
	assert_taken("unknown", 2);
	assert_non_null(strstr(logged, "1 of 2 passed descriptors have no name"));
}

static void too_many_names_are_ignored(void **state)
{
	pass(3, 1);
	pass(4, 2);
	announce("1", "page:ring:newest");
	assert_int_equal(store_open(&store), 0);
	assert_taken("page", 1);
	assert_int_equal(store_take(store, "ring"), -1);
	assert_true(is_open(4));
	assert_non_null(strstr(logged, "'ring:newest', where there is no descriptor"));
}

static void closed_descriptors_are_skipped(void **state)
{
	pass(3, 1);
	pass(5, 3);
	announce("3", "page:ring:newest");
	assert_int_equal(store_open(&store), 0);
	assert_taken("page", 1);
	assert_int_equal(store_take(store, "ring"), -1);
	assert_taken("newest", 3);
	assert_non_null(strstr(logged, "descriptor 4, which was to be passed as 'ring'"));
}

static void of_one_name_the_first_is_taken(void **state)
{
	pass(3, 1);
	pass(4, 2);
	announce("2", "page:page");
	assert_int_equal(store_open(&store), 0);
	assert_taken("page", 1);
	assert_false(is_open(4));
	assert_non_null(strstr(logged, "descriptor 4 is ignored"));
}

static void names_are_data(void **state)
{
	char names[400] = "a\nMAINPID=1:";

	manager_open();
	memset(names + strlen(names), 'x', 300);
	pass(3, 1);
	pass(4, 2);
	pass(5, 3);
	strcat(names, "::");
	announce("3", names);
	assert_int_equal(store_open(&store), 0);
	store_drop_rest(store);
	assert_string_equal(manager_hears(NULL), "FDSTOREREMOVE=1\nFDNAME=a?MAINPID=1");
	assert_int_equal(strlen(manager_hears(NULL)), strlen("FDSTOREREMOVE=1\nFDNAME=") + STORE_NAME_MAX - 1);
	assert_string_equal(manager_hears(NULL), "FDSTOREREMOVE=1\nFDNAME=");
}

/* -- What is put --- */
static void a_put_descriptor_is_in_the_managers_queue(void **state)
{
	int fd;

	manager_open();
	assert_int_equal(store_open(&store), 0);
	assert_true(store_is_kept(store));
	pass(3, 33);
	assert_int_equal(store_put(store, "m4711.b12", 3), 0);
	close(3);
	store = store_free(store);
	assert_string_equal(manager_hears(&fd), "FDSTORE=1\nFDPOLL=0\nFDNAME=B1Dz.C");
	assert_int_equal(size_of(fd), 33);
	close(fd);
}

static void a_removed_name_is_told(void **state)
{
	manager_open();
	assert_int_equal(store_open(&store), 0);
	assert_int_equal(store_put(store, "m1.code", STDIN_FILENO), 0);
	store_remove(store, "m1.code");
	store_remove(store, "m2.code");
	assert_string_equal(manager_hears(NULL), "FDSTORE=1\nFDPOLL=0\nFDNAME=C1");
	assert_string_equal(manager_hears(NULL), "FDSTOREREMOVE=1\nFDNAME=C1");
	assert_string_equal(manager_hears(NULL), "FDSTOREREMOVE=1\nFDNAME=C2");
}

static void wrong_names_and_descriptors_are_refused(void **state)
{
	manager_open();
	assert_int_equal(store_open(&store), 0);
	assert_int_equal(store_put(store, "C1", STDIN_FILENO), -EINVAL);
	assert_int_equal(store_put(store, "a\nb", STDIN_FILENO), -EINVAL);
	assert_int_equal(n_logged, 0);
	assert_int_equal(store_put(store, "page", 30), -EBADF);
	assert_int_equal(store_put(store, "page", 30), -EBADF);
	assert_int_equal(n_logged, 1);
	assert_string_equal(manager_hears(NULL), "");
}

static void a_full_manager_says_so_before_it_is_told(void **state)
{
	manager_open();
	pass(3, 1);
	announce("1", "page");
	setenv("FDSTORE", "3", 1);
	assert_int_equal(store_open(&store), 0);
	assert_int_equal(store_put(store, "a", STDIN_FILENO), 0);
	assert_int_equal(store_put(store, "b", STDIN_FILENO), 0);
	assert_int_equal(store_put(store, "c", STDIN_FILENO), -E2BIG);
	assert_non_null(strstr(logged, "store is full"));
	store_remove(store, "a");
	assert_int_equal(store_put(store, "c", STDIN_FILENO), 0);
	for (int i = 0; i < 4; i++)
		assert_true(*manager_hears(NULL));
	assert_string_equal(manager_hears(NULL), "");
}

static void a_manager_that_keeps_nothing_is_none(void **state)
{
	manager_open();
	setenv("FDSTORE", "0", 1);
	assert_int_equal(store_open(&store), 0);
	assert_false(store_is_kept(store));
}

/* A variable of 128 KiB is the longest with which a program can be started. */
static void so_many_names_are_kept_as_a_successor_can_be_given(void **state)
{
	char name[STORE_NAME_MAX], sent[STORE_NAME_MAX];
	size_t n_bytes = strlen("LISTEN_FDNAMES=");
	uint64_t n = 0;
	int r;

	manager_open();
	assert_int_equal(store_open(&store), 0);
	for (;; n++) {
		snprintf(name, sizeof(name), "m%u.private", (unsigned int)n);
		r = store_put(store, name, STDIN_FILENO);
		if (r)
			break;
		assert_true(*manager_hears(NULL));
		name_shorten(name, sent);
		n_bytes += strlen(sent) + 1;
	}
	assert_int_equal(r, -E2BIG);
	assert_true(n_bytes <= 128 * 1024 && n_bytes > 128 * 1024 - 8);
	assert_true(n > 4096 * 5);
	store_remove(store, "m7.private");
	assert_int_equal(store_put(store, "m7.private", STDIN_FILENO), 0);
}

static void a_manager_that_is_gone_is_told_of_once(void **state)
{
	manager_open();
	assert_int_equal(store_open(&store), 0);
	assert_true(store_is_kept(store));
	manager = close_fd(manager);
	assert_int_equal(store_put(store, "page", STDIN_FILENO), 0);
	assert_false(store_is_kept(store));
	assert_int_equal(store_put(store, "ring", STDIN_FILENO), 0);
	store_feed_watchdog(store);
	assert_int_equal(n_logged, 1);
	assert_non_null(strstr(logged, "nothing is kept for a successor any more"));
}

static void the_watchdog_finds_that_the_manager_is_gone(void **state)
{
	manager_open();
	assert_int_equal(store_open(&store), 0);
	store_feed_watchdog(store);
	assert_true(store_is_kept(store));
	manager = close_fd(manager);
	store_feed_watchdog(store);
	assert_false(store_is_kept(store));
	assert_int_equal(n_logged, 1);
}

/* The loop feeds it: were it to wait, no client would get an answer until somebody continues the keeper. */
static void a_manager_that_reads_nothing_holds_up_nobody(void **state)
{
	const unsigned int n = 4096; /* more than any queue of datagrams has room for */

	manager_open();
	assert_int_equal(store_open(&store), 0);
	alarm(20);
	for (unsigned int i = 0; i < n; i++)
		store_feed_watchdog(store);
	alarm(0);
	assert_true(store_is_kept(store));
	assert_string_equal(manager_hears(NULL), "WATCHDOG=1");
	assert_int_equal(n_logged, 0);
}

static void a_manager_that_ends_us_for_good_is_no_news(void **state)
{
	manager_open();
	assert_int_equal(store_open(&store), 0);
	manager = close_fd(manager);
	store_tell_stopping(store);
	assert_false(store_is_kept(store));
	assert_int_equal(n_logged, 0);
}

static void the_manager_is_told_of_the_daemons_life(void **state)
{
	char pid[16];

	manager_open();
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("WATCHDOG_USEC", "5000000", 1);
	setenv("WATCHDOG_PID", pid, 1);
	assert_int_equal(store_open(&store), 0);
	assert_int_equal(store_watchdog_ns(store), 5000000000);
	assert_null(getenv("WATCHDOG_USEC"));
	store_tell_ready(store, "serving /run/tierd/tierd.sock");
	store_feed_watchdog(store);
	store_tell_stopping(store);
	assert_string_equal(manager_hears(NULL), "READY=1\nSTATUS=serving /run/tierd/tierd.sock");
	assert_string_equal(manager_hears(NULL), "WATCHDOG=1");
	assert_string_equal(manager_hears(NULL), "STOPPING=1");
	assert_true(store_is_kept(store));
}

/* The queue is short, so threads wait in store_put() for the manager to listen. */
#define N_THREADS 4
#define N_PUTS 200

static void *put_many(void *context)
{
	const unsigned int thread = (uintptr_t)context;
	char name[STORE_NAME_MAX];

	for (unsigned int i = 0; i < N_PUTS; i++) {
		snprintf(name, sizeof(name), "m%u.b%u", thread, i);
		if (store_put(store, name, STDIN_FILENO))
			return NULL;
		if (i % 2)
			store_remove(store, name);
	}
	return context;
}

static void threads_wait_for_a_slow_manager(void **state)
{
	pthread_t threads[N_THREADS];
	unsigned int n_put = 0, n_removed = 0;
	const char *text;
	void *result;

	manager_open();
	assert_int_equal(store_open(&store), 0);
	assert_int_equal(fcntl(manager, F_SETFL, 0), 0);
	for (uintptr_t i = 0; i < N_THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, put_many, (void *)(i + 1)), 0);
	while (n_put + n_removed < N_THREADS * N_PUTS * 3 / 2) {
		text = manager_hears(NULL);
		n_put += !strncmp(text, "FDSTORE=1\n", 10);
		n_removed += !strncmp(text, "FDSTOREREMOVE=1\n", 16);
	}
	assert_int_equal(n_put, N_THREADS * N_PUTS);
	for (unsigned int i = 0; i < N_THREADS; i++) {
		assert_int_equal(pthread_join(threads[i], &result), 0);
		assert_non_null(result);
	}
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest always[] = {
		CASE(without_a_manager_nothing_is_kept_and_nothing_fails),
		CASE(a_predecessors_descriptors_are_taken_by_name),
		CASE(only_a_listening_seqpacket_socket_is_the_listener),
		CASE(a_walk_sees_what_nobody_took),
		CASE(descriptors_for_another_process_are_not_ours),
		CASE(numbers_that_cannot_be_are_ignored),
		CASE(too_few_names_leave_the_last_without),
		CASE(too_many_names_are_ignored),
		CASE(closed_descriptors_are_skipped),
		CASE(of_one_name_the_first_is_taken),
	};
	const struct CMUnitTest with_libsystemd[] = {
		CASE(what_nobody_took_is_dropped_here_and_there),   CASE(names_are_data),
		CASE(a_put_descriptor_is_in_the_managers_queue),    CASE(a_removed_name_is_told),
		CASE(wrong_names_and_descriptors_are_refused),	    CASE(a_full_manager_says_so_before_it_is_told),
		CASE(a_manager_that_keeps_nothing_is_none),	    CASE(so_many_names_are_kept_as_a_successor_can_be_given),
		CASE(a_manager_that_is_gone_is_told_of_once),	    CASE(the_watchdog_finds_that_the_manager_is_gone),
		CASE(a_manager_that_reads_nothing_holds_up_nobody), CASE(a_manager_that_ends_us_for_good_is_no_news),
		CASE(the_manager_is_told_of_the_daemons_life),	    CASE(threads_wait_for_a_slow_manager),
	};
	int r;

	log_to(remember);
	r = cmocka_run_group_tests(always, NULL, NULL);
	manager_open();
	if (!store_open(&store) && !store_is_kept(store)) {
		print_message("built without libsystemd: %zu cases are left out\n", ARRAY_SIZE(with_libsystemd));
		return r;
	}
	teardown(NULL);
	return r | cmocka_run_group_tests(with_libsystemd, NULL, NULL);
}
