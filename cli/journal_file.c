/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include "journal_file.h"

#define RECORD sizeof(struct tier_event)
#define FILE_MAX ((uint64_t)TIER_SEGMENT_EVENTS_MAX * RECORD * 2)

__attribute__((format(printf, 2, 3)))
static void problem(struct journal_file *file, const char *format, ...)
{
	va_list args;

	if (*file->problem)	/* the first one says most */
		return;
	va_start(args, format);
	vsnprintf(file->problem, sizeof(file->problem), format, args);
	va_end(args);
}

static unsigned char *read_whole(int dir, const char *name, uint64_t *ret_n)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	unsigned char *bytes = NULL;
	struct stat status;
	ssize_t n = -1;

	if (fd < 0)
		return NULL;
	if (!fstat(fd, &status) && (uint64_t)status.st_size <= FILE_MAX)
		bytes = malloc(status.st_size + 1);
	else
		errno = EFBIG;
	if (bytes)
		n = pread(fd, bytes, status.st_size, 0);
	close(fd);
	if (n < 0) {
		free(bytes);
		return NULL;
	}
	*ret_n = n;
	return bytes;
}

static bool is_sound(const void *record)
{
	uint32_t crc;

	memcpy(&crc, (const char *)record + RECORD - sizeof(crc), sizeof(crc));
	return crc == crc32(0, record, RECORD - sizeof(crc));
}

/* Up to the first record that is not as it should be */
static void check_records(struct journal_file *file, const unsigned char *bytes, uint64_t n)
{
	for (uint64_t at = 0; at < n; at += RECORD, file->last++) {
		struct tier_event event;

		if (n - at < RECORD) {
			problem(file, "event %llu is cut", (unsigned long long)file->last + 1);
			return;
		}
		memcpy(&event, bytes + at, RECORD);
		if (!is_sound(&event)) {
			problem(file, "event %llu: the checksum is wrong", (unsigned long long)file->last + 1);
			return;
		}
		if (event.sequence != file->last + 1) {
			problem(file, "event %llu stands where %llu belongs", (unsigned long long)event.sequence,
				(unsigned long long)file->last + 1);
			return;
		}
	}
}

static void check_deflated(struct journal_file *file, const struct tier_segment_header *header, const unsigned char *bytes, uint64_t n)
{
	uLongf n_out = (header->last + 1 - header->first) * RECORD, n_wanted = n_out;
	unsigned char *records = malloc(n_out);
	int r = records ? uncompress(records, &n_out, bytes, n) : Z_MEM_ERROR;

	if (r == Z_MEM_ERROR)
		problem(file, "not enough memory to inflate it");
	else if (r != Z_OK && r != Z_BUF_ERROR)
		problem(file, "the deflated bytes are damaged");
	else if (r != Z_OK || n_out != n_wanted)
		problem(file, "it has another number of events than its header says");
	else
		check_records(file, records, n_out);
	free(records);
}

static void check(struct journal_file *file, const unsigned char *bytes, uint64_t n)
{
	const enum tier_segment_coding coding = file->is_deflated ? TIER_SEGMENT_DEFLATED : TIER_SEGMENT_RAW;
	struct tier_segment_header header;
	const char *wrong;

	if (n < sizeof(header)) {
		problem(file, "too short for a header");
		return;
	}
	memcpy(&header, bytes, sizeof(header));
	wrong = is_sound(&header) ? tier_segment_wrong(&header, file->first, coding) : "the header's checksum is wrong";
	if (wrong) {
		problem(file, "%s", wrong);
		return;
	}
	file->gap_first = header.gap_first;
	if (file->is_deflated)
		check_deflated(file, &header, bytes + sizeof(header), n - sizeof(header));
	else
		check_records(file, bytes + sizeof(header), n - sizeof(header));
	if (!*file->problem && file->last < file->first)
		problem(file, "it has no events");
}

bool journal_file_check(struct journal_file *ret, int dir, const char *name)
{
	const char *suffix = "";
	const uint64_t first = tier_segment_parse(name, &suffix);
	unsigned char *bytes;

	*ret = (struct journal_file){ .first = first, .last = first - 1, .gap_first = first,
				      .is_deflated = strcmp(suffix, TIER_SEGMENT_RAW_SUFFIX) };
	bytes = read_whole(dir, name, &ret->n_bytes);
	if (!bytes)
		return false;
	check(ret, bytes, ret->n_bytes);
	free(bytes);
	return true;
}
