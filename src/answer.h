/*
 * answer.h
 *		The answer to a poll, as JSON, and shorter ones.
 */
#ifndef POLL_ANSWER_H
#define POLL_ANSWER_H

#include "lib/stringinfo.h"

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
	bool		timed;			/* it may have a time */
	TimestampTz time;			/* 0 = it has none */
	double		poll_after;		/* seconds */
} PollAnswer;

/* what follows the lasting part, at most, and what the rest takes beside its parts */
#define POLL_ANSWER_END_BYTES	192

/*
 * cursor: the text form of the request's, or NULL.  position, if not NULL: where
 * all that the answer's snapshot shows has been seen, unless it is behind or there was
 * nothing to read.
 */
extern PollAnswer poll_answer(PollRequest *request, text *cursor, int max_rows,
							  PollCursor *position);

/* The time that an answer may have that is as of the active snapshot; 0 = none. */
extern TimestampTz poll_answer_time(const PollRequest *request);

/* Completes a body, after its lasting part, with the answer's times. */
extern void poll_answer_end(PollAnswer *answer, StringInfo buf, int nfeeds);

/* Would a poll return anything, or has it more to say? */
extern bool poll_has_changes(PollRequest *request);

/* The cursor that a client would have that has polled everything. */
extern text *poll_current_cursor(PollRequest *request);

#endif							/* POLL_ANSWER_H */
