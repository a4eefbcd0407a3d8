/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "ctl.h"

int fail(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fputs("tierctl: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return CTL_FAILED;
}

int fail_tier(const char *what)
{
	char quoted[4096];

	snprintf(quoted, sizeof(quoted), "'%s'", what);
	if (strstr(tier_error_text(), quoted))
		return fail("%s", tier_error_text());
	return fail("%s: %s", what, tier_error_text());
}

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + ts.tv_nsec;
}

bool parse_number(const char *text, uint64_t *ret)
{
	const bool is_hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*ret = strtoull(text, &end, is_hex ? 16 : 10);
	return !errno && !*end;
}

bool parse_integer(const char *text, uint64_t *ret)
{
	const bool is_negative = *text == '-';

	if (!parse_number(text + is_negative, ret) || (is_negative && *ret > (uint64_t)INT64_MAX + 1))
		return false;
	if (is_negative)
		*ret = -*ret;
	return true;
}

bool parse_duration(const char *text, uint64_t *ret_ns)
{
	static const struct { const char *unit; uint64_t ns; } units[] = {
		{ "", 1000000 }, { "ns", 1 }, { "us", 1000 }, { "ms", 1000000 }, { "s", 1000000000 },
		{ "min", 60000000000 }, { "h", 3600000000000 },
	};
	char *end;
	unsigned long long number;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	number = strtoull(text, &end, 10);
	for (size_t i = 0; !errno && i < sizeof(units) / sizeof(units[0]); i++)
		if (!strcmp(end, units[i].unit))
			return !__builtin_mul_overflow(number, units[i].ns, ret_ns);
	return false;
}

/* -- Arguments of calls --- */
static bool call_file_read(struct call_file *ret, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	bool ok = false;

	if (fd < 0 || fstat(fd, &st) < 0) {
		fail("%s: %s", path, strerror(errno));
	} else if (!S_ISREG(st.st_mode)) {
		fail("%s: not a regular file", path);
	} else {
		size_t n_mapped = st.st_size ? st.st_size : 1;

		ret->n = st.st_size;
		ret->bytes = mmap(NULL, n_mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		ok = ret->bytes != MAP_FAILED && pread(fd, ret->bytes, ret->n, 0) == (ssize_t)ret->n;
		if (!ok)
			fail("%s: cannot read it whole", path);
	}
	if (fd >= 0)
		close(fd);
	return ok;
}

static bool call_arg_push(struct call_args *args, uint64_t value)
{
	if (args->n == CALL_ARGS_MAX) {
		fail("a method takes at most %d arguments (@FILE counts as two)", CALL_ARGS_MAX);
		return false;
	}
	args->values[args->n++] = value;
	return true;
}

bool call_args_parse(struct call_args *ret, char **args, int n_args)
{
	*ret = (struct call_args){ 0 };
	for (int i = 0; i < n_args; i++) {
		struct call_file *file = &ret->files[ret->n_files];
		uint64_t value;

		if (args[i][0] == '@') {
			if (ret->n + 2 > CALL_ARGS_MAX)
				return call_arg_push(&(struct call_args){ .n = CALL_ARGS_MAX }, 0);
			if (!call_file_read(file, args[i] + 1))
				return false;
			ret->n_files++;
			if (!call_arg_push(ret, (uintptr_t)file->bytes) || !call_arg_push(ret, file->n))
				return false;
			continue;
		}
		if (!parse_integer(args[i], &value)) {
			fail("argument '%s' is neither an integer of 64 bits (decimal or 0x) nor @FILE", args[i]);
			return false;
		}
		if (!call_arg_push(ret, value))
			return false;
	}
	return true;
}

void call_args_free(struct call_args *args)
{
	for (int i = 0; i < args->n_files; i++)
		munmap(args->files[i].bytes, args->files[i].n ? args->files[i].n : 1);
}
