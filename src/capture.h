/*
 * capture.h
 *		The row trigger, and its buffers.
 */
#ifndef POLL_CAPTURE_H
#define POLL_CAPTURE_H

#include "utils/rel.h"
#include "utils/reltrigger.h"

#include "catalog.h"
#include "changelog.h"

/* The feed that a trigger on rel, with the feed's id as argument, belongs to. */
extern bool poll_capture_feed(Trigger *trigger, Relation rel, PollFeed *feed);

/* Logs an entry that is about the whole feed. */
extern void poll_capture_barrier(int64 feed, PollOp op, const char *payload, int len);

/*
 * Is the table of the feed empty since this transaction truncated it?  And:
 * from now on it is.
 */
extern bool poll_capture_is_empty(int64 feed);
extern void poll_capture_set_empty(int64 feed);

/* Called by _PG_init(): registers the transaction callbacks. */
extern void poll_capture_install(void);

/* Called by the relcache callback. */
extern void poll_capture_invalidate(Oid relid);

#endif							/* POLL_CAPTURE_H */
