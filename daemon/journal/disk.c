/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "journal/disk.h"
#include "journal/keeper.h"
#include "journal/reader.h"
#include "journal/writer.h"
#include "util/base.h"
#include "util/error.h"
#include "util/log.h"

#define SEGMENT_EVENTS 16384u	/* 1 MiB: deflated in 50 ms, inflated in 5 */
#define RETRY_NS UINT64_C(1000000000)

/* What can fail for a while: the log hears of it when it begins, changes and ends. */
enum trouble { TROUBLE_WRITE, TROUBLE_SYNC, TROUBLE_DEFLATE, TROUBLE_REMOVE, TROUBLE_READ, _TROUBLE_N };
static const char *const trouble_words[_TROUBLE_N] = { "write events", "sync", "deflate a segment", "remove a segment",
						       "read a segment" };

struct disk {
	struct journal_config config;
	struct folder folder;
	struct segment_index index;
	struct disk_source source;

	uint64_t newest;		/* number that journal_append() had last */
	uint64_t written;		/* on the disk */
	uint64_t synced;		/* surely on the disk: numbers up to this one, as far as they are in segments */
	uint64_t sync_ns;		/* when the next sync is due; 0: not before something is written */
	uint64_t retry_ns;		/* when what failed is tried again; 0: nothing did */
	int troubles[_TROUBLE_N];	/* 0 or -errno */
	bool waits[_TROUBLE_N];		/* for retry_ns */
	bool is_open, is_closing;
	bool is_lost;			/* somebody removed segments: the writer looks which are there */

	struct dispatch_timer timer;
	struct task_thread *writing, *keeping, *reading;
	struct writer *writer;
	struct keeper keeper;
	struct reader reader;
};

static void upkeep(struct disk *disk);
DEFINE_CLEANUP(struct disk *, disk_free)

/* -- The log --- */
static void note(struct disk *disk, enum trouble trouble, int r, const char *what)
{
	const int before = disk->troubles[trouble];

	if (!r && trouble == TROUBLE_READ)	/* whoever reads back and forth must not fill the log */
		return;
	disk->troubles[trouble] = r;
	disk->waits[trouble] = r;
	if (r && !disk->retry_ns)
		disk->retry_ns = clock_now_ns() + disk->config.retry_ns;
	if (r == before)
		return;
	if (r)
		log_line(LOG_ERROR, "journal: cannot %s in %s: %s%s", what, disk->config.folder, strerrordesc_np(-r),
			 trouble == TROUBLE_WRITE ? "; events are kept in memory" : "");
	else
		log_line(LOG_INFO, "journal: can %s in %s again", trouble_words[trouble], disk->config.folder);
}

/* -- Writing --- */
static struct segment *current(const struct disk *disk)
{
	struct segment *newest = index_newest(&disk->index);

	return newest && !newest->is_deflated && segment_n(newest) < disk->config.segment_events ? newest : NULL;
}

static uint64_t gap_first(const struct disk *disk)
{
	return disk->index.n ? index_newest(&disk->index)->last + 1 : 1;
}

/* The segment that a batch from @first on goes into. A gap begins a new one. */
static void writer_aim(struct disk *disk, uint64_t first)
{
	struct writer *writer = disk->writer;
	const struct segment *segment = current(disk);

	writer->begins = !segment || segment->last + 1 != first;
	if (!writer->begins) {
		writer->segment = *segment;
		return;
	}
	writer->segment = (struct segment){ .first = first, .last = first - 1, .time_ns = writer->events[0].time_ns,
					    .last_ns = writer->events[0].time_ns, .gap_first = gap_first(disk) };
}

/* False: there is nothing to write. */
static bool writer_load(struct disk *disk)
{
	struct writer *writer = disk->writer;
	uint64_t first = disk->written + 1;

	writer->n = 0;
	writer->looks = disk->is_lost;
	if (disk->is_lost) {
		writer->segment = disk->index.n ? *index_newest(&disk->index) : (struct segment){ .first = 0 };
		return true;
	}
	if (disk->written < disk->newest)
		writer->n = disk->source.take(disk->source.context, first, writer->events, WRITER_BATCH_MAX, &first);
	writer->told = disk->troubles[TROUBLE_WRITE] && disk->written < disk->newest ? disk->newest : 0;
	if (writer->n) {
		writer_aim(disk, first);
		writer->n = MIN(writer->n, disk->config.segment_events - segment_n(&writer->segment));
	} else if (disk->index.n) {
		writer->begins = false;
		writer->segment = *index_newest(&disk->index);
	}
	if (index_reserve(&disk->index))	/* for a segment that begins; the next event tries again */
		return false;
	return writer->n || (disk->index.n && !writer->is_exact && writer->bound);	/* takes "not exact" back */
}

/* Back to the newest segment that is there; what memory has of those that are not is written again. */
static void look_settle(struct disk *disk)
{
	struct writer *writer = disk->writer;

	if (writer->r) {
		note(disk, TROUBLE_WRITE, writer->r, writer->failed);
	} else if (disk->index.n && !writer->is_there) {
		index_remove_newest(&disk->index);
	} else {
		disk->is_lost = false;
		disk->written = disk_newest(disk);
		disk->synced = MIN(disk->synced, disk->written);
		log_line(LOG_WARNING, "journal: somebody removed events from %" PRIu64 " on from %s; what memory has of them is written again",
			 disk->written + 1, disk->config.folder);
	}
}

static void writer_settle(struct disk *disk)
{
	struct writer *writer = disk->writer;
	struct segment *segment = index_newest(&disk->index);
	const uint64_t lost = writer->segment.gap_first;

	if (writer->looks) {
		look_settle(disk);
		return;
	}
	disk->is_lost = writer->r == -ENOENT;
	if (writer->n_written) {
		if (writer->begins)
			index_append(&disk->index, &writer->segment);
		else
			index_update(&disk->index, segment, &writer->segment);
		disk->written = writer->segment.last;
		if (writer->begins && lost < writer->segment.first)
			log_line(LOG_WARNING, "journal: events %" PRIu64 " to %" PRIu64 " are missing in %s", lost, writer->segment.first - 1,
				 disk->config.folder);
		if (disk->config.sync == JOURNAL_SYNC_RECORD)
			disk->synced = disk->written;
		else if (disk->config.sync == JOURNAL_SYNC_INTERVAL && !disk->sync_ns)
			disk->sync_ns = clock_now_ns() + disk->config.sync_interval_ns;
	}
	/* while old ones are still to be written everybody is served from memory */
	if (writer->r || disk->written == disk->newest || !disk->troubles[TROUBLE_WRITE])
		note(disk, TROUBLE_WRITE, writer->r, writer->failed);
}

static void writer_ran(struct task *task)
{
	writer_run(container_of(task, struct writer, task));
}

static void hand_over(struct disk *disk);

static struct disk *disk_of(const struct folder *folder)
{
	return container_of(folder, struct disk, folder);
}

static void writer_done(struct task *task)
{
	struct disk *disk = disk_of(container_of(task, struct writer, task)->folder);

	if (!task->ran)
		return;
	writer_settle(disk);
	if (disk->is_closing)
		return;
	hand_over(disk);
	upkeep(disk);
	disk->config.readable(disk->config.context);
}

static void hand_over(struct disk *disk)
{
	if (disk->writer->task.under_way || disk->waits[TROUBLE_WRITE] || !writer_load(disk))
		return;
	task_submit(disk->writing, &disk->writer->task, writer_ran, writer_done);
}

void disk_appended(struct disk *disk, uint64_t newest)
{
	disk->newest = newest;
	hand_over(disk);
}

uint64_t disk_readable(const struct disk *disk)
{
	return disk->troubles[TROUBLE_WRITE] ? UINT64_MAX : disk->written;
}

/* -- Keeping --- */
static uint64_t wall_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + ts.tv_nsec;
}

/* The segment that is written to stays, however large or old. */
static const struct segment *to_remove(const struct disk *disk)
{
	const struct segment *oldest = index_oldest(&disk->index);
	const uint64_t now = wall_ns();

	if (disk->index.n < 2)
		return NULL;
	if (disk->config.size_max && disk->index.n_bytes > disk->config.size_max)
		return oldest;
	return disk->config.age_max_ns && now > disk->config.age_max_ns && oldest->last_ns < now - disk->config.age_max_ns ? oldest : NULL;
}

/* The first segment with an event that is not surely on the disk, when it is time */
static const struct segment *to_sync(const struct disk *disk)
{
	const struct segment *segment = index_find(&disk->index, disk->synced + 1);

	if (!disk->sync_ns || disk->sync_ns > clock_now_ns() || disk->synced >= disk->written)
		return NULL;
	if (!segment)
		return index_oldest(&disk->index);
	return segment->last > disk->synced ? segment : index_next(&disk->index, segment);
}

/* In their order: the raw ones are the last ones. */
static const struct segment *to_deflate(const struct disk *disk)
{
	uint32_t i = disk->index.n;

	while (i && !disk->index.segments[i - 1].is_deflated)
		i--;
	return i < disk->index.n && &disk->index.segments[i] != current(disk) ? &disk->index.segments[i] : NULL;
}

/* The next sync is due when something was written that is not synced yet; older segments do not wait for that. */
static void sync_settle(struct disk *disk)
{
	const struct keeper *keeper = &disk->keeper;

	disk->synced = MAX(disk->synced, keeper->segment.last);
	if (disk->synced >= disk->written)
		disk->sync_ns = 0;
	else if (disk->index.n && keeper->segment.first == index_newest(&disk->index)->first)
		disk->sync_ns = clock_now_ns() + disk->config.sync_interval_ns;
}

static void keeper_settle(struct disk *disk)
{
	static const enum trouble troubles[] = { [KEEPER_SYNC] = TROUBLE_SYNC, [KEEPER_DEFLATE] = TROUBLE_DEFLATE,
						 [KEEPER_REMOVE] = TROUBLE_REMOVE };
	struct keeper *keeper = &disk->keeper;
	struct segment *segment = index_find(&disk->index, keeper->segment.first);
	const bool is_there = segment && segment->first == keeper->segment.first;	/* nobody removed it meanwhile */

	if (!keeper->r && keeper->job == KEEPER_SYNC && is_there)
		sync_settle(disk);
	if (!keeper->r && keeper->job == KEEPER_DEFLATE && is_there)
		index_update(&disk->index, segment, &keeper->segment);
	note(disk, troubles[keeper->job], keeper->r, trouble_words[troubles[keeper->job]]);
}

static void keeper_ran(struct task *task)
{
	keeper_run(container_of(task, struct keeper, task));
}

static void keeper_done(struct task *task)
{
	struct disk *disk = disk_of(container_of(task, struct keeper, task)->folder);

	if (task->ran)
		keeper_settle(disk);
	if (!disk->is_closing)
		upkeep(disk);
}

static void keep(struct disk *disk, enum keeper_job job, const struct segment *segment)
{
	disk->keeper.job = job;
	disk->keeper.segment = *segment;
	if (job == KEEPER_REMOVE)
		index_remove_oldest(&disk->index);
	task_submit(disk->keeping, &disk->keeper.task, keeper_ran, keeper_done);
}

static bool keep_if(struct disk *disk, enum keeper_job job, enum trouble trouble, const struct segment *(*pick)(const struct disk *disk))
{
	const struct segment *segment = disk->waits[trouble] ? NULL : pick(disk);

	if (segment)
		keep(disk, job, segment);
	return segment;
}

/* When upkeep() has something to do next; 0: when a task is done */
static uint64_t upkeep_deadline(const struct disk *disk)
{
	const struct segment *oldest = disk->index.n > 1 && disk->config.age_max_ns ? index_oldest(&disk->index) : NULL;
	const uint64_t now = clock_now_ns(), wall = wall_ns();
	uint64_t deadline = disk->retry_ns, age_ns = 0;

	if (disk->sync_ns && !disk->waits[TROUBLE_SYNC])
		deadline = deadline ? MIN(deadline, disk->sync_ns) : disk->sync_ns;
	if (oldest && !disk->waits[TROUBLE_REMOVE]) {
		age_ns = oldest->last_ns + disk->config.age_max_ns;
		age_ns = now + (age_ns > wall ? age_ns - wall : 0) + 1;
		deadline = deadline ? MIN(deadline, age_ns) : age_ns;
	}
	return deadline;
}

static void upkeep(struct disk *disk)
{
	uint64_t deadline;

	if (disk->synced >= disk->written)
		disk->sync_ns = 0;
	deadline = upkeep_deadline(disk);
	if (!disk->keeper.task.under_way && !keep_if(disk, KEEPER_SYNC, TROUBLE_SYNC, to_sync)
	    && !keep_if(disk, KEEPER_REMOVE, TROUBLE_REMOVE, to_remove))
		keep_if(disk, KEEPER_DEFLATE, TROUBLE_DEFLATE, to_deflate);
	if (deadline && !disk->keeper.task.under_way)
		dispatch_timer_arm(&disk->timer, deadline);
}

static int timer_due(struct dispatch_timer *timer, uint64_t now_ns)
{
	struct disk *disk = container_of(timer, struct disk, timer);

	if (disk->retry_ns && disk->retry_ns <= now_ns) {
		disk->retry_ns = 0;
		memset(disk->waits, 0, sizeof(disk->waits));
		hand_over(disk);
	}
	upkeep(disk);
	return 0;
}

/* -- Reading --- */
static void reader_ran(struct task *task)
{
	reader_run(container_of(task, struct reader, task));
}

static void reader_done(struct task *task)
{
	struct reader *reader = container_of(task, struct reader, task);
	struct disk *disk = disk_of(reader->folder);

	if (!task->ran || disk->is_closing)
		return;
	note(disk, TROUBLE_READ, reader->r ? reader->r : reader->n_bad ? -EBADMSG : 0, trouble_words[TROUBLE_READ]);
	reader_settle(reader);
	disk->config.readable(disk->config.context);
}

static int fetch(struct disk *disk, const struct segment *segment)
{
	if (!disk->reader.task.under_way) {
		reader_prepare(&disk->reader, segment);
		task_submit(disk->reading, &disk->reader.task, reader_ran, reader_done);
	}
	return JOURNAL_E_LATER;
}

/* Copies the events from @cached on that can be had; without any, says up to where there are none. */
static int serve(const struct tier_event *cached, uint64_t n_cached, uint64_t from, struct tier_event *events, uint32_t n_max,
		 uint32_t *ret_n, uint64_t *ret_gap_last)
{
	uint64_t n = 0;

	while (n < n_cached && !cached[n].sequence)
		n++;
	*ret_gap_last = from + n - 1;
	if (n)
		return JOURNAL_E_GAP;
	for (; n < n_cached && n < n_max && cached[n].sequence; n++)
		events[n] = cached[n];
	*ret_n = n;
	return 0;
}

int disk_read(struct disk *disk, uint64_t from, struct tier_event *events, uint32_t n_max, uint32_t *ret_n, uint64_t *ret_gap_last)
{
	const struct segment *segment = index_find(&disk->index, from), *next;
	const struct tier_event *cached;
	uint64_t n;

	if (!segment || from > segment->last) {
		next = segment ? index_next(&disk->index, segment) : index_oldest(&disk->index);
		*ret_gap_last = next ? next->first - 1 : UINT64_MAX;
		return !next && disk->writer->task.under_way && from > disk->written && from <= disk->newest ? JOURNAL_E_LATER : JOURNAL_E_GAP;
	}
	cached = reader_find(&disk->reader, segment, from, &n);
	return cached ? serve(cached, n, from, events, n_max, ret_n, ret_gap_last) : fetch(disk, segment);
}

int disk_seek(struct disk *disk, uint64_t time_ns, uint64_t *ret)
{
	const struct segment *segment = index_find_time(&disk->index, time_ns);
	const struct tier_event *cached;
	uint64_t n;

	if (!segment)
		segment = index_oldest(&disk->index);
	if (!segment)
		return JOURNAL_E_GAP;
	if (time_ns <= segment->time_ns) {
		*ret = segment->first;
		return 0;
	}
	cached = reader_find(&disk->reader, segment, segment->first, &n);
	if (!cached || n < segment_n(segment))
		return fetch(disk, segment);
	*ret = segment->first + events_find_time(cached, n, time_ns);
	return *ret > segment->last && !index_next(&disk->index, segment) ? JOURNAL_E_GAP : 0;
}

/* -- Life --- */
uint64_t disk_used(const struct disk *disk) { return disk->folder.used; }
uint64_t disk_newest(const struct disk *disk) { return disk->index.n ? index_newest(&disk->index)->last : 0; }
uint64_t disk_oldest(const struct disk *disk) { return disk->index.n ? index_oldest(&disk->index)->first : UINT64_MAX; }

static int disk_open_folder(struct disk *disk)
{
	const char *path = disk->config.folder;
	int r;

	r = folder_open(&disk->folder, path);
	if (r == -EBUSY) {
		log_line(LOG_ERROR, "another tierd keeps its journal in %s; stop it, or choose another --journal", path);
		return r;
	}
	if (!r)
		r = folder_recover(&disk->folder, &disk->index, disk->source.told);
	if (r == FOLDER_E_STRANGE) {
		log_line(LOG_ERROR, "%s has events up to %" PRIu64 ", but the newest of this history is %" PRIu64
			 "; choose another --journal", path, disk_newest(disk), disk->source.told);
		return -EBADMSG;
	}
	if (r) {
		log_line(LOG_ERROR, "cannot keep a journal in %s: %s", path, strerrordesc_np(-r));
		return r;
	}
	disk->written = disk_newest(disk);
	disk->newest = MAX(disk->written, disk->source.newest);
	disk->synced = disk->index.n ? index_newest(&disk->index)->first - 1 : 0;	/* a predecessor may have died before its sync */
	if (disk->index.n && disk->config.sync != JOURNAL_SYNC_NEVER)
		disk->sync_ns = clock_now_ns();
	return 0;
}

static int disk_start_threads(struct disk *disk, struct dispatch *dispatch)
{
	int r;

	r = task_thread_new(&disk->writing, dispatch, "journal-write");
	if (!r)
		r = task_thread_new(&disk->keeping, dispatch, "journal-keep");
	if (!r)
		r = task_thread_new(&disk->reading, dispatch, "journal-read");
	return r ? error_fold(r) : 0;
}

int disk_open(struct disk **ret, struct dispatch *dispatch, const struct journal_config *config, const struct disk_source *source)
{
	_cleanup_(disk_freep) struct disk *disk = calloc(1, sizeof(*disk));
	int r;

	if (!disk)
		return error_origin(-ENOMEM);
	*disk = (struct disk){ .config = *config, .folder = FOLDER_NULL, .source = *source,
			       .keeper = { .task = TASK_NULL(disk->keeper.task), .folder = &disk->folder },
			       .reader = { .task = TASK_NULL(disk->reader.task), .folder = &disk->folder } };
	if (!disk->config.segment_events)
		disk->config.segment_events = SEGMENT_EVENTS;
	if (!disk->config.retry_ns)
		disk->config.retry_ns = RETRY_NS;
	dispatch_timer_init(&disk->timer, dispatch, timer_due, "journal");
	disk->writer = malloc(sizeof(*disk->writer));
	if (!disk->writer)
		return error_origin(-ENOMEM);
	writer_init(disk->writer, &disk->folder, config->sync == JOURNAL_SYNC_RECORD);
	r = disk_open_folder(disk);
	if (!r)
		r = disk_start_threads(disk, dispatch);
	if (r)
		return r;
	if (disk->index.n)
		log_line(LOG_INFO, "journal: %s has events %" PRIu64 " to %" PRIu64, config->folder, disk_oldest(disk), disk_newest(disk));
	disk->is_open = true;
	hand_over(disk);
	upkeep(disk);
	*ret = TAKE_PTR(disk);
	return 0;
}

/* The threads are gone: what is left to do is done here. */
static void disk_finish(struct disk *disk)
{
	struct writer *writer = disk->writer;
	struct keeper *keeper = &disk->keeper;
	bool goes_on = true, was_lost = false;
	uint64_t newest;

	while (goes_on && writer_load(disk) && (writer->n || writer->looks)) {
		writer_run(writer);
		writer_settle(disk);
		goes_on = !writer->r || (disk->is_lost && !was_lost);
		was_lost |= disk->is_lost;
	}
	disk->sync_ns = disk->config.sync == JOURNAL_SYNC_NEVER ? 0 : 1;	/* long due */
	for (const struct segment *segment; (segment = to_sync(disk)); disk->synced = segment->last) {
		*keeper = (struct keeper){ .folder = &disk->folder, .job = KEEPER_SYNC, .segment = *segment };
		keeper_run(keeper);
		if (keeper->r)
			break;
	}
	newest = MAX(disk->newest, disk->folder.used);
	folder_promise(&disk->folder, newest + 1, disk->written == newest);
}

struct disk *disk_free(struct disk *disk)
{
	if (!disk)
		return NULL;
	disk->is_closing = true;
	disk->reading = task_thread_free(disk->reading);
	disk->keeping = task_thread_free(disk->keeping);
	disk->writing = task_thread_free(disk->writing);
	if (disk->is_open)
		disk_finish(disk);
	dispatch_timer_disarm(&disk->timer);
	if (disk->writer)
		writer_deinit(disk->writer);
	free(disk->writer);
	reader_deinit(&disk->reader);
	index_deinit(&disk->index);
	folder_close(&disk->folder);
	free(disk);
	return NULL;
}
