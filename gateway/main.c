/*
 * main.c
 *		poll-gateway: HTTP for poll.respond().
 *
 *		loop.c		one thread waits for all files and times
 *		server.c	connections of clients and their requests, by libmicrohttpd
 *		routes.c	what there is under which path
 *		client.c	who a client is
 *		wait.c		clients that wait for news
 *		pool.c		connections to the database, by libpq
 *		answer.c	what goes back
 *		files.c		static files
 *		metrics.c	numbers
 *		options.c	the command line
 *		log.c		what it says on standard error
 *
 * A request comes from server to routes, waits in the pool for a connection to the
 * database, and its result goes back as an answer. All of that happens in one
 * thread, which never waits for anything but the loop; so nothing is locked.
 */
#include <signal.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "log.h"
#include "loop.h"
#include "options.h"
#include "pool.h"
#include "routes.h"
#include "server.h"
#include "wait.h"

#define TICK		100			/* ms between looks at what takes too long */
#define GRACE		1000		/* ms to send the last answers */

static bool stopping;

static void
signalled(Source *source, uint32_t events)
{
	struct signalfd_siginfo info;

	if (read(source->fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (stopping)
		die("ended at once by a second signal");
	stopping = true;
	server_quiesce();
	wait_stop();
}

static void
catch_signals(void)
{
	static Source source = {.ready = signalled};
	sigset_t	signals;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	source.fd = signalfd(-1, &signals, SFD_CLOEXEC);
	if (source.fd < 0)
		die("cannot catch signals: %m");
	loop_watch(&source, EPOLLIN);
}

/* Until a signal; or, with busy, as long as there are requests, but not longer. */
static void
run(bool busy, int64_t end)
{
	int64_t		next_tick = 0;

	while (busy ? server_is_busy() && loop_now() < end : !stopping)
	{
		int			timeout = server_run();

		wait_flush();
		loop_wait(timeout < TICK ? timeout : TICK);
		if (loop_now() >= next_tick)
		{
			pool_tick();
			wait_tick();
			server_tick();
			next_tick = loop_now() + TICK;
		}
	}
}

int
main(int argc, char **argv)
{
	options_read(argc, argv);
	loop_init();
	catch_signals();
	routes_start();
	server_start();
	run(false, 0);

	/* a graceful stop: what has been asked is answered */
	say("stopping");
	run(true, loop_now() + options.timeout);
	pool_stop();
	run(true, loop_now() + GRACE);
	/* whose answer has just come, or who has, must not stay suspended */
	(void) server_run();
	wait_flush();
	(void) server_run();
	server_stop();
	return 0;
}
