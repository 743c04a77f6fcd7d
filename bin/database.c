/*
 * database.c
 *		The connection to the database.
 *
 * One statement at a time, each a transaction of its own.  A connection that is lost
 * is opened again, after a while that doubles as long as that fails; this is said
 * once.  Nothing of a session is needed: no state, no prepared statements.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "database.h"
#include "log.h"
#include "options.h"

#define FIRST_DELAY		1		/* seconds before the next attempt */
#define LAST_DELAY		30

static PGconn *connection;
static PGcancel *volatile cancel;	/* of the statement under way */
static char *wait_time;
static bool complained;			/* of what passes; said once until it has */

/* ---- connecting ---- */

/*
 * Half a minute, or half of what statement_timeout allows, if there is a function to
 * wait with and this role may call it.
 */
static const char wait_query[] =
"SELECT least(30000, nullif(setting::int, 0) / 2)"
" FROM pg_catalog.pg_settings WHERE name = 'statement_timeout'"
" AND has_function_privilege(to_regprocedure('poll.wait(text[],text,interval,jsonb)'), 'EXECUTE')"
" AND current_setting('transaction_isolation') = 'read committed'";

/* Makes the most of a new connection; false if it has broken at once. */
static bool
learn(void)
{
	PGresult   *result;

	free(wait_time);
	wait_time = NULL;
	if (!options.wait)
		return true;
	result = PQexec(connection, wait_query);
	if (PQntuples(result) == 1)
		wait_time = strdup(PQgetvalue(result, 0, 0));
	PQclear(result);
	if (PQstatus(connection) != CONNECTION_OK)
		return false;
	if (wait_time == NULL && options.wait_asked)
		say("this server has no poll.wait() for us: polling at intervals instead");
	return true;
}

void
database_open(void)
{
	/* what comes before dbname is a default, which that may override */
	const char *const keywords[] = {"host", "port", "user", "fallback_application_name",
		"keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
	"dbname", "client_encoding", NULL};
	const char *const values[] = {options.host, options.port, options.user, PROGRAM,
	"10", "5", "3", "30000", options.dbname, "UTF8", NULL};

	connection = PQconnectdbParams(keywords, values, 1);
	if (PQstatus(connection) != CONNECTION_OK || !learn())
		die("%s", PQerrorMessage(connection));
}

static void
open_again(void)
{
	int			delay = FIRST_DELAY;

	say("lost the connection, trying on: %s", PQerrorMessage(connection));
	do
	{
		sleep(delay);
		delay = delay * 2 > LAST_DELAY ? LAST_DELAY : delay * 2;
		PQreset(connection);
	} while (PQstatus(connection) != CONNECTION_OK || !learn());
	say("connected again");
}

/* ---- errors ---- */

static bool
passes(const char *sqlstate)
{
	static const char *const classes[] = {"40", "53", "57", "55P03"};

	for (size_t i = 0; i < sizeof(classes) / sizeof(*classes); i++)
		if (strncmp(sqlstate, classes[i], strlen(classes[i])) == 0)
			return true;
	return false;
}

/* The feed that the detail of an error names. */
static const char *
feed_in(const char *detail)
{
	for (int i = 0; i < options.feed_count; i++)
	{
		char		quoted[256];

		snprintf(quoted, sizeof(quoted), "\"%s\"", options.feeds[i]);
		if (strstr(detail, quoted) != NULL)
			return options.feeds[i];
	}
	return options.feeds[0];
}

/* What can be done, beside what the server says. */
static void
say_hint(const char *sqlstate, const char *detail)
{
	if (strcmp(sqlstate, "PT404") == 0)
	{
		const char *feed = feed_in(detail);
		char	   *literal = PQescapeLiteral(connection, feed, strlen(feed));

		say("hint: SELECT poll.track(%s) makes a table a feed.", literal ? literal : "...");
		PQfreemem(literal);
	}
	else if (strcmp(sqlstate, "PT410") == 0 && options.cursor_file)
		say("hint: With --resync the whole tables are printed when that happens; or remove %s, and begin with --full.",
			options.cursor_file);
	else if (strcmp(sqlstate, "PT410") == 0)
		say("hint: With --resync the whole tables are printed when that happens; --full begins with them.");
	else if (strcmp(sqlstate, "PT400") == 0 && options.cursor_file)
		say("hint: If the cursor in %s is not of these feeds and this scope, use another file.", options.cursor_file);
	else if (strcmp(sqlstate, "3F000") == 0 || strcmp(sqlstate, "42883") == 0)
		say("hint: Is the extension in this database? CREATE EXTENSION poll_ext");
}

static void
say_error(const PGresult *result, const char *after)
{
	const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);

	say("%s%s%s%s", PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY), detail ? ": " : "", detail ? detail : "", after);
}

static Outcome
judge(const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL);
	const char *hint = PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);
	bool		expired;

	if (sqlstate == NULL)
		die("%s", PQerrorMessage(connection));
	if (passes(sqlstate))
	{
		if (!complained)
			say_error(result, ", trying again");
		complained = true;
		return AGAIN;
	}
	say_error(result, "");
	expired = strcmp(sqlstate, "PT410") == 0;
	if (expired && options.resync)
		return EXPIRED;
	if (hint != NULL && !expired)
		say("hint: %s", hint);
	say_hint(sqlstate, detail ? detail : "");
	exit(expired ? 3 : 1);
}

/* ---- statements ---- */

Outcome
database_query(const char *sql, int count, const char *const *values, PGresult **result)
{
	PGcancel   *mine = PQgetCancel(connection);
	Outcome		outcome;

	cancel = mine;
	*result = PQexecParams(connection, sql, count, NULL, values, NULL, NULL, 0);
	cancel = NULL;
	PQfreeCancel(mine);
	if (PQresultStatus(*result) == PGRES_TUPLES_OK)
	{
		complained = false;
		return DONE;
	}
	if (PQstatus(connection) == CONNECTION_OK)
		outcome = judge(*result);
	else
	{
		open_again();
		outcome = AGAIN;
	}
	PQclear(*result);
	*result = NULL;
	return outcome;
}

void
database_cancel(void)
{
	PGcancel   *current = cancel;
	char		error[256];

	if (current != NULL)
		PQcancel(current, error, sizeof(error));
}

const char *
database_wait_time(void)
{
	return wait_time;
}

const char *
database_feeds(void)
{
	static char *array;
	char	   *end;
	size_t		size = 3;

	if (array != NULL)
		return array;
	for (int i = 0; i < options.feed_count; i++)
		size += 2 * strlen(options.feeds[i]) + 3;
	end = array = malloc(size);
	if (array == NULL)
		die("out of memory");
	for (int i = 0; i < options.feed_count; i++)
	{
		*end++ = i == 0 ? '{' : ',';
		*end++ = '"';
		for (const char *c = options.feeds[i]; *c; c++)
		{
			if (*c == '"' || *c == '\\')
				*end++ = '\\';
			*end++ = *c;
		}
		*end++ = '"';
	}
	strcpy(end, "}");
	return array;
}
