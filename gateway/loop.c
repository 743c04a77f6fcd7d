/*
 * loop.c
 *		The event loop: one thread waits for all files and times.
 */
#include <stddef.h>
#include <sys/epoll.h>
#include <time.h>

#include "log.h"
#include "loop.h"

#define EVENTS		64

static int	epoll = -1;

void
loop_init(void)
{
	epoll = epoll_create1(EPOLL_CLOEXEC);
	if (epoll < 0)
		die("cannot wait for events: %m");
}

void
loop_watch(Source *source, uint32_t events)
{
	struct epoll_event event = {.events = events,.data.ptr = source};
	int			operation = source->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (source->watched == events)
		return;
	if (epoll_ctl(epoll, operation, source->fd, &event) != 0)
		die("cannot wait for a file: %m");
	source->watched = events;
}

void
loop_unwatch(Source *source)
{
	if (source->watched != 0 && epoll_ctl(epoll, EPOLL_CTL_DEL, source->fd, NULL) != 0)
		die("cannot stop to wait for a file: %m");
	source->watched = 0;
}

void
loop_wait(int timeout)
{
	struct epoll_event events[EVENTS];
	int			count = epoll_wait(epoll, events, EVENTS, timeout);

	for (int i = 0; i < count; i++)
	{
		Source	   *source = events[i].data.ptr;

		/* unless one of those before has ended that */
		if (source->watched != 0)
			source->ready(source, events[i].events);
	}
}

int64_t
loop_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
