/*
 * feedset.h
 *		The feeds that a request names, checked for its caller.
 */
#ifndef POLL_FEEDSET_H
#define POLL_FEEDSET_H

#include "utils/array.h"
#include "utils/jsonb.h"
#include "utils/snapshot.h"

#include "catalog.h"
#include "cursor.h"

/* One request may name so many feeds. */
#define POLL_MAX_FEEDS	1000

/*
 * A channel of the log that a request reads, and what an earlier look has
 * shown: while poll_flushed_read() returns flushed, there is nothing at or
 * above quiet_from.  0 = no such look.
 */
typedef struct PollStream
{
	int64		channel;
	uint64		flushed;
	uint64		quiet_from;
} PollStream;

#define POLL_MAX_STREAMS	2

typedef struct PollMember
{
	PollFeed	feed;
	int			nstreams;
	PollStream	streams[POLL_MAX_STREAMS];	/* the feed's own and its scope's */
	Size		scope;			/* where in the set its scope is, see
								 * poll_scope_append() */
	int			scope_len;		/* 0 = the feed has none */
	int			row_security;	/* CheckEnableRlsResult: RLS_ENABLED if
								 * policies decide what this caller sees */
} PollMember;

typedef struct PollFeedSet
{
	uint32		request_hash;	/* for cursors: of names and scope */
	uint32		ids_hash;
	Size		size;			/* of all, in one piece */
	Size		empty;			/* where in the set the JSON of no changes is */
	int			empty_len;
	int			n;
	PollMember	members[FLEXIBLE_ARRAY_MEMBER]; /* by name, no name twice */
} PollFeedSet;

/* The feeds as JSON, each with an empty list: "a":[],"b":[] */
static inline const char *
poll_feedset_empty(const PollFeedSet *set)
{
	return (const char *) set + set->empty;
}

/* The scope that was asked of that member; NULL = the feed has none. */
static inline const char *
poll_feedset_scope(const PollFeedSet *set, int member)
{
	return set->members[member].scope_len == 0 ? NULL :
		(const char *) set + set->members[member].scope;
}

/* What a request asks for: a list of names, and NULL or an object. */
typedef struct PollSelection
{
	ArrayType  *names;
	Jsonb	   *scope;
} PollSelection;

/*
 * The feeds named in the array, which the current user may read and the
 * snapshot shows; errors if one is not, if the array is no list of names, or
 * if the scope does not fit the feeds.  The result may be replaced by any call
 * that runs SQL; poll_feedset_copy() gives one that stays.
 */
extern PollFeedSet *poll_feedset_get(const PollSelection *selection, Snapshot snapshot);
extern PollFeedSet *poll_feedset_copy(const PollFeedSet *set);

/* Hands back to the cached set what was learned with a copy of it. */
extern void poll_feedset_learn(const PollSelection *selection, const PollFeedSet *copy);

/* Is there surely nothing at or above x in any feed of the set? */
extern bool poll_feedset_quiet(const PollFeedSet *set, uint64 x);
extern bool poll_stream_quiet(const PollStream *stream, uint64 x);

/* The cursor of the argument; errors if it is none of these feeds' or expired. */
extern void poll_feedset_cursor(const PollFeedSet *set, text *str, PollCursor *cursor);

/* Fills in the parts of a cursor that say whose it is. */
extern void poll_feedset_stamp(const PollFeedSet *set, PollCursor *cursor);

#endif							/* POLL_FEEDSET_H */
