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

/* A result that several answers are made of; it is cleared when the last is gone. */
typedef struct Result
{
	PGresult   *result;			/* or NULL */
	int			users;
} Result;

/* It has one user then. */
extern Result *answer_result(PGresult *result);
extern void answer_release(Result *result);

/*
 * The row that poll.respond() has returned, or the value of another function, as
 * JSON. An error, or that there is no result, becomes a problem. The answer is
 * another user.
 */
extern Answer answer_row(Result *result, int row);
extern Answer answer_value(Result *result);

extern void answer_header(Answer *answer, const char *name, const char *value);

#endif							/* ANSWER_H */
