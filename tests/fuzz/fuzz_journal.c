/* SPDX-License-Identifier: Apache-2.0 */
/* A folder of a journal that anybody may have written to: any bytes in its files are recovered from, and what is then there can be
 * read from end to end, twice. The checksums of what stands where a header, a record or the numbers belong are put right where the
 * input asks for it; guessing them would be all it ever did.
 *
 *   input   one byte: what to put right; one byte: which files there are; the bytes of the raw segment, of the deflated one and of
 *           the numbers, a third each */
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "journal/folder.h"
#include "journal/record.h"
#include "journal/segment_z.h"
#include "util/log.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define RECORD sizeof(struct tier_event)
#define FIRST_RAW 17u
#define FIRST_DEFLATED 1u
enum { FIX_HEADER = 1, FIX_RECORDS = 2, FIX_NUMBERS = 4, FIX_SEQUENCE = 8, FIX_STREAM = 16 };
enum { HAS_RAW = 1, HAS_DEFLATED = 2, HAS_NUMBERS = 4, HAS_BOTH = 8, HAS_NEW = 16 };

static char folder_path[64];

/* Power stays on: syncing is all that it would ever do. */
static int no_sync(int fd)
{
	return 0;
}

static void remove_folder(void)
{
	rmdir(folder_path);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	snprintf(folder_path, sizeof(folder_path), "%.40s/tierd-fuzz-XXXXXX", getenv("TMPDIR") ?: "/tmp");
	if (!mkdtemp(folder_path))
		abort();
	atexit(remove_folder);
	segment_io.sync = no_sync;
	log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
	return 0;
}

static void put(const char *name, const void *bytes, size_t n)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder_path, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
	close(fd);
}

static void put_segment(uint64_t first, const char *suffix, const void *bytes, size_t n)
{
	char name[TIER_SEGMENT_NAME_MAX];

	tier_segment_name(name, first, suffix);
	put(name, bytes, n);
}

static void fix(void *record)
{
	struct tier_event *event = record;

	event->crc = record_crc(event);
}

static void fix_header(struct tier_segment_header *header, uint64_t first, enum tier_segment_coding coding)
{
	header->magic = TIER_SEGMENT_MAGIC;
	header->version = TIER_SEGMENT_VERSION;
	header->coding = coding;
	header->first = first;
	fix(header);
}

static void fix_records(uint8_t *bytes, size_t n, uint64_t first, unsigned int what)
{
	for (size_t at = 0; what & (FIX_RECORDS | FIX_SEQUENCE) && at + RECORD <= n; at += RECORD) {
		struct tier_event event;

		memcpy(&event, bytes + at, RECORD);
		if (what & FIX_SEQUENCE)
			event.sequence = first + at / RECORD;
		fix(&event);
		memcpy(bytes + at, &event, RECORD);
	}
}

static void make_raw(uint8_t *bytes, size_t n, uint64_t first, unsigned int what)
{
	struct tier_segment_header header;

	if (n >= RECORD && what & FIX_HEADER) {
		memcpy(&header, bytes, RECORD);
		fix_header(&header, first, TIER_SEGMENT_RAW);
		memcpy(bytes, &header, RECORD);
	}
	if (n > RECORD)
		fix_records(bytes + RECORD, n - RECORD, first, what);
	put_segment(first, TIER_SEGMENT_RAW_SUFFIX, bytes, n);
}

/* With FIX_STREAM the bytes are what the stream inflates to. */
static void make_deflated(uint8_t *bytes, size_t n, unsigned int what, const char *suffix)
{
	struct tier_segment_header header;
	void *stream = NULL;
	uint8_t *file;
	size_t n_stream = 0;

	if (n >= RECORD && what & FIX_HEADER) {
		memcpy(&header, bytes, RECORD);
		header.last &= 0xff;
		fix_header(&header, FIRST_DEFLATED, TIER_SEGMENT_DEFLATED);
		memcpy(bytes, &header, RECORD);
	}
	if (n <= RECORD || !(what & FIX_STREAM)) {
		put_segment(FIRST_DEFLATED, suffix, bytes, n);
		return;
	}
	fix_records(bytes + RECORD, n - RECORD, FIRST_DEFLATED, what);
	assert(!segment_deflate_bytes(bytes + RECORD, n - RECORD, &stream, &n_stream));
	file = malloc(RECORD + n_stream);
	assert(file);
	memcpy(file, bytes, RECORD);
	memcpy(file + RECORD, stream, n_stream);
	put_segment(FIRST_DEFLATED, suffix, file, RECORD + n_stream);
	free(file);
	free(stream);
}

static void make_numbers(const uint8_t *bytes, size_t n, unsigned int what)
{
	struct tier_numbers numbers = {};

	memcpy(&numbers, bytes, n < sizeof(numbers) ? n : sizeof(numbers));
	if (what & FIX_NUMBERS) {
		numbers.magic = TIER_NUMBERS_MAGIC;
		fix(&numbers);
	}
	put(TIER_NUMBERS_NAME, &numbers, n < sizeof(numbers) ? n : sizeof(numbers));
}

/* Whatever the header promised, as much memory as the largest segment takes is enough. */
static void read_segment(const struct folder *folder, const struct segment *segment)
{
	struct tier_event *events = calloc(segment_n(segment), sizeof(*events));
	int fd = segment_open(folder->fd, segment->first, segment->is_deflated);
	uint64_t n_bad;

	assert(segment_n(segment) <= TIER_SEGMENT_EVENTS_MAX && events && fd >= 0);
	assert(!segment_read(fd, segment, events, &n_bad));
	for (uint64_t i = 0; i < segment_n(segment); i++)
		if (events[i].sequence) {
			assert(events[i].sequence == segment->first + i && record_is_sound(&events[i]));
			n_bad++;
		}
	assert(n_bad == segment_n(segment));
	close(fd);
	free(events);
}

/* A start. What it kept the next one keeps as well, without a word of damage. */
static uint64_t start(bool is_first)
{
	struct folder folder = FOLDER_NULL;
	struct segment_index index = {};
	uint64_t n_events = 0;

	assert(!folder_open(&folder, folder_path) && !folder_recover(&folder, &index, 0));
	assert(is_first || !folder.is_damaged || folder.unread);	/* which stays as it is, for somebody to look at */
	for (uint32_t i = 0; i < index.n; i++) {
		const struct segment *segment = &index.segments[i];

		assert(!i || (segment->first > segment[-1].last && segment->gap_first == segment[-1].last + 1));
		assert(segment_n(segment) && segment->last <= folder.used);
		read_segment(&folder, segment);
		n_events += segment_n(segment);
	}
	index_deinit(&index);
	folder_close(&folder);
	return n_events;
}

static void empty_folder(void)
{
	static const char *const suffixes[] = { TIER_SEGMENT_RAW_SUFFIX, TIER_SEGMENT_DEFLATED_SUFFIX, TIER_SEGMENT_NEW_SUFFIX };
	char name[TIER_SEGMENT_NAME_MAX], path[128];

	for (unsigned int i = 0; i < 6; i++) {
		tier_segment_name(name, i % 2 ? FIRST_RAW : FIRST_DEFLATED, suffixes[i / 2]);
		snprintf(path, sizeof(path), "%s/%s", folder_path, name);
		unlink(path);
	}
	snprintf(path, sizeof(path), "%s/" TIER_NUMBERS_NAME, folder_path);
	unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	uint8_t *bytes = malloc(n + 1);
	uint64_t n_events;
	size_t third;

	assert(bytes);
	memcpy(bytes, data, n);
	if (n >= 2) {
		third = (n - 2) / 3;
		if (bytes[1] & HAS_DEFLATED)
			make_deflated(bytes + 2 + third, third, bytes[0], TIER_SEGMENT_DEFLATED_SUFFIX);
		if (bytes[1] & HAS_NEW)
			make_deflated(bytes + 2 + third, third, bytes[0], TIER_SEGMENT_NEW_SUFFIX);
		if (bytes[1] & HAS_RAW)
			make_raw(bytes + 2, third, bytes[1] & HAS_BOTH ? FIRST_DEFLATED : FIRST_RAW, bytes[0]);
		if (bytes[1] & HAS_NUMBERS)
			make_numbers(bytes + 2 + 2 * third, third, bytes[0]);
		n_events = start(true);
		assert(start(false) == n_events);
		empty_folder();
	}
	free(bytes);
	return 0;
}
