/*
 * limiter.c
 *		The algorithms of rate limits, on the counter of one client.
 *
 * Nothing here knows about shared memory, locks or a clock.
 *
 * strict.  The interval is cut into ten sub-buckets, which count what was spent
 * in them.  The last interval touches eleven: the newest, which has just begun,
 * and the oldest, of which the first part is out already.  All of the eleven
 * count, so no interval, wherever it begins, ever has more than the quota.  In
 * return a spent unit comes back up to a tenth of the interval late.
 *
 * window.  As strict, but the oldest is taken to be spent evenly over its time
 * and fades out; by a tenth of the quota at most, since that may be wrong.  At
 * any time the true sum of the last interval is what is counted plus what has
 * been taken off, so no interval ever has more than 1.1 times the quota.  (The
 * usual weighting, without that bound, lets twice the quota through: all of it
 * at the end of a sub-bucket, and again while that one fades.)  Who spends
 * evenly hardly meets the bound: a tenth is what he has in a sub-bucket.
 *
 * gcra.  A bucket that leaks: the quota in an interval, evenly; what does not
 * fit into the burst is refused.  This is the generic cell rate algorithm in
 * the form of a meter: the level instead of the time at which it is empty.
 * The level is in units times microseconds, so that it leaks "quota" each
 * microsecond, in whole numbers: quota 1 in 2 s is a request each 2.000000 s.
 *
 * A refused request spends nothing.  Time that goes back, by a little between
 * two processes, is taken as standing still.
 */
#include "postgres.h"

#include "limiter.h"

#define OLDEST	POLL_LIMITER_BUCKETS

/* The interval in microseconds. */
static int64
interval_us(const PollLimit *limit)
{
	return (int64) limit->interval * 1000;
}

/* ---- window and strict ---- */

static int64
bucket_us(const PollLimit *limit)
{
	return interval_us(limit) / POLL_LIMITER_BUCKETS;
}

/* What may be taken off the oldest at most. */
static int64
fade(const PollLimit *limit)
{
	return limit->algorithm == POLL_ALGORITHM_WINDOW ? limit->quota / POLL_LIMITER_BUCKETS : 0;
}

/* Makes the sub-bucket of that time the newest. */
static void
window_advance(PollCounter *counter, const PollLimit *limit, int64 now)
{
	int64		n;

	if (now - counter->at < bucket_us(limit))
		return;
	n = (now - counter->at) / bucket_us(limit);
	if (n > OLDEST)
		poll_limiter_clear(counter, now);
	else
	{
		memmove(counter->counts + n, counter->counts, (OLDEST + 1 - n) * sizeof(uint32));
		memset(counter->counts, 0, n * sizeof(uint32));
		counter->at += n * bucket_us(limit);
	}
}

/* The sum of the newest sub-buckets. */
static int64
window_sum(const PollCounter *counter, int buckets)
{
	int64		sum = 0;

	for (int i = 0; i < buckets; i++)
		sum += counter->counts[i];
	return sum;
}

/* What counts as spent; advance first. */
static int64
window_spent(const PollCounter *counter, const PollLimit *limit, int64 now)
{
	int64		spent = window_sum(counter, OLDEST + 1);

	if (counter->counts[OLDEST] > 0)
	{
		int64		elapsed = Max(now - counter->at, 0);
		int64		faded = counter->counts[OLDEST] * elapsed / bucket_us(limit);

		spent -= Min(faded, fade(limit));
	}
	return spent;
}

/*
 * When the cost, which is too much now, can be paid: after n more sub-buckets,
 * at the time at which the one that is oldest then has faded enough.
 */
static int64
window_retry(const PollCounter *counter, const PollLimit *limit, int64 now, int32 cost)
{
	int64		bucket = bucket_us(limit);
	int64		at = counter->at;

	for (int n = 0; n <= OLDEST; n++, at += bucket)
	{
		int64		oldest = counter->counts[OLDEST - n];
		int64		excess = window_sum(counter, OLDEST - n) + oldest + cost - limit->quota;

		if (excess <= 0)
			break;
		if (excess <= Min(oldest, fade(limit)))
		{
			at += (excess * bucket + oldest - 1) / oldest;
			break;
		}
	}
	return at - now;
}

static int64
window_reset(const PollCounter *counter, const PollLimit *limit, int64 now)
{
	for (int i = 0; i <= OLDEST; i++)
		if (counter->counts[i] > 0)
			return Max(counter->at + (OLDEST + 1 - i) * bucket_us(limit) - now, 0);
	return 0;
}

/* ---- gcra ---- */

static int64
gcra_level(const PollCounter *counter)
{
	return (int64) ((uint64) counter->counts[1] << 32 | counter->counts[0]);
}

static void
gcra_set_level(PollCounter *counter, int64 level)
{
	counter->counts[0] = (uint32) level;
	counter->counts[1] = (uint32) ((uint64) level >> 32);
}

static void
gcra_advance(PollCounter *counter, const PollLimit *limit, int64 now)
{
	int64		level = gcra_level(counter);
	int64		elapsed = now - counter->at;

	if (elapsed <= 0)
		return;
	gcra_set_level(counter, elapsed > level / limit->quota ? 0 : level - elapsed * limit->quota);
	counter->at = now;
}

/* ---- all ---- */

static void
advance(PollCounter *counter, const PollLimit *limit, int64 now)
{
	if (limit->algorithm == POLL_ALGORITHM_GCRA)
		gcra_advance(counter, limit, now);
	else
		window_advance(counter, limit, now);
}

void
poll_limiter_clear(PollCounter *counter, int64 now)
{
	counter->at = now;
	memset(counter->counts, 0, sizeof(counter->counts));
}

bool
poll_limiter_take(PollCounter *counter, const PollLimit *limit, int64 now, int32 cost)
{
	advance(counter, limit, now);
	if (limit->algorithm == POLL_ALGORITHM_GCRA)
	{
		if (gcra_level(counter) > (limit->burst - cost) * interval_us(limit))
			return false;
		gcra_set_level(counter, gcra_level(counter) + cost * interval_us(limit));
	}
	else
	{
		if (window_spent(counter, limit, now) + cost > limit->quota)
			return false;
		counter->counts[0] += cost;
	}
	return true;
}

PollQuotaLeft
poll_limiter_left(const PollCounter *counter, const PollLimit *limit, int64 now, int32 cost)
{
	PollCounter copy = *counter;
	PollQuotaLeft left;

	advance(&copy, limit, now);
	if (limit->algorithm == POLL_ALGORITHM_GCRA)
	{
		int64		level = gcra_level(&copy);
		int64		unit = interval_us(limit);
		int64		excess = level - (limit->burst - cost) * unit;

		left.remaining = Max(limit->burst - (level + unit - 1) / unit, 0);
		left.retry_after = excess > 0 ? (excess + limit->quota - 1) / limit->quota : 0;
		left.reset_after = (level + limit->quota - 1) / limit->quota;
	}
	else
	{
		int64		rest = limit->quota - window_spent(&copy, limit, now);

		left.remaining = Max(rest, 0);
		left.retry_after = cost > rest ? window_retry(&copy, limit, now, cost) : 0;
		left.reset_after = window_reset(&copy, limit, now);
	}
	return left;
}

double
poll_limiter_spent(const PollCounter *counter, const PollLimit *limit, int64 now)
{
	PollCounter copy = *counter;

	advance(&copy, limit, now);
	if (limit->algorithm == POLL_ALGORITHM_GCRA)
	{
		/* of what leaves room for one more */
		double		room = (double) (limit->burst - 1) * interval_us(limit);
		int64		level = gcra_level(&copy);

		return level > room ? 1.0 : level / (room + 1);
	}
	return (double) window_spent(&copy, limit, now) / limit->quota;
}
