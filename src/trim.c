/*
 * trim.c
 *		Retention: the steps of the change log's segments, by the worker or by hand.
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "segment.h"
#include "shmem.h"
#include "tick.h"
#include "trim.h"

/* waiting for longer than this is worth a line in the log */
#define PATIENCE		USECS_PER_MINUTE

PG_FUNCTION_INFO_V1(poll_ext_trim);

/* The age at which a segment is trimmed, in ms. */
static int64
trim_age(void)
{
	return (int64) poll_retention * 1000;
}

static const char *
step_name(PollSegmentStep step)
{
	switch (step)
	{
		case POLL_STEP_BEGUN:
			return "begun the next one";
		case POLL_STEP_CLOSED:
			return "closed";
		case POLL_STEP_TRIMMED:
			return "trimmed";
		case POLL_STEP_EMPTIED:
			return "emptied";
		case POLL_STEP_YOUNG:
			return "too young";
		case POLL_STEP_WRITERS:
			return "waiting for writers";
		case POLL_STEP_IN_USE:
			return "in use";
		case POLL_STEP_NEXT_IN_USE:
			return "waiting for the next one, which is in use";
		case POLL_STEP_NONE:
			break;
	}
	return NULL;
}

/* The steps, and what they mean for ticks. */
static bool
take_steps(int64 age_ms, bool wait, PollSegmentReport *report)
{
	uint64		horizon = 0;
	bool		trimmed = false;

	if (!poll_segment_step(age_ms, wait, report))
		return false;
	for (int i = 0; i < POLL_SEGMENTS; i++)
	{
		horizon = Max(horizon, report[i].horizon);
		trimmed |= report[i].step == POLL_STEP_TRIMMED;
	}
	/* the last one that polls since a time can start from, if nothing follows */
	if (horizon != 0)
		poll_tick_write(horizon);
	if (trimmed)
		poll_tick_trim(poll_segment_trimmed_x());
	return true;
}

/* ---- by the worker ---- */

static void
log_trimmed(const PollSegmentReport *report)
{
	ereport(LOG,
			(errmsg("poll_ext has trimmed " UINT64_FORMAT " kB of the change log of database \"%s\"",
					report->bytes / 1024, get_database_name(MyDatabaseId)),
			 report->early ?
			 errdetail("Clients that have not polled since these changes start again, before poll_ext.retention is over: the log has reached poll_ext.rotate_size.") : 0,
			 report->early ? errhint("Raise poll_ext.rotate_size if there is room.") : 0));
}

static void
log_waiting(const char *what, int64 waiting)
{
	if (waiting < PATIENCE || !poll_shmem_complain())
		return;
	ereport(LOG,
			(errmsg("poll_ext cannot trim the change log of database \"%s\": %s",
					get_database_name(MyDatabaseId), what),
			 errdetail("It has been so for " INT64_FORMAT " min.", waiting / USECS_PER_MINUTE),
			 errhint("The view poll.stat_log has the sessions and prepared transactions that it waits for.")));
}

/* What cannot be told from a segment's state: since when this worker has seen it. */
static void
log_blocked(bool blocked, const char *what)
{
	static TimestampTz since = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (!blocked || since == 0 || now < since)
		since = blocked ? now : 0;
	if (blocked)
		log_waiting(what, now - since);
}

/* Was something done, and what is there to say? */
static bool
log_step(int id, const PollSegmentReport *report)
{
	switch (report->step)
	{
		case POLL_STEP_TRIMMED:
			log_trimmed(report);
			return true;
		case POLL_STEP_BEGUN:
		case POLL_STEP_CLOSED:
		case POLL_STEP_EMPTIED:
			return true;
		case POLL_STEP_WRITERS:
		case POLL_STEP_IN_USE:
			log_waiting(psprintf("segment %d is %s", id, step_name(report->step)), report->waiting);
			return false;
		default:
			return false;
	}
}

bool
poll_trim_step(void)
{
	PollSegmentReport report[POLL_SEGMENTS];
	bool		done = false;
	bool		blocked = false;

	if (!take_steps(trim_age(), false, report))
	{
		log_blocked(true, "another session has called poll.trim(), and its transaction is still open");
		return false;
	}
	for (int i = 0; i < POLL_SEGMENTS; i++)
	{
		done |= log_step(i, &report[i]);
		blocked |= report[i].step == POLL_STEP_NEXT_IN_USE;
	}
	log_blocked(blocked, "the empty segment that it would go on with is in use");
	return done;
}

/* ---- by hand ---- */

/* The interval before now, in ms. */
static int64
interval_ms(Interval *interval)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz then =
	DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval, TimestampTzGetDatum(now),
											IntervalPGetDatum(interval)));

	if (then > now)
		ereport(ERROR,
				(errcode(ERRCODE_INTERVAL_FIELD_OVERFLOW),
				 errmsg("the age must not be negative")));
	/* intervals can be infinite since 17 */
	if (TIMESTAMP_IS_NOBEGIN(then))
		return PG_INT64_MAX / 1000;
	return (now - then) / 1000;
}

/*
 * poll.trim(older_than interval) returns setof (segment int, state text,
 * bytes bigint, action text)
 */
Datum
poll_ext_trim(PG_FUNCTION_ARGS)
{
	int64		age = PG_ARGISNULL(0) ? trim_age() : interval_ms(PG_GETARG_INTERVAL_P(0));
	PollSegmentReport report[POLL_SEGMENTS];
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	PreventCommandIfReadOnly("poll.trim()");
	InitMaterializedSRF(fcinfo, 0);
	(void) take_steps(age, true, report);
	for (int i = 0; i < POLL_SEGMENTS; i++)
	{
		const char *action = step_name(report[i].step);
		Datum		values[4];
		bool		nulls[4] = {false, false, false, action == NULL};

		values[0] = Int32GetDatum(i);
		values[1] = CStringGetTextDatum(poll_segment_state_name(report[i].state));
		values[2] = Int64GetDatum(report[i].bytes);
		values[3] = action ? CStringGetTextDatum(action) : (Datum) 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
