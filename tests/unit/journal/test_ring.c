/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/journal/place.h"
#include <sys/mman.h>
#include "journal/ring.h"

/* The memory that outlives the daemon: what a successor finds when its predecessor died between any two stores, and what it makes of
 * memory that no journal left. */

#define N_MAX 8u
#define HEADER 64u
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* The header as ring.c draws it, by offset: tests write what no ring would */
enum { AT_MAGIC = 0, AT_VERSION = 8, AT_N_MAX = 12, AT_FIRST = 16, AT_NEWEST = 24 };

static void append(struct ring *ring, uint64_t first, uint64_t last)
{
	for (uint64_t s = first; s <= last; s++) {
		struct tier_event event = place_event(s);

		event.crc = 0;
		ring_append(ring, &event);
	}
}

static void has(const struct ring *ring, uint64_t first, uint64_t last)
{
	assert_int_equal(ring_n(ring), last + 1 - first);
	assert_int_equal(ring_newest(ring), last);
	for (uint64_t s = first; s <= last; s++) {
		const struct tier_event expected = place_event(s);

		assert_memory_equal(ring_at(ring, s), &expected, sizeof(expected));
	}
}

/* A descriptor of a copy of the memory as it is now */
static int copy_of(const struct ring *ring, unsigned int seals)
{
	int fd = memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, ring->memory, ring->size), ring->size);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static void an_event_goes_when_its_place_is_needed(void **state)
{
	struct ring ring;

	assert_int_equal(ring_init(&ring, N_MAX), 0);
	assert_int_equal(ring_n(&ring), 0);
	assert_int_equal(ring_first(&ring), 1);
	append(&ring, 1, N_MAX);
	has(&ring, 1, N_MAX);
	append(&ring, N_MAX + 1, 100);
	has(&ring, 101 - N_MAX, 100);
	ring_begin(&ring, 200);
	assert_int_equal(ring_n(&ring), 0);
	assert_int_equal(ring_newest(&ring), 200);
	append(&ring, 201, 203);
	has(&ring, 201, 203);
	ring_deinit(&ring);
}

/* -- Dying --- */
static struct ring *dying;
static uint64_t newest_before, newest_after;	/* which of them a successor finds */
static unsigned int n_deaths;

static void die(void)
{
	struct ring successor;
	const char *why;
	uint64_t damage;

	n_deaths++;
	ring_crash_point = NULL;
	assert_int_equal(ring_adopt(&successor, copy_of(dying, SEALS), &damage, &why), 0);
	assert_int_equal(damage, 0);
	assert_true(ring_newest(&successor) == newest_before || ring_newest(&successor) == newest_after);
	has(&successor, ring_first(&successor), ring_newest(&successor));
	/* no more is lost than the one whose place the next one takes */
	if (newest_after == newest_before + 1 && ring_n(dying))
		assert_true(ring_n(&successor) >= MIN(newest_before, N_MAX - 1));
	append(&successor, ring_newest(&successor) + 1, ring_newest(&successor) + 2 * N_MAX);
	has(&successor, ring_newest(&successor) + 1 - N_MAX, ring_newest(&successor));
	ring_deinit(&successor);
	ring_crash_point = die;
}

static void dying_between_any_two_stores_leaves_whole_events(void **state)
{
	struct ring ring;

	assert_int_equal(ring_init(&ring, N_MAX), 0);
	dying = &ring;
	ring_crash_point = die;
	for (uint64_t s = 1; s <= 3 * N_MAX; s++) {
		newest_before = ring_newest(&ring);
		newest_after = s;
		append(&ring, s, s);
	}
	newest_before = 3 * N_MAX;
	newest_after = 500;
	ring_begin(&ring, 500);
	newest_before = 500;
	newest_after = 100;
	ring_begin(&ring, 100);
	ring_crash_point = NULL;
	assert_int_equal(n_deaths, 3 * N_MAX * 3 + 2 * 3);
	ring_deinit(&ring);
}

/* Before the magic is there it is no memory of a journal's yet: nothing was appended either. */
static void die_unborn(void)
{
	n_deaths++;
}

static void a_memory_is_one_when_it_is_complete(void **state)
{
	struct ring ring;

	n_deaths = 0;
	ring_crash_point = die_unborn;
	assert_int_equal(ring_init(&ring, N_MAX), 0);
	ring_crash_point = NULL;
	assert_int_equal(n_deaths, 1);
	ring_deinit(&ring);
}

/* -- Memory that is not as it should be --- */
static void refuses(int fd, const char *expected)
{
	unsigned char before[HEADER] = {}, after[HEADER] = {};
	struct ring ring = RING_NULL;
	const char *why;
	uint64_t damage;

	assert_true(pread(fd, before, sizeof(before), 0) >= 0);
	assert_int_equal(ring_adopt(&ring, fd, &damage, &why), -EBADMSG);
	assert_string_equal(why, expected);
	assert_true(pread(fd, after, sizeof(after), 0) >= 0);
	assert_memory_equal(before, after, sizeof(before));	/* and @fd is still ours */
	close(fd);
}

static void strange_memory_is_refused(void **state)
{
	static const struct {
		unsigned int at;
		uint64_t value;
		const char *why;
	} headers[] = {
		{ AT_MAGIC, 0, "it is not a journal's memory" },
		{ AT_MAGIC, 0x3152474444454954, "it is not a journal's memory" },
		{ AT_VERSION, 2 | (uint64_t)N_MAX << 32, "it is of another version" },
		{ AT_VERSION, 1, "its size is not what its header says" },
		{ AT_VERSION, 1 | (uint64_t)UINT32_MAX << 32, "its size is not what its header says" },
		{ AT_VERSION, 1 | (uint64_t)(N_MAX + 1) << 32, "its size is not what its header says" },
		{ AT_FIRST, 0, "its numbers are impossible" },
		{ AT_FIRST, 1, "its numbers are impossible" },
		{ AT_NEWEST, UINT64_MAX, "its numbers are impossible" },
		{ AT_NEWEST, UINT64_MAX - 1, "its numbers are impossible" },
	};
	struct ring ring;
	char path[64];
	int fd;

	assert_int_equal(ring_init(&ring, N_MAX), 0);
	append(&ring, 1, 2 * N_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(headers); i++) {
		fd = copy_of(&ring, SEALS);
		assert_int_equal(pwrite(fd, &headers[i].value, 8, headers[i].at), 8);
		refuses(fd, headers[i].why);
	}
	refuses(copy_of(&ring, 0), "it is no memory that is sealed against resizing");
	refuses(copy_of(&ring, F_SEAL_GROW), "it is no memory that is sealed against resizing");
	refuses(copy_of(&ring, SEALS | F_SEAL_WRITE), "it is no memory that is sealed against resizing");
	refuses(copy_of(&ring, SEALS | F_SEAL_FUTURE_WRITE), "it is no memory that is sealed against resizing");
	refuses(open("/dev/null", O_RDWR), "it is no memory that is sealed against resizing");
	fd = copy_of(&ring, SEALS);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	refuses(open(path, O_RDONLY), "it is not open for reading and writing");
	close(fd);
	fd = memfd_create("short", MFD_ALLOW_SEALING);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, SEALS), 0);
	refuses(fd, "it is too short for a header");
	ring_deinit(&ring);
}

/* One damaged byte anywhere: the events behind it stay, and nobody is told a wrong one. */
static void damage_costs_what_comes_before_it(void **state)
{
	struct ring ring, successor;
	const char *why;
	uint64_t damage;

	assert_int_equal(ring_init(&ring, N_MAX), 0);
	append(&ring, 1, 20);
	for (uint64_t at = HEADER; at < ring.size; at++) {
		const uint64_t slot = (at - HEADER) / 64, s = 13 + (slot + N_MAX - 13 % N_MAX) % N_MAX;
		int fd = copy_of(&ring, SEALS);
		unsigned char byte;

		assert_int_equal(pread(fd, &byte, 1, at), 1);
		byte ^= 1u << at % 8;
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
		assert_int_equal(ring_adopt(&successor, fd, &damage, &why), 0);
		assert_int_equal(damage, s);
		has(&successor, s + 1, 20);	/* none of the newest: its number stays known */
		append(&successor, 21, 22);
		ring_deinit(&successor);
	}
	ring_deinit(&ring);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_event_goes_when_its_place_is_needed),
		cmocka_unit_test(dying_between_any_two_stores_leaves_whole_events),
		cmocka_unit_test(a_memory_is_one_when_it_is_complete),
		cmocka_unit_test(strange_memory_is_refused),
		cmocka_unit_test(damage_costs_what_comes_before_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
