/*
 * request.h
 *		A request, from its first line to its answer.
 */
#ifndef REQUEST_H
#define REQUEST_H

#include <microhttpd.h>
#include <stdbool.h>

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
	Job			job;
} Request;

#endif							/* REQUEST_H */
