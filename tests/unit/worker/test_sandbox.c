/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "util/base.h"
#include "worker/channel.h"
#include "worker/child/sandbox.h"

/* A child confines itself, says so over its socket, and tries one thing. */

#define MEMORY (1ull << 30)
#define SURVIVED 33
#ifdef __SANITIZE_ADDRESS__
#define IS_LIMITED 0	/* its shadow needs more address space than any limit */
#else
#define IS_LIMITED 1
#endif

static int confined_child(int (*attempt)(void))
{
	int parent = getpid(), sockets[2], status;
	char word = 0;
	pid_t pid;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
	pid = fork();
	if (!pid) {
		if (sandbox_enter(sockets[1], MEMORY, parent) || channel_send(SANDBOX_FD, "!", 1, NULL, 0))
			_exit(1);
		_exit(attempt());
	}
	close(sockets[1]);
	assert_int_equal(channel_receive(sockets[0], &word, 1, NULL, 0, 0), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	close(sockets[0]);
	return status;
}

static void assert_killed(int (*attempt)(void))
{
	int status = confined_child(attempt);

	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
		fail_msg("wait status %#x, expected SIGSYS", status);
}

static int open_a_file(void) { return open("/etc/passwd", O_RDONLY) < 0 ? 1 : SURVIVED; }
static int make_a_socket(void) { return socket(AF_INET, SOCK_STREAM, 0) < 0 ? 1 : SURVIVED; }
static int run_a_program(void) { return execve("/bin/true", (char *[]){ "true", NULL }, (char *[]){ NULL }); }
static int make_a_process(void) { return syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL) < 0 ? 1 : SURVIVED; }
static int signal_its_parent(void) { return kill(getppid(), 0) ? 1 : SURVIVED; }
static int signal_its_parents_thread(void) { return syscall(SYS_tgkill, 1, 1, 0) ? 1 : SURVIVED; }
static int map_executable(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? 1 : SURVIVED;
}
static int make_executable(void)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return mprotect(page, 4096, PROT_READ | PROT_EXEC) ? 1 : SURVIVED;
}

static void files_are_out_of_reach(void **state) { assert_killed(open_a_file); }
static void the_network_is_out_of_reach(void **state) { assert_killed(make_a_socket); }
static void programs_cannot_be_run(void **state) { assert_killed(run_a_program); }
static void processes_cannot_be_made(void **state) { assert_killed(make_a_process); }
static void processes_cannot_be_signalled(void **state)
{
	assert_killed(signal_its_parent);
	assert_killed(signal_its_parents_thread);
}
static void memory_cannot_be_executable(void **state)
{
	assert_killed(map_executable);
	assert_killed(make_executable);
}

static int do_its_work(void)
{
	char *big = malloc(64 << 20), byte = 0;
	int fd = memfd_create("output", MFD_CLOEXEC);

	memset(big, 1, 64 << 20);
	if (pwrite(fd, big, 4096, 0) != 4096 || pread(fd, &byte, 1, 4095) != 1 || byte != 1)
		return 1;
	free(big);
	close(fd);
	return SURVIVED;
}

static void what_a_worker_needs_is_allowed(void **state)
{
	int status = confined_child(do_its_work);

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), SURVIVED);
}

static int call_abort(void) { abort(); }

static void an_abort_is_an_abort_and_no_forbidden_call(void **state)
{
	int status = confined_child(call_abort);

	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static int tell_identity(void)
{
	/* getuid() is off the list, but the kernel's credentials travel with a datagram. */
	return channel_send(SANDBOX_FD, "?", 1, NULL, 0) ? 1 : SURVIVED;
}

static void root_becomes_an_identity_of_its_own(void **state)
{
	int parent = getpid(), sockets[2], on = 1, status;
	char control[256], word[2];
	struct iovec iov = { .iov_base = word, .iov_len = 1 };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct ucred credentials;
	pid_t pid;

	if (geteuid() != 0)
		skip();
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
	assert_int_equal(setsockopt(sockets[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
	pid = fork();
	if (!pid)
		_exit(sandbox_enter(sockets[1], MEMORY, parent) ? 1 : tell_identity());
	assert_int_equal(recvmsg(sockets[0], &message, 0), 1);
	assert_non_null(CMSG_FIRSTHDR(&message));
	memcpy(&credentials, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(credentials));
	assert_int_equal(credentials.uid, WORKER_ID);
	assert_int_equal(credentials.gid, WORKER_ID);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	close(sockets[0]);
	close(sockets[1]);
}

static int use_an_inherited_descriptor(void)
{
	char byte;

	return pread(200, &byte, 1, 0) < 0 && errno == EBADF ? SURVIVED : 1;
}

static void inherited_descriptors_are_closed(void **state)
{
	int fd = open("/proc/self/exe", O_RDONLY), status;

	assert_int_equal(dup2(fd, 200), 200);
	status = confined_child(use_an_inherited_descriptor);
	close(200);
	close(fd);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), SURVIVED);
}

static int use_up_memory(void)
{
	for (int i = 0; i < 2048; i++)
		if (mmap(NULL, 1 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
			return sandbox_is_out_of_memory(MEMORY) ? SURVIVED : 1;
	return 2;
}

static int ask_about_memory(void) { return sandbox_is_out_of_memory(MEMORY) ? 1 : SURVIVED; }

static void exhausted_memory_is_recognised(void **state)
{
	assert_int_equal(WEXITSTATUS(confined_child(ask_about_memory)), SURVIVED);
	if (IS_LIMITED)
		assert_int_equal(WEXITSTATUS(confined_child(use_up_memory)), SURVIVED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_are_out_of_reach),
		cmocka_unit_test(the_network_is_out_of_reach),
		cmocka_unit_test(programs_cannot_be_run),
		cmocka_unit_test(processes_cannot_be_made),
		cmocka_unit_test(processes_cannot_be_signalled),
		cmocka_unit_test(memory_cannot_be_executable),
		cmocka_unit_test(what_a_worker_needs_is_allowed),
		cmocka_unit_test(an_abort_is_an_abort_and_no_forbidden_call),
		cmocka_unit_test(root_becomes_an_identity_of_its_own),
		cmocka_unit_test(inherited_descriptors_are_closed),
		cmocka_unit_test(exhausted_memory_is_recognised),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
