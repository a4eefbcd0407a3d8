/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include "util/base.h"
#include "util/error.h"
#include "worker/child/sandbox.h"
#include "worker/job.h"

/* The list of system calls is what recvmsg → pread → LLVM in memory → memfd → sendmsg takes, and nothing else. Memory can
 * be had, but none that is executable: what the worker compiles is bytes to it. */

#define NOBODY 65534	/* where a user namespace does not map it */
#define DESCRIPTORS_MAX 16	/* open at a time: standard streams, socket, input, output */

#if defined(__SANITIZE_ADDRESS__)
#define ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ADDRESS_SANITIZER 1
#endif
#endif

static const int allowed_calls[] = {
	SCMP_SYS(recvmsg), SCMP_SYS(sendmsg), SCMP_SYS(pread64), SCMP_SYS(pwrite64), SCMP_SYS(write), SCMP_SYS(close),
	SCMP_SYS(memfd_create), SCMP_SYS(ftruncate),
	SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(brk), SCMP_SYS(madvise), SCMP_SYS(futex), SCMP_SYS(sched_yield),
	SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack),
	SCMP_SYS(restart_syscall), SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getrandom), SCMP_SYS(getrusage),
	SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(exit), SCMP_SYS(exit_group),
};

static const struct {
	int call, argument;
	uint64_t mask;
} allowed_without[] = {
	{ SCMP_SYS(mmap), 2, PROT_EXEC },
	{ SCMP_SYS(mprotect), 2, PROT_EXEC },
};

static const struct {
	int resource;
	rlim_t limit;
} limits[] = {
	{ RLIMIT_CORE, 0 },
	{ RLIMIT_NPROC, 0 },
	{ RLIMIT_MEMLOCK, 0 },
	{ RLIMIT_NOFILE, DESCRIPTORS_MAX },
	{ RLIMIT_FSIZE, JOB_OUTPUT_MAX },
};

void sandbox_prepare(void)
{
	int alone = CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWCGROUP;

	prctl(PR_SET_DUMPABLE, 0);
	if (geteuid() != 0 && !unshare(CLONE_NEWUSER | alone))
		return;
	unshare(alone);
}

static int close_everything_else(int fd)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return error_origin(-errno);
	for (int standard = 0; standard <= 2; standard++)
		if (null != standard && dup2(null, standard) < 0)
			return error_origin(-errno);
	if (fd != SANDBOX_FD && dup2(fd, SANDBOX_FD) < 0)
		return error_origin(-errno);
	return close_range(SANDBOX_FD + 1, ~0u, 0) < 0 ? error_origin(-errno) : 0;
}

/* Root becomes nobody. Where that is not possible (a container without the capability or that uid), there is nothing
 * to lose but the capabilities, and those go in any case. */
static int become(uid_t id)
{
	return setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0 ? -errno : 0;
}

static int drop_identity(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };
	int r = 0;

	if (geteuid() == 0) {
		if (setgroups(0, NULL) < 0 && errno != EPERM)
			return error_origin(-errno);
		r = become(WORKER_ID);
		if (r == -EINVAL)
			r = become(NOBODY);
	}
	if (r && r != -EPERM && r != -EINVAL)
		return error_origin(r);
	if (syscall(SYS_capset, &header, none) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_origin(-errno);
	return 0;
}

static int limit_resources(uint64_t memory_limit)
{
	struct rlimit memory = { .rlim_cur = memory_limit, .rlim_max = memory_limit };

	for (unsigned int i = 0; i < ARRAY_SIZE(limits); i++) {
		struct rlimit limit = { .rlim_cur = limits[i].limit, .rlim_max = limits[i].limit };

		if (setrlimit(limits[i].resource, &limit) < 0)
			return error_origin(-errno);
	}
#ifndef ADDRESS_SANITIZER	/* its shadow alone is larger than any limit */
	if (setrlimit(RLIMIT_AS, &memory) < 0)
		return error_origin(-errno);
#endif
	(void)memory;
	return 0;
}

/* A change of identity forgets the death signal, so this comes after it; and the parent may have died before. */
static int end_with_parent(int parent)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_DUMPABLE, 0) < 0)
		return error_origin(-errno);
	return getppid() == parent ? 0 : error_origin(-ESRCH);
}

static int add_rules(scmp_filter_ctx filter)
{
	const struct scmp_arg_cmp self = { .arg = 0, .op = SCMP_CMP_EQ, .datum_a = getpid(), .datum_b = 0 };
	int r = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(allowed_calls) && !r; i++)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed_calls[i], 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(allowed_without) && !r; i++) {
		struct scmp_arg_cmp without = { .arg = allowed_without[i].argument, .op = SCMP_CMP_MASKED_EQ,
						.datum_a = allowed_without[i].mask, .datum_b = 0 };

		r = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, allowed_without[i].call, 1, &without);
	}
	/* abort() raises its signal this way */
	if (!r)
		r = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, &self);
	return r;
}

static int filter_calls(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r;

	if (!filter)
		return error_origin(-ENOMEM);
	r = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (!r)
		r = add_rules(filter);
	if (!r)
		r = seccomp_load(filter);
	seccomp_release(filter);
	return error_origin(r);
}

int sandbox_enter(int fd, uint64_t memory_limit, int parent)
{
	int r;

	r = close_everything_else(fd);
	if (!r)
		r = drop_identity();
	if (!r)
		r = end_with_parent(parent);
	if (!r)
		r = limit_resources(memory_limit);
	if (!r)
		r = filter_calls();
	return error_fold(r);
}

bool sandbox_is_out_of_memory(uint64_t memory_limit)
{
	size_t size = memory_limit / 8;
	void *probe = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (probe == MAP_FAILED)
		return true;
	munmap(probe, size);
	return false;
}
