/*
 * limiter.h
 *		The algorithms of rate limits, on the counter of one client.
 *
 * Times are microseconds of a clock that never goes back.
 */
#ifndef POLL_LIMITER_H
#define POLL_LIMITER_H

/* A quota and a burst are at most this, so that nothing overflows. */
#define POLL_LIMITER_MAX_QUOTA		100000000
#define POLL_LIMITER_MAX_INTERVAL	86400000	/* a day */

/* sub-buckets that an interval has */
#define POLL_LIMITER_BUCKETS	10

typedef enum PollAlgorithm
{
	POLL_ALGORITHM_WINDOW,
	POLL_ALGORITHM_STRICT,
	POLL_ALGORITHM_GCRA
} PollAlgorithm;

typedef struct PollLimit
{
	PollAlgorithm algorithm;
	int32		quota;			/* a client may spend this */
	int32		interval;		/* in this many milliseconds */
	int32		burst;			/* and at once: the quota, but for gcra */
} PollLimit;

typedef struct PollCounter
{
	int64		at;				/* window, strict: when the newest sub-bucket
								 * began; gcra: when it last leaked */
	uint32		counts[POLL_LIMITER_BUCKETS + 1];	/* newest first; gcra: the
													 * level, in two parts */
	uint32		owner;			/* for whoever stores it */
} PollCounter;

typedef struct PollQuotaLeft
{
	int32		remaining;		/* may be spent now */
	int64		retry_after;	/* microseconds until the cost can be paid */
	int64		reset_after;	/* until all is forgotten */
} PollQuotaLeft;

/* Makes it the counter of a client that was never seen; owner stays. */
extern void poll_limiter_clear(PollCounter *counter, int64 now);

/* Spends the cost, at most the limit's burst, if it can be paid. */
extern bool poll_limiter_take(PollCounter *counter, const PollLimit *limit, int64 now, int32 cost);

/* What is left; retry_after is for that cost. */
extern PollQuotaLeft poll_limiter_left(const PollCounter *counter, const PollLimit *limit,
									   int64 now, int32 cost);

/* What is spent, of 1.0 = all: below that, a cost of 1 can be paid. */
extern double poll_limiter_spent(const PollCounter *counter, const PollLimit *limit, int64 now);

#endif							/* POLL_LIMITER_H */
