/*
 * polltail.c
 *		polltail: prints the changes of tracked tables, as they come.
 *
 *		options.c	the command line
 *		database.c	the connection, by libpq
 *		output.c	changes and the cursor
 *		log.c		messages; it is the gateway's
 *
 * One loop: poll, deliver the page, keep its cursor, wait.  The cursor counts only
 * when the page has been taken, so every change is delivered at least once.
 *
 * A signal may come at any time.  Unless a page is being delivered there is nothing
 * that could be left half done, so the handler itself ends the program.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "database.h"
#include "options.h"
#include "output.h"

#define PATIENCE	3			/* from so many empty polls in a row on, the
								 * interval grows */
#define GRACE		1			/* seconds to end after a signal */

/*
 * A page: a row for each change, or a single one without.  Changes of all feeds are in
 * the order of their versions, but for those of a feed that follow a truncate: clocks
 * may be set back.
 */
static const char poll_query[] =
"SELECT h.cursor, h.has_more, h.behind, c.feed, c.op, c.key, c.data, c.version"
" FROM poll.poll($1::text[], $2, $3, $4::jsonb, $5::timestamptz) AS p(answer),"
" pg_catalog.json_to_record(answer) AS h(changes json, cursor text, has_more boolean, behind boolean)"
" LEFT JOIN LATERAL (SELECT pg_catalog.to_json(f.feed) AS feed, f.m, e.n, r.*,"
"   max(version) FILTER (WHERE op = 'truncate') OVER (PARTITION BY m) AS floor"
"  FROM pg_catalog.json_each(h.changes) WITH ORDINALITY AS f(feed, changes, m),"
"  pg_catalog.json_array_elements(f.changes) WITH ORDINALITY AS e(change, n),"
"  pg_catalog.json_to_record(e.change) AS r(op text, key json, data json, version bigint)) AS c ON true"
" ORDER BY greatest(c.version, c.floor) NULLS FIRST, c.m, c.n";

enum
{
	PAGE_CURSOR,
	PAGE_HAS_MORE,
	PAGE_BEHIND,
	PAGE_FEED,
	PAGE_OP,
	PAGE_KEY,
	PAGE_DATA,
	PAGE_VERSION
};

static const char wait_query[] =
"SELECT poll.wait($1::text[], $2, pg_catalog.make_interval(secs => $3::float8 / 1000), $4::jsonb)";

static char *cursor;			/* NULL: from the beginning, or since a time */
static const char *since;		/* or NULL */
static bool resetting;			/* to be said with the next page */
static int	resets;				/* expired cursors in a row */
static int64_t left;			/* to be printed, with --count */
static int64_t news;			/* changes in this series of pages */
static double interval;			/* seconds */
static int	empty;				/* empty polls in a row */
static bool woken;				/* there should be something to poll */

static volatile sig_atomic_t delivering;
static volatile sig_atomic_t stopping;

/* ---- the end ---- */

/*
 * A page under way is brought to its end, for which a command has the time that it
 * takes, and readers a moment; a second signal ends it at once.
 */
static void
stop(int signo)
{
	if (stopping)
		_exit(0);
	stopping = 1;
	if (!delivering || options.command == NULL)
		alarm(GRACE);
	if (delivering)
		return;
	database_cancel();
	_exit(0);
}

/* Not ignored: a command would inherit that. */
static void
note_closed_pipe(int signo)
{
}

static void
catch_signal(int signo, void (*handler) (int))
{
	struct sigaction action = {.sa_handler = handler,.sa_flags = SA_RESTART};

	sigaction(signo, &action, NULL);
}

static void
catch_signals(void)
{
	catch_signal(SIGINT, stop);
	catch_signal(SIGTERM, stop);
	catch_signal(SIGALRM, stop);
	catch_signal(SIGPIPE, note_closed_pipe);
}

/* A connection must not become standard output; writing to that is an error then. */
static void
open_standard_files(void)
{
	int			file;

	do
		file = open("/dev/null", O_RDONLY);
	while (file >= 0 && file <= STDERR_FILENO);
	close(file);
}

/* ---- delivering ---- */

static const char *
value(const PGresult *page, int row, int column)
{
	return PQgetisnull(page, row, column) ? NULL : PQgetvalue(page, row, column);
}

static bool
is_true(const PGresult *page, int column)
{
	const char *field = value(page, 0, column);

	return field != NULL && *field == 't';
}

/* False if the page was not taken. */
static bool
print(const PGresult *page, int changes)
{
	static const Change reset = {.op = "reset"};
	int			synced = 0;

	output_begin();
	if (resetting)
		output_change(&reset);
	for (int row = 0; row < changes; row++)
	{
		Change		change;

		change.feed = value(page, row, PAGE_FEED);
		change.op = value(page, row, PAGE_OP);
		change.key = value(page, row, PAGE_KEY);
		change.data = value(page, row, PAGE_DATA);
		change.version = value(page, row, PAGE_VERSION);
		output_change(&change);
		synced += change.version == NULL;
	}
	if (!output_end())
		return false;
	output_progress(synced);
	resetting = false;
	return true;
}

static void
deliver(const PGresult *page, int changes)
{
	const char *next = value(page, 0, PAGE_CURSOR);

	delivering = 1;
	if ((changes > 0 || resetting) && !print(page, changes))
		exit(stopping ? 0 : 1);
	if (cursor == NULL || strcmp(cursor, next) != 0)
	{
		cursor_save(next);
		free(cursor);
		cursor = strdup(next);
	}
	since = NULL;
	delivering = 0;
	if (stopping)
		exit(0);
}

/* ---- waiting ---- */

static void
rest(double seconds)
{
	struct timespec time = {.tv_sec = seconds};

	time.tv_nsec = (seconds - time.tv_sec) * 1e9;
	nanosleep(&time, NULL);
}

static void
scale_interval(double factor)
{
	interval *= factor;
	if (interval > options.max)
		interval = options.max;
	if (interval < options.min)
		interval = options.min;
}

static void
rest_after_error(void)
{
	scale_interval(2);
	rest(interval);
}

/* After the last page of a series. */
static void
adapt_interval(void)
{
	empty = news > 0 ? 0 : empty + 1;
	if (news > 0)
		scale_interval(0.5);
	else if (empty >= PATIENCE)
		scale_interval(1.5);
	news = 0;
}

/* For a full sync.  The first time in a row it follows at once. */
static void
begin_anew(void)
{
	if (resets++ > 0)
		rest_after_error();
	free(cursor);
	cursor = NULL;
	since = NULL;
	resetting = true;
}

/* A result, or NULL: then poll again. */
static PGresult *
ask(const char *sql, int count, const char *const *values)
{
	PGresult   *result;

	switch (database_query(sql, count, values, &result))
	{
		case DONE:
			return result;
		case AGAIN:
			rest_after_error();
			break;
		case EXPIRED:
			begin_anew();
			break;
	}
	return NULL;
}

static void
wait_in_server(const char *time)
{
	const char *values[] = {database_feeds(), cursor, time, options.scope};
	PGresult   *result;

	/* it was mistaken */
	if (woken && empty > 0)
		rest(options.min);
	result = ask(wait_query, 4, values);
	woken = result != NULL && is_true(result, 0);
	PQclear(result);
}

/* Until there may be something to poll. */
static void
wait_for_changes(void)
{
	if (database_wait_time() != NULL)
		wait_in_server(database_wait_time());
	else
		rest(options.interval > 0 ? options.interval : interval);
}

/* ---- polling ---- */

/* Returns whether to poll again at once. */
static bool
take(const PGresult *page)
{
	int			changes = value(page, 0, PAGE_OP) ? PQntuples(page) : 0;

	deliver(page, changes);
	left -= changes;
	if (options.count > 0 && left == 0)
		exit(0);
	news += changes;
	if (is_true(page, PAGE_BEHIND))
		rest(options.min);
	if (is_true(page, PAGE_HAS_MORE))
		return true;
	output_progress(0);
	adapt_interval();
	resets = 0;
	return false;
}

/* The same */
static bool
poll_once(void)
{
	char		max_rows[16];
	const char *values[] = {database_feeds(), cursor, max_rows, options.scope, since};
	bool		last = options.count > 0 && left < options.max_rows;
	PGresult   *page;
	bool		again;

	snprintf(max_rows, sizeof(max_rows), "%d", last ? (int) left : options.max_rows);
	page = ask(poll_query, 5, values);
	again = page == NULL || take(page);
	PQclear(page);
	return again;
}

int
main(int argc, char **argv)
{
	open_standard_files();
	options_read(argc, argv);
	catch_signals();
	interval = options.min;
	left = options.count;
	cursor = cursor_load();
	if (cursor == NULL)
	{
		since = options.since;
		if (since == NULL && !options.full)
			cursor = strdup("now");
	}
	database_open();
	while (!output_closed())
	{
		if (poll_once())
			continue;
		if (options.once)
			break;
		wait_for_changes();
	}
	return 0;
}
