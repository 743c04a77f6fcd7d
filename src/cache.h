/*
 * cache.h
 *		Contents that many ask for, in shared memory.
 */
#ifndef POLL_CACHE_H
#define POLL_CACHE_H

#include "lib/stringinfo.h"

typedef struct PollCacheKey
{
	uint64		hash[2];
} PollCacheKey;

/* A content, how to tell whether it is still good, and how to make it. */
typedef struct PollCacheUse
{
	PollCacheKey key;
	int64		max_age;		/* in microseconds */

	/*
	 * Is what was begun then, and is not older than max_age, still what would
	 * be made now?  Runs no SQL.
	 */
	bool		(*is_good) (struct PollCacheUse *use, const char *content, uint64 begun);

	/*
	 * Appends the content, under a snapshot of its own, and errors as it likes.
	 * False: it is not to be kept.
	 */
	bool		(*make) (struct PollCacheUse *use, StringInfo content);
} PollCacheUse;

extern void poll_cache_shmem_request(void);
extern void poll_cache_shmem_init(void);

/* May this transaction share anything?  What it has written is its own. */
extern bool poll_cache_usable(void);

/* Time since some moment, in microseconds, on a clock that all processes share. */
extern uint64 poll_cache_now(void);

/*
 * The key of what is the same for the same role, settings, claims, and all that is
 * appended between the two.
 */
extern void poll_cache_key_begin(StringInfo buf, char kind);
extern PollCacheKey poll_cache_key_end(StringInfo buf);

/*
 * The content, from the cache or made.  One makes it, others wait, for a moment
 * at most.
 */
extern StringInfo poll_cache_get(PollCacheUse *use);

#endif							/* POLL_CACHE_H */
