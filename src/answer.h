/*
 * answer.h
 *		The answer to a poll, as JSON, and shorter ones.
 */
#ifndef POLL_ANSWER_H
#define POLL_ANSWER_H

#include "request.h"

typedef struct PollAnswer
{
	text	   *body;
	Size		lasting;		/* its length without the time and what
								 * follows */
	text	   *cursor;			/* the one in it */
	bool		has_more;
	bool		behind;
	bool		empty;			/* no changes, and no more */
	double		poll_after;		/* seconds */
} PollAnswer;

/* cursor: the text form of the request's, or NULL. */
extern PollAnswer poll_answer(PollRequest *request, text *cursor, int max_rows);

/* Would a poll return anything, or has it more to say? */
extern bool poll_has_changes(PollRequest *request);

/* The cursor that a client would have that has polled everything. */
extern text *poll_current_cursor(PollRequest *request);

#endif							/* POLL_ANSWER_H */
