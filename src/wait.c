/*
 * wait.c
 *		poll.wait(): until there is something to poll.
 *
 * The same look as poll.has_changes(), again and again, each with a snapshot of its
 * own: after a commit to one of the feeds (waiters.c), and from time to time.
 *
 * What waits must be in nobody's way: it has no transaction id, and no lock from one
 * look to the next.  The snapshot of its statement stays, so VACUUM keeps what is
 * deleted meanwhile, as during any statement of that length.  If the client has gone
 * away, that is noticed with the next look.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "answer.h"
#include "compat.h"
#include "request.h"
#include "wait.h"
#include "waiters.h"

#define MAX_WAIT_MS		(60 * 60 * 1000)

/* Where commits wake us, that is a second line; elsewhere it is how changes are found. */
#define LOOK_MS			1000
#define LOOK_OFTEN_MS	100

typedef struct PollWait
{
	ArrayType  *feeds;
	Jsonb	   *scope;
	text	   *cursor;
	long		timeout;		/* ms */
	bool		woken;			/* commits wake us */
	bool		result;
} PollWait;

PG_FUNCTION_INFO_V1(poll_ext_wait);

static void
check_transaction(void)
{
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("poll.wait() cannot be called in a transaction that has written"),
				 errhint("Commit first: others would wait for it all the time.")));
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("poll.wait() needs READ COMMITTED transactions"),
				 errdetail("Under another isolation level, the transaction sees nothing new, however long it waits.")));
}

static long
timeout_ms(Interval *interval)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz end =
	DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(now),
											IntervalPGetDatum(interval)));

	if (end < now || end - now > (int64) MAX_WAIT_MS * 1000)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the timeout must be between 0 and an hour")));
	return (long) ((end - now) / 1000);
}

/* One look, as of now.  A cursor that is a moment ("now") becomes the one of that. */
static bool
look(PollWait *self, MemoryContext caller)
{
	PollRequest request;
	bool		result;

	/* what is known of feeds, privileges and the log may have changed, too */
	AcceptInvalidationMessages();
	PushActiveSnapshot(GetLatestSnapshot());
	poll_request_init(&request, self->feeds, self->scope, self->cursor, NULL);
	if (request.start == POLL_START_NOW)
	{
		MemoryContext old = MemoryContextSwitchTo(caller);

		self->cursor = poll_current_cursor(&request);
		MemoryContextSwitchTo(old);
		result = false;
	}
	else
		result = poll_has_changes(&request);
	PopActiveSnapshot();
	return result;
}

static void
add_channels(const PollWait *self)
{
	PollRequest request;

	poll_request_init(&request, self->feeds, self->scope, self->cursor, NULL);
	for (int i = 0; i < request.set->n; i++)
		for (int j = 0; j < request.set->members[i].nstreams; j++)
			poll_waiters_add(request.set->members[i].streams[j].channel);
}

/* Until the latch is set, or for so long; errors if the client has gone. */
void
poll_wait_sleep(long ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms,
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	if (poll_compat_client_gone())
	{
		ClientConnectionLost = true;
		InterruptPending = true;
	}
	CHECK_FOR_INTERRUPTS();
}

static void
wait_for_changes(PollWait *self)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(caller, "poll_ext wait", ALLOCSET_DEFAULT_SIZES);
	instr_time	start;
	instr_time	now;

	INSTR_TIME_SET_CURRENT(start);
	MemoryContextSwitchTo(context);
	add_channels(self);
	for (;;)
	{
		long		left;

		poll_waiters_arm();
		self->result = look(self, caller);
		INSTR_TIME_SET_CURRENT(now);
		INSTR_TIME_SUBTRACT(now, start);
		left = self->timeout - (long) INSTR_TIME_GET_MILLISEC(now);
		if (self->result || left <= 0)
			break;
		MemoryContextReset(context);
		poll_wait_sleep(Min(left, self->woken && !RecoveryInProgress() ? LOOK_MS : LOOK_OFTEN_MS));
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}

static void
leave(int code, Datum arg)
{
	poll_waiters_end();
}

static bool
wait_in_place(PollWait *self)
{
	/* also if the session is terminated */
	PG_ENSURE_ERROR_CLEANUP(leave, (Datum) 0);
	{
		self->woken = poll_waiters_begin();
		wait_for_changes(self);
	}
	PG_END_ENSURE_ERROR_CLEANUP(leave, (Datum) 0);
	poll_waiters_end();
	return self->result;
}

bool
poll_wait_possible(void)
{
	return !TransactionIdIsValid(GetTopTransactionIdIfAny()) && !IsolationUsesXactSnapshot();
}

bool
poll_wait(ArrayType *feeds, Jsonb *scope, text *cursor, long timeout)
{
	PollWait	self = {.feeds = feeds,.scope = scope,.cursor = cursor,.timeout = timeout};

	return wait_in_place(&self);
}

/* poll.wait(feeds text[], cursor text, timeout interval, scope jsonb) returns bool */
Datum
poll_ext_wait(PG_FUNCTION_ARGS)
{
	PollWait	self = {
		.feeds = poll_arg_feeds(fcinfo, 0),
		.cursor = poll_arg_text(fcinfo, 1),
		.scope = poll_arg_scope(fcinfo, 3),
	};

	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the timeout must not be null")));
	self.timeout = timeout_ms(PG_GETARG_INTERVAL_P(2));
	check_transaction();

	PG_RETURN_BOOL(wait_in_place(&self));
}
