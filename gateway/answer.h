/*
 * answer.h
 *		What goes back to a client.
 */
#ifndef ANSWER_H
#define ANSWER_H

#include <libpq-fe.h>
#include <microhttpd.h>
#include <stdbool.h>

typedef struct Answer
{
	int			status;
	size_t		size;			/* of the body, in bytes */
	struct MHD_Response *response;	/* NULL: out of memory */
} Answer;

/* A body that stays where it is. */
extern Answer answer_static(int status, const char *type, const char *body, size_t size);

/* A text, of which a copy is made. */
extern Answer answer_text(int status, const char *type, const char *body);

/* Problem details (RFC 9457). detail may be NULL. */
extern Answer answer_problem(int status, const char *detail);

/*
 * The row that poll.respond() has returned, or the value of another function,
 * as JSON. An error, or that there is no result (NULL), becomes a problem. The
 * result belongs to the answer.
 */
extern Answer answer_row(PGresult *result);
extern Answer answer_value(PGresult *result);

extern void answer_header(Answer *answer, const char *name, const char *value);

#endif							/* ANSWER_H */
