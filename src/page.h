/*
 * page.h
 *		A page of changes: what one poll answers.
 */
#ifndef POLL_PAGE_H
#define POLL_PAGE_H

#include "access/tupdesc.h"
#include "lib/ilist.h"
#include "lib/stringinfo.h"
#include "utils/tuplestore.h"

#include "changelog.h"
#include "cursor.h"

/* What a page is to hold of each change. */
typedef enum PollContent
{
	POLL_CONTENT_ROWS,			/* JSON of key and live row */
	POLL_CONTENT_KEYS,			/* JSON of the key alone */
	POLL_CONTENT_TUPLES,		/* the live row as a tuple */
	POLL_CONTENT_NONE
} PollContent;

typedef enum PollResult
{
	POLL_RESULT_UPSERT,			/* the row is there */
	POLL_RESULT_DELETE,			/* it is not */
	POLL_RESULT_SKIP,			/* the caller may not know which */
	POLL_RESULT_TRUNCATE		/* the whole feed is empty; no key */
} PollResult;

/* A key that changed: its last change within the page. */
typedef struct PollChange
{
	dlist_node	node;
	int			feed;			/* member of the feed set */
	const char *key;			/* as in the log */
	int			keylen;
	PollPosition at;			/* xid 0: comes from a full sync */

	/* filled in by the reader; places in the page's json */
	PollResult	result;
	int			json_key;
	int			json_key_len;
	int			json_data;		/* for POLL_RESULT_UPSERT */
	int			json_data_len;
} PollChange;

typedef struct PollPage
{
	PollContent content;
	int			nchanges;
	PollChange **changes;		/* in order */
	PollChange **by_feed;		/* the same, feed by feed */
	int		   *feed_start;		/* where in by_feed each feed begins; n + 1 */
	PollCursor	next;			/* the cursor after the page */
	bool		has_more;
	bool		behind;			/* nothing read: the snapshot is too old */
	StringInfo	json;			/* of keys and rows */
	Tuplestorestate *tuples;	/* for POLL_CONTENT_TUPLES */
	TupleDesc	desc;			/* the table's */
} PollPage;

#endif							/* POLL_PAGE_H */
