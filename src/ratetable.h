/*
 * ratetable.h
 *		The counters of all clients, in shared memory.
 */
#ifndef POLL_RATETABLE_H
#define POLL_RATETABLE_H

#include "limiter.h"

#define POLL_RATETABLE_MAX_ENDPOINTS	1024

/* An endpoint with a policy, as the table knows it. */
typedef struct PollRateEndpoint
{
	int			number;			/* may be given to another */
	uint32		generation;		/* and then this grows */
} PollRateEndpoint;

/* What a client is to the table: a keyed hash. */
typedef struct PollRateOwner
{
	uint64		hash[2];
} PollRateOwner;

typedef struct PollRateInfo
{
	PollRateEndpoint endpoint;
	Oid			database;
	NameData	name;
	PollLimit	limit;
	int64		used;			/* when it was last checked, about */
	int64		checks;
	int64		denials;
	int64		evictions;		/* clients forgotten to make room for others */
	int64		overflows;		/* checks that found no room */
	int64		entries;		/* clients of which something is remembered
								 * now */
} PollRateInfo;

/* For the hooks of shmem.c. */
extern void poll_ratetable_shmem_request(void);
extern void poll_ratetable_shmem_init(void);

extern bool poll_ratetable_available(void);

/* Errors, with a hint, if there is no table. */
extern void poll_ratetable_require(void);

/* Microseconds of a clock that nobody sets. */
extern int64 poll_ratetable_now(void);

/* Hashes with the key of this server start. */
extern PollRateOwner poll_ratetable_hash(const void *data, Size length);

/* Starts to fetch what a check will need from memory. */
extern void poll_ratetable_prefetch(const PollRateOwner *owner);

/*
 * The endpoint of that name in this database, of a policy with that algorithm
 * and interval; false if there is no room for one more.
 */
extern bool poll_ratetable_endpoint(const char *name, const PollLimit *limit,
									PollRateEndpoint *endpoint);

/* Is it still the same? */
extern bool poll_ratetable_endpoint_valid(const PollRateEndpoint *endpoint);

/* All endpoints of all databases, palloc'd; entries is 0. */
extern PollRateInfo *poll_ratetable_list(int *n);

/* Counts the entries of those in the list. */
extern void poll_ratetable_count(PollRateInfo *list, int n, int64 now);

/* Gives up these endpoints and their counters. */
extern void poll_ratetable_release(const PollRateEndpoint *endpoints, int n);

/*
 * Spends the cost, at most the limit's burst, if the owner can pay it, and
 * copies the counter as it is then.
 */
extern bool poll_ratetable_take(const PollRateOwner *owner, const PollLimit *limit,
								const PollRateEndpoint *endpoint, int64 now, int32 cost,
								PollCounter *counter);

/* Somebody was refused without a take(), since a peek() was enough: counts that. */
extern void poll_ratetable_refused(const PollRateEndpoint *endpoint);

/* The counter that a take() would look at, and nothing else happens. */
extern void poll_ratetable_peek(const PollRateOwner *owner, const PollLimit *limit,
								const PollRateEndpoint *endpoint, int64 now,
								PollCounter *counter);

/* Forgets the owner; false if nothing was known. */
extern bool poll_ratetable_forget(const PollRateOwner *owner, const PollRateEndpoint *endpoint);

#endif							/* POLL_RATETABLE_H */
