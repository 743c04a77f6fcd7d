/*
 * catalog.h
 *		The extension's own tables: where they are, and the registry of feeds.
 */
#ifndef POLL_CATALOG_H
#define POLL_CATALOG_H

#include "access/transam.h"
#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "storage/lockdefs.h"
#include "utils/relcache.h"
#include "utils/uuid.h"

#define POLL_SCHEMA		"poll"

/* The change log is in so many tables: see segment.c. */
#define POLL_SEGMENTS	3

typedef struct PollFeed
{
	int64		id;				/* hash key; never reused; the feed's channel */
	NameData	name;
	Oid			relid;			/* the table; it may have been dropped */
	TransactionId xmin;			/* the transaction that tracked it */
	TransactionId stamp;		/* the same for as long as it stays tracked */
	bool		projected;		/* has a list of columns */
	bool		scoped;
	bool		always;
	bool		expose_deletes;
	TimestampTz tracked_at;
} PollFeed;

/* Is the extension there? */
extern bool poll_catalog_exists(void);

/* Errors if it is not. */
extern Oid	poll_catalog_change(int segment);
extern Oid	poll_catalog_change_index(int segment);
extern Oid	poll_catalog_feed(void);
extern Oid	poll_catalog_tick(void);
extern Oid	poll_catalog_tick_index(void);
extern Oid	poll_catalog_segment(void);
extern Oid	poll_catalog_rate_policy(void);
extern Oid	poll_catalog_shape(void);

/*
 * Copies the feed with that name or id as the last commit left it; false if
 * there is none.
 */
extern bool poll_catalog_find(const char *name, PollFeed *feed);
extern bool poll_catalog_find_id(int64 id, PollFeed *feed);

/*
 * The feed's columns and the columns of its scope, lists of char *, palloc'd
 * in the current memory context; NIL for a feed without.  Errors if the feed
 * is gone.
 */
extern void poll_catalog_lists(int64 id, List **columns, List **scope);

/* The ids of the feeds of a table, or of all, as int64 *, palloc'd, in order. */
extern List *poll_catalog_feeds_of(Oid relid);

/*
 * Grows whenever something may have changed that the registry, a tracked
 * table or a privilege depends on.
 */
extern uint64 poll_catalog_generation(void);

/* Identifies the log that a cursor belongs to: on this timeline, or another one. */
extern uint64 poll_catalog_epoch(void);
extern uint64 poll_catalog_epoch_on(TimeLineID timeline);

/* The timeline that this server is on. */
extern TimeLineID poll_catalog_timeline(void);

/* The time that this log begins at. */
extern TimestampTz poll_catalog_created_at(void);

/* A random number that nobody but superusers can know. */
extern const pg_uuid_t *poll_catalog_secret(void);

/* schema.table, quoted; palloc'd. */
extern char *poll_catalog_table_name(Oid relid);

extern Oid	poll_catalog_owner(Oid relid);

/*
 * Opens one of the tables above.  Its oid may be from before a DROP EXTENSION that
 * is heard of only now: then that is an error.
 */
extern Relation poll_catalog_open(Oid relid, LOCKMODE lockmode);

/* Opens the table of a feed, to read it; errors if it was dropped. */
extern Relation poll_catalog_open_feed(const PollFeed *feed);

/* Is it poll.segment, or perhaps?  For the relcache callback. */
extern bool poll_catalog_is_segment(Oid relid);

/* Called by the relcache callback; true if the registry itself is stale. */
extern bool poll_catalog_invalidate(Oid relid);

/* Called by the callbacks of the caches that privileges depend on. */
extern void poll_catalog_privileges_changed(void);

#endif							/* POLL_CATALOG_H */
