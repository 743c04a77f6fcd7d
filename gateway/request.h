/*
 * request.h
 *		A request, from its first line to its answer.
 */
#ifndef REQUEST_H
#define REQUEST_H

#include <microhttpd.h>
#include <stdbool.h>
#include <sys/queue.h>

#include "answer.h"
#include "metrics.h"
#include "pool.h"

typedef struct Request
{
	struct MHD_Connection *connection;
	char	   *query;			/* what follows the ? of the URL, as it came;
								 * or NULL */
	char	   *body;
	size_t		body_size;
	bool		begun;			/* its headers are there */
	bool		suspended;		/* was given to the database */
	bool		answered;
	Route		route;
	Answer		answer;
	double		arrived;		/* when all of it was there, in seconds */
	Job			job;			/* of a function */

	/* of a poll, see wait.c */
	char	   *parameter;		/* for poll.respond(): an object without its
								 * end */
	bool		job_asked;		/* once at least */
				TAILQ_ENTRY(Request) entry; /* of those who wait, or are to be
											 * asked for */
	bool		covered;		/* the database waits for its signals */
	int64_t		wait_until;		/* 0: it has not waited so far; 1: it shall no
								 * more */
	char	   *signals;		/* what it waits for, as text */
} Request;

#endif							/* REQUEST_H */
