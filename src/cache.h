/*
 * cache.h
 *		Contents that many ask for, in shared memory.
 */
#ifndef POLL_CACHE_H
#define POLL_CACHE_H

#include "lib/stringinfo.h"
#include "nodes/nodes.h"

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
	 * Is what was begun then, and is not older than max_age, still good? What
	 * was begun after the arrival, and is as of that, always is.  Runs no
	 * SQL.
	 */
	uint64		arrival;		/* set by poll_cache_get() */
	bool		(*is_good) (struct PollCacheUse *use, const char *content, uint64 begun);

	/*
	 * Appends the content, under a snapshot of its own, and errors as it
	 * likes. False: it is not to be kept.
	 */
	bool		(*make) (struct PollCacheUse *use, StringInfo content);
} PollCacheUse;

/* Called by _PG_init(). */
extern void poll_cache_install(void);
extern void poll_cache_shmem_request(void);
extern void poll_cache_shmem_init(void);

/*
 * May the command change what somebody else sees?  Then, when it has run in this
 * transaction: it has.  Or a transaction has committed of which nobody knows what it has
 * run.
 */
extern bool poll_cache_command_counts(Node *statement);
extern void poll_cache_note_command(void);
extern void poll_cache_catalogs_changed(void);

/* May this transaction share anything?  What it has written is its own. */
extern bool poll_cache_usable(void);

/* Time since some moment, in microseconds, on a clock that all processes share. */
extern uint64 poll_cache_now(void);

/*
 * The key of what is the same for all in this database, with the same settings and
 * claims if these are added, and the same of all else that is appended before the end.
 */
extern void poll_cache_key_begin(StringInfo buf, char kind);
extern void poll_cache_key_add_caller(StringInfo buf);
extern PollCacheKey poll_cache_key_end(StringInfo buf);

/*
 * The content, from the cache or made.  One makes it, others wait, for a moment
 * at most.  To be freed soon.
 */
typedef struct PollCached PollCached;
extern PollCached *poll_cache_get(PollCacheUse *use);
extern const char *poll_cached_content(const PollCached *cached);
extern void poll_cached_free(PollCached *cached);

#endif							/* POLL_CACHE_H */
