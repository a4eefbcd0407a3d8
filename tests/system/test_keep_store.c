/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "system/harness.h"
#include "system/manager.h"
#include "util/base.h"

/* The keeper's side of the protocol, with a daemon that is this very program: the keeper starts whatever it was itself
 * started as. Each life appends to a file what it was passed. All but the limits is told the same way by the manager
 * that the other tests take for systemd (TIER_STORE=manager). */

static char folder[128], lives[160], log_path[160];

/* -- A daemon's life: @STORY is its function, in the environment that the keeper leaves alone --- */
static void send_from_here(const char *text, int fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { .bytes = "" };
	struct iovec iov = { (void *)text, strlen(text) };
	struct msghdr message = { .msg_name = &address, .msg_namelen = sizeof(address), .msg_iov = &iov, .msg_iovlen = 1 };
	int from = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strncpy(address.sun_path, getenv("NOTIFY_SOCKET"), sizeof(address.sun_path) - 1);
	if (fd >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
		CMSG_FIRSTHDR(&message)->cmsg_level = SOL_SOCKET;
		CMSG_FIRSTHDR(&message)->cmsg_type = SCM_RIGHTS;
		CMSG_FIRSTHDR(&message)->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), &fd, sizeof(fd));
	}
	if (sendmsg(from, &message, 0) < 0)
		_exit(70);
	close(from);
}

static void put(const char *name, int fd)
{
	char text[128];

	snprintf(text, sizeof(text), "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name);
	send_from_here(text, fd);
}

/* A memfd of @size bytes */
static int thing(unsigned int size)
{
	int fd = memfd_create("thing", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, size))
		_exit(71);
	return fd;
}

/* A line: name=size for each that was passed, but the listener */
static unsigned int tell_life(bool is_long)
{
	FILE *file = fopen(getenv("LIVES"), "a");
	const int n = getenv("LISTEN_FDS") ? atoi(getenv("LISTEN_FDS")) : 0;
	char *names = strdup(getenv("LISTEN_FDNAMES") ? getenv("LISTEN_FDNAMES") : ""), *save;
	unsigned int n_wrong = 0, n_things = 0, number;
	const char *name = strtok_r(names, ":", &save);
	struct stat status;

	for (int i = 0; i < n && name; i++, name = strtok_r(NULL, ":", &save)) {
		if (fstat(3 + i, &status))
			_exit(72);
		if (S_ISSOCK(status.st_mode))
			continue;
		n_things++;
		if (!is_long)
			fprintf(file, "%s=%d ", name, (int)status.st_size);
		else
			n_wrong += sscanf(name, "C%u", &number) != 1 || (unsigned int)status.st_size != number;
	}
	if (is_long)
		fprintf(file, "%u passed, %u wrong", n_things, n_wrong);
	fputs("\n", file);
	fclose(file);
	free(names);
	return n_things;
}

static void die(void) { kill(getpid(), SIGKILL); }

/* Several of a name, one open file under two names, a name that is removed; the last word just before the end */
static void story_names(unsigned int life)
{
	int first = thing(1), second = thing(2);

	if (life)
		return;
	put("x", first);
	put("x", second);
	put("y", dup(first));
	put("gone", thing(3));
	put("gone", thing(4));
	put("kept", thing(5));
	send_from_here("FDSTOREREMOVE=1\nFDNAME=gone", -1);
	send_from_here("FDSTOREREMOVE=1\nFDNAME=never", -1);
	send_from_here("READY=1", -1);
	put("last", thing(6));
	die();
}

/* Only the daemon itself is obeyed. */
static void story_stranger(unsigned int life)
{
	int status;
	pid_t pid;

	if (life)
		return;
	send_from_here("READY=1", -1);
	put("mine", thing(1));
	pid = fork();
	if (!pid) {
		put("strangers", thing(2));
		send_from_here("FDSTOREREMOVE=1\nFDNAME=mine", -1);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	die();
}

/* As many as there may be; then more */
static void story_many(unsigned int life)
{
	const unsigned int n = atoi(getenv("N"));
	char name[16];

	if (life)
		return;
	send_from_here("READY=1", -1);
	for (unsigned int i = 1; i <= n; i++) {
		int fd = thing(i);

		snprintf(name, sizeof(name), "C%u", i);
		put(name, fd);
		close(fd);
	}
	die();
}

/* What no daemon sends */
static void story_nonsense(unsigned int life)
{
	char large[6000];

	if (life)
		return;
	memset(large, 'A', sizeof(large) - 1);
	large[sizeof(large) - 1] = '\0';
	send_from_here(large, thing(1));
	send_from_here("", thing(1));
	send_from_here("\n\n=\nFDSTORE\nFDSTORE=0\nFDNAME", thing(1));
	send_from_here("FDSTORE=1", -1);
	send_from_here("FDSTOREREMOVE=1", -1);
	send_from_here("WATCHDOG=trigger\nMAINPID=1\nERRNO=2", thing(1));
	put("a:b", thing(2));
	put("good", thing(7));
	send_from_here("READY=1\nSTATUS=x", -1);
	send_from_here("READY=1", -1);
	die();
}

static void story_unready(unsigned int life)
{
	put("tried", thing(1));
	die();
}

static int live(const char *story)
{
	static const struct {
		const char *name;
		void (*live)(unsigned int life);
	} stories[] = { { "names", story_names },
			{ "stranger", story_stranger },
			{ "many", story_many },
			{ "nonsense", story_nonsense },
			{ "unready", story_unready } };
	const unsigned int life = tell_life(!strcmp(story, "many"));

	for (size_t i = 0; i < ARRAY_SIZE(stories); i++)
		if (!strcmp(stories[i].name, story))
			stories[i].live(life);
	send_from_here("READY=1", -1);
	return 0;
}

/* -- Who keeps it --- */
static void exec_keeper(const char *story, int ready_fd)
{
	char self[4096], program[4200], socket[160];
	const int log = open(log_path, O_WRONLY | O_CREAT | O_APPEND, 0644);
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[n < 0 ? 0 : n] = '\0';
	snprintf(socket, sizeof(socket), "%s/sock", folder);
	snprintf(program, sizeof(program), "%s/tierd", build_folder());
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setenv("STORY", story, 1);
	setenv("LIVES", lives, 1);
	dup2(log, STDERR_FILENO);
	close(log);
	if (!store_is_keepers())
		manager_run(folder, socket, (const char *[]){ self, NULL }, ready_fd);
	execl(program, self, "--keep", "--foreground", NULL);
	_exit(127);
}

static int tell(const char *story)
{
	int ends[2];
	pid_t pid;

	pipe_open(ends);
	pid = fork();
	if (!pid)
		exec_keeper(story, ends[1]);
	close(ends[0]);
	close(ends[1]);
	return child_reap(pid);
}

static const char *content_of(const char *path)
{
	static char text[65536];
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	close(fd);
	text[n < 0 ? 0 : n] = '\0';
	return text;
}

static int setup(void **state)
{
	snprintf(folder, sizeof(folder), "%.32s/tierd-test-XXXXXX", temporary_folder());
	assert_non_null(mkdtemp(folder));
	snprintf(lives, sizeof(lives), "%s/lives", folder);
	snprintf(log_path, sizeof(log_path), "%s/log", folder);
	signal(SIGPIPE, SIG_IGN);
	return 0;
}

static int teardown(void **state)
{
	char command[256];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

/* -- Cases --- */
static void of_one_name_the_newest_comes_first_and_an_open_file_once(void **state)
{
	assert_int_equal(tell("names"), 0);
	assert_string_equal(content_of(lives), "\nlast=6 kept=5 x=2 x=1 \n");
}

static void only_the_daemon_itself_is_obeyed(void **state)
{
	assert_int_equal(tell("stranger"), 0);
	assert_string_equal(content_of(lives), "\nmine=1 \n");
}

static void what_no_daemon_sends_does_no_harm(void **state)
{
	if (!store_is_keepers())
		skip();
	assert_int_equal(tell("nonsense"), 0);
	assert_string_equal(content_of(lives), "\ngood=7 stored=2 \n");
}

/* Half of the numbers are for descriptors that are kept; 18000 names of these lengths fit. */
static unsigned int room(void)
{
	struct rlimit files;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
	return MIN((files.rlim_max - 32) / 2, (rlim_t)18000);
}

static void tell_many(unsigned int n)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", n);
	setenv("N", text, 1);
	assert_int_equal(tell("many"), 0);
}

static void all_that_there_is_room_for_is_passed(void **state)
{
	char expected[128];

	if (!store_is_keepers())
		skip();
	tell_many(room());
	snprintf(expected, sizeof(expected), "0 passed, 0 wrong\n%u passed, 0 wrong\n", room());
	assert_string_equal(content_of(lives), expected);
}

/* Too many would keep any successor from being started. */
static void more_is_refused_and_told_once(void **state)
{
	unsigned int n_passed, n_wrong;
	const char *text;

	if (!store_is_keepers())
		skip();
	tell_many(room() + 3000);
	assert_int_equal(sscanf(content_of(lives), "0 passed, 0 wrong\n%u passed, %u wrong", &n_passed, &n_wrong), 2);
	assert_true(n_passed >= room() && n_passed < room() + 3000);
	assert_int_equal(n_wrong, 0);
	text = strstr(content_of(log_path), "all there is room for");
	assert_non_null(text);
	assert_null(strstr(text + 1, "all there is room for"));
}

static void a_daemon_that_never_serves_is_tried_five_times(void **state)
{
	int status;

	if (!store_is_keepers())
		skip();
	status = tell("unready");
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 2);
	assert_string_equal(content_of(lives),
			    "\ntried=1 \ntried=1 tried=1 \ntried=1 tried=1 tried=1 \ntried=1 tried=1 tried=1 tried=1 \n");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(of_one_name_the_newest_comes_first_and_an_open_file_once, setup, teardown),
		cmocka_unit_test_setup_teardown(only_the_daemon_itself_is_obeyed, setup, teardown),
		cmocka_unit_test_setup_teardown(what_no_daemon_sends_does_no_harm, setup, teardown),
		cmocka_unit_test_setup_teardown(all_that_there_is_room_for_is_passed, setup, teardown),
		cmocka_unit_test_setup_teardown(more_is_refused_and_told_once, setup, teardown),
		cmocka_unit_test_setup_teardown(a_daemon_that_never_serves_is_tried_five_times, setup, teardown),
	};

	if (getenv("STORY"))
		return live(getenv("STORY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
