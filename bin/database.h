/*
 * database.h
 *		The connection to the database.
 */
#ifndef DATABASE_H
#define DATABASE_H

#include <libpq-fe.h>

/* Connects.  It ends the program if that fails. */
extern void database_open(void);

typedef enum Outcome
{
	DONE,						/* there is a result */
	AGAIN,						/* an error that passes; the connection is
								 * there */
	EXPIRED						/* the cursor has */
} Outcome;

/*
 * Runs a statement with values for $1, $2, ...  Says what is wrong, and ends the
 * program if trying again would not help.  The result is to be cleared; NULL if it is
 * not DONE.
 */
extern Outcome database_query(const char *sql, int count, const char *const *values, PGresult **result);

/* The feeds as an array of SQL. */
extern const char *database_feeds(void);

/* How long a statement may wait for changes, in milliseconds; NULL: not at all. */
extern const char *database_wait_time(void);

/* Ends the statement that is under way, if there is one.  For signal handlers. */
extern void database_cancel(void);

#endif							/* DATABASE_H */
