/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/server/world.h"
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Real sockets: admission, garbage, slow readers, descriptors, and the end of the server */

struct place {
	char folder[32];
	struct sockaddr_un address;
	struct world *world;
	uint32_t n_fds;			/* open before anything began */
};

static struct place *place_new(const struct server_config *config)
{
	struct place *place = calloc(1, sizeof(*place));
	int fd;

	place->n_fds = count_fds();
	strcpy(place->folder, "/tmp/tierd-test-XXXXXX");
	assert_non_null(mkdtemp(place->folder));
	place->address.sun_family = AF_UNIX;
	snprintf(place->address.sun_path, sizeof(place->address.sun_path), "%s/sock", place->folder);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&place->address, sizeof(place->address)), 0);
	assert_int_equal(listen(fd, 64), 0);
	place->world = world_new(config, fd);
	return place;
}

static int setup(void **state)
{
	struct server_config config = SERVER_CONFIG_DEFAULT;

	config.sessions_per_uid = 8;
	*state = place_new(&config);
	return 0;
}

/* Descriptors that are none of shared memory are closed by a thread. */
static void settle_closings(struct place *place)
{
	while (place->world->server && place->world->server->closings.n)
		assert_int_equal(dispatch_turn(&place->world->dispatch, 1000), 0);
}

/* Whatever a case did: every descriptor of the server is closed. */
static int teardown(void **state)
{
	struct place *place = *state;

	settle_closings(place);
	world_free(place->world);
	assert_int_equal(count_fds(), place->n_fds);
	unlink(place->address.sun_path);
	rmdir(place->folder);
	free(place);
	return 0;
}
#define CONN_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static int dial(struct place *place)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&place->address, sizeof(place->address)), 0);
	return fd;
}

static int send_fds(int fd, unsigned int type, const void *body, uint64_t serial, const int *fds, unsigned int n_fds)
{
	struct {
		struct wire_header header;
		unsigned char body[2048];
	} message = { .header = { .magic = WIRE_MAGIC, .version = WIRE_VERSION, .type = type, .serial = serial } };
	union {
		struct cmsghdr header;
		unsigned char bytes[CMSG_SPACE(16 * sizeof(int))];
	} control = {};
	struct iovec iov = { &message, sizeof(message.header) + wire_body_size(type) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	message.header.size = iov.iov_len;
	message.header.n_fds = n_fds;
	memcpy(message.body, body, wire_body_size(type));
	if (n_fds) {
		control.header = (struct cmsghdr){ CMSG_LEN(n_fds * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
	}
	return sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

static int send_request(int fd, unsigned int type, const void *body, uint64_t serial)
{
	return send_fds(fd, type, body, serial, NULL, 0);
}

/* One message, turning the loop until it is there; received descriptors are closed and counted. NULL: the end. */
static const struct message *receive(struct place *place, int fd)
{
	static struct message message;
	union {
		struct cmsghdr header;
		unsigned char bytes[CMSG_SPACE(16 * sizeof(int))];
	} control;
	struct iovec iov[2] = { { &message.header, sizeof(message.header) }, { message.bytes, sizeof(message.bytes) } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	uint32_t n_fds = 0;
	ssize_t n;

	for (int turns = 0;; turns++) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
		n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
		if (n >= 0 || errno != EAGAIN)
			break;
		assert_true(turns < 10000);
		assert_int_equal(dispatch_turn(&place->world->dispatch, 1), 0);
	}
	if (n <= 0)
		return NULL;
	assert_int_equal(n, message.header.size);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
		for (; CMSG_LEN((n_fds + 1) * sizeof(int)) <= c->cmsg_len; n_fds++)
			close(((int *)CMSG_DATA(c))[n_fds]);
	assert_int_equal(n_fds, message.header.n_fds);
	return &message;
}

static int dial_hello(struct place *place)
{
	struct wire_hello hello = { .program = "socket" };
	int fd = dial(place);

	assert_int_equal(send_request(fd, WIRE_HELLO, &hello, 1), 0);
	assert_int_equal(receive(place, fd)->header.type, WIRE_WELCOME);
	return fd;
}

static void assert_alive(struct place *place, int fd)
{
	struct wire_empty empty = {};

	assert_int_equal(send_request(fd, WIRE_STATS, &empty, 99), 0);
	assert_int_equal(receive(place, fd)->header.type, WIRE_STATISTICS);
}

static void a_session_works_over_a_socket(void **state)
{
	struct place *place = *state;
	struct fake_module *fm = world_module(place->world, getuid(), "m", false, 1);
	struct wire_attach attach = { .ref.module = fm->id };
	const struct message *message;
	int fd = dial_hello(place);

	assert_int_equal(send_request(fd, WIRE_ATTACH, &attach, 7), 0);
	message = receive(place, fd);
	assert_int_equal(message->header.type, WIRE_MODULE);
	assert_int_equal(message->header.serial, 7);
	assert_int_equal(message->header.n_fds, _TIER_SEGMENT_N);
	assert_int_equal(place->world->server->n_sessions, 1);
	close(fd);
	world_settle(place->world);
	assert_int_equal(place->world->server->n_sessions, 0);
	assert_true(list_is_empty(&place->world->server->conns));
}

static void garbage_is_thrown_out_and_nobody_else_notices(void **state)
{
	struct place *place = *state;
	int neighbour = dial_hello(place), fd = dial_hello(place);
	const struct message *message;

	assert_int_equal(send(fd, "GET / HTTP/1.1\r\nHost: tierd\r\n\r\n", 32, 0), 32);
	for (int i = 0; i < 10; i++)
		send(fd, "more", 4, MSG_NOSIGNAL);
	message = receive(place, fd);
	assert_non_null(message);			/* the reason arrives although more was unread */
	assert_int_equal(message->error.error, TIER_ERROR_PROTOCOL);
	assert_null(receive(place, fd));
	assert_int_equal(place->world->server->n_disconnected, 1);
	assert_int_equal(place->world->server->n_sessions, 1);
	assert_alive(place, neighbour);
	close(fd);
	close(neighbour);
}

static void oversized_and_empty_messages_end_the_connection(void **state)
{
	struct place *place = *state;
	static char big[65536] = "x";
	int fd = dial_hello(place);

	((struct wire_header *)big)->magic = WIRE_MAGIC;
	((struct wire_header *)big)->version = WIRE_VERSION;
	((struct wire_header *)big)->type = WIRE_STATS;
	((struct wire_header *)big)->size = sizeof(big);
	assert_int_equal(send(fd, big, sizeof(big), 0), sizeof(big));
	assert_int_equal(receive(place, fd)->error.error, TIER_ERROR_PROTOCOL);
	assert_null(receive(place, fd));
	close(fd);
	fd = dial_hello(place);
	assert_int_equal(send(fd, "", 0, 0), 0);
	assert_null(receive(place, fd));
	close(fd);
}

static void descriptors_nobody_asked_for_are_closed(void **state)
{
	struct place *place = *state;
	struct wire_empty empty = {};
	int fds[16], fd;
	uint32_t before;

	for (int i = 0; i < 16; i++)
		fds[i] = STDERR_FILENO;
	for (unsigned int n = 1; n <= 16; n *= 2) {
		fd = dial_hello(place);
		before = count_fds();
		assert_int_equal(send_fds(fd, WIRE_STATS, &empty, 5, fds, n), 0);
		assert_int_equal(receive(place, fd)->error.error, TIER_ERROR_PROTOCOL);
		assert_null(receive(place, fd));
		settle_closings(place);
		assert_int_equal(count_fds(), before - 1);	/* the daemon's end of the connection went too */
		close(fd);
	}
}

static void a_client_that_does_not_read_is_disconnected(void **state)
{
	struct place *place = *state;
	struct world *world = place->world;
	struct fake_module *fm = world_module(world, getuid(), "m", false, 1);
	struct wire_attach attach = { .ref.module = fm->id };
	struct wire_events_from from = { .from = 0, .timeout_ns = UINT64_MAX };
	int slow = dial_hello(place), neighbour = dial_hello(place);
	uint64_t n_requests;

	/* while a reply is kept nothing more is read: requests alone do no harm, and kept descriptors are duplicates */
	for (uint64_t serial = 2; send_request(slow, WIRE_ATTACH, &attach, serial) == 0; serial++)
		world_settle(world);
	for (int i = 0; i < 100; i++)
		world_settle(world);
	n_requests = world->server->n_requests;
	world_settle(world);
	assert_int_equal(world->server->n_requests, n_requests);
	assert_int_equal(world->server->n_disconnected, 0);
	assert_alive(place, neighbour);

	/* it reads again: all is answered, in order */
	for (uint64_t serial = 2; serial < 100; serial++) {
		const struct message *message = receive(place, slow);

		assert_int_equal(message->header.type, WIRE_MODULE);
		assert_int_equal(message->header.serial, serial);
	}
	close(slow);

	/* but what it asked to be told of piles up until the bound */
	slow = dial_hello(place);
	for (uint64_t i = 0; i < 200; i++) {
		assert_int_equal(send_request(slow, WIRE_EVENTS, &from, i), 0);
		world_settle(world);
	}
	assert_int_equal(world->server->n_disconnected, 0);
	fake_call(fm, 0);			/* 200 batches of 8 KiB */
	for (int i = 0; i < 100; i++)
		world_settle(world);
	assert_int_equal(world->server->n_disconnected, 1);
	assert_int_equal(world->server->n_sessions, 1);
	assert_alive(place, neighbour);
	close(slow);
	close(neighbour);
}

static void a_turn_serves_a_bounded_number_of_requests(void **state)
{
	struct place *place = *state;
	struct world *world = place->world;
	struct wire_bell bell = { .module = 1 };
	int fd = dial_hello(place);
	uint64_t before = world->server->n_requests;

	for (int i = 0; i < 50; i++)
		assert_int_equal(send_request(fd, WIRE_THRESHOLD, &bell, i), 0);
	assert_int_equal(dispatch_turn(&world->dispatch, 0), 0);
	assert_in_range(world->server->n_requests - before, 1, 16);
	close(fd);
	for (int i = 0; i < 50; i++)
		world_settle(world);
	assert_int_equal(world->server->n_requests - before, 50);	/* bells that were rung before the client went count */
}

static void connections_have_a_quota(void **state)
{
	struct place *place = *state;
	int fds[8 * _WIRE_LANE_N + 1];
	const struct message *message;

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = dial(place);
		world_settle(place->world);
	}
	message = receive(place, fds[ARRAY_SIZE(fds) - 1]);
	assert_int_equal(message->error.error, TIER_ERROR_QUOTA);
	assert_null(receive(place, fds[ARRAY_SIZE(fds) - 1]));
	close(fds[0]);
	world_settle(place->world);
	fds[0] = dial_hello(place);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
}

static void a_users_own_daemon_turns_others_away(void **state)
{
	struct server_config config = SERVER_CONFIG_DEFAULT;
	struct place *place;
	int fd;

	config.owner = getuid() + 1;
	place = place_new(&config);
	fd = dial(place);
	assert_int_equal(receive(place, fd)->error.error, TIER_ERROR_DENIED);
	assert_null(receive(place, fd));
	close(fd);
	teardown((void **)&place);
}

static void a_daemon_without_descriptors_says_so(void **state)
{
	struct place *place = *state;
	int neighbour = dial_hello(place), fd = dial(place), n = 0, fds[512];
	struct rlimit old, few;

	getrlimit(RLIMIT_NOFILE, &old);
	few = old;
	few.rlim_cur = count_fds() + 20;
	setrlimit(RLIMIT_NOFILE, &few);
	while (n < 512 && (fds[n] = dup(0)) >= 0)
		n++;
	world_settle(place->world);
	setrlimit(RLIMIT_NOFILE, &old);
	while (n--)
		close(fds[n]);
	assert_int_equal(receive(place, fd)->error.error, TIER_ERROR_NO_MEMORY);
	assert_null(receive(place, fd));
	assert_alive(place, neighbour);
	close(fd);
	close(neighbour);
}

static void the_server_ends_with_clients_in_every_state(void **state)
{
	struct place *place = *state;
	struct fake_module *fm = world_module(place->world, getuid(), "m", false, 1);
	struct wire_attach attach = { .ref.module = fm->id };
	struct wire_wait wait = { .module = fm->id, .timeout_ns = 1000000000000 };
	struct wire_events_from from = { .timeout_ns = UINT64_MAX };
	struct wire_load load = { .name = "x" };
	int object = memfd_create("object", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int silent = dial(place), fd = dial_hello(place);

	assert_int_equal(ftruncate(object, 10), 0);
	fcntl(object, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW);
	fake_call(fm, 0);
	assert_int_equal(send_request(fd, WIRE_ATTACH, &attach, 2), 0);
	assert_int_equal(receive(place, fd)->header.type, WIRE_MODULE);
	assert_int_equal(send_request(fd, WIRE_WAIT, &wait, 3), 0);
	assert_int_equal(send_request(fd, WIRE_EVENTS, &from, 4), 0);
	assert_int_equal(send_fds(fd, WIRE_LOAD, &load, 5, &object, 1), 0);
	world_settle(place->world);
	assert_non_null(place->world->load);
	core_module_unname(fm->module);
	place->world->server = server_free(place->world->server);
	assert_int_equal(place->world->n_released, 0);	/* the daemon's end is not the session's */
	assert_int_equal(recv(silent, &attach, sizeof(attach), 0), 0);
	close(object);
	close(silent);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CONN_TEST(a_session_works_over_a_socket),
		CONN_TEST(garbage_is_thrown_out_and_nobody_else_notices),
		CONN_TEST(oversized_and_empty_messages_end_the_connection),
		CONN_TEST(descriptors_nobody_asked_for_are_closed),
		CONN_TEST(a_client_that_does_not_read_is_disconnected),
		CONN_TEST(a_turn_serves_a_bounded_number_of_requests),
		CONN_TEST(connections_have_a_quota),
		cmocka_unit_test(a_users_own_daemon_turns_others_away),
		CONN_TEST(a_daemon_without_descriptors_says_so),
		CONN_TEST(the_server_ends_with_clients_in_every_state),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
