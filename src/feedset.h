/*
 * feedset.h
 *		The feeds that a request names, checked for its caller.
 */
#ifndef POLL_FEEDSET_H
#define POLL_FEEDSET_H

#include "utils/array.h"
#include "utils/snapshot.h"

#include "catalog.h"
#include "cursor.h"

/* One request may name so many feeds. */
#define POLL_MAX_FEEDS	1000

typedef struct PollMember
{
	PollFeed	feed;

	/*
	 * What an earlier look has shown: while poll_flushed_read() returns
	 * flushed, there is nothing at or above quiet_from.  0 = no such look.
	 */
	uint64		flushed;
	uint64		quiet_from;
} PollMember;

typedef struct PollFeedSet
{
	uint32		names_hash;		/* for cursors */
	uint32		ids_hash;
	int			empty_len;		/* see poll_feedset_empty() */
	int			n;
	PollMember	members[FLEXIBLE_ARRAY_MEMBER]; /* by name, no name twice */
} PollFeedSet;

/* The feeds as JSON, each with an empty list: "a":[],"b":[] */
static inline char *
poll_feedset_empty(const PollFeedSet *set)
{
	return (char *) &set->members[set->n];
}

/*
 * The feeds named in the array, which the current user may read and the
 * snapshot shows; errors if one is not, or if the array is no list of names.
 * The result may be replaced by any call that runs SQL; poll_feedset_copy()
 * gives one that stays.
 */
extern PollFeedSet *poll_feedset_get(ArrayType *names, Snapshot snapshot);
extern PollFeedSet *poll_feedset_copy(const PollFeedSet *set);

/* Hands back to the cached set what was learned with a copy of it. */
extern void poll_feedset_learn(ArrayType *names, const PollFeedSet *copy);

/* Is there surely nothing at or above x in any feed of the set? */
extern bool poll_feedset_quiet(const PollFeedSet *set, uint64 x);
extern bool poll_member_quiet(const PollMember *member, uint64 x);

/* The cursor of the argument; errors if it is none of these feeds' or expired. */
extern void poll_feedset_cursor(const PollFeedSet *set, text *str, PollCursor *cursor);

/* Fills in the parts of a cursor that say whose it is. */
extern void poll_feedset_stamp(const PollFeedSet *set, PollCursor *cursor);

#endif							/* POLL_FEEDSET_H */
