/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "journal/writer.h"
#include "util/base.h"

/* Promises are written in steps: one sync for so many events, and at the most so many numbers that a power loss makes a gap. */
#define PROMISE_STEP 65536u
#define RECORD sizeof(struct tier_event)

_Static_assert(offsetof(struct writer, events) == offsetof(struct writer, header) + sizeof(struct tier_segment_header), "one write");

void writer_init(struct writer *writer, const struct folder *folder, bool syncs)
{
	*writer = (struct writer){ .folder = folder, .syncs = syncs, .fd = -1 };
}

void writer_deinit(struct writer *writer)
{
	writer->fd = close_fd(writer->fd);
}

static int failed(struct writer *writer, int r, const char *what)
{
	writer->failed = what;
	return r;
}

/* Events that are told before they are written may be lost with the daemon: then the segments are not all that was told. */
static int promise(struct writer *writer)
{
	const uint64_t newest = MAX(writer->told, writer->segment.last + writer->n);
	const bool is_exact = writer->told <= writer->segment.last;
	int r;

	if (is_exact == writer->is_exact && newest < writer->bound)
		return 0;
	r = folder_promise(writer->folder, newest + PROMISE_STEP, is_exact);
	if (r)
		return failed(writer, r, "write numbers");
	writer->bound = newest + PROMISE_STEP;
	writer->is_exact = is_exact;
	return 0;
}

static int begin(struct writer *writer)
{
	char name[TIER_SEGMENT_NAME_MAX];

	writer->fd = close_fd(writer->fd);
	tier_segment_name(name, writer->segment.first, TIER_SEGMENT_RAW_SUFFIX);
	writer->fd = segment_io.open(writer->folder->fd, name, O_WRONLY | (writer->begins ? O_CREAT | O_TRUNC : 0));
	writer->header = segment_header(&writer->segment);
	return writer->fd < 0 ? failed(writer, -errno, writer->begins ? "make a segment" : "open a segment") : 0;
}

/* Nothing of the new segment is there: neither may its file be. */
static void withdraw(struct writer *writer)
{
	writer->fd = close_fd(writer->fd);
	segment_remove(writer->folder->fd, &writer->segment);
}

static bool has_file(const struct writer *writer, const char *suffix)
{
	char name[TIER_SEGMENT_NAME_MAX];

	tier_segment_name(name, writer->segment.first, suffix);
	return !faccessat(writer->folder->fd, name, F_OK, AT_EACCESS);
}

/* What goes to a file that nobody can open any more is not written. Some file systems count no links: there the name counts. */
static bool is_removed(const struct writer *writer)
{
	struct stat status;

	return !fstat(writer->fd, &status) && !status.st_nlink && !has_file(writer, TIER_SEGMENT_RAW_SUFFIX);
}

static int append(struct writer *writer)
{
	const uint64_t at = (segment_n(&writer->segment) + 1) * RECORD;
	const size_t n_head = writer->begins ? sizeof(writer->header) : 0;
	size_t n;
	int r;

	r = segment_write(writer->fd, (char *)writer->events - n_head, writer->n * RECORD + n_head, at - n_head, &n);
	writer->n_written = n > n_head ? (n - n_head) / RECORD : 0;
	if (r) {
		if (segment_io.truncate(writer->fd, at + writer->n_written * RECORD) < 0)
			errno = 0;	/* half a record stays: the next attempt writes over it, a successor cuts it off */
		return failed(writer, r, "write");
	}
	if (is_removed(writer)) {
		writer->n_written = 0;
		return failed(writer, -ENOENT, "find the newest segment");
	}
	if (writer->syncs && (segment_io.sync(writer->fd) < 0 || (writer->begins && segment_io.sync(writer->folder->fd) < 0))) {
		writer->n_written = 0;
		return failed(writer, -errno, "sync");
	}
	return 0;
}

static int write_batch(struct writer *writer)
{
	int r;

	r = promise(writer);
	if (!r && writer->n && (writer->begins || writer->fd < 0))
		r = begin(writer);
	if (!r && writer->n)
		r = append(writer);
	if (r && writer->begins && !writer->n_written && writer->fd >= 0)
		withdraw(writer);
	return r;
}

static int look(struct writer *writer)
{
	int r = folder_remake(writer->folder);

	if (r)
		return failed(writer, r, "make the folder again");
	writer->fd = close_fd(writer->fd);
	writer->bound = 0;	/* the numbers may be gone, too */
	writer->is_there = has_file(writer, TIER_SEGMENT_RAW_SUFFIX) || has_file(writer, TIER_SEGMENT_DEFLATED_SUFFIX);
	return 0;
}

void writer_run(struct writer *writer)
{
	writer->n_written = 0;
	if (writer->looks) {
		writer->r = look(writer);
		return;
	}
	writer->r = write_batch(writer);
	if (writer->n_written) {
		writer->segment.last += writer->n_written;
		writer->segment.last_ns = writer->events[writer->n_written - 1].time_ns;
		writer->segment.n_bytes = (segment_n(&writer->segment) + 1) * RECORD;
	}
	/* from now on it is told from memory; where even this promise fails, the log is all that is left */
	if (writer->r && writer->is_exact && !folder_promise(writer->folder, writer->bound + PROMISE_STEP, false)) {
		writer->bound += PROMISE_STEP;
		writer->is_exact = false;
	}
}
