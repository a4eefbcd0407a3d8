/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* System calls without the C library
 *
 * A method's first call may happen in a signal handler, in the child of a raw clone, in a thread that is being
 * cancelled, and must leave errno alone. So whatever libtier's slow paths ask of the kernel, they ask directly: no
 * cancellation point, no errno, no lock of the C library's. All return what the kernel does: negative errno on failure. */

#include <poll.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <linux/futex.h>

#ifndef __x86_64__
#error "libtier knows x86-64 only, so far"
#endif

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

static inline long sys_enter(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long r;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return r;
}

/* In a build with faults on purpose a test says which calls fail: 0, or the negative errno. @b is the second argument. */
#ifdef TIER_FAULTS
long sys_fault(long number, long b);
#else
#define sys_fault(number, b) 0l
#endif

static inline long sys_call(long number, long a, long b, long c, long d, long e, long f)
{
	long r = sys_fault(number, b);

	return r ? r : sys_enter(number, a, b, c, d, e, f);
}

/* -- Memory --- */
/* The address, or a negative errno as a pointer does not: ask sys_is_error() */
static inline void *sys_mmap(void *at, size_t n, int protection, int flags, int fd, uint64_t offset)
{
	return (void *)sys_call(SYS_mmap, (long)at, n, protection, flags, fd, offset);
}
static inline int sys_is_error(const void *p) { return (unsigned long)p > -4096ul; }
static inline int sys_munmap(void *at, size_t n) { return sys_call(SYS_munmap, (long)at, n, 0, 0, 0, 0); }
static inline int sys_madvise(void *at, size_t n, int advice) { return sys_call(SYS_madvise, (long)at, n, advice, 0, 0, 0); }

/* -- Signals, threads --- */
static inline void sys_sigmask(int how, const uint64_t *set, uint64_t *old)
{
	sys_call(SYS_rt_sigprocmask, how, (long)set, (long)old, sizeof(*set), 0, 0);
}
static inline pid_t sys_getpid(void) { return sys_call(SYS_getpid, 0, 0, 0, 0, 0, 0); }
static inline pid_t sys_gettid(void) { return sys_call(SYS_gettid, 0, 0, 0, 0, 0, 0); }
/* Reads this process's own memory: what is not mapped is an error, not a signal. */
static inline long sys_peek(pid_t self, const void *from, void *to, size_t n)
{
	struct iovec local = { to, n }, remote = { (void *)from, n };

	return sys_call(SYS_process_vm_readv, self, (long)&local, 1, (long)&remote, 1, 0);
}
static inline int sys_futex(const uint32_t *word, int op, uint32_t value, const struct timespec *timeout)
{
	return sys_call(SYS_futex, (long)word, op, value, (long)timeout, 0, FUTEX_BITSET_MATCH_ANY);
}
static inline int sys_futex_waitv(const void *waiters, unsigned int n, const struct timespec *deadline)
{
	return sys_call(SYS_futex_waitv, (long)waiters, n, 0, (long)deadline, CLOCK_MONOTONIC, 0);
}

/* -- Files and sockets --- */
static inline int sys_close(int fd) { return sys_call(SYS_close, fd, 0, 0, 0, 0, 0); }
static inline int sys_dup3(int fd, int to, int flags) { return sys_call(SYS_dup3, fd, to, flags, 0, 0, 0); }
static inline long sys_write(int fd, const void *p, size_t n) { return sys_call(SYS_write, fd, (long)p, n, 0, 0, 0); }
static inline long sys_read(int fd, void *p, size_t n) { return sys_call(SYS_read, fd, (long)p, n, 0, 0, 0); }
static inline int sys_fstat(int fd, struct stat *ret) { return sys_call(SYS_fstat, fd, (long)ret, 0, 0, 0, 0); }
static inline int sys_fcntl(int fd, int op, long argument) { return sys_call(SYS_fcntl, fd, op, argument, 0, 0, 0); }
static inline int sys_socket(int family, int type) { return sys_call(SYS_socket, family, type, 0, 0, 0, 0); }
static inline int sys_shutdown(int fd, int how) { return sys_call(SYS_shutdown, fd, how, 0, 0, 0, 0); }
static inline int sys_connect(int fd, const void *address, socklen_t n)
{
	return sys_call(SYS_connect, fd, (long)address, n, 0, 0, 0);
}
static inline int sys_getsockopt(int fd, int level, int name, void *value, socklen_t *n)
{
	return sys_call(SYS_getsockopt, fd, level, name, (long)value, (long)n, 0);
}
static inline int sys_setsockopt(int fd, int level, int name, const void *value, socklen_t n)
{
	return sys_call(SYS_setsockopt, fd, level, name, (long)value, n, 0);
}
static inline long sys_sendmsg(int fd, const struct msghdr *message, int flags)
{
	return sys_call(SYS_sendmsg, fd, (long)message, flags, 0, 0, 0);
}
static inline long sys_recvmsg(int fd, struct msghdr *message, int flags)
{
	return sys_call(SYS_recvmsg, fd, (long)message, flags, 0, 0, 0);
}
static inline int sys_ppoll(struct pollfd *fds, unsigned int n, struct timespec *timeout, const uint64_t *mask)
{
	return sys_call(SYS_ppoll, (long)fds, n, (long)timeout, (long)mask, sizeof(*mask), 0);
}
