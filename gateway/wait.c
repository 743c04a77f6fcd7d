/*
 * wait.c
 *		Clients that wait for news.
 *
 * A request with wait=20 for which there is no news comes back from poll.respond() without
 * a status, with the signals that will tell of some, and their counts. It is kept, and one
 * connection to the database waits for the signals of all that are kept. When it returns
 * with those that have another count now, those whom that concerns are asked for again, many
 * in one statement. A signal may stand for other feeds, too; then there is no news, and
 * they wait on.
 *
 * A commit may be news for many. Those are answered first, by half of the connections, so
 * that what the database has answered is sent while it answers more; who has arrived since
 * waits for that, but not for long.
 *
 * Those that come while that connection waits are not waited for yet. So it is made to
 * return, by a signal of our own, and told of all of them. Nothing is lost meanwhile: the
 * count that a request came back with is what it waits to differ.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "loop.h"
#include "options.h"
#include "server.h"
#include "wait.h"

#define SIGNALS		262144
#define LONGEST		250			/* ms that the database waits in one call: it
								 * has a snapshot, for which row versions are
								 * kept */
#define RETRY		200			/* ms, if that has failed */
#define PATIENCE	100			/* ms, with the next call, for those who are
								 * asked for again */
#define BATCH		64			/* requests in one statement */

typedef struct Batch
{
	Job			job;
	bool		again;			/* not of those who have just arrived */
	int			count;
	Request    *requests[BATCH];
} Batch;

typedef TAILQ_HEAD(Queue, Request)
Queue;

static Queue waiting = TAILQ_HEAD_INITIALIZER(waiting);
static int	count;
static int	uncovered;			/* of them the database does not wait for so
								 * many */

/* to be asked for, in this order */
static Queue due = TAILQ_HEAD_INITIALIZER(due);
static Queue arrived = TAILQ_HEAD_INITIALIZER(arrived);
static int	batches;			/* of those that were due, in the database */
static uint64_t asked_again;
static bool stopped;

static Job	waiter;				/* the call that waits */
static bool is_waiting;
static int64_t retry_at;
static bool complained;
static int64_t returned_at;

static Job	wake;				/* makes it return */
static bool is_waking;
static int	own_signal = -1;
static long long own_count;		/* 0: not known */

/* what the last call has returned */
static long long changed[SIGNALS];
static uint64_t changed_by[SIGNALS];	/* the number of that call */
static uint64_t calls;

static void ask(Request **requests, int n, bool again);
static void step(void);

/* ---- the list ---- */

static void
remove_waiting(Request *request)
{
	TAILQ_REMOVE(&waiting, request, entry);
	server_ignore_hangup(request);
	count--;
	uncovered -= !request->covered;
}

/* Nothing is asked, or charged, for it any more. */
static void
hung_up(Request *request)
{
	remove_waiting(request);
	request->answer = answer_problem(MHD_HTTP_SERVICE_UNAVAILABLE, "the connection was closed while it waited");
	request->answered = true;
	server_answered(request);
}

/* Keeps it, for as long and for what the text says: "20000 17:42 4:1003". */
static void
suspend(Request *request, const char *text)
{
	char	   *end;
	long		ms = strtol(text, &end, 10);

	if (stopped)
	{
		/* it was asked before that */
		ask(&request, 1, true);
		return;
	}
	if (request->wait_until == 0)
		request->wait_until = loop_now() + ms;
	free(request->signals);
	request->signals = strdup(end);
	if (request->signals == NULL)
		die("out of memory");
	request->covered = false;
	TAILQ_INSERT_TAIL(&waiting, request, entry);
	count++;
	uncovered++;
	server_await_hangup(request, hung_up);
	step();
}

/* Reads the next signal of a text; false at its end. */
static bool
next_signal(const char **text, int *signal, long long *value)
{
	char	   *end;
	long		number = strtol(*text, &end, 10);

	if (end == *text ||*end != ':' || number < 0 || number >= SIGNALS)
		return false;
	*signal = number;
	*value = strtoll(end + 1, &end, 10);
	*text = end;
	return true;
}

/* ---- asking ---- */

static void
taken(Request *request, Result *result, int row)
{
	if (PQresultStatus(result->result) == PGRES_TUPLES_OK && row < PQntuples(result->result) &&
		PQgetisnull(result->result, row, 0))
	{
		suspend(request, PQgetvalue(result->result, row, 2));
		return;
	}
	request->answer = answer_row(result, row);
	request->answered = true;
	server_answered(request);
}

static void
batch_done(Job *job, PGresult *result)
{
	Batch	   *batch = (Batch *) job;
	Result	   *shared = answer_result(result);

	free(job->parameter);
	/* the error of one must not be that of all; no answer is */
	if (PQresultErrorField(result, PG_DIAG_SQLSTATE) != NULL && batch->count > 1)
		for (int i = 0; i < batch->count; i++)
			ask(&batch->requests[i], 1, batch->again);
	else
		for (int i = 0; i < batch->count; i++)
			taken(batch->requests[i], shared, i);
	answer_release(shared);
	batches -= batch->again;
	free(batch);
	wait_flush();
	step();
}

/* How long it may wait still, in ms. */
static long
left(const Request *request)
{
	int64_t		now = loop_now();

	if (stopped)
		return 0;
	if (request->wait_until == 0)
		return options.max_wait;
	return request->wait_until > now ? request->wait_until - now : 0;
}

/* Asks for at most BATCH of them in one statement. */
static void
ask(Request **requests, int n, bool again)
{
	Batch	   *batch = calloc(1, sizeof(Batch));
	size_t		size;
	FILE	   *out = batch ? open_memstream(&batch->job.parameter, &size) : NULL;

	if (out == NULL)
		die("out of memory");
	for (int i = 0; i < n; i++)
	{
		fprintf(out, "%s%s,\"suspend\":%ld}", i > 0 ? "," : n > 1 ? "[" : "", requests[i]->parameter, left(requests[i]));
		asked_again += requests[i]->job_asked;
		requests[i]->job_asked = true;
		batch->requests[i] = requests[i];
	}
	if (n > 1)
		fputc(']', out);
	fclose(out);
	batch->count = n;
	batch->again = again;
	batches += again;
	batch->job.statement = n > 1 ? POLLS_STATEMENT : POLL_STATEMENT;
	batch->job.deadline = loop_now() + options.timeout;
	batch->job.done = batch_done;
	pool_submit(&batch->job);
}

static void
ask_first(Queue *queue)
{
	Request    *requests[BATCH];
	int			n;

	for (n = 0; n < BATCH && !TAILQ_EMPTY(queue); n++)
	{
		requests[n] = TAILQ_FIRST(queue);
		TAILQ_REMOVE(queue, requests[n], entry);
	}
	ask(requests, n, queue == &due);
}

/* Are there still requests for which the last call may have had news? */
static bool
telling(void)
{
	return (batches > 0 || !TAILQ_EMPTY(&due)) && loop_now() < returned_at + PATIENCE;
}

void
wait_ask(Request *request)
{
	/* one that is answered at once may take long, and be in the way of others */
	if (request->query == NULL || strstr(request->query, "wait=") == NULL || strstr(request->query, "cursor=") == NULL)
		ask(&request, 1, false);
	else
		TAILQ_INSERT_TAIL(&arrived, request, entry);
}

void
wait_flush(void)
{
	while (!TAILQ_EMPTY(&due) && (batches < (options.connections + 1) / 2 || stopped))
		ask_first(&due);
	while (!TAILQ_EMPTY(&arrived) && (!telling() || stopped))
		ask_first(&arrived);
}

/* Those of the list for which the function is true. */
static void
ask_those(bool (*is_due) (const Request *request))
{
	Request    *request,
			   *next;

	for (request = TAILQ_FIRST(&waiting); request != NULL; request = next)
	{
		next = TAILQ_NEXT(request, entry);
		if (!is_due(request))
			continue;
		remove_waiting(request);
		TAILQ_INSERT_TAIL(&due, request, entry);
	}
	wait_flush();
}

/* ---- the call that waits ---- */

static bool
has_changed(const Request *request)
{
	const char *text = request->signals;
	int			signal;
	long long	value;

	while (next_signal(&text, &signal, &value))
		if (changed_by[signal] == calls && (value < 0 || changed[signal] != value))
			return true;
	return false;
}

static void
take_signals(const char *text)
{
	int			signal;
	long long	value;

	calls++;
	while (next_signal(&text, &signal, &value))
	{
		changed[signal] = value;
		changed_by[signal] = calls;
		if (signal == own_signal)
			own_count = value < 0 ? 0 : value;
	}
	ask_those(has_changed);
}

static void
waiter_done(Job *job, PGresult *result)
{
	is_waiting = false;
	returned_at = loop_now();
	free(job->parameter);
	if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1)
	{
		complained = false;
		take_signals(PQgetvalue(result, 0, 2));
	}
	else
	{
		const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

		if (message != NULL && !complained)
			say("cannot wait in the database, trying on: %s", message);
		complained |= message != NULL;
		retry_at = loop_now() + RETRY;
	}
	PQclear(result);
	step();
}

/* All signals that somebody waits for, each once, with the count. */
static void
print_signals(FILE *out)
{
	static long long counts[SIGNALS];
	static uint64_t printed_by[SIGNALS];
	static uint64_t unknown_by[SIGNALS];
	static int	signals[SIGNALS];
	static uint64_t prints;
	Request    *request;
	int			n = 1;

	prints++;
	signals[0] = own_signal;
	printed_by[own_signal] = prints;
	counts[own_signal] = own_count;
	TAILQ_FOREACH(request, &waiting, entry)
	{
		const char *text = request->signals;
		int			signal;
		long long	value;

		while (next_signal(&text, &signal, &value))
		{
			/* a standby's: beside the count of those who have one */
			if (value < 0)
			{
				if (unknown_by[signal] != prints)
					fprintf(out, "%d:-1 ", signal);
				unknown_by[signal] = prints;
			}
			else if (printed_by[signal] != prints)
			{
				printed_by[signal] = prints;
				signals[n++] = signal;
				counts[signal] = value;
			}
			else if (value != counts[signal])
				counts[signal] = 0; /* no count: it returns at once */
		}
		request->covered = true;
	}
	for (int i = 0; i < n; i++)
		fprintf(out, "%s%d:%lld", i > 0 ? " " : "", signals[i], counts[signals[i]]);
}

static void
start_waiting(void)
{
	size_t		size;
	FILE	   *out = open_memstream(&waiter.parameter, &size);

	if (out == NULL)
		die("out of memory");
	if (own_signal < 0)
		own_signal = ((unsigned) getpid() * 2654435761u ^ (unsigned) time(NULL)) % SIGNALS;
	fputs("{\"wait_for\":\"", out);
	print_signals(out);
	fprintf(out, "\",\"timeout\":%d}", options.timeout / 2 < LONGEST ? options.timeout / 2 : LONGEST);
	fclose(out);
	uncovered = 0;
	is_waiting = true;
	waiter.statement = POLL_STATEMENT;
	waiter.done = waiter_done;
	pool_submit_waiting(&waiter);
}

static void
wake_done(Job *job, PGresult *result)
{
	is_waking = false;
	free(job->parameter);
	PQclear(result);
}

static void
wake_waiter(void)
{
	if (asprintf(&wake.parameter, "{\"wake\":%d}", own_signal) < 0)
		die("out of memory");
	is_waking = true;
	wake.statement = POLL_STATEMENT;
	wake.deadline = loop_now() + options.timeout;
	wake.done = wake_done;
	pool_submit(&wake);
}

/* What is to be done so that all who wait are waited for. */
static void
step(void)
{
	if (count == 0 || stopped)
		return;
	if (!is_waiting && !telling() && loop_now() >= retry_at)
		start_waiting();
	else if (is_waiting && uncovered > 0 && !is_waking)
		wake_waiter();
}

/* ---- from outside ---- */

static bool
is_over(const Request *request)
{
	return request->wait_until <= loop_now();
}

static bool
always(const Request *request)
{
	return true;
}

void
wait_end_first(void)
{
	Request    *request = TAILQ_FIRST(&waiting);

	if (request == NULL)
		return;
	remove_waiting(request);
	request->wait_until = 1;
	TAILQ_INSERT_HEAD(&due, request, entry);
	wait_flush();
}

void
wait_tick(void)
{
	ask_those(is_over);
	step();
}

void
wait_stop(void)
{
	stopped = true;
	ask_those(always);
}

int
wait_count(void)
{
	return count;
}

uint64_t
wait_asked_again(void)
{
	return asked_again;
}
