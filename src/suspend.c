/*
 * suspend.c
 *		One session that waits for all clients of a gateway.
 *
 * A gateway that has asked for a client, and gets no news, keeps the client's connection,
 * and what it was told to wait for: signals (waiters.c), each with its count, as text:
 * "17:42 4:1003".  One of its sessions waits for the signals of all its clients at once, and
 * returns those whose counts have changed; then the gateway asks again for whom that
 * concerns.  Between its calls nothing is lost, since a count stays changed.
 *
 * To add clients while that session waits, the gateway sends it a signal of its own, from
 * another session.
 *
 * The signals of a request are read first, and then a new snapshot shows whether there
 * is anything.  On a standby, and without shared memory, nobody sends any: there all
 * come after a moment, with a count that no signal has, and a promotion changes nothing.
 * Nor does it spin who asks a standby and waits at a primary.
 */
#include "postgres.h"

#include <ctype.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"

#include "answer.h"
#include "compat.h"
#include "error.h"
#include "suspend.h"
#include "wait.h"
#include "waiters.h"

/* the count of a signal that nobody sends, and how often its clients look */
#define UNKNOWN_COUNT	(-1)
#define UNKNOWN_MS		250

/* Where there is a place among the waiters, that is a second line. */
#define LOOK_MS			1000
#define LOOK_OFTEN_MS	100

typedef struct Signals
{
	int			n;
	int		   *signals;
	int64	   *counts;
	bool		unknown;		/* is one of the counts */
} Signals;

static void
append_signal(StringInfo buf, int signal, int64 count)
{
	appendStringInfo(buf, "%s%d:" INT64_FORMAT, buf->len > 0 ? " " : "", signal, count);
}

text *
poll_suspend(const PollSelection *selection, text *cursor)
{
	PollRequest request;
	StringInfoData buf;
	bool		told = poll_signals_available() && !RecoveryInProgress();
	bool		news;

	initStringInfo(&buf);
	AcceptInvalidationMessages();
	poll_request_init(&request, selection->names, selection->scope, cursor, NULL);
	for (int i = 0; i < request.set->n; i++)
		for (int j = 0; j < request.set->members[i].nstreams; j++)
		{
			int			signal = poll_signal_of(request.set->members[i].streams[j].channel);

			append_signal(&buf, signal, told ? (int64) poll_signal_count(signal) : UNKNOWN_COUNT);
		}
	/* the counts were first */
	pg_memory_barrier();
	PushActiveSnapshot(GetLatestSnapshot());
	poll_request_init(&request, selection->names, selection->scope, cursor, NULL);
	news = poll_has_changes(&request);
	PopActiveSnapshot();
	return news ? NULL : cstring_to_text_with_len(buf.data, buf.len);
}

static void
bad_signals(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_POLL_BAD_REQUEST),
			 errmsg("these are no signals")));
}

static Signals *
parse_signals(const char *src)
{
	Signals    *result = palloc(sizeof(Signals));
	int			max = 0;

	for (const char *p = src; *p; p++)
		max += *p == ':';
	/* of each, one that is not known, too */
	if (max > 2 * POLL_SIGNALS)
		bad_signals();
	result->n = 0;
	result->unknown = false;
	result->signals = palloc(sizeof(int) * Max(max, 1));
	result->counts = palloc(sizeof(int64) * Max(max, 1));
	while (*src)
	{
		char	   *end;
		unsigned long signal = strtoul(src, &end, 10);

		if (!isdigit((unsigned char) *src) || *end != ':' || signal >= POLL_SIGNALS)
			bad_signals();
		result->signals[result->n] = (int) signal;
		src = end + 1;
		result->counts[result->n] = strtoll(src, &end, 10);
		result->unknown |= result->counts[result->n++] == UNKNOWN_COUNT;
		if (end == src || (*end != '\0' && (*end != ' ' || end[1] == '\0')))
			bad_signals();
		src = *end ? end + 1 : end;
	}
	return result;
}

/* Those that have another count now; of those that are not known, only if it is so said. */
static text *
changed(const Signals *self, bool unknown_too)
{
	StringInfoData buf;
	text	   *result;

	initStringInfo(&buf);
	for (int i = 0; i < self->n; i++)
	{
		int64		count = (int64) poll_signal_count(self->signals[i]);

		if (count != self->counts[i] && (unknown_too || self->counts[i] != UNKNOWN_COUNT))
			append_signal(&buf, self->signals[i], count);
	}
	result = cstring_to_text_with_len(buf.data, buf.len);
	pfree(buf.data);
	return result;
}

static text *
wait_on_standby(const Signals *self, long timeout)
{
	StringInfoData buf;

	poll_wait_sleep(Min(timeout, UNKNOWN_MS));
	initStringInfo(&buf);
	for (int i = 0; i < self->n; i++)
		append_signal(&buf, self->signals[i], UNKNOWN_COUNT);
	return cstring_to_text_with_len(buf.data, buf.len);
}

static text *
wait_for(const Signals *self, long timeout, bool woken)
{
	instr_time	start;
	instr_time	now;

	for (int i = 0; i < self->n; i++)
		poll_waiters_add_signal(self->signals[i]);
	if (self->unknown)
		timeout = Min(timeout, UNKNOWN_MS);
	INSTR_TIME_SET_CURRENT(start);
	for (;;)
	{
		text	   *result;
		long		left;

		INSTR_TIME_SET_CURRENT(now);
		INSTR_TIME_SUBTRACT(now, start);
		left = timeout - (long) INSTR_TIME_GET_MILLISEC(now);
		poll_waiters_arm();
		result = changed(self, left <= 0);
		if (VARSIZE_ANY_EXHDR(result) > 0 || left <= 0)
			return result;
		pfree(result);
		poll_wait_sleep(Min(left, woken ? LOOK_MS : LOOK_OFTEN_MS));
	}
}

static void
leave(int code, Datum arg)
{
	poll_waiters_end();
}

text *
poll_suspend_wait(const char *signals, long timeout)
{
	Signals    *self = parse_signals(signals);
	text	   *result;

	if (!poll_signals_available() || RecoveryInProgress())
		return wait_on_standby(self, timeout);
	/* also if the session is terminated */
	PG_ENSURE_ERROR_CLEANUP(leave, (Datum) 0);
	{
		result = wait_for(self, timeout, poll_waiters_begin());
	}
	PG_END_ENSURE_ERROR_CLEANUP(leave, (Datum) 0);
	poll_waiters_end();
	return result;
}

void
poll_suspend_wake(int signal)
{
	if (signal < 0 || signal >= POLL_SIGNALS)
		bad_signals();
	if (poll_signals_available())
		poll_signal_send(signal);
}
