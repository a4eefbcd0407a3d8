/* SPDX-License-Identifier: Apache-2.0 */
#ifdef TIER_FAULTS

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "util/fault.h"

/* What the linker puts between the daemon and the C library (--wrap; the Makefile's FAULT_WRAPS is the list). libbpf,
 * zlib and the C library among themselves are not meant: a fault is one that the daemon's code gets to see. */

/* The real function, and the wrapper's head */
#define WRAP(type, name, ...)                                                                                                    \
	type __real_##name(__VA_ARGS__);                                                                                         \
	type __wrap_##name(__VA_ARGS__);                                                                                         \
	type __wrap_##name(__VA_ARGS__)

extern const char __executable_start[];

/* One line says where it was, for addr2line(1). */
static bool due(enum fault_kind kind, const char *what, const void *caller)
{
	const int saved = errno;

	if (!fault_due(kind))
		return false;
	dprintf(STDERR_FILENO, "tierd: fault: %s fails at %#tx\n", what, (const char *)caller - __executable_start - 1);
	errno = saved;
	return true;
}
#define DUE(kind, what, error) (due(kind, what, __builtin_return_address(0)) && (errno = (error), true))

/* -- Memory --- */
WRAP(void *, malloc, size_t n) { return DUE(FAULT_ALLOC, "malloc", ENOMEM) ? NULL : __real_malloc(n); }
WRAP(void *, calloc, size_t n, size_t size) { return DUE(FAULT_ALLOC, "calloc", ENOMEM) ? NULL : __real_calloc(n, size); }
WRAP(void *, realloc, void *p, size_t n) { return DUE(FAULT_ALLOC, "realloc", ENOMEM) ? NULL : __real_realloc(p, n); }
WRAP(void *, reallocarray, void *p, size_t n, size_t size)
{
	return DUE(FAULT_ALLOC, "reallocarray", ENOMEM) ? NULL : __real_reallocarray(p, n, size);
}
WRAP(char *, strdup, const char *text) { return DUE(FAULT_ALLOC, "strdup", ENOMEM) ? NULL : __real_strdup(text); }
WRAP(DIR *, fdopendir, int fd) { return DUE(FAULT_ALLOC, "fdopendir", ENOMEM) ? NULL : __real_fdopendir(fd); }

WRAP(void *, mmap, void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
	fault_exit();
	return DUE(FAULT_ALLOC, "mmap", ENOMEM) ? MAP_FAILED : __real_mmap(at, n, prot, flags, fd, offset);
}

WRAP(int, pthread_create, pthread_t *id, const pthread_attr_t *attributes, void *(*fn)(void *), void *context)
{
	return DUE(FAULT_ALLOC, "pthread_create", EAGAIN) ? EAGAIN : __real_pthread_create(id, attributes, fn, context);
}

WRAP(int, posix_spawn, pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
     const posix_spawnattr_t *attributes, char *const argv[], char *const envp[])
{
	return DUE(FAULT_ALLOC, "posix_spawn", ENOMEM) ? ENOMEM : __real_posix_spawn(pid, path, actions, attributes, argv, envp);
}

WRAP(int, epoll_ctl, int epoll_fd, int op, int fd, struct epoll_event *event)
{
	if (op == EPOLL_CTL_ADD && DUE(FAULT_ALLOC, "epoll_ctl", ENOMEM))
		return -1;
	return __real_epoll_ctl(epoll_fd, op, fd, event);
}

/* -- Descriptors --- */
WRAP(int, memfd_create, const char *name, unsigned int flags)
{
	fault_exit();
	return DUE(FAULT_OPEN, "memfd_create", EMFILE) ? -1 : __real_memfd_create(name, flags);
}
WRAP(int, eventfd, unsigned int n, int flags) { return DUE(FAULT_OPEN, "eventfd", EMFILE) ? -1 : __real_eventfd(n, flags); }
WRAP(int, epoll_create1, int flags) { return DUE(FAULT_OPEN, "epoll_create1", EMFILE) ? -1 : __real_epoll_create1(flags); }
WRAP(int, accept4, int fd, struct sockaddr *address, socklen_t *n, int flags)
{
	return DUE(FAULT_OPEN, "accept4", EMFILE) ? -1 : __real_accept4(fd, address, n, flags);
}
WRAP(int, socket, int domain, int type, int protocol)
{
	return DUE(FAULT_OPEN, "socket", EMFILE) ? -1 : __real_socket(domain, type, protocol);
}
WRAP(int, socketpair, int domain, int type, int protocol, int fds[2])
{
	return DUE(FAULT_OPEN, "socketpair", EMFILE) ? -1 : __real_socketpair(domain, type, protocol, fds);
}

WRAP(int, open, const char *path, int flags, ...)
{
	va_list args;
	int mode;

	va_start(args, flags);
	mode = va_arg(args, int);
	va_end(args);
	return DUE(FAULT_OPEN, "open", EMFILE) ? -1 : __real_open(path, flags, mode);
}

WRAP(int, openat, int folder, const char *path, int flags, ...)
{
	va_list args;
	int mode;

	va_start(args, flags);
	mode = va_arg(args, int);
	va_end(args);
	if (DUE(FAULT_OPEN, "openat", EMFILE) || (flags & O_CREAT && DUE(FAULT_WRITE, "openat", ENOSPC)))
		return -1;
	return __real_openat(folder, path, flags, mode);
}

WRAP(int, fcntl, int fd, int command, ...)
{
	va_list args;
	long argument;

	va_start(args, command);
	argument = va_arg(args, long);
	va_end(args);
	if ((command == F_DUPFD || command == F_DUPFD_CLOEXEC) && DUE(FAULT_OPEN, "fcntl", EMFILE))
		return -1;
	return __real_fcntl(fd, command, argument);
}

/* -- Files --- */
/* What can be full: neither pipes and eventfds, whose readers take what is there, nor the log. */
static bool can_be_full(int fd)
{
	struct stat status;

	return fd > STDERR_FILENO && !fstat(fd, &status) && S_ISREG(status.st_mode);
}

/* A write may fail, write half, or be the daemon's last deed, before and within. */
WRAP(ssize_t, pwrite, int fd, const void *bytes, size_t n, off_t at)
{
	if (!can_be_full(fd))
		return __real_pwrite(fd, bytes, n, at);
	if (DUE(FAULT_WRITE, "pwrite", ENOSPC))
		return -1;
	fault_exit();
	if (n > 1 && due(FAULT_SHORT, "pwrite", __builtin_return_address(0)))
		return __real_pwrite(fd, bytes, n / 2, at);
	if (n > 1 && (fault_due(FAULT_EXIT) || fault_due(FAULT_AGAIN))) {
		(void)!__real_pwrite(fd, bytes, n / 2, at);
		fault_die();
	}
	return __real_pwrite(fd, bytes, n, at);
}

WRAP(ssize_t, write, int fd, const void *bytes, size_t n)
{
	if (!can_be_full(fd))
		return __real_write(fd, bytes, n);
	if (DUE(FAULT_WRITE, "write", ENOSPC))
		return -1;
	fault_exit();
	return n > 1 && due(FAULT_SHORT, "write", __builtin_return_address(0)) ? __real_write(fd, bytes, n / 2)
									       : __real_write(fd, bytes, n);
}

WRAP(int, fsync, int fd)
{
	fault_exit();
	return DUE(FAULT_WRITE, "fsync", EIO) ? -1 : __real_fsync(fd);
}

WRAP(int, ftruncate, int fd, off_t n)
{
	fault_exit();
	return DUE(FAULT_WRITE, "ftruncate", ENOSPC) ? -1 : __real_ftruncate(fd, n);
}

WRAP(int, renameat, int folder, const char *from, int other, const char *to)
{
	fault_exit();
	return DUE(FAULT_WRITE, "renameat", ENOSPC) ? -1 : __real_renameat(folder, from, other, to);
}

WRAP(int, unlinkat, int folder, const char *path, int flags)
{
	fault_exit();
	return __real_unlinkat(folder, path, flags);
}

/* -- Sockets: a message arrives whole or not at all --- */
WRAP(ssize_t, sendmsg, int fd, const struct msghdr *message, int flags)
{
	return DUE(FAULT_SEND, "sendmsg", EAGAIN) ? -1 : __real_sendmsg(fd, message, flags);
}

WRAP(ssize_t, send, int fd, const void *bytes, size_t n, int flags)
{
	return DUE(FAULT_SEND, "send", EAGAIN) ? -1 : __real_send(fd, bytes, n, flags);
}

/* -- The descriptor store: a daemon may die on either side of each change, and a test's program has none --- */
struct store;
int __real_store_take(struct store *store, const char *name) __attribute__((weak));
int __real_store_put(struct store *store, const char *name, int fd) __attribute__((weak));
void __real_store_remove(struct store *store, const char *name) __attribute__((weak));

WRAP(int, store_put, struct store *store, const char *name, int fd)
{
	int r;

	if (due(FAULT_SEND, "store_put", __builtin_return_address(0)))
		return -EAGAIN;
	fault_exit();
	r = __real_store_put(store, name, fd);
	fault_exit();
	return r;
}

int __wrap_store_take(struct store *store, const char *name);
int __wrap_store_take(struct store *store, const char *name)
{
	fault_exit();
	return __real_store_take(store, name);
}

WRAP(void, store_remove, struct store *store, const char *name)
{
	fault_exit();
	__real_store_remove(store, name);
	fault_exit();
}

/* -- libtier asks the kernel directly, but for a build like this one it asks here first (lib/sys.h) --- */
long sys_fault(long number, long argument);
long sys_fault(long number, long argument)
{
	const void *caller = __builtin_return_address(0);

	switch (number) {
	case SYS_mmap:
	case SYS_madvise:
		return due(FAULT_ALLOC, "a mapping of libtier's", caller) ? -ENOMEM : 0;
	case SYS_socket:
	case SYS_process_vm_readv:
		return due(FAULT_OPEN, "a descriptor of libtier's", caller) ? -EMFILE : 0;
	case SYS_fcntl:
		return (argument == F_DUPFD || argument == F_DUPFD_CLOEXEC) && due(FAULT_OPEN, "a duplicate of libtier's", caller)
			       ? -EMFILE
			       : 0;
	case SYS_connect:
	case SYS_sendmsg:
		return due(FAULT_SEND, "a message of libtier's", caller) ? -EAGAIN : 0;
	default:
		return 0;
	}
}

#endif
