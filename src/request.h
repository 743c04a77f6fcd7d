/*
 * request.h
 *		What a reading function was asked for, and the page that answers it.
 *
 *		poll_request_init()		checks the arguments
 *		poll_nothing_new()		true: that is the answer
 *		poll_request_begin()	from here on SQL may run
 *		poll_request_read()
 *		...						the answer is made of the page
 *		poll_request_end()
 */
#ifndef POLL_REQUEST_H
#define POLL_REQUEST_H

#include "fmgr.h"
#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"

#include "cursor.h"
#include "feedset.h"
#include "page.h"

typedef enum PollStart
{
	POLL_START_SYNC,			/* neither cursor nor time */
	POLL_START_NOW,
	POLL_START_SINCE,			/* a time */
	POLL_START_CURSOR
} PollStart;

typedef struct PollRequest
{
	PollSelection selection;
	PollFeedSet *set;
	PollStart	start;
	TimestampTz since;			/* for POLL_START_SINCE */
	bool		tick_found;		/* the cursor is the one of that time */
	PollCursor	cursor;			/* where it begins; but for _NOW */
	const PollView *horizon;	/* where it ends, if not at once; or NULL */
	bool		fresh;			/* who asks has been told that there is news */

	/* between poll_request_begin() and poll_request_end() */
	struct PollWork *work;
	MemoryContext caller;		/* what is allocated here stays */
	Snapshot	snapshot;
	PollView	view;
} PollRequest;

/*
 * Arguments of a function, as poll_request_init() takes them: NULL for NULL,
 * and an array of one for a single feed.
 */
extern ArrayType *poll_arg_feeds(FunctionCallInfo fcinfo, int argno);
extern ArrayType *poll_arg_feed(FunctionCallInfo fcinfo, int argno);
extern text *poll_arg_text(FunctionCallInfo fcinfo, int argno);
extern Jsonb *poll_arg_scope(FunctionCallInfo fcinfo, int argno);
extern const TimestampTz *poll_arg_time(FunctionCallInfo fcinfo, int argno, TimestampTz *value);

/* 1 to 10000; errors if it is not. */
extern void poll_check_max_rows(int max_rows);
extern int	poll_arg_max_rows(FunctionCallInfo fcinfo, int argno);

/*
 * Errors if they make no request: PT400, PT404, or PT410 if the cursor or the
 * time has expired.  Both NULL: a full sync.
 */
extern void poll_request_init(PollRequest *request, ArrayType *names, Jsonb *scope, text *cursor,
							  const TimestampTz *since);

/*
 * Is there nothing new, as can be told without a look at the log, and is the
 * cursor still the one to go on with?
 */
extern bool poll_nothing_new(const PollRequest *request);

/* May the next request say "since" that time? */
extern bool poll_request_covers(const PollRequest *request, TimestampTz since);

/* Finds out where a request since a time begins, instead of poll_request_begin(). */
extern void poll_request_find_tick(PollRequest *request, Snapshot snapshot);

extern void poll_request_begin(PollRequest *request);

/* Fills in the page; its content is set. */
extern void poll_request_read(PollRequest *request, int max_rows, PollPage *page);

/*
 * Where all that the snapshot shows has been seen, in the caller's memory: that is where
 * a complete page of changes ends.  Otherwise (next may be NULL) it is looked for, and it is learned
 * that there is nothing more.
 */
extern void poll_request_position(PollRequest *request, const PollCursor *next, PollCursor *position);

extern void poll_request_end(PollRequest *request);

#endif							/* POLL_REQUEST_H */
