/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "journal/record.h"
#include "journal/ring.h"
#include "util/base.h"
#include "util/error.h"

#define MAGIC UINT64_C(0x0a474e5252454954)	/* "TIERRNG\n" */
#define VERSION 1u
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008u
#endif

struct ring_memory {
	uint64_t magic;		/* written last */
	uint32_t version, n_max;
	uint64_t first, newest;
	uint64_t reserved[4];
	struct tier_event events[];
};
_Static_assert(sizeof(struct ring_memory) == 64, "a header takes the place of an event");

void (*ring_crash_point)(void);

/* The memory is shared, so every store that was executed stays, and only the compiler could reorder them. */
static void stored(void)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (__builtin_expect(!!ring_crash_point, 0))
		ring_crash_point();
}

static size_t size_for(uint32_t n_max)
{
	return sizeof(struct ring_memory) + (size_t)n_max * sizeof(struct tier_event);
}

/* -- Life --- */
static int ring_map(struct ring *ring, int fd, size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);

	if (memory == MAP_FAILED)
		return error_origin(-errno);
	*ring = (struct ring){ .fd = fd, .size = size, .memory = memory };
	return 0;
}

static int memory_create(void)
{
	int fd = memfd_create("tier:journal", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL)	/* a kernel before 6.3 */
		fd = memfd_create("tier:journal", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd;
}

int ring_init(struct ring *ring, uint32_t n_max)
{
	_cleanup_(closep) int fd = memory_create();
	int r;

	assert(n_max > 0);
	if (fd < 0 || fchmod(fd, 0600) < 0 || ftruncate(fd, size_for(n_max)) < 0 || fcntl(fd, F_ADD_SEALS, SEALS) < 0)
		return error_origin(-errno);
	r = ring_map(ring, fd, size_for(n_max));
	if (r)
		return error_fold(r);
	TAKE_FD(fd);
	ring->memory->version = VERSION;
	ring->memory->n_max = n_max;
	ring->memory->first = 1;
	stored();
	ring->memory->magic = MAGIC;
	return 0;
}

static const char *memory_wrong(const struct ring_memory *memory, size_t size)
{
	if (memory->magic != MAGIC)
		return "it is not a journal's memory";
	if (memory->version != VERSION)
		return "it is of another version";
	if (!memory->n_max || size != size_for(memory->n_max))
		return "its size is not what its header says";
	if (!memory->first || memory->newest == UINT64_MAX
	    || (memory->newest >= memory->first && memory->newest - memory->first >= memory->n_max))
		return "its numbers are impossible";
	return NULL;
}

/* Back to the first that is not sound, or not the one that belongs there */
static uint64_t forget_damaged(struct ring *ring)
{
	struct ring_memory *memory = ring->memory;
	uint64_t s = memory->newest;

	memory->first = MIN(memory->first, s + 1);	/* it died before the first event after a jump was whole */
	while (s >= memory->first && record_is_sound(ring_at(ring, s)) && ring_at(ring, s)->sequence == s)
		s--;
	if (s < memory->first)
		return 0;
	memory->first = s + 1;
	return s;
}

int ring_adopt(struct ring *ring, int fd, uint64_t *ret_damage, const char **ret_why)
{
	struct stat status;
	int r;

	*ret_damage = 0;
	*ret_why = NULL;
	if (fstat(fd, &status) < 0)
		return error_origin(-errno);
	if (!S_ISREG(status.st_mode) || (fcntl(fd, F_GET_SEALS) & (SEALS | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != SEALS)
		*ret_why = "it is no memory that is sealed against resizing";
	else if (status.st_size < (off_t)sizeof(struct ring_memory))
		*ret_why = "it is too short for a header";
	else if ((fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR)
		*ret_why = "it is not open for reading and writing";
	if (*ret_why)
		return -EBADMSG;
	r = ring_map(ring, fd, status.st_size);
	if (r)
		return error_fold(r);
	*ret_why = memory_wrong(ring->memory, ring->size);
	if (*ret_why) {
		ring->fd = -1;	/* still the caller's */
		ring_deinit(ring);
		return -EBADMSG;
	}
	*ret_damage = forget_damaged(ring);
	return 0;
}

void ring_deinit(struct ring *ring)
{
	if (ring->memory)
		munmap(ring->memory, ring->size);
	close_fd(ring->fd);
	*ring = (struct ring)RING_NULL;
}

/* -- Events --- */
static struct tier_event *slot_of(const struct ring *ring, uint64_t sequence)
{
	return &ring->memory->events[sequence % ring->memory->n_max];
}

void ring_begin(struct ring *ring, uint64_t newest)
{
	struct ring_memory *memory = ring->memory;

	assert(!ring_n(ring) || newest >= memory->newest);
	if (newest < memory->newest)	/* in between, too, there are none */
		memory->newest = newest;
	stored();
	memory->first = newest + 1;
	stored();
	memory->newest = newest;
	stored();
}

void ring_append(struct ring *ring, const struct tier_event *event)
{
	struct ring_memory *memory = ring->memory;
	struct tier_event *slot = slot_of(ring, event->sequence);

	assert(event->sequence == memory->newest + 1);
	if (event->sequence - memory->first == memory->n_max)
		memory->first++;
	stored();
	*slot = *event;
	slot->crc = record_crc(slot);
	stored();
	__atomic_store_n(&memory->newest, event->sequence, __ATOMIC_RELEASE);
	stored();
}

uint32_t ring_n_max(const struct ring *ring) { return ring->memory->n_max; }
uint64_t ring_first(const struct ring *ring) { return ring->memory->first; }
uint64_t ring_newest(const struct ring *ring) { return ring->memory->newest; }
const struct tier_event *ring_at(const struct ring *ring, uint64_t sequence) { return slot_of(ring, sequence); }
