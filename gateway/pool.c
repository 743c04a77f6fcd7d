/*
 * pool.c
 *		Connections to the database, and who waits for one.
 *
 * A connection serves one job at a time, so that a slow one delays nobody but
 * itself; jobs wait in line for the first that is free.
 *
 * Connecting is the one thing that waits: for names, for each of several hosts,
 * for the statements to be prepared. A thread does it, and hands over the
 * connection through a pipe; everything else belongs to the loop. A connection
 * that breaks is opened again, after a while that doubles as long as it fails.
 *
 * A statement is ended by the server after the timeout (statement_timeout). If
 * even that does not come, the connection is given up a second later.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "log.h"
#include "loop.h"
#include "pool.h"

#define FIRST_DELAY		100		/* ms before the next attempt */
#define LAST_DELAY		3200
#define GRACE			1000	/* ms after the server's own timeout */

typedef enum DatabaseState
{
	DATABASE_DOWN,
	DATABASE_CONNECTING,
	DATABASE_IDLE,
	DATABASE_BUSY
} DatabaseState;

typedef struct Database
{
	Source		source;
	DatabaseState state;
	PGconn	   *connection;		/* this and error: the thread's while
								 * connecting */
	char	   *error;			/* why it could not connect, or NULL */
	int64_t		retry_at;
	int			delay;
	Job		   *job;
	int64_t		give_up_at;		/* that job, if the server has not ended it */
	PGresult   *result;			/* of the job, so far */
} Database;

static const char *conninfo;
static const char *const *statements;
static int	statement_count;
static char options[64];		/* of the server */
static int	statement_timeout;	/* ms */
static bool stopped;

static Database *databases;
static int	database_count;		/* without the one for the job that waits,
								 * which is the last */
static Job *waiting_job;
static bool failing;			/* the last attempt to connect has failed */
static bool complained;			/* of that; said once until all are open */
static bool connected;			/* said, and not lost since */
static Source opened;			/* where threads hand over */
static int	opened_end;
static uint64_t lost;

static Job *first_job;
static Job **last_job = &first_job;
static int	waiting;

/* ---- connecting, in a thread ---- */

/* Prepares the statements, by the names 0, 1, ... An error is to be freed; NULL: none. */
static char *
prepare_all(PGconn *connection)
{
	for (int i = 0; i < statement_count; i++)
	{
		char		name[16];
		PGresult   *result;
		char	   *error = NULL;

		snprintf(name, sizeof(name), "%d", i);
		result = PQprepare(connection, name, statements[i], 1, NULL);
		if (PQresultStatus(result) != PGRES_COMMAND_OK)
		{
			const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

			if (asprintf(&error, "%s: %s%s", statements[i], message ? message : PQerrorMessage(connection),
						 i == 0 ? " (is the extension in this database? CREATE EXTENSION poll_ext)" : "") < 0)
				die("out of memory");
		}
		PQclear(result);
		if (error != NULL)
			return error;
	}
	return NULL;
}

static void
ignore_notice(void *arg, const PGresult *result)
{
}

static void *
open_database(void *arg)
{
	Database   *database = arg;

	/* what comes before dbname is a default, which conninfo may override */
	const char *const keywords[] = {"options", "connect_timeout", "fallback_application_name", "dbname",
	"client_encoding", NULL};
	const char *const values[] = {options, "5", PROGRAM, conninfo, "UTF8", NULL};
	PGconn	   *connection = PQconnectdbParams(keywords, values, 1);

	if (PQstatus(connection) != CONNECTION_OK)
		database->error = strdup(PQerrorMessage(connection));
	else
		database->error = prepare_all(connection);
	if (database->error != NULL || PQsetnonblocking(connection, 1) != 0)
	{
		PQfinish(connection);
		connection = NULL;
	}
	else
		PQsetNoticeReceiver(connection, ignore_notice, NULL);
	database->connection = connection;
	if (write(opened_end, &database, sizeof(database)) != sizeof(database))
		die("cannot hand over a connection: %m");
	return NULL;
}

static void
connect_database(Database *database)
{
	pthread_t	thread;
	sigset_t	all,
				before;
	int			error;

	/* signals are for the loop */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&thread, NULL, open_database, database);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error != 0)
	{
		errno = error;
		say("cannot start a thread: %m");
		database->retry_at = loop_now() + LAST_DELAY;
		return;
	}
	pthread_detach(thread);
	database->state = DATABASE_CONNECTING;
}

/* ---- jobs ---- */

static bool
is_for_waiting(const Database *database)
{
	return database == &databases[database_count];
}

static Job *
next_job(void)
{
	Job		   *job = first_job;

	if (job == NULL)
		return NULL;
	first_job = job->next;
	if (first_job == NULL)
		last_job = &first_job;
	waiting--;
	return job;
}

static void
refuse(Job *job)
{
	job->done(job, NULL);
}

/* Nobody will serve those who wait. */
static void
refuse_jobs(void)
{
	Job		   *job;

	while ((job = next_job()) != NULL)
		refuse(job);
}

/* The connection is of no use any more; its job has no result. */
static void
lose(Database *database)
{
	Job		   *job = database->job;

	PQfinish(database->connection);
	PQclear(database->result);
	database->connection = NULL;
	database->result = NULL;
	database->job = NULL;
	database->source.watched = 0;
	database->state = DATABASE_DOWN;
	database->retry_at = loop_now() + database->delay;
	database->delay = database->delay * 2 > LAST_DELAY ? LAST_DELAY : database->delay * 2;
	lost++;
	if (job != NULL)
		refuse(job);
}

/* Sends what is not sent yet. */
static void
flush(Database *database)
{
	int			left = PQflush(database->connection);

	if (left < 0)
		lose(database);
	else
		loop_watch(&database->source, left ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static Job *
job_for(const Database *database)
{
	Job		   *job = waiting_job;

	if (!is_for_waiting(database))
		return next_job();
	waiting_job = NULL;
	return job;
}

/* Gives the next job to a connection that is free. */
static void
serve(Database *database)
{
	Job		   *job = job_for(database);
	char		name[16];
	const char *values[1];

	if (job == NULL)
		return;
	database->job = job;
	database->give_up_at = loop_now() + statement_timeout + GRACE;
	database->state = DATABASE_BUSY;
	values[0] = job->parameter;
	snprintf(name, sizeof(name), "%d", job->statement);
	if (!PQsendQueryPrepared(database->connection, name, 1, values, NULL, NULL, 0))
		lose(database);
	else
		flush(database);
}

static bool
has_connections(void)
{
	for (int i = 0; i < database_count; i++)
		if (databases[i].state == DATABASE_IDLE || databases[i].state == DATABASE_BUSY)
			return true;
	return false;
}

void
pool_submit(Job *job)
{
	job->next = NULL;
	*last_job = job;
	last_job = &job->next;
	waiting++;
	for (int i = 0; i < database_count; i++)
	{
		if (databases[i].state == DATABASE_IDLE)
		{
			serve(&databases[i]);
			return;
		}
	}
	/* while it starts, and in the moment after a restart, wait */
	if (stopped || (failing && !has_connections()))
		refuse_jobs();
}

void
pool_submit_waiting(Job *job)
{
	Database   *database = &databases[database_count];

	waiting_job = job;
	if (database->state == DATABASE_IDLE)
		serve(database);
	else if (database->state != DATABASE_CONNECTING || stopped)
	{
		waiting_job = NULL;
		refuse(job);
	}
}

/* ---- what happens to a connection ---- */

/*
 * A statement that the server does not have any more, or whose result has
 * changed, is to be prepared again: in a new connection.
 */
static bool
is_outdated(const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	return sqlstate != NULL && (strcmp(sqlstate, "0A000") == 0 || strcmp(sqlstate, "26000") == 0);
}

static void
receive(Database *database)
{
	PGconn	   *connection = database->connection;
	Job		   *job = database->job;
	PGresult   *result;

	for (;;)
	{
		if (PQisBusy(connection))
			return;
		result = PQgetResult(connection);
		if (result == NULL)
			break;
		PQclear(database->result);
		database->result = result;
	}
	result = database->result;
	database->result = NULL;
	database->job = NULL;
	if (PQstatus(connection) != CONNECTION_OK || is_outdated(result))
		lose(database);
	else
		database->state = DATABASE_IDLE;
	job->done(job, result);
	if (database->state == DATABASE_IDLE)
		serve(database);
}

static void
database_ready(Source *source, uint32_t events)
{
	Database   *database = (Database *) source;

	if (database->connection == NULL)
		return;
	if ((events & EPOLLOUT) != 0)
	{
		flush(database);
		if (database->connection == NULL)
			return;
	}
	if (!PQconsumeInput(database->connection))
	{
		if (connected)
			say("lost a connection: %s", PQerrorMessage(database->connection));
		connected = false;
		lose(database);
		return;
	}
	if (database->state == DATABASE_BUSY)
		receive(database);
	else
	{
		PGnotify   *notify;

		while ((notify = PQnotifies(database->connection)) != NULL)
			PQfreemem(notify);
	}
}

/* A thread has connected, or not. */
static void
database_opened(Source *source, uint32_t events)
{
	Database   *database;

	if (read(source->fd, &database, sizeof(database)) != sizeof(database))
		return;
	if (database->connection == NULL)
	{
		if (!complained)
			say("cannot use the database, trying on: %s", database->error ? database->error : "out of memory");
		complained = failing = true;
		free(database->error);
		database->error = NULL;
		lose(database);
		if (is_for_waiting(database) && waiting_job != NULL)
			refuse(job_for(database));
		if (!has_connections())
			refuse_jobs();
		return;
	}
	if (stopped)
	{
		lose(database);
		return;
	}
	if (!connected)
		say("connected to %s as %s", PQdb(database->connection), PQuser(database->connection));
	connected = true;
	failing = false;
	database->delay = FIRST_DELAY;
	database->state = DATABASE_IDLE;
	if (pool_state().down == 0)
		complained = false;
	database->source.fd = PQsocket(database->connection);
	database->source.ready = database_ready;
	loop_watch(&database->source, EPOLLIN);
	serve(database);
}

/* ---- from outside ---- */

void
pool_start(const char *conninfo_arg, int connections, int timeout,
		   const char *const *statements_arg, int statement_count_arg)
{
	int			ends[2];
	char	   *error = NULL;
	PQconninfoOption *parsed;

	/* without any of these it is the name of a database */
	if ((parsed = PQconninfoParse(conninfo_arg, &error)) == NULL && strpbrk(conninfo_arg, "=:/") != NULL)
		die("--dbname: %s", error);
	PQconninfoFree(parsed);
	PQfreemem(error);
	conninfo = conninfo_arg;
	statements = statements_arg;
	statement_count = statement_count_arg;
	statement_timeout = timeout;
	snprintf(options, sizeof(options), "-c statement_timeout=%d", timeout);
	databases = calloc(connections + 1, sizeof(Database));
	if (databases == NULL || pipe2(ends, O_CLOEXEC) != 0)
		die("cannot start: %m");
	opened.fd = ends[0];
	opened.ready = database_opened;
	opened_end = ends[1];
	loop_watch(&opened, EPOLLIN);
	database_count = connections;
	for (int i = 0; i <= connections; i++)
	{
		databases[i].delay = FIRST_DELAY;
		connect_database(&databases[i]);
	}
}

void
pool_tick(void)
{
	int64_t		now = loop_now();

	/* the first in line waits longest */
	while (first_job != NULL && first_job->deadline < now)
		refuse(next_job());
	for (int i = 0; i <= database_count; i++)
	{
		Database   *database = &databases[i];

		if (database->state == DATABASE_BUSY && database->give_up_at < now)
		{
			say("gave up a connection that does not answer");
			lose(database);
		}
		if (database->state == DATABASE_DOWN && database->retry_at <= now && !stopped)
			connect_database(database);
	}
}

PoolState
pool_state(void)
{
	PoolState	state = {.waiting = waiting,.lost = lost};

	for (int i = 0; i < database_count; i++)
	{
		switch (databases[i].state)
		{
			case DATABASE_IDLE:
				state.idle++;
				break;
			case DATABASE_BUSY:
				state.busy++;
				break;
			default:
				state.down++;
		}
	}
	return state;
}

void
pool_stop(void)
{
	stopped = true;
	refuse_jobs();
	for (int i = 0; i <= database_count; i++)
		if (databases[i].state == DATABASE_IDLE || databases[i].state == DATABASE_BUSY)
			lose(&databases[i]);
}
