/*
 * loop.h
 *		The event loop: one thread waits for all files and times.
 */
#ifndef LOOP_H
#define LOOP_H

#include <stdint.h>

/*
 * A file that is waited for, embedded in what belongs to it. It may be told of an
 * event of the file before, if that was closed just now.
 */
typedef struct Source
{
	int			fd;
	uint32_t	watched;		/* the events; 0 once the file is closed */
	void		(*ready) (struct Source *source, uint32_t events);
} Source;

extern void loop_init(void);

/* events: those of epoll(7). Called again, it changes them. */
extern void loop_watch(Source *source, uint32_t events);

extern void loop_unwatch(Source *source);

/* Waits at most that long, in milliseconds, and calls those that are ready. */
extern void loop_wait(int timeout);

/* Milliseconds on a clock that is never set back. */
extern int64_t loop_now(void);

#endif							/* LOOP_H */
