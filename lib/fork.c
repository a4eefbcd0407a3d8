/* SPDX-License-Identifier: Apache-2.0 */
#include "connection.h"
#include "error.h"
#include "fork.h"
#include "sync.h"
#include "sys.h"

/* What a fork inherits, and what becomes of it
 *
 *   code, records, counters   shared mappings: stay as they are
 *   private data              its own copy: stays
 *   probe page                not there (MADV_DONTFORK): a fresh one, at another address
 *   locks                     in wiped pages: free
 *   slots of the program's    its own copies: a handler of fork()'s makes them lead to their methods (slots.c)
 *   sockets                   the parent's session: closed; then it is as when the daemon has gone (session.c), and whoever
 *                             needs a lane makes a session of the fork's own
 *   lists of modules          each change is one store, so every snapshot of them is whole
 *
 * A fork that never has a cold call nor crosses a threshold nor asks anything costs nothing. Recovery may run in a signal
 * handler in the child of a raw clone of a process with many threads: memory comes from nowhere but the connection. */

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

#define WIPED_PAGE_SIZE 4096u

static union wiped_page *process;

void *wiped_memory_new(size_t n)
{
	void *memory;
	int r;

	memory = sys_mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (sys_is_error(memory)) {
		error_set(-ENOMEM, "out of memory");
		return NULL;
	}
	r = sys_madvise(memory, n, MADV_WIPEONFORK);
	if (r < 0) {
		error_set(r, "this kernel cannot wipe memory on fork (Linux 4.14 and later can): %s", error_word(r));
		sys_munmap(memory, n);
		return NULL;
	}
	return memory;
}

union wiped_page *wiped_page_new(void)
{
	return wiped_memory_new(WIPED_PAGE_SIZE);
}

void wiped_page_free(union wiped_page *page)
{
	if (page)
		sys_munmap(page, WIPED_PAGE_SIZE);
}

int process_init(void)
{
	union wiped_page *page, *none = NULL;

	if (__atomic_load_n(&process, __ATOMIC_ACQUIRE))
		return 0;
	page = wiped_page_new();
	if (!page)
		return -ENOMEM;
	page->process.mine = 1;
	/* Synchronizes with the acquire loads here and in process_page(). */
	if (!__atomic_compare_exchange_n(&process, &none, page, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		wiped_page_free(page);
	return 0;
}

struct process_page *process_page(void)
{
	return &__atomic_load_n(&process, __ATOMIC_ACQUIRE)->process;
}

void fork_forget_lane(struct lane *lane)
{
	if (lane_is_copy(lane))
		lane_close(lane);
	lane->fd = -1;
	lane->is_broken = true;
}

/* Whoever comes to slots first lets go of that lane (slots.c): only one may close the number. */
static void fork_forget_slots(struct tier_conn *conn)
{
	const uint64_t mask = signals_block();

	lock_take(&process_page()->slots, UINT64_MAX);
	fork_forget_lane(&conn->slots.lane);
	lock_give(&process_page()->slots);
	signals_restore(mask);
}

/* Pages of probes are unmapped by the fork itself. */
void fork_forget(struct tier_conn *conn)
{
	struct lane *const lanes[] = { &conn->api, &conn->prestub, &conn->fresh };

	for (int i = 0; i < 3; i++)
		fork_forget_lane(lanes[i]);
	fork_forget_slots(conn);
	conn->epoch++;
	conn->session[0] = conn->session[1] = 0;
	conn->pages = conn->probes = NULL;
	conn->path = WIRE_PATH_SOCKET;
	conn->sites = 0;
	conn->note_ns = 0;
}

int fork_recover(struct tier_conn *conn, uint64_t deadline_ns)
{
	int r;

	if (__atomic_load_n(&conn->page->mine, __ATOMIC_ACQUIRE))
		return 0;
	r = lock_take(&conn->page->recovery, deadline_ns);
	if (r < 0)
		return error_set(r, "another thread of this fork is still connecting to the daemon at %s",
				 conn->address.sun_path);
	if (!conn->page->mine) {
		fork_forget(conn);
		/* Synchronizes with the acquire load above: what is forgotten before the word that the rest is ours. */
		__atomic_store_n(&conn->page->mine, 1, __ATOMIC_RELEASE);
	}
	lock_give(&conn->page->recovery);
	return 0;
}
