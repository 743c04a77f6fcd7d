/*
 * pool.h
 *		Connections to the database, and who waits for one.
 */
#ifndef POOL_H
#define POOL_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

/* A call of a prepared statement with one parameter, embedded by its owner. */
typedef struct Job
{
	int			statement;
	char	   *parameter;
	int64_t		deadline;		/* for a connection to serve it, see
								 * loop_now() */

	/*
	 * Gets the result, to free; or NULL if there was no connection, none
	 * became free in time, or it broke.
	 */
	void		(*done) (struct Job *job, PGresult *result);

	struct Job *next;
} Job;

typedef struct PoolState
{
	int			idle;
	int			busy;
	int			down;
	int			waiting;		/* jobs */
	uint64_t	lost;			/* connections, or attempts to get one */
} PoolState;

/*
 * Opens the connections, and one more for what waits, which takes its time. The statements are prepared in
 * each one. timeout, in milliseconds, is for a statement.
 */
extern void pool_start(const char *conninfo, int connections, int timeout,
					   const char *const *statements, int statement_count);

extern void pool_submit(Job *job);

/*
 * The same on a connection of its own, beside the others: for one job at a time, which may
 * wait.
 */
extern void pool_submit_waiting(Job *job);

/* To be called several times a second: ends what takes too long, connects again. */
extern void pool_tick(void);

extern PoolState pool_state(void);

/* Closes the connections; whoever waits, or comes later, gets no result. */
extern void pool_stop(void);

#endif							/* POOL_H */
