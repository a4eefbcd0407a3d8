/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "ctl.h"

/* Compiling ahead: the daemon sends the object back with code inside. The output is whole or not there: it is written
 * under another name beside its place. */

static bool ends_with(const char *text, const char *ending)
{
	const size_t length = strlen(text), n = strlen(ending);

	return length > n && !strcmp(text + length - n, ending);
}

/* "dir/filter.bpf.o" gives "dir/filter.tier.o"; what is called so already gives no name. */
static bool output_name(char *to, size_t n, const char *path)
{
	static const char *const endings[] = {".bpf.o", ".o", ""};

	if (ends_with(path, ".tier.o"))
		return false;
	for (int i = 0; i < 3; i++)
		if (ends_with(path, endings[i]))
			return snprintf(to, n, "%.*s.tier.o", (int)(strlen(path) - strlen(endings[i])), path) < (int)n;
	return false;
}

static int copy(int to, int from)
{
	char bytes[65536];
	ssize_t got;

	lseek(from, 0, SEEK_SET);
	while ((got = read(from, bytes, sizeof(bytes))) > 0)
		for (ssize_t done = 0, put; done < got; done += put) {
			put = write(to, bytes + done, got - done);
			if (put < 0)
				return -errno;
		}
	return got < 0 ? -errno : 0;
}

/* mkstemp() makes it the owner's alone; it becomes what any new file is. */
static void give_usual_mode(int fd)
{
	const mode_t mask = umask(0);

	umask(mask);
	fchmod(fd, 0666 & ~mask);
}

static int write_whole(const char *path, int from)
{
	char temporary[PATH_MAX];
	int fd, r;

	if (snprintf(temporary, sizeof(temporary), "%s.XXXXXX", path) >= (int)sizeof(temporary))
		return -ENAMETOOLONG;
	fd = mkstemp(temporary);
	if (fd < 0)
		return -errno;
	give_usual_mode(fd);
	r = copy(fd, from);
	if (close(fd) && !r)
		r = -errno;
	if (!r && rename(temporary, path))
		r = -errno;
	if (r)
		unlink(temporary);
	return r;
}

int cmd_compile(struct ctl *ctl)
{
	char own[PATH_MAX];
	int fd, r;

	if (!ctl->output && !output_name(own, sizeof(own), ctl->args[0]))
		return fail("%s: no name for the output follows from it; say -o FILE", ctl->args[0]);
	fd = tier_precompile(ctl->conn, ctl->args[0], ctl->timeout_ns);
	if (fd == -ETIMEDOUT)
		return fail_tier(ctl->args[0]), CTL_UNMET;
	if (fd < 0)
		return fail_tier(ctl->args[0]);
	r = write_whole(ctl->output ? ctl->output : own, fd);
	close(fd);
	return r ? fail("%s: %s", ctl->output ? ctl->output : own, strerror(-r)) : CTL_DONE;
}
