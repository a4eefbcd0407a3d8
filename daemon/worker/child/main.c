/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include "util/log.h"
#include "worker/channel.h"
#include "worker/child/zygote.h"

/* tierd-worker is started by tierd, which puts a socket at ZYGOTE_FD; by hand it is of no use. */

int main(int argc, char **argv)
{
	int type = 0;
	socklen_t n = sizeof(type);

	if (argc > 1 || getsockopt(ZYGOTE_FD, SOL_SOCKET, SO_TYPE, &type, &n) < 0 || type != SOCK_SEQPACKET) {
		log_line(LOG_ERROR, "%s is a part of tierd and started by it", argv[0]);
		return 2;
	}
	return zygote_run(ZYGOTE_FD);
}
