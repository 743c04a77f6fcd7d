/*
 * interval.c
 *		How long a client should wait until it polls again.
 *
 * poll.next_interval() is the classic rule, for clients that know nothing but what
 * their polls have brought.  poll.interval_hint() knows when the feeds have changed:
 * the versions in the log are times.  From the last POLL_HAZARD_GAPS gaps it finds
 * the interval at which the delay of changes is worth a poll (hazard.h).
 *
 * What was learned of some feeds is kept in the session, and learned again when they
 * have changed, once a second at most: that is a look at the ends of their channels
 * in the log, backward.  In between it is known that there was a change, not when:
 * then the age counts from the last look.
 *
 * Several feeds are one stream of arrivals.  Of a channel that has more than are
 * looked at, the history is not known; then that of the others ends there, too.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "changelog.h"
#include "error.h"
#include "guc.h"
#include "hazard.h"
#include "interval.h"
#include "request.h"
#include "shmem.h"
#include "snapshot.h"

/* how many sets of feeds a session remembers */
#define MAX_LEARNED		64

/* at least so many arrivals are read of each channel */
#define MIN_TIMES		8

#define LEARN_EVERY		USECS_PER_SEC

/* so much longer or shorter, so that clients do not come all at once */
#define JITTER			0.05

typedef struct Learned
{
	uint32		request_hash;
	uint32		ids_hash;
	TimestampTz at;				/* when it was learned; 0 = never */
	uint64		flushed;		/* of all channels together */
	TimestampTz last;			/* the newest arrival */
	int			n;
	double		gaps[POLL_HAZARD_GAPS]; /* in seconds, ascending */
} Learned;

static Learned *learned[MAX_LEARNED];

PG_FUNCTION_INFO_V1(poll_ext_next_interval);
PG_FUNCTION_INFO_V1(poll_ext_interval_hint);

/* ---- learning ---- */

/* A value that is another one after a flush; *known: it is also the same if there was none. */
static uint64
flushed_mark(const PollFeedSet *set, bool *known)
{
	uint64		mark = 0;

	*known = true;
	for (int i = 0; i < set->n; i++)
		for (int j = 0; j < set->members[i].nstreams; j++)
		{
			uint64		flushed = poll_flushed_read(set->members[i].streams[j].channel);

			*known &= flushed != PG_UINT64_MAX;
			mark += flushed;
		}
	return mark;
}

static int
ascending(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

/* The last arrivals in any channel of the set, newest first. */
static int
read_times(const PollFeedSet *set, int64 *times)
{
	int			max = Max((POLL_HAZARD_GAPS + 1) / set->n, MIN_TIMES);
	int64	   *all = palloc(sizeof(int64) * max * POLL_MAX_STREAMS * set->n);
	int64		since = 0;
	int			n = 0;
	int			known = 0;
	PollLog		log;
	PollView	view;
	Snapshot	snapshot = poll_snapshot_push();

	poll_snapshot_view(snapshot, &view);
	poll_log_open(&log, NULL, snapshot, &view);
	for (int i = 0; i < set->n; i++)
		for (int j = 0; j < set->members[i].nstreams; j++)
		{
			int			found;

			CHECK_FOR_INTERRUPTS();
			found = poll_log_times(&log, set->members[i].streams[j].channel, &all[n], max);
			if (found == max)
				since = Max(since, all[n + max - 1]);
			n += found;
		}
	poll_log_close(&log);
	PopActiveSnapshot();

	qsort(all, n, sizeof(int64), poll_log_newest_first);
	while (known < Min(n, POLL_HAZARD_GAPS + 1) && all[known] >= since)
	{
		times[known] = all[known];
		known++;
	}
	return known;
}

static TimestampTz
tracked_at(const PollFeedSet *set)
{
	TimestampTz result = set->members[0].feed.tracked_at;

	for (int i = 1; i < set->n; i++)
		result = Max(result, set->members[i].feed.tracked_at);
	return result;
}

static void
learn(Learned *self, const PollFeedSet *set)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "poll_ext interval",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	int64		times[POLL_HAZARD_GAPS + 1];
	int			n = read_times(poll_feedset_copy(set), times);

	/* of what has never changed, it is known for how long that is so */
	self->last = n > 0 ? poll_clock_timestamp(times[0]) : tracked_at(set);
	self->n = Max(n - 1, 0);
	for (int i = 0; i < self->n; i++)
		self->gaps[i] = (times[i] - times[i + 1]) / 1e6;
	qsort(self->gaps, self->n, sizeof(double), ascending);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/* What is known of the set, not older than LEARN_EVERY. */
static const Learned *
recall(const PollFeedSet *set, TimestampTz now)
{
	Learned   **slot = &learned[(set->request_hash ^ set->ids_hash) % MAX_LEARNED];
	Learned    *self = *slot;
	bool		known;
	uint64		flushed = flushed_mark(set, &known);
	bool		other;

	if (self == NULL)
		self = *slot = MemoryContextAllocZero(TopMemoryContext, sizeof(Learned));
	other = self->at == 0 || self->request_hash != set->request_hash || self->ids_hash != set->ids_hash;
	if (!other && known && self->flushed == flushed)
		return self;
	if (!other && now >= self->at && now < self->at + LEARN_EVERY)
	{
		/* there was something since */
		if (known)
			self->last = Max(self->last, self->at);
		return self;
	}

	/* an error in the middle leaves nothing that looks like the truth */
	self->at = 0;
	learn(self, set);
	self->request_hash = set->request_hash;
	self->ids_hash = set->ids_hash;
	self->flushed = flushed;
	self->at = now;
	return self;
}

double
poll_interval_hint(const PollFeedSet *set)
{
	TimestampTz now = GetCurrentTimestamp();
	const Learned *known = recall(set, now);
	double		shortest = poll_min_interval / 1e3;
	double		longest = Max(poll_max_interval / 1e3, shortest);
	double		jitter = 1 + JITTER * (2 * pg_prng_double(&pg_global_prng_state) - 1);
	double		interval = poll_hazard_interval(known->gaps, known->n, (now - known->last) / 1e6,
												poll_poll_cost / 1e3, longest);

	return Max(interval, shortest) * jitter;
}

/* ---- functions ---- */

static Interval *
interval_of(double seconds)
{
	Interval   *result = palloc0(sizeof(Interval));

	result->time = (int64) rint(seconds * USECS_PER_SEC);
	return result;
}

/* poll.interval_hint(feeds text[], scope jsonb) returns interval */
Datum
poll_ext_interval_hint(PG_FUNCTION_ARGS)
{
	PollRequest request;

	poll_request_init(&request, poll_arg_feeds(fcinfo, 0), poll_arg_scope(fcinfo, 1), NULL, NULL);
	PG_RETURN_INTERVAL_P(interval_of(poll_interval_hint(request.set)));
}

static void
bad_argument(const char *message)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s", message)));
}

/* An interval in seconds, a day being 24 hours. */
static double
interval_argument(FunctionCallInfo fcinfo, int argno)
{
	Interval   *interval = PG_GETARG_INTERVAL_P(argno);
	double		seconds = interval->time / (double) USECS_PER_SEC +
	interval->day * (double) SECS_PER_DAY;

	if (interval->month != 0 || seconds < 0)
		bad_argument("the interval must be in days or smaller units, and not negative");
	return seconds;
}

/*
 * poll.next_interval(current interval, had_changes bool, empty_polls int,
 * min interval, max interval, boost float8, decay float8) returns interval
 */
Datum
poll_ext_next_interval(PG_FUNCTION_ARGS)
{
	double		interval;
	bool		failed = PG_ARGISNULL(1);
	int			empty_polls;
	double		shortest;
	double		longest;
	double		boost;
	double		decay;

	for (int i = 0; i < PG_NARGS(); i++)
		if (i != 1 && PG_ARGISNULL(i))
			PG_RETURN_NULL();
	interval = interval_argument(fcinfo, 0);
	empty_polls = PG_GETARG_INT32(2);
	shortest = interval_argument(fcinfo, 3);
	longest = interval_argument(fcinfo, 4);
	boost = PG_GETARG_FLOAT8(5);
	decay = PG_GETARG_FLOAT8(6);
	if (shortest > longest)
		bad_argument("the longest interval must not be below the shortest");
	if (!(boost > 0 && boost <= 1))
		bad_argument("boost must be above 0, and 1 at most");
	if (!(decay >= 1 && decay <= 1000))
		bad_argument("decay must be between 1 and 1000");
	if (empty_polls < 0)
		bad_argument("the number of empty polls must not be negative");

	if (failed)
		interval *= 2;
	else if (PG_GETARG_BOOL(1))
		interval *= boost;
	else if (empty_polls >= 3)
		interval *= decay;
	PG_RETURN_INTERVAL_P(interval_of(Max(Min(interval, longest), shortest)));
}
